#include "net/admission.h"

#include "base/memory.h"

#include <math.h>
#include <nanomsg/nn.h>
#include <string.h>

#define NAMED_PLACES 4096 /* for clients whose budget of today must be remembered */
#define BYTES_PER_TOKEN 4 /* of a prompt, roughly */
#define SECONDS_PER_DAY 86400

enum fc_code fc_admission_init(struct fc_admission *a, size_t max_jobs, size_t max_bytes,
                               struct fc_error *err)
{
    *a = (struct fc_admission){.n = max_jobs + NAMED_PLACES, .max_bytes = max_bytes};
    a->parties = fc_alloc(a->n, sizeof *a->parties, "server: clients", err);
    return a->parties ? FC_OK : FC_ERR_MEMORY;
}

void fc_admission_free(struct fc_admission *a)
{
    free(a->parties);
    *a = (struct fc_admission){0};
}

/* ---- parties ---- */

/* The first number of the route names the connection, as long as it lives (nanomsg, xrep.c). */
static void connection_key(unsigned char key[FC_KEY_SIZE], const struct fc_route *route)
{
    size_t at = sizeof(struct nn_cmsghdr) + sizeof(size_t);
    memset(key, 0, FC_KEY_SIZE);
    if (route->len >= at + 4)
        memcpy(key, route->control + at, 4);
}

static bool has_jobs(const struct fc_jobs *t, const struct fc_party *p)
{
    for (size_t i = 0; i < t->max_jobs; i++)
        if (t->jobs[i].used && t->jobs[i].party == p)
            return true;
    return false;
}

/* A place that nobody needs: empty, or of a connection without jobs. `today` is the newest day
 * seen: budgets of earlier ones are over. */
static struct fc_party *free_place(struct fc_admission *a, const struct fc_jobs *t)
{
    int64_t today = 0;
    for (size_t i = 0; i < a->n; i++) {
        if (!a->parties[i].used)
            return &a->parties[i];
        if (a->parties[i].day > today)
            today = a->parties[i].day;
    }
    for (size_t i = 0; i < a->n; i++) {
        const struct fc_party *p = &a->parties[i];
        if ((!p->named || !p->tokens || p->day < today) && !has_jobs(t, p))
            return &a->parties[i];
    }
    return NULL;
}

static struct fc_party *find_or_make(struct fc_admission *a, const struct fc_jobs *t, bool named,
                                     const unsigned char key[FC_KEY_SIZE])
{
    for (size_t i = 0; i < a->n && a->parties[i].used; i++) /* places are never emptied */
        if (a->parties[i].named == named && memcmp(a->parties[i].key, key, FC_KEY_SIZE) == 0)
            return &a->parties[i];
    struct fc_party *p = free_place(a, t);
    if (!p)
        return NULL;
    *p = (struct fc_party){.used = true, .named = named, .service = a->clock, .refilled = -1};
    memcpy(p->key, key, FC_KEY_SIZE);
    return p;
}

struct fc_party *fc_party_of(struct fc_admission *a, const struct fc_jobs *t,
                             const struct fc_client_identity *who, const struct fc_route *route)
{
    unsigned char key[FC_KEY_SIZE];
    if (who->name[0])
        return find_or_make(a, t, true, who->key);
    connection_key(key, route);
    return find_or_make(a, t, false, key);
}

bool fc_party_restore(struct fc_admission *a, const struct fc_jobs *t,
                      const unsigned char key[FC_KEY_SIZE], int64_t day, uint64_t spent)
{
    struct fc_party *p = find_or_make(a, t, true, key);
    if (!p)
        return false;
    p->day = day;
    p->tokens = spent;
    return true;
}

size_t fc_admission_parties(const struct fc_jobs *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->max_jobs; i++) {
        bool first = t->jobs[i].used && t->jobs[i].party;
        for (size_t k = 0; k < i && first; k++)
            first = !t->jobs[k].used || t->jobs[k].party != t->jobs[i].party;
        n += first;
    }
    return n;
}

/* ---- room ---- */

bool fc_party_has_job_room(const struct fc_jobs *t, const struct fc_party *p)
{
    size_t held = 0;
    for (size_t i = 0; i < t->max_jobs; i++)
        held += t->jobs[i].used && t->jobs[i].party == p;
    return held <= t->max_jobs - t->n_jobs;
}

bool fc_party_has_item_room(const struct fc_admission *a, const struct fc_jobs *t,
                            const struct fc_party *p, size_t bytes)
{
    size_t items = 0, held = 0, left = t->bytes < a->max_bytes ? a->max_bytes - t->bytes : 0;
    for (size_t i = 0; i < t->max_jobs; i++)
        if (t->jobs[i].used && t->jobs[i].party == p) {
            items += t->jobs[i].n_items;
            held += t->jobs[i].bytes;
        }
    return items <= t->count[FC_ITEM_FREE] && (held == 0 || held + bytes <= left);
}

/* ---- budgets ---- */

bool fc_party_spend(struct fc_party *p, const struct fc_client_identity *who, size_t max_tokens,
                    double now, int64_t wall, double *retry)
{
    if (who->rate > 0) {
        double most = fmax(1, who->rate * FC_RATE_BURST);
        p->prompts =
            p->refilled < 0 ? most : fmin(most, p->prompts + (now - p->refilled) * who->rate);
        p->refilled = now;
        if (p->prompts < 1) {
            *retry = (1 - p->prompts) / who->rate;
            return false;
        }
    }
    int64_t day = wall / SECONDS_PER_DAY;
    if (day > p->day) {
        p->day = day;
        p->tokens = p->reserved = 0;
    }
    if (who->tokens_per_day &&
        (p->tokens >= who->tokens_per_day || max_tokens > who->tokens_per_day - p->tokens)) {
        *retry = (double)((p->day + 1) * SECONDS_PER_DAY - wall);
        return false;
    }
    if (who->rate > 0)
        p->prompts -= 1;
    p->tokens += max_tokens;
    p->reserved += max_tokens;
    return true;
}

/* ---- turns ---- */

struct fc_item *fc_admission_next(struct fc_admission *a, struct fc_jobs *t)
{
    const struct fc_job *best = NULL;
    for (size_t i = 0; i < t->max_jobs && t->count[FC_ITEM_WAITING]; i++) {
        const struct fc_job *job = &t->jobs[i];
        if (!job->used || !job->n_waiting)
            continue;
        if (!best || job->party->service < best->party->service ||
            (job->party == best->party && job->service < best->service))
            best = job;
    }
    if (!best)
        return NULL;
    a->clock = fmax(a->clock, best->party->service);
    best->party->job_clock = fmax(best->party->job_clock, best->service);
    return FC_LINKED(best->waiting.next, struct fc_item, in_queue);
}

void fc_admission_arrive(struct fc_admission *a, const struct fc_jobs *t, struct fc_job *job)
{
    if (job->n_waiting)
        return;
    job->service = fmax(job->service, job->party->job_clock);
    bool idle = true;
    for (size_t i = 0; i < t->max_jobs && idle; i++)
        idle = !t->jobs[i].used || t->jobs[i].party != job->party || !t->jobs[i].n_waiting;
    if (idle) /* what it did not use meanwhile is nobody's debt */
        job->party->service = fmax(job->party->service, a->clock);
}

static void charge(struct fc_job *job, double tokens)
{
    job->service += tokens;
    if (job->party)
        job->party->service += tokens;
}

void fc_admission_give(struct fc_item *item)
{
    item->cost = item->n_text / BYTES_PER_TOKEN + item->batch->sampling.max_tokens;
    charge(item->job, (double)item->cost);
    item->job->party->given++;
}

void fc_admission_settle(struct fc_item *item, bool finished, size_t n_tokens)
{
    struct fc_party *p = item->job->party;
    size_t unused = item->reserved > n_tokens ? item->reserved - n_tokens : 0;
    bool running = item->state == FC_ITEM_RUNNING;
    if (running && finished)
        charge(item->job, -(double)unused);
    if (p && item->reserved && p->day == item->day) {
        p->tokens -= finished || !running ? unused : 0;
        p->reserved -= item->reserved;
        p->unsaved = p->named;
    }
    item->reserved = 0;
}
