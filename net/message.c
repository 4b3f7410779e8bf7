#include "net/message.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const refusal_names[FC_REFUSALS] = {
    [FC_REFUSED_UNKNOWN_JOB] = "unknown_job",
    [FC_REFUSED_TAKEN_OVER] = "taken_over",
    [FC_REFUSED_BUSY] = "busy",
    [FC_REFUSED_VERSION] = "version",
    [FC_REFUSED_REQUEST] = "bad_request",
};

static const char *const finish_names[FC_ANSWER_FINISHES] = {
    [FC_ANSWER_STOP] = "stop",
    [FC_ANSWER_LENGTH] = "length",
    [FC_ANSWER_CANCELLED] = "cancelled",
    [FC_ANSWER_REFUSED] = "refused",
};

static enum fc_code no_memory(struct fc_error *err)
{
    return fc_fail(err, FC_ERR_MEMORY, "message: out of memory");
}

const char *fc_refusal_name(enum fc_refusal refusal)
{
    return refusal_names[refusal];
}

enum fc_refusal fc_refusal_from_name(const char *name)
{
    int i = 0;
    while (i < FC_REFUSED_REQUEST && strcmp(refusal_names[i], name) != 0)
        i++;
    return (enum fc_refusal)i;
}

const char *fc_answer_finish_name(enum fc_answer_finish finish)
{
    return finish_names[finish];
}

enum fc_code fc_answer_finish_read(enum fc_answer_finish *finish, const cJSON *object,
                                   struct fc_error *err)
{
    const char *name = NULL;
    enum fc_code code = fc_json_string(object, "finish", true, &name, "answer", err);
    if (code != FC_OK)
        return code;
    for (int i = 0; i < FC_ANSWER_FINISHES; i++)
        if (strcmp(name, finish_names[i]) == 0) {
            *finish = (enum fc_answer_finish)i;
            return FC_OK;
        }
    return fc_fail(err, FC_ERR_INPUT,
                   "answer: field \"finish\": expected stop, length, cancelled or refused");
}

/* ---- sampling ---- */

enum fc_code fc_wire_sampling_write(cJSON *header, const struct fc_wire_sampling *s,
                                    struct fc_error *err)
{
    cJSON *object = cJSON_AddObjectToObject(header, "sampling");
    cJSON *stops = object ? cJSON_AddArrayToObject(object, "stops") : NULL;
    if (!stops || !cJSON_AddNumberToObject(object, "max_tokens", (double)s->max_tokens) ||
        !cJSON_AddNumberToObject(object, "temperature", s->temperature) ||
        !cJSON_AddNumberToObject(object, "top_k", (double)s->top_k) ||
        !cJSON_AddNumberToObject(object, "top_p", s->top_p))
        return no_memory(err);
    for (size_t i = 0; i < s->n_stops; i++)
        if (!cJSON_AddItemToArray(stops, cJSON_CreateString(s->stops[i])))
            return no_memory(err);
    return FC_OK;
}

static enum fc_code read_stops(struct fc_wire_sampling *s, const cJSON *object,
                               struct fc_error *err)
{
    const cJSON *stops, *stop;
    enum fc_code code = fc_array_read(object, "stops", FC_MAX_STOPS, &stops, err);
    if (code != FC_OK)
        return code;
    cJSON_ArrayForEach(stop, stops)
    {
        size_t n = cJSON_IsString(stop) ? strlen(stop->valuestring) : 0;
        if (n < 1 || n > FC_MAX_STOP_BYTES)
            return fc_fail(err, FC_ERR_INPUT, "sampling: stops: expected texts of 1 to %d bytes",
                           FC_MAX_STOP_BYTES);
        s->stops[s->n_stops++] = stop->valuestring;
    }
    return FC_OK;
}

enum fc_code fc_wire_sampling_read(struct fc_wire_sampling *s, const cJSON *object,
                                   size_t max_tokens, struct fc_error *err)
{
    static const char where[] = "sampling";
    enum fc_code code;
    *s = (struct fc_wire_sampling){0};
    if (!cJSON_IsObject(object))
        return fc_fail(err, FC_ERR_INPUT, "sampling: expected an object");
    if ((code = fc_json_size(object, "max_tokens", true, &s->max_tokens, where, err)) != FC_OK ||
        (code = fc_json_double(object, "temperature", true, &s->temperature, where, err)) !=
            FC_OK ||
        (code = fc_json_size(object, "top_k", true, &s->top_k, where, err)) != FC_OK ||
        (code = fc_json_double(object, "top_p", true, &s->top_p, where, err)) != FC_OK)
        return code;
    if (s->max_tokens < 1 || s->max_tokens > max_tokens)
        return fc_fail(err, FC_ERR_INPUT, "sampling: max_tokens %zu, expected 1 to %zu",
                       s->max_tokens, max_tokens);
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return fc_fail(err, FC_ERR_INPUT, "sampling: temperature %g, expected 0 to 100",
                       s->temperature);
    if (s->top_k > INT32_MAX)
        return fc_fail(err, FC_ERR_INPUT, "sampling: top_k %zu, expected at most %d", s->top_k,
                       INT32_MAX);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return fc_fail(err, FC_ERR_INPUT, "sampling: top_p %g, expected above 0, at most 1",
                       s->top_p);
    return read_stops(s, object, err);
}

/* ---- limits: one table for both ways ---- */

static const struct {
    const char *name;
    size_t offset;
} limit_fields[] = {
    {"frame_items", offsetof(struct fc_limits, frame_items)},
    {"frame_bytes", offsetof(struct fc_limits, frame_bytes)},
    {"job_items", offsetof(struct fc_limits, job_items)},
    {"prompt_bytes", offsetof(struct fc_limits, prompt_bytes)},
    {"max_tokens", offsetof(struct fc_limits, max_tokens)},
};
#define N_LIMITS (sizeof limit_fields / sizeof limit_fields[0])

enum fc_code fc_limits_write(cJSON *header, const struct fc_limits *l, struct fc_error *err)
{
    cJSON *object = cJSON_AddObjectToObject(header, "limits");
    if (!object)
        return no_memory(err);
    for (size_t i = 0; i < N_LIMITS; i++) {
        size_t v;
        memcpy(&v, (const char *)l + limit_fields[i].offset, sizeof v);
        if (fc_number_write(object, limit_fields[i].name, (double)v, err) != FC_OK)
            return FC_ERR_MEMORY;
    }
    return FC_OK;
}

enum fc_code fc_limits_read(struct fc_limits *l, const cJSON *header, struct fc_error *err)
{
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(header, "limits");
    if (!cJSON_IsObject(object))
        return fc_fail(err, FC_ERR_INPUT, "hello: field \"limits\": expected an object");
    for (size_t i = 0; i < N_LIMITS; i++) {
        size_t v = 0;
        enum fc_code code = fc_json_size(object, limit_fields[i].name, true, &v, "limits", err);
        if (code != FC_OK)
            return code;
        if (v < 1)
            return fc_fail(err, FC_ERR_INPUT, "limits: field \"%s\": expected at least 1",
                           limit_fields[i].name);
        memcpy((char *)l + limit_fields[i].offset, &v, sizeof v);
    }
    return FC_OK;
}

/* ---- fields ---- */

enum fc_code fc_hex_write(cJSON *object, const char *name, const unsigned char *bytes, size_t n,
                          struct fc_error *err)
{
    char text[2 * FC_JOB_ID_SIZE + 1];
    if (n > FC_JOB_ID_SIZE)
        return fc_fail(err, FC_ERR_INTERNAL, "message: field \"%s\" is too long", name);
    for (size_t i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return cJSON_AddStringToObject(object, name, text) ? FC_OK : no_memory(err);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum fc_code fc_hex_read(const cJSON *object, const char *name, unsigned char *bytes, size_t n,
                         struct fc_error *err)
{
    const char *text = NULL;
    enum fc_code code = fc_json_string(object, name, true, &text, "message", err);
    if (code != FC_OK)
        return code;
    bool good = strlen(text) == 2 * n;
    for (size_t i = 0; good && i < n; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        good = high >= 0 && low >= 0;
        if (good)
            bytes[i] = (unsigned char)(high << 4 | low);
    }
    return good ? FC_OK
                : fc_fail(err, FC_ERR_INPUT,
                          "message: field \"%s\": expected %zu lower-case hex digits", name, 2 * n);
}

enum fc_code fc_hex64_write(cJSON *object, const char *name, uint64_t v, struct fc_error *err)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(v >> (56 - 8 * i));
    return fc_hex_write(object, name, bytes, sizeof bytes, err);
}

enum fc_code fc_hex64_read(const cJSON *object, const char *name, uint64_t *v, struct fc_error *err)
{
    unsigned char bytes[8];
    enum fc_code code = fc_hex_read(object, name, bytes, sizeof bytes, err);
    if (code != FC_OK)
        return code;
    *v = 0;
    for (int i = 0; i < 8; i++)
        *v = *v << 8 | bytes[i];
    return FC_OK;
}

enum fc_code fc_number_write(cJSON *object, const char *name, double v, struct fc_error *err)
{
    return cJSON_AddNumberToObject(object, name, v) ? FC_OK : no_memory(err);
}

enum fc_code fc_array_read(const cJSON *object, const char *name, size_t max, const cJSON **array,
                           struct fc_error *err)
{
    *array = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!cJSON_IsArray(*array))
        return fc_fail(err, FC_ERR_INPUT, "message: field \"%s\": expected an array", name);
    size_t n = (size_t)cJSON_GetArraySize(*array);
    if (n > max)
        return fc_fail(err, FC_ERR_INPUT,
                       "message: field \"%s\": %zu elements, expected at most %zu", name, n, max);
    return FC_OK;
}

enum fc_code fc_index_read(const cJSON *element, uint64_t *index, struct fc_error *err)
{
    double v = cJSON_IsNumber(element) ? element->valuedouble : -1;
    if (!(v >= 0 && v <= (double)FC_MAX_INDEX) || floor(v) < v)
        return fc_fail(err, FC_ERR_INPUT,
                       "message: item index: expected a whole number, 0 to 2^53");
    *index = (uint64_t)v;
    return FC_OK;
}
