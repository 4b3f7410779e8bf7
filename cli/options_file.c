/* Job files: reading one, and writing the effective configuration as one. */
#include "base/json.h"
#include "cli/commands.h"
#include "cli/options_impl.h"

#include <stdio.h>
#include <string.h>

enum { JOB_FILE_LIMIT = 1 << 20 };

#define SECTION_NAME(name, summary) #name,
static const char *const sections[] = {FC_COMMANDS(SECTION_NAME) NULL};

static bool is_section(const struct fc_options *o, const char *key)
{
    if (o->spec->name && strcmp(o->spec->name, key) == 0)
        return true;
    for (size_t i = 0; sections[i]; i++)
        if (strcmp(sections[i], key) == 0)
            return true;
    return false;
}

static enum fc_code wrong_type(const char *where, const char *expected, struct fc_error *err)
{
    return fc_fail(err, FC_ERR_USAGE, "%s: expected %s", where, expected);
}

static enum fc_code set_list(const struct fc_bound_option *item, const cJSON *value,
                             const char *where, struct fc_error *err)
{
    fc_option_clear(item);
    if (cJSON_IsString(value))
        return fc_option_set(item, value->valuestring, where, err);
    if (!cJSON_IsArray(value))
        return wrong_type(where, "a list of strings", err);
    const cJSON *element;
    cJSON_ArrayForEach(element, value)
    {
        if (!cJSON_IsString(element))
            return wrong_type(where, "a list of strings", err);
        enum fc_code code = fc_option_set(item, element->valuestring, where, err);
        if (code != FC_OK)
            return code;
    }
    return FC_OK;
}

static enum fc_code set_value(const struct fc_bound_option *item, const cJSON *value,
                              const char *where, struct fc_error *err)
{
    switch (item->option->type) {
    case FC_OPT_SIZE: /* as a string too: a seed may need more than the 53 bits of a JSON number */
    case FC_OPT_DOUBLE:
        if (cJSON_IsNumber(value))
            return fc_option_set_number(item, value->valuedouble, where, err);
        if (cJSON_IsString(value))
            return fc_option_set(item, value->valuestring, where, err);
        return wrong_type(where, "a number", err);
    case FC_OPT_FLAG:
        if (!cJSON_IsBool(value))
            return wrong_type(where, "true or false", err);
        return fc_option_set(item, cJSON_IsTrue(value) ? NULL : "false", where, err);
    case FC_OPT_STRINGS:
        return set_list(item, value, where, err);
    case FC_OPT_STRING:
    case FC_OPT_CHOICE:
        break;
    }
    if (!cJSON_IsString(value))
        return wrong_type(where, "a string", err);
    return fc_option_set(item, value->valuestring, where, err);
}

/* The keys of one object. At the outer level, objects are sections of commands. */
static enum fc_code read_keys(struct fc_options *o, const cJSON *object, bool outer,
                              struct fc_error *err)
{
    const cJSON *value;
    cJSON_ArrayForEach(value, object)
    {
        if (outer && cJSON_IsObject(value) && is_section(o, value->string))
            continue;
        struct fc_bound_option *item = fc_options_find(o, value->string, strlen(value->string));
        char where[FC_ERROR_SIZE / 2];
        if (item && (item->field == &o->config || item->field == &o->help)) {
            return fc_fail(err, FC_ERR_USAGE, "%s: the key %s is not for a job file", o->config,
                           value->string);
        }
        if (!item) {
            snprintf(where, sizeof where, "%s: ", o->config);
            return fc_options_unknown(o, where, "", value->string, strlen(value->string), err);
        }
        if (item->source == FC_FROM_FLAG || cJSON_IsNull(value))
            continue;
        snprintf(where, sizeof where, "%s: %s", o->config, value->string);
        enum fc_code code = set_value(item, value, where, err);
        if (code != FC_OK)
            return code;
        item->source = FC_FROM_FILE;
    }
    return FC_OK;
}

enum fc_code fc_options_read_file(struct fc_options *o, struct fc_error *err)
{
    struct fc_error own = {0};
    o->file = fc_json_read_file(o->config, JOB_FILE_LIMIT, &own);
    if (!o->file)
        return fc_fail(err, own.code, "--config: %s", own.text);
    if (!cJSON_IsObject(o->file))
        return fc_fail(err, FC_ERR_USAGE, "%s: expected a JSON object of flags", o->config);
    enum fc_code code = read_keys(o, o->file, true, err);
    const cJSON *own_section =
        o->spec->name ? cJSON_GetObjectItemCaseSensitive(o->file, o->spec->name) : NULL;
    if (code == FC_OK && cJSON_IsObject(own_section))
        code = read_keys(o, own_section, false, err);
    return code;
}

static cJSON *value_to_json(const struct fc_bound_option *item)
{
    const void *field = item->field;
    char number[32];
    switch (item->option->type) {
    case FC_OPT_STRING: {
        const char *text = *(const char *const *)field;
        return text ? cJSON_CreateString(text) : cJSON_CreateNull();
    }
    case FC_OPT_SIZE: {
        size_t v = *(const size_t *)field;
        snprintf(number, sizeof number, "%zu", v);
        return v <= (size_t)1 << 53 ? cJSON_CreateRaw(number) : cJSON_CreateString(number);
    }
    case FC_OPT_DOUBLE:
        return cJSON_CreateNumber(*(const double *)field);
    case FC_OPT_FLAG:
        return cJSON_CreateBool(*(const bool *)field);
    case FC_OPT_CHOICE:
        return cJSON_CreateString(item->option->choices[*(const int *)field]);
    case FC_OPT_STRINGS: {
        const struct fc_strings *list = field;
        /* cJSON takes NULL for an error, also for no strings at all. */
        return list->n ? cJSON_CreateStringArray(list->items, (int)list->n) : cJSON_CreateArray();
    }
    }
    return NULL;
}

cJSON *fc_options_to_json(const struct fc_options *o, struct fc_error *err)
{
    cJSON *flags = cJSON_CreateObject(), *whole = flags;
    if (flags && o->spec->name) {
        whole = cJSON_CreateObject();
        if (!whole || !cJSON_AddItemToObject(whole, o->spec->name, flags)) {
            cJSON_Delete(flags);
            goto fail;
        }
    }
    for (size_t i = 0; flags && i < o->n_items; i++) {
        const struct fc_bound_option *item = &o->items[i];
        if (item->field == &o->config || item->field == &o->help)
            continue;
        cJSON *value = value_to_json(item);
        if (!value || !cJSON_AddItemToObject(flags, item->option->name, value)) {
            cJSON_Delete(value);
            goto fail;
        }
    }
    if (whole)
        return whole;
fail:
    cJSON_Delete(whole);
    fc_fail(err, FC_ERR_MEMORY, "configuration: out of memory");
    return NULL;
}
