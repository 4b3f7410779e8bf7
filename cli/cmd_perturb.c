#include "base/file.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/metrics.h"
#include "cli/privacy_flags.h"
#include "cli/session.h"

#include <string.h>

struct perturb_flags {
    struct fc_model_flags model;
    struct fc_compute_flags compute;
    struct fc_privacy_flags privacy;
    const char *input, *output, *templates;
    size_t show;
    bool instruct;
};

#define FIELD(name) offsetof(struct perturb_flags, name)

static const struct fc_option file_options[] = {
    {.name = "input",
     .type = FC_OPT_STRING,
     .offset = FIELD(input),
     .metavar = "D.jsonl",
     .help = "private data set",
     .required = true},
    {.name = "output",
     .type = FC_OPT_STRING,
     .offset = FIELD(output),
     .metavar = "P.jsonl",
     .help = "perturbed prompts: {\"id\", \"prompt\"}",
     .required = true},
    {.name = "templates",
     .type = FC_OPT_STRING,
     .offset = FIELD(templates),
     .metavar = "FILE",
     .help = "JSON file with texts in place of the built-in ones (see docs/templates.md)"},
    {.name = "instruct",
     .type = FC_OPT_FLAG,
     .offset = FIELD(instruct),
     .help = "put each perturbed prompt into the server's instruction, for `fedcot generate`"},
    {.name = "show",
     .type = FC_OPT_SIZE,
     .offset = FIELD(show),
     .fallback = "0",
     .metavar = "N",
     .help = "print N prompts before and after on standard output: raw private text!",
     .min = 0,
     .max = 1e9},
    {0}};

static const struct fc_option_group groups[] = {{"Model", fc_model_options, FIELD(model)},
                                                {"Files", file_options, 0},
                                                {"Privacy", fc_privacy_options, FIELD(privacy)},
                                                {"Computation", fc_compute_options, FIELD(compute)},
                                                {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "perturb",
    .summary = "Replace the words of private prompts, and show what it costs",
    .description =
        "Every word, number and mark of a prompt is replaced by one exact draw from a public "
        "vocabulary, near words (by the model's embeddings) being likelier. The cost is charged "
        "in the ledger before the output is written; the same input again gives the same texts "
        "and costs nothing.",
    .groups = groups,
};

struct texts {
    struct fc_private_texts raw;
    struct fc_perturbed **perturbed; /* [raw.n] */
};

static void texts_free(struct texts *t)
{
    for (size_t i = 0; t->perturbed && i < t->raw.n; i++)
        fc_perturbed_free(t->perturbed[i]);
    free(t->perturbed);
    fc_private_texts_free(&t->raw);
}

static enum fc_code texts_render(struct texts *t, const struct fc_dataset *data,
                                 const struct fc_task_templates *templates, struct fc_error *err)
{
    enum fc_code code = fc_private_texts_render(&t->raw, data, templates, NULL, data->n, err);
    t->perturbed = fc_alloc(data->n, sizeof(struct fc_perturbed *), "texts", err);
    return t->perturbed ? code : FC_ERR_MEMORY;
}

static enum fc_code write_results(const char *path, const struct texts *t, bool instruct,
                                  const struct fc_task_templates *templates, struct fc_error *err)
{
    struct fc_atomic_file out;
    struct fc_text prompt = {0};
    enum fc_code code = fc_atomic_open(&out, path, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < t->raw.n && code == FC_OK; i++) {
        const char *text = fc_perturbed_text(t->perturbed[i], NULL);
        fc_text_clear(&prompt);
        if (instruct)
            code = fc_template_render(templates->instruct, &text, &prompt, err);
        if (code != FC_OK)
            break;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "id", t->raw.items[i].id);
        cJSON_AddStringToObject(o, "prompt", instruct ? prompt.data : text);
        code = fc_print_json_line(out.stream, o, err);
        cJSON_Delete(o);
    }
    fc_text_free(&prompt);
    if (code == FC_OK)
        return fc_atomic_commit(&out, err);
    fc_atomic_abort(&out);
    return code;
}

static void show(const struct texts *t, size_t n, const struct fc_mechanism *m)
{
    for (size_t i = 0; i < n && i < t->raw.n; i++)
        printf("before  %s\nafter   %s\ncost    %llu words, epsilon %.2f%s\n\n",
               t->raw.rendered[i].data, fc_perturbed_text(t->perturbed[i], NULL),
               (unsigned long long)fc_perturbed_draws(t->perturbed[i]),
               fc_perturbed_epsilon(t->perturbed[i]),
               fc_perturbed_resent(t->perturbed[i]) ? " (paid before)" : "");
    printf("each word: epsilon %.4f; one of the %zu nearest of %zu words with probability %.1f %%, "
           "else any other\n",
           m->epsilon, m->nearest, m->n_outputs, 100 * m->stay);
}

static cJSON *summarize(const struct fc_mechanism *m, const struct fc_run_report *r,
                        struct fc_error *err)
{
    const struct fc_metric figures[] = {
        {"texts", (double)r->texts},
        {"resent", (double)r->resent},
        {"words_drawn", (double)r->draws},
        {"epsilon_per_word", m->epsilon},
        {"stay_near", m->stay},
        {"nearest", (double)m->nearest},
        {"vocabulary", (double)m->n_outputs},
        {"epsilon_longest_text", r->document.epsilon},
        {"epsilon_run", r->run.epsilon},
        {"epsilon_run_pure", r->run.pure},
        {"epsilon_ledger", r->client.epsilon},
        {"rho_ledger", r->client.rho},
        {"delta", m->delta},
        {"public_words_passed", (double)r->public_units},
        {"words_cut", (double)r->cut_units},
        {"seconds", r->seconds},
        {"words_per_second", (double)r->draws / (r->seconds + 1e-9)}};
    cJSON *o =
        fc_metrics_object("command", "perturb", figures, sizeof figures / sizeof figures[0], err);
    if (o && cJSON_AddStringToObject(o, "mechanism", m->hash))
        return o;
    cJSON_Delete(o);
    fc_fail(err, FC_ERR_MEMORY, "summary: out of memory");
    return NULL;
}

static enum fc_code open_ledger(struct fc_ledger **ledger, const struct perturb_flags *f,
                                struct fc_error *err)
{
    struct fc_text path = {0}, head = {0};
    fc_text_printf(&path, "%s.ledger", f->output);
    fc_text_printf(&head, "%s.head", f->output);
    enum fc_code code = fc_text_check(&path, err);
    if (code == FC_OK)
        code = fc_text_check(&head, err);
    if (code == FC_OK)
        code = fc_privacy_flags_ledger(ledger, &f->privacy, path.data, head.data, err);
    fc_text_free(&head);
    fc_text_free(&path);
    return code;
}

static enum fc_code perturb(const struct fc_options *options, const struct perturb_flags *f,
                            struct fc_session *s, const struct fc_task_templates *templates,
                            struct texts *texts, struct fc_error *err)
{
    const struct fc_perturber_options how = fc_privacy_flags_apply(&f->privacy);
    struct fc_perturber *perturber = NULL;
    struct fc_ledger *ledger = NULL;
    struct fc_run_report report;
    struct fc_mechanism mechanism;
    enum fc_code code = fc_perturber_open(&perturber, &s->model, s->tok, &how, err);
    if (code == FC_OK)
        code = open_ledger(&ledger, f, err);
    if (code == FC_OK)
        code = fc_perturber_run(perturber, ledger, texts->raw.items, texts->raw.n, texts->perturbed,
                                &report, err);
    if (code == FC_OK)
        code = write_results(f->output, texts, f->instruct, templates, err);
    if (code == FC_OK) {
        fc_perturber_mechanism(perturber, &mechanism);
        if (!options->json)
            show(texts, f->show, &mechanism);
        code = fc_print_summary(options, summarize(&mechanism, &report, err), err);
    }
    fc_ledger_close(ledger);
    fc_perturber_close(perturber);
    return code;
}

enum fc_code fc_cmd_perturb(int argc, char **argv, struct fc_error *err)
{
    struct perturb_flags flags;
    struct fc_options options = {0};
    struct fc_session s = {0};
    struct fc_dataset data = {0};
    struct fc_task_templates templates = {0};
    struct texts texts = {0};
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    code = fc_privacy_flags_check(&flags.privacy, err);
    if (code == FC_OK)
        code = fc_dataset_read(&data, flags.input, false, err);
    if (code == FC_OK)
        code =
            fc_task_templates_open(&templates, fc_dataset_has_choices(&data), flags.templates, err);
    if (code == FC_OK)
        code = texts_render(&texts, &data, &templates, err);
    if (code == FC_OK)
        code = fc_session_open(&s, &flags.model, &flags.compute, 64, false, err);
    if (code == FC_OK)
        code = fc_session_record(&options, NULL, err);
    if (code == FC_OK)
        code = perturb(&options, &flags, &s, &templates, &texts, err);
cleanup:
    texts_free(&texts);
    fc_session_close(&s);
    fc_task_templates_free(&templates);
    fc_dataset_free(&data);
    fc_options_free(&options);
    return code;
}
