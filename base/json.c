#include "base/json.h"

#include "base/file.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

cJSON *fc_json_parse(const char *text, size_t len, const char *where, struct fc_error *err)
{
    const char *end = NULL;
    cJSON *value = cJSON_ParseWithLengthOpts(text, len, &end, false);
    if (!value) {
        fc_fail(err, FC_ERR_INPUT, "%s: not valid JSON near byte %zu", where,
                end ? (size_t)(end - text) : 0);
        return NULL;
    }
    while (end < text + len && (*end == ' ' || *end == '\t' || *end == '\r' || *end == '\n'))
        end++;
    if (end < text + len) {
        fc_fail(err, FC_ERR_INPUT, "%s: unexpected text after the JSON value at byte %zu", where,
                (size_t)(end - text));
        cJSON_Delete(value);
        return NULL;
    }
    return value;
}

cJSON *fc_json_read_file(const char *path, size_t max_len, struct fc_error *err)
{
    char *text;
    size_t len;
    if (fc_file_read(path, max_len, &text, &len, err) != FC_OK)
        return NULL;
    cJSON *value = fc_json_parse(text, len, path, err);
    free(text);
    return value;
}

static const char *type_name(const cJSON *item)
{
    return cJSON_IsNumber(item)   ? "a number"
           : cJSON_IsString(item) ? "a string"
           : cJSON_IsBool(item)   ? "true or false"
           : cJSON_IsArray(item)  ? "an array"
           : cJSON_IsObject(item) ? "an object"
                                  : "null";
}

/* The field, or NULL when it is absent; *code is FC_ERR_INPUT if it was required. */
static const cJSON *field(const cJSON *object, const char *name, bool required, const char *where,
                          enum fc_code *code, struct fc_error *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    *code = FC_OK;
    if (item && !cJSON_IsNull(item))
        return item;
    if (required)
        *code = fc_fail(err, FC_ERR_INPUT, "%s: field \"%s\" is missing", where, name);
    return NULL;
}

static enum fc_code wrong(const cJSON *item, const char *name, const char *expected,
                          const char *where, struct fc_error *err)
{
    return fc_fail(err, FC_ERR_INPUT, "%s: field \"%s\": expected %s, found %s", where, name,
                   expected, type_name(item));
}

enum fc_code fc_json_size(const cJSON *object, const char *name, bool required, size_t *out,
                          const char *where, struct fc_error *err)
{
    enum fc_code code;
    const cJSON *item = field(object, name, required, where, &code, err);
    if (!item)
        return code;
    if (!cJSON_IsNumber(item))
        return wrong(item, name, "a whole number", where, err);
    double v = item->valuedouble;
    if (!(v >= 0 && v <= 9007199254740992.0) || floor(v) < v)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: field \"%s\": expected a whole number from 0 to 2^53, found %g", where,
                       name, v);
    *out = (size_t)v;
    return FC_OK;
}

enum fc_code fc_json_double(const cJSON *object, const char *name, bool required, double *out,
                            const char *where, struct fc_error *err)
{
    enum fc_code code;
    const cJSON *item = field(object, name, required, where, &code, err);
    if (!item)
        return code;
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
        return wrong(item, name, "a finite number", where, err);
    *out = item->valuedouble;
    return FC_OK;
}

enum fc_code fc_json_bool(const cJSON *object, const char *name, bool required, bool *out,
                          const char *where, struct fc_error *err)
{
    enum fc_code code;
    const cJSON *item = field(object, name, required, where, &code, err);
    if (!item)
        return code;
    if (!cJSON_IsBool(item))
        return wrong(item, name, "true or false", where, err);
    *out = cJSON_IsTrue(item);
    return FC_OK;
}

enum fc_code fc_json_string(const cJSON *object, const char *name, bool required, const char **out,
                            const char *where, struct fc_error *err)
{
    enum fc_code code;
    const cJSON *item = field(object, name, required, where, &code, err);
    if (!item)
        return code;
    if (!cJSON_IsString(item))
        return wrong(item, name, "a string", where, err);
    *out = item->valuestring;
    return FC_OK;
}

char *fc_json_print(const cJSON *value, struct fc_error *err)
{
    char *text = cJSON_PrintUnformatted(value);
    if (!text)
        fc_fail(err, FC_ERR_MEMORY, "JSON: out of memory");
    return text;
}
