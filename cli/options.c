#include "cli/options.h"

#include "cli/options_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the order of enum fc_chat_format and enum fc_dtype. */
static const char *const chat_formats[] = {"auto", "chatml", "llama2", "llama3", "plain", NULL};
static const char *const dtypes[] = {"fp32", "bf16", "fp16", NULL};

const struct fc_option fc_model_options[] = {
    {.name = "model",
     .type = FC_OPT_STRING,
     .offset = offsetof(struct fc_model_flags, model),
     .metavar = "M",
     .help = "the model: a Hugging Face directory or a GGUF file",
     .required = true},
    {.name = "chat-format",
     .type = FC_OPT_CHOICE,
     .offset = offsetof(struct fc_model_flags, chat_format),
     .metavar = "NAME",
     .help = "how a conversation becomes one prompt; auto recognises it from the model's files",
     .choices = chat_formats},
    {0}};

const struct fc_option fc_compute_options[] = {
    {.name = "device",
     .type = FC_OPT_STRING,
     .offset = offsetof(struct fc_compute_flags, device),
     .fallback = "auto",
     .metavar = "NAME",
     .help =
         "what computes: cpu, cuda or cuda:N (a GPU, counted from 0), or auto: the first GPU where "
         "there is one, else cpu; fedcot info lists them"},
    {.name = "threads",
     .type = FC_OPT_SIZE,
     .offset = offsetof(struct fc_compute_flags, threads),
     .fallback = "0",
     .metavar = "N",
     .help = "CPU threads; 0 takes every core",
     .max = 4096},
    {.name = "dtype",
     .type = FC_OPT_CHOICE,
     .offset = offsetof(struct fc_compute_flags, dtype),
     .fallback = "bf16",
     .metavar = "TYPE",
     .help =
         "number format of weights and activations; sums are always in fp32; fp16 on CUDA only, "
         "with the loss scaled as it needs",
     .choices = dtypes},
    {0}};

const struct fc_option fc_quantised_options[] = {
    {.name = "keep-quantised",
     .type = FC_OPT_FLAG,
     .help = "leave matrices that the file stores in Q4_0, Q4_1 or Q8_0 as they are: a third to a "
             "half of bf16's memory; long prompts take longer"},
    {0}};

const struct fc_option fc_batch_options[] = {
    {.name = "max-batch",
     .type = FC_OPT_SIZE,
     .offset = offsetof(struct fc_batch_flags, max_batch),
     .fallback = "32",
     .metavar = "N",
     .help = "sequences that decode at once",
     .min = 1,
     .max = 4096},
    {.name = "cache-tokens",
     .type = FC_OPT_SIZE,
     .offset = offsetof(struct fc_batch_flags, cache_tokens),
     .fallback = "0",
     .metavar = "N",
     .help = "tokens that the KV cache holds; 0: 512 for each sequence",
     .min = 0,
     .max = 1e9},
    {0}};

static const struct fc_option builtin_options[] = {
    {.name = "config",
     .type = FC_OPT_STRING,
     .offset = offsetof(struct fc_options, config),
     .metavar = "FILE",
     .help = "JSON job file: keys are flag names without dashes, or a command's name with an "
             "object for it; flags win"},
    {.name = "json",
     .type = FC_OPT_FLAG,
     .offset = offsetof(struct fc_options, json),
     .help = "end with one JSON line of the summary on standard output"},
    {.name = "help",
     .type = FC_OPT_FLAG,
     .offset = offsetof(struct fc_options, help),
     .help = "print this text"},
    {0}};

const struct fc_option_group fc_builtin_group = {"Every command", builtin_options, 0};

/* --- names --------------------------------------------------------------------------------- */

struct fc_bound_option *fc_options_find(const struct fc_options *o, const char *name, size_t len)
{
    for (size_t i = 0; i < o->n_items; i++)
        if (strncmp(o->items[i].option->name, name, len) == 0 &&
            o->items[i].option->name[len] == '\0')
            return &o->items[i];
    return NULL;
}

enum { NAME_LIMIT = 48 };

/* Edits (insert, delete, replace, swap of neighbours) from a to b; both shorter than NAME_LIMIT. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    size_t rows[3][NAME_LIMIT + 1]; /* two rows back, the row before, this row */
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = rows[1][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *before2 = rows[(i + 2) % 3], *before = rows[i % 3], *row = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = before[j - 1] + (a[i - 1] != b[j - 1]);
            if (before[j] + 1 < best)
                best = before[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before2[j - 2] + 1 < best)
                best = before2[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[(na + 1) % 3][nb];
}

const char *fc_nearest(const char *word, const char *const *names, size_t n)
{
    size_t len = strlen(word);
    const char *nearest = NULL;
    if (len == 0 || len >= NAME_LIMIT)
        return NULL;
    size_t best = 2 + len / 4; /* from here on a name is another name, not a slip */
    for (size_t i = 0; i < n; i++) {
        if (strlen(names[i]) >= NAME_LIMIT)
            continue;
        /* The beginning of a longer name is one edit away. */
        size_t d =
            len >= 3 && strncmp(names[i], word, len) == 0 ? 1 : edit_distance(word, names[i]);
        if (d < best && d < len) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}

enum fc_code fc_options_unknown(const struct fc_options *o, const char *where, const char *dashes,
                                const char *name, size_t len, struct fc_error *err)
{
    char word[NAME_LIMIT];
    const char *nearest = NULL;
    const char **names = fc_alloc(o->n_items, sizeof *names, "flag names", err);
    if (!names)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < o->n_items; i++)
        names[i] = o->items[i].option->name;
    snprintf(word, sizeof word, "%.*s", (int)(len < sizeof word ? len : sizeof word), name);
    nearest = fc_nearest(word, names, o->n_items);
    free(names);
    return nearest ? fc_fail(err, FC_ERR_USAGE, "%sunknown %s %s%s; did you mean %s%s?", where,
                             *dashes ? "flag" : "key", dashes, word, dashes, nearest)
                   : fc_fail(err, FC_ERR_USAGE, "%sunknown %s %s%s", where,
                             *dashes ? "flag" : "key", dashes, word);
}

enum fc_option_source fc_options_source(const struct fc_options *o, const char *name)
{
    const struct fc_bound_option *item = fc_options_find(o, name, strlen(name));
    return item ? item->source : FC_FROM_DEFAULT;
}

/* --- parsing ------------------------------------------------------------------------------- */

/* The value before any default: also what makes fc_options_free safe after an early error. */
static void set_nothing(const struct fc_bound_option *item)
{
    switch (item->option->type) {
    case FC_OPT_STRING:
        *(const char **)item->field = NULL;
        break;
    case FC_OPT_SIZE:
        *(size_t *)item->field = 0;
        break;
    case FC_OPT_DOUBLE:
        *(double *)item->field = 0;
        break;
    case FC_OPT_FLAG:
        *(bool *)item->field = false;
        break;
    case FC_OPT_CHOICE:
        *(int *)item->field = 0;
        break;
    case FC_OPT_STRINGS:
        *(struct fc_strings *)item->field = (struct fc_strings){0};
        break;
    }
}

static void bind_group(struct fc_options *o, const struct fc_option_group *group, void *base)
{
    for (const struct fc_option *p = group->options; p->name; p++) {
        struct fc_bound_option *item = &o->items[o->n_items++];
        item->option = p;
        item->field = (char *)base + group->offset + p->offset;
        item->source = FC_FROM_DEFAULT;
        set_nothing(item);
    }
}

static size_t count_options(const struct fc_option_group *group)
{
    size_t n = 0;
    while (group->options[n].name)
        n++;
    return n;
}

/* One item for each option of the command, its field set to the default. */
static enum fc_code bind_options(struct fc_options *o, void *values, struct fc_error *err)
{
    size_t n = count_options(&fc_builtin_group);
    for (const struct fc_option_group *g = o->spec->groups; g && g->options; g++)
        n += count_options(g);
    o->items = fc_alloc(n, sizeof *o->items, "options", err);
    if (!o->items)
        return FC_ERR_MEMORY;
    for (const struct fc_option_group *g = o->spec->groups; g && g->options; g++)
        bind_group(o, g, values);
    bind_group(o, &fc_builtin_group, o);
    for (size_t i = 0; i < o->n_items; i++) {
        const struct fc_bound_option *item = &o->items[i];
        if (!item->option->fallback)
            continue;
        enum fc_code code = fc_option_set(item, item->option->fallback, item->option->name, err);
        if (code != FC_OK)
            return code;
    }
    return FC_OK;
}

/* argv[*at] begins with "--" and a name; takes its value too and leaves *at on the last word. */
static enum fc_code parse_flag(struct fc_options *o, int argc, char **argv, int *at,
                               struct fc_error *err)
{
    const char *name = argv[*at] + 2;
    size_t len = strcspn(name, "=");
    const char *value = name[len] == '=' ? name + len + 1 : NULL;
    struct fc_bound_option *item = fc_options_find(o, name, len);
    bool off = false;
    if (!item && len > 3 && strncmp(name, "no-", 3) == 0) {
        item = fc_options_find(o, name + 3, len - 3);
        off = item && item->option->type == FC_OPT_FLAG;
        item = off ? item : NULL;
    }
    if (!item)
        return fc_options_unknown(o, "", "--", name, len, err);

    const struct fc_option *p = item->option;
    char where[NAME_LIMIT + 2];
    snprintf(where, sizeof where, "--%s", p->name);
    if (p->type == FC_OPT_FLAG) {
        if (value)
            return fc_fail(err, FC_ERR_USAGE, "--%.*s takes no value", (int)len, name);
        item->source = FC_FROM_FLAG;
        return fc_option_set(item, off ? "false" : NULL, where, err);
    }
    if (!value) {
        const char *next = *at + 1 < argc ? argv[*at + 1] : NULL;
        /* "--model --json" is a forgotten value, not a model called --json. */
        if (!next ||
            (strncmp(next, "--", 2) == 0 && fc_options_find(o, next + 2, strcspn(next + 2, "="))))
            return fc_fail(err, FC_ERR_USAGE, "%s needs a value: %s %s", where, where,
                           fc_option_metavar(p));
        value = next;
        ++*at;
    }
    if (p->type == FC_OPT_STRINGS && item->source != FC_FROM_FLAG)
        fc_option_clear(item);
    item->source = FC_FROM_FLAG;
    return fc_option_set(item, value, where, err);
}

static enum fc_code parse_arguments(struct fc_options *o, int argc, char **argv,
                                    struct fc_error *err)
{
    o->arguments = fc_alloc((size_t)argc + 1, sizeof *o->arguments, "arguments", err);
    if (!o->arguments)
        return FC_ERR_MEMORY;
    bool flags = true;
    for (int i = 1; i < argc && !o->help; i++) {
        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
        } else if (flags && strcmp(argv[i], "-h") == 0) {
            o->help = true;
        } else if (flags && argv[i][0] == '-' && argv[i][1]) {
            if (argv[i][1] != '-')
                return fc_fail(err, FC_ERR_USAGE, "unknown flag %s: flags have the form --name",
                               argv[i]);
            enum fc_code code = parse_flag(o, argc, argv, &i, err);
            if (code != FC_OK)
                return code;
        } else if (!o->spec->arguments) {
            return fc_fail(err, FC_ERR_USAGE, "unexpected argument %s: every value has its flag",
                           argv[i]);
        } else {
            o->arguments[o->n_arguments++] = argv[i];
        }
    }
    return FC_OK;
}

static enum fc_code print_help(struct fc_options *o, struct fc_error *err)
{
    struct fc_text text = {0};
    fc_options_help(o->spec, fc_terminal_width(), &text);
    enum fc_code code = fc_text_check(&text, err);
    if (code == FC_OK && fwrite(text.data, 1, text.len, stdout) != text.len)
        code = fc_fail(err, FC_ERR_IO, "standard output: %s", strerror(errno));
    fc_text_free(&text);
    o->done = true;
    return code;
}

static enum fc_code check_required(const struct fc_options *o, struct fc_error *err)
{
    for (size_t i = 0; i < o->n_items; i++) {
        const struct fc_option *p = o->items[i].option;
        if (p->required && o->items[i].source == FC_FROM_DEFAULT)
            return fc_fail(err, FC_ERR_USAGE, "--%s %s is missing: %s", p->name,
                           fc_option_metavar(p), p->help);
    }
    return FC_OK;
}

enum fc_code fc_options_parse(struct fc_options *o, const struct fc_command_spec *spec,
                              void *values, int argc, char **argv, struct fc_error *err)
{
    *o = (struct fc_options){.spec = spec};
    enum fc_code code = bind_options(o, values, err);
    if (code == FC_OK)
        code = parse_arguments(o, argc, argv, err);
    if (code == FC_OK && o->help)
        return print_help(o, err);
    if (code == FC_OK && o->config)
        code = fc_options_read_file(o, err);
    if (code == FC_OK)
        code = check_required(o, err);
    return code;
}

void fc_options_free(struct fc_options *o)
{
    for (size_t i = 0; i < o->n_items; i++)
        if (o->items[i].option->type == FC_OPT_STRINGS)
            fc_option_clear(&o->items[i]);
    free(o->items);
    free(o->arguments);
    cJSON_Delete(o->file);
    *o = (struct fc_options){0};
}
