#include "engine/transformer.h"

#include "base/memory.h"
#include "engine/staging.h"

#include <assert.h>
#include <string.h>

/* Rows of logits that exist at once: 256 rows of 49,152 bf16 logits are 25 MB, about the size of a
 * last-level cache. Fewer rows would sweep the fp32 gradient of the embedding more often. */
#define LOGIT_ROWS 256

/* What one layer keeps for its backward pass. Q = (NH + 2 NKV) HS. */
struct layer_state {
    void *x1;      /* [T, C]     residual stream before attention */
    void *n1;      /* [T, C]     its norm */
    float *rstd1;  /* [T] */
    void *qkv;     /* [T, Q]     after rope */
    void *att;     /* [T, NH HS] */
    float *lse;    /* [T, NH] */
    void *x2;      /* [T, C]     residual stream before the feed-forward block */
    void *n2;      /* [T, C] */
    float *rstd2;  /* [T] */
    void *gate_up; /* [T, 2F] */
    void *act;     /* [T, F] */
};

struct fc_transformer {
    struct fc_model *m;
    size_t max_T;
    struct fc_arena arena;
    struct layer_state *layers;

    /* the batch on the device: the first five lie end to end, as in its staging block, in the place
     * of that block: a batch is copied while the one before is computed */
    int32_t *inputs[FC_STAGING_BLOCKS]; /* [5 T] */
    int32_t *ids, *positions;           /* [T] */
    int32_t *target_rows, *targets;     /* [n_targets] */
    float *weights;                     /* [n_targets] */
    float *losses;                      /* [T] */

    /* host memory of the batches in flight: blocks of inputs [5 T], starts [T + 1], losses [T] */
    struct fc_staging staging;
    const int32_t *starts; /* of the batch that is being put on the stream */
    struct {
        const float *losses;
        struct fc_event *done;
    } flight[FC_STAGING_BLOCKS]; /* oldest first */
    size_t n_flight;

    /* after the last layer */
    void *xf;      /* [T, C] */
    void *nf;      /* [T, C] */
    float *rstd_f; /* [T] */
    void *hidden;  /* [T, C] rows of nf at the targets */
    void *dhidden; /* [T, C] */
    void *logits;  /* [LOGIT_ROWS, V], fp32 room */

    /* scratch of both passes */
    void *delta;    /* [T, C]  output of a block before it is added; gradient of a norm's output */
    void *dx;       /* [T, C]  gradient of the residual stream */
    void *datt;     /* [T, NH HS] */
    void *dqkv;     /* [T, Q] */
    void *dgate_up; /* [T, 2F] */
    void *dact;     /* [T, F] */
    float *row_scratch;     /* [T, NH] or FC_ROW_SLICES rows of the widest vector */
    int32_t *token_scratch; /* [2 T] */
    void *fp8_scratch;      /* of forward products in fp8; NULL: not in fp8 */
    size_t fp8_bytes;
};

static void take_all(struct fc_transformer *t, struct fc_arena *a)
{
    const struct fc_model_config *c = &t->m->config;
    size_t T = t->max_T, C = c->n_embd, F = c->n_ff, A = c->n_head * c->head_size;
    size_t Q = A + 2 * c->n_kv_head * c->head_size, e = fc_dtype_size(t->m->dtype);
    for (size_t l = 0; l < c->n_layer; l++) {
        struct layer_state *s = &t->layers[l];
        s->x1 = fc_arena_take(a, T * C, e);
        s->n1 = fc_arena_take(a, T * C, e);
        s->rstd1 = fc_arena_take(a, T, sizeof(float));
        s->qkv = fc_arena_take(a, T * Q, e);
        s->att = fc_arena_take(a, T * A, e);
        s->lse = fc_arena_take(a, T * c->n_head, sizeof(float));
        s->x2 = fc_arena_take(a, T * C, e);
        s->n2 = fc_arena_take(a, T * C, e);
        s->rstd2 = fc_arena_take(a, T, sizeof(float));
        s->gate_up = fc_arena_take(a, T * 2 * F, e);
        s->act = fc_arena_take(a, T * F, e);
    }
    for (int i = 0; i < FC_STAGING_BLOCKS; i++)
        t->inputs[i] = fc_arena_take(a, 5 * T, sizeof(int32_t));
    t->losses = fc_arena_take(a, T, sizeof(float));
    t->xf = fc_arena_take(a, T * C, e);
    t->nf = fc_arena_take(a, T * C, e);
    t->rstd_f = fc_arena_take(a, T, sizeof(float));
    t->hidden = fc_arena_take(a, T * C, e);
    t->dhidden = fc_arena_take(a, T * C, e);
    t->logits = fc_arena_take(a, LOGIT_ROWS * c->n_vocab, sizeof(float));
    t->delta = fc_arena_take(a, T * C, e);
    t->dx = fc_arena_take(a, T * C, e);
    t->datt = fc_arena_take(a, T * A, e);
    t->dqkv = fc_arena_take(a, T * Q, e);
    t->dgate_up = fc_arena_take(a, T * 2 * F, e);
    t->dact = fc_arena_take(a, T * F, e);
    size_t widest = C > Q ? C : Q;
    if (2 * F > widest)
        widest = 2 * F;
    size_t slices = FC_ROW_SLICES * widest;
    size_t row_scratch = slices > T * c->n_head ? slices : T * c->n_head;
    t->row_scratch = fc_arena_take(a, row_scratch, sizeof(float));
    t->token_scratch = fc_arena_take(a, 2 * T, sizeof(int32_t));
}

enum fc_code fc_transformer_create(struct fc_transformer **out, struct fc_model *model,
                                   size_t max_T, struct fc_error *err)
{
    *out = NULL;
    if (model->kept)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "training: the model's weights are kept quantised and cannot be trained; "
                       "load it without --keep-quantised");
    struct fc_transformer *t = fc_alloc(1, sizeof *t, "transformer", err);
    if (!t)
        return FC_ERR_MEMORY;
    t->m = model;
    t->max_T = max_T;
    t->layers = fc_alloc(model->config.n_layer, sizeof *t->layers, "layers", err);
    enum fc_code code = t->layers ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_staging_open(&t->staging, model->dev, (7 * max_T + 1) * sizeof(int32_t), err);
    if (code == FC_OK)
        code = fc_staging_overlap(&t->staging, err);
    if (code == FC_OK) {
        take_all(t, &t->arena); /* dry run: learns the size */
        t->arena.size = t->arena.used;
        t->arena.base = fc_device_alloc(model->dev, t->arena.size, FC_MEM_ACTIVATIONS, err);
        code = t->arena.base ? FC_OK : FC_ERR_MEMORY;
    }
    if (code != FC_OK) {
        fc_transformer_free(t);
        return code;
    }
    t->arena.used = 0;
    take_all(t, &t->arena);
    *out = t;
    return FC_OK;
}

void fc_transformer_free(struct fc_transformer *t)
{
    if (!t)
        return;
    fc_staging_close(&t->staging);
    fc_device_free(t->m->dev, t->arena.base, t->arena.size, FC_MEM_ACTIVATIONS);
    fc_device_free(t->m->dev, t->fp8_scratch, t->fp8_bytes, FC_MEM_ACTIVATIONS);
    free(t->layers);
    free(t);
}

enum fc_code fc_transformer_use_fp8(struct fc_transformer *t, struct fc_error *err)
{
    const struct fc_model_config *c = &t->m->config;
    struct fc_device *dev = t->m->dev;
    size_t C = c->n_embd, F = c->n_ff, A = c->n_head * c->head_size;
    size_t Q = A + 2 * c->n_kv_head * c->head_size;
    const size_t products[][2] = {{Q, C}, {C, A}, {2 * F, C}, {C, F}}; /* n, k */
    if (!dev->k->has_fp8(dev->stream))
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "device %s has no fp8: NVIDIA GPUs have it from Ada and Hopper (compute "
                       "capability 8.9) on; train without --fp8",
                       dev->name);
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        size_t n = products[i][0], k = products[i][1], bytes = fc_fp8_scratch(t->max_T, n, k);
        if (n % 16 || k % 16)
            return fc_fail(err, FC_ERR_UNSUPPORTED,
                           "fp8 needs widths that are multiples of 16, and this model has a weight "
                           "of %zu x %zu; train without --fp8",
                           n, k);
        t->fp8_bytes = bytes > t->fp8_bytes ? bytes : t->fp8_bytes;
    }
    t->fp8_scratch = fc_device_alloc(dev, t->fp8_bytes, FC_MEM_ACTIVATIONS, err);
    return t->fp8_scratch ? FC_OK : FC_ERR_MEMORY;
}

static bool all_below(const int32_t *ids, size_t n, size_t limit)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= limit)
            return false;
    return true;
}

static enum fc_code check_batch(const struct fc_transformer *t, const struct fc_batch *b,
                                struct fc_error *err)
{
    if (b->T == 0 || b->T > t->max_T || b->n_targets == 0)
        return fc_fail(err, FC_ERR_USAGE, "batch of %zu tokens and %zu targets: expected 1 to %zu",
                       b->T, b->n_targets, t->max_T);
    for (size_t i = 0; i < b->T; i++)
        if ((size_t)b->positions[i] >= t->m->n_ctx)
            return fc_fail(err, FC_ERR_USAGE, "sequence longer than the model's context of %zu",
                           t->m->n_ctx);
    if (!all_below(b->ids, b->T, t->m->config.n_vocab) ||
        !all_below(b->targets, b->n_targets, t->m->config.n_vocab))
        return fc_fail(err, FC_ERR_USAGE, "token id outside the vocabulary of %zu",
                       t->m->config.n_vocab);
    if (t->n_flight == FC_STAGING_BLOCKS)
        return fc_fail(err, FC_ERR_INTERNAL, "%zu batches are in flight: finish one first",
                       t->n_flight);
    return FC_OK;
}

/* Copies the batch into a block of staging and sends it, in one piece. Returns where its losses
 * will come; the block is the stream's until fc_staging_sent. */
static float *upload_batch(struct fc_transformer *t, const struct fc_batch *b)
{
    const struct {
        const void *from;
        size_t n;
    } parts[] = {{b->ids, b->T},
                 {b->positions, b->T},
                 {b->target_rows, b->n_targets},
                 {b->targets, b->n_targets},
                 {b->weights, b->n_targets}};
    int32_t *block = fc_staging_next(&t->staging), *starts = block + 5 * t->max_T, *to = block;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++, to += parts[i - 1].n)
        memcpy(to, parts[i].from, parts[i].n * sizeof *to);
    memcpy(starts, b->starts, (b->B + 1) * sizeof *starts);
    t->starts = starts;
    t->ids = t->inputs[t->staging.at];
    t->positions = t->ids + b->T;
    t->target_rows = t->positions + b->T;
    t->targets = t->target_rows + b->n_targets;
    t->weights = (float *)(t->targets + b->n_targets);
    fc_staging_upload(&t->staging, t->ids, (size_t)(to - block) * sizeof *block);
    return (float *)(starts + t->max_T + 1);
}

/* y[T,n] = x[T,k] W^T (+ bias). */
static void linear(struct fc_transformer *t, void *y, enum fc_dtype y_type, const void *x, size_t T,
                   enum fc_param_kind weight, enum fc_param_kind bias, size_t layer, size_t n,
                   size_t k)
{
    struct fc_model *m = t->m;
    struct fc_gemm g = {.a = x,
                        .b = fc_model_weight(m, weight, layer),
                        .y = y,
                        .m = T,
                        .n = n,
                        .k = k,
                        .lda = k,
                        .ldb = k,
                        .ldy = n,
                        .trans_b = true,
                        .type = m->dtype,
                        .y_type = y_type};
    if (bias < FC_P_KINDS)
        g.bias = fc_model_weight(m, bias, layer);
    bool of_block =
        weight == FC_P_QKV || weight == FC_P_OUT || weight == FC_P_GATE_UP || weight == FC_P_DOWN;
    if (t->fp8_scratch && of_block)
        m->dev->k->gemm_fp8(m->dev->stream, &g, t->fp8_scratch);
    else
        m->dev->k->gemm(m->dev->stream, &g);
}

/* dx[T,k] = dy W; dW += dy^T x; dbias += column sums of dy. */
static void linear_backward(struct fc_transformer *t, void *dx, const void *dy, const void *x,
                            size_t T, float *gradients, enum fc_param_kind weight,
                            enum fc_param_kind bias, size_t layer, size_t n, size_t k)
{
    struct fc_model *m = t->m;
    const struct fc_param *w = fc_params_find(&m->params, weight, layer);
    struct fc_gemm input = {.a = dy,
                            .b = fc_model_weight(m, weight, layer),
                            .y = dx,
                            .m = T,
                            .n = k,
                            .k = n,
                            .lda = n,
                            .ldb = k,
                            .ldy = k,
                            .type = m->dtype,
                            .y_type = m->dtype};
    struct fc_gemm weights = {.a = dy,
                              .b = x,
                              .y = gradients + w->offset,
                              .m = n,
                              .n = k,
                              .k = T,
                              .lda = n,
                              .ldb = k,
                              .ldy = k,
                              .trans_a = true,
                              .accumulate = true,
                              .type = m->dtype,
                              .y_type = FC_F32};
    m->dev->k->gemm(m->dev->stream, &input);
    m->dev->k->gemm(m->dev->stream, &weights);
    const struct fc_param *b = bias < FC_P_KINDS ? fc_params_find(&m->params, bias, layer) : NULL;
    if (b)
        m->dev->k->bias_backward(m->dev->stream, gradients + b->offset, dy, t->row_scratch, T, n,
                                 m->dtype);
}

static void forward(struct fc_transformer *t, const struct fc_batch *b)
{
    struct fc_model *m = t->m;
    const struct fc_kernels *k = m->dev->k;
    struct fc_stream *s = m->dev->stream;
    const struct fc_model_config *c = &m->config;
    enum fc_dtype dt = m->dtype;
    size_t T = b->T, C = c->n_embd, F = c->n_ff, A = c->n_head * c->head_size;
    size_t Q = A + 2 * c->n_kv_head * c->head_size, row = T * C * fc_dtype_size(dt);
    float eps = (float)c->norm_eps;

    k->embed_forward(s, t->layers[0].x1, fc_model_weight(m, FC_P_EMBED, 0), t->ids, T, C, dt);
    for (size_t l = 0; l < c->n_layer; l++) {
        struct layer_state *y = &t->layers[l];
        fc_device_range(m->dev, "layer", l);
        if (l > 0) /* the norm adds in place, and backward needs both sums */
            k->copy(s, y->x1, t->layers[l - 1].x2, row);
        k->rmsnorm_forward(s, y->n1, y->x1, l > 0 ? t->delta : NULL, y->rstd1,
                           fc_model_weight(m, FC_P_NORM1, l), eps, T, C, dt);
        linear(t, y->qkv, dt, y->n1, T, FC_P_QKV, FC_P_QKV_BIAS, l, Q, C);
        k->rope(s, y->qkv, t->positions, m->rope, T, &m->heads, false, dt);
        k->attention_forward(s, y->att, y->lse, y->qkv, t->starts, b->B, &m->heads, dt);
        linear(t, t->delta, dt, y->att, T, FC_P_OUT, FC_P_OUT_BIAS, l, C, A);

        k->copy(s, y->x2, y->x1, row);
        k->rmsnorm_forward(s, y->n2, y->x2, t->delta, y->rstd2, fc_model_weight(m, FC_P_NORM2, l),
                           eps, T, C, dt);
        linear(t, y->gate_up, dt, y->n2, T, FC_P_GATE_UP, FC_P_GATE_UP_BIAS, l, 2 * F, C);
        k->swiglu_forward(s, y->act, y->gate_up, T, F, dt);
        linear(t, t->delta, dt, y->act, T, FC_P_DOWN, FC_P_DOWN_BIAS, l, C, F);
        k->range_pop();
    }
    k->copy(s, t->xf, t->layers[c->n_layer - 1].x2, row);
    k->rmsnorm_forward(s, t->nf, t->xf, t->delta, t->rstd_f, fc_model_weight(m, FC_P_NORM_FINAL, 0),
                       eps, T, C, dt);
    k->gather_rows(s, t->hidden, t->nf, t->target_rows, b->n_targets, C, dt);
}

/* Loss and its gradient at the targets, a few rows at a time: the logits of all of them would be
 * the largest tensor of the step. */
static void classifier(struct fc_transformer *t, const struct fc_batch *b, float *gradients)
{
    struct fc_model *m = t->m;
    const struct fc_kernels *k = m->dev->k;
    struct fc_stream *s = m->dev->stream;
    size_t C = m->config.n_embd, V = m->config.n_vocab, e = fc_dtype_size(m->dtype);
    enum fc_param_kind head = m->config.tied ? FC_P_EMBED : FC_P_HEAD;
    for (size_t at = 0; at < b->n_targets; at += LOGIT_ROWS) {
        size_t n = b->n_targets - at < LOGIT_ROWS ? b->n_targets - at : LOGIT_ROWS;
        char *hidden = (char *)t->hidden + at * C * e;
        linear(t, t->logits, m->dtype, hidden, n, head, FC_P_KINDS, 0, V, C);
        k->cross_entropy(s, t->losses + at, t->logits, t->targets + at, t->weights + at, n, V,
                         m->dtype);
        linear_backward(t, (char *)t->dhidden + at * C * e, t->logits, hidden, n, gradients, head,
                        FC_P_KINDS, 0, V, C);
    }
}

static void backward(struct fc_transformer *t, const struct fc_batch *b, float *gradients)
{
    struct fc_model *m = t->m;
    const struct fc_kernels *k = m->dev->k;
    struct fc_stream *s = m->dev->stream;
    const struct fc_model_config *c = &m->config;
    enum fc_dtype dt = m->dtype;
    size_t T = b->T, C = c->n_embd, F = c->n_ff, A = c->n_head * c->head_size;
    size_t Q = A + 2 * c->n_kv_head * c->head_size, row = T * C * fc_dtype_size(dt);
#define GRADIENT(kind, layer) (gradients + fc_params_find(&m->params, kind, layer)->offset)

    k->zero(s, t->delta, row);
    k->scatter_rows(s, t->delta, t->dhidden, t->target_rows, b->n_targets, C, dt);
    k->zero(s, t->dx, row);
    k->rmsnorm_backward(s, t->dx, GRADIENT(FC_P_NORM_FINAL, 0), t->delta, t->xf, t->rstd_f,
                        fc_model_weight(m, FC_P_NORM_FINAL, 0), t->row_scratch, T, C, dt);
    for (size_t l = c->n_layer; l-- > 0;) {
        struct layer_state *y = &t->layers[l];
        fc_device_range(m->dev, "layer", l);
        linear_backward(t, t->dact, t->dx, y->act, T, gradients, FC_P_DOWN, FC_P_DOWN_BIAS, l, C,
                        F);
        k->swiglu_backward(s, t->dgate_up, t->dact, y->gate_up, T, F, dt);
        linear_backward(t, t->delta, t->dgate_up, y->n2, T, gradients, FC_P_GATE_UP,
                        FC_P_GATE_UP_BIAS, l, 2 * F, C);
        k->rmsnorm_backward(s, t->dx, GRADIENT(FC_P_NORM2, l), t->delta, y->x2, y->rstd2,
                            fc_model_weight(m, FC_P_NORM2, l), t->row_scratch, T, C, dt);

        linear_backward(t, t->datt, t->dx, y->att, T, gradients, FC_P_OUT, FC_P_OUT_BIAS, l, C, A);
        k->attention_backward(s, t->dqkv, t->datt, y->att, y->lse, y->qkv, t->row_scratch,
                              t->starts, b->B, &m->heads, dt);
        k->rope(s, t->dqkv, t->positions, m->rope, T, &m->heads, true, dt);
        linear_backward(t, t->delta, t->dqkv, y->n1, T, gradients, FC_P_QKV, FC_P_QKV_BIAS, l, Q,
                        C);
        k->rmsnorm_backward(s, t->dx, GRADIENT(FC_P_NORM1, l), t->delta, y->x1, y->rstd1,
                            fc_model_weight(m, FC_P_NORM1, l), t->row_scratch, T, C, dt);
        k->range_pop();
    }
    k->embed_backward(s, GRADIENT(FC_P_EMBED, 0), t->dx, t->ids, t->token_scratch, T, C, c->n_vocab,
                      dt);
#undef GRADIENT
}

enum fc_code fc_transformer_logits(struct fc_transformer *t, const struct fc_batch *b,
                                   float *logits, struct fc_error *err)
{
    const struct fc_model *m = t->m;
    size_t C = m->config.n_embd, V = m->config.n_vocab, e = fc_dtype_size(m->dtype);
    enum fc_code code = check_batch(t, b, err);
    if (code != FC_OK)
        return code;
    (void)upload_batch(t, b);
    forward(t, b);
    for (size_t at = 0; at < b->n_targets; at += LOGIT_ROWS) {
        size_t n = b->n_targets - at < LOGIT_ROWS ? b->n_targets - at : LOGIT_ROWS;
        linear(t, t->logits, FC_F32, (char *)t->hidden + at * C * e, n, FC_P_HEAD, FC_P_KINDS, 0, V,
               C);
        m->dev->k->download(m->dev->stream, logits + at * V, t->logits, n * V * sizeof(float));
    }
    fc_staging_sent(&t->staging);
    return m->dev->k->sync(m->dev->stream, err);
}

enum fc_code fc_transformer_start(struct fc_transformer *t, const struct fc_batch *b,
                                  float *gradients, struct fc_error *err)
{
    struct fc_device *dev = t->m->dev;
    enum fc_code code = check_batch(t, b, err);
    if (code != FC_OK)
        return code;
    float *losses = upload_batch(t, b);
    dev->k->range_push("forward");
    forward(t, b);
    classifier(t, b, gradients);
    dev->k->range_pop();
    dev->k->range_push("backward");
    backward(t, b, gradients);
    dev->k->range_pop();
    dev->k->download(dev->stream, losses, t->losses, b->n_targets * sizeof(float));
    fc_staging_sent(&t->staging);
    t->flight[t->n_flight].losses = losses;
    t->flight[t->n_flight++].done = t->staging.sent[t->staging.at];
    return FC_OK;
}

const float *fc_transformer_finish(struct fc_transformer *t)
{
    struct fc_device *dev = t->m->dev;
    assert(t->n_flight > 0);
    const float *losses = t->flight[0].losses;
    dev->k->event_sync(dev->stream, t->flight[0].done);
    t->n_flight--;
    memmove(t->flight, t->flight + 1, t->n_flight * sizeof t->flight[0]);
    return losses;
}

enum fc_code fc_transformer_gradients(struct fc_transformer *t, const struct fc_batch *b,
                                      float *gradients, float *losses, struct fc_error *err)
{
    struct fc_device *dev = t->m->dev;
    enum fc_code code = fc_transformer_start(t, b, gradients, err);
    if (code != FC_OK)
        return code;
    memcpy(losses, fc_transformer_finish(t), b->n_targets * sizeof *losses);
    return dev->k->sync(dev->stream, err);
}

double fc_transformer_flops(const struct fc_model *model, const struct fc_batch *b)
{
    const struct fc_model_config *c = &model->config;
    double C = (double)c->n_embd, F = (double)c->n_ff, A = (double)(c->n_head * c->head_size);
    double Q = A + 2.0 * (double)(c->n_kv_head * c->head_size);
    double products = C * Q + A * C + 3.0 * C * F; /* multiply-adds of a layer and token */
    double attention = 0;                          /* of a layer: q k^T and p v, causal half */
    for (size_t i = 0; i < b->B; i++) {
        double n = (double)(b->starts[i + 1] - b->starts[i]);
        attention += 2.0 * A * n * (n + 1.0) / 2.0;
    }
    double layer = products * (double)b->T + attention;
    double head = C * (double)c->n_vocab * (double)b->n_targets;
    return 6.0 * (layer * (double)c->n_layer + head);
}
