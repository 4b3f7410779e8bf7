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
 *
 * Measured, one Zen 4 core, bf16, 9 heads in 3 groups of 64: 32 rows of 100 to 2,000 tokens from
 * memory 4.2 ms (6 GB/s; at the rate of one row in the cache 2.6); 32 rows of 345 1.1 ms, with 272
 * of them shared 0.5; 256 rows of prefill 2.0 ms (68 GFLOP/s). So arithmetic, not memory, is the
 * limit on two cores: 88 cycles per token and kv head, of which 24 multiply. Tried: one kv head per
 * item reads a third of every token and gets 10 GB/s of the memory's 33 (7.7 ms); prefetching the
 * block that comes next in order, 6.5 to 4.2 ms.
 */
#include "kernels/cpu/tile.h"

enum {
    PAIRS = 512,         /* most (row, query head) pairs of one item */
    PAIR_FLOATS = 32768, /* and their floats */
    SPLIT = 256,         /* tokens of one running softmax: a multiple of FC_TILE_KEYS */
    SPLIT_FLOATS = 65536 /* room for the states of rows whose splits are items of their own */
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

/* What one item computes: rows first .. end of kv heads g0 .. g1. Its (query head, row) pairs are
 * numbered kv head by kv head, row by row, the heads of the group last. */
struct part {
    size_t first, end, g0, g1;
};

static size_t pair_of(const struct call *c, const struct part *p, size_t g, size_t row)
{
    return ((g - p->g0) * (p->end - p->first) + row - p->first) * c->group;
}

static size_t pairs_of(const struct call *c, const struct part *p)
{
    return (p->g1 - p->g0) * (p->end - p->first) * c->group;
}

/* A softmax in progress over pairs: the largest score, the sum of exp(score - max), and the values
 * weighted alike: o[pair][hsp]. */
struct state {
    float *max, *sum, *o;
};

struct scratch {
    _Alignas(64) float q[PAIR_FLOATS];
    _Alignas(64) float split_o[PAIR_FLOATS], whole_o[PAIR_FLOATS];
    _Alignas(64) float v[FC_TILE_KEYS * FC_TILE_MAX_HS];  /* [keys][hsp] */
    _Alignas(64) float kt[FC_TILE_KEYS * FC_TILE_MAX_HS]; /* [hsp][FC_TILE_KEYS] */
    _Alignas(64) float s[FC_TILE_ROWS * FC_TILE_KEYS];
    float split_max[PAIRS], split_sum[PAIRS], whole_max[PAIRS], whole_sum[PAIRS];
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

/* Where the keys and values of n tokens from k0 of a row lie. */
static void find_heads(const struct call *c, struct fc_tile_heads *keys,
                       struct fc_tile_heads *values, size_t row, size_t k0, size_t n)
{
    const int32_t *table = c->tables + row * c->table_width;
    size_t page_size = c->pages->page_size, page = k0 / page_size, slot = k0 % page_size;
    *keys = *values = (struct fc_tile_heads){.n = n, .hs = c->hs, .dt = c->dt};
    for (size_t i = 0; i < n; i++) {
        size_t at = ((size_t)table[page] * page_size + slot) * c->h->nkv * c->hs;
        keys->token[i] = fc_cpu_at(c->pages->keys, at, c->dt);
        values->token[i] = fc_cpu_at(c->pages->values, at, c->dt);
        if (++slot == page_size) {
            slot = 0;
            page++;
        }
    }
}

/* Asks for kv heads g0 .. g1 of tokens i .. end: pages lie anywhere, so the hardware cannot foresee
 * which comes next. */
static void prefetch(const struct fc_tile_heads *h, const struct part *p, size_t i, size_t end)
{
    size_t size = fc_dtype_size(h->dt), from = p->g0 * h->hs * size, to = p->g1 * h->hs * size;
    for (; i < end; i++)
        for (size_t at = from; at < to; at += 64)
            __builtin_prefetch((const char *)h->token[i] + at, 0, 2);
}

/* Pairs i .. stop, the first of them of row `row`, take in a block of n keys from k0, which lies in
 * x->kt and x->v. */
static void attend_pairs(const struct call *c, struct scratch *x, const struct state *split,
                         size_t i, size_t stop, size_t row, size_t k0, size_t n)
{
    size_t padded = fc_tile_pad(n), first = i;
    for (; i < stop; i += FC_TILE_ROWS) {
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
            fc_tile_softmax(
                x->s + r * FC_TILE_KEYS, keys_seen(c, row + (i + r - first) / c->group, k0), padded,
                &split->max[i + r], &split->sum[i + r], split->o + (i + r) * c->hsp, c->hsp);
        fc_tile_multiply(&(struct fc_tile){.c = split->o + i * c->hsp,
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

/* Rows row .. stop of an item, which share the block of keys from k0 with `longest`, take it in.
 * All kv heads of the item follow each other, since they lie side by side in memory. */
static void attend_block(const struct call *c, struct scratch *x, const struct part *p,
                         const struct state *split, size_t row, size_t stop, size_t longest,
                         size_t k0)
{
    struct fc_tile_heads keys, values, next_keys, next_values;
    size_t n = keys_seen(c, longest, k0), heads = p->g1 - p->g0;
    /* What comes next: the rows behind, or the first row's next block. */
    size_t next_row = stop < p->end ? stop : p->first;
    size_t next_k0 = stop < p->end ? k0 : k0 + FC_TILE_KEYS;
    size_t next = keys_seen(c, next_row, next_k0);
    find_heads(c, &keys, &values, longest, k0, n);
    find_heads(c, &next_keys, &next_values, next_row, next_k0, next);
    for (size_t g = p->g0; g < p->g1; g++) {
        size_t from = next * (g - p->g0) / heads, to = next * (g + 1 - p->g0) / heads;
        keys.offset = values.offset = g * c->hs;
        fc_tile_transpose(x->kt, &keys);
        prefetch(&next_keys, p, from, to);
        fc_tile_copy(x->v, &values);
        prefetch(&next_values, p, from, to);
        attend_pairs(c, x, split, pair_of(c, p, g, row), pair_of(c, p, g, stop), row, k0, n);
    }
}

static void load_queries(const struct call *c, struct scratch *x, const struct part *p)
{
    size_t width = (c->h->nh + 2 * c->h->nkv) * c->hs;
    for (size_t g = p->g0; g < p->g1; g++)
        for (size_t row = p->first; row < p->end; row++)
            for (size_t i = 0; i < c->group; i++)
                fc_tile_load(x->q + (pair_of(c, p, g, row) + i) * c->hsp,
                             fc_cpu_at(c->qkv, row * width + (g * c->group + i) * c->hs, c->dt),
                             c->hs, c->h->scale, c->dt);
}

/* Tokens k0 .. k0 + SPLIT of an item's rows, into an empty state. x->q is loaded. */
static void attend_split(const struct call *c, struct scratch *x, const struct part *p,
                         const struct state *split, size_t k0)
{
    state_clear(split, pairs_of(c, p), c->hsp);
    for (size_t k = k0; k < k0 + SPLIT; k += FC_TILE_KEYS)
        for (size_t row = p->first; row < p->end;) {
            size_t longest, stop = row + 1;
            if (keys_seen(c, row, k) > 0) {
                stop = shared_run(c, row, p->end, k, &longest);
                attend_block(c, x, p, split, row, stop, longest, k);
            }
            row = stop;
        }
}

static void store_rows(const struct call *c, const struct state *whole, const struct part *p)
{
    for (size_t g = p->g0; g < p->g1; g++)
        for (size_t row = p->first; row < p->end; row++)
            for (size_t i = 0; i < c->group; i++) {
                size_t pair = pair_of(c, p, g, row) + i;
                float *o = whole->o + pair * c->hsp;
                float inverse = whole->sum[pair] > 0.0f ? 1.0f / whole->sum[pair] : 0.0f;
                /* Adding 0 makes -0 of an underflow, whose sign keys of weight 0 may flip, 0. */
                for (size_t j = 0; j < c->hs; j++)
                    o[j] = o[j] * inverse + 0.0f;
                fc_cpu_store(c->out, (row * c->h->nh + g * c->group + i) * c->hs, o, c->hs, c->dt);
            }
}

/* An item where there are enough rows: all their keys. */
static void attend_rows(const struct call *c, const struct part *p)
{
    struct scratch x;
    struct state split = {x.split_max, x.split_sum, x.split_o};
    struct state whole = {x.whole_max, x.whole_sum, x.whole_o};
    size_t longest = 0, pairs = pairs_of(c, p);
    for (size_t row = p->first; row < p->end; row++)
        longest = length_of(c, row) > longest ? length_of(c, row) : longest;
    load_queries(c, &x, p);
    state_clear(&whole, pairs, c->hsp);
    for (size_t k0 = 0; k0 < longest; k0 += SPLIT) {
        attend_split(c, &x, p, &split, k0);
        state_merge(&whole, &split, pairs, c->hsp);
    }
    store_rows(c, &whole, p);
}

/* Item number `item` of those of `rows` rows and `heads` kv heads each. */
static struct part part_of(const struct call *c, size_t item, size_t T, size_t rows, size_t heads)
{
    size_t slices = (c->h->nkv + heads - 1) / heads;
    struct part p = {.first = item / slices * rows, .g0 = item % slices * heads};
    p.end = fc_cpu_min(p.first + rows, T);
    p.g1 = fc_cpu_min(p.g0 + heads, c->h->nkv);
    return p;
}

/* Few long rows: their splits are items of their own, merged in order when all are there. */
static void attend_splits(const struct call *c, size_t T, size_t splits, size_t heads, int threads)
{
    _Alignas(64) float room[SPLIT_FLOATS]; /* [row][split][pair][hsp], then max and sum likewise */
    size_t nh = c->h->nh, parts = T * ((c->h->nkv + heads - 1) / heads);
    float *max = room + T * splits * nh * c->hsp, *sum = max + T * splits * nh;
#pragma omp parallel num_threads(threads)
    {
        struct scratch x;
#pragma omp for schedule(dynamic)
        for (size_t item = 0; item < parts * splits; item++) {
            struct part p = part_of(c, item / splits, T, 1, heads);
            size_t at = (p.first * splits + item % splits) * nh + p.g0 * c->group;
            struct state split = {max + at, sum + at, room + at * c->hsp};
            load_queries(c, &x, &p);
            attend_split(c, &x, &p, &split, item % splits * SPLIT);
        }
#pragma omp for schedule(static)
        for (size_t row = 0; row < T; row++) {
            struct state whole = {x.whole_max, x.whole_sum, x.whole_o};
            state_clear(&whole, nh, c->hsp);
            for (size_t at = row * splits * nh; at < (row + 1) * splits * nh; at += nh) {
                struct state split = {max + at, sum + at, room + at * c->hsp};
                state_merge(&whole, &split, nh, c->hsp);
            }
            store_rows(c, &whole, &(struct part){row, row + 1, 0, c->h->nkv});
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
    size_t most = c.hs ? fc_cpu_min(PAIRS, PAIR_FLOATS / c.hsp) : 0; /* pairs of an item */
    if (most < c.group || c.hs > FC_TILE_MAX_HS) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "paged attention: head size %zu with %zu query heads per kv head is beyond the CPU "
                "kernel (head size at most %d, heads at most %d, floats of them at most %d)",
                c.hs, c.group, FC_TILE_MAX_HS, PAIRS, PAIR_FLOATS);
        return;
    }
    size_t longest = 0;
    for (size_t t = 0; t < T; t++)
        longest = length_of(&c, t) > longest ? length_of(&c, t) : longest;
    int threads = fc_cpu_threads(s, T * longest * h->nkv * h->hs);
    size_t items = 4 * (size_t)threads; /* wanted, so that ragged lengths even out */
    size_t splits = (longest + SPLIT - 1) / SPLIT;
    if (threads > 1 && T < items && splits > 1 && h->nh <= most &&
        T * h->nh * splits * (c.hsp + 2) <= SPLIT_FLOATS) {
        size_t share = T * h->nkv * splits / items;
        attend_splits(&c, T, splits, share < 1 ? 1 : fc_cpu_min(share, h->nkv), threads);
        return;
    }
    /* Kv heads first, because they lie side by side; then rows, which may share pages. */
    size_t share = T * h->nkv / items;
    size_t heads = fc_cpu_min(fc_cpu_min(share < 1 ? 1 : share, h->nkv), most / c.group);
    size_t rows = fc_cpu_min(share / heads, most / (heads * c.group));
    rows = rows < 1 ? 1 : rows;
    items = (T + rows - 1) / rows * ((h->nkv + heads - 1) / heads);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (size_t item = 0; item < items; item++) {
        struct part p = part_of(&c, item, T, rows, heads);
        attend_rows(&c, &p);
    }
}
