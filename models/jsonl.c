#include "models/jsonl.h"

#include "base/json.h"
#include "base/utf8.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Whether a NUL hides in the line, raw or escaped. Backslashes occur inside strings only. */
static bool has_nul(const char *line, size_t len)
{
    if (memchr(line, '\0', len))
        return true;
    for (size_t i = 0; i + 5 < len; i++) {
        if (line[i] != '\\')
            continue;
        if (memcmp(line + i, "\\u0000", 6) == 0)
            return true;
        i++; /* the character after a backslash begins no escape of its own */
    }
    return false;
}

enum fc_code fc_jsonl_open(struct fc_jsonl *f, const char *path, struct fc_error *err)
{
    *f = (struct fc_jsonl){.path = path};
    enum fc_code code = fc_map_open(&f->map, path, err);
    if (code != FC_OK)
        return code;
    if (f->map.len > FC_JSONL_MAX_FILE) {
        code = fc_fail(err, FC_ERR_INPUT, "%s: %zu bytes, expected at most %zu", path, f->map.len,
                       FC_JSONL_MAX_FILE);
        fc_jsonl_close(f);
        return code;
    }
    if (f->map.len >= 3 && memcmp(f->map.data, "\xEF\xBB\xBF", 3) == 0)
        f->at = 3;
    return FC_OK;
}

static enum fc_code parse_line(struct fc_jsonl *f, const char *line, size_t len, cJSON **record,
                               struct fc_error *err)
{
    if (len > FC_JSONL_MAX_LINE)
        return fc_fail(err, FC_ERR_INPUT, "%s: %zu bytes, expected at most %zu", f->where, len,
                       FC_JSONL_MAX_LINE);
    size_t valid = fc_utf8_prefix(line, len);
    if (valid < len)
        return fc_fail(err, FC_ERR_INPUT, "%s: not valid UTF-8 at byte %zu of the line", f->where,
                       valid);
    if (has_nul(line, len))
        return fc_fail(err, FC_ERR_INPUT, "%s: holds a NUL character", f->where);
    cJSON *value = fc_json_parse(line, len, f->where, err);
    if (!value)
        return FC_ERR_INPUT;
    if (!cJSON_IsObject(value)) {
        cJSON_Delete(value);
        return fc_fail(err, FC_ERR_INPUT, "%s: expected a JSON object", f->where);
    }
    *record = value;
    return FC_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

enum fc_code fc_jsonl_next(struct fc_jsonl *f, cJSON **record, struct fc_error *err)
{
    *record = NULL;
    while (f->at < f->map.len) {
        const char *line = (const char *)f->map.data + f->at;
        const char *newline = memchr(line, '\n', f->map.len - f->at);
        size_t len = newline ? (size_t)(newline - line) : f->map.len - f->at;
        f->at += len + (newline != NULL);
        f->line++;
        snprintf(f->where, sizeof f->where, "%.280s: line %zu", f->path, f->line);
        while (len && is_blank(line[len - 1]))
            len--;
        if (len)
            return parse_line(f, line, len, record, err);
    }
    return FC_OK;
}

void fc_jsonl_close(struct fc_jsonl *f)
{
    fc_map_close(&f->map);
    f->map = (struct fc_map){0};
}
