/* Attention of single rows over a paged KV cache: decode and chunked prefill; and the cache's
 * write.
 *
 * Floor: a row reads its keys and values once, 2 NKV HS elements per token, for 4 NH HS FLOPs per
 * token: with bf16 and groups of three that is 3 FLOPs per byte, so decode is bound by memory as
 * long as the arithmetic per group is done once. All query heads of a kv group go through the
 * products together. Rows that follow each other and have the same pages in a block of 64 keys
 * (chunked prefill; decoding requests behind a shared template) go together as well: the block is
 * read, converted and transposed once for all of them.
 *
 * The same bits whatever the company: a row's keys are taken in blocks of 64 from its first token,
 * the blocks of each 256 tokens share one running softmax, and these parts are merged in order.
 * Rows in a block do not mix (tile.h), keys behind a row's length enter with probability 0, and
 * nothing else depends on which rows are computed together, by whom, or in how many pieces. The
 * splits also let a few long rows feed many threads.
 */
#include "kernels/cpu/tile.h"

enum {
    ROWS = 128,         /* most (row, query head) pairs of one item */
    ROW_FLOATS = 8192,  /* and their floats */
    SPLIT = 256,        /* tokens of one running softmax: a multiple of FC_TILE_KEYS */
    PART_FLOATS = 65536 /* room for the parts of rows that are split between threads */
};

void fc_cpu_cache_write(struct fc_stream *s, const struct fc_pages *pages, const void *qkv,
                        const int32_t *slots, size_t T, const struct fc_heads *h, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
    size_t kv = h->nkv * h->hs, bytes = kv * fc_dtype_size(dt), width = h->nh * h->hs + 2 * kv;
#pragma omp parallel for schedule(static) num_threads(fc_cpu_threads(s, 2 * T * kv))
    for (size_t t = 0; t < T; t++) {
        const char *k = fc_cpu_at(qkv, t * width + h->nh * h->hs, dt);
        memcpy((char *)pages->keys + (size_t)slots[t] * bytes, k, bytes);
        memcpy((char *)pages->values + (size_t)slots[t] * bytes, k + bytes, bytes);
    }
}

/* One call, as its items see it. */
struct call {
    const struct fc_heads *h;
    const struct fc_pages *pages;
    enum fc_dtype dt;
    size_t hs, hsp; /* head size, and padded to whole lanes */
    size_t group;   /* query heads of a kv head */
    size_t table_width;
    const int32_t *tables, *lengths;
    const void *qkv;
    void *out;
};

/* A softmax in progress over (row, head) pairs: the largest score, the sum of exp(score - max), and
 * the values weighted alike: o[pair][hsp]. */
struct state {
    float *max, *sum, *o;
};

struct scratch {
    _Alignas(64) float q[ROW_FLOATS];
    _Alignas(64) float part_o[ROW_FLOATS], whole_o[ROW_FLOATS];
    _Alignas(64) float v[FC_TILE_KEYS * FC_TILE_MAX_HS];  /* [keys][hsp] */
    _Alignas(64) float kt[FC_TILE_KEYS * FC_TILE_MAX_HS]; /* [hsp][FC_TILE_KEYS] */
    _Alignas(64) float s[FC_TILE_ROWS * FC_TILE_KEYS];
    float part_max[ROWS], part_sum[ROWS], whole_max[ROWS], whole_sum[ROWS];
};

static void state_clear(const struct state *x, size_t pairs, size_t hsp)
{
    for (size_t i = 0; i < pairs; i++) {
        x->max[i] = -INFINITY;
        x->sum[i] = 0.0f;
    }
    memset(x->o, 0, pairs * hsp * sizeof *x->o);
}

/* whole = whole and, behind it, part. */
static void state_merge(const struct state *whole, const struct state *part, size_t pairs,
                        size_t hsp)
{
    for (size_t i = 0; i < pairs; i++) {
        if (part->sum[i] == 0.0f)
            continue;
        float max = part->max[i] > whole->max[i] ? part->max[i] : whole->max[i];
        float a = fc_cpu_exp(whole->max[i] - max), b = fc_cpu_exp(part->max[i] - max);
        whole->max[i] = max;
        whole->sum[i] = whole->sum[i] * a + part->sum[i] * b;
        float *restrict to = whole->o + i * hsp;
        const float *restrict from = part->o + i * hsp;
        for (size_t c = 0; c < hsp; c++)
            to[c] = to[c] * a + from[c] * b;
    }
}

static size_t length_of(const struct call *c, size_t row)
{
    return c->lengths[row] > 0 ? (size_t)c->lengths[row] : 0;
}

/* Keys that a row sees of the 64 from k0. */
static size_t keys_seen(const struct call *c, size_t row, size_t k0)
{
    size_t n = length_of(c, row);
    return n <= k0 ? 0 : fc_cpu_min(n - k0, FC_TILE_KEYS);
}

/* Whether two rows have the same pages for the first `keys` tokens from k0. */
static bool same_pages(const struct call *c, size_t a, size_t b, size_t k0, size_t keys)
{
    size_t first = k0 / c->pages->page_size, last = (k0 + keys - 1) / c->pages->page_size;
    return memcmp(c->tables + a * c->table_width + first, c->tables + b * c->table_width + first,
                  (last - first + 1) * sizeof *c->tables) == 0;
}

/* The rows from `row` on, before `end`, that can share the block of keys from k0: returns one past
 * the last, *longest is the one that sees the most keys. */
static size_t shared_run(const struct call *c, size_t row, size_t end, size_t k0, size_t *longest)
{
    *longest = row;
    size_t most = keys_seen(c, row, k0);
    for (row++; row < end; row++) {
        size_t keys = keys_seen(c, row, k0);
        if (keys == 0 || !same_pages(c, *longest, row, k0, fc_cpu_min(keys, most)))
            break;
        if (keys > most) {
            most = keys;
            *longest = row;
        }
    }
    return row;
}

/* x[pad(n)][hsp] = head g of `cache` for n tokens from k0 of a row, zero behind n. */
static void load_keys(const struct call *c, float *restrict x, const void *cache, size_t row,
                      size_t g, size_t k0, size_t n)
{
    const int32_t *table = c->tables + row * c->table_width;
    size_t page_size = c->pages->page_size, page = k0 / page_size, slot = k0 % page_size;
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)table[page] * page_size + slot;
        fc_tile_load_head(x + i * c->hsp, cache, (at * c->h->nkv + g) * c->hs, c->hs, 1.0f, c->dt);
        if (++slot == page_size) {
            slot = 0;
            page++;
        }
    }
    memset(x + n * c->hsp, 0, (fc_tile_pad(n) - n) * c->hsp * sizeof *x);
}

/* Rows first .. end, which share the block of keys from k0 with `longest`, take it in. `base` is
 * the item's first row. */
static void attend_block(const struct call *c, struct scratch *x, const struct state *part,
                         size_t base, size_t first, size_t end, size_t longest, size_t g, size_t k0)
{
    size_t n = keys_seen(c, longest, k0), padded = fc_tile_pad(n);
    load_keys(c, x->v, c->pages->keys, longest, g, k0, n);
    fc_tile_transpose(x->kt, x->v, n, c->hsp);
    load_keys(c, x->v, c->pages->values, longest, g, k0, n);
    size_t stop = (end - base) * c->group;
    for (size_t i = (first - base) * c->group; i < stop; i += FC_TILE_ROWS) {
        size_t m = fc_cpu_min(FC_TILE_ROWS, stop - i);
        fc_tile_multiply(&(struct fc_tile){.c = x->s,
                                           .ldc = FC_TILE_KEYS,
                                           .a = x->q + i * c->hsp,
                                           .a_row = c->hsp,
                                           .a_k = 1,
                                           .b = x->kt,
                                           .ldb = FC_TILE_KEYS,
                                           .m = m,
                                           .n = padded,
                                           .k = c->hsp});
        for (size_t r = 0; r < m; r++)
            fc_tile_softmax(x->s + r * FC_TILE_KEYS, keys_seen(c, base + (i + r) / c->group, k0),
                            padded, &part->max[i + r], &part->sum[i + r],
                            part->o + (i + r) * c->hsp, c->hsp);
        fc_tile_multiply(&(struct fc_tile){.c = part->o + i * c->hsp,
                                           .ldc = c->hsp,
                                           .a = x->s,
                                           .a_row = FC_TILE_KEYS,
                                           .a_k = 1,
                                           .b = x->v,
                                           .ldb = c->hsp,
                                           .m = m,
                                           .n = c->hsp,
                                           .k = n,
                                           .add = true});
    }
}

static void load_queries(const struct call *c, struct scratch *x, size_t first, size_t end,
                         size_t g)
{
    size_t width = (c->h->nh + 2 * c->h->nkv) * c->hs;
    for (size_t i = 0; i < (end - first) * c->group; i++)
        fc_tile_load_head(x->q + i * c->hsp, c->qkv,
                          (first + i / c->group) * width + (g * c->group + i % c->group) * c->hs,
                          c->hs, c->h->scale, c->dt);
}

/* Tokens k0 .. k0 + SPLIT of rows first .. end, into an empty state. x->q is loaded. */
static void attend_split(const struct call *c, struct scratch *x, const struct state *part,
                         size_t first, size_t end, size_t g, size_t k0)
{
    state_clear(part, (end - first) * c->group, c->hsp);
    for (size_t k = k0; k < k0 + SPLIT; k += FC_TILE_KEYS)
        for (size_t row = first; row < end;) {
            size_t longest, stop = row + 1;
            if (keys_seen(c, row, k) > 0) {
                stop = shared_run(c, row, end, k, &longest);
                attend_block(c, x, part, first, row, stop, longest, g, k);
            }
            row = stop;
        }
}

static void store_rows(const struct call *c, const struct state *whole, size_t first, size_t end,
                       size_t g)
{
    for (size_t i = 0; i < (end - first) * c->group; i++) {
        float *o = whole->o + i * c->hsp;
        float inverse = whole->sum[i] > 0.0f ? 1.0f / whole->sum[i] : 0.0f;
        /* Adding 0 makes -0 of an underflow, whose sign keys of weight 0 may flip, plain 0. */
        for (size_t j = 0; j < c->hs; j++)
            o[j] = o[j] * inverse + 0.0f;
        fc_cpu_store(c->out,
                     ((first + i / c->group) * c->h->nh + g * c->group + i % c->group) * c->hs, o,
                     c->hs, c->dt);
    }
}

/* One item where there are enough rows: rows first .. end of kv head g, all their keys. */
static void attend_rows(const struct call *c, size_t first, size_t end, size_t g)
{
    struct scratch x;
    struct state part = {x.part_max, x.part_sum, x.part_o};
    struct state whole = {x.whole_max, x.whole_sum, x.whole_o};
    size_t longest = 0, pairs = (end - first) * c->group;
    for (size_t row = first; row < end; row++)
        longest = length_of(c, row) > longest ? length_of(c, row) : longest;
    load_queries(c, &x, first, end, g);
    state_clear(&whole, pairs, c->hsp);
    for (size_t k0 = 0; k0 < longest; k0 += SPLIT) {
        attend_split(c, &x, &part, first, end, g, k0);
        state_merge(&whole, &part, pairs, c->hsp);
    }
    store_rows(c, &whole, first, end, g);
}

/* Few long rows: every (row, kv head, split) is an item; then the splits are merged in order. */
static void attend_splits(const struct call *c, size_t T, size_t splits, int threads)
{
    _Alignas(64) float room[PART_FLOATS];
    size_t pairs = T * c->h->nkv * splits * c->group, nkv = c->h->nkv;
    float *max = room + pairs * c->hsp, *sum = max + pairs;
#pragma omp parallel num_threads(threads)
    {
        struct scratch x;
#pragma omp for schedule(dynamic)
        for (size_t item = 0; item < T * nkv * splits; item++) {
            size_t row = item / (nkv * splits), g = item / splits % nkv, at = item * c->group;
            struct state part = {max + at, sum + at, room + at * c->hsp};
            load_queries(c, &x, row, row + 1, g);
            attend_split(c, &x, &part, row, row + 1, g, item % splits * SPLIT);
        }
        struct state whole = {x.whole_max, x.whole_sum, x.whole_o};
#pragma omp for schedule(static)
        for (size_t i = 0; i < T * nkv; i++) {
            state_clear(&whole, c->group, c->hsp);
            for (size_t split = 0; split < splits; split++) {
                size_t at = (i * splits + split) * c->group;
                struct state part = {max + at, sum + at, room + at * c->hsp};
                state_merge(&whole, &part, c->group, c->hsp);
            }
            store_rows(c, &whole, i / nkv, i / nkv + 1, i % nkv);
        }
    }
}

void fc_cpu_paged_attention(struct fc_stream *s, void *out, const void *qkv,
                            const struct fc_pages *pages, const int32_t *tables, size_t table_width,
                            const int32_t *lengths, size_t T, const struct fc_heads *h,
                            enum fc_dtype dt)
{
    if (!fc_cpu_ok(s) || T == 0)
        return;
    struct call c = {.h = h,
                     .pages = pages,
                     .dt = dt,
                     .hs = h->hs,
                     .hsp = fc_tile_pad(h->hs),
                     .group = h->nh / h->nkv,
                     .table_width = table_width,
                     .tables = tables,
                     .lengths = lengths,
                     .qkv = qkv,
                     .out = out};
    size_t most = c.hs ? fc_cpu_min(ROWS, ROW_FLOATS / c.hsp) / c.group : 0;
    if (most == 0 || c.hs > FC_TILE_MAX_HS) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "paged attention: head size %zu with %zu query heads per kv head is beyond the CPU "
                "kernel (head size at most %d, heads at most %d, floats of them at most %d)",
                c.hs, c.group, FC_TILE_MAX_HS, ROWS, ROW_FLOATS);
        return;
    }
    size_t longest = 0;
    for (size_t t = 0; t < T; t++)
        longest = length_of(&c, t) > longest ? length_of(&c, t) : longest;
    int threads = fc_cpu_threads(s, T * longest * h->nkv * h->hs);
    size_t splits = (longest + SPLIT - 1) / SPLIT;
    if (splits > 1 && threads > 1 && T * h->nkv < 4 * (size_t)threads &&
        T * h->nh * splits * (c.hsp + 2) <= PART_FLOATS) {
        attend_splits(&c, T, splits, threads);
        return;
    }
    /* Eight items for a thread, so that ragged lengths even out; more rows share more keys. */
    size_t rows = T * h->nkv / (8 * (size_t)threads);
    rows = rows < 1 ? 1 : fc_cpu_min(rows, most);
    size_t blocks = (T + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (size_t item = 0; item < blocks * h->nkv; item++) {
        size_t first = item / h->nkv * rows;
        attend_rows(&c, first, fc_cpu_min(first + rows, T), item % h->nkv);
    }
}
