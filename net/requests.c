/* One frame: who sent it, what it asks, and its answer. The larger kinds have files of their own
 * (serve_hello.c, serve_submit.c, serve_poll.c). */
#include "net/server_private.h"

#include "base/clock.h"

#include <math.h>
#include <sodium.h>
#include <string.h>

#define HOUSEKEEPING 0.25 /* seconds between looks for aged jobs */
#define SHORTEST_WAIT 0.1 /* seconds that a busy server tells clients to wait */
#define LONGEST_WAIT 30.0
#define DRAIN_WAIT 5.0 /* at most: one that drains may end at any time, and be followed at once */

/* ---- answers ---- */

enum fc_code fc_server_answer(struct fc_server *s, struct fc_route *route, int kind,
                              uint64_t sequence, const cJSON *header, struct fc_error *err)
{
    fc_text_clear(&s->out);
    enum fc_code code =
        fc_frame_encode(&s->out, (uint16_t)kind, sequence, header, s->body.data, s->body.len, err);
    if (code == FC_OK)
        code = fc_server_send(s, &s->out, route, err);
    fc_text_clear(&s->body);
    return code;
}

enum fc_code fc_server_refuse(struct fc_server *s, struct fc_server_request *r,
                              enum fc_refusal refusal, const char *text)
{
    enum fc_code code = FC_ERR_MEMORY;
    cJSON *header = cJSON_CreateObject();
    fc_text_clear(&s->body);
    if (cJSON_AddStringToObject(header, "code", fc_refusal_name(refusal)) &&
        cJSON_AddStringToObject(header, "text", text) &&
        (refusal != FC_REFUSED_BUSY ||
         cJSON_AddNumberToObject(header, "retry_after", r->retry_after)) &&
        (refusal != FC_REFUSED_VERSION ||
         cJSON_AddNumberToObject(header, "protocol", FC_PROTOCOL_VERSION)))
        code = fc_server_answer(s, r->route, FC_MSG_ERROR, r->frame.sequence, header, NULL);
    cJSON_Delete(header);
    return code;
}

enum fc_code fc_server_refuse_busy(struct fc_server_request *r, double retry_after,
                                   const char *text)
{
    r->retry_after = retry_after;
    r->server->stats.busy++;
    return fc_server_refuse(r->server, r, FC_REFUSED_BUSY, text);
}

enum fc_code fc_server_answer_to(struct fc_server_request *r, const cJSON *header,
                                 struct fc_error *err)
{
    return fc_server_answer(r->server, r->route, r->frame.kind + FC_MSG_ANSWER, r->frame.sequence,
                            header, err);
}

/* ---- dropping ---- */

static void drop_item(struct fc_server *s, struct fc_item *item)
{
    if (item->state == FC_ITEM_RUNNING && s->handler.cancel)
        s->handler.cancel(s->handler.context, item->id);
    fc_results_forget(&s->results, item);
    if (item->state != FC_ITEM_DONE)
        fc_admission_settle(item, false, 0);
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

void fc_server_drop_revoked(struct fc_server *s)
{
    for (size_t i = 0; i < s->table.max_jobs; i++) {
        struct fc_job *job = &s->table.jobs[i];
        if (job->used && !fc_gate_knows(s->gate, job->owner.key))
            drop_job(s, job);
    }
}

static struct fc_job *silent_longest(const struct fc_server *s)
{
    struct fc_job *oldest = NULL;
    for (size_t i = 0; i < s->table.max_jobs; i++) {
        struct fc_job *job = &s->table.jobs[i];
        if (job->used && (!oldest || job->contact < oldest->contact))
            oldest = job;
    }
    return oldest;
}

static double clamp_wait(double seconds)
{
    return fmin(fmax(seconds, SHORTEST_WAIT), LONGEST_WAIT);
}

double fc_server_job_wait(const struct fc_server *s)
{
    const struct fc_job *oldest = silent_longest(s);
    return clamp_wait(oldest ? oldest->contact + s->options.max_silence - fc_now() : 0);
}

double fc_server_drain_wait(const struct fc_server *s)
{
    return fmax(1, fmin(s->drained - fc_now(), DRAIN_WAIT));
}

double fc_server_item_wait(const struct fc_server *s)
{
    size_t parties = fc_admission_parties(&s->table);
    return clamp_wait(s->item_rate > 0 ? (double)parties / s->item_rate : 0);
}

bool fc_server_make_room(struct fc_server *s)
{
    struct fc_job *oldest = silent_longest(s);
    if (!oldest || fc_now() - oldest->contact <= s->options.max_silence)
        return false;
    drop_job(s, oldest);
    s->stats.dropped++;
    return true;
}

/* ---- CANCEL, STATUS ---- */

static enum fc_code serve_cancel(struct fc_server_request *r, struct fc_error *err)
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
    code = header ? fc_server_answer_to(r, header, err) : FC_ERR_MEMORY;
    cJSON_Delete(header);
    return code;
}

static enum fc_code serve_status(struct fc_server_request *r, struct fc_error *err)
{
    struct fc_status status;
    cJSON *header = cJSON_CreateObject();
    fc_server_status(r->server, &status);
    enum fc_code code = fc_status_write(header, &status, err);
    if (code == FC_OK)
        code = fc_server_answer_to(r, header, err);
    cJSON_Delete(header);
    return code;
}

/* ---- one frame ---- */

static enum fc_code serve_kind(struct fc_server_request *r, struct fc_error *err)
{
    switch (r->frame.kind) {
    case FC_MSG_HELLO:
        return fc_serve_hello(r, err);
    case FC_MSG_SUBMIT:
        return fc_serve_submit(r, err);
    case FC_MSG_POLL:
        return fc_serve_poll(r, err);
    case FC_MSG_CANCEL:
        return serve_cancel(r, err);
    case FC_MSG_STATUS:
        return serve_status(r, err);
    default:
        return fc_fail(err, FC_ERR_INPUT, "kind %u is no request", (unsigned)r->frame.kind);
    }
}

/* A client with a key has its own names for jobs. */
static enum fc_code read_job_id(struct fc_server_request *r, struct fc_error *err)
{
    unsigned char named[FC_JOB_ID_SIZE];
    enum fc_code code = fc_hex_read(r->frame.header, "job", named, sizeof named, err);
    if (code != FC_OK)
        return code;
    if (r->route->session)
        crypto_generichash(r->job_id, sizeof r->job_id, named, sizeof named, r->identity->key,
                           sizeof r->identity->key);
    else
        memcpy(r->job_id, named, sizeof named);
    return FC_OK;
}

static enum fc_code serve_request(struct fc_server_request *r, struct fc_error *err)
{
    struct fc_server *s = r->server;
    enum fc_code code = read_job_id(r, err);
    if (code == FC_OK)
        code = fc_hex64_read(r->frame.header, "client", &r->client, err);
    if (code != FC_OK)
        return code;
    r->job = fc_job_find(&s->table, r->job_id);
    bool known = r->job && !r->job->orphan;
    bool ours = known && r->job->client == r->client;
    if (ours && r->frame.sequence < r->job->last_sequence) {
        s->stats.stale++;
        return FC_OK;
    }
    if (ours) {
        r->job->last_sequence = r->frame.sequence;
        r->job->contact = fc_now();
        struct fc_party *party = fc_party_of(&s->admission, &s->table, r->identity, r->route);
        if (party) /* the connection may be another one than before */
            r->job->party = party;
        if (r->frame.kind != FC_MSG_POLL) /* its client has gone on */
            r->job->poll.parked = false;
    } else if (r->frame.kind != FC_MSG_HELLO && r->frame.kind != FC_MSG_STATUS) {
        return known ? fc_server_refuse(s, r, FC_REFUSED_TAKEN_OVER,
                                        "another client runs this job now")
                     : fc_server_refuse(s, r, FC_REFUSED_UNKNOWN_JOB, "say hello first");
    }
    return serve_kind(r, err);
}

enum fc_code fc_server_refuse_clear(struct fc_server *s, struct fc_route *route)
{
    struct fc_server_request r = {.server = s, .route = route};
    s->stats.refused++;
    return fc_server_refuse(
        s, &r, FC_REFUSED_REQUEST,
        "this server takes encrypted sessions only: give --key and --server-key");
}

enum fc_code fc_server_serve(struct fc_server *s, const void *data, size_t len,
                             const struct fc_client_identity *identity, struct fc_route *route,
                             struct fc_error *err)
{
    struct fc_server_request r = {.server = s, .route = route, .identity = identity};
    struct fc_error fault = {0};
    s->stats.frames_in++;
    s->stats.bytes_in += len;
    enum fc_code code = fc_frame_decode(&r.frame, data, len, s->options.limits.frame_bytes, &fault);
    if (code == FC_OK)
        code = serve_request(&r, &fault);
    if (code == FC_ERR_MEMORY) { /* of this request: whoever asks less, or later, is served */
        fc_text_free(&s->out);
        fc_text_free(&s->body);
        fc_server_refuse_busy(&r, 1, "out of memory");
        code = FC_OK;
    }
    if (code == FC_ERR_INPUT || code == FC_ERR_UNSUPPORTED) {
        s->stats.refused++;
        code = fc_server_refuse(
            s, &r, code == FC_ERR_INPUT ? FC_REFUSED_REQUEST : FC_REFUSED_VERSION, fault.text);
    }
    fc_frame_release(&r.frame);
    return code == FC_OK ? FC_OK : fc_fail(err, code, "server: %s", fault.text);
}
