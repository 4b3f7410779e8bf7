#include "models/records.h"

#include "base/json.h"
#include "models/jsonl.h"

#include <stdlib.h>
#include <string.h>

/* The record's id, or "line-N"; owned by the caller. */
static char *record_id(const cJSON *object, const struct fc_jsonl *reader, struct fc_error *err)
{
    const char *id = NULL;
    char fallback[32];
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(object, "id");
    if (cJSON_IsNumber(field)) { /* some files number their records */
        snprintf(fallback, sizeof fallback, "%.17g", field->valuedouble);
        id = fallback;
    } else if (fc_json_string(object, "id", false, &id, reader->where, err) != FC_OK) {
        return NULL;
    }
    if (!id) {
        snprintf(fallback, sizeof fallback, "line-%zu", reader->line);
        id = fallback;
    }
    return fc_strndup(id, strlen(id), err);
}

static enum fc_code add_message(struct fc_prompt *p, enum fc_role role, const char *content,
                                struct fc_error *err)
{
    char *copy = fc_strndup(content, strlen(content), err);
    if (!copy)
        return FC_ERR_MEMORY;
    p->messages[p->n_messages++] =
        (struct fc_message){.role = role, .content = copy, .len = strlen(copy)};
    return FC_OK;
}

static enum fc_code parse_role(const char *name, enum fc_role *role, const char *where,
                               struct fc_error *err)
{
    static const char *const names[] = {"system", "user", "assistant"};
    for (size_t i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0) {
            *role = (enum fc_role)i;
            return FC_OK;
        }
    return fc_fail(err, FC_ERR_INPUT,
                   "%s: field \"role\": expected \"system\", \"user\" or \"assistant\"", where);
}

static enum fc_code read_messages(struct fc_prompt *p, const cJSON *list, const char *where,
                                  struct fc_error *err)
{
    int n = cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || n < 1 || n > 4096)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: expected \"prompt\" (a string) or \"messages\" (1 to 4096 objects)",
                       where);
    p->messages = fc_alloc((size_t)n, sizeof *p->messages, "messages", err);
    if (!p->messages)
        return FC_ERR_MEMORY;
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        const char *name = NULL, *content = NULL;
        enum fc_role role = FC_ROLE_USER;
        enum fc_code code = fc_json_string(item, "role", true, &name, where, err);
        if (code == FC_OK)
            code = parse_role(name, &role, where, err);
        if (code == FC_OK)
            code = fc_json_string(item, "content", true, &content, where, err);
        if (code == FC_OK)
            code = add_message(p, role, content, err);
        if (code != FC_OK)
            return code;
    }
    return FC_OK;
}

static enum fc_code read_prompt(struct fc_prompt *p, const cJSON *object,
                                const struct fc_jsonl *reader, struct fc_error *err)
{
    const char *text = NULL;
    p->id = record_id(object, reader, err);
    if (!p->id)
        return FC_ERR_INPUT;
    enum fc_code code = fc_json_string(object, "prompt", false, &text, reader->where, err);
    if (code != FC_OK)
        return code;
    if (!text)
        return read_messages(p, cJSON_GetObjectItemCaseSensitive(object, "messages"), reader->where,
                             err);
    p->messages = fc_alloc(1, sizeof *p->messages, "messages", err);
    return p->messages ? add_message(p, FC_ROLE_USER, text, err) : FC_ERR_MEMORY;
}

static void free_prompt(struct fc_prompt *p)
{
    for (size_t i = 0; i < p->n_messages; i++)
        free((void *)(uintptr_t)p->messages[i].content);
    free(p->messages);
    free(p->id);
    *p = (struct fc_prompt){0};
}

struct numbered_id {
    const char *id;
    size_t number;
};

static int compare_ids(const void *a, const void *b)
{
    const struct numbered_id *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x->number > y->number) - (x->number < y->number);
}

/* FC_ERR_INPUT when two of n ids are equal. The ids themselves may be private: numbers are named.
 */
static enum fc_code check_unique(struct numbered_id *ids, size_t n, const char *path,
                                 struct fc_error *err)
{
    qsort(ids, n, sizeof *ids, compare_ids);
    for (size_t i = 1; i < n; i++)
        if (strcmp(ids[i - 1].id, ids[i].id) == 0)
            return fc_fail(err, FC_ERR_INPUT, "%s: records %zu and %zu have the same id", path,
                           ids[i - 1].number, ids[i].number);
    return FC_OK;
}

static enum fc_code check_prompt_ids(const struct fc_prompts *p, const char *path,
                                     struct fc_error *err)
{
    struct numbered_id *ids = fc_alloc(p->n, sizeof *ids, "ids", err);
    if (!ids)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < p->n; i++)
        ids[i] = (struct numbered_id){p->items[i].id, i + 1};
    enum fc_code code = check_unique(ids, p->n, path, err);
    free(ids);
    return code;
}

static enum fc_code add_prompt(struct fc_prompts *p, const cJSON *object,
                               const struct fc_jsonl *reader, struct fc_error *err)
{
    void *items = p->items;
    enum fc_code code = fc_grow(&items, &p->capacity, p->n + 1, sizeof *p->items, "prompts", err);
    p->items = items;
    if (code != FC_OK)
        return code;
    p->items[p->n] = (struct fc_prompt){0};
    return read_prompt(&p->items[p->n++], object, reader, err);
}

enum fc_code fc_prompts_read(struct fc_prompts *p, const char *path, struct fc_error *err)
{
    *p = (struct fc_prompts){0};
    struct fc_jsonl reader;
    cJSON *object;
    enum fc_code code = fc_jsonl_open(&reader, path, err);
    if (code != FC_OK)
        return code;
    struct fc_error why = {0};
    while (why.code == FC_OK && fc_jsonl_next(&reader, &object, &why) == FC_OK && object) {
        add_prompt(p, object, &reader, &why);
        cJSON_Delete(object);
    }
    fc_jsonl_close(&reader);
    if (why.code == FC_OK)
        check_prompt_ids(p, path, &why);
    if (why.code == FC_OK)
        return FC_OK;
    fc_prompts_free(p);
    return fc_fail(err, why.code, "%s", why.text);
}

void fc_prompts_free(struct fc_prompts *p)
{
    for (size_t i = 0; i < p->n; i++)
        free_prompt(&p->items[i]);
    free(p->items);
    *p = (struct fc_prompts){0};
}

static int compare_id_texts(const void *a, const void *b)
{
    return strcmp(((const struct fc_id_text *)a)->id, ((const struct fc_id_text *)b)->id);
}

static enum fc_code read_id_text(struct fc_id_texts *t, const cJSON *object,
                                 const struct fc_jsonl *reader, struct fc_error *err)
{
    const char *text = NULL;
    void *items = t->items;
    enum fc_code code = fc_grow(&items, &t->capacity, t->n + 1, sizeof *t->items, "texts", err);
    t->items = items;
    if (code == FC_OK)
        code = fc_json_string(object, "text", true, &text, reader->where, err);
    if (code != FC_OK)
        return code;
    struct fc_id_text *item = &t->items[t->n];
    item->id = record_id(object, reader, err);
    item->text = fc_strndup(text, strlen(text), err);
    t->n++;
    return item->id && item->text ? FC_OK : FC_ERR_INPUT;
}

enum fc_code fc_id_texts_read(struct fc_id_texts *t, const char *path, struct fc_error *err)
{
    *t = (struct fc_id_texts){0};
    struct fc_jsonl reader;
    cJSON *object;
    enum fc_code code = fc_jsonl_open(&reader, path, err);
    if (code != FC_OK)
        return code;
    struct fc_error why = {0};
    while (why.code == FC_OK && fc_jsonl_next(&reader, &object, &why) == FC_OK && object) {
        read_id_text(t, object, &reader, &why);
        cJSON_Delete(object);
    }
    fc_jsonl_close(&reader);
    if (why.code == FC_OK && t->n) /* after an error the last record may have no id */
        qsort(t->items, t->n, sizeof *t->items, compare_id_texts);
    for (size_t i = 1; i < t->n && why.code == FC_OK; i++)
        if (strcmp(t->items[i - 1].id, t->items[i].id) == 0)
            fc_fail(&why, FC_ERR_INPUT, "%s: two records have the same id", path);
    if (why.code == FC_OK)
        return FC_OK;
    fc_id_texts_free(t);
    return fc_fail(err, why.code, "%s", why.text);
}

const char *fc_id_texts_find(const struct fc_id_texts *t, const char *id)
{
    const struct fc_id_text key = {.id = (char *)(uintptr_t)id};
    if (t->n == 0)
        return NULL;
    const struct fc_id_text *hit =
        bsearch(&key, t->items, t->n, sizeof *t->items, compare_id_texts);
    return hit ? hit->text : NULL;
}

void fc_id_texts_free(struct fc_id_texts *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->items[i].id);
        free(t->items[i].text);
    }
    free(t->items);
    *t = (struct fc_id_texts){0};
}
