/* Values of flags: from text or numbers into the fields of a command's struct. */
#include "cli/options_impl.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *fc_option_metavar(const struct fc_option *option)
{
    static const char *const names[] = {
        [FC_OPT_STRING] = "TEXT", [FC_OPT_SIZE] = "N",      [FC_OPT_DOUBLE] = "X",
        [FC_OPT_FLAG] = "",       [FC_OPT_CHOICE] = "NAME", [FC_OPT_STRINGS] = "TEXT"};
    return option->metavar ? option->metavar : names[option->type];
}

static enum fc_code out_of_range(const struct fc_option *p, const char *found, const char *where,
                                 struct fc_error *err)
{
    const char *kind = p->type == FC_OPT_SIZE ? "a whole number" : "a number";
    if (p->max < p->min)
        return fc_fail(err, FC_ERR_USAGE, "%s: expected %s of at least %g, found %s", where, kind,
                       p->min, found);
    if (p->max > 0 || p->min < 0)
        return fc_fail(err, FC_ERR_USAGE, "%s: expected %s from %.10g to %.10g, found %s", where,
                       kind, p->min, p->max, found);
    return fc_fail(err, FC_ERR_USAGE, "%s: expected %s, found %s", where, kind, found);
}

static bool in_range(const struct fc_option *p, double v)
{
    if (p->max < p->min)
        return v >= p->min;
    return (v >= p->min && v <= p->max) || (!(p->min < 0) && !(p->max > 0) && !(p->min > 0));
}

static enum fc_code set_size(const struct fc_bound_option *item, const char *text,
                             const char *where, struct fc_error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    /* strtoull takes blanks and signs, and turns -1 into 2^64 - 1: begin with a digit. */
    if (text[0] < '0' || text[0] > '9' || *end || errno || v > SIZE_MAX ||
        !in_range(item->option, (double)v))
        return out_of_range(item->option, text, where, err);
    *(size_t *)item->field = (size_t)v;
    return FC_OK;
}

static enum fc_code set_double(const struct fc_bound_option *item, const char *text,
                               const char *where, struct fc_error *err)
{
    char *end = NULL;
    double v = strtod(text, &end);
    if (!*text || strchr(" \t\r\n", text[0]) || *end || !isfinite(v) || !in_range(item->option, v))
        return out_of_range(item->option, text, where, err);
    *(double *)item->field = v;
    return FC_OK;
}

static enum fc_code set_choice(const struct fc_bound_option *item, const char *text,
                               const char *where, struct fc_error *err)
{
    struct fc_text all = {0};
    for (int i = 0; item->option->choices[i]; i++) {
        if (strcmp(item->option->choices[i], text) == 0) {
            *(int *)item->field = i;
            fc_text_free(&all);
            return FC_OK;
        }
        fc_text_printf(&all, "%s%s", i ? ", " : "", item->option->choices[i]);
    }
    fc_fail(err, FC_ERR_USAGE, "%s: expected one of %s; found %s", where,
            all.data ? all.data : "(none)", text);
    fc_text_free(&all);
    return FC_ERR_USAGE;
}

static enum fc_code add_string(const struct fc_bound_option *item, const char *text,
                               const char *where, struct fc_error *err)
{
    struct fc_strings *list = item->field;
    const char **items = realloc(list->items, (list->n + 1) * sizeof *items);
    if (!items)
        return fc_fail(err, FC_ERR_MEMORY, "%s: out of memory", where);
    items[list->n++] = text;
    list->items = items;
    return FC_OK;
}

enum fc_code fc_option_set(const struct fc_bound_option *item, const char *text, const char *where,
                           struct fc_error *err)
{
    switch (item->option->type) {
    case FC_OPT_STRING:
        *(const char **)item->field = text;
        return FC_OK;
    case FC_OPT_SIZE:
        return set_size(item, text, where, err);
    case FC_OPT_DOUBLE:
        return set_double(item, text, where, err);
    case FC_OPT_FLAG:
        *(bool *)item->field = !text || strcmp(text, "true") == 0;
        return FC_OK;
    case FC_OPT_CHOICE:
        return set_choice(item, text, where, err);
    case FC_OPT_STRINGS:
        return add_string(item, text, where, err);
    }
    return fc_fail(err, FC_ERR_INTERNAL, "%s: option of unknown type", where);
}

enum fc_code fc_option_set_number(const struct fc_bound_option *item, double value,
                                  const char *where, struct fc_error *err)
{
    char found[32];
    snprintf(found, sizeof found, "%.17g", value);
    bool size = item->option->type == FC_OPT_SIZE;
    if (!isfinite(value) || !in_range(item->option, value) ||
        (size && (value < 0 || value > 0x1p53 || floor(value) < value)))
        return out_of_range(item->option, found, where, err);
    if (size)
        *(size_t *)item->field = (size_t)value;
    else
        *(double *)item->field = value;
    return FC_OK;
}

void fc_option_clear(const struct fc_bound_option *item)
{
    struct fc_strings *list = item->field;
    free(list->items);
    *list = (struct fc_strings){0};
}
