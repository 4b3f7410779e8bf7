#include "models/model_file.h"

#include "base/dequant.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "models/gguf.h"
#include "models/safetensors.h"

#include <stdio.h>
#include <string.h>

/* Where the rows of one part of a parameter come from. */
struct source {
    const unsigned char *data;
    const struct fc_weight_format *format;
};

struct fc_model_file {
    char *path;
    struct fc_model_config config;
    struct fc_params params;
    struct fc_gguf *gguf; /* one of the two */
    struct fc_safetensors *safetensors;
    struct source (*sources)[3]; /* per parameter and part */
    bool permuted;               /* q and k rows are in GGUF's order */
    char format[32];
};

/* ---- finding and checking the tensors -------------------------------------------------------- */

/* "[V, C]" for messages, outermost dimension first. */
static void describe_shape(char out[96], const size_t *dims, size_t n, bool innermost_first)
{
    size_t used = 1;
    snprintf(out, 96, "[");
    for (size_t i = 0; i < n && used < 90; i++)
        used += (size_t)snprintf(out + used, 96 - used, "%s%zu", i ? ", " : "",
                                 dims[innermost_first ? n - 1 - i : i]);
    if (used < 94)
        snprintf(out + used, 96 - used, "]");
}

/* A stored tensor in the terms of both file formats. */
struct stored {
    const size_t *dims;
    size_t n_dims;
    bool innermost_first;
    const unsigned char *data;
    const struct fc_weight_format *format; /* NULL: one we cannot read */
    const char *type;
};

static enum fc_code check_stored(const struct fc_model_file *f, const struct fc_param *p,
                                 size_t part, const char *name, const struct stored *s,
                                 struct fc_error *err)
{
    size_t rows = p->parts[part].rows;
    size_t expected[2] = {rows, p->cols}, n = p->is_vector ? 1 : 2;
    char wanted[96], found[96];
    bool same = s->n_dims == n;
    for (size_t i = 0; same && i < n; i++)
        same = s->dims[s->innermost_first ? n - 1 - i : i] == expected[i];
    if (!same) {
        describe_shape(wanted, expected, n, false);
        describe_shape(found, s->dims, s->n_dims, s->innermost_first);
        return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%s\": expected shape %s, found %s", f->path,
                       name, wanted, found);
    }
    if (!s->format || (p->is_vector && s->format->block > 1))
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: tensor \"%s\" is stored as %s, which this program cannot read", f->path,
                       name, s->format ? s->format->name : s->type);
    return FC_OK;
}

static enum fc_code find_source(struct fc_model_file *f, size_t param, size_t part,
                                struct fc_error *err)
{
    const struct fc_param *p = &f->params.items[param];
    const char *name = f->gguf ? p->parts[part].gguf_name : p->parts[part].name;
    struct stored s = {0};
    char type[32];
    if (f->gguf) {
        const struct fc_gguf_tensor *t = fc_gguf_tensor(f->gguf, name);
        if (t) {
            snprintf(type, sizeof type, "type number %u", (unsigned)t->type);
            s = (struct stored){t->dims, t->n_dims, true, t->data, fc_weight_format(t->type), type};
        }
    } else {
        const struct fc_safetensor *t = fc_safetensors_find(f->safetensors, name);
        if (t)
            s = (struct stored){
                t->dims, t->n_dims, false, t->data, fc_weight_format_by_name(t->dtype), t->dtype};
    }
    if (!s.dims)
        return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%s\" is missing", f->path, name);
    enum fc_code code = check_stored(f, p, part, name, &s, err);
    f->sources[param][part] = (struct source){s.data, s.format};
    return code;
}

/* "gguf Q4_1": the format that most elements are in. */
static void name_format(struct fc_model_file *f)
{
    const struct fc_weight_format *most = NULL, *format;
    size_t most_elements = 0;
    for (size_t i = 0; (format = fc_weight_format_at(i)); i++) {
        size_t elements = 0;
        for (size_t k = 0; k < f->params.n; k++)
            for (size_t part = 0; part < f->params.items[k].n_parts; part++)
                if (f->sources[k][part].format == format)
                    elements += f->params.items[k].parts[part].rows *
                                (f->params.items[k].is_vector ? 1 : f->params.items[k].cols);
        if (elements > most_elements) {
            most = format;
            most_elements = elements;
        }
    }
    snprintf(f->format, sizeof f->format, "%s %s", f->gguf ? "gguf" : "safetensors",
             most ? most->name : "");
}

/* ---- opening --------------------------------------------------------------------------------- */

static enum fc_code read_folder_config(struct fc_model_file *f, struct fc_error *err)
{
    const size_t limit = 16 << 20;
    enum fc_code code = FC_ERR_MEMORY;
    cJSON *config = NULL, *generation = NULL;
    char *config_path = fc_path_join(f->path, "config.json", err);
    char *generation_path = fc_path_join(f->path, "generation_config.json", err);
    if (!config_path || !generation_path)
        goto cleanup;
    code = FC_ERR_INPUT;
    if (!fc_is_file(config_path)) {
        fc_fail(err, code, "%s: not a model: this folder has no config.json", f->path);
        goto cleanup;
    }
    config = fc_json_read_file(config_path, limit, err);
    if (!config) {
        code = err ? err->code : FC_ERR_INPUT;
        goto cleanup;
    }
    if (fc_is_file(generation_path)) {
        generation = fc_json_read_file(generation_path, limit, err);
        if (!generation) {
            code = err ? err->code : FC_ERR_INPUT;
            goto cleanup;
        }
    }
    code = fc_config_from_hf(&f->config, config, generation, config_path, err);
cleanup:
    cJSON_Delete(config);
    cJSON_Delete(generation);
    free(config_path);
    free(generation_path);
    return code;
}

static enum fc_code open_files(struct fc_model_file *f, struct fc_error *err)
{
    enum fc_code code;
    if (fc_is_folder(f->path)) {
        code = read_folder_config(f, err);
        return code == FC_OK ? fc_safetensors_open_folder(&f->safetensors, f->path, err) : code;
    }
    code = fc_gguf_open(&f->gguf, f->path, err);
    if (code == FC_OK)
        code = fc_config_from_gguf(&f->config, f->gguf, err);
    f->permuted = strcmp(f->config.family, "llama") == 0; /* llama.cpp does it for llama only */
    return code;
}

static enum fc_code find_all(struct fc_model_file *f, struct fc_error *err)
{
    enum fc_code code = fc_params_build(&f->params, &f->config, err);
    if (code != FC_OK)
        return code;
    f->sources = fc_alloc(f->params.n, sizeof *f->sources, f->path, err);
    if (!f->sources)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < f->params.n; i++)
        for (size_t part = 0; code == FC_OK && part < f->params.items[i].n_parts; part++)
            code = find_source(f, i, part, err);
    name_format(f);
    return code;
}

enum fc_code fc_model_file_open(struct fc_model_file **file, const char *path, struct fc_error *err)
{
    *file = NULL;
    struct fc_model_file *f = fc_alloc(1, sizeof *f, path, err);
    if (!f)
        return FC_ERR_MEMORY;
    enum fc_code code = FC_ERR_MEMORY;
    f->path = fc_strndup(path, strlen(path), err);
    if (f->path)
        code = open_files(f, err);
    if (code == FC_OK)
        code = find_all(f, err);
    if (code == FC_OK)
        *file = f;
    else
        fc_model_file_close(f);
    return code;
}

void fc_model_file_close(struct fc_model_file *f)
{
    if (!f)
        return;
    free(f->sources);
    fc_params_free(&f->params);
    fc_gguf_close(f->gguf);
    fc_safetensors_close(f->safetensors);
    free(f->path);
    free(f);
}

const char *fc_model_file_path(const struct fc_model_file *f)
{
    return f->path;
}

const struct fc_model_config *fc_model_file_config(const struct fc_model_file *f)
{
    return &f->config;
}

const struct fc_params *fc_model_file_params(const struct fc_model_file *f)
{
    return &f->params;
}

const char *fc_model_file_format(const struct fc_model_file *f)
{
    return f->format;
}

const struct fc_gguf *fc_model_file_gguf(const struct fc_model_file *f)
{
    return f->gguf;
}

/* ---- reading weights ------------------------------------------------------------------------- */

/* n elements (a multiple of the format's block) to dst. */
static void convert(void *dst, enum fc_dtype dtype, const unsigned char *src,
                    const struct fc_weight_format *format, size_t n)
{
    if (dtype == FC_F32) {
        format->expand(dst, src, n / format->block);
        return;
    }
    uint16_t *out = dst;
    float buffer[FC_MAX_BLOCK];
    for (size_t done = 0; done < n;) {
        size_t now = n - done < FC_MAX_BLOCK ? n - done : FC_MAX_BLOCK;
        format->expand(buffer, src + done / format->block * format->bytes, now / format->block);
        for (size_t i = 0; i < now; i++)
            out[done + i] = dtype == FC_F16 ? fc_f32_to_f16(buffer[i]) : fc_f32_to_bf16(buffer[i]);
        done += now;
    }
}

/* llama.cpp stores each head's rows with the two halves of the rotary pairs interleaved: its rows
 * 2i and 2i + 1 are row i of the first half and row i of the second half in Hugging Face's order.
 */
static size_t stored_row(size_t row, size_t head_size)
{
    size_t head = row / head_size, channel = row % head_size, half = head_size / 2;
    return head * head_size + channel % half * 2 + channel / half;
}

static void read_part(unsigned char *dst, enum fc_dtype dtype, const struct source *source,
                      size_t rows, size_t cols, size_t head_size)
{
    size_t row_bytes = cols / source->format->block * source->format->bytes;
    size_t dst_bytes = cols * fc_dtype_size(dtype);
#pragma omp parallel for schedule(static) if (rows * cols >= 1 << 16)
    for (size_t row = 0; row < rows; row++) {
        size_t from = head_size ? stored_row(row, head_size) : row;
        convert(dst + row * dst_bytes, dtype, source->data + from * row_bytes, source->format,
                cols);
    }
}

static bool all_finite_f16(const uint16_t *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((w[i] & 0x7c00u) == 0x7c00u)
            return false;
    return true;
}

/* The file's own entry for a tensor; NULL: it has none. */
static const struct fc_param *find_param(const struct fc_model_file *f,
                                         const struct fc_param *wanted, struct fc_error *err)
{
    const struct fc_param *p = fc_params_find(&f->params, wanted->kind, wanted->layer);
    if (p && p->count == wanted->count)
        return p;
    fc_fail(err, FC_ERR_USAGE, "%s: asked for a tensor that this model does not have", f->path);
    return NULL;
}

/* Whether this part's rows are in GGUF's order: then the size of a head. */
static size_t permuted_heads(const struct fc_model_file *f, const struct fc_param *p, size_t part)
{
    bool is_qk = (p->kind == FC_P_QKV || p->kind == FC_P_QKV_BIAS) && part < 2;
    return f->permuted && is_qk ? f->config.head_size : 0;
}

const struct fc_weight_format *fc_model_file_stored(const struct fc_model_file *f,
                                                    const struct fc_param *wanted)
{
    const struct fc_param *p = find_param(f, wanted, NULL);
    const struct source *sources = p ? f->sources[p - f->params.items] : NULL;
    for (size_t part = 1; p && part < p->n_parts; part++)
        if (sources[part].format != sources[0].format)
            return NULL;
    return sources ? sources[0].format : NULL;
}

enum fc_code fc_model_file_read_blocks(const struct fc_model_file *f, const struct fc_param *wanted,
                                       void *dst, struct fc_error *err)
{
    const struct fc_param *p = find_param(f, wanted, err);
    const struct fc_weight_format *format = fc_model_file_stored(f, wanted);
    if (!p || !format || p->is_vector)
        return fc_fail(err, FC_ERR_USAGE, "%s: a tensor that is not a matrix of one format",
                       f->path);
    size_t row_bytes = p->cols / format->block * format->bytes;
    unsigned char *out = dst;
    for (size_t part = 0; part < p->n_parts; part++) {
        const unsigned char *data = f->sources[p - f->params.items][part].data;
        size_t head_size = permuted_heads(f, p, part);
        for (size_t row = 0; row < p->parts[part].rows; row++, out += row_bytes) {
            size_t from = head_size ? stored_row(row, head_size) : row;
            memcpy(out, data + from * row_bytes, row_bytes);
        }
    }
    return FC_OK;
}

enum fc_code fc_model_file_read(const struct fc_model_file *f, const struct fc_param *wanted,
                                enum fc_dtype dtype, void *dst, struct fc_error *err)
{
    const struct fc_param *p = find_param(f, wanted, err);
    if (!p)
        return FC_ERR_USAGE;
    unsigned char *out = dst;
    for (size_t part = 0; part < p->n_parts; part++) {
        const struct source *source = &f->sources[p - f->params.items][part];
        size_t rows = p->parts[part].rows, cols = p->is_vector ? 1 : p->cols;
        size_t head_size = permuted_heads(f, p, part);
        if (p->is_vector && !head_size) { /* one long row, as its blocks may want */
            cols = rows;
            rows = 1;
        }
        read_part(out, dtype, source, rows, cols, head_size);
        out += rows * cols * fc_dtype_size(dtype);
    }
    if (dtype == FC_F16 && !all_finite_f16(dst, p->count))
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: %s has weights beyond 65504, which fp16 cannot hold; take --dtype bf16",
                       f->path, p->parts[0].name);
    return FC_OK;
}
