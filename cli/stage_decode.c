/* Step 3: the client's own model reads the raw prompt, the perturbed prompt and the rationale that
 * came back, and writes one that fits. Nothing of it leaves. */
#include "base/memory.h"
#include "cli/inference_private.h"
#include "engine/generate.h"

#include <string.h>

struct decode {
    struct fc_inference *inf;
    struct fc_stage *stage;
    struct fc_generator *generator;
    struct fc_work **running;      /* [data->n] by index */
    size_t n_running, most_tokens; /* of a prompt and its answer */
    struct fc_tokens tokens;
    struct fc_text text;
    enum fc_code code; /* of a completion */
    struct fc_error *err;
};

/* A text without the blanks around it, in place. */
static char *trim(char *text)
{
    text += strspn(text, " \t\r\n");
    size_t len = strlen(text);
    while (len && strchr(" \t\r\n", text[len - 1]))
        text[--len] = '\0';
    return text;
}

static void finish(struct decode *d, struct fc_work *work, const char *text, size_t len,
                   size_t n_tokens)
{
    struct fc_inference *inf = d->inf;
    char *copy = fc_strndup(text, len, d->err);
    cJSON *extra = cJSON_CreateObject();
    cJSON_AddNumberToObject(extra, "n_tokens", (double)n_tokens);
    if (!copy) {
        d->code = FC_ERR_MEMORY;
        cJSON_Delete(extra);
    } else if (!inf->decoded.texts[work->index]) {
        d->code = fc_store_put(&inf->decoded, work->index, trim(copy), extra, d->err);
    } else {
        cJSON_Delete(extra);
    }
    free(copy);
    if (d->code == FC_OK)
        d->code = fc_stage_put(d->stage, work, len);
    else
        fc_work_free(work);
}

static void on_result(void *context, const struct fc_result *result)
{
    struct decode *d = context;
    struct fc_work *work = d->running[result->id];
    d->running[result->id] = NULL;
    d->n_running--;
    d->inf->report.decoded_tokens += result->n_tokens;
    if (result->finish == FC_FINISH_FAILED)
        d->code = fc_fail(d->err, FC_ERR_MEMORY, "out of memory for a rationale");
    if (d->code == FC_OK)
        finish(d, work, result->text, result->n_text, result->n_tokens);
    else
        fc_work_free(work);
}

/* decode(question, choices, perturbed, rationale) as a user's message. */
static enum fc_code encode(struct decode *d, size_t index, struct fc_error *err)
{
    struct fc_inference *inf = d->inf;
    const struct fc_example *e = &inf->data->items[index];
    struct fc_text choices = {0};
    enum fc_code code = fc_join_choices(e, &choices, err);
    const char *const values[] = {e->question, choices.data, inf->perturbed.texts[index],
                                  inf->received.texts[index]};
    fc_text_clear(&d->text);
    d->tokens.n = 0;
    if (code == FC_OK)
        code = fc_template_render(inf->templates->decode, values, &d->text, err);
    if (code == FC_OK) {
        const struct fc_message message = {FC_ROLE_USER, d->text.data, d->text.len};
        code = fc_chat_encode(inf->session->tok, inf->session->chat, &message, 1, true, &d->tokens,
                              err);
    }
    fc_text_free(&choices);
    return code;
}

/* The server's rationale as it is: without --decode, or where the prompt does not fit. */
static enum fc_code pass_unchanged(struct decode *d, struct fc_work *work)
{
    const char *text = d->inf->received.texts[work->index];
    finish(d, work, text, strlen(text), 0);
    return d->code;
}

static enum fc_code submit(struct decode *d, struct fc_work *work, struct fc_error *err)
{
    static const char *const stops[] = {"\n\n"};
    enum fc_code code = encode(d, work->index, err);
    if (code != FC_OK) {
        fc_work_free(work);
        return code;
    }
    if (d->tokens.n + d->inf->options.max_tokens > d->most_tokens)
        return pass_unchanged(d, work);
    const struct fc_request request = {.id = work->index,
                                       .prompt = d->tokens.ids,
                                       .n_prompt = d->tokens.n,
                                       .max_tokens = d->inf->options.max_tokens,
                                       .top_p = 1,
                                       .seed = d->inf->options.seed + work->index,
                                       .stops = stops,
                                       .n_stops = 1};
    d->running[work->index] = work;
    d->n_running++;
    return fc_generator_submit(d->generator, &request, err);
}

/* What needs no decoding passes: it was decoded before a restart, refused, or is not wanted. */
static enum fc_code take(struct decode *d, struct fc_work *work, struct fc_error *err)
{
    struct fc_inference *inf = d->inf;
    if (work->refused || inf->decoded.texts[work->index])
        return fc_stage_put(d->stage, work, 0);
    return d->generator ? submit(d, work, err) : pass_unchanged(d, work);
}

static enum fc_code run(struct decode *d, struct fc_error *err)
{
    bool more = true, busy;
    enum fc_code code = FC_OK;
    while (code == FC_OK && (more || d->n_running)) {
        while (code == FC_OK && more && d->n_running < FC_DECODE_WINDOW) {
            void *item;
            enum fc_take got = fc_stage_take(d->stage, d->n_running ? 0 : -1, &item);
            if (got == FC_TAKE_STOPPED)
                return FC_ERR_CANCELLED;
            if (got == FC_TAKE_NONE)
                break;
            if (got == FC_TAKE_END)
                more = false;
            else
                code = take(d, item, err);
        }
        if (code == FC_OK && d->n_running) {
            code = fc_generator_step(d->generator, on_result, d, &busy, err);
            code = code == FC_OK ? d->code : code;
        }
        if (fc_stage_stopped(d->stage))
            return FC_ERR_CANCELLED;
    }
    return code;
}

enum fc_code fc_decode_stage(struct fc_stage *stage, void *context, struct fc_error *err)
{
    struct fc_inference *inf = context;
    struct decode d = {.inf = inf, .stage = stage, .err = err};
    d.running = fc_alloc(inf->data->n, sizeof(struct fc_work *), "rationales", err);
    enum fc_code code = d.running ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK && inf->options.decode) {
        int32_t end = fc_chat_end(inf->session->tok, inf->session->chat);
        const struct fc_generator_options how = {.end_tokens = &end, .n_end_tokens = end >= 0};
        size_t n_ctx = inf->session->model.n_ctx;
        d.most_tokens = n_ctx < FC_DECODE_MOST ? n_ctx : FC_DECODE_MOST;
        code =
            fc_generator_create(&d.generator, &inf->session->model, inf->session->tok, &how, err);
    }
    if (code == FC_OK)
        code = run(&d, err);
    if (d.generator) {
        struct fc_generator_stats stats;
        fc_generator_stats(d.generator, &stats);
        inf->report.decode_seconds = stats.seconds;
    }
    for (size_t i = 0; d.running && i < inf->data->n; i++)
        if (d.running[i])
            fc_work_free(d.running[i]);
    free(d.running);
    fc_generator_free(d.generator);
    fc_tokens_free(&d.tokens);
    fc_text_free(&d.text);
    return code;
}
