#define _POSIX_C_SOURCE 200809L
#include "base/jsonl.h"

#include "base/memory.h"

#include <errno.h>
#include <string.h>

enum fc_code fc_jsonl_open(struct fc_jsonl *r, const char *path, struct fc_error *err)
{
    *r = (struct fc_jsonl){0};
    r->stream = fopen(path, "rbe");
    if (!r->stream)
        return fc_fail(err, FC_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    r->path = fc_strndup(path, strlen(path), err);
    r->line = fc_alloc(FC_JSONL_MAX_LINE + 1, 1, "line", err);
    if (r->path && r->line)
        return FC_OK;
    fc_jsonl_close(r);
    return FC_ERR_MEMORY;
}

void fc_jsonl_close(struct fc_jsonl *r)
{
    if (r->stream)
        fclose(r->stream);
    free(r->path);
    free(r->line);
    *r = (struct fc_jsonl){0};
}

/* Reads a line without its end into r->line; the length, or -1 at the end or on error. */
static long read_line(struct fc_jsonl *r, struct fc_error *err)
{
    size_t len = 0;
    int c;
    while ((c = getc_unlocked(r->stream)) != EOF && c != '\n') {
        if (len == FC_JSONL_MAX_LINE) {
            fc_fail(err, FC_ERR_INPUT, "%s: longer than %u bytes", r->where, FC_JSONL_MAX_LINE);
            return -1;
        }
        r->line[len++] = (char)c;
    }
    if (c == EOF && ferror(r->stream)) {
        fc_fail(err, FC_ERR_IO, "%s: cannot read: %s", r->path, strerror(errno));
        return -1;
    }
    if (c == EOF && len == 0)
        return -1;
    r->line[len] = '\0';
    return (long)len;
}

cJSON *fc_jsonl_next(struct fc_jsonl *r, struct fc_error *err)
{
    for (;;) {
        r->number++;
        snprintf(r->where, sizeof r->where, "%.240s line %zu", r->path, r->number);
        long len = read_line(r, err);
        if (len < 0)
            return NULL;
        size_t size = (size_t)len;
        if (strlen(r->line) != size) {
            fc_fail(err, FC_ERR_INPUT, "%s: holds a NUL byte", r->where);
            return NULL;
        }
        if (strspn(r->line, " \t\r") == size)
            continue;
        cJSON *object = fc_json_parse(r->line, size, r->where, err);
        if (object && !cJSON_IsObject(object)) {
            fc_fail(err, FC_ERR_INPUT, "%s: expected a JSON object", r->where);
            cJSON_Delete(object);
            object = NULL;
        }
        return object;
    }
}
