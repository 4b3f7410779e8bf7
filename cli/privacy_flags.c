#include "cli/privacy_flags.h"

#include "engine/samples.h"

#define FIELD(name) offsetof(struct fc_privacy_flags, name)

const struct fc_option fc_privacy_options[] = {
    {.name = "epsilon",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(epsilon),
     .metavar = "E",
     .help = "local differential privacy of each word: 3 hides most, 10 keeps most",
     .min = 0.001,
     .max = FC_MAX_EPSILON},
    {.name = "budget",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(budget),
     .fallback = "0",
     .metavar = "B",
     .help = "most epsilon that the ledger may ever hold; 0: no limit",
     .min = 0,
     .max = 1e12},
    {.name = "delta",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(delta),
     .fallback = "1e-6",
     .metavar = "D",
     .help = "of the composed epsilon, in the budget and the reports; 0: a pure budget",
     .min = 0,
     .max = 0.5},
    {.name = "ledger",
     .type = FC_OPT_STRING,
     .offset = FIELD(ledger),
     .metavar = "FILE",
     .help = "what this client has spent, and the texts it bought; name one file for all jobs on "
             "the same data (default: DIR/client.ledger, or P.jsonl.ledger of `perturb`)"},
    {.name = "nearest",
     .type = FC_OPT_SIZE,
     .offset = FIELD(nearest),
     .fallback = "0",
     .metavar = "M",
     .help = "words that count as near; 0: from --stay",
     .min = 0,
     .max = 1e6},
    {.name = "stay",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(stay),
     .fallback = "0.5",
     .metavar = "P",
     .help = "chance to be replaced by a near word that --nearest 0 aims at",
     .min = 0.01,
     .max = 0.999},
    {.name = "vocabulary",
     .type = FC_OPT_SIZE,
     .offset = FIELD(vocabulary),
     .fallback = "0",
     .metavar = "N",
     .help = "words that may leave at all; 0: 8000",
     .min = 0,
     .max = 1e6},
    {.name = "max-words",
     .type = FC_OPT_SIZE,
     .offset = FIELD(max_words),
     .fallback = "0",
     .metavar = "N",
     .help = "cut a prompt after so many words; 0: never",
     .min = 0,
     .max = 1e6},
    {.name = "pad",
     .type = FC_OPT_FLAG,
     .offset = FIELD(pad),
     .help = "pad every prompt to --max-words, so that lengths do not show"},
    {.name = "public-word",
     .type = FC_OPT_STRINGS,
     .offset = FIELD(public_words),
     .metavar = "WORD",
     .help = "passes in clear, outside the guarantee; may be repeated"},
    {0}};

enum fc_code fc_privacy_flags_check(const struct fc_privacy_flags *f, struct fc_error *err)
{
    if (f->epsilon <= 0)
        return fc_fail(err, FC_ERR_USAGE,
                       "--epsilon E is missing: the privacy of each word that leaves (3 hides "
                       "most, 10 keeps most)");
    if (f->pad && f->max_words == 0)
        return fc_fail(err, FC_ERR_USAGE, "--pad needs --max-words, the length to pad to");
    return FC_OK;
}

struct fc_perturber_options fc_privacy_flags_apply(const struct fc_privacy_flags *f)
{
    return (struct fc_perturber_options){.epsilon = f->epsilon,
                                         .n_words = f->vocabulary,
                                         .nearest = f->nearest,
                                         .stay = f->stay,
                                         .max_units = f->max_words,
                                         .pad = f->pad,
                                         .delta = f->delta,
                                         .public_words = f->public_words.items,
                                         .n_public = f->public_words.n};
}

enum fc_code fc_privacy_flags_ledger(struct fc_ledger **ledger, const struct fc_privacy_flags *f,
                                     const char *fallback, const char *head, struct fc_error *err)
{
    const struct fc_budget budget = {f->budget, f->delta};
    enum fc_code code = fc_ledger_open(ledger, f->ledger ? f->ledger : fallback, budget, err);
    return code == FC_OK ? fc_ledger_keep_head(*ledger, head, err) : code;
}

static enum fc_code render(const struct fc_example *e, const struct fc_template *perturb,
                           struct fc_text *out, struct fc_error *err)
{
    struct fc_text choices = {0};
    enum fc_code code = fc_join_choices(e, &choices, err);
    const char *const values[] = {e->question, choices.data};
    if (code == FC_OK)
        code = fc_template_render(perturb, values, out, err);
    fc_text_free(&choices);
    return code;
}

enum fc_code fc_private_texts_render(struct fc_private_texts *t, const struct fc_dataset *data,
                                     const struct fc_task_templates *templates, const size_t *order,
                                     size_t n, struct fc_error *err)
{
    *t = (struct fc_private_texts){.n = n};
    t->rendered = fc_alloc(n, sizeof *t->rendered, "texts", err);
    t->items = fc_alloc(n, sizeof *t->items, "texts", err);
    enum fc_code code = t->rendered && t->items ? FC_OK : FC_ERR_MEMORY;
    for (size_t i = 0; i < n && code == FC_OK; i++) {
        const struct fc_example *e = &data->items[order ? order[i] : i];
        code = render(e, templates->perturb, &t->rendered[i], err);
        t->items[i] = (struct fc_private_text){e->id, t->rendered[i].data, t->rendered[i].len};
    }
    return code;
}

void fc_private_texts_free(struct fc_private_texts *t)
{
    for (size_t i = 0; t->rendered && i < t->n; i++)
        fc_text_free(&t->rendered[i]);
    free(t->rendered);
    free(t->items);
    *t = (struct fc_private_texts){0};
}
