/* Causal attention over packed sequences, forward and backward.
 *
 * Forward: online softmax over blocks of 64 keys (Dao 2023); backward recomputes the probabilities
 * from the stored log-sum-exp. One item of work is a block of queries of all heads of one kv group:
 * row r of the block is position r / G, head r % G, so the group's keys are converted and
 * transposed once for G heads, and the rows of a block of registers end at (nearly) the same key:
 * of the causal triangle little more is computed than 16 keys per row of waste.
 *
 * Floor: 2 products, 4 HS FLOPs per (query, head, key) seen, forward; 5 products backward; bytes
 * are negligible (every block of keys serves up to 128 rows). The limit is the FMA unit.
 *
 * Backward: an item is (sequence, kv head), which owns dk and dv of that head and adds its query
 * rows in order, so the bits do not depend on threads. dk and dv stay in the thread's scratch in
 * fp32, which bounds the keys of an item (1024 for HS 64); longer sequences are cut into chunks of
 * keys (dk, dv) and chunks of queries (dq), and pay for S and dP twice: 7 products instead of 5. In
 * return no scratch grows with T HS and one long sequence still feeds many threads.
 *
 * Measured, one Zen 4 core (its fp32 FMA peak is about 105 GFLOP/s), necessary causal GFLOP/s,
 * forward and backward, 9 heads in 3 groups of 64: 4 x 512 tokens 73 and 89; 20 x 60 tokens 38 and
 * 56; 30 to 300 ragged 63 and 82; one of 2,048 78 and 64 (7 products). Tried: fp32 copies of the
 * keys before transposing them (10 % slower at 512, 15 % at 60); masking and rescaling in nests of
 * sixteen instead of plain loops (5 % slower); bf16 dot products are left out: they would round the
 * probabilities, and attention is a few percent of a training step at these lengths.
 */
#include "kernels/cpu/tile.h"

enum {
    BLOCK_ROWS = 128,     /* most rows (positions times heads of a group) in a block of queries */
    BLOCK_FLOATS = 8192,  /* and their floats */
    CHUNK_FLOATS = 65536, /* of the keys of one backward item: 1024 of 64 */
    KEYS_FLOATS = FC_TILE_KEYS * FC_TILE_MAX_HS,
    CACHE_LINE = 64
};

/* One call, as its items see it. */
struct call {
    const struct fc_heads *h;
    enum fc_dtype dt;
    size_t hs, hsp;   /* head size, and padded to whole lanes */
    size_t group;     /* query heads of a kv head */
    size_t width;     /* of a row of qkv */
    size_t positions; /* most positions in a block of queries */
    const int32_t *starts;
    size_t B;
    const void *qkv;
    void *out; /* forward */
    float *lse;
    const void *dout; /* backward */
    const float *row_lse, *delta;
    void *dqkv;
};

static bool call_init(struct call *c, struct fc_stream *s, const int32_t *starts, size_t B,
                      const struct fc_heads *h, enum fc_dtype dt)
{
    *c = (struct call){.h = h,
                       .dt = dt,
                       .hs = h->hs,
                       .hsp = fc_tile_pad(h->hs),
                       .group = h->nh / h->nkv,
                       .width = (h->nh + 2 * h->nkv) * h->hs,
                       .starts = starts,
                       .B = B};
    size_t rows = c->hsp ? fc_cpu_min(BLOCK_ROWS, BLOCK_FLOATS / c->hsp) : 0;
    if (c->hs == 0 || c->hs > FC_TILE_MAX_HS || c->group > rows) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "attention: head size %zu with %zu query heads per kv head is beyond the CPU "
                "kernel (head size at most %d, heads at most %d, floats of them at most %d)",
                c->hs, c->group, FC_TILE_MAX_HS, BLOCK_ROWS, BLOCK_FLOATS);
        return false;
    }
    c->positions = rows / c->group;
    return true;
}

static size_t length_of(const struct call *c, size_t b)
{
    return (size_t)(c->starts[b + 1] - c->starts[b]);
}

/* ---- sharing out the work ------------------------------------------------------------------- */

/* Items of one sequence of n tokens; decides how it is cut, from n alone. */
typedef size_t items_fn(const struct call *c, size_t n);

/* Where a thread is in the list of all items. Long sequences come first (by powers of two), so that
 * the last items are small and the threads end together. Threads draw tickets; each walks the same
 * list to the item of its ticket. */
struct cursor {
    unsigned length_class; /* sequences of 2^class .. 2^(class+1) - 1 tokens */
    size_t b, base;        /* the sequence, and the number of its first item */
};

static unsigned class_of(size_t n)
{
    unsigned k = 0;
    while (n >>= 1)
        k++;
    return k;
}

static struct cursor cursor_start(const struct call *c)
{
    struct cursor at = {0};
    for (size_t b = 0; b < c->B; b++) {
        unsigned k = class_of(length_of(c, b));
        at.length_class = k > at.length_class ? k : at.length_class;
    }
    return at;
}

/* Moves to the sequence that holds item `ticket`; false behind the last. */
static bool cursor_seek(struct cursor *at, const struct call *c, items_fn *items, size_t ticket)
{
    for (;; at->length_class--) {
        for (; at->b < c->B; at->b++) {
            size_t n = length_of(c, at->b);
            if (n == 0 || class_of(n) != at->length_class)
                continue;
            size_t count = items(c, n);
            if (ticket < at->base + count)
                return true;
            at->base += count;
        }
        if (at->length_class == 0)
            return false;
        at->b = 0;
    }
}

/* ---- loading and storing blocks ------------------------------------------------------------- */

/* x[rows][hsp] = the query heads of kv group g, `count` positions from `first`, of an array of rows
 * of `width` that starts with the query heads; times scale. */
static void load_rows(const struct call *c, float *restrict x, const void *src, size_t width,
                      size_t first, size_t count, size_t g, float scale)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < c->group; j++)
            fc_tile_load(x + (i * c->group + j) * c->hsp,
                         fc_cpu_at(src, (first + i) * width + (g * c->group + j) * c->hs, c->dt),
                         c->hs, scale, c->dt);
}

/* Head `head` of qkv (counted over q, k and v heads) of n tokens from `first`. */
static struct fc_tile_heads heads_of(const struct call *c, size_t head, size_t first, size_t n)
{
    struct fc_tile_heads h = {.n = n, .offset = head * c->hs, .hs = c->hs, .dt = c->dt};
    for (size_t i = 0; i < n; i++)
        h.token[i] = fc_cpu_at(c->qkv, (first + i) * c->width, c->dt);
    return h;
}

/* Keys of a block of nk keys from k0 that position `pos` sees (both within the sequence). */
static size_t keys_seen(size_t pos, size_t k0, size_t nk)
{
    return pos < k0 ? 0 : fc_cpu_min(pos + 1 - k0, nk);
}

/* ---- forward -------------------------------------------------------------------------------- */

struct forward_scratch {
    _Alignas(CACHE_LINE) float q[BLOCK_FLOATS];
    _Alignas(CACHE_LINE) float o[BLOCK_FLOATS];
    _Alignas(CACHE_LINE) float v[KEYS_FLOATS];  /* [keys][hsp] */
    _Alignas(CACHE_LINE) float kt[KEYS_FLOATS]; /* [hsp][FC_TILE_KEYS] */
    _Alignas(CACHE_LINE) float s[FC_TILE_ROWS * FC_TILE_KEYS];
    float max[BLOCK_ROWS], sum[BLOCK_ROWS];
};

/* Blocks of queries that n tokens are cut into, evenly. */
static size_t query_blocks(const struct call *c, size_t n)
{
    return (n + c->positions - 1) / c->positions;
}

static size_t forward_items(const struct call *c, size_t n)
{
    return query_blocks(c, n) * c->h->nkv;
}

/* Rows r0 .. r0+m of the block whose first position is p0, against nk keys from k0. */
static void forward_tile(const struct call *c, struct forward_scratch *x, size_t r0, size_t m,
                         size_t p0, size_t k0, size_t nk)
{
    size_t n = keys_seen(p0 + (r0 + m - 1) / c->group, k0, nk), padded = fc_tile_pad(n);
    if (n == 0)
        return;
    fc_tile_multiply(&(struct fc_tile){.c = x->s,
                                       .ldc = FC_TILE_KEYS,
                                       .a = x->q + r0 * c->hsp,
                                       .a_row = c->hsp,
                                       .a_k = 1,
                                       .b = x->kt,
                                       .ldb = FC_TILE_KEYS,
                                       .m = m,
                                       .n = padded,
                                       .k = c->hsp});
    for (size_t r = r0; r < r0 + m; r++)
        fc_tile_softmax(x->s + (r - r0) * FC_TILE_KEYS, keys_seen(p0 + r / c->group, k0, nk),
                        padded, &x->max[r], &x->sum[r], x->o + r * c->hsp, c->hsp);
    fc_tile_multiply(&(struct fc_tile){.c = x->o + r0 * c->hsp,
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

static void forward_block(const struct call *c, struct forward_scratch *x, size_t start, size_t g,
                          size_t p0, size_t p1)
{
    size_t rows = (p1 - p0) * c->group;
    load_rows(c, x->q, c->qkv, c->width, start + p0, p1 - p0, g, c->h->scale);
    memset(x->o, 0, rows * c->hsp * sizeof *x->o);
    for (size_t r = 0; r < rows; r++) {
        x->max[r] = -INFINITY;
        x->sum[r] = 0.0f;
    }
    for (size_t k0 = 0; k0 < p1; k0 += FC_TILE_KEYS) {
        size_t nk = fc_cpu_min(FC_TILE_KEYS, p1 - k0);
        struct fc_tile_heads keys = heads_of(c, c->h->nh + g, start + k0, nk);
        struct fc_tile_heads values = heads_of(c, c->h->nh + c->h->nkv + g, start + k0, nk);
        fc_tile_transpose(x->kt, &keys);
        fc_tile_copy(x->v, &values);
        for (size_t r = 0; r < rows; r += FC_TILE_ROWS)
            forward_tile(c, x, r, fc_cpu_min(FC_TILE_ROWS, rows - r), p0, k0, nk);
    }
    for (size_t r = 0; r < rows; r++) {
        size_t t = start + p0 + r / c->group, head = g * c->group + r % c->group;
        float *o = x->o + r * c->hsp, inverse = 1.0f / x->sum[r];
        for (size_t i = 0; i < c->hs; i++)
            o[i] *= inverse;
        fc_cpu_store(c->out, (t * c->h->nh + head) * c->hs, o, c->hs, c->dt);
        c->lse[t * c->h->nh + head] = x->max[r] + logf(x->sum[r]);
    }
}

/* Item `index` of sequence b: the last blocks, which see the most keys, first. */
static void forward_item(const struct call *c, struct forward_scratch *x, size_t b, size_t index)
{
    size_t n = length_of(c, b), blocks = query_blocks(c, n);
    size_t block = blocks - 1 - index / c->h->nkv, g = index % c->h->nkv;
    forward_block(c, x, (size_t)c->starts[b], g, n * block / blocks, n * (block + 1) / blocks);
}

void fc_cpu_attention_forward(struct fc_stream *s, void *out, float *lse, const void *qkv,
                              const int32_t *starts, size_t B, const struct fc_heads *h,
                              enum fc_dtype dt)
{
    struct call c;
    if (!fc_cpu_ok(s) || B == 0 || !call_init(&c, s, starts, B, h, dt))
        return;
    c.qkv = qkv;
    c.out = out;
    c.lse = lse;
    size_t tickets = 0;
    size_t T = (size_t)(starts[B] - starts[0]);
#pragma omp parallel num_threads(fc_cpu_threads(s, T *c.width))
    {
        struct forward_scratch x;
        struct cursor at = cursor_start(&c);
        for (;;) {
            size_t mine;
#pragma omp atomic capture
            mine = tickets++;
            if (!cursor_seek(&at, &c, forward_items, mine))
                break;
            forward_item(&c, &x, at.b, mine - at.base);
        }
    }
}

/* ---- backward ------------------------------------------------------------------------------- */

struct backward_scratch {
    _Alignas(CACHE_LINE) float q[BLOCK_FLOATS], dout[BLOCK_FLOATS], dq[BLOCK_FLOATS];
    _Alignas(CACHE_LINE) float lse[BLOCK_ROWS], delta[BLOCK_ROWS];
    _Alignas(CACHE_LINE) float k[KEYS_FLOATS];                   /* [keys][hsp] */
    _Alignas(CACHE_LINE) float kt[KEYS_FLOATS], vt[KEYS_FLOATS]; /* [hsp][FC_TILE_KEYS] */
    /* Probabilities and d loss / d scores of a block of rows: [rows][FC_TILE_KEYS]. */
    _Alignas(CACHE_LINE) float p[BLOCK_ROWS * FC_TILE_KEYS], ds[BLOCK_ROWS * FC_TILE_KEYS];
    _Alignas(CACHE_LINE) float dk[CHUNK_FLOATS], dv[CHUNK_FLOATS]; /* [keys of the item][hsp] */
};

/* What an item computes: gradients of keys k0 .. k1 from all queries at or after k0, gradients of
 * queries q0 .. q1 from all keys, or both at once where the two are the whole sequence. */
struct backward_part {
    size_t start, g; /* first row of the sequence, kv head */
    size_t q0, q1, k0, k1;
    bool want_dq, want_dkv;
};

/* Tokens of a chunk: whole blocks of keys whose dk and dv fit the scratch. */
static size_t chunk_tokens(const struct call *c)
{
    return CHUNK_FLOATS / c->hsp / FC_TILE_KEYS * FC_TILE_KEYS;
}

static size_t backward_items(const struct call *c, size_t n)
{
    size_t chunks = (n + chunk_tokens(c) - 1) / chunk_tokens(c);
    return (chunks == 1 ? 1 : 2 * chunks) * c->h->nkv;
}

/* Sixteen scores p and sixteen dout . v in ds, of keys from j, become probabilities and score
 * gradients; the keys from `seen` on count for nothing. */
static inline void backward_scores(float *restrict p, float *restrict ds, size_t j, size_t seen,
                                   float lse, float delta)
{
    int32_t left = (int32_t)seen - (int32_t)j;
#pragma omp simd
    for (int32_t i = 0; i < FC_TILE_LANES; i++) {
        float e = fc_cpu_exp(p[i] - lse);
        p[i] = i < left ? e : 0.0f;
        ds[i] = p[i] * (ds[i] - delta);
    }
}

/* Probabilities and score gradients of rows r0 .. r0+m against nk keys from k0, and dq. */
static void backward_rows(const struct call *c, struct backward_scratch *x, size_t r0, size_t m,
                          size_t p0, size_t k0, size_t nk, bool want_dq)
{
    size_t n = keys_seen(p0 + (r0 + m - 1) / c->group, k0, nk), padded = fc_tile_pad(n);
    if (n == 0)
        return;
    struct fc_tile scores = {.c = x->p + r0 * FC_TILE_KEYS,
                             .ldc = FC_TILE_KEYS,
                             .a = x->q + r0 * c->hsp,
                             .a_row = c->hsp,
                             .a_k = 1,
                             .b = x->kt,
                             .ldb = FC_TILE_KEYS,
                             .m = m,
                             .n = padded,
                             .k = c->hsp};
    fc_tile_multiply(&scores);
    scores.c = x->ds + r0 * FC_TILE_KEYS;
    scores.a = x->dout + r0 * c->hsp;
    scores.b = x->vt;
    fc_tile_multiply(&scores);
    for (size_t r = r0; r < r0 + m; r++) {
        float *restrict p = x->p + r * FC_TILE_KEYS, *restrict ds = x->ds + r * FC_TILE_KEYS;
        size_t seen = keys_seen(p0 + r / c->group, k0, nk);
        for (size_t j = 0; j < padded; j += FC_TILE_LANES)
            backward_scores(p + j, ds + j, j, seen, x->lse[r], x->delta[r]);
    }
    if (want_dq)
        fc_tile_multiply(&(struct fc_tile){.c = x->dq + r0 * c->hsp,
                                           .ldc = c->hsp,
                                           .a = x->ds + r0 * FC_TILE_KEYS,
                                           .a_row = FC_TILE_KEYS,
                                           .a_k = 1,
                                           .b = x->k,
                                           .ldb = c->hsp,
                                           .m = m,
                                           .n = c->hsp,
                                           .k = n,
                                           .add = true});
}

/* dk, dv of nk keys from k0 (the item's keys start at `base`) += over the rows that see them. */
static void backward_keys(const struct call *c, struct backward_scratch *x, size_t rows, size_t p0,
                          size_t k0, size_t nk, size_t base)
{
    for (size_t j = 0; j < nk; j += FC_TILE_ROWS) {
        size_t first = k0 + j > p0 ? (k0 + j - p0) * c->group : 0;
        if (first >= rows)
            break;
        struct fc_tile t = {.c = x->dv + (k0 - base + j) * c->hsp,
                            .ldc = c->hsp,
                            .a = x->p + first * FC_TILE_KEYS + j,
                            .a_row = 1,
                            .a_k = FC_TILE_KEYS,
                            .b = x->dout + first * c->hsp,
                            .ldb = c->hsp,
                            .m = fc_cpu_min(FC_TILE_ROWS, nk - j),
                            .n = c->hsp,
                            .k = rows - first,
                            .add = true};
        fc_tile_multiply(&t);
        t.c = x->dk + (k0 - base + j) * c->hsp;
        t.a = x->ds + first * FC_TILE_KEYS + j;
        t.b = x->q + first * c->hsp;
        fc_tile_multiply(&t);
    }
}

/* One block of queries p0 .. p1 against the item's keys. */
static void backward_block(const struct call *c, struct backward_scratch *x,
                           const struct backward_part *part, size_t p0, size_t p1)
{
    size_t rows = (p1 - p0) * c->group, first = part->start + p0;
    load_rows(c, x->q, c->qkv, c->width, first, p1 - p0, part->g, c->h->scale);
    load_rows(c, x->dout, c->dout, c->h->nh * c->hs, first, p1 - p0, part->g, 1.0f);
    for (size_t r = 0; r < rows; r++) {
        size_t at = (first + r / c->group) * c->h->nh + part->g * c->group + r % c->group;
        x->lse[r] = c->row_lse[at];
        x->delta[r] = c->delta[at];
    }
    memset(x->dq, 0, rows * c->hsp * sizeof *x->dq);
    for (size_t k0 = part->k0; k0 < part->k1 && k0 < p1; k0 += FC_TILE_KEYS) {
        size_t nk = fc_cpu_min(FC_TILE_KEYS, fc_cpu_min(part->k1, p1) - k0);
        struct fc_tile_heads keys = heads_of(c, c->h->nh + part->g, part->start + k0, nk);
        struct fc_tile_heads values =
            heads_of(c, c->h->nh + c->h->nkv + part->g, part->start + k0, nk);
        fc_tile_copy(x->k, &keys);
        fc_tile_transpose(x->kt, &keys);
        fc_tile_transpose(x->vt, &values);
        for (size_t r = 0; r < rows; r += FC_TILE_ROWS)
            backward_rows(c, x, r, fc_cpu_min(FC_TILE_ROWS, rows - r), p0, k0, nk, part->want_dq);
        if (part->want_dkv)
            backward_keys(c, x, rows, p0, k0, nk, part->k0);
    }
    for (size_t r = 0; part->want_dq && r < rows; r++) {
        float *dq = x->dq + r * c->hsp;
        for (size_t i = 0; i < c->hs; i++)
            dq[i] *= c->h->scale;
        fc_cpu_store(c->dqkv,
                     (first + r / c->group) * c->width +
                         (part->g * c->group + r % c->group) * c->hs,
                     dq, c->hs, c->dt);
    }
}

static void backward_item(const struct call *c, struct backward_scratch *x, size_t b, size_t index)
{
    size_t n = length_of(c, b), chunk = chunk_tokens(c), nkv = c->h->nkv;
    size_t chunks = (n + chunk - 1) / chunk, which = index / nkv;
    struct backward_part part = {.start = (size_t)c->starts[b],
                                 .g = index % nkv,
                                 .q1 = n,
                                 .k1 = n,
                                 .want_dq = which >= chunks || chunks == 1,
                                 .want_dkv = which < chunks};
    size_t from = which % chunks * chunk, to = fc_cpu_min(from + chunk, n);
    if (part.want_dkv) {
        part.q0 = part.k0 = from;
        part.k1 = to;
        memset(x->dk, 0, (to - from) * c->hsp * sizeof *x->dk);
        memset(x->dv, 0, (to - from) * c->hsp * sizeof *x->dv);
    } else {
        part.q0 = from;
        part.q1 = to;
    }
    size_t count = part.q1 - part.q0, blocks = query_blocks(c, count);
    for (size_t i = 0; i < blocks; i++)
        backward_block(c, x, &part, part.q0 + count * i / blocks,
                       part.q0 + count * (i + 1) / blocks);
    for (size_t j = 0; part.want_dkv && j < to - from; j++) {
        size_t row = (part.start + from + j) * c->width;
        fc_cpu_store(c->dqkv, row + (c->h->nh + part.g) * c->hs, x->dk + j * c->hsp, c->hs, c->dt);
        fc_cpu_store(c->dqkv, row + (c->h->nh + nkv + part.g) * c->hs, x->dv + j * c->hsp, c->hs,
                     c->dt);
    }
}

/* delta[t][head] = dout . out, the term that the softmax's normalisation adds to every score. */
static void row_delta(const struct call *c, float *delta, const void *out, size_t t)
{
    float a[FC_TILE_MAX_HS], b[FC_TILE_MAX_HS];
    for (size_t head = 0; head < c->h->nh; head++) {
        size_t at = t * c->h->nh + head;
        const float *x = fc_cpu_view(a, c->dout, at * c->hs, c->hs, c->dt);
        const float *y = fc_cpu_view(b, out, at * c->hs, c->hs, c->dt);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < c->hs; i++)
            sum += x[i] * y[i];
        delta[at] = sum;
    }
}

void fc_cpu_attention_backward(struct fc_stream *s, void *dqkv, const void *dout, const void *out,
                               const float *lse, const void *qkv, float *scratch,
                               const int32_t *starts, size_t B, const struct fc_heads *h,
                               enum fc_dtype dt)
{
    struct call c;
    if (!fc_cpu_ok(s) || B == 0 || !call_init(&c, s, starts, B, h, dt))
        return;
    c.qkv = qkv;
    c.dout = dout;
    c.row_lse = lse;
    c.delta = scratch;
    c.dqkv = dqkv;
    size_t tickets = 0;
    size_t first = (size_t)starts[0], last = (size_t)starts[B];
#pragma omp parallel num_threads(fc_cpu_threads(s, (last - first) * c.width))
    {
#pragma omp for schedule(static)
        for (size_t t = first; t < last; t++)
            row_delta(&c, scratch, out, t);
        struct backward_scratch x;
        struct cursor at = cursor_start(&c);
        for (;;) {
            size_t mine;
#pragma omp atomic capture
            mine = tickets++;
            if (!cursor_seek(&at, &c, backward_items, mine))
                break;
            backward_item(&c, &x, at.b, mine - at.base);
        }
    }
}
