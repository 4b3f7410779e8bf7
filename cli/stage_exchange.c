/* Step 2, the client's side: perturbed prompts to the server, rationales back as they finish. */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/identity.h"
#include "cli/inference_private.h"
#include "cli/signals.h"

#include <sodium.h>
#include <string.h>

/* Texts that end a rationale: a blank line, or the next example of the instruction's pattern. */
static const struct fc_wire_sampling stops = {
    .top_p = 1, .stops = {"\n\n", "\nQuestion:", "\nProblem:"}, .n_stops = 3};

struct exchange {
    struct fc_inference *inf;
    struct fc_stage *stage;
    struct fc_client *client;
    struct fc_work **outstanding; /* [data->n] by index */
    double begun;
    double told; /* busy: no other line before this time */
};

/* The job's id lives in FOLDER/job.id, so that a restarted client finds its own rationales on the
 * server. */
static enum fc_code load_job_id(const char *folder, unsigned char job[FC_JOB_ID_SIZE],
                                struct fc_error *err)
{
    char hex[2 * FC_JOB_ID_SIZE + 2];
    char *path = fc_path_join(folder, "job.id", err), *text = NULL;
    size_t len = 0, bytes = 0;
    enum fc_code code = path ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK && fc_is_file(path)) {
        code = fc_file_read(path, 256, &text, &len, err);
        if (code == FC_OK &&
            (sodium_hex2bin(job, FC_JOB_ID_SIZE, text, len, "\n", &bytes, NULL) != 0 ||
             bytes != FC_JOB_ID_SIZE))
            code = fc_fail(err, FC_ERR_INPUT, "%s: expected %d hexadecimal digits", path,
                           2 * FC_JOB_ID_SIZE);
    } else if (code == FC_OK) {
        code = fc_job_id_random(job, err);
        sodium_bin2hex(hex, sizeof hex, job, FC_JOB_ID_SIZE);
        if (code == FC_OK)
            code = fc_file_write(path, hex, strlen(hex), err);
    }
    free(text);
    free(path);
    return code;
}

static bool cancelled(void *stage)
{
    return fc_signals_stop() || fc_stage_stopped(stage);
}

/* One line for each stretch of waiting that is worth a thought. */
static void busy(void *context, double seconds)
{
    struct exchange *x = context;
    double now = fc_now();
    if (now >= x->told && seconds >= 1)
        fprintf(stderr, "server: busy, asking again in %.0f s\n", seconds);
    if (now >= x->told)
        x->told = now + 10;
}

static enum fc_code open_client(struct exchange *x, struct fc_error *err)
{
    const struct fc_inference_options *o = &x->inf->options;
    struct fc_client_options how = {.address = x->inf->server,
                                    .sampling = stops,
                                    .timeout = o->timeout,
                                    .key = o->keys->own,
                                    .server_key = o->keys->own ? o->keys->server : NULL,
                                    .pad = o->keys->pad,
                                    .text = fc_perturbed_text,
                                    .may_leave = fc_perturbed_may_leave,
                                    .cancelled = cancelled,
                                    .cancel_context = x->stage,
                                    .busy = busy,
                                    .busy_context = x};
    how.sampling.max_tokens = o->max_tokens;
    how.sampling.temperature = o->temperature;
    enum fc_code code = load_job_id(x->inf->folder, how.job, err);
    if (code == FC_OK)
        code = fc_client_open(&x->client, &how, err);
    if (code != FC_OK)
        return code;
    const struct fc_identity_part model = {"server's model or instruction",
                                           fc_client_model(x->client)};
    snprintf(x->inf->report.server_model, sizeof x->inf->report.server_model, "%s", model.value);
    return fc_identity_claim(x->inf->folder, "server.json", &model, 1, true, err);
}

static enum fc_code submit(struct exchange *x, struct fc_work *work, struct fc_error *err)
{
    if (!x->client) { /* the first prompt of this run: a job that was complete needs no server */
        enum fc_code code = open_client(x, err);
        if (code != FC_OK) {
            fc_work_free(work);
            return code;
        }
        x->begun = fc_now();
    }
    x->outstanding[work->index] = work;
    enum fc_code code = fc_client_submit(x->client, work->index, x->inf->options.seed + work->index,
                                         work->prompt, err);
    fc_perturbed_free(work->prompt);
    work->prompt = NULL;
    return code;
}

static enum fc_code take_answer(struct exchange *x, const struct fc_answer *answer,
                                struct fc_error *err)
{
    struct fc_inference *inf = x->inf;
    struct fc_work *work = x->outstanding[answer->index];
    x->outstanding[answer->index] = NULL;
    inf->report.server_tokens += answer->n_tokens;
    inf->report.server_seconds = fc_now() - x->begun;
    work->refused = answer->finish == FC_ANSWER_REFUSED || answer->finish == FC_ANSWER_CANCELLED;
    inf->report.refused += work->refused;
    enum fc_code code = FC_OK;
    if (!work->refused) {
        char *text = fc_strndup(answer->text, answer->n_text, err);
        cJSON *extra = cJSON_CreateObject();
        cJSON_AddNumberToObject(extra, "n_tokens", (double)answer->n_tokens);
        cJSON_AddStringToObject(extra, "finish", fc_answer_finish_name(answer->finish));
        code = text ? fc_store_put(&inf->received, work->index, text, extra, err) : FC_ERR_MEMORY;
        free(text);
    }
    if (code == FC_OK)
        code = fc_client_ack(x->client, answer->index, err); /* it is on disk now */
    if (code == FC_OK)
        return fc_stage_put(x->stage, work, answer->n_text);
    fc_work_free(work);
    return code;
}

/* Takes what the perturb stage has, as long as the window is not full. *more: it may have more. */
static enum fc_code take_work(struct exchange *x, bool *more, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    while (code == FC_OK && *more) {
        size_t waiting = x->client ? fc_client_outstanding(x->client) : 0;
        if (waiting >= FC_EXCHANGE_WINDOW)
            break;
        void *item;
        enum fc_take take = fc_stage_take(x->stage, waiting ? 0 : -1, &item);
        if (take == FC_TAKE_NONE)
            break;
        if (take == FC_TAKE_STOPPED)
            return FC_ERR_CANCELLED;
        if (take == FC_TAKE_END) {
            *more = false;
            break;
        }
        struct fc_work *work = item;
        code = work->prompt ? submit(x, work, err) : fc_stage_put(x->stage, work, 0);
    }
    return code;
}

static enum fc_code run(struct exchange *x, struct fc_error *err)
{
    bool more = true;
    enum fc_code code = FC_OK;
    while (code == FC_OK) {
        code = take_work(x, &more, err);
        size_t waiting = x->client ? fc_client_outstanding(x->client) : 0;
        if (code != FC_OK || (!more && waiting == 0))
            break;
        if (waiting == 0)
            continue;
        struct fc_answer answer;
        bool found;
        code = fc_client_next(x->client, 0.2, &answer, &found, err);
        if (code == FC_OK && found)
            code = take_answer(x, &answer, err);
    }
    /* Every answer is on disk: a server that has gone by now takes nothing away. */
    struct fc_error gone = {0};
    if (code == FC_OK && x->client)
        fc_client_finish(x->client, &gone);
    return code;
}

enum fc_code fc_exchange_stage(struct fc_stage *stage, void *context, struct fc_error *err)
{
    struct fc_inference *inf = context;
    struct exchange x = {.inf = inf, .stage = stage};
    x.outstanding = fc_alloc(inf->data->n, sizeof(struct fc_work *), "prompts", err);
    if (!x.outstanding)
        return FC_ERR_MEMORY;
    enum fc_code code = run(&x, err);
    if (x.client) {
        struct fc_client_stats stats;
        fc_client_stats(x.client, &stats);
        inf->report.bytes_in = stats.bytes_in;
        inf->report.bytes_out = stats.bytes_out;
        inf->report.resends = stats.resends;
    }
    for (size_t i = 0; i < inf->data->n; i++)
        if (x.outstanding[i])
            fc_work_free(x.outstanding[i]);
    free(x.outstanding);
    fc_client_close(x.client);
    return code;
}
