#define _GNU_SOURCE
#include "cli/store.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* The examples sorted by id, to find those of the lines. */
struct id_index {
    const struct fc_example **items; /* [n] */
    size_t n;
};

static int compare_ids(const void *a, const void *b)
{
    const struct fc_example *const *x = a, *const *y = b;
    return strcmp((*x)->id, (*y)->id);
}

static enum fc_code index_ids(struct id_index *ids, const struct fc_dataset *data,
                              struct fc_error *err)
{
    ids->items = fc_alloc(data->n, sizeof *ids->items, "ids", err);
    if (!ids->items)
        return FC_ERR_MEMORY;
    for (ids->n = 0; ids->n < data->n; ids->n++)
        ids->items[ids->n] = &data->items[ids->n];
    qsort(ids->items, ids->n, sizeof *ids->items, compare_ids);
    return FC_OK;
}

/* The example of an id; data->n if there is none. */
static size_t find_id(const struct id_index *ids, const struct fc_dataset *data, const char *id)
{
    const struct fc_example key = {.id = (char *)(uintptr_t)id}, *wanted = &key;
    const struct fc_example **hit =
        bsearch(&wanted, ids->items, ids->n, sizeof *ids->items, compare_ids);
    return hit ? (size_t)(*hit - data->items) : data->n;
}

static enum fc_code read_line(struct fc_store *s, const struct id_index *ids, const char *line,
                              size_t len, size_t number, struct fc_error *err)
{
    char where[300];
    const char *id = NULL, *text = NULL;
    snprintf(where, sizeof where, "%.256s line %zu", s->path, number);
    cJSON *object = fc_json_parse(line, len, where, err);
    if (!object)
        return FC_ERR_INPUT;
    enum fc_code code = fc_json_string(object, "id", true, &id, where, err);
    if (code == FC_OK)
        code = fc_json_string(object, s->field, true, &text, where, err);
    size_t index = code == FC_OK ? find_id(ids, s->data, id) : 0;
    if (code == FC_OK && (index == s->data->n || s->texts[index]))
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: its id is not of this data set, or comes twice; the output folder "
                       "belongs to another job: choose another --output",
                       where);
    if (code == FC_OK) {
        s->texts[index] = fc_strndup(text, strlen(text), err);
        code = s->texts[index] ? FC_OK : FC_ERR_MEMORY;
        s->n += code == FC_OK;
    }
    cJSON_Delete(object);
    return code;
}

/* Reads every whole line and cuts off what follows the last one. */
static enum fc_code read_all(struct fc_store *s, struct fc_error *err)
{
    char *line = NULL;
    struct id_index ids = {0};
    size_t capacity = 0, number = 0;
    long whole = 0;
    enum fc_code code = index_ids(&ids, s->data, err);
    ssize_t len;
    while (code == FC_OK && (len = getline(&line, &capacity, s->file)) > 0) {
        if (line[len - 1] != '\n')
            break;
        whole += len;
        code = read_line(s, &ids, line, (size_t)len - 1, ++number, err);
    }
    free(line);
    free(ids.items);
    if (code == FC_OK && ferror(s->file))
        code = fc_fail(err, FC_ERR_IO, "%s: cannot read: %s", s->path, strerror(errno));
    if (code == FC_OK &&
        (ftruncate(fileno(s->file), whole) != 0 || fseek(s->file, whole, SEEK_SET) != 0))
        code = fc_fail(err, FC_ERR_IO, "%s: cannot cut a torn line: %s", s->path, strerror(errno));
    return code;
}

enum fc_code fc_store_open(struct fc_store *s, const char *path, const char *field,
                           const struct fc_dataset *data, struct fc_error *err)
{
    *s = (struct fc_store){.field = field, .data = data};
    s->path = fc_strndup(path, strlen(path), err);
    s->texts = fc_alloc(data->n, sizeof *s->texts, "texts", err);
    enum fc_code code = s->path && s->texts ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK) {
        s->file = fopen(path, "a+be");
        if (!s->file)
            code = fc_fail(err, FC_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (code == FC_OK && flock(fileno(s->file), LOCK_EX | LOCK_NB) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: %s", path,
                       errno == EWOULDBLOCK ? "another process works in this folder"
                                            : strerror(errno));
    if (code == FC_OK)
        code = fc_sync_parent(path, err); /* its name, if it is new */
    if (code == FC_OK) {
        rewind(s->file);
        code = read_all(s, err);
    }
    if (code != FC_OK)
        fc_store_close(s);
    return code;
}

void fc_store_close(struct fc_store *s)
{
    if (s->file)
        fclose(s->file);
    for (size_t i = 0; s->texts && i < s->data->n; i++)
        free(s->texts[i]);
    free(s->texts);
    free(s->path);
    *s = (struct fc_store){0};
}

enum fc_code fc_store_put(struct fc_store *s, size_t index, const char *text, cJSON *extra,
                          struct fc_error *err)
{
    enum fc_code code = FC_OK;
    char *line = NULL, *copy = fc_strndup(text, strlen(text), err);
    cJSON *object = cJSON_CreateObject();
    bool whole = copy && cJSON_AddStringToObject(object, "id", s->data->items[index].id) &&
                 cJSON_AddStringToObject(object, s->field, text);
    while (whole && extra && extra->child) {
        cJSON *item = cJSON_DetachItemViaPointer(extra, extra->child);
        whole = cJSON_AddItemToObject(object, item->string, item);
        if (!whole)
            cJSON_Delete(item);
    }
    line = whole ? fc_json_print(object, err) : NULL;
    if (!line) {
        code = fc_fail(err, FC_ERR_MEMORY, "%s: out of memory", s->path);
        goto cleanup;
    }
    size_t len = strlen(line);
    line[len] = '\n'; /* in place of the NUL: the length is known */
    if (fc_write_all(fileno(s->file), line, len + 1) != 0 || fc_sync_file(fileno(s->file)) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", s->path, strerror(errno));
    if (code == FC_OK && !s->texts[index]) {
        s->texts[index] = copy;
        copy = NULL;
        s->n++;
    }
cleanup:
    free(copy);
    free(line);
    cJSON_Delete(object);
    cJSON_Delete(extra);
    return code;
}
