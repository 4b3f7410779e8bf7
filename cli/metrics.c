#define _GNU_SOURCE
#include "cli/metrics.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Cuts a line without its newline off the end of an open file and leaves the position there. */
static enum fc_code cut_partial_line(FILE *file, const char *path, struct fc_error *err)
{
    char block[4096];
    if (fseek(file, 0, SEEK_END) != 0)
        goto fail;
    long end = ftell(file);
    while (end > 0) {
        long begin = end > (long)sizeof block ? end - (long)sizeof block : 0;
        size_t len = (size_t)(end - begin);
        if (fseek(file, begin, SEEK_SET) != 0 || fread(block, 1, len, file) != len)
            goto fail;
        const char *newline = memrchr(block, '\n', len);
        end = newline ? begin + (newline - block) + 1 : begin;
        if (newline)
            break;
    }
    if (end < 0 || ftruncate(fileno(file), end) != 0 || fseek(file, end, SEEK_SET) != 0)
        goto fail;
    return FC_OK;
fail:
    return fc_fail(err, FC_ERR_IO, "%s: cannot continue: %s", path, strerror(errno));
}

enum fc_code fc_metrics_open(struct fc_metrics *m, const char *path, bool append,
                             struct fc_error *err)
{
    *m = (struct fc_metrics){.start = fc_now()};
    FILE *file = append ? fopen(path, "r+e") : NULL;
    if (!file)
        file = fopen(path, "we");
    if (!file)
        return fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    m->path = fc_strndup(path, strlen(path), err);
    enum fc_code code = m->path ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK && append)
        code = cut_partial_line(file, path, err);
    if (code == FC_OK) {
        m->file = file;
        return FC_OK;
    }
    fclose(file);
    free(m->path);
    *m = (struct fc_metrics){0};
    return code;
}

enum fc_code fc_metrics_close(struct fc_metrics *m, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    if (m->file && (fflush(m->file) != 0 || fc_sync_file(fileno(m->file)) != 0))
        code = fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", m->path, strerror(errno));
    if (m->file && fclose(m->file) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", m->path, strerror(errno));
    if (code == FC_OK && m->file)
        code = fc_sync_parent(m->path, err);
    free(m->path);
    *m = (struct fc_metrics){0};
    return code;
}

enum fc_code fc_metrics_record(struct fc_metrics *m, const char *kind, cJSON *record,
                               struct fc_error *err)
{
    enum fc_code code = FC_OK;
    cJSON *line = NULL;
    if (!m->file)
        goto cleanup;
    line = cJSON_CreateObject();
    if (!record || !line || !cJSON_AddStringToObject(line, "kind", kind) ||
        !cJSON_AddNumberToObject(line, "seconds",
                                 (double)(long long)((fc_now() - m->start) * 1e3 + 0.5) / 1e3)) {
        code = fc_fail(err, FC_ERR_MEMORY, "%s: out of memory", m->path);
        goto cleanup;
    }
    while (record->child) {
        cJSON *value = cJSON_DetachItemViaPointer(record, record->child);
        if (!cJSON_AddItemToObject(line, value->string, value)) {
            cJSON_Delete(value);
            code = fc_fail(err, FC_ERR_MEMORY, "%s: out of memory", m->path);
            goto cleanup;
        }
    }
    code = fc_print_json_line(m->file, line, err);
    if (code != FC_OK)
        fc_error_prefix(err, "%s", m->path);
cleanup:
    cJSON_Delete(line);
    cJSON_Delete(record);
    return code;
}

cJSON *fc_metrics_object(const char *key, const char *text, const struct fc_metric *values,
                         size_t n, struct fc_error *err)
{
    cJSON *o = cJSON_CreateObject();
    bool whole = o && (!key || cJSON_AddStringToObject(o, key, text));
    for (size_t i = 0; i < n && whole; i++)
        whole = cJSON_AddNumberToObject(o, values[i].name, values[i].value) != NULL;
    if (whole)
        return o;
    cJSON_Delete(o);
    fc_fail(err, FC_ERR_MEMORY, "JSON: out of memory");
    return NULL;
}

enum fc_code fc_metrics_log(struct fc_metrics *m, const char *kind, const struct fc_metric *values,
                            size_t n, struct fc_error *err)
{
    return m->file ? fc_metrics_record(m, kind, fc_metrics_object(NULL, NULL, values, n, err), err)
                   : FC_OK;
}

/* One fwrite call: lines of several threads do not mix. */
enum fc_code fc_print_json_line(FILE *out, const cJSON *value, struct fc_error *err)
{
    char *json = fc_json_print(value, err);
    if (!json)
        return FC_ERR_MEMORY;
    size_t len = strlen(json);
    json[len] = '\n'; /* in place of the NUL: the length is known */
    enum fc_code code = FC_OK;
    if (fwrite(json, 1, len + 1, out) != len + 1 || fflush(out) != 0)
        code = fc_fail(err, FC_ERR_IO, "cannot write a line of JSON: %s", strerror(errno));
    free(json);
    return code;
}
