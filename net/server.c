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

#define FRAMES_PER_POLL 256 /* so that a flood of messages cannot stop generation */

/* ---- the socket ---- */

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
        code = fc_server_serve(s, data, (size_t)n, &route, err);
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

/* ---- handing out ---- */

static enum fc_code hand_out(struct fc_server *s, struct fc_item *item, struct fc_error *err)
{
    struct fc_error why = {0};
    uint64_t id = item->id;
    struct fc_ask ask = {id, item->text, item->n_text, item->seed, &item->batch->sampling};
    /* Running from here on, and submit may complete it at once: hold what the call needs. */
    struct fc_submission *batch = item->batch;
    batch->references++;
    char *prompt = fc_item_run(&s->table, item);
    s->stats.submitted++;
    enum fc_code code = s->handler.submit(s->handler.context, &ask, &why);
    free(prompt);
    fc_submission_release(batch);
    if (code != FC_OK)
        return fc_server_complete(s, id, why.text, strlen(why.text), 0, FC_ANSWER_REFUSED, err);
    return FC_OK;
}

/* One item of each job in turn, as long as the window has room. */
static enum fc_code dispatch(struct fc_server *s, struct fc_error *err)
{
    size_t idle = 0; /* jobs in a row without anything to do */
    while (s->table.count[FC_ITEM_WAITING] && idle < s->table.max_jobs &&
           s->table.count[FC_ITEM_RUNNING] < s->options.window) {
        struct fc_job *job = &s->table.jobs[s->turn];
        s->turn = (s->turn + 1) % s->table.max_jobs;
        idle++;
        if (!job->used || job->waiting.next == &job->waiting)
            continue;
        idle = 0;
        enum fc_code code =
            hand_out(s, FC_LINKED(job->waiting.next, struct fc_item, in_queue), err);
        if (code != FC_OK)
            return code;
    }
    return FC_OK;
}

enum fc_code fc_server_complete(struct fc_server *s, uint64_t id, const char *text, size_t n_text,
                                size_t n_tokens, enum fc_answer_finish finish, struct fc_error *err)
{
    struct fc_item *item = fc_item_by_id(&s->table, id);
    if (!item || item->state != FC_ITEM_RUNNING)
        return FC_OK;
    struct fc_text clean = {0};
    fc_utf8_clean(&clean, text, n_text, FC_MAX_TEXT);
    enum fc_code code = fc_text_check(&clean, err);
    if (code != FC_OK) {
        fc_text_free(&clean);
        return code;
    }
    if (n_text > FC_MAX_TEXT && finish == FC_ANSWER_STOP)
        finish = FC_ANSWER_LENGTH;
    fc_item_finish(&s->table, item, clean.data, clean.len, n_tokens, finish);
    return FC_OK;
}

/* Answers come after receiving: a poll that was sent again meanwhile is answered under its newest
 * sequence, the only one that its client still waits for. */
static enum fc_code serve_round(struct fc_server *s, size_t *frames, double *deadline,
                                struct fc_error *err)
{
    enum fc_code code = receive_all(s, frames, err);
    if (code == FC_OK)
        code = dispatch(s, err);
    return code == FC_OK ? fc_server_answer_parked(s, deadline, err) : code;
}

enum fc_code fc_server_poll(struct fc_server *s, double timeout, struct fc_error *err)
{
    size_t frames = 0;
    double now = fc_now(), deadline = now + timeout;
    fc_server_drop_aged(s, now);
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
                 {&o->limits.frame_bytes, (size_t)16 << 20},
                 {&o->limits.job_items, 4096},
                 {&o->limits.prompt_bytes, (size_t)64 << 10},
                 {&o->limits.max_tokens, 4096},
                 {&o->max_jobs, 256},
                 {&o->max_items, 65536},
                 {&o->max_bytes, (size_t)256 << 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (!*sizes[i].field)
            *sizes[i].field = sizes[i].value;
    if (o->limits.frame_bytes > FC_FRAME_MAX_BODY)
        o->limits.frame_bytes = FC_FRAME_MAX_BODY;
    if (o->limits.prompt_bytes > o->limits.frame_bytes)
        o->limits.prompt_bytes = o->limits.frame_bytes;
    if (o->max_age <= 0)
        o->max_age = 3600;
    if (o->max_silence <= 0)
        o->max_silence = 60;
}

static enum fc_code bind_socket(struct fc_server *s, struct fc_error *err)
{
    struct fc_address address;
    enum fc_code code = fc_address_parse(&address, s->options.address, err);
    if (code != FC_OK)
        return code;
    s->socket = nn_socket(AF_SP_RAW, NN_REP);
    if (s->socket < 0)
        return fc_fail(err, FC_ERR_NETWORK, "server: cannot make a socket: %s",
                       nn_strerror(nn_errno()));
    /* A connection that announces more than this is closed by nanomsg before it is read. */
    int largest = (int)(FC_FRAME_PRELUDE + FC_FRAME_MAX_HEADER + s->options.limits.frame_bytes);
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
    s->started = s->cleaned = fc_now();
    set_defaults(&s->options);
    const char *model = options->model ? options->model : "";
    s->model = fc_strndup(model, strlen(model), err);
    enum fc_code code = s->model ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_jobs_init(&s->table, s->options.max_jobs, s->options.max_items, err);
    if (code == FC_OK)
        code = bind_socket(s, err);
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
    fc_jobs_free(&s->table);
    fc_text_free(&s->out);
    fc_text_free(&s->body);
    free(s->model);
    free(s);
}

void fc_server_stats(const struct fc_server *s, struct fc_server_stats *stats)
{
    *stats = s->stats;
    stats->jobs = s->table.n_jobs;
    stats->waiting = s->table.count[FC_ITEM_WAITING];
    stats->running = s->table.count[FC_ITEM_RUNNING];
    stats->finished = s->table.count[FC_ITEM_DONE];
    stats->bytes_held = s->table.bytes;
    stats->uptime = fc_now() - s->started;
}
