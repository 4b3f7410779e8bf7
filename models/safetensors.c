#include "models/safetensors.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER ((size_t)100 << 20)
#define MAX_SHARDS 1024

struct shard {
    struct fc_map map;
    cJSON *header; /* owns the tensors' names */
};

struct fc_safetensors {
    struct shard *shards;
    size_t n_shards, shard_capacity;
    struct fc_safetensor *tensors;
    size_t n_tensors, tensor_capacity;
};

/* ---- one tensor of a header ------------------------------------------------------------------ */

static size_t dtype_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        size_t bytes;
    } dtypes[] = {{"F64", 8}, {"I64", 8}, {"U64", 8},     {"F32", 4},     {"I32", 4},
                  {"U32", 4}, {"F16", 2}, {"BF16", 2},    {"I16", 2},     {"U16", 2},
                  {"I8", 1},  {"U8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, dtype) == 0)
            return dtypes[i].bytes;
    return 0;
}

/* A JSON array of at most `most` whole numbers. */
static enum fc_code read_sizes(const cJSON *array, size_t *out, size_t most, size_t *n,
                               const char *path, const char *tensor, const char *field,
                               struct fc_error *err)
{
    *n = 0;
    if (!cJSON_IsArray(array))
        return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.100s\": %s: expected an array", path,
                       tensor, field);
    for (const cJSON *item = array->child; item; item = item->next) {
        double v = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(v >= 0 && v <= 9007199254740992.0) || v > (double)(size_t)v || *n == most)
            return fc_fail(
                err, FC_ERR_INPUT,
                "%s: tensor \"%.100s\": %s: expected at most %zu whole numbers from 0 to "
                "2^53",
                path, tensor, field, most);
        out[(*n)++] = (size_t)v;
    }
    return FC_OK;
}

static enum fc_code read_tensor(struct fc_safetensor *t, const cJSON *entry, const char *path,
                                const unsigned char *data, size_t len, struct fc_error *err)
{
    const char *dtype = NULL;
    size_t offsets[2] = {0, 0}, n_offsets = 0, bytes = 0;
    t->name = entry->string;
    if (!cJSON_IsObject(entry))
        return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.100s\": expected an object", path,
                       t->name);
    for (size_t i = 0; i < FC_SAFETENSOR_DIMS; i++)
        t->dims[i] = 1;
    enum fc_code code;
    if ((code = fc_json_string(entry, "dtype", true, &dtype, path, err)) ||
        (code = read_sizes(cJSON_GetObjectItemCaseSensitive(entry, "shape"), t->dims,
                           FC_SAFETENSOR_DIMS, &t->n_dims, path, t->name, "shape", err)) ||
        (code = read_sizes(cJSON_GetObjectItemCaseSensitive(entry, "data_offsets"), offsets, 2,
                           &n_offsets, path, t->name, "data_offsets", err)))
        return code;
    if (n_offsets != 2 || offsets[0] > offsets[1] || offsets[1] > len)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: tensor \"%.100s\": data_offsets [%zu, %zu] do not lie within the %zu "
                       "bytes of data (truncated file?)",
                       path, t->name, offsets[0], offsets[1], len);
    bytes = dtype_bytes(dtype);
    if (bytes == 0)
        return fc_fail(err, FC_ERR_UNSUPPORTED, "%s: tensor \"%.100s\": unknown dtype \"%.15s\"",
                       path, t->name, dtype);
    for (size_t i = 0; i < t->n_dims; i++)
        if (__builtin_mul_overflow(bytes, t->dims[i], &bytes))
            return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.100s\": the shape is too large", path,
                           t->name);
    if (bytes != offsets[1] - offsets[0])
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: tensor \"%.100s\": shape and dtype %s need %zu bytes, data_offsets "
                       "give %zu",
                       path, t->name, dtype, bytes, offsets[1] - offsets[0]);
    snprintf(t->dtype, sizeof t->dtype, "%s", dtype);
    t->data = data + offsets[0];
    t->bytes = bytes;
    return FC_OK;
}

/* ---- one file -------------------------------------------------------------------------------- */

static int by_data(const void *a, const void *b)
{
    const struct fc_safetensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fc_safetensor *)a)->name, ((const struct fc_safetensor *)b)->name);
}

/* The data must be covered exactly: no byte twice (overlaps), none unnamed (gaps, which could hide
 * things, and a header that does not belong to its data). */
static enum fc_code check_cover(struct fc_safetensor *t, size_t n, const char *path,
                                const unsigned char *data, size_t len, struct fc_error *err)
{
    const unsigned char *at = data;
    if (n)
        qsort(t, n, sizeof *t, by_data);
    for (size_t i = 0; i < n; at = t[i].data + t[i].bytes, i++)
        if (t[i].data != at)
            return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.100s\": its data %s", path, t[i].name,
                           t[i].data < at ? "overlaps that of another tensor"
                                          : "comes after a gap that belongs to no tensor");
    if ((size_t)(at - data) != len)
        return fc_fail(err, FC_ERR_INPUT, "%s: %zu bytes of data, but the tensors end after %zu",
                       path, len, (size_t)(at - data));
    return FC_OK;
}

static enum fc_code read_header(struct fc_safetensors *st, struct shard *shard, const char *path,
                                struct fc_error *err)
{
    const unsigned char *file = shard->map.data;
    size_t len = 0, first = st->n_tensors;
    if (shard->map.len < 8)
        return fc_fail(err, FC_ERR_INPUT, "%s: %zu bytes, too short for a safetensors file", path,
                       shard->map.len);
    for (size_t i = 8; i-- > 0;)
        len = len << 8 | file[i];
    if (len > MAX_HEADER || len > shard->map.len - 8)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: the header claims %zu bytes; the file has %zu and the limit is %zu",
                       path, len, shard->map.len - 8, MAX_HEADER);
    const unsigned char *data = file + 8 + len;
    size_t data_len = shard->map.len - 8 - len;
    shard->header = fc_json_parse((const char *)file + 8, len, path, err);
    if (!shard->header)
        return FC_ERR_INPUT;
    if (!cJSON_IsObject(shard->header))
        return fc_fail(err, FC_ERR_INPUT, "%s: the header is not a JSON object", path);
    for (const cJSON *entry = shard->header->child; entry; entry = entry->next) {
        if (strcmp(entry->string, "__metadata__") == 0)
            continue;
        enum fc_code code = fc_grow((void **)&st->tensors, &st->tensor_capacity, st->n_tensors + 1,
                                    sizeof *st->tensors, path, err);
        if (code != FC_OK)
            return code;
        struct fc_safetensor *t = &st->tensors[st->n_tensors];
        *t = (struct fc_safetensor){0};
        if ((code = read_tensor(t, entry, path, data, data_len, err)) != FC_OK)
            return code;
        st->n_tensors++;
    }
    return check_cover(st->tensors + first, st->n_tensors - first, path, data, data_len, err);
}

static enum fc_code add_file(struct fc_safetensors *st, const char *path, struct fc_error *err)
{
    enum fc_code code = fc_grow((void **)&st->shards, &st->shard_capacity, st->n_shards + 1,
                                sizeof *st->shards, path, err);
    if (code != FC_OK)
        return code;
    struct shard *shard = &st->shards[st->n_shards++];
    *shard = (struct shard){0};
    code = fc_map_open(&shard->map, path, err);
    return code == FC_OK ? read_header(st, shard, path, err) : code;
}

static enum fc_code sort_names(struct fc_safetensors *st, const char *path, struct fc_error *err)
{
    if (st->n_tensors)
        qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_name);
    for (size_t i = 1; i < st->n_tensors; i++)
        if (by_name(&st->tensors[i - 1], &st->tensors[i]) == 0)
            return fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.100s\" is there twice", path,
                           st->tensors[i].name);
    return FC_OK;
}

/* Hands the struct to the caller, or releases it after an error. */
static enum fc_code finish(struct fc_safetensors **out, struct fc_safetensors *st,
                           enum fc_code code)
{
    if (code == FC_OK)
        *out = st;
    else
        fc_safetensors_close(st);
    return code;
}

enum fc_code fc_safetensors_open(struct fc_safetensors **out, const char *path,
                                 struct fc_error *err)
{
    *out = NULL;
    struct fc_safetensors *st = fc_alloc(1, sizeof *st, path, err);
    if (!st)
        return FC_ERR_MEMORY;
    enum fc_code code = add_file(st, path, err);
    if (code == FC_OK)
        code = sort_names(st, path, err);
    return finish(out, st, code);
}

/* ---- shards ---------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of a weight_map, sorted. They come from a file that others wrote: only
 * plain names, no paths out of the folder. */
static enum fc_code shard_names(const cJSON *weight_map, const char *path, const char ***names,
                                size_t *n, struct fc_error *err)
{
    size_t count = 0, distinct = 0;
    for (const cJSON *item = weight_map->child; item; item = item->next)
        count++;
    const char **list = fc_alloc(count, sizeof *list, path, err);
    if (!list)
        return FC_ERR_MEMORY;
    *names = list;
    count = 0;
    for (const cJSON *item = weight_map->child; item; item = item->next) {
        const char *name = cJSON_GetStringValue(item);
        if (!name || !*name || strchr(name, '/') || name[0] == '.')
            return fc_fail(err, FC_ERR_INPUT,
                           "%s: weight_map: \"%.100s\": expected the name of a file in this folder",
                           path, item->string);
        list[count++] = name;
    }
    qsort(list, count, sizeof *list, by_text);
    for (size_t i = 0; i < count; i++)
        if (distinct == 0 || strcmp(list[distinct - 1], list[i]) != 0)
            list[distinct++] = list[i];
    if (distinct == 0 || distinct > MAX_SHARDS)
        return fc_fail(err, FC_ERR_INPUT, "%s: weight_map: expected 1 to %d files, found %zu", path,
                       MAX_SHARDS, distinct);
    *n = distinct;
    return FC_OK;
}

static enum fc_code open_index(struct fc_safetensors *st, const char *folder, const char *path,
                               struct fc_error *err)
{
    const char **names = NULL;
    size_t n = 0;
    enum fc_code code = FC_ERR_INPUT;
    cJSON *index = fc_json_read_file(path, MAX_HEADER, err);
    if (!index)
        return err ? err->code : FC_ERR_INPUT;
    const cJSON *weight_map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    if (!cJSON_IsObject(weight_map)) {
        code = fc_fail(err, FC_ERR_INPUT, "%s: field \"weight_map\": expected an object", path);
        goto cleanup;
    }
    code = shard_names(weight_map, path, &names, &n, err);
    for (size_t i = 0; code == FC_OK && i < n; i++) {
        char *file = fc_path_join(folder, names[i], err);
        code = file ? add_file(st, file, err) : FC_ERR_MEMORY;
        free(file);
    }
    if (code == FC_OK)
        code = sort_names(st, folder, err);
    for (const cJSON *item = weight_map->child; code == FC_OK && item; item = item->next)
        if (!fc_safetensors_find(st, item->string))
            code = fc_fail(err, FC_ERR_INPUT, "%s: tensor \"%.100s\" is missing from \"%.100s\"",
                           path, item->string, item->valuestring);
cleanup:
    free(names);
    cJSON_Delete(index);
    return code;
}

enum fc_code fc_safetensors_open_folder(struct fc_safetensors **out, const char *folder,
                                        struct fc_error *err)
{
    enum fc_code code = FC_ERR_MEMORY;
    *out = NULL;
    struct fc_safetensors *st = fc_alloc(1, sizeof *st, folder, err);
    char *single = fc_path_join(folder, "model.safetensors", err);
    char *index = fc_path_join(folder, "model.safetensors.index.json", err);
    if (!st || !single || !index)
        goto cleanup;
    if (fc_is_file(single)) {
        code = add_file(st, single, err);
        if (code == FC_OK)
            code = sort_names(st, single, err);
    } else if (fc_is_file(index)) {
        code = open_index(st, folder, index, err);
    } else {
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: expected model.safetensors or model.safetensors.index.json in this "
                       "folder, found neither",
                       folder);
    }
cleanup:
    free(single);
    free(index);
    return finish(out, st, code);
}

void fc_safetensors_close(struct fc_safetensors *st)
{
    if (!st)
        return;
    for (size_t i = 0; i < st->n_shards; i++) {
        fc_map_close(&st->shards[i].map);
        cJSON_Delete(st->shards[i].header);
    }
    free(st->shards);
    free(st->tensors);
    free(st);
}

size_t fc_safetensors_list(const struct fc_safetensors *st, const struct fc_safetensor **tensors)
{
    *tensors = st->tensors;
    return st->n_tensors;
}

const struct fc_safetensor *fc_safetensors_find(const struct fc_safetensors *st, const char *name)
{
    struct fc_safetensor wanted = {.name = name};
    return st->n_tensors ? bsearch(&wanted, st->tensors, st->n_tensors, sizeof wanted, by_name)
                         : NULL;
}
