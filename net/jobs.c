#include "net/jobs.h"

#include "base/memory.h"

#include <string.h>

static void list_init(struct fc_link *head)
{
    head->next = head->previous = head;
}

static void list_append(struct fc_link *head, struct fc_link *l)
{
    l->previous = head->previous;
    l->next = head;
    head->previous->next = l;
    head->previous = l;
}

/* Also right for a link that is alone. */
static void list_remove(struct fc_link *l)
{
    l->previous->next = l->next;
    l->next->previous = l->previous;
    list_init(l);
}

enum fc_code fc_jobs_init(struct fc_jobs *t, size_t max_jobs, size_t max_items,
                          struct fc_error *err)
{
    *t = (struct fc_jobs){.max_jobs = max_jobs, .max_items = max_items, .n_buckets = 16};
    while (t->n_buckets < max_items)
        t->n_buckets *= 2;
    list_init(&t->free_items);
    t->jobs = fc_alloc(max_jobs, sizeof *t->jobs, "server: jobs", err);
    t->items = fc_alloc(max_items, sizeof *t->items, "server: items", err);
    t->buckets = fc_alloc(t->n_buckets, sizeof *t->buckets, "server: items", err);
    if (!t->jobs || !t->items || !t->buckets) {
        fc_jobs_free(t);
        return FC_ERR_MEMORY;
    }
    for (size_t i = 0; i < max_items; i++) {
        list_init(&t->items[i].in_queue);
        list_append(&t->free_items, &t->items[i].in_job);
        t->items[i].id = i; /* see fc_item_by_id */
    }
    t->count[FC_ITEM_FREE] = max_items;
    return FC_OK;
}

void fc_jobs_free(struct fc_jobs *t)
{
    for (size_t i = 0; t->jobs && i < t->max_jobs; i++)
        if (t->jobs[i].used)
            fc_job_remove(t, &t->jobs[i]);
    free(t->jobs);
    free(t->items);
    free(t->buckets);
    *t = (struct fc_jobs){0};
}

/* ---- jobs: few, so a search is a scan ---- */

struct fc_job *fc_job_find(struct fc_jobs *t, const unsigned char id[FC_JOB_ID_SIZE])
{
    for (size_t i = 0; i < t->max_jobs; i++)
        if (t->jobs[i].used && memcmp(t->jobs[i].id, id, FC_JOB_ID_SIZE) == 0)
            return &t->jobs[i];
    return NULL;
}

struct fc_job *fc_job_add(struct fc_jobs *t, const unsigned char id[FC_JOB_ID_SIZE])
{
    for (size_t i = 0; i < t->max_jobs; i++) {
        struct fc_job *job = &t->jobs[i];
        if (job->used)
            continue;
        *job = (struct fc_job){.used = true};
        memcpy(job->id, id, FC_JOB_ID_SIZE);
        list_init(&job->items);
        list_init(&job->waiting);
        list_init(&job->ready);
        t->n_jobs++;
        return job;
    }
    return NULL;
}

void fc_job_remove(struct fc_jobs *t, struct fc_job *job)
{
    while (job->items.next != &job->items)
        fc_item_remove(t, FC_LINKED(job->items.next, struct fc_item, in_job));
    job->used = false;
    t->n_jobs--;
}

void fc_job_take_over(struct fc_job *job, uint64_t client)
{
    job->previous_client = job->client;
    job->client = client;
    job->last_sequence = 0;
    job->poll.parked = false;
    for (struct fc_link *l = job->items.next; l != &job->items; l = l->next) {
        struct fc_item *item = FC_LINKED(l, struct fc_item, in_job);
        item->claimed = false;
        if (item->state == FC_ITEM_DONE)
            list_remove(&item->in_queue);
    }
}

/* ---- items ---- */

static struct fc_item **bucket_of(struct fc_jobs *t, const struct fc_job *job, uint64_t index)
{
    /* The multiplier is 2^64 / golden ratio: neighbours go far apart (Knuth vol. 3, 6.4). A client
     * that chooses bad indexes on purpose makes chains of its own items, at most job_items long. */
    uint64_t h = (index + (uint64_t)(job - t->jobs) * UINT64_C(0x632BE59BD9B4E019)) *
                 UINT64_C(0x9E3779B97F4A7C15);
    return &t->buckets[(h >> 20) & (t->n_buckets - 1)];
}

struct fc_item *fc_item_find(struct fc_jobs *t, const struct fc_job *job, uint64_t index)
{
    struct fc_item *item = *bucket_of(t, job, index);
    while (item && (item->job != job || item->index != index))
        item = item->chain;
    return item;
}

/* Ids are slot + k * max_items with k growing at each use of the slot: found without a search, and
 * a late answer for a former user of the slot finds nothing. */
struct fc_item *fc_item_by_id(struct fc_jobs *t, uint64_t id)
{
    struct fc_item *item = &t->items[id % t->max_items];
    return item->state != FC_ITEM_FREE && item->id == id ? item : NULL;
}

static void set_state(struct fc_jobs *t, struct fc_item *item, enum fc_item_state state)
{
    t->count[item->state]--;
    t->count[state]++;
    if (item->job) {
        item->job->n_waiting -= item->state == FC_ITEM_WAITING;
        item->job->n_waiting += state == FC_ITEM_WAITING;
    }
    item->state = state;
}

/* Puts another text in place of the item's and returns the old one. */
static char *swap_text(struct fc_jobs *t, struct fc_item *item, char *text, size_t n_text)
{
    char *old = item->text;
    t->bytes = t->bytes - item->n_text + n_text;
    item->job->bytes = item->job->bytes - item->n_text + n_text;
    item->text = text;
    item->n_text = n_text;
    return old;
}

struct fc_item *fc_item_add(struct fc_jobs *t, struct fc_job *job, uint64_t index,
                            const char *prompt, size_t n_prompt, struct fc_submission *batch,
                            struct fc_error *err)
{
    if (t->free_items.next == &t->free_items) {
        fc_fail(err, FC_ERR_MEMORY, "server: all %zu places for items are taken", t->max_items);
        return NULL;
    }
    char *text = fc_strndup(prompt, n_prompt, err);
    if (!text)
        return NULL;
    struct fc_item *item = FC_LINKED(t->free_items.next, struct fc_item, in_job);
    list_remove(&item->in_job);
    item->id += t->max_items;
    item->job = job;
    item->index = index;
    item->claimed = true;
    item->delivery = 0;
    item->when = item->day = 0;
    item->kept = item->cost = item->reserved = 0;
    item->batch = batch;
    if (batch)
        batch->references++;
    swap_text(t, item, text, n_prompt);
    set_state(t, item, FC_ITEM_WAITING);
    struct fc_item **bucket = bucket_of(t, job, index);
    item->chain = *bucket;
    *bucket = item;
    list_append(&job->items, &item->in_job);
    list_append(&job->waiting, &item->in_queue);
    job->n_items++;
    return item;
}

static void deliver(struct fc_item *item)
{
    item->delivery = ++item->job->deliveries;
    list_append(&item->job->ready, &item->in_queue);
}

void fc_item_claim(struct fc_item *item)
{
    if (item->claimed)
        return;
    item->claimed = true;
    if (item->state == FC_ITEM_DONE)
        deliver(item);
}

char *fc_item_run(struct fc_jobs *t, struct fc_item *item)
{
    list_remove(&item->in_queue);
    set_state(t, item, FC_ITEM_RUNNING);
    return swap_text(t, item, NULL, 0);
}

void fc_item_unrun(struct fc_jobs *t, struct fc_item *item, char *prompt, size_t n_prompt)
{
    list_append(item->job->waiting.next, &item->in_queue); /* before the first */
    set_state(t, item, FC_ITEM_WAITING);
    swap_text(t, item, prompt, n_prompt);
}

void fc_item_finish(struct fc_jobs *t, struct fc_item *item, char *text, size_t n_text,
                    size_t n_tokens, enum fc_answer_finish finish)
{
    list_remove(&item->in_queue);
    free(swap_text(t, item, text, n_text));
    set_state(t, item, FC_ITEM_DONE);
    item->n_tokens = n_tokens;
    item->finish = finish;
    fc_submission_release(item->batch);
    item->batch = NULL;
    if (item->claimed)
        deliver(item);
}

void fc_item_remove(struct fc_jobs *t, struct fc_item *item)
{
    struct fc_item **p = bucket_of(t, item->job, item->index);
    while (*p != item)
        p = &(*p)->chain;
    *p = item->chain;
    list_remove(&item->in_queue);
    list_remove(&item->in_job);
    item->job->n_items--;
    free(swap_text(t, item, NULL, 0));
    fc_submission_release(item->batch);
    item->batch = NULL;
    set_state(t, item, FC_ITEM_FREE);
    item->job = NULL;
    list_append(&t->free_items, &item->in_job);
}

void fc_submission_release(struct fc_submission *batch)
{
    if (!batch || --batch->references)
        return;
    cJSON_Delete(batch->tree);
    free(batch);
}
