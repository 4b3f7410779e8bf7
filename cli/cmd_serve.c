#define _POSIX_C_SOURCE 200809L /* SIGUSR1 */
#include "base/clock.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/metrics.h"
#include "cli/serve_flags.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "engine/generate.h"
#include "models/template.h"
#include "net/server.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

/* The server's items as the generator's requests. */
struct service {
    struct fc_session session;
    struct fc_task_templates templates;
    struct fc_generator *generator;
    struct fc_server *server;
    struct fc_keys keys;
    struct fc_tokens tokens; /* scratch of submit */
    struct fc_text text;
    struct fc_error error; /* of a completion */
};

/* instruct(perturbed) as a user's message, in the model's chat format. */
static enum fc_code encode(struct service *v, const struct fc_ask *ask, struct fc_error *err)
{
    const char *const values[] = {ask->text};
    fc_text_clear(&v->text);
    v->tokens.n = 0;
    enum fc_code code = fc_template_render(v->templates.instruct, values, &v->text, err);
    if (code != FC_OK)
        return code;
    const struct fc_message message = {FC_ROLE_USER, v->text.data, v->text.len};
    return fc_chat_encode(v->session.tok, v->session.chat, &message, 1, true, &v->tokens, err);
}

static enum fc_code submit(void *context, const struct fc_ask *ask, struct fc_error *err)
{
    struct service *v = context;
    enum fc_code code = encode(v, ask, err);
    if (code != FC_OK)
        return code;
    const struct fc_wire_sampling *how = ask->sampling;
    const struct fc_request request = {.id = ask->id,
                                       .prompt = v->tokens.ids,
                                       .n_prompt = v->tokens.n,
                                       .max_tokens = how->max_tokens,
                                       .temperature = (float)how->temperature,
                                       .top_k = (uint32_t)how->top_k,
                                       .top_p = (float)how->top_p,
                                       .seed = ask->seed,
                                       .stops = how->stops,
                                       .n_stops = how->n_stops};
    return fc_generator_submit(v->generator, &request, err);
}

static void cancel(void *context, uint64_t id)
{
    struct service *v = context;
    fc_generator_cancel(v->generator, id);
}

static void on_result(void *context, const struct fc_result *result)
{
    static const enum fc_answer_finish finishes[] = {
        [FC_FINISH_STOP] = FC_ANSWER_STOP,
        [FC_FINISH_LENGTH] = FC_ANSWER_LENGTH,
        [FC_FINISH_CANCELLED] = FC_ANSWER_CANCELLED,
        [FC_FINISH_FAILED] = FC_ANSWER_CANCELLED,
    };
    struct service *v = context;
    fc_server_complete(v->server, result->id, result->text, result->n_text, result->n_tokens,
                       finishes[result->finish], &v->error);
}

/* A list that cannot be read leaves the one that is in force. */
static void reload(struct service *v)
{
    struct fc_error wrong = {0};
    if (fc_server_reload(v->server, &wrong) == FC_OK)
        fprintf(stderr, "serve: read the list of clients again\n");
    else
        fprintf(stderr, "serve: %s; the list read before stays in force\n", wrong.text);
}

/* One line every ten seconds in which something was done. */
static void show(const struct service *v, double *shown, uint64_t *tokens)
{
    struct fc_generator_stats g;
    struct fc_server_stats s;
    double now = fc_now();
    fc_generator_stats(v->generator, &g);
    if (now - *shown < 10)
        return;
    if (g.decoded_tokens != *tokens) {
        fc_server_stats(v->server, &s);
        fprintf(stderr,
                "serve: %zu jobs, %zu waiting, %zu running, %.0f tokens/s, %llu answers begun\n",
                s.jobs, s.waiting, s.running, (double)(g.decoded_tokens - *tokens) / (now - *shown),
                (unsigned long long)s.submitted);
    }
    *shown = now;
    *tokens = g.decoded_tokens;
}

/* For SIGUSR1. */
static void show_status(const struct service *v)
{
    struct fc_status status;
    struct fc_text line = {0};
    fc_server_status(v->server, &status);
    fc_status_line(&line, &status);
    if (!line.failed)
        fprintf(stderr, "serve: %s\n", line.data);
    fc_text_free(&line);
}

static void notice(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "serve: %s\n", text);
}

/* Whether the server may end: it was asked to, and has finished what ran. */
static bool is_over(struct service *v, double drain, bool *draining)
{
    if (!fc_signals_stop())
        return false;
    if (!*draining) {
        struct fc_server_stats s;
        fc_server_stats(v->server, &s);
        fprintf(stderr,
                "serve: draining: %zu running may take %.0f s; a second signal ends at once\n",
                s.running, drain);
        fc_server_drain(v->server, drain);
        *draining = true;
    }
    return fc_server_is_drained(v->server);
}

static enum fc_code serve(struct service *v, double drain, struct fc_error *err)
{
    bool busy = false, draining = false;
    double shown = fc_now();
    uint64_t tokens = 0;
    enum fc_code code = FC_OK;
    while (code == FC_OK && !is_over(v, drain, &draining)) {
        if (v->keys.own && fc_signals_take(SIGHUP))
            reload(v);
        code = fc_server_poll(v->server, busy ? 0 : 0.1, err);
        if (fc_signals_take(SIGUSR1))
            show_status(v);
        if (code == FC_OK)
            code = fc_generator_step(v->generator, on_result, v, &busy, err);
        if (code == FC_OK && v->error.code != FC_OK)
            code = fc_fail(err, v->error.code, "%s", v->error.text);
        show(v, &shown, &tokens);
    }
    /* What finished last is told to clients that wait for it. */
    return code == FC_OK ? fc_server_poll(v->server, 0.1, err) : code;
}

static cJSON *summarize(const struct service *v, struct fc_error *err)
{
    struct fc_generator_stats g;
    struct fc_server_stats s;
    fc_generator_stats(v->generator, &g);
    fc_server_stats(v->server, &s);
    const struct fc_metric figures[] = {
        {"answers", (double)s.submitted},           {"duplicates", (double)s.duplicates},
        {"refused_frames", (double)s.refused},      {"prompt_tokens", (double)g.prompt_tokens},
        {"cached_tokens", (double)g.cached_tokens}, {"decoded_tokens", (double)g.decoded_tokens},
        {"seconds_generating", g.seconds},          {"bytes_in", (double)s.bytes_in},
        {"bytes_out", (double)s.bytes_out},         {"uptime", s.uptime},
        {"handshakes", (double)s.gate.handshakes},  {"refused_packets", (double)s.gate.refused},
        {"dropped_packets", (double)s.gate.dropped}};
    return fc_metrics_object("command", "serve", figures, sizeof figures / sizeof figures[0], err);
}

/* Everything but the server's socket. */
static enum fc_code prepare(struct service *v, const struct fc_serve_flags *f, struct fc_error *err)
{
    struct fc_session *s = &v->session;
    enum fc_code code = fc_task_templates_open(&v->templates, f->task == 0, f->templates, err);
    if (code == FC_OK)
        code = fc_session_open(s, &f->model, &f->compute, 0, f->keep_quantised, err);
    if (code == FC_OK)
        code = fc_session_chat(s, err);
    if (code == FC_OK)
        code = fc_model_pack(&s->model, err);
    if (code != FC_OK)
        return code;
    int32_t end = fc_chat_end(s->tok, s->chat);
    const struct fc_generator_options how = {.max_batch = f->batch.max_batch,
                                             .cache_tokens = f->batch.cache_tokens,
                                             .end_tokens = &end,
                                             .n_end_tokens = end >= 0};
    return fc_generator_create(&v->generator, &s->model, s->tok, &how, err);
}

/* The instruction is part of what decides an answer. */
static enum fc_code fingerprint(struct service *v, char text[FC_FINGERPRINT_SIZE],
                                struct fc_error *err)
{
    static const char *const values[] = {"{{perturbed}}"};
    fc_text_clear(&v->text);
    enum fc_code code = fc_template_render(v->templates.instruct, values, &v->text, err);
    return code == FC_OK ? fc_session_fingerprint(&v->session, v->text.data, text, err) : code;
}

/* Every connection takes one: as many as the system allows. Fewer are no error. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

enum fc_code fc_cmd_serve(int argc, char **argv, struct fc_error *err)
{
    struct fc_serve_flags flags;
    struct fc_options options = {0};
    struct service v = {0};
    char model[FC_FINGERPRINT_SIZE];
    enum fc_code code = fc_options_parse(&options, &fc_serve_spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    raise_descriptors();
    fc_signals_catch();
    fc_signals_catch_request(SIGUSR1);
    code = fc_keys_open_server(&v.keys, &flags.keys, err);
    if (code == FC_OK && v.keys.own)
        fc_signals_catch_request(SIGHUP);
    if (code == FC_OK)
        code = prepare(&v, &flags, err);
    if (code == FC_OK)
        code = fc_session_record(&options, NULL, err);
    if (code == FC_OK)
        code = fingerprint(&v, model, err);
    if (code != FC_OK)
        goto cleanup;
    const struct fc_gate_options gate = {
        .key = v.keys.own, .clients = flags.keys.clients, .pad = v.keys.pad};
    const struct fc_server_options how = {.address = flags.listen,
                                          .gate = gate,
                                          .model = model,
                                          .name = "fedcot " FEDCOT_VERSION,
                                          .window = 2 * flags.batch.max_batch,
                                          .limits = {.max_tokens = flags.max_tokens},
                                          .max_jobs = flags.max_jobs,
                                          .max_items = flags.max_items,
                                          .max_bytes = flags.queue_bytes,
                                          .max_age = flags.state ? flags.state_age
                                                                 : fmin(flags.state_age, 3600),
                                          .state = flags.state,
                                          .state_bytes = flags.state_bytes,
                                          .notice = notice};
    const struct fc_server_handler handler = {&v, submit, cancel};
    code = fc_server_open(&v.server, &how, &handler, err);
    if (code != FC_OK)
        goto cleanup;
    fc_device_print_memory(&v.session.dev, stderr);
    printf("ready %s\n", flags.listen);
    fflush(stdout);
    code = serve(&v, flags.drain, err);
    if (code == FC_OK)
        code = fc_print_summary(&options, summarize(&v, err), err);
cleanup:
    fc_server_close(v.server);
    fc_keys_close(&v.keys);
    fc_generator_free(v.generator);
    fc_session_close(&v.session);
    fc_task_templates_free(&v.templates);
    fc_tokens_free(&v.tokens);
    fc_text_free(&v.text);
    fc_options_free(&options);
    return code;
}
