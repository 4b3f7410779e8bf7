#define _GNU_SOURCE /* sysconf */
#include "net/server_private.h"

#include "base/clock.h"
#include "net/address.h"
#include "net/frame.h"

#include <errno.h>
#include <math.h>
#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#define RATE_WINDOW 5.0     /* seconds */
#define FRAMES_PER_POLL 256 /* so that a flood of messages cannot stop generation */

/* ---- the socket ---- */

/* The one place where bytes leave. */
static void send_bytes(struct fc_server *s, const void *data, size_t len, struct fc_route *route)
{
    struct nn_iovec part = {(void *)data, len};
    struct nn_msghdr message = {.msg_iov = &part,
                                .msg_iovlen = 1,
                                .msg_control = route->control,
                                .msg_controllen = route->len};
    if (nn_sendmsg(s->socket, &message, NN_DONTWAIT) >= 0) {
        s->stats.frames_out++;
        s->stats.bytes_out += len;
    }
}

enum fc_code fc_server_send(struct fc_server *s, const struct fc_text *frame,
                            struct fc_route *route, struct fc_error *err)
{
    bool sealed = false;
    if (!route->session) {
        send_bytes(s, frame->data, frame->len, route);
        return FC_OK;
    }
    enum fc_code code =
        fc_gate_seal(s->gate, route->session, frame->data, frame->len, &s->sealed, &sealed, err);
    if (code == FC_OK && sealed)
        send_bytes(s, s->sealed.data, s->sealed.len, route);
    return code;
}

/* Through the gate, if there is one, to whoever serves. */
static enum fc_code take(struct fc_server *s, void *data, size_t len, struct fc_route *route,
                         struct fc_error *err)
{
    struct fc_gate_result r;
    if (!s->gate)
        return fc_server_serve(s, data, len, &fc_client_anonymous, route, err);
    switch (fc_gate_receive(s->gate, fc_now(), data, len, &r)) {
    case FC_GATE_FRAME:
        route->session = r.session;
        return fc_server_serve(s, r.frame, r.n_frame, r.identity, route, err);
    case FC_GATE_REPLY:
        send_bytes(s, r.reply, r.n_reply, route);
        return FC_OK;
    case FC_GATE_CLEAR:
        return fc_server_refuse_clear(s, route);
    default:
        return FC_OK;
    }
}

static enum fc_code receive_one(struct fc_server *s, bool *found, struct fc_error *err)
{
    void *data = NULL;
    struct fc_route route = {0};
    struct nn_iovec part = {&data, NN_MSG};
    struct nn_msghdr message = {.msg_iov = &part,
                                .msg_iovlen = 1,
                                .msg_control = route.control,
                                .msg_controllen = sizeof route.control};
    int n = nn_recvmsg(s->socket, &message, NN_DONTWAIT);
    *found = n >= 0;
    if (n < 0) {
        int why = nn_errno();
        return why == EAGAIN || why == EINTR || why == ETIMEDOUT
                   ? FC_OK
                   : fc_fail(err, FC_ERR_NETWORK, "server: cannot receive: %s", nn_strerror(why));
    }
    struct nn_cmsghdr control;
    memcpy(&control, route.control, sizeof control);
    enum fc_code code = FC_OK;
    /* No header: it came over more hops than fit. There is no way back, so nothing to do. */
    if (control.cmsg_len && control.cmsg_len <= sizeof route.control &&
        control.cmsg_level == PROTO_SP && control.cmsg_type == SP_HDR) {
        route.len = control.cmsg_len;
        code = take(s, data, (size_t)n, &route, err);
    }
    nn_freemsg(data);
    return code;
}

static enum fc_code receive_all(struct fc_server *s, size_t *frames, struct fc_error *err)
{
    bool found = true;
    for (*frames = 0; found && *frames < FRAMES_PER_POLL; *frames += found) {
        enum fc_code code = receive_one(s, &found, err);
        if (code != FC_OK)
            return code;
    }
    return FC_OK;
}

/* ---- a round ---- */

/* Answers come after receiving: a poll that was sent again meanwhile is answered under its newest
 * sequence, the only one that its client still waits for. */
static enum fc_code serve_round(struct fc_server *s, size_t *frames, double *deadline,
                                struct fc_error *err)
{
    enum fc_code code = receive_all(s, frames, err);
    if (code == FC_OK)
        code = fc_server_hand_out(s, err);
    if (code != FC_OK)
        return code;
    fc_results_sync(&s->results, fc_now()); /* what is told next must outlive us */
    return fc_server_answer_parked(s, deadline, err);
}

static void measure(struct fc_server *s, double now)
{
    double seconds = now - s->window.began;
    if (seconds < RATE_WINDOW)
        return;
    if (s->window.items)
        s->item_rate = (double)s->window.items / seconds;
    s->window.tokens_per_second = (double)s->window.tokens / seconds;
    s->window.began = now;
    s->window.items = s->window.tokens = 0;
}

enum fc_code fc_server_poll(struct fc_server *s, double timeout, struct fc_error *err)
{
    size_t frames = 0;
    double now = fc_now(), deadline = now + timeout;
    fc_server_drop_aged(s, now);
    measure(s, now);
    if (s->gate)
        fc_gate_sweep(s->gate, now);
    enum fc_code code = serve_round(s, &frames, &deadline, err);
    double left = deadline - fc_now();
    if (code != FC_OK || frames || left <= 0)
        return code;
    struct nn_pollfd wait = {.fd = s->socket, .events = NN_POLLIN};
    nn_poll(&wait, 1, (int)fmin(ceil(left * 1000), 1000)); /* a signal ends it: no error */
    return serve_round(s, &frames, &deadline, err);
}

/* ---- life ---- */

static void set_defaults(struct fc_server_options *o)
{
    struct {
        size_t *field, value;
    } sizes[] = {{&o->window, 64},
                 {&o->limits.frame_items, 1024},
                 {&o->limits.frame_bytes, (size_t)4 << 20},
                 {&o->limits.job_items, 4096},
                 {&o->limits.prompt_bytes, (size_t)64 << 10},
                 {&o->limits.max_tokens, 4096},
                 {&o->max_jobs, 256},
                 {&o->max_items, 65536},
                 {&o->max_bytes, (size_t)256 << 20},
                 {&o->state_bytes, (size_t)1 << 30}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (!*sizes[i].field)
            *sizes[i].field = sizes[i].value;
    if (o->limits.frame_bytes > FC_FRAME_MAX_BODY)
        o->limits.frame_bytes = FC_FRAME_MAX_BODY;
    if (o->limits.prompt_bytes > o->limits.frame_bytes)
        o->limits.prompt_bytes = o->limits.frame_bytes;
    if (!o->name)
        o->name = "fedcot";
    if (o->max_age <= 0)
        o->max_age = 3600;
    if (o->max_silence <= 0)
        o->max_silence = 60;
}

static enum fc_code bind_socket(struct fc_server *s, struct fc_error *err)
{
    struct fc_address address;
    enum fc_code code = fc_address_parse(&address, s->options.address, s->gate != NULL, err);
    if (code != FC_OK)
        return code;
    s->socket = nn_socket(AF_SP_RAW, NN_REP);
    if (s->socket < 0)
        return fc_fail(err, FC_ERR_NETWORK, "server: cannot make a socket: %s",
                       nn_strerror(nn_errno()));
    /* A connection that announces more than this is closed by nanomsg before it is read. */
    int largest = (int)fc_tunnel_largest(FC_FRAME_PRELUDE + FC_FRAME_MAX_HEADER +
                                         s->options.limits.frame_bytes);
    int ipv4_only = !address.ipv6;
    if (nn_setsockopt(s->socket, NN_SOL_SOCKET, NN_RCVMAXSIZE, &largest, sizeof largest) < 0 ||
        nn_setsockopt(s->socket, NN_SOL_SOCKET, NN_IPV4ONLY, &ipv4_only, sizeof ipv4_only) < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "server: cannot set up the socket: %s",
                       nn_strerror(nn_errno()));
    if (nn_bind(s->socket, address.text) < 0)
        return fc_fail(err, FC_ERR_NETWORK,
                       "cannot listen on %s: %s; another server may run there: choose another port "
                       "with --listen",
                       address.text, nn_strerror(nn_errno()));
    return FC_OK;
}

static enum fc_code open_results(struct fc_server *s, struct fc_error *err)
{
    const struct fc_server_options *o = &s->options;
    const struct fc_results_options how = {.folder = o->state,
                                           .model = s->model,
                                           .max_bytes = o->state_bytes,
                                           .max_age = o->max_age,
                                           .max_text_bytes = o->max_bytes,
                                           .notice = o->notice,
                                           .context = o->notice_context};
    return fc_results_open(&s->results, &how, &s->table, &s->admission, err);
}

static enum fc_code open_gate(struct fc_server *s, struct fc_error *err)
{
    struct fc_gate_options how = s->options.gate;
    how.notice = s->options.notice;
    how.context = s->options.notice_context;
    return fc_gate_open(&s->gate, &how, err);
}

enum fc_code fc_server_open(struct fc_server **out, const struct fc_server_options *options,
                            const struct fc_server_handler *handler, struct fc_error *err)
{
    *out = NULL;
    if (sodium_init() < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "server: libsodium cannot start");
    struct fc_server *s = fc_alloc(1, sizeof *s, "server", err);
    if (!s)
        return FC_ERR_MEMORY;
    s->socket = -1;
    s->options = *options;
    s->handler = *handler;
    s->started = s->cleaned = s->window.began = fc_now();
    set_defaults(&s->options);
    const char *model = options->model ? options->model : "";
    s->model = fc_strndup(model, strlen(model), err);
    enum fc_code code = s->model ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_jobs_init(&s->table, s->options.max_jobs, s->options.max_items, err);
    if (code == FC_OK && options->gate.key)
        code = open_gate(s, err);
    if (code == FC_OK)
        code = fc_admission_init(&s->admission, s->options.max_jobs, s->options.max_bytes, err);
    if (code == FC_OK)
        code = bind_socket(s, err);
    if (code == FC_OK)
        code = open_results(s, err);
    if (code == FC_OK && s->gate) /* answers from the disk, of clients that have gone meanwhile */
        fc_server_drop_revoked(s);
    if (code != FC_OK)
        fc_server_close(s);
    else
        *out = s;
    return code;
}

void fc_server_close(struct fc_server *s)
{
    if (!s)
        return;
    if (s->socket >= 0)
        nn_close(s->socket);
    fc_results_close(&s->results);
    fc_jobs_free(&s->table);
    fc_admission_free(&s->admission);
    fc_text_free(&s->out);
    fc_text_free(&s->body);
    fc_text_free(&s->sealed);
    fc_gate_close(s->gate);
    free(s->model);
    free(s);
}

enum fc_code fc_server_reload(struct fc_server *s, struct fc_error *err)
{
    if (!s->gate)
        return FC_OK;
    enum fc_code code = fc_gate_reload(s->gate, err);
    if (code == FC_OK)
        fc_server_drop_revoked(s);
    return code;
}

void fc_server_drain(struct fc_server *s, double seconds)
{
    s->drained = fc_now() + seconds;
}

bool fc_server_is_drained(const struct fc_server *s)
{
    return s->drained && (!s->table.count[FC_ITEM_RUNNING] || fc_now() >= s->drained);
}

static size_t resident_bytes(void)
{
    unsigned long long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &pages, &resident) != 2)
        resident = 0;
    fclose(f);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

void fc_server_status(const struct fc_server *s, struct fc_status *status)
{
    struct fc_server_stats now;
    fc_server_stats(s, &now);
    *status = (struct fc_status){.draining = s->drained > 0,
                                 .protocol = FC_PROTOCOL_VERSION,
                                 .clients = now.clients,
                                 .jobs = now.jobs,
                                 .waiting = now.waiting,
                                 .running = now.running,
                                 .finished = now.finished,
                                 .text_bytes = now.bytes_held,
                                 .max_text_bytes = s->options.max_bytes,
                                 .state_bytes = now.state_bytes,
                                 .memory_bytes = resident_bytes(),
                                 .answers = (size_t)now.submitted,
                                 .tokens = (size_t)now.tokens,
                                 .busy = (size_t)now.busy,
                                 .refused = (size_t)now.refused,
                                 .dropped = (size_t)now.dropped,
                                 .tokens_per_second = now.tokens_per_second,
                                 .uptime = now.uptime};
    snprintf(status->server, sizeof status->server, "%s", s->options.name);
    snprintf(status->model, sizeof status->model, "%s", s->model);
}

void fc_server_stats(const struct fc_server *s, struct fc_server_stats *stats)
{
    *stats = s->stats;
    stats->jobs = s->table.n_jobs;
    stats->waiting = s->table.count[FC_ITEM_WAITING];
    stats->running = s->table.count[FC_ITEM_RUNNING];
    stats->finished = s->table.count[FC_ITEM_DONE];
    stats->bytes_held = s->table.bytes;
    stats->clients = fc_admission_parties(&s->table);
    stats->state_bytes = fc_results_bytes(&s->results);
    stats->tokens_per_second = s->window.tokens_per_second;
    stats->uptime = fc_now() - s->started;
    if (s->gate)
        fc_gate_stats(s->gate, &stats->gate);
}
