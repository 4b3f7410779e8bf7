/* How a distillation's figures are shown: the table, report.html, the summary. */
#define _POSIX_C_SOURCE 200809L
#include "base/file.h"
#include "base/memory.h"
#include "cli/distill.h"
#include "cli/report.h"

#include <math.h>
#include <string.h>
#include <time.h>

static double server_rate(const struct fc_distill *d)
{
    return d->report.server_seconds > 0 ? (double)d->report.server_tokens / d->report.server_seconds
                                        : 0;
}

static double decode_rate(const struct fc_distill *d)
{
    return d->report.decode_seconds > 0
               ? (double)d->report.decoded_tokens / d->report.decode_seconds
               : 0;
}

/* ---- the table ---------------------------------------------------------------------------- */

static void print_privacy(const struct fc_distill *d, FILE *out)
{
    const struct fc_mechanism *m = &d->mechanism_facts;
    const struct fc_run_report *r = &d->report.privacy;
    fprintf(out,
            "epsilon %.4f per word: one of the %zu nearest of %zu words with probability %.1f %%\n",
            m->epsilon, m->nearest, m->n_outputs, 100 * m->stay);
    fprintf(out,
            "epsilon spent: longest text %.1f, this run %.1f, this client so far %.1f (delta %g)\n",
            r->document.epsilon, r->run.epsilon, r->client.epsilon, m->delta);
    fprintf(out, "words drawn %llu, in %zu texts (%zu of them sent before and not charged again)\n",
            (unsigned long long)r->draws, r->texts, r->resent);
    if (m->n_public)
        fprintf(out, "outside the guarantee: %zu public words\n", m->n_public);
}

static void print_arms(const struct fc_distill *d, FILE *out)
{
    fprintf(out, "\n%-14s %9s  %-17s %10s %8s %14s\n", "", "accuracy", "95 % interval",
            "rationales", "steps", "train tokens/s");
    for (int i = 0; i < FC_ARMS; i++) {
        const struct fc_arm *a = &d->arms[i];
        double low, high;
        if (!a->name)
            continue;
        fc_wilson(a->correct, a->total, &low, &high);
        fprintf(out, "%-14s %7.1f %%  %5.1f to %5.1f %%  %10zu %8zu %14.0f\n", a->name,
                100 * (double)a->correct / (double)a->total, 100 * low, 100 * high, a->n_rationales,
                a->steps, a->tokens_per_second);
    }
    fprintf(out, "\n");
}

void fc_distill_print(const struct fc_distill *d, FILE *out)
{
    const struct fc_inference_report *r = &d->report;
    if (!d->flags->inference_only)
        print_arms(d, out);
    if (d->has_report) {
        print_privacy(d, out);
        fprintf(out,
                "server %.0f tokens/s, decoding %.0f tokens/s, sent %.1f KiB, received %.1f KiB\n",
                server_rate(d), decode_rate(d), (double)r->bytes_out / 1024,
                (double)r->bytes_in / 1024);
    }
    if (r->refused)
        fprintf(out, "the server refused %zu prompts: their examples have no rationale\n",
                r->refused);
    fprintf(out, "report %s/report.html\n", d->flags->output);
}

/* ---- summary.json ------------------------------------------------------------------------- */

static cJSON *arm_summary(const struct fc_arm *a, struct fc_error *err)
{
    double low, high;
    fc_wilson(a->correct, a->total, &low, &high);
    const struct fc_metric figures[] = {{"accuracy", (double)a->correct / (double)a->total},
                                        {"accuracy_low", low},
                                        {"accuracy_high", high},
                                        {"correct", (double)a->correct},
                                        {"total", (double)a->total},
                                        {"steps", (double)a->steps},
                                        {"rationales", (double)a->n_rationales},
                                        {"train_tokens_per_second", a->tokens_per_second},
                                        {"eval_tokens_per_second", a->eval_tokens_per_second}};
    return fc_metrics_object(NULL, NULL, figures, sizeof figures / sizeof figures[0], err);
}

/* Adds an item, which is taken; NULL is the out of memory of who made it. */
static bool add(cJSON *o, const char *name, cJSON *item)
{
    if (item && cJSON_AddItemToObject(o, name, item))
        return true;
    cJSON_Delete(item);
    return false;
}

/* JSON has no infinity: cJSON prints null, which says that there is no such figure. */
static bool add_inference(cJSON *o, const struct fc_distill *d)
{
    const struct fc_inference_report *r = &d->report;
    const struct fc_run_report *p = &r->privacy;
    const struct fc_metric figures[] = {{"epsilon_per_word", d->mechanism_facts.epsilon},
                                        {"epsilon_document", p->document.epsilon},
                                        {"epsilon_run", p->run.epsilon},
                                        {"epsilon_client", p->client.epsilon},
                                        {"epsilon_client_pure", p->client.pure},
                                        {"delta", d->mechanism_facts.delta},
                                        {"words_drawn", (double)p->draws},
                                        {"texts", (double)p->texts},
                                        {"texts_resent", (double)p->resent},
                                        {"server_tokens_per_second", server_rate(d)},
                                        {"decode_tokens_per_second", decode_rate(d)},
                                        {"bytes_sent", (double)r->bytes_out},
                                        {"bytes_received", (double)r->bytes_in},
                                        {"resends", (double)r->resends},
                                        {"refused", (double)r->refused}};
    bool whole = add(o, "server_model", cJSON_CreateString(r->server_model)) &&
                 add(o, "mechanism", cJSON_Duplicate(d->mechanism, true));
    for (size_t i = 0; i < sizeof figures / sizeof figures[0] && whole; i++)
        whole = add(o, figures[i].name, cJSON_CreateNumber(figures[i].value));
    return whole;
}

cJSON *fc_distill_summary(const struct fc_distill *d, struct fc_error *err)
{
    const struct fc_metric figures[] = {
        {"train_examples", (double)d->train.n},
        {"dev_examples", (double)d->dev.n},
        {"seconds", d->seconds},
        {"peak_memory_bytes", (double)(d->session.dev.peak + d->train_device.peak)}};
    cJSON *o =
        fc_metrics_object("command", "distill", figures, sizeof figures / sizeof figures[0], err);
    cJSON *arms = o ? cJSON_AddObjectToObject(o, "accuracy") : NULL;
    bool whole = arms && add(o, "output", cJSON_CreateString(d->flags->output));
    for (int i = 0; i < FC_ARMS && whole; i++)
        if (d->arms[i].name)
            whole = add(arms, d->arms[i].name, arm_summary(&d->arms[i], err));
    if (whole && d->has_report)
        whole = add_inference(o, d);
    if (whole)
        return o;
    cJSON_Delete(o);
    fc_fail(err, FC_ERR_MEMORY, "summary: out of memory");
    return NULL;
}

/* ---- report.html -------------------------------------------------------------------------- */

/* Everything that the page's pointers point into. */
struct page {
    struct fc_report report;
    char date[32], subtitle[256], rates[5][48], mechanism[160];
    struct fc_report_fact facts[5];
    struct fc_report_accuracy accuracies[FC_ARMS];
    struct fc_report_series losses[3];
    struct fc_report_stage stages[FC_STAGES];
    struct fc_report_privacy privacy;
    struct fc_report_example *examples;
    const char *notes[3];
};

static void add_fact(struct page *p, const char *name, const char *value)
{
    p->facts[p->report.n_facts++] = (struct fc_report_fact){name, value};
}

static void fill_accuracies(struct page *p, const struct fc_distill *d)
{
    for (int i = 0; i < FC_ARMS; i++) {
        const struct fc_arm *a = &d->arms[i];
        if (a->name)
            p->accuracies[p->report.n_accuracies++] = (struct fc_report_accuracy){
                .name = a->name, .correct = a->correct, .total = a->total, i == FC_ARM_FEDCOT};
    }
    for (size_t i = 0; i < d->dev.n; i++)
        if (d->dev.items[i].n_choices)
            p->report.chance += 1.0 / ((double)d->dev.items[i].n_choices * (double)d->dev.n);
}

static void fill_losses(struct page *p, const struct fc_distill *d)
{
    const struct fc_arm *ours = &d->arms[FC_ARM_FEDCOT], *label = &d->arms[FC_ARM_LABEL];
    const struct fc_report_series series[] = {
        {"label loss", ours->step_numbers, ours->losses[0], ours->n_losses},
        {"rationale loss", ours->step_numbers, ours->losses[1], ours->n_losses},
        {"label loss, labels only", label->step_numbers, label->losses[0], label->n_losses}};
    for (size_t i = 0; i < 3; i++)
        if (series[i].n)
            p->losses[p->report.n_losses++] = series[i];
}

static void fill_stages(struct page *p, const struct fc_distill *d)
{
    static const char *const names[FC_STAGES] = {"perturb", "server", "decode", "collect"};
    const double rates[FC_STAGES] = {
        [FC_STAGE_EXCHANGE] = server_rate(d), [FC_STAGE_DECODE] = decode_rate(d)};
    for (size_t i = 0; i < FC_STAGE_COLLECT; i++) {
        const struct fc_stage_stats *s = &d->report.stages[i];
        bool server = i == FC_STAGE_EXCHANGE;
        p->stages[p->report.n_stages++] = (struct fc_report_stage){
            .name = names[i],
            .busy = s->busy,
            .waiting = s->starved + s->blocked,
            .bytes =
                server ? (double)(d->report.bytes_in + d->report.bytes_out) : (double)s->bytes_out,
            .items = (size_t)s->items_out,
            .tokens_per_second = rates[i]};
    }
}

static void fill_privacy(struct page *p, const struct fc_distill *d)
{
    const struct fc_mechanism *m = &d->mechanism_facts;
    const struct fc_run_report *r = &d->report.privacy;
    snprintf(p->mechanism, sizeof p->mechanism,
             "exact exponential mechanism over ranks, ranking \"%s\"", m->ranking);
    p->privacy = (struct fc_report_privacy){
        .epsilon_unit = m->epsilon,
        .stay_near = m->stay,
        .nearest = m->nearest,
        .vocabulary = m->n_outputs,
        .documents = d->report.documents,
        .n_documents = d->report.n_documents,
        .spent = r->client.epsilon,
        .budget = d->flags->privacy.budget,
        .delta = m->delta,
        .rho = r->client.rho,
        .mechanism = p->mechanism,
        .in_clear = m->pad ? "nothing" : "the number of words of each prompt"};
    if (m->n_public)
        p->privacy.in_clear = "the number of words of each prompt, and the public words";
    p->report.privacy = &p->privacy;
}

static enum fc_code fill_examples(struct page *p, const struct fc_distill *d, struct fc_error *err)
{
    size_t n = d->flags->examples < d->train.n ? d->flags->examples : d->train.n;
    if (n == 0 || !d->inference)
        return FC_OK;
    p->examples = fc_alloc(n, sizeof *p->examples, "examples", err);
    if (!p->examples)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        struct fc_report_example *e = &p->examples[i];
        e->question = d->train.items[i].question;
        e->answer = d->train.items[i].answer;
        fc_inference_texts(d->inference, i, &e->perturbed, &e->received, &e->rationale);
    }
    p->report.examples = p->examples;
    p->report.n_examples = n;
    p->report.show_examples = true;
    return FC_OK;
}

static void fill_head(struct page *p, const struct fc_distill *d)
{
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(p->date, sizeof p->date, "%Y-%m-%d %H:%M UTC", &utc);
    snprintf(p->subtitle, sizeof p->subtitle, "%zu training examples, %zu to measure on, %s",
             d->train.n, d->dev.n, d->train.task[0] ? d->train.task : "no task name");
    fc_duration(d->seconds, p->rates[0]);
    snprintf(p->rates[1], sizeof p->rates[1], "%.0f tokens/s", server_rate(d));
    snprintf(p->rates[2], sizeof p->rates[2], "%.0f tokens/s", decode_rate(d));
    snprintf(p->rates[3], sizeof p->rates[3], "%.0f tokens/s",
             d->arms[FC_ARM_FEDCOT].tokens_per_second);
    add_fact(p, "Time", p->rates[0]);
    if (d->has_report) {
        add_fact(p, "Server", p->rates[1]);
        add_fact(p, "Decoding", p->rates[2]);
    }
    if (d->arms[FC_ARM_FEDCOT].name)
        add_fact(p, "Training", p->rates[3]);
    snprintf(p->rates[4], sizeof p->rates[4], "%s %.0fM", d->session.model.config.family,
             (double)d->session.model.params.n_weights / 1e6);
    add_fact(p, "Model", p->rates[4]);
}

enum fc_code fc_distill_report(const struct fc_distill *d, struct fc_error *err)
{
    struct page p = {.report = {.title = "FedCoT distillation"}};
    cJSON *config = fc_options_to_json(d->options, err);
    char *path = config ? fc_path_join(d->flags->output, "report.html", err) : NULL;
    enum fc_code code = path ? FC_OK : FC_ERR_MEMORY;
    fill_head(&p, d);
    fill_accuracies(&p, d);
    fill_losses(&p, d);
    if (d->has_report) {
        fill_stages(&p, d);
        fill_privacy(&p, d);
    }
    if (d->report.refused)
        p.notes[p.report.n_notes++] = "The server refused some prompts; those examples were "
                                      "trained on their labels alone.";
    if (d->arms[FC_ARM_UNPROTECTED].name)
        p.notes[p.report.n_notes++] = "The baseline \"unprotected\" sent the raw prompts to the "
                                      "server, outside any guarantee.";
    if (code == FC_OK)
        code = fill_examples(&p, d, err);
    if (code == FC_OK) {
        p.report.date = p.date;
        p.report.subtitle = p.subtitle;
        p.report.facts = p.facts;
        p.report.accuracies = p.accuracies;
        p.report.losses = p.losses;
        p.report.stages = p.stages;
        p.report.seconds = d->seconds;
        p.report.notes = p.notes;
        p.report.config = config;
        code = fc_report_write(&p.report, path, err);
    }
    free(p.examples);
    free(path);
    cJSON_Delete(config);
    return code;
}
