/* Above 300 lines: the items of a job, and the requests that move them on. */
#include "base/clock.h"
#include "net/exchange.h"

#include <math.h>
#include <sodium.h>
#include <string.h>

#define MAX_WAIT 10.0    /* seconds that one poll may wait at the server */
#define HEARTBEAT 10.0   /* seconds of silence after which an idle client says a word */
#define FRAME_ITEMS 4096 /* so that a header stays far below its limit */

enum entry_state { ABSENT, UNSENT, SENT, RECEIVED, STORED };

struct entry {
    enum entry_state state;
    uint64_t seed;
    char *text; /* kept until the answer is there */
    size_t n_text;
};

struct fc_client {
    struct fc_exchange x;
    struct fc_client_options options;
    char *stops[FC_MAX_STOPS]; /* what options.sampling.stops points to */
    char *model;
    struct fc_limits limits;

    struct entry *entries; /* by index */
    size_t n_entries, capacity;
    size_t first_unsent; /* no unsent entry lies before it */
    size_t n_unsent, n_sent;
    size_t n_unacked; /* received, and the server still keeps it */
    double hold;      /* the server had no room: no submit before this time */

    size_t *done; /* acknowledged by the caller, not yet told */
    size_t n_done, done_capacity;

    uint64_t after;          /* delivery number up to which answers were received */
    struct fc_answer *chunk; /* answers received and not yet given to the caller */
    size_t n_chunk, at_chunk, chunk_capacity;
    struct fc_text texts; /* what the chunk points to */

    struct fc_text body; /* of the request */
    uint64_t hellos;
    size_t server_waiting, server_running;
};

static enum fc_code ask(struct fc_client *c, int kind, cJSON *header, double wait,
                        struct fc_frame *frame, struct fc_error *err)
{
    enum fc_code code = fc_exchange_ask(&c->x, kind, header, &c->body, wait, frame, err);
    fc_text_clear(&c->body);
    return code;
}

/* ---- HELLO ---- */

static enum fc_code learn(struct fc_client *c, const cJSON *header, struct fc_error *err)
{
    const char *model = NULL;
    size_t protocol = 0;
    enum fc_code code = fc_json_size(header, "protocol", true, &protocol, "hello", err);
    if (code == FC_OK)
        code = fc_json_string(header, "model", true, &model, "hello", err);
    if (code == FC_OK)
        code = fc_limits_read(&c->limits, header, err);
    if (code != FC_OK)
        return code;
    if (protocol != FC_PROTOCOL_VERSION)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: the server speaks protocol %zu and this client %d: use programs of one "
                       "release",
                       c->x.address.text, protocol, FC_PROTOCOL_VERSION);
    if (c->model && strcmp(c->model, model) != 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: the server came back with another model than the job began with: "
                       "start it with the first one, or begin another job",
                       c->x.address.text);
    if (!c->model)
        c->model = fc_strndup(model, strlen(model), err);
    if (!c->model)
        return FC_ERR_MEMORY;
    if (c->options.sampling.max_tokens > c->limits.max_tokens)
        return fc_fail(err, FC_ERR_USAGE, "%s: max tokens %zu, but the server allows %zu",
                       c->x.address.text, c->options.sampling.max_tokens, c->limits.max_tokens);
    return FC_OK;
}

/* After a hello the server may know nothing: whatever has no answer yet is submitted (again). */
static enum fc_code say_hello(struct fc_client *c, struct fc_error *err)
{
    struct fc_frame frame;
    cJSON *header = cJSON_CreateObject();
    enum fc_code code = fc_number_write(header, "protocol", FC_PROTOCOL_VERSION, err);
    if (code != FC_OK) {
        cJSON_Delete(header);
        return code;
    }
    code = ask(c, FC_MSG_HELLO, header, 0, &frame, err);
    if (code == FC_OK)
        code = learn(c, frame.header, err);
    fc_exchange_done(&c->x, &frame);
    if (code != FC_OK)
        return code;
    c->x.greeted = true;
    c->hellos++;
    c->after = 0;
    c->hold = 0; /* what an earlier server said of its room */
    c->first_unsent = 0;
    c->n_unsent += c->n_sent;
    c->n_sent = 0;
    for (size_t i = 0; i < c->n_entries; i++)
        if (c->entries[i].state == SENT)
            c->entries[i].state = UNSENT;
    return FC_OK;
}

/* ---- SUBMIT ---- */

static bool can_submit(const struct fc_client *c)
{
    return c->n_unsent && c->n_sent + c->n_unacked < c->limits.job_items && fc_now() >= c->hold;
}

static size_t next_unsent(const struct fc_client *c, size_t i)
{
    while (i < c->n_entries && c->entries[i].state != UNSENT)
        i++;
    return i;
}

static enum fc_code add_item(struct fc_client *c, cJSON *items, size_t index, struct fc_error *err)
{
    const struct entry *e = &c->entries[index];
    cJSON *o = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(items, o))
        return fc_fail(err, FC_ERR_MEMORY, "submit: out of memory");
    enum fc_code code = fc_number_write(o, "index", (double)index, err);
    if (code == FC_OK)
        code = fc_number_write(o, "bytes", (double)e->n_text, err);
    if (code == FC_OK)
        code = fc_hex64_write(o, "seed", e->seed, err);
    fc_text_add(&c->body, e->text, e->n_text);
    return code;
}

/* Puts as many unsent entries into a frame as it and the server's limits hold. */
static enum fc_code fill_submit(struct fc_client *c, cJSON *header, size_t *count,
                                struct fc_error *err)
{
    size_t most = c->limits.job_items - c->n_sent - c->n_unacked;
    most = most < c->limits.frame_items ? most : c->limits.frame_items;
    most = most < FRAME_ITEMS ? most : FRAME_ITEMS;
    size_t bytes =
        c->limits.frame_bytes < FC_FRAME_MAX_BODY ? c->limits.frame_bytes : FC_FRAME_MAX_BODY;
    cJSON *items = cJSON_AddArrayToObject(header, "items");
    if (!items)
        return fc_fail(err, FC_ERR_MEMORY, "submit: out of memory");
    *count = 0;
    c->first_unsent = next_unsent(c, c->first_unsent);
    for (size_t i = c->first_unsent; i < c->n_entries && *count < most; i = next_unsent(c, i + 1)) {
        if (c->entries[i].n_text > bytes - c->body.len)
            break;
        enum fc_code code = add_item(c, items, i, err);
        if (code != FC_OK)
            return code;
        ++*count;
    }
    if (!*count)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: the server's limit for a frame became smaller than a prompt",
                       c->x.address.text);
    return FC_OK;
}

static enum fc_code accept_submit(struct fc_client *c, const cJSON *header, size_t count,
                                  struct fc_error *err)
{
    size_t accepted = 0;
    enum fc_code code = fc_json_size(header, "accepted", true, &accepted, "submit", err);
    if (code != FC_OK)
        return code;
    if (accepted > count)
        return fc_fail(err, FC_ERR_INPUT, "%s: the server took %zu items of %zu", c->x.address.text,
                       accepted, count);
    double retry_after = -1;
    code = fc_json_double(header, "retry_after", false, &retry_after, "submit", err);
    if (code != FC_OK)
        return code;
    if (accepted < count)
        c->hold =
            fc_now() + (retry_after >= 0 ? fc_exchange_put_off(&c->x, retry_after) : c->x.resend);
    c->n_unsent -= accepted;
    c->n_sent += accepted;
    for (size_t i = c->first_unsent; accepted; i = next_unsent(c, i + 1), accepted--)
        c->entries[i].state = SENT;
    return FC_OK;
}

static enum fc_code submit_some(struct fc_client *c, struct fc_error *err)
{
    struct fc_frame frame;
    size_t count = 0;
    cJSON *header = cJSON_CreateObject();
    enum fc_code code = fc_wire_sampling_write(header, &c->options.sampling, err);
    if (code == FC_OK)
        code = fill_submit(c, header, &count, err);
    if (code != FC_OK) {
        cJSON_Delete(header);
        fc_text_clear(&c->body);
        return code;
    }
    code = ask(c, FC_MSG_SUBMIT, header, 0, &frame, err);
    if (code == FC_OK && frame.header)
        code = accept_submit(c, frame.header, count, err);
    fc_exchange_done(&c->x, &frame);
    return code;
}

/* ---- POLL ---- */

static enum fc_code read_answer(struct fc_client *c, const cJSON *element, size_t *at,
                                struct fc_error *err)
{
    struct fc_answer a = {0};
    uint64_t index;
    enum fc_code code =
        fc_index_read(cJSON_GetObjectItemCaseSensitive(element, "index"), &index, err);
    if (code == FC_OK)
        code = fc_json_size(element, "tokens", true, &a.n_tokens, "answer", err);
    if (code == FC_OK)
        code = fc_json_size(element, "bytes", true, &a.n_text, "answer", err);
    if (code == FC_OK)
        code = fc_answer_finish_read(&a.finish, element, err);
    if (code != FC_OK)
        return code;
    if (a.n_text > c->texts.len - *at)
        return fc_fail(err, FC_ERR_INPUT, "answer: a text of %zu bytes, but %zu are left", a.n_text,
                       c->texts.len - *at);
    a.text = c->texts.data + *at;
    *at += a.n_text;
    if (fc_utf8_prefix(a.text, a.n_text) != a.n_text)
        return fc_fail(err, FC_ERR_INPUT, "answer: a text is not UTF-8");
    struct entry *e = index < c->n_entries ? &c->entries[index] : NULL;
    if (!e || e->state != SENT)
        return FC_OK; /* given up, or known already */
    e->state = RECEIVED;
    free(e->text);
    e->text = NULL;
    c->n_sent--;
    c->n_unacked++;
    a.index = (size_t)index;
    c->chunk[c->n_chunk++] = a;
    return FC_OK;
}

static enum fc_code read_answers(struct fc_client *c, const struct fc_frame *frame,
                                 struct fc_error *err)
{
    const cJSON *items, *element;
    size_t last = 0, at = 0;
    enum fc_code code = fc_array_read(frame->header, "items", FRAME_ITEMS, &items, err);
    if (code == FC_OK)
        code = fc_json_size(frame->header, "last", true, &last, "answer", err);
    if (code == FC_OK)
        code = fc_json_size(frame->header, "waiting", true, &c->server_waiting, "answer", err);
    if (code == FC_OK)
        code = fc_json_size(frame->header, "running", true, &c->server_running, "answer", err);
    if (code != FC_OK)
        return code;
    void *chunk = c->chunk;
    code = fc_grow(&chunk, &c->chunk_capacity, (size_t)cJSON_GetArraySize(items), sizeof *c->chunk,
                   "answers", err);
    c->chunk = chunk;
    c->n_chunk = c->at_chunk = 0;
    fc_text_clear(&c->texts);
    fc_text_add(&c->texts, frame->body, frame->n_body);
    if (code == FC_OK)
        code = fc_text_check(&c->texts, err);
    for (element = items->child; element && code == FC_OK; element = element->next)
        code = read_answer(c, element, &at, err);
    if (code == FC_OK && at != c->texts.len)
        code = fc_fail(err, FC_ERR_INPUT, "answer: %zu bytes of body, but the texts make %zu",
                       c->texts.len, at);
    c->after = last;
    return code;
}

static cJSON *poll_header(const struct fc_client *c, double wait, size_t n_done,
                          struct fc_error *err)
{
    cJSON *header = cJSON_CreateObject();
    cJSON *done = cJSON_AddArrayToObject(header, "done");
    enum fc_code code = done ? FC_OK : fc_fail(err, FC_ERR_MEMORY, "poll: out of memory");
    for (size_t i = 0; i < n_done && code == FC_OK; i++)
        if (!cJSON_AddItemToArray(done, cJSON_CreateNumber((double)c->done[i])))
            code = fc_fail(err, FC_ERR_MEMORY, "poll: out of memory");
    if (code == FC_OK)
        code = fc_number_write(header, "wait_ms", ceil(wait * 1000), err);
    if (code == FC_OK)
        code = fc_number_write(header, "after", (double)c->after, err);
    if (code == FC_OK)
        return header;
    cJSON_Delete(header);
    return NULL;
}

/* Tells what is stored, and receives a chunk. */
static enum fc_code poll_server(struct fc_client *c, double wait, struct fc_error *err)
{
    struct fc_frame frame;
    size_t n_done = c->n_done < c->limits.job_items ? c->n_done : c->limits.job_items;
    n_done = n_done < FRAME_ITEMS ? n_done : FRAME_ITEMS;
    wait = fmax(0, fmin(wait, fmin(MAX_WAIT, c->x.timeout / 4)));
    cJSON *header = poll_header(c, wait, n_done, err);
    if (!header)
        return FC_ERR_MEMORY;
    enum fc_code code = ask(c, FC_MSG_POLL, header, wait, &frame, err);
    if (code == FC_OK && frame.header) {
        c->n_unacked -= n_done;
        c->n_done -= n_done;
        if (c->n_done)
            memmove(c->done, c->done + n_done, c->n_done * sizeof *c->done);
        code = read_answers(c, &frame, err);
    }
    fc_exchange_done(&c->x, &frame);
    return code;
}

/* Keeps the job from ageing out while this client has nothing to ask. */
static enum fc_code heartbeat(struct fc_client *c, struct fc_error *err)
{
    struct fc_frame frame;
    enum fc_code code = ask(c, FC_MSG_STATUS, cJSON_CreateObject(), 0, &frame, err);
    if (code == FC_OK)
        code = fc_json_size(frame.header, "waiting", true, &c->server_waiting, "status", err);
    if (code == FC_OK)
        code = fc_json_size(frame.header, "running", true, &c->server_running, "status", err);
    fc_exchange_done(&c->x, &frame);
    return code;
}

enum fc_code fc_client_next(struct fc_client *c, double timeout, struct fc_answer *answer,
                            bool *found, struct fc_error *err)
{
    double deadline = fc_now() + timeout;
    enum fc_code code = FC_OK;
    *found = false;
    for (bool polled = false; code == FC_OK;) {
        if (c->at_chunk < c->n_chunk) {
            *answer = c->chunk[c->at_chunk++];
            *found = true;
            return FC_OK;
        }
        double now = fc_now();
        bool idle = !c->n_unsent && !c->n_sent;
        if (fc_exchange_cancelled(&c->x))
            return fc_fail(err, FC_ERR_CANCELLED, "cancelled");
        if (idle && !c->n_done && now - c->x.contact < HEARTBEAT)
            return FC_OK;
        if (polled && (idle || now >= deadline))
            return FC_OK;
        if (!c->x.greeted) {
            code = say_hello(c, err);
        } else if (idle && !c->n_done) {
            code = heartbeat(c, err);
            polled = true;
        } else if (can_submit(c)) {
            code = submit_some(c, err);
        } else {
            double wait = idle ? 0 : deadline - now;
            if (c->n_unsent && c->hold > now)
                wait = fmin(wait, c->hold - now);
            code = poll_server(c, wait, err);
            polled = c->x.greeted;
        }
    }
    return code;
}

/* ---- items ---- */

enum fc_code fc_client_submit(struct fc_client *c, size_t index, uint64_t seed,
                              const struct fc_perturbed *prompt, struct fc_error *err)
{
    size_t n_text = 0;
    if (!c->options.may_leave(prompt))
        return fc_fail(err, FC_ERR_BUDGET,
                       "item %zu: this perturbed prompt was not charged in a ledger (a preview): "
                       "it may not be sent",
                       index);
    const char *text = c->options.text(prompt, &n_text);
    if (index > FC_CLIENT_MAX_INDEX)
        return fc_fail(err, FC_ERR_USAGE, "item %zu: expected an index of at most %zu", index,
                       FC_CLIENT_MAX_INDEX);
    if (n_text < 1 || n_text > c->limits.prompt_bytes || n_text > c->limits.frame_bytes)
        return fc_fail(err, FC_ERR_USAGE, "item %zu: a prompt of %zu bytes, expected 1 to %zu",
                       index, n_text, c->limits.prompt_bytes);
    void *entries = c->entries;
    enum fc_code code =
        fc_grow(&entries, &c->capacity, index + 1, sizeof *c->entries, "client: items", err);
    c->entries = entries;
    if (code != FC_OK)
        return code;
    for (; c->n_entries <= index; c->n_entries++)
        c->entries[c->n_entries] = (struct entry){0};
    struct entry *e = &c->entries[index];
    if (e->state != ABSENT)
        return fc_fail(err, FC_ERR_USAGE, "item %zu was submitted before", index);
    e->text = fc_strndup(text, n_text, err);
    if (!e->text)
        return FC_ERR_MEMORY;
    e->state = UNSENT;
    e->seed = seed;
    e->n_text = n_text;
    c->n_unsent++;
    if (index < c->first_unsent)
        c->first_unsent = index;
    return FC_OK;
}

enum fc_code fc_client_ack(struct fc_client *c, size_t index, struct fc_error *err)
{
    if (index >= c->n_entries || c->entries[index].state != RECEIVED)
        return fc_fail(err, FC_ERR_USAGE, "item %zu: there is no answer to acknowledge", index);
    void *done = c->done;
    enum fc_code code = fc_grow(&done, &c->done_capacity, c->n_done + 1, sizeof *c->done,
                                "client: acknowledgements", err);
    c->done = done;
    if (code == FC_OK) {
        c->done[c->n_done++] = index;
        c->entries[index].state = STORED;
    }
    return code;
}

/* Tells the server to forget one item or all. That it does not know the job is as good. */
static enum fc_code tell_cancel(struct fc_client *c, bool all, size_t index, struct fc_error *err)
{
    struct fc_frame frame;
    cJSON *header = cJSON_CreateObject();
    cJSON *items = cJSON_AddArrayToObject(header, "items");
    if (!items || !cJSON_AddBoolToObject(header, "all", all) ||
        (!all && !cJSON_AddItemToArray(items, cJSON_CreateNumber((double)index)))) {
        cJSON_Delete(header);
        return fc_fail(err, FC_ERR_MEMORY, "cancel: out of memory");
    }
    enum fc_code code = ask(c, FC_MSG_CANCEL, header, 0, &frame, err);
    fc_exchange_done(&c->x, &frame);
    return code;
}

enum fc_code fc_client_cancel(struct fc_client *c, size_t index, struct fc_error *err)
{
    struct entry *e = index < c->n_entries ? &c->entries[index] : NULL;
    if (!e || (e->state != UNSENT && e->state != SENT))
        return FC_OK;
    bool sent = e->state == SENT;
    *(sent ? &c->n_sent : &c->n_unsent) -= 1;
    free(e->text);
    *e = (struct entry){0};
    return sent ? tell_cancel(c, false, index, err) : FC_OK;
}

enum fc_code fc_client_finish(struct fc_client *c, struct fc_error *err)
{
    return tell_cancel(c, true, 0, err);
}

size_t fc_client_outstanding(const struct fc_client *c)
{
    return c->n_unsent + c->n_sent + (c->n_chunk - c->at_chunk);
}

/* ---- life ---- */

enum fc_code fc_job_id_random(unsigned char job[FC_JOB_ID_SIZE], struct fc_error *err)
{
    if (sodium_init() < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "client: libsodium cannot start");
    randombytes_buf(job, FC_JOB_ID_SIZE);
    return FC_OK;
}

static enum fc_code copy_stops(struct fc_client *c, struct fc_error *err)
{
    struct fc_wire_sampling *s = &c->options.sampling;
    for (size_t i = 0; i < s->n_stops; i++) {
        c->stops[i] = fc_strndup(s->stops[i], strlen(s->stops[i]), err);
        if (!c->stops[i])
            return FC_ERR_MEMORY;
        s->stops[i] = c->stops[i];
    }
    return FC_OK;
}

enum fc_code fc_client_open(struct fc_client **out, const struct fc_client_options *options,
                            struct fc_error *err)
{
    *out = NULL;
    if (!options->text || !options->may_leave || options->sampling.n_stops > FC_MAX_STOPS)
        return fc_fail(err, FC_ERR_INTERNAL, "client: options without their functions");
    struct fc_client *c = fc_alloc(1, sizeof *c, "client", err);
    if (!c)
        return FC_ERR_MEMORY;
    c->options = *options;
    enum fc_code code = fc_exchange_open(&c->x, options, err);
    if (code == FC_OK)
        code = copy_stops(c, err);
    if (code == FC_OK)
        code = say_hello(c, err);
    if (code != FC_OK)
        fc_client_close(c);
    else
        *out = c;
    return code;
}

void fc_client_close(struct fc_client *c)
{
    if (!c)
        return;
    fc_exchange_close(&c->x);
    for (size_t i = 0; i < c->n_entries; i++)
        free(c->entries[i].text);
    for (size_t i = 0; i < FC_MAX_STOPS; i++)
        free(c->stops[i]);
    free(c->entries);
    free(c->done);
    free(c->chunk);
    fc_text_free(&c->texts);
    fc_text_free(&c->body);
    free(c->model);
    free(c);
}

const char *fc_client_model(const struct fc_client *c)
{
    return c->model;
}

const struct fc_limits *fc_client_limits(const struct fc_client *c)
{
    return &c->limits;
}

void fc_client_stats(const struct fc_client *c, struct fc_client_stats *stats)
{
    *stats = (struct fc_client_stats){.requests = c->x.requests,
                                      .resends = c->x.resends,
                                      .hellos = c->hellos,
                                      .handshakes = c->x.handshakes,
                                      .bytes_in = c->x.bytes_in,
                                      .bytes_out = c->x.bytes_out,
                                      .server_waiting = c->server_waiting,
                                      .server_running = c->server_running};
}
