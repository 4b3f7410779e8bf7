#define _POSIX_C_SOURCE 200809L
#include "cli/inference_private.h"

#include "base/file.h"
#include "base/memory.h"
#include "cli/identity.h"
#include "cli/privacy_flags.h"
#include "cli/signals.h"

#include <string.h>
#include <time.h>

void fc_work_free(void *item)
{
    struct fc_work *work = item;
    fc_perturbed_free(work->prompt);
    free(work);
}

static enum fc_code open_store(struct fc_store *store, const struct fc_inference *inf,
                               const char *name, const char *field, struct fc_error *err)
{
    char *path = fc_path_join(inf->folder, name, err);
    enum fc_code code = path ? fc_store_open(store, path, field, inf->data, err) : FC_ERR_MEMORY;
    free(path);
    return code;
}

/* ---- whose texts the folder holds --------------------------------------------------------- */

static void hash_data(const struct fc_dataset *data, char value[FC_IDENTITY_SIZE])
{
    struct fc_identity_hash h;
    fc_identity_hash_begin(&h);
    for (size_t i = 0; i < data->n; i++) {
        const struct fc_example *e = &data->items[i];
        fc_identity_hash_add(&h, e->id);
        fc_identity_hash_add(&h, e->question);
        for (size_t j = 0; j < e->n_choices; j++)
            fc_identity_hash_add(&h, e->choices[j]);
        fc_identity_hash_add(&h, NULL); /* no choice is empty: here they end */
    }
    fc_identity_hash_end(&h, value);
}

/* Of the templates that make texts here; the server's is in the name of its model. */
static enum fc_code hash_templates(const struct fc_task_templates *t, char value[FC_IDENTITY_SIZE],
                                   struct fc_error *err)
{
    static const char *const fields[] = {"{{question}}", "{{choices}}", "{{perturbed}}",
                                         "{{rationale}}"};
    const struct fc_template *const both[] = {t->perturb, t->decode};
    struct fc_identity_hash h;
    enum fc_code code = FC_OK;
    fc_identity_hash_begin(&h);
    for (size_t i = 0; i < 2 && code == FC_OK; i++) {
        struct fc_text text = {0};
        code = fc_template_render(both[i], fields, &text, err);
        fc_identity_hash_add(&h, text.data);
        fc_text_free(&text);
    }
    fc_identity_hash_end(&h, value);
    return code;
}

/* Refuses a folder that holds the texts of another job. */
static enum fc_code claim_folder(struct fc_inference *inf, struct fc_error *err)
{
    const struct fc_inference_options *o = &inf->options;
    struct fc_mechanism mechanism = {.hash = "none"};
    char data[FC_IDENTITY_SIZE], templates[FC_IDENTITY_SIZE], model[FC_FINGERPRINT_SIZE];
    char tokens[32], temperature[32], seed[32];
    if (inf->perturber)
        fc_perturber_mechanism(inf->perturber, &mechanism);
    hash_data(inf->data, data);
    snprintf(tokens, sizeof tokens, "%zu", o->max_tokens);
    snprintf(temperature, sizeof temperature, "%.17g", o->temperature);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
    enum fc_code code = hash_templates(inf->templates, templates, err);
    if (code == FC_OK)
        code = fc_session_fingerprint(inf->session, NULL, model, err);
    const struct fc_identity_part parts[] = {{"training data", data},
                                             {"epsilon or other privacy flag", mechanism.hash},
                                             {"set of templates", templates},
                                             {"--decode", o->decode ? "yes" : "no"},
                                             {"model, dtype or chat format", model},
                                             {"--rationale-tokens", tokens},
                                             {"--temperature", temperature},
                                             {"--seed", seed}};
    bool is_empty = inf->perturbed.n + inf->received.n + inf->decoded.n == 0;
    return code == FC_OK ? fc_identity_claim(inf->folder, "identity.json", parts,
                                             sizeof parts / sizeof parts[0], is_empty, err)
                         : code;
}

/* ---- start -------------------------------------------------------------------------------- */

/* Whether the budget covers the whole job: asked before anything is perturbed. */
static enum fc_code check_budget(struct fc_inference *inf, struct fc_error *err)
{
    struct fc_private_texts texts;
    struct fc_run_report plan = {0};
    enum fc_code code =
        fc_private_texts_render(&texts, inf->data, inf->templates, NULL, inf->data->n, err);
    if (code == FC_OK)
        code = fc_perturber_plan(inf->perturber, inf->options.ledger, texts.items, texts.n, &plan,
                                 err);
    if (code == FC_OK || code == FC_ERR_BUDGET)
        fprintf(stderr,
                "privacy: %llu words to draw in %zu texts (%zu already paid for), the longest "
                "costs epsilon %.1f\n",
                (unsigned long long)plan.draws, plan.texts, plan.resent, plan.document.epsilon);
    fc_private_texts_free(&texts);
    return code;
}

/* The ranking reads embeddings while the decode stage computes: on a stream of its own, over the
 * same weights. */
static enum fc_code open_perturber(struct fc_inference *inf, struct fc_error *err)
{
    const struct fc_session *s = inf->session;
    if (!inf->options.perturber)
        return FC_OK;
    enum fc_code code =
        fc_device_open(&inf->perturb_device, s->dev.name, inf->options.threads, err);
    if (code != FC_OK)
        return code;
    inf->perturb_model = s->model;
    inf->perturb_model.dev = &inf->perturb_device;
    return fc_perturber_open(&inf->perturber, &inf->perturb_model, s->tok, inf->options.perturber,
                             err);
}

static enum fc_code collect(struct fc_stage *stage, void *context, void *item, struct fc_error *err)
{
    (void)stage;
    (void)err;
    struct fc_inference *inf = context;
    const struct fc_work *work = item;
    pthread_mutex_lock(&inf->lock);
    inf->ready[work->index] = work->refused ? 2 : 1;
    inf->n_ready++;
    pthread_cond_broadcast(&inf->changed);
    pthread_mutex_unlock(&inf->lock);
    fc_work_free(item);
    return FC_OK;
}

static enum fc_code start(struct fc_inference *inf, struct fc_error *err)
{
    const struct fc_stage_spec stages[FC_STAGES] = {
        [FC_STAGE_PERTURB] = {.name = "perturb",
                              .run = fc_perturb_stage,
                              .context = inf,
                              .capacity = 2 * FC_PERTURB_BATCH,
                              .destroy = fc_work_free},
        [FC_STAGE_EXCHANGE] = {.name = "exchange",
                               .run = fc_exchange_stage,
                               .context = inf,
                               .capacity = FC_EXCHANGE_WINDOW,
                               .destroy = fc_work_free},
        [FC_STAGE_DECODE] = {.name = "decode",
                             .run = fc_decode_stage,
                             .context = inf,
                             .capacity = FC_DECODE_WINDOW,
                             .destroy = fc_work_free},
        [FC_STAGE_COLLECT] = {.name = "collect",
                              .process = collect,
                              .context = inf,
                              .capacity = 1,
                              .destroy = fc_work_free},
    };
    return fc_pipeline_start(&inf->pipeline, stages, FC_STAGES, fc_signals_flag(), err);
}

enum fc_code fc_inference_start(struct fc_inference **out, struct fc_session *session,
                                const struct fc_task_templates *templates,
                                const struct fc_dataset *data, const size_t *order,
                                const struct fc_inference_options *options, struct fc_error *err)
{
    *out = NULL;
    struct fc_inference *inf = fc_alloc(1, sizeof *inf, "inference", err);
    if (!inf)
        return FC_ERR_MEMORY;
    inf->session = session;
    inf->templates = templates;
    inf->data = data;
    inf->order = order;
    inf->options = *options;
    pthread_mutex_init(&inf->lock, NULL);
    pthread_cond_init(&inf->changed, NULL);
    inf->folder = fc_strndup(options->folder, strlen(options->folder), err);
    inf->server = fc_strndup(options->server, strlen(options->server), err);
    inf->ready = fc_alloc(data->n, 1, "rationales", err);
    inf->report.documents = fc_alloc(data->n, sizeof(double), "documents", err);
    enum fc_code code =
        inf->folder && inf->server && inf->ready && inf->report.documents ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = open_store(&inf->perturbed, inf, "perturbed.jsonl", "prompt", err);
    if (code == FC_OK)
        code = open_store(&inf->received, inf, "received.jsonl", "text", err);
    if (code == FC_OK)
        code = open_store(&inf->decoded, inf, "rationales.jsonl", "text", err);
    if (code == FC_OK)
        code = open_perturber(inf, err);
    inf->options.perturber = NULL; /* it was the caller's */
    if (code == FC_OK)
        code = claim_folder(inf, err);
    if (code == FC_OK && inf->perturber)
        code = check_budget(inf, err);
    if (code == FC_OK)
        code = start(inf, err);
    if (code != FC_OK)
        fc_inference_free(inf);
    else
        *out = inf;
    return code;
}

static enum fc_code join(struct fc_inference *inf, struct fc_error *err)
{
    if (!inf->joined) {
        inf->code = fc_pipeline_join(inf->pipeline, &inf->error);
        inf->joined = true;
    }
    return inf->code == FC_OK ? FC_OK : fc_fail(err, inf->code, "%s", inf->error.text);
}

/* Waits a moment for news. Whether example `index` is there, as in inf->ready; index data->n asks
 * whether all are. */
static unsigned char look(struct fc_inference *inf, size_t index, size_t *n_ready)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    bool all = index == inf->data->n;
    pthread_mutex_lock(&inf->lock);
    if (!(all ? inf->n_ready == inf->data->n : inf->ready[index]))
        pthread_cond_timedwait(&inf->changed, &inf->lock, &until);
    unsigned char ready = all ? inf->n_ready == inf->data->n : inf->ready[index];
    *n_ready = inf->n_ready;
    pthread_mutex_unlock(&inf->lock);
    return ready;
}

/* Waits with progress until look says yes, or the pipeline has ended: *ready says which. */
static enum fc_code wait_for(struct fc_inference *inf, size_t index, unsigned char *ready,
                             struct fc_error *err)
{
    struct fc_progress progress;
    struct fc_stage_stats last = {0};
    size_t n_ready;
    enum fc_code code = FC_OK;
    *ready = look(inf, index, &n_ready);
    if (*ready)
        return FC_OK;
    fc_progress_begin(&progress, stderr, "rationales", "texts", inf->data->n);
    while (!*ready && !last.ended && code == FC_OK) {
        fc_pipeline_stats(inf->pipeline, FC_STAGE_COLLECT, &last); /* before the look, not after */
        *ready = look(inf, index, &n_ready);
        fc_progress_update(&progress, n_ready, NULL);
        code = fc_signals_check(err);
    }
    fc_progress_end(&progress);
    return code;
}

enum fc_code fc_inference_wait(struct fc_inference *inf, size_t index, const char **text,
                               struct fc_error *err)
{
    unsigned char ready;
    enum fc_code code = wait_for(inf, index, &ready, err);
    if (code == FC_OK && !ready)
        code = join(inf, err);
    if (code == FC_OK && !ready)
        code = fc_fail(err, FC_ERR_INTERNAL, "the pipeline ended without a rationale");
    *text = ready == 1 ? inf->decoded.texts[index] : NULL;
    return code;
}

enum fc_code fc_inference_check(struct fc_inference *inf, struct fc_error *err)
{
    struct fc_stage_stats last;
    fc_pipeline_stats(inf->pipeline, FC_STAGE_COLLECT, &last);
    return last.ended ? join(inf, err) : FC_OK;
}

enum fc_code fc_inference_finish(struct fc_inference *inf, struct fc_inference_report *report,
                                 struct fc_error *err)
{
    unsigned char all;
    enum fc_code code = inf->joined ? FC_OK : wait_for(inf, inf->data->n, &all, err);
    if (code == FC_OK)
        code = join(inf, err);
    for (size_t i = 0; i < FC_STAGES; i++)
        fc_pipeline_stats(inf->pipeline, i, &inf->report.stages[i]);
    *report = inf->report;
    return code;
}

void fc_inference_texts(const struct fc_inference *inf, size_t index, const char **perturbed,
                        const char **received, const char **rationale)
{
    *perturbed = inf->perturbed.texts[index];
    *received = inf->received.texts[index];
    *rationale = inf->decoded.texts[index];
}

const struct fc_perturber *fc_inference_perturber(const struct fc_inference *inf)
{
    return inf->perturber;
}

void fc_inference_free(struct fc_inference *inf)
{
    if (!inf)
        return;
    fc_pipeline_free(inf->pipeline);
    fc_perturber_close(inf->perturber);
    fc_device_close(&inf->perturb_device);
    fc_store_close(&inf->perturbed);
    fc_store_close(&inf->received);
    fc_store_close(&inf->decoded);
    pthread_mutex_destroy(&inf->lock);
    pthread_cond_destroy(&inf->changed);
    free(inf->report.documents);
    free(inf->ready);
    free(inf->folder);
    free(inf->server);
    free(inf);
}
