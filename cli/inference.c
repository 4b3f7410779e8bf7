#define _POSIX_C_SOURCE 200809L
#include "cli/inference_private.h"

#include "base/file.h"
#include "base/memory.h"
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

enum fc_code fc_render_private(const struct fc_inference *inf, size_t index, struct fc_text *text,
                               struct fc_error *err)
{
    const struct fc_example *e = &inf->data->items[index];
    struct fc_text choices = {0};
    enum fc_code code = fc_join_choices(e, &choices, err);
    const char *const values[] = {e->question, choices.data};
    if (code == FC_OK)
        code = fc_template_render(inf->templates->perturb, values, text, err);
    fc_text_free(&choices);
    return code;
}

/* Whether the budget covers the whole job: asked before anything is perturbed. */
static enum fc_code check_budget(struct fc_inference *inf, struct fc_error *err)
{
    size_t n = inf->data->n;
    struct fc_private_text *texts = fc_alloc(n, sizeof *texts, "texts", err);
    struct fc_text *rendered = fc_alloc(n, sizeof *rendered, "texts", err);
    enum fc_code code = texts && rendered ? FC_OK : FC_ERR_MEMORY;
    for (size_t i = 0; i < n && code == FC_OK; i++) {
        code = fc_render_private(inf, i, &rendered[i], err);
        texts[i] =
            (struct fc_private_text){inf->data->items[i].id, rendered[i].data, rendered[i].len};
    }
    if (code == FC_OK) {
        struct fc_run_report plan;
        code = fc_perturber_plan(inf->perturber, inf->options.ledger, texts, n, &plan, err);
        fprintf(stderr,
                "privacy: %llu words to draw in %zu texts (%zu already paid for), the longest "
                "costs epsilon %.1f\n",
                (unsigned long long)plan.draws, plan.texts, plan.resent, plan.document.epsilon);
    }
    for (size_t i = 0; rendered && i < n; i++)
        fc_text_free(&rendered[i]);
    free(rendered);
    free(texts);
    return code;
}

/* The ranking reads embeddings while the decode stage computes: on a stream of its own, over the
 * same weights. */
static enum fc_code open_perturber(struct fc_inference *inf, struct fc_error *err)
{
    const struct fc_session *s = inf->session;
    if (!inf->options.perturber)
        return FC_OK;
    enum fc_code code = fc_device_open(&inf->perturb_device, s->dev.name, 0, err);
    if (code != FC_OK)
        return code;
    inf->perturb_model = s->model;
    inf->perturb_model.dev = &inf->perturb_device;
    code = fc_perturber_open(&inf->perturber, &inf->perturb_model, s->tok, inf->options.perturber,
                             err);
    return code == FC_OK ? check_budget(inf, err) : code;
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
    return fc_pipeline_start(&inf->pipeline, stages, FC_STAGES, NULL, err);
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

/* Waits a moment for news; whether the example is there. */
static unsigned char look(struct fc_inference *inf, size_t index, size_t *n_ready)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&inf->lock);
    if (!inf->ready[index])
        pthread_cond_timedwait(&inf->changed, &inf->lock, &until);
    unsigned char ready = inf->ready[index];
    *n_ready = inf->n_ready;
    pthread_mutex_unlock(&inf->lock);
    return ready;
}

enum fc_code fc_inference_wait(struct fc_inference *inf, size_t index, const char **text,
                               struct fc_error *err)
{
    struct fc_progress progress;
    struct fc_stage_stats last;
    size_t n_ready;
    unsigned char ready = look(inf, index, &n_ready);
    enum fc_code code = FC_OK;
    if (!ready) {
        fc_progress_begin(&progress, stderr, "rationales", "texts", inf->data->n);
        while (!ready && code == FC_OK) {
            fc_pipeline_stats(inf->pipeline, FC_STAGE_COLLECT, &last);
            ready = look(inf, index, &n_ready);
            fc_progress_update(&progress, n_ready, NULL);
            if (!ready && last.ended)
                code = join(inf, err);
            if (!ready && last.ended && code == FC_OK)
                code = fc_fail(err, FC_ERR_INTERNAL, "the pipeline ended without a rationale");
            if (code == FC_OK)
                code = fc_signals_check(err);
        }
        fc_progress_end(&progress);
    }
    *text = ready == 1 ? inf->decoded.texts[index] : NULL;
    return code;
}

enum fc_code fc_inference_finish(struct fc_inference *inf, struct fc_inference_report *report,
                                 struct fc_error *err)
{
    enum fc_code code = join(inf, err);
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
