#include "engine/decoder.h"

#include "base/memory.h"
#include "engine/graphs.h"
#include "engine/staging.h"

#include <assert.h>
#include <string.h>

/* Device memory of a pass, R = limits.rows. Types: the model's dtype but for logits and ints. */
struct arena {
    void *x;         /* [R, C] the residual stream */
    void *y;         /* [R, C] a norm's output; at the end, the kept rows' final norm */
    void *delta;     /* [R, C] a block's output, not yet added to x */
    void *wide;      /* [R, max(Q, 2F)] q|k|v, then gate|up */
    void *narrow;    /* [R, max(NH HS, F)] attention's output, then the activation's */
    void *kept_x;    /* [R, C] x of the kept rows, in the last layer */
    void *kept_wide; /* [R, NH HS] their attention output */
    float *logits;   /* [limits.logits, V] */
    int32_t *ints;   /* the five arrays of the pass and its page tables, end to end */
};

/* What the device is given: the pass as it was put together, or, where passes are recorded, filled
 * up to one of a few shapes. */
struct shape {
    size_t rows, width, kept;
    bool gathers; /* kept rows are not all rows in their order */
    bool logits;  /* those of all rows belong to the pass */
};

struct fc_decoder {
    struct fc_model *model;
    struct fc_kv_cache *cache;
    struct fc_decoder_limits limits;
    struct arena at;
    void *memory;
    size_t bytes, int_bytes;

    /* The pass being put together, on the host. */
    size_t n, n_kept, width;                           /* width: pages of the longest row */
    bool in_order;                                     /* kept[i] == i so far */
    int32_t *ids, *positions, *slots, *lengths, *kept; /* [R] each */
    const int32_t **tables;                            /* [R] */

    struct fc_staging staging; /* blocks of what `ints` holds */
    struct shape shape;
    bool ran; /* the pass, with its logits, since begin */
    struct fc_graphs graphs;
    size_t packings; /* of the model, when they were recorded */
};

static size_t max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- putting a pass together ----------------------------------------------------------------- */

void fc_decoder_begin(struct fc_decoder *d)
{
    d->n = d->n_kept = d->width = 0;
    d->in_order = true;
    d->ran = false;
}

size_t fc_decoder_rows(const struct fc_decoder *d)
{
    return d->n;
}

size_t fc_decoder_kept(const struct fc_decoder *d)
{
    return d->n_kept;
}

size_t fc_decoder_add(struct fc_decoder *d, int32_t token, size_t position, const int32_t *table)
{
    size_t page_size = fc_kv_cache_page_size(d->cache), page = position / page_size;
    size_t width = max(d->width, page + 1);
    if (d->n == d->limits.rows || (d->n + 1) * width > d->limits.table_entries)
        return FC_NO_ROW;
    d->width = width;
    d->ids[d->n] = token;
    d->positions[d->n] = (int32_t)position;
    d->lengths[d->n] = (int32_t)position + 1;
    d->slots[d->n] = table[page] * (int32_t)page_size + (int32_t)(position % page_size);
    d->tables[d->n] = table;
    return d->n++;
}

size_t fc_decoder_keep(struct fc_decoder *d, size_t row)
{
    d->in_order = d->in_order && row == d->n_kept;
    d->kept[d->n_kept] = (int32_t)row;
    return d->n_kept++;
}

/* Shapes of recorded passes. Rows go through the products in blocks anyway, so filling up a block
 * costs little; the page tables are padded to a power of two. */
static size_t fill_up(size_t n, size_t block)
{
    size_t to = 1;
    while (to < n && to < block)
        to *= 2;
    return n <= to ? to : (n + block - 1) / block * block;
}

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* A pass of which every row is kept is a decode step: it is recorded, with its logits. */
static struct shape choose_shape(const struct fc_decoder *d)
{
    struct shape exact = {.rows = d->n,
                          .width = d->width,
                          .kept = d->n_kept,
                          .gathers = d->n_kept < d->n || !d->in_order};
    if (!d->graphs.records || exact.gathers || d->n > d->limits.logits)
        return exact;
    size_t page_size = fc_kv_cache_page_size(d->cache);
    size_t most = min(d->limits.rows, d->limits.logits);
    size_t widest = (d->model->n_ctx + page_size - 1) / page_size;
    struct shape filled = {.rows = min(fill_up(d->n, 2 * FC_ROW_BLOCK), most),
                           .width = min(fill_up(d->width, (size_t)1 << 31), widest),
                           .logits = true};
    filled.kept = filled.rows;
    return filled.rows * filled.width <= d->limits.table_entries ? filled : exact;
}

/* Where the pass's integers lie on the device. */
struct pass {
    const int32_t *ids, *positions, *slots, *lengths, *kept, *tables;
};

static struct pass pass_of(const struct fc_decoder *d)
{
    const int32_t *at = d->at.ints;
    size_t n = d->shape.rows;
    return (struct pass){.ids = at,
                         .positions = at + n,
                         .slots = at + 2 * n,
                         .lengths = at + 3 * n,
                         .kept = at + 4 * n,
                         .tables = at + 5 * n};
}

/* Rows beyond d->n are token 0 at position 0 of the spare page: they see themselves only. */
static void upload(struct fc_decoder *d)
{
    size_t page_size = fc_kv_cache_page_size(d->cache), rows = d->shape.rows, n = d->n;
    int32_t spare = fc_kv_cache_spare(d->cache);
    const struct {
        const int32_t *from;
        int32_t fill;
    } arrays[] = {{d->ids, 0},
                  {d->positions, 0},
                  {d->slots, spare * (int32_t)page_size},
                  {d->lengths, 1},
                  {d->kept, 0}};
    int32_t *block = fc_staging_next(&d->staging), *to = block;
    for (size_t a = 0; a < sizeof arrays / sizeof arrays[0]; a++, to += rows) {
        memcpy(to, arrays[a].from, n * sizeof *to);
        for (size_t t = n; t < rows; t++)
            to[t] = arrays[a].fill;
    }
    for (size_t t = 0; t < rows; t++, to += d->shape.width) {
        size_t pages = t < n ? (size_t)d->positions[t] / page_size + 1 : 1;
        memcpy(to, t < n ? d->tables[t] : &spare, pages * sizeof *to);
        memset(to + pages, 0, (d->shape.width - pages) * sizeof *to);
    }
    const struct fc_device *dev = d->model->dev;
    dev->k->upload(dev->stream, d->at.ints, block, (size_t)(to - block) * sizeof *to);
    fc_staging_sent(&d->staging);
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* y[rows, ...] = x W^T (+ bias, where the model has one), in the model's dtype. */
static void linear(const struct fc_decoder *d, void *y, const void *x, enum fc_param_kind weight,
                   enum fc_param_kind bias, size_t layer, size_t rows)
{
    const struct fc_model *m = d->model;
    const struct fc_kernels *k = m->dev->k;
    fc_model_multiply(m, y, m->dtype, x, weight, layer, rows);
    const struct fc_param *p = fc_params_find(&m->params, bias, layer);
    if (p)
        k->bias_forward(m->dev->stream, y, fc_model_weight(m, bias, layer), rows, p->cols,
                        m->dtype);
}

/* x += delta (unless NULL), y = norm(x). */
static void norm(const struct fc_decoder *d, void *x, const void *delta, enum fc_param_kind weight,
                 size_t layer, size_t rows)
{
    const struct fc_model *m = d->model;
    m->dev->k->rmsnorm_forward(m->dev->stream, d->at.y, x, delta, NULL,
                               fc_model_weight(m, weight, layer), (float)m->config.norm_eps, rows,
                               m->config.n_embd, m->dtype);
}

/* narrow = attention of y's rows over their sequences. */
static void attend(const struct fc_decoder *d, const struct pass *p, size_t layer)
{
    const struct fc_model *m = d->model;
    const struct fc_kernels *k = m->dev->k;
    struct fc_stream *s = m->dev->stream;
    const struct fc_pages *pages = fc_kv_cache_layer(d->cache, layer);
    size_t rows = d->shape.rows;
    linear(d, d->at.wide, d->at.y, FC_P_QKV, FC_P_QKV_BIAS, layer, rows);
    k->rope(s, d->at.wide, p->positions, m->rope, rows, &m->heads, false, m->dtype);
    k->cache_write(s, pages, d->at.wide, p->slots, rows, &m->heads, m->dtype);
    k->paged_attention(s, d->at.narrow, d->at.wide, pages, p->tables, d->shape.width, p->lengths,
                       rows, &m->heads, m->dtype);
}

static float *multiply_logits(const struct fc_decoder *d, size_t first, size_t n)
{
    const struct fc_model *m = d->model;
    size_t row = m->config.n_embd * fc_dtype_size(m->dtype);
    fc_model_multiply(m, d->at.logits, FC_F32, (char *)d->at.y + first * row, FC_P_HEAD, 0, n);
    return d->at.logits;
}

/* All of a pass that does not change with its data. */
static void put_on_stream(void *context)
{
    const struct fc_decoder *d = context;
    const struct fc_model *m = d->model;
    const struct fc_kernels *k = m->dev->k;
    struct fc_stream *s = m->dev->stream;
    struct pass p = pass_of(d);
    void *x = d->at.x, *delta = NULL;
    size_t rows = d->shape.rows;
    fc_model_embed(m, x, p.ids, rows);
    for (size_t layer = 0; layer < m->config.n_layer; layer++) {
        void *attended = d->at.narrow;
        fc_device_range(m->dev, "layer", layer);
        norm(d, x, delta, FC_P_NORM1, layer, rows);
        attend(d, &p, layer);
        if (layer + 1 == m->config.n_layer && d->shape.gathers) {
            /* Rows whose logits nobody wants are done: their keys and values are in the cache. */
            rows = d->shape.kept;
            if (rows == 0) {
                k->range_pop();
                return;
            }
            k->gather_rows(s, d->at.kept_x, x, p.kept, rows, m->config.n_embd, m->dtype);
            k->gather_rows(s, d->at.kept_wide, attended, p.kept, rows, m->heads.nh * m->heads.hs,
                           m->dtype);
            x = d->at.kept_x;
            attended = d->at.kept_wide;
        }
        delta = d->at.delta;
        linear(d, delta, attended, FC_P_OUT, FC_P_OUT_BIAS, layer, rows);
        norm(d, x, delta, FC_P_NORM2, layer, rows);
        linear(d, d->at.wide, d->at.y, FC_P_GATE_UP, FC_P_GATE_UP_BIAS, layer, rows);
        k->swiglu_forward(s, d->at.narrow, d->at.wide, rows, m->config.n_ff, m->dtype);
        linear(d, delta, d->at.narrow, FC_P_DOWN, FC_P_DOWN_BIAS, layer, rows);
        k->range_pop();
    }
    norm(d, x, delta, FC_P_NORM_FINAL, 0, rows);
    if (d->shape.logits)
        (void)multiply_logits(d, 0, rows);
}

void fc_decoder_run(struct fc_decoder *d)
{
    if (d->n == 0)
        return;
    if (d->packings != d->model->packings) {
        fc_graphs_clear(&d->graphs);
        d->packings = d->model->packings;
    }
    d->shape = choose_shape(d);
    upload(d);
    if (d->shape.logits)
        fc_graphs_run(&d->graphs, d->shape.rows, d->shape.width, put_on_stream, d);
    else
        put_on_stream(d);
    d->ran = d->shape.logits;
}

float *fc_decoder_logits(struct fc_decoder *d, size_t first, size_t n)
{
    assert(n <= d->limits.logits && first + n <= d->n_kept);
    return d->ran ? d->at.logits + first * d->model->config.n_vocab : multiply_logits(d, first, n);
}

size_t fc_decoder_recorded(const struct fc_decoder *d)
{
    return d->graphs.launched;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void lay_out(struct fc_decoder *d, struct fc_arena *a)
{
    const struct fc_model_config *c = &d->model->config;
    size_t R = d->limits.rows, e = fc_dtype_size(d->model->dtype);
    size_t attended = c->n_head * c->head_size;
    size_t qkv = (c->n_head + 2 * c->n_kv_head) * c->head_size;
    d->at.x = fc_arena_take(a, R * c->n_embd, e);
    d->at.y = fc_arena_take(a, R * c->n_embd, e);
    d->at.delta = fc_arena_take(a, R * c->n_embd, e);
    d->at.wide = fc_arena_take(a, R * max(qkv, 2 * c->n_ff), e);
    d->at.narrow = fc_arena_take(a, R * max(attended, c->n_ff), e);
    d->at.kept_x = fc_arena_take(a, R * c->n_embd, e);
    d->at.kept_wide = fc_arena_take(a, R * attended, e);
    d->at.logits = fc_arena_take(a, d->limits.logits * c->n_vocab, sizeof(float));
}

static enum fc_code allocate(struct fc_decoder *d, struct fc_error *err)
{
    size_t R = d->limits.rows;
    struct fc_device *dev = d->model->dev;
    d->ids = fc_alloc(5 * R, sizeof *d->ids, "rows of a pass", err);
    d->tables = fc_alloc(R, sizeof *d->tables, "page tables of a pass", err);
    if (!d->ids || !d->tables || fc_staging_open(&d->staging, dev, d->int_bytes, err) != FC_OK)
        return FC_ERR_MEMORY;
    d->positions = d->ids + R;
    d->slots = d->positions + R;
    d->lengths = d->slots + R;
    d->kept = d->lengths + R;
    d->at.ints = fc_device_alloc(dev, d->int_bytes, FC_MEM_STAGING, err);
    if (!d->at.ints)
        return FC_ERR_MEMORY;
    struct fc_arena arena = {0};
    lay_out(d, &arena);
    d->memory = fc_device_alloc(dev, arena.used, FC_MEM_ACTIVATIONS, err);
    if (!d->memory)
        return FC_ERR_MEMORY;
    d->bytes = arena.used;
    arena = (struct fc_arena){.base = d->memory, .size = d->bytes};
    lay_out(d, &arena);
    return FC_OK;
}

enum fc_code fc_decoder_create(struct fc_decoder **decoder, struct fc_model *model,
                               struct fc_kv_cache *cache, const struct fc_decoder_limits *limits,
                               struct fc_error *err)
{
    *decoder = NULL;
    size_t page_size = fc_kv_cache_page_size(cache);
    size_t widest = (model->n_ctx + page_size - 1) / page_size;
    if (limits->rows == 0 || limits->logits == 0)
        return fc_fail(err, FC_ERR_USAGE, "decoder: a pass of 0 rows");
    if (!model->packed)
        return fc_fail(err, FC_ERR_USAGE, "decoder: the model is not packed (fc_model_pack)");
    struct fc_decoder *d = fc_alloc(1, sizeof *d, "decoder", err);
    if (!d)
        return FC_ERR_MEMORY;
    d->model = model;
    d->cache = cache;
    d->limits = *limits;
    d->packings = model->packings;
    fc_graphs_open(&d->graphs, model->dev);
    enum fc_code code = FC_OK;
    /* Every row alone must fit, and no pass needs more than rows * widest. 2^20 rows bound the
     * other products: the config's sizes are checked to 31 bits. */
    if (limits->rows > (1u << 20) || limits->logits > (1u << 20) ||
        __builtin_mul_overflow(limits->rows, widest, &d->int_bytes))
        code = fc_fail(err, FC_ERR_USAGE, "decoder: %zu rows a pass, expected at most %u",
                       limits->rows, 1u << 20);
    if (code == FC_OK) {
        if (limits->table_entries == 0 || limits->table_entries > d->int_bytes)
            d->limits.table_entries = d->int_bytes;
        d->limits.table_entries = max(d->limits.table_entries, widest);
        d->int_bytes = (5 * limits->rows + d->limits.table_entries) * sizeof(int32_t);
        code = allocate(d, err);
    }
    if (code != FC_OK) {
        fc_decoder_free(d);
        return code;
    }
    *decoder = d;
    return FC_OK;
}

void fc_decoder_free(struct fc_decoder *d)
{
    if (!d)
        return;
    fc_graphs_clear(&d->graphs);
    fc_staging_close(&d->staging);
    fc_device_free(d->model->dev, d->memory, d->bytes, FC_MEM_ACTIVATIONS);
    fc_device_free(d->model->dev, d->at.ints, d->int_bytes, FC_MEM_STAGING);
    free(d->ids);
    free(d->tables);
    free(d);
}
