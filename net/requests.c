/* What each message does to the server's memory, and its answer. Above 300 lines: one file holds
 * the server's side of the protocol, in the order of the table in net/message.h. */
#include "net/server_private.h"

#include "base/clock.h"
#include "net/frame.h"

#include <math.h>
#include <nanomsg/nn.h>
#include <sodium.h>
#include <string.h>

#define RESULTS_PER_ANSWER 256         /* a chunk */
#define RESULT_BYTES ((size_t)1 << 20) /* soft: a chunk ends after the text that passes it */
#define MAX_WAIT 30.0                  /* seconds that a poll may be parked */
#define HOUSEKEEPING 0.25              /* seconds between looks for aged jobs */

/* A request being served. */
struct request {
    struct fc_server *server;
    struct fc_frame frame;
    struct fc_route *route;
    const struct fc_client_identity *identity; /* who asks */
    unsigned char job_id[FC_JOB_ID_SIZE];
    uint64_t client;
    struct fc_job *job; /* NULL: not known */
};

/* ---- answers ---- */

/* To a client that is gone or does not read, nanomsg drops it: the client will ask again. */
static void send_frame(struct fc_server *s, struct fc_route *route)
{
    struct nn_iovec part = {s->out.data, s->out.len};
    struct nn_msghdr message = {.msg_iov = &part,
                                .msg_iovlen = 1,
                                .msg_control = route->control,
                                .msg_controllen = route->len};
    if (nn_sendmsg(s->socket, &message, NN_DONTWAIT) >= 0) {
        s->stats.frames_out++;
        s->stats.bytes_out += s->out.len;
    }
}

static enum fc_code answer(struct fc_server *s, struct fc_route *route, int kind, uint64_t sequence,
                           const cJSON *header, struct fc_error *err)
{
    fc_text_clear(&s->out);
    enum fc_code code =
        fc_frame_encode(&s->out, (uint16_t)kind, sequence, header, s->body.data, s->body.len, err);
    if (code == FC_OK)
        send_frame(s, route);
    fc_text_clear(&s->body);
    return code;
}

static enum fc_code refuse(struct fc_server *s, struct request *r, enum fc_refusal refusal,
                           const char *text)
{
    enum fc_code code = FC_ERR_MEMORY;
    cJSON *header = cJSON_CreateObject();
    if (cJSON_AddStringToObject(header, "code", fc_refusal_name(refusal)) &&
        cJSON_AddStringToObject(header, "text", text))
        code = answer(s, r->route, FC_MSG_ERROR, r->frame.sequence, header, NULL);
    cJSON_Delete(header);
    return code;
}

static enum fc_code answer_to(struct request *r, const cJSON *header, struct fc_error *err)
{
    return answer(r->server, r->route, r->frame.kind + FC_MSG_ANSWER, r->frame.sequence, header,
                  err);
}

/* ---- dropping ---- */

static void drop_item(struct fc_server *s, struct fc_item *item)
{
    if (item->state == FC_ITEM_RUNNING && s->handler.cancel)
        s->handler.cancel(s->handler.context, item->id);
    fc_item_remove(&s->table, item);
}

static void drop_job(struct fc_server *s, struct fc_job *job)
{
    while (job->items.next != &job->items)
        drop_item(s, FC_LINKED(job->items.next, struct fc_item, in_job));
    fc_job_remove(&s->table, job);
}

void fc_server_drop_aged(struct fc_server *s, double now)
{
    if (now - s->cleaned < HOUSEKEEPING)
        return;
    s->cleaned = now;
    for (size_t i = 0; i < s->table.max_jobs; i++) {
        struct fc_job *job = &s->table.jobs[i];
        if (job->used && now - job->contact > s->options.max_age) {
            drop_job(s, job);
            s->stats.dropped++;
        }
    }
}

/* Drops the job that has been silent longest, if it has been so for max_silence. */
static bool make_room(struct fc_server *s)
{
    struct fc_job *oldest = NULL;
    for (size_t i = 0; i < s->table.max_jobs; i++) {
        struct fc_job *job = &s->table.jobs[i];
        if (job->used && (!oldest || job->contact < oldest->contact))
            oldest = job;
    }
    if (!oldest || fc_now() - oldest->contact <= s->options.max_silence)
        return false;
    drop_job(s, oldest);
    s->stats.dropped++;
    return true;
}

/* ---- HELLO ---- */

static enum fc_code serve_hello(struct request *r, struct fc_error *err)
{
    struct fc_server *s = r->server;
    size_t protocol = 0;
    enum fc_code code = fc_json_size(r->frame.header, "protocol", true, &protocol, "hello", err);
    if (code != FC_OK)
        return code;
    if (protocol != FC_PROTOCOL_VERSION)
        return refuse(s, r, FC_REFUSED_VERSION, "this server speaks protocol version 1");
    if (r->job && r->job->client != r->client) {
        if (r->job->previous_client == r->client)
            return refuse(s, r, FC_REFUSED_TAKEN_OVER, "another client runs this job now");
        fc_job_take_over(r->job, r->client);
    }
    while (!r->job) {
        r->job = fc_job_add(&s->table, r->job_id);
        if (!r->job && !make_room(s))
            return refuse(s, r, FC_REFUSED_BUSY, "all places for jobs are taken");
        if (r->job)
            r->job->client = r->job->previous_client = r->client;
    }
    r->job->owner = *r->identity;
    r->job->contact = fc_now();
    r->job->last_sequence = r->frame.sequence;
    cJSON *header = cJSON_CreateObject();
    if (!cJSON_AddStringToObject(header, "server", "fedcot") ||
        !cJSON_AddStringToObject(header, "model", s->model))
        code = fc_fail(err, FC_ERR_MEMORY, "hello: out of memory");
    else if ((code = fc_number_write(header, "protocol", FC_PROTOCOL_VERSION, err)) == FC_OK &&
             (code = fc_limits_write(header, &s->options.limits, err)) == FC_OK)
        code = answer_to(r, header, err);
    cJSON_Delete(header);
    return code;
}

/* ---- SUBMIT ---- */

/* An item of the frame, checked. */
struct asked {
    uint64_t index, seed;
    const char *text;
    size_t n_text;
    unsigned char digest[FC_DIGEST_SIZE];
};

static enum fc_code read_asked(struct request *r, const cJSON *element, size_t *at, struct asked *a,
                               struct fc_error *err)
{
    size_t n = 0;
    enum fc_code code =
        fc_index_read(cJSON_GetObjectItemCaseSensitive(element, "index"), &a->index, err);
    if (code == FC_OK)
        code = fc_hex64_read(element, "seed", &a->seed, err);
    if (code == FC_OK)
        code = fc_json_size(element, "bytes", true, &n, "item", err);
    if (code != FC_OK)
        return code;
    if (n < 1 || n > r->server->options.limits.prompt_bytes || n > r->frame.n_body - *at)
        return fc_fail(err, FC_ERR_INPUT,
                       "submit: a prompt of %zu bytes, expected 1 to %zu, and %zu are left in the "
                       "body",
                       n, r->server->options.limits.prompt_bytes, r->frame.n_body - *at);
    a->text = r->frame.body + *at;
    a->n_text = n;
    *at += n;
    if (fc_utf8_prefix(a->text, n) != n || memchr(a->text, 0, n))
        return fc_fail(err, FC_ERR_INPUT, "submit: a prompt is not UTF-8 text");
    return FC_OK;
}

/* What decides an answer: the same (job, index) must always ask the same. */
static void digest_asked(struct asked *a, const char *sampling)
{
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, FC_DIGEST_SIZE);
    crypto_generichash_update(&hash, (const unsigned char *)&a->seed, sizeof a->seed);
    crypto_generichash_update(&hash, (const unsigned char *)sampling, strlen(sampling) + 1);
    crypto_generichash_update(&hash, (const unsigned char *)a->text, a->n_text);
    crypto_generichash_final(&hash, a->digest, FC_DIGEST_SIZE);
}

/* Everything is checked before anything is taken. *list is the caller's. */
static enum fc_code read_submit(struct request *r, struct fc_submission *batch, struct asked **list,
                                size_t *n, struct fc_error *err)
{
    const struct fc_limits *limits = &r->server->options.limits;
    const cJSON *items, *element;
    size_t at = 0;
    char *text = NULL;
    enum fc_code code = fc_array_read(r->frame.header, "items", limits->frame_items, &items, err);
    if (code != FC_OK)
        return code;
    batch->tree = cJSON_DetachItemFromObjectCaseSensitive(r->frame.header, "sampling");
    code = fc_wire_sampling_read(&batch->sampling, batch->tree, limits->max_tokens, err);
    if (code != FC_OK)
        return code;
    *list = fc_alloc((size_t)cJSON_GetArraySize(items), sizeof **list, "submit", err);
    text = fc_json_print(batch->tree, err);
    if (!*list || !text)
        code = FC_ERR_MEMORY;
    for (element = items->child; element && code == FC_OK; element = element->next) {
        struct asked *a = &(*list)[*n];
        code = read_asked(r, element, &at, a, err);
        if (code == FC_OK)
            digest_asked(a, text);
        ++*n;
    }
    if (code == FC_OK && at != r->frame.n_body)
        code = fc_fail(err, FC_ERR_INPUT, "submit: %zu bytes of body, but the items make %zu",
                       r->frame.n_body, at);
    cJSON_free(text);
    return code;
}

static bool has_room(struct fc_server *s, const struct fc_job *job, size_t bytes)
{
    if (job->n_items >= s->options.limits.job_items)
        return false;
    while (!s->table.count[FC_ITEM_FREE] || s->table.bytes + bytes > s->options.max_bytes)
        if (!make_room(s)) /* never this job: its client has just spoken */
            return false;
    return true;
}

/* Takes one item; *taken says whether there was room. */
static enum fc_code take_asked(struct request *r, const struct asked *a,
                               struct fc_submission *batch, bool *taken, struct fc_error *err)
{
    struct fc_server *s = r->server;
    struct fc_item *item = fc_item_find(&s->table, r->job, a->index);
    *taken = true;
    if (item) {
        if (memcmp(item->digest, a->digest, FC_DIGEST_SIZE) != 0)
            return fc_fail(err, FC_ERR_INPUT,
                           "submit: item %llu of this job was submitted before with another "
                           "prompt, seed or sampling",
                           (unsigned long long)a->index);
        fc_item_claim(item);
        s->stats.duplicates++;
        return FC_OK;
    }
    *taken = has_room(s, r->job, a->n_text);
    if (!*taken)
        return FC_OK;
    item = fc_item_add(&s->table, r->job, a->index, a->text, a->n_text, batch, err);
    if (!item)
        return FC_ERR_MEMORY;
    item->seed = a->seed;
    memcpy(item->digest, a->digest, FC_DIGEST_SIZE);
    return FC_OK;
}

static enum fc_code serve_submit(struct request *r, struct fc_error *err)
{
    struct asked *list = NULL;
    size_t n = 0, accepted = 0;
    bool taken = true;
    cJSON *header = NULL;
    struct fc_submission *batch = fc_alloc(1, sizeof *batch, "submit", err);
    if (!batch)
        return FC_ERR_MEMORY;
    batch->references = 1;
    enum fc_code code = read_submit(r, batch, &list, &n, err);
    while (code == FC_OK && accepted < n) {
        code = take_asked(r, &list[accepted], batch, &taken, err);
        if (!taken)
            break;
        accepted++;
    }
    if (code != FC_OK)
        goto cleanup;
    header = cJSON_CreateObject();
    code = fc_number_write(header, "accepted", (double)accepted, err);
    if (code == FC_OK)
        code = answer_to(r, header, err);
cleanup:
    cJSON_Delete(header);
    fc_submission_release(batch);
    free(list);
    return code;
}

/* ---- POLL ---- */

static enum fc_code add_result(struct fc_server *s, cJSON *items, const struct fc_item *item,
                               struct fc_error *err)
{
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddNumberToObject(o, "index", (double)item->index) ||
        !cJSON_AddNumberToObject(o, "tokens", (double)item->n_tokens) ||
        !cJSON_AddStringToObject(o, "finish", fc_answer_finish_name(item->finish)) ||
        !cJSON_AddNumberToObject(o, "bytes", (double)item->n_text)) {
        cJSON_Delete(o);
        return fc_fail(err, FC_ERR_MEMORY, "answer: out of memory");
    }
    cJSON_AddItemToArray(items, o);
    fc_text_add(&s->body, item->text, item->n_text);
    return fc_text_check(&s->body, err);
}

/* The first link of the ready list with a number above `after`. Numbers grow along the list. */
static struct fc_link *first_after(struct fc_job *job, uint64_t after)
{
    struct fc_link *l = &job->ready;
    while (l->previous != &job->ready &&
           FC_LINKED(l->previous, struct fc_item, in_queue)->delivery > after)
        l = l->previous;
    return l;
}

static enum fc_code send_results(struct fc_server *s, struct fc_job *job, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    uint64_t last = job->poll.after;
    size_t n = 0;
    cJSON *header = cJSON_CreateObject();
    cJSON *items = cJSON_AddArrayToObject(header, "items");
    job->poll.parked = false;
    if (!items)
        code = fc_fail(err, FC_ERR_MEMORY, "answer: out of memory");
    for (struct fc_link *l = first_after(job, last);
         l != &job->ready && code == FC_OK && n < RESULTS_PER_ANSWER && s->body.len < RESULT_BYTES;
         l = l->next, n++) {
        const struct fc_item *item = FC_LINKED(l, struct fc_item, in_queue);
        code = add_result(s, items, item, err);
        last = item->delivery;
    }
    if (code == FC_OK && (code = fc_number_write(header, "last", (double)last, err)) == FC_OK &&
        (code = fc_number_write(header, "waiting", (double)s->table.count[FC_ITEM_WAITING], err)) ==
            FC_OK &&
        (code = fc_number_write(header, "running", (double)s->table.count[FC_ITEM_RUNNING], err)) ==
            FC_OK)
        code = answer(s, &job->poll.route, FC_MSG_POLL + FC_MSG_ANSWER, job->poll.sequence, header,
                      err);
    fc_text_clear(&s->body);
    cJSON_Delete(header);
    return code;
}

static enum fc_code forget_stored(struct request *r, struct fc_error *err)
{
    const cJSON *done, *element;
    uint64_t index;
    enum fc_code code =
        fc_array_read(r->frame.header, "done", r->server->options.limits.job_items, &done, err);
    if (code != FC_OK)
        return code;
    cJSON_ArrayForEach(element, done)
    {
        code = fc_index_read(element, &index, err);
        if (code != FC_OK)
            return code;
        struct fc_item *item = fc_item_find(&r->server->table, r->job, index);
        if (item && item->state == FC_ITEM_DONE)
            fc_item_remove(&r->server->table, item);
    }
    return FC_OK;
}

/* Parks the poll; fc_server_answer_parked decides when to answer it, also at once. */
static enum fc_code serve_poll(struct request *r, struct fc_error *err)
{
    size_t wait_ms = 0, after = 0;
    enum fc_code code = fc_json_size(r->frame.header, "wait_ms", true, &wait_ms, "poll", err);
    if (code == FC_OK)
        code = fc_json_size(r->frame.header, "after", true, &after, "poll", err);
    if (code == FC_OK)
        code = forget_stored(r, err);
    if (code != FC_OK)
        return code;
    double deadline = fc_now() + fmin((double)wait_ms / 1000, MAX_WAIT);
    /* A poll while one is parked is the same one sent again, which earns no more time. */
    if (!r->job->poll.parked || deadline < r->job->poll.deadline)
        r->job->poll.deadline = deadline;
    r->job->poll.parked = true;
    r->job->poll.sequence = r->frame.sequence;
    r->job->poll.after = after;
    r->job->poll.route = *r->route;
    return FC_OK;
}

enum fc_code fc_server_answer_parked(struct fc_server *s, double *next_deadline,
                                     struct fc_error *err)
{
    double now = fc_now();
    for (size_t i = 0; i < s->table.max_jobs; i++) {
        struct fc_job *job = &s->table.jobs[i];
        if (!job->used || !job->poll.parked)
            continue;
        if (job->poll.deadline <= now || first_after(job, job->poll.after) != &job->ready) {
            enum fc_code code = send_results(s, job, err);
            if (code != FC_OK)
                return code;
        } else {
            *next_deadline = fmin(*next_deadline, job->poll.deadline);
        }
    }
    return FC_OK;
}

/* ---- CANCEL, STATUS ---- */

static enum fc_code serve_cancel(struct request *r, struct fc_error *err)
{
    const cJSON *items = NULL, *element;
    bool all = false;
    uint64_t index;
    enum fc_code code = fc_json_bool(r->frame.header, "all", false, &all, "cancel", err);
    if (code == FC_OK && !all)
        code = fc_array_read(r->frame.header, "items", r->server->options.limits.job_items, &items,
                             err);
    if (code != FC_OK)
        return code;
    cJSON_ArrayForEach(element, items)
    {
        code = fc_index_read(element, &index, err);
        if (code != FC_OK)
            return code;
        struct fc_item *item = fc_item_find(&r->server->table, r->job, index);
        if (item)
            drop_item(r->server, item);
    }
    if (all)
        drop_job(r->server, r->job);
    cJSON *header = cJSON_CreateObject();
    code = header ? answer_to(r, header, err) : FC_ERR_MEMORY;
    cJSON_Delete(header);
    return code;
}

static enum fc_code serve_status(struct request *r, struct fc_error *err)
{
    struct fc_server_stats stats;
    fc_server_stats(r->server, &stats);
    const struct {
        const char *name;
        double value;
    } fields[] = {{"jobs", (double)stats.jobs},
                  {"waiting", (double)stats.waiting},
                  {"running", (double)stats.running},
                  {"finished", (double)stats.finished},
                  {"uptime", stats.uptime}};
    enum fc_code code = FC_OK;
    cJSON *header = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof fields / sizeof fields[0] && code == FC_OK; i++)
        code = fc_number_write(header, fields[i].name, fields[i].value, err);
    if (code == FC_OK)
        code = answer_to(r, header, err);
    cJSON_Delete(header);
    return code;
}

/* ---- one frame ---- */

static enum fc_code serve_kind(struct request *r, struct fc_error *err)
{
    switch (r->frame.kind) {
    case FC_MSG_HELLO:
        return serve_hello(r, err);
    case FC_MSG_SUBMIT:
        return serve_submit(r, err);
    case FC_MSG_POLL:
        return serve_poll(r, err);
    case FC_MSG_CANCEL:
        return serve_cancel(r, err);
    case FC_MSG_STATUS:
        return serve_status(r, err);
    default:
        return fc_fail(err, FC_ERR_INPUT, "kind %u is no request", (unsigned)r->frame.kind);
    }
}

static enum fc_code serve_request(struct request *r, struct fc_error *err)
{
    struct fc_server *s = r->server;
    enum fc_code code = fc_hex_read(r->frame.header, "job", r->job_id, sizeof r->job_id, err);
    if (code == FC_OK)
        code = fc_hex64_read(r->frame.header, "client", &r->client, err);
    if (code != FC_OK)
        return code;
    r->job = fc_job_find(&s->table, r->job_id);
    bool ours = r->job && r->job->client == r->client;
    if (ours && r->frame.sequence < r->job->last_sequence) {
        s->stats.stale++;
        return FC_OK;
    }
    if (ours) {
        r->job->last_sequence = r->frame.sequence;
        r->job->contact = fc_now();
        if (r->frame.kind != FC_MSG_POLL) /* its client has gone on */
            r->job->poll.parked = false;
    } else if (r->frame.kind != FC_MSG_HELLO && r->frame.kind != FC_MSG_STATUS) {
        return r->job ? refuse(s, r, FC_REFUSED_TAKEN_OVER, "another client runs this job now")
                      : refuse(s, r, FC_REFUSED_UNKNOWN_JOB, "say hello first");
    }
    return serve_kind(r, err);
}

enum fc_code fc_server_serve(struct fc_server *s, const void *data, size_t len,
                             struct fc_route *route, struct fc_error *err)
{
    struct request r = {.server = s, .route = route, .identity = &fc_client_anonymous};
    struct fc_error fault = {0};
    s->stats.frames_in++;
    s->stats.bytes_in += len;
    enum fc_code code = fc_frame_decode(&r.frame, data, len, s->options.limits.frame_bytes, &fault);
    if (code == FC_OK)
        code = serve_request(&r, &fault);
    if (code == FC_ERR_INPUT || code == FC_ERR_UNSUPPORTED) {
        s->stats.refused++;
        code = refuse(s, &r, code == FC_ERR_INPUT ? FC_REFUSED_REQUEST : FC_REFUSED_VERSION,
                      fault.text);
    }
    fc_frame_release(&r.frame);
    return code == FC_OK ? FC_OK : fc_fail(err, code, "server: %s", fault.text);
}
