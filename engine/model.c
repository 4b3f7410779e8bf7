#include "engine/model.h"

#include "base/dequant.h"
#include "base/memory.h"
#include "engine/staging.h"

#include <math.h>
#include <string.h>

static enum fc_code check_supported(const struct fc_model_config *c, struct fc_error *err)
{
    const struct {
        bool missing;
        const char *what;
    } features[] = {
        {c->norm != FC_NORM_RMS, "LayerNorm"},
        {c->position != FC_POSITION_ROPE, "learned positions"},
        {c->activation != FC_ACT_SILU || !c->gated, "an activation other than SwiGLU"},
        {c->parallel_residual, "parallel residual"},
        {c->qk_norm, "q/k norm"},
        {c->head_size % 2 != 0, "an odd head size"},
    };
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (features[i].missing)
            return fc_fail(err, FC_ERR_UNSUPPORTED,
                           "model family \"%s\" needs %s, which this engine does not have; it runs "
                           "Llama, Mistral and Qwen2 type models",
                           c->family, features[i].what);
    return FC_OK;
}

static size_t rope_bytes(const struct fc_model *m)
{
    return m->n_ctx * m->config.head_size * sizeof(float);
}

static size_t weight_bytes(const struct fc_model *m)
{
    return m->params.total * fc_dtype_size(m->dtype);
}

/* cos and sin for every position, in double and rounded once. */
static enum fc_code build_rope(struct fc_model *m, struct fc_error *err)
{
    size_t half = m->config.head_size / 2;
    enum fc_code code = FC_ERR_MEMORY;
    double *freq = fc_alloc(half, sizeof *freq, "rope frequencies", err);
    float *table = fc_alloc(m->n_ctx * half * 2, sizeof *table, "rope table", err);
    m->rope = fc_device_alloc(m->dev, rope_bytes(m), FC_MEM_WEIGHTS, err);
    if (!freq || !table || !m->rope)
        goto cleanup;
    fc_config_rope_frequencies(&m->config, freq);
#pragma omp parallel for schedule(static)
    for (size_t p = 0; p < m->n_ctx; p++)
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * freq[i];
            table[p * 2 * half + i] = (float)cos(angle);
            table[p * 2 * half + half + i] = (float)sin(angle);
        }
    m->dev->k->upload(m->dev->stream, m->rope, table, rope_bytes(m));
    code = m->dev->k->sync(m->dev->stream, err); /* before the host table goes */
cleanup:
    free(freq);
    free(table);
    return code;
}

/* All but the memory: so that tensors can be left out of it. */
static enum fc_code describe(struct fc_model *m, struct fc_device *dev,
                             const struct fc_model_config *config, enum fc_dtype dtype,
                             size_t max_ctx, struct fc_error *err)
{
    *m = (struct fc_model){.dev = dev, .config = *config, .dtype = dtype};
    enum fc_code code = check_supported(config, err);
    if (code == FC_OK && dtype == FC_F16 && !dev->k->takes_f16)
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "--dtype fp16: the device %s computes in fp32 and bf16; take one of them, "
                       "or --device cuda",
                       dev->name);
    if (code != FC_OK)
        return code;
    m->n_ctx = max_ctx && max_ctx < config->n_ctx ? max_ctx : config->n_ctx;
    m->heads = (struct fc_heads){.nh = config->n_head,
                                 .nkv = config->n_kv_head,
                                 .hs = config->head_size,
                                 .scale = (float)(1.0 / sqrt((double)config->head_size))};
    return fc_params_build(&m->params, config, err);
}

/* Takes the memory; frees the model after an error. */
static enum fc_code finish(struct fc_model *m, enum fc_code code, struct fc_error *err)
{
    if (code == FC_OK) {
        m->weights = fc_device_alloc(m->dev, weight_bytes(m), FC_MEM_WEIGHTS, err);
        if (!m->weights)
            code = FC_ERR_MEMORY;
    }
    if (code == FC_OK) {
        m->dev->k->zero(m->dev->stream, m->weights, weight_bytes(m));
        code = build_rope(m, err);
    }
    if (code != FC_OK)
        fc_model_free(m);
    return code;
}

enum fc_code fc_model_create(struct fc_model *m, struct fc_device *dev,
                             const struct fc_model_config *config, enum fc_dtype dtype,
                             size_t max_ctx, struct fc_error *err)
{
    return finish(m, describe(m, dev, config, dtype, max_ctx, err), err);
}

/* Bytes of a block of pinned memory, of which loading takes two. */
#define MOST_PINNED ((size_t)128 << 20)

/* Fills the flat buffer. */
static enum fc_code load_buffer(struct fc_model *m, const struct fc_model_file *file,
                                struct fc_error *err)
{
    const struct fc_kernels *k = m->dev->k;
    size_t element = fc_dtype_size(m->dtype), largest = 0;
    for (size_t i = 0; i < m->params.n; i++)
        if (m->params.items[i].offset != FC_NOT_IN_BUFFER && m->params.items[i].count > largest)
            largest = m->params.items[i].count;
    /* One tensor is expanded while the one before is on its way. Pinned memory is slow to get and
     * short in containers: the few tensors beyond its limit go through plain memory, one by one. */
    size_t block_bytes = largest * element < MOST_PINNED ? largest * element : MOST_PINNED;
    struct fc_staging staging;
    enum fc_code code = fc_staging_open(&staging, m->dev, block_bytes, err);
    void *plain = NULL;
    if (code == FC_OK && largest * element > block_bytes) {
        plain = fc_alloc(largest, element, "weight staging", err);
        code = plain ? FC_OK : FC_ERR_MEMORY;
    }
    for (size_t i = 0; i < m->params.n && code == FC_OK; i++) {
        const struct fc_param *p = &m->params.items[i];
        if (p->offset == FC_NOT_IN_BUFFER)
            continue;
        bool fits = p->count * element <= block_bytes;
        void *block = fits ? fc_staging_next(&staging) : plain;
        code = fc_model_file_read(file, p, m->dtype, block, err);
        if (code != FC_OK)
            break;
        k->upload(m->dev->stream, (char *)m->weights + p->offset * element, block,
                  p->count * element);
        if (fits)
            fc_staging_sent(&staging);
        else
            code = k->sync(m->dev->stream, err); /* `plain` is used again */
    }
    enum fc_code sent = k->sync(m->dev->stream, code == FC_OK ? err : NULL);
    fc_staging_close(&staging);
    free(plain);
    return code == FC_OK ? sent : code;
}

enum fc_code fc_model_load(struct fc_model *m, struct fc_device *dev,
                           const struct fc_model_file *file, enum fc_dtype dtype, size_t max_ctx,
                           struct fc_error *err)
{
    enum fc_code code = fc_model_create(m, dev, fc_model_file_config(file), dtype, max_ctx, err);
    if (code == FC_OK)
        code = load_buffer(m, file, err);
    if (code != FC_OK)
        fc_model_free(m);
    return code;
}

/* ---- weights that stay in the blocks of their file ------------------------------------------- */

static size_t stored_bytes(const struct fc_param *p, const struct fc_weight_format *format)
{
    return p->rows * (p->cols / format->block * format->bytes);
}

/* The format to keep a tensor in, NULL: it is expanded. */
static const struct fc_weight_format *format_to_keep(const struct fc_model_file *file,
                                                     const struct fc_param *p)
{
    const struct fc_weight_format *f = p->is_vector ? NULL : fc_model_file_stored(file, p);
    bool known =
        f && (f->type == FC_GGML_Q4_0 || f->type == FC_GGML_Q4_1 || f->type == FC_GGML_Q8_0);
    return known && p->cols % f->block == 0 ? f : NULL;
}

/* Leaves what is kept out of the flat buffer. *largest: bytes of the largest such tensor. */
static enum fc_code leave_out_kept(struct fc_model *m, const struct fc_model_file *file,
                                   size_t *largest, struct fc_error *err)
{
    bool *out = fc_alloc(m->params.n, sizeof *out, "parameter table", err);
    if (!out)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < m->params.n; i++) {
        const struct fc_weight_format *format = format_to_keep(file, &m->params.items[i]);
        out[i] = format != NULL;
        size_t bytes = format ? stored_bytes(&m->params.items[i], format) : 0;
        *largest = bytes > *largest ? bytes : *largest;
    }
    fc_params_leave_out(&m->params, out);
    free(out);
    if (*largest > 0)
        return FC_OK;
    return fc_fail(err, FC_ERR_UNSUPPORTED,
                   "--keep-quantised: expected matrices in Q4_0, Q4_1 or Q8_0, found %s in %s; run "
                   "without the flag, or take a file in one of these formats",
                   fc_model_file_format(file), fc_model_file_path(file));
}

static enum fc_code load_kept(struct fc_model *m, const struct fc_model_file *file, size_t largest,
                              struct fc_error *err)
{
    struct fc_device *dev = m->dev;
    enum fc_code code = FC_OK;
    void *host = fc_alloc(largest, 1, "weight staging", err);
    void *blocks = host ? fc_device_alloc(dev, largest, FC_MEM_STAGING, err) : NULL;
    m->kept = blocks ? fc_alloc(m->params.n, sizeof(struct fc_quantised *), "weights", err) : NULL;
    if (!m->kept)
        code = FC_ERR_MEMORY;
    for (size_t i = 0; i < m->params.n && code == FC_OK; i++) {
        const struct fc_param *p = &m->params.items[i];
        const struct fc_weight_format *format = format_to_keep(file, p);
        size_t bytes = 0;
        if (!format)
            continue;
        code = fc_model_file_read_blocks(file, p, host, err);
        if (code != FC_OK)
            break;
        dev->k->upload(dev->stream, blocks, host, stored_bytes(p, format));
        m->kept[i] =
            dev->k->quantised_open(dev->stream, blocks, format->type, p->rows, p->cols, &bytes);
        m->kept_bytes += bytes;
        fc_device_count(dev, (long long)bytes, FC_MEM_QUANTISED);
        code = dev->k->sync(dev->stream, err); /* both buffers are used again */
    }
    fc_device_free(dev, blocks, largest, FC_MEM_STAGING);
    free(host);
    return code;
}

enum fc_code fc_model_load_quantised(struct fc_model *m, struct fc_device *dev,
                                     const struct fc_model_file *file, enum fc_dtype dtype,
                                     size_t max_ctx, struct fc_error *err)
{
    size_t largest = 0;
    enum fc_code code = describe(m, dev, fc_model_file_config(file), dtype, max_ctx, err);
    if (code == FC_OK)
        code = leave_out_kept(m, file, &largest, err);
    code = finish(m, code, err);
    if (code != FC_OK)
        return code;
    code = load_buffer(m, file, err);
    if (code == FC_OK)
        code = load_kept(m, file, largest, err);
    if (code != FC_OK)
        fc_model_free(m);
    return code;
}

static void free_kept(struct fc_model *m)
{
    for (size_t i = 0; m->kept && i < m->params.n; i++)
        m->dev->k->quantised_close(m->dev->stream, m->kept[i]);
    fc_device_count(m->dev, -(long long)m->kept_bytes, FC_MEM_QUANTISED);
    free(m->kept);
    m->kept = NULL;
    m->kept_bytes = 0;
}

void fc_model_free(struct fc_model *m)
{
    if (!m->dev)
        return;
    fc_model_unpack(m);
    free_kept(m);
    fc_device_free(m->dev, m->rope, rope_bytes(m), FC_MEM_WEIGHTS);
    fc_device_free(m->dev, m->weights, weight_bytes(m), FC_MEM_WEIGHTS);
    fc_params_free(&m->params);
    *m = (struct fc_model){0};
}

/* The embedding is packed too when it is also the output projection. */
static bool wants_packing(const struct fc_model *m, const struct fc_param *p)
{
    return !p->is_vector && p->offset != FC_NOT_IN_BUFFER &&
           (p->kind != FC_P_EMBED || m->config.tied);
}

enum fc_code fc_model_pack(struct fc_model *m, struct fc_error *err)
{
    fc_model_unpack(m);
    const struct fc_kernels *k = m->dev->k;
    m->packings++;
    m->packed = fc_alloc(m->params.n, sizeof(struct fc_packed *), "packed weights", err);
    if (!m->packed)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < m->params.n; i++) {
        const struct fc_param *p = &m->params.items[i];
        if (!wants_packing(m, p))
            continue;
        const char *w = (const char *)m->weights + p->offset * fc_dtype_size(m->dtype);
        m->packed[i] = k->pack(m->dev->stream, w, p->rows, p->cols, m->dtype);
        if (m->packed[i])
            m->packed_bytes += p->count * fc_dtype_size(m->dtype);
    }
    fc_device_count(m->dev, (long long)m->packed_bytes, FC_MEM_PACKED);
    struct fc_error why = {0};
    enum fc_code code = k->sync(m->dev->stream, &why);
    if (code != FC_OK) {
        fc_device_explain(m->dev, FC_MEM_PACKED, &why, err);
        fc_model_unpack(m);
    }
    return code;
}

void fc_model_unpack(struct fc_model *m)
{
    if (!m->packed)
        return;
    for (size_t i = 0; i < m->params.n; i++)
        if (m->packed[i])
            m->dev->k->unpack(m->dev->stream, m->packed[i]);
    fc_device_count(m->dev, -(long long)m->packed_bytes, FC_MEM_PACKED);
    free(m->packed);
    m->packed = NULL;
    m->packed_bytes = 0;
}

static const struct fc_param *find(const struct fc_model *m, enum fc_param_kind kind, size_t layer)
{
    if (kind == FC_P_HEAD && m->config.tied)
        kind = FC_P_EMBED;
    return fc_params_find(&m->params, kind, layer);
}

void *fc_model_weight(const struct fc_model *m, enum fc_param_kind kind, size_t layer)
{
    const struct fc_param *p = find(m, kind, layer);
    return p && p->offset != FC_NOT_IN_BUFFER
               ? (char *)m->weights + p->offset * fc_dtype_size(m->dtype)
               : NULL;
}

struct fc_packed *fc_model_packed(const struct fc_model *m, enum fc_param_kind kind, size_t layer)
{
    const struct fc_param *p = find(m, kind, layer);
    return p && m->packed ? m->packed[p - m->params.items] : NULL;
}

static const struct fc_quantised *kept(const struct fc_model *m, enum fc_param_kind kind,
                                       size_t layer)
{
    const struct fc_param *p = m->kept ? find(m, kind, layer) : NULL;
    return p ? m->kept[p - m->params.items] : NULL;
}

void fc_model_multiply(const struct fc_model *m, void *y, enum fc_dtype y_type, const void *x,
                       enum fc_param_kind kind, size_t layer, size_t rows)
{
    const struct fc_quantised *w = kept(m, kind, layer);
    const struct fc_kernels *k = m->dev->k;
    if (w)
        k->gemm_quantised(m->dev->stream, y, y_type, x, m->dtype, w, rows);
    else
        k->gemm_packed(m->dev->stream, y, y_type, x, fc_model_packed(m, kind, layer), rows);
}

void fc_model_embed(const struct fc_model *m, void *x, const int32_t *ids, size_t n)
{
    const struct fc_quantised *w = kept(m, FC_P_EMBED, 0);
    const struct fc_kernels *k = m->dev->k;
    if (w)
        k->embed_quantised(m->dev->stream, x, w, ids, n, m->dtype);
    else
        k->embed_forward(m->dev->stream, x, fc_model_weight(m, FC_P_EMBED, 0), ids, n,
                         m->config.n_embd, m->dtype);
}
