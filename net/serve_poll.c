/* POLL: answers go out, as soon as there are some; acknowledged ones are forgotten. */
#include "net/server_private.h"

#include "base/clock.h"

#include <math.h>

#define RESULTS_PER_ANSWER 256         /* a chunk */
#define RESULT_BYTES ((size_t)1 << 20) /* soft: a chunk ends after the text that passes it */
#define MAX_WAIT 30.0                  /* seconds that a poll may be parked */

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
        code = fc_server_answer(s, &job->poll.route, FC_MSG_POLL + FC_MSG_ANSWER,
                                job->poll.sequence, header, err);
    fc_text_clear(&s->body);
    cJSON_Delete(header);
    return code;
}

static enum fc_code forget_stored(struct fc_server_request *r, struct fc_error *err)
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
        if (item && item->state == FC_ITEM_DONE) {
            fc_results_forget(&r->server->results, item);
            fc_item_remove(&r->server->table, item);
        }
    }
    return FC_OK;
}

/* Parks the poll; fc_server_answer_parked decides when to answer it, also at once. */
enum fc_code fc_serve_poll(struct fc_server_request *r, struct fc_error *err)
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
            if (code == FC_ERR_MEMORY) { /* not parked any more: its client asks again */
                fc_text_free(&s->out);
                fc_text_free(&s->body);
            } else if (code != FC_OK) {
                return code;
            }
        } else {
            *next_deadline = fmin(*next_deadline, job->poll.deadline);
        }
    }
    return FC_OK;
}
