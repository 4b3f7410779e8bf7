/* Reading metadata of an open GGUF file. */
#include "base/memory.h"
#include "models/gguf_private.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct gguf_value *find(const struct fc_gguf *g, const char *key)
{
    struct gguf_value wanted = {.key = {key, strlen(key)}};
    return g->n_values ? bsearch(&wanted, g->values, g->n_values, sizeof wanted, fc_gguf_by_key)
                       : NULL;
}

/* The value, or NULL with *code FC_OK (absent) or FC_ERR_INPUT (absent though required, or a
 * scalar where an array is wanted and the reverse). */
static const struct gguf_value *look_up(const struct fc_gguf *g, const char *key, bool required,
                                        bool array, const char *expected, enum fc_code *code,
                                        struct fc_error *err)
{
    const struct gguf_value *v = find(g, key);
    *code = FC_OK;
    if (!v && required)
        *code = fc_fail(err, FC_ERR_INPUT, "%s: metadata \"%s\" is missing", g->path, key);
    if (v && v->is_array != array) {
        *code =
            fc_fail(err, FC_ERR_INPUT, "%s: metadata \"%s\": expected %s, found %s%s", g->path, key,
                    expected, v->is_array ? "an array of " : "one ", fc_gguf_types[v->type].name);
        v = NULL;
    }
    return v;
}

static enum fc_code wrong_type(const struct fc_gguf *g, const struct gguf_value *v,
                               const char *expected, struct fc_error *err)
{
    return fc_fail(err, FC_ERR_INPUT, "%s: metadata \"%.*s\": expected %s, found %s%s", g->path,
                   SHOWN(v->key), expected, v->is_array ? "an array of " : "",
                   fc_gguf_types[v->type].name);
}

/* Element i as an integer; false if it is none or does not fit. */
static bool as_int(const struct gguf_value *v, size_t i, int64_t *out)
{
    const unsigned char *p = v->data + i * fc_gguf_types[v->type].bytes;
    uint64_t u = gguf_load(p, fc_gguf_types[v->type].bytes);
    switch (v->type) {
    case U8:
    case U16:
    case U32:
        break;
    case BOOL:
        u = u != 0;
        break;
    case U64:
        if (u > INT64_MAX)
            return false;
        break;
    case I8:
        *out = (int8_t)u;
        return true;
    case I16:
        *out = (int16_t)u;
        return true;
    case I32:
        *out = (int32_t)u;
        return true;
    case I64:
        *out = (int64_t)u;
        return true;
    default:
        return false;
    }
    *out = (int64_t)u;
    return true;
}

/* Element i as a floating-point number; false if it is none. */
static bool as_double(const struct gguf_value *v, size_t i, double *out)
{
    const unsigned char *p = v->data + i * fc_gguf_types[v->type].bytes;
    float f;
    if (v->type == F32) {
        memcpy(&f, p, sizeof f);
        *out = (double)f;
    } else if (v->type == F64) {
        memcpy(out, p, sizeof *out);
    } else {
        return false;
    }
    return true;
}

bool fc_gguf_has(const struct fc_gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

enum fc_code fc_gguf_int(const struct fc_gguf *g, const char *key, bool required, int64_t *out,
                         struct fc_error *err)
{
    enum fc_code code;
    const struct gguf_value *v = look_up(g, key, required, false, "an integer", &code, err);
    if (v && (v->type == BOOL || !as_int(v, 0, out)))
        code = wrong_type(g, v, "an integer below 2^63", err);
    return code;
}

enum fc_code fc_gguf_size(const struct fc_gguf *g, const char *key, bool required, size_t *out,
                          struct fc_error *err)
{
    int64_t value = -1;
    enum fc_code code = fc_gguf_int(g, key, required, &value, err);
    if (code != FC_OK || !fc_gguf_has(g, key))
        return code;
    if (value < 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: metadata \"%s\": expected a number from 0 up, found %" PRId64, g->path,
                       key, value);
    *out = (size_t)value;
    return FC_OK;
}

enum fc_code fc_gguf_double(const struct fc_gguf *g, const char *key, bool required, double *out,
                            struct fc_error *err)
{
    enum fc_code code;
    int64_t integer;
    double number;
    const struct gguf_value *v = look_up(g, key, required, false, "a number", &code, err);
    if (!v)
        return code;
    if (v->type != BOOL && as_int(v, 0, &integer))
        number = (double)integer;
    else if (!as_double(v, 0, &number) || !isfinite(number))
        return wrong_type(g, v, "a finite number", err);
    *out = number;
    return FC_OK;
}

enum fc_code fc_gguf_bool(const struct fc_gguf *g, const char *key, bool required, bool *out,
                          struct fc_error *err)
{
    enum fc_code code;
    const struct gguf_value *v = look_up(g, key, required, false, "a bool", &code, err);
    if (!v)
        return code;
    if (v->type != BOOL)
        return wrong_type(g, v, "a bool", err);
    *out = v->data[0] != 0;
    return FC_OK;
}

/* The string whose length stands at p, and the byte after it. */
static const unsigned char *string_at(const unsigned char *p, struct fc_gguf_string *out)
{
    out->len = (size_t)gguf_load(p, 8);
    out->data = (const char *)p + 8;
    return p + 8 + out->len;
}

enum fc_code fc_gguf_text(const struct fc_gguf *g, const char *key, bool required,
                          struct fc_gguf_string *out, struct fc_error *err)
{
    enum fc_code code;
    const struct gguf_value *v = look_up(g, key, required, false, "a string", &code, err);
    if (!v)
        return code;
    if (v->type != STRING)
        return wrong_type(g, v, "a string", err);
    string_at(v->data, out);
    return FC_OK;
}

enum fc_code fc_gguf_texts(const struct fc_gguf *g, const char *key, bool required,
                           struct fc_gguf_string **out, size_t *n, struct fc_error *err)
{
    enum fc_code code;
    const struct gguf_value *v = look_up(g, key, required, true, "an array of strings", &code, err);
    if (!v)
        return code;
    if (v->type != STRING)
        return wrong_type(g, v, "an array of strings", err);
    struct fc_gguf_string *strings = fc_alloc(v->n, sizeof *strings, key, err);
    if (!strings)
        return FC_ERR_MEMORY;
    const unsigned char *p = v->data;
    for (size_t i = 0; i < v->n; i++)
        p = string_at(p, &strings[i]);
    *out = strings;
    *n = v->n;
    return FC_OK;
}

enum fc_code fc_gguf_ints(const struct fc_gguf *g, const char *key, bool required, int64_t **out,
                          size_t *n, struct fc_error *err)
{
    enum fc_code code;
    const struct gguf_value *v =
        look_up(g, key, required, true, "an array of integers", &code, err);
    if (!v)
        return code;
    int64_t *integers = fc_alloc(v->n, sizeof *integers, key, err);
    if (!integers)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < v->n; i++)
        if (!as_int(v, i, &integers[i])) {
            free(integers);
            return wrong_type(g, v, "an array of integers below 2^63", err);
        }
    *out = integers;
    *n = v->n;
    return FC_OK;
}

enum fc_code fc_gguf_floats(const struct fc_gguf *g, const char *key, bool required, float **out,
                            size_t *n, struct fc_error *err)
{
    enum fc_code code;
    const struct gguf_value *v = look_up(g, key, required, true, "an array of floats", &code, err);
    if (!v)
        return code;
    if (v->type != F32 && v->type != F64)
        return wrong_type(g, v, "an array of floats", err);
    float *floats = fc_alloc(v->n, sizeof *floats, key, err);
    if (!floats)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < v->n; i++) {
        double number = 0;
        as_double(v, i, &number);
        /* Out of the range of float: infinity, not an undefined conversion. */
        floats[i] =
            fabs(number) > (double)FLT_MAX ? (float)copysign(INFINITY, number) : (float)number;
    }
    *out = floats;
    *n = v->n;
    return FC_OK;
}

bool fc_gguf_string_is(struct fc_gguf_string string, const char *text)
{
    return string.len == strlen(text) && memcmp(string.data, text, string.len) == 0;
}
