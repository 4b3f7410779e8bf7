#include "models/template.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* A literal, then the value of a field (none after the last literal). */
struct piece {
    char *literal;
    size_t len;
    size_t field; /* n_fields: none */
};

struct fc_template {
    struct piece *pieces;
    size_t n, capacity, n_fields;
};

static enum fc_code add_piece(struct fc_template *t, const struct fc_text *literal, size_t field,
                              struct fc_error *err)
{
    void *pieces = t->pieces;
    enum fc_code code =
        fc_grow(&pieces, &t->capacity, t->n + 1, sizeof *t->pieces, "template", err);
    t->pieces = pieces;
    if (code == FC_OK)
        code = fc_text_check(literal, err);
    if (code != FC_OK)
        return code;
    struct piece *p = &t->pieces[t->n];
    *p = (struct piece){fc_strndup(literal->data, literal->len, err), literal->len, field};
    if (!p->literal)
        return FC_ERR_MEMORY;
    t->n++;
    return FC_OK;
}

static enum fc_code unknown_field(const char *name, size_t len, size_t at, const char *where,
                                  const char *const *fields, size_t n_fields, struct fc_error *err)
{
    struct fc_text allowed = {0};
    for (size_t i = 0; i < n_fields; i++)
        fc_text_printf(&allowed, "%s{{%s}}", i ? ", " : "", fields[i]);
    fc_fail(err, FC_ERR_INPUT,
            "%s: byte %zu: {{%.*s}} is not a field of this text, which may name %s", where, at,
            (int)(len < 40 ? len : 40), name, n_fields ? allowed.data : "none");
    fc_text_free(&allowed);
    return FC_ERR_INPUT;
}

/* The field between "{{" at text[at] and the next "}}"; *end is behind it. */
static enum fc_code read_field(const char *text, size_t at, const char *where,
                               const char *const *fields, size_t n_fields, size_t *field,
                               size_t *end, struct fc_error *err)
{
    const char *name = text + at + 2, *close = strstr(name, "}}");
    if (!close)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: byte %zu: \"{{\" without \"}}\"; write {{{{ for two braces", where, at);
    *end = (size_t)(close + 2 - text);
    while (*name == ' ')
        name++;
    while (close > name && close[-1] == ' ')
        close--;
    size_t len = (size_t)(close - name);
    for (*field = 0; *field < n_fields; ++*field)
        if (strlen(fields[*field]) == len && memcmp(fields[*field], name, len) == 0)
            return FC_OK;
    return unknown_field(name, len, at, where, fields, n_fields, err);
}

enum fc_code fc_template_compile(struct fc_template **out, const char *text, const char *where,
                                 const char *const *fields, size_t n_fields, struct fc_error *err)
{
    struct fc_text literal = {0};
    size_t field = n_fields, end, len = strlen(text);
    *out = NULL;
    struct fc_template *t = fc_alloc(1, sizeof *t, "template", err);
    enum fc_code code = t ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK && fc_utf8_prefix(text, len) < len)
        code = fc_fail(err, FC_ERR_INPUT, "%s: not valid UTF-8 at byte %zu", where,
                       fc_utf8_prefix(text, len));
    if (code != FC_OK)
        goto cleanup;
    t->n_fields = n_fields;
    fc_text_puts(&literal, "");
    for (size_t at = 0; at < len; at = end) {
        const char *open = strstr(text + at, "{{");
        size_t plain = open ? (size_t)(open - text) - at : len - at;
        fc_text_add(&literal, text + at, plain);
        end = at + plain;
        if (!open)
            break;
        if (strncmp(open, "{{{{", 4) == 0) {
            fc_text_puts(&literal, "{{");
            end += 4;
            continue;
        }
        code = read_field(text, end, where, fields, n_fields, &field, &end, err);
        if (code == FC_OK)
            code = add_piece(t, &literal, field, err);
        if (code != FC_OK)
            goto cleanup;
        fc_text_clear(&literal);
    }
    code = add_piece(t, &literal, n_fields, err);
cleanup:
    fc_text_free(&literal);
    if (code == FC_OK)
        *out = t;
    else
        fc_template_free(t);
    return code;
}

void fc_template_free(struct fc_template *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free(t->pieces[i].literal);
    free(t->pieces);
    free(t);
}

bool fc_template_uses(const struct fc_template *t, size_t field)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->pieces[i].field == field && field < t->n_fields)
            return true;
    return false;
}

enum fc_code fc_template_render(const struct fc_template *t, const char *const *values,
                                struct fc_text *out, struct fc_error *err)
{
    fc_text_puts(out, "");
    for (size_t i = 0; i < t->n; i++) {
        const struct piece *p = &t->pieces[i];
        fc_text_add(out, p->literal, p->len);
        if (p->field < t->n_fields && values[p->field])
            fc_text_puts(out, values[p->field]);
    }
    return fc_text_check(out, err);
}
