#include "models/dataset.h"

#include "base/json.h"
#include "base/memory.h"
#include "models/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A format fills an example from one record; the texts are copied. */
typedef enum fc_code read_record_fn(struct fc_example *e, const cJSON *record, const char *where,
                                    struct fc_error *err);

static enum fc_code copy(char **out, const char *text, struct fc_error *err)
{
    *out = fc_strndup(text, strlen(text), err);
    return *out ? FC_OK : FC_ERR_MEMORY;
}

/* A text field; *out stays NULL when an optional one is absent. */
static enum fc_code copy_field(char **out, const cJSON *object, const char *name, bool required,
                               const char *where, struct fc_error *err)
{
    const char *text = NULL;
    enum fc_code code = fc_json_string(object, name, required, &text, where, err);
    if (code == FC_OK && text && required && !*text)
        code = fc_fail(err, FC_ERR_INPUT, "%s: field \"%s\" is empty", where, name);
    return code == FC_OK && text ? copy(out, text, err) : code;
}

/* The array of choices, checked for type and number. An absent one counts as empty. */
static enum fc_code choices_field(const cJSON *object, bool required, const cJSON **array,
                                  size_t *n, const char *where, struct fc_error *err)
{
    *array = cJSON_GetObjectItemCaseSensitive(object, "choices");
    *n = 0;
    if (!required && (!*array || cJSON_IsNull(*array)))
        return FC_OK;
    if (!cJSON_IsArray(*array))
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"choices\": expected an array", where);
    const cJSON *item;
    cJSON_ArrayForEach(item, *array)++ *n;
    if (*n > FC_DATASET_MAX_CHOICES || (required && *n == 0))
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"choices\": expected %s%d of them, found %zu",
                       where, required ? "1 to " : "at most ", FC_DATASET_MAX_CHOICES, *n);
    return FC_OK;
}

static enum fc_code add_choice(struct fc_example *e, const char *text, const char *where,
                               struct fc_error *err)
{
    if (!text || !*text)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: field \"choices\": choice %zu: expected a text, found %s", where,
                       e->n_choices + 1, text ? "an empty one" : "something else");
    enum fc_code code = copy(&e->choices[e->n_choices], text, err);
    e->n_choices += code == FC_OK;
    return code;
}

static enum fc_code read_ours(struct fc_example *e, const cJSON *record, const char *where,
                              struct fc_error *err)
{
    const cJSON *array, *item;
    size_t n;
    enum fc_code code = copy_field(&e->question, record, "question", true, where, err);
    if (code == FC_OK)
        code = copy_field(&e->answer, record, "answer", false, where, err);
    if (code == FC_OK)
        code = copy_field(&e->rationale, record, "rationale", false, where, err);
    if (code == FC_OK)
        code = choices_field(record, false, &array, &n, where, err);
    if (code != FC_OK)
        return code;
    e->choices = fc_alloc(n, sizeof *e->choices, "choices", err);
    if (!e->choices)
        return FC_ERR_MEMORY;
    if (n)
        cJSON_ArrayForEach(item, array)
        {
            code = add_choice(e, cJSON_GetStringValue(item), where, err);
            if (code != FC_OK)
                return code;
        }
    e->label = n;
    for (size_t i = n; e->answer && i-- > 0;)
        if (strcmp(e->choices[i], e->answer) == 0)
            e->label = i;
    return FC_OK;
}

/* CommonsenseQA, ARC, OpenBookQA: choices have labels, and the answer is a label. */
static enum fc_code read_stem(struct fc_example *e, const cJSON *record, const char *where,
                              struct fc_error *err)
{
    const cJSON *question = cJSON_GetObjectItemCaseSensitive(record, "question");
    const cJSON *array, *item;
    const char *key = NULL;
    size_t n;
    if (!cJSON_IsObject(question))
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"question\": expected an object", where);
    enum fc_code code = copy_field(&e->question, question, "stem", true, where, err);
    if (code == FC_OK)
        code = fc_json_string(record, "answerKey", false, &key, where, err);
    if (code == FC_OK)
        code = copy_field(&e->rationale, record, "fact1", false, where, err);
    if (code == FC_OK)
        code = choices_field(question, true, &array, &n, where, err);
    if (code != FC_OK)
        return code;
    e->choices = fc_alloc(n, sizeof *e->choices, "choices", err);
    if (!e->choices)
        return FC_ERR_MEMORY;
    e->label = n;
    cJSON_ArrayForEach(item, array)
    {
        const char *label = NULL, *text = NULL;
        code = fc_json_string(item, "label", true, &label, where, err);
        if (code == FC_OK)
            code = fc_json_string(item, "text", true, &text, where, err);
        if (code == FC_OK)
            code = add_choice(e, text, where, err);
        if (code != FC_OK)
            return code;
        if (key && e->label == n && strcmp(label, key) == 0)
            e->label = e->n_choices - 1;
    }
    return e->label < n ? copy(&e->answer, e->choices[e->label], err) : FC_OK;
}

static enum fc_code read_boolq(struct fc_example *e, const cJSON *record, const char *where,
                               struct fc_error *err)
{
    const char *question = NULL, *passage = NULL;
    const cJSON *answer = cJSON_GetObjectItemCaseSensitive(record, "answer");
    enum fc_code code = fc_json_string(record, "question", true, &question, where, err);
    if (code == FC_OK)
        code = fc_json_string(record, "passage", true, &passage, where, err);
    if (code != FC_OK)
        return code;
    if (!*question)
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"question\" is empty", where);
    bool known = answer && !cJSON_IsNull(answer);
    if (known && !cJSON_IsBool(answer))
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"answer\": expected true or false", where);

    struct fc_text text = {0};
    fc_text_printf(&text, "%s\n%s%s", passage, question,
                   question[strlen(question) - 1] == '?' ? "" : "?");
    code = fc_text_check(&text, err);
    if (code != FC_OK) {
        fc_text_free(&text);
        return code;
    }
    e->question = text.data;
    e->choices = fc_alloc(2, sizeof *e->choices, "choices", err);
    if (!e->choices)
        return FC_ERR_MEMORY;
    code = add_choice(e, "yes", where, err);
    if (code == FC_OK)
        code = add_choice(e, "no", where, err);
    e->label = !known ? 2 : cJSON_IsTrue(answer) ? 0 : 1;
    return code == FC_OK && known ? copy(&e->answer, e->choices[e->label], err) : code;
}

static read_record_fn *recognise(const cJSON *record)
{
    if (cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(record, "question")))
        return read_stem;
    if (cJSON_GetObjectItemCaseSensitive(record, "passage") &&
        !cJSON_GetObjectItemCaseSensitive(record, "choices"))
        return read_boolq;
    return read_ours;
}

static enum fc_code read_id(struct fc_example *e, const cJSON *record, size_t line,
                            const char *where, struct fc_error *err)
{
    char own[32];
    const char *id = own;
    snprintf(own, sizeof own, "line-%zu", line);
    enum fc_code code = fc_json_string(record, "id", false, &id, where, err);
    if (code == FC_OK && !*id)
        code = fc_fail(err, FC_ERR_INPUT, "%s: field \"id\" is empty", where);
    return code == FC_OK ? copy(&e->id, id, err) : code;
}

static enum fc_code check_answer(const struct fc_example *e, const char *where,
                                 struct fc_error *err)
{
    if (e->n_choices && e->label == e->n_choices)
        return fc_fail(err, FC_ERR_INPUT, "%s: the answer is %s", where,
                       e->answer ? "not among the choices" : "absent or names no choice");
    if (!e->answer || !*e->answer)
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"answer\" is missing", where);
    return FC_OK;
}

/* --- unique ids ---------------------------------------------------------------------------- */

struct id_line {
    const char *id;
    size_t line;
};

static int compare_ids(const void *a, const void *b)
{
    const struct id_line *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static enum fc_code check_unique(struct id_line *ids, size_t n, const char *path,
                                 struct fc_error *err)
{
    qsort(ids, n, sizeof *ids, compare_ids);
    for (size_t i = 1; i < n; i++)
        if (strcmp(ids[i].id, ids[i - 1].id) == 0)
            return fc_fail(err, FC_ERR_INPUT, "%s: line %zu: field \"id\": the same as on line %zu",
                           path, ids[i].line, ids[i - 1].line);
    return FC_OK;
}

/* --- the file ------------------------------------------------------------------------------ */

struct reader {
    struct fc_jsonl file;
    read_record_fn *read; /* of the format of the first record */
    struct id_line *ids;  /* one for each example */
    size_t ids_capacity;
};

static enum fc_code make_room(struct fc_dataset *d, struct reader *r, struct fc_error *err)
{
    void *items = d->items, *ids = r->ids;
    enum fc_code code = fc_grow(&items, &d->capacity, d->n + 1, sizeof *d->items, "data set", err);
    d->items = items;
    if (code == FC_OK)
        code = fc_grow(&ids, &r->ids_capacity, d->n + 1, sizeof *r->ids, "data set", err);
    r->ids = ids;
    return code;
}

static enum fc_code add_example(struct fc_dataset *d, struct reader *r, const cJSON *record,
                                bool need_answer, struct fc_error *err)
{
    const char *where = r->file.where;
    enum fc_code code = make_room(d, r, err);
    if (code == FC_OK && !r->read) {
        r->read = recognise(record);
        code = copy_field(&d->task, record, "task", false, where, err);
    }
    if (code != FC_OK)
        return code;
    struct fc_example *e = &d->items[d->n++];
    *e = (struct fc_example){0};
    code = read_id(e, record, r->file.line, where, err);
    if (code == FC_OK)
        code = r->read(e, record, where, err);
    if (code == FC_OK && need_answer)
        code = check_answer(e, where, err);
    r->ids[d->n - 1] = (struct id_line){e->id, r->file.line};
    return code;
}

enum fc_code fc_dataset_read(struct fc_dataset *d, const char *path, bool need_answers,
                             struct fc_error *err)
{
    *d = (struct fc_dataset){0};
    struct reader r = {0};
    cJSON *record = NULL;
    enum fc_code code = fc_jsonl_open(&r.file, path, err);
    if (code != FC_OK)
        return code;
    while ((code = fc_jsonl_next(&r.file, &record, err)) == FC_OK && record) {
        code = add_example(d, &r, record, need_answers, err);
        cJSON_Delete(record);
        if (code != FC_OK)
            break;
    }
    if (code == FC_OK && d->n == 0)
        code = fc_fail(err, FC_ERR_INPUT, "%s: holds no examples", path);
    if (code == FC_OK && !d->task)
        code = copy(&d->task, "", err);
    if (code == FC_OK)
        code = check_unique(r.ids, d->n, path, err);
    free(r.ids);
    fc_jsonl_close(&r.file);
    if (code != FC_OK)
        fc_dataset_free(d);
    return code;
}

void fc_dataset_free(struct fc_dataset *d)
{
    for (size_t i = 0; i < d->n; i++) {
        struct fc_example *e = &d->items[i];
        for (size_t j = 0; j < e->n_choices; j++)
            free(e->choices[j]);
        free(e->choices);
        free(e->id);
        free(e->question);
        free(e->answer);
        free(e->rationale);
    }
    free(d->items);
    free(d->task);
    *d = (struct fc_dataset){0};
}

bool fc_dataset_has_choices(const struct fc_dataset *d)
{
    return d->n > 0 && d->items[0].n_choices > 0;
}
