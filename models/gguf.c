#include "base/dequant.h"
#include "base/memory.h"
#include "models/gguf_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const struct gguf_type_info fc_gguf_types[N_TYPES] = {
    [U8] = {"uint8", 1},      [I8] = {"int8", 1},     [U16] = {"uint16", 2},  [I16] = {"int16", 2},
    [U32] = {"uint32", 4},    [I32] = {"int32", 4},   [F32] = {"float32", 4}, [BOOL] = {"bool", 1},
    [STRING] = {"string", 0}, [ARRAY] = {"array", 0}, [U64] = {"uint64", 8},  [I64] = {"int64", 8},
    [F64] = {"float64", 8},
};

/* ---- reading bytes: every take_ checks the room first ---------------------------------------- */

struct cursor {
    const char *path;
    const unsigned char *data;
    size_t len, at;
};

static enum fc_code take(struct cursor *c, size_t bytes, const char *what,
                         const unsigned char **out, struct fc_error *err)
{
    if (bytes > c->len - c->at)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: truncated at byte %zu: %s needs %zu bytes, %zu are left", c->path,
                       c->at, what, bytes, c->len - c->at);
    *out = c->data + c->at;
    c->at += bytes;
    return FC_OK;
}

static enum fc_code take_u32(struct cursor *c, const char *what, uint32_t *out,
                             struct fc_error *err)
{
    const unsigned char *p = NULL;
    enum fc_code code = take(c, 4, what, &p, err);
    if (code == FC_OK)
        *out = (uint32_t)gguf_load(p, 4);
    return code;
}

static enum fc_code take_u64(struct cursor *c, const char *what, uint64_t *out,
                             struct fc_error *err)
{
    const unsigned char *p = NULL;
    enum fc_code code = take(c, 8, what, &p, err);
    if (code == FC_OK)
        *out = gguf_load(p, 8);
    return code;
}

static enum fc_code take_string(struct cursor *c, const char *what, struct fc_gguf_string *out,
                                struct fc_error *err)
{
    uint64_t len = 0;
    const unsigned char *p = NULL;
    enum fc_code code = take_u64(c, what, &len, err);
    if (code != FC_OK)
        return code;
    if (len > c->len - c->at)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: %s at byte %zu claims %" PRIu64 " bytes, %zu are left", c->path, what,
                       c->at - 8, len, c->len - c->at);
    code = take(c, (size_t)len, what, &p, err);
    if (code == FC_OK)
        *out = (struct fc_gguf_string){(const char *)p, (size_t)len};
    return code;
}

/* A count of things that take at least `least` bytes each, so a false one cannot make us allocate
 * much more than the file is long. */
static enum fc_code check_count(const struct cursor *c, uint64_t n, size_t least, const char *what,
                                struct fc_error *err)
{
    if (n > (c->len - c->at) / least)
        return fc_fail(err, FC_ERR_INPUT, "%s: claims %" PRIu64 " %s, but only %zu bytes are left",
                       c->path, n, what, c->len - c->at);
    return FC_OK;
}

int fc_gguf_compare(struct fc_gguf_string a, struct fc_gguf_string b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* ---- metadata -------------------------------------------------------------------------------- */

static enum fc_code take_value(struct cursor *c, struct gguf_value *v, struct fc_error *err)
{
    uint32_t type = 0;
    uint64_t n = 1;
    const unsigned char *p = NULL;
    enum fc_code code = take_string(c, "a metadata key", &v->key, err);
    if (code == FC_OK)
        code = take_u32(c, "a metadata type", &type, err);
    if (code != FC_OK)
        return code;
    v->is_array = type == ARRAY;
    if (v->is_array) {
        code = take_u32(c, "an array's type", &type, err);
        if (code == FC_OK)
            code = take_u64(c, "an array's length", &n, err);
        if (code != FC_OK)
            return code;
    }
    if (type >= N_TYPES || type == ARRAY)
        return fc_fail(err, type == ARRAY ? FC_ERR_UNSUPPORTED : FC_ERR_INPUT,
                       "%s: metadata \"%.*s\" has %s %" PRIu32, c->path, SHOWN(v->key),
                       type == ARRAY ? "nested arrays, type" : "the unknown type", type);
    size_t bytes = fc_gguf_types[type].bytes;
    code = check_count(c, n, bytes ? bytes : 8, "metadata array elements", err);
    if (code != FC_OK)
        return code;
    v->type = (enum gguf_type)type;
    v->n = (size_t)n;
    v->data = c->data + c->at;
    if (bytes)
        return take(c, bytes * v->n, "a metadata value", &p, err);
    struct fc_gguf_string unused;
    for (size_t i = 0; code == FC_OK && i < v->n; i++)
        code = take_string(c, "a metadata string", &unused, err);
    return code;
}

int fc_gguf_by_key(const void *a, const void *b)
{
    return fc_gguf_compare(((const struct gguf_value *)a)->key,
                           ((const struct gguf_value *)b)->key);
}

static enum fc_code read_metadata(struct fc_gguf *g, struct cursor *c, uint64_t n,
                                  struct fc_error *err)
{
    /* key length, type, one byte of value */
    enum fc_code code = check_count(c, n, 8 + 4 + 1, "metadata values", err);
    if (code != FC_OK)
        return code;
    g->values = fc_alloc((size_t)n, sizeof *g->values, c->path, err);
    if (!g->values)
        return FC_ERR_MEMORY;
    for (; g->n_values < n; g->n_values++) {
        code = take_value(c, &g->values[g->n_values], err);
        if (code != FC_OK)
            return code;
    }
    qsort(g->values, g->n_values, sizeof *g->values, fc_gguf_by_key);
    for (size_t i = 1; i < g->n_values; i++)
        if (fc_gguf_by_key(&g->values[i - 1], &g->values[i]) == 0)
            return fc_fail(err, FC_ERR_INPUT, "%s: metadata \"%.*s\" is there twice", c->path,
                           SHOWN(g->values[i].key));
    return FC_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static enum fc_code take_tensor(struct cursor *c, struct fc_gguf_tensor *t, uint64_t *offset,
                                struct fc_error *err)
{
    uint32_t n_dims = 0;
    enum fc_code code = take_string(c, "a tensor name", &t->name, err);
    if (code == FC_OK)
        code = take_u32(c, "a tensor's number of dimensions", &n_dims, err);
    if (code != FC_OK)
        return code;
    if (n_dims < 1 || n_dims > 4)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: tensor \"%.*s\": expected 1 to 4 dimensions, found %" PRIu32, c->path,
                       SHOWN(t->name), n_dims);
    t->n_dims = n_dims;
    size_t elements = 1;
    for (size_t i = 0; i < 4; i++) {
        uint64_t dim = 1;
        if (i < n_dims)
            code = take_u64(c, "a tensor's dimension", &dim, err);
        if (code != FC_OK)
            return code;
        if (dim == 0 || dim > INT64_MAX ||
            __builtin_mul_overflow(elements, (size_t)dim, &elements) || elements > INT64_MAX)
            return fc_fail(err, FC_ERR_INPUT,
                           "%s: tensor \"%.*s\": dimension %zu is %" PRIu64
                           ", which is zero or makes the tensor too large",
                           c->path, SHOWN(t->name), i, dim);
        t->dims[i] = (size_t)dim;
    }
    code = take_u32(c, "a tensor's type", &t->type, err);
    if (code == FC_OK)
        code = take_u64(c, "a tensor's offset", offset, err);
    if (code != FC_OK)
        return code;
    const struct fc_weight_format *format = fc_weight_format(t->type);
    if (!format)
        return FC_OK; /* refused by whoever needs this tensor */
    if (t->dims[0] % format->block)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: tensor \"%.*s\": rows of %zu elements do not divide into the blocks of "
                       "%zu of type %s",
                       c->path, SHOWN(t->name), t->dims[0], format->block, format->name);
    if (__builtin_mul_overflow(elements / format->block, format->bytes, &t->bytes))
        return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.*s\" is too large", c->path,
                       SHOWN(t->name));
    return FC_OK;
}

static int by_name(const void *a, const void *b)
{
    return fc_gguf_compare(((const struct fc_gguf_tensor *)a)->name,
                           ((const struct fc_gguf_tensor *)b)->name);
}

static int by_data(const void *a, const void *b)
{
    const struct fc_gguf_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Turns an offset into a pointer, once the start of the data is known. */
static enum fc_code place_tensor(const struct fc_gguf *g, struct fc_gguf_tensor *t, uint64_t offset,
                                 size_t start, size_t alignment, struct fc_error *err)
{
    size_t room = g->map.len > start ? g->map.len - start : 0;
    if (offset % alignment)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: tensor \"%.*s\": offset %" PRIu64 " is not a multiple of %zu", g->path,
                       SHOWN(t->name), offset, alignment);
    if (offset > room || t->bytes > room - (size_t)offset)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: tensor \"%.*s\": %zu bytes at offset %" PRIu64
                       " do not lie within the %zu bytes of tensor data (truncated file?)",
                       g->path, SHOWN(t->name), t->bytes, offset, room);
    t->data = g->map.data + start + (size_t)offset;
    return FC_OK;
}

static enum fc_code check_overlaps(struct fc_gguf *g, struct fc_error *err)
{
    struct fc_gguf_tensor *t = g->tensors;
    qsort(t, g->n_tensors, sizeof *t, by_data);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (t[i - 1].bytes > (size_t)(t[i].data - t[i - 1].data))
            return fc_fail(err, FC_ERR_INPUT, "%s: tensors \"%.*s\" and \"%.*s\" overlap", g->path,
                           SHOWN(t[i - 1].name), SHOWN(t[i].name));
    qsort(t, g->n_tensors, sizeof *t, by_name);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (by_name(&t[i - 1], &t[i]) == 0)
            return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.*s\" is there twice", g->path,
                           SHOWN(t[i].name));
    return FC_OK;
}

static enum fc_code read_tensors(struct fc_gguf *g, struct cursor *c, uint64_t n,
                                 struct fc_error *err)
{
    uint64_t *offsets = NULL;
    size_t alignment = 32;
    /* name length, number of dimensions, one dimension, type, offset */
    enum fc_code code = check_count(c, n, 8 + 4 + 8 + 4 + 8, "tensors", err);
    if (code == FC_OK)
        code = fc_gguf_size(g, "general.alignment", false, &alignment, err);
    if (code != FC_OK)
        return code;
    if (alignment == 0 || alignment > 1 << 20 || (alignment & (alignment - 1)))
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: general.alignment: expected a power of two up to 2^20, found %zu",
                       c->path, alignment);
    g->tensors = fc_alloc((size_t)n, sizeof *g->tensors, c->path, err);
    offsets = fc_alloc((size_t)n, sizeof *offsets, c->path, err);
    if (!g->tensors || !offsets) {
        code = FC_ERR_MEMORY;
        goto cleanup;
    }
    for (size_t i = 0; code == FC_OK && i < n; i++)
        code = take_tensor(c, &g->tensors[i], &offsets[i], err);
    size_t start = c->at + (alignment - c->at % alignment) % alignment;
    for (size_t i = 0; code == FC_OK && i < n; i++)
        code = place_tensor(g, &g->tensors[i], offsets[i], start, alignment, err);
    if (code != FC_OK)
        goto cleanup;
    g->n_tensors = (size_t)n;
    code = check_overlaps(g, err);
cleanup:
    free(offsets);
    return code;
}

/* ---- the file -------------------------------------------------------------------------------- */

static enum fc_code read_all(struct fc_gguf *g, struct fc_error *err)
{
    struct cursor c = {g->path, g->map.data, g->map.len, 0};
    const unsigned char *magic = NULL;
    uint32_t version = 0;
    uint64_t n_tensors = 0, n_values = 0;
    enum fc_code code = take(&c, 4, "the magic \"GGUF\"", &magic, err);
    if (code != FC_OK)
        return code;
    if (memcmp(magic, "GGUF", 4) != 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: not a GGUF file (wrong magic); a Hugging Face model is named by "
                       "its folder",
                       g->path);
    if ((code = take_u32(&c, "the version", &version, err)) != FC_OK)
        return code;
    if (version != 2 && version != 3)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: GGUF version 2 or 3, little-endian, is expected; found version %" PRIu32
                       "%s",
                       g->path, version, (version & 0xffff) == 0 ? " (a big-endian file?)" : "");
    if ((code = take_u64(&c, "the number of tensors", &n_tensors, err)) != FC_OK ||
        (code = take_u64(&c, "the number of metadata values", &n_values, err)) != FC_OK ||
        (code = read_metadata(g, &c, n_values, err)) != FC_OK)
        return code;
    return read_tensors(g, &c, n_tensors, err);
}

enum fc_code fc_gguf_open(struct fc_gguf **gguf, const char *path, struct fc_error *err)
{
    enum fc_code code = FC_ERR_MEMORY;
    *gguf = NULL;
    struct fc_gguf *g = fc_alloc(1, sizeof *g, path, err);
    if (!g)
        return code;
    g->path = fc_strndup(path, strlen(path), err);
    if (g->path)
        code = fc_map_open(&g->map, path, err);
    if (code == FC_OK)
        code = read_all(g, err);
    if (code == FC_OK)
        *gguf = g;
    else
        fc_gguf_close(g);
    return code;
}

void fc_gguf_close(struct fc_gguf *g)
{
    if (!g)
        return;
    free(g->values);
    free(g->tensors);
    free(g->path);
    fc_map_close(&g->map);
    free(g);
}

const char *fc_gguf_path(const struct fc_gguf *g)
{
    return g->path;
}

size_t fc_gguf_tensors(const struct fc_gguf *g, const struct fc_gguf_tensor **tensors)
{
    *tensors = g->tensors;
    return g->n_tensors;
}

const struct fc_gguf_tensor *fc_gguf_tensor(const struct fc_gguf *g, const char *name)
{
    struct fc_gguf_tensor wanted = {.name = {name, strlen(name)}};
    return g->n_tensors ? bsearch(&wanted, g->tensors, g->n_tensors, sizeof wanted, by_name) : NULL;
}
