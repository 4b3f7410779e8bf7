#define _POSIX_C_SOURCE 200809L
#include "engine/pipeline.h"

#include "base/clock.h"
#include "base/memory.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

struct slot {
    void *item;
    size_t bytes;
};

/* A ring. `closed` is set by the writer's end, `deserted` by the reader's. */
struct queue {
    struct slot *ring;
    size_t capacity, first, count;
    bool closed, deserted;
    void (*destroy)(void *item);
};

struct fc_stage {
    struct fc_pipeline *pipeline;
    struct fc_stage_spec spec;
    struct queue *in, *out; /* NULL before the first and behind the last stage */
    struct fc_stage_stats stats;
    double started, ended;
    pthread_t thread;
    bool has_thread;
};

struct fc_pipeline {
    pthread_mutex_t lock;   /* guards everything below, but not the specs */
    pthread_cond_t changed; /* any queue, any flag */
    struct fc_stage *stages;
    struct queue *queues; /* queues[i] lies between stages i and i + 1 */
    size_t n;
    const atomic_int *stop;
    bool stopping;
    struct fc_error first_error;
};

/* ---- all of these with the lock held ---- */

static void stop_all(struct fc_pipeline *p, const struct fc_error *why)
{
    if (!p->stopping)
        p->first_error = *why;
    p->stopping = true;
    pthread_cond_broadcast(&p->changed);
}

static void stop_cancelled(struct fc_pipeline *p)
{
    struct fc_error why = {0};
    fc_fail(&why, FC_ERR_CANCELLED, "cancelled");
    stop_all(p, &why);
}

static bool is_stopping(struct fc_pipeline *p)
{
    if (!p->stopping && p->stop && atomic_load(p->stop))
        stop_cancelled(p);
    return p->stopping;
}

/* Waits for a change, at most until `deadline`, and no longer than one look at the flag. */
static void wait_change(struct fc_pipeline *p, double deadline)
{
    double until = fc_now() + FC_PIPELINE_POLL;
    if (deadline < until)
        until = deadline;
    struct timespec t = {.tv_sec = (time_t)until};
    t.tv_nsec = (long)((until - (double)t.tv_sec) * 1e9);
    pthread_cond_timedwait(&p->changed, &p->lock, &t);
}

static struct slot queue_pop(struct queue *q)
{
    struct slot s = q->ring[q->first];
    q->first = (q->first + 1) % q->capacity;
    q->count--;
    return s;
}

static void queue_push(struct queue *q, struct slot s)
{
    q->ring[(q->first + q->count) % q->capacity] = s;
    q->count++;
}

/* ---- what stages call ---- */

enum fc_take fc_stage_take(struct fc_stage *stage, double timeout, void **item)
{
    struct fc_pipeline *p = stage->pipeline;
    struct queue *q = stage->in;
    double begin = fc_now(), deadline = timeout < 0 ? 1e300 : begin + timeout;
    enum fc_take result;
    *item = NULL;
    pthread_mutex_lock(&p->lock);
    while (!is_stopping(p) && q && !q->count && !q->closed && fc_now() < deadline)
        wait_change(p, deadline);
    if (p->stopping) {
        result = FC_TAKE_STOPPED;
    } else if (q && q->count) {
        struct slot s = queue_pop(q);
        *item = s.item;
        stage->stats.items_in++;
        stage->stats.bytes_in += s.bytes;
        pthread_cond_broadcast(&p->changed);
        result = FC_TAKE_ITEM;
    } else {
        result = !q || q->closed ? FC_TAKE_END : FC_TAKE_NONE;
    }
    stage->stats.starved += fc_now() - begin;
    pthread_mutex_unlock(&p->lock);
    return result;
}

enum fc_code fc_stage_put(struct fc_stage *stage, void *item, size_t bytes)
{
    struct fc_pipeline *p = stage->pipeline;
    struct queue *q = stage->out;
    if (!q) {
        if (stage->spec.destroy)
            stage->spec.destroy(item);
        return FC_ERR_INTERNAL;
    }
    double begin = fc_now();
    pthread_mutex_lock(&p->lock);
    while (!is_stopping(p) && !q->deserted && q->count == q->capacity)
        wait_change(p, 1e300);
    bool taken = !p->stopping && !q->deserted;
    if (taken) {
        queue_push(q, (struct slot){item, bytes});
        stage->stats.items_out++;
        stage->stats.bytes_out += bytes;
        pthread_cond_broadcast(&p->changed);
    }
    stage->stats.blocked += fc_now() - begin;
    pthread_mutex_unlock(&p->lock);
    if (!taken && q->destroy)
        q->destroy(item);
    return taken ? FC_OK : FC_ERR_CANCELLED;
}

bool fc_stage_stopped(struct fc_stage *stage)
{
    pthread_mutex_lock(&stage->pipeline->lock);
    bool stopping = is_stopping(stage->pipeline);
    pthread_mutex_unlock(&stage->pipeline->lock);
    return stopping;
}

/* ---- a stage's thread ---- */

static enum fc_code process_all(struct fc_stage *s, struct fc_error *err)
{
    for (;;) {
        void *item;
        enum fc_code code = FC_OK;
        switch (fc_stage_take(s, -1, &item)) {
        case FC_TAKE_ITEM:
            code = s->spec.process(s, s->spec.context, item, err);
            break;
        case FC_TAKE_END:
            return s->spec.finish ? s->spec.finish(s, s->spec.context, err) : FC_OK;
        case FC_TAKE_NONE:
            break;
        case FC_TAKE_STOPPED:
            return FC_ERR_CANCELLED;
        }
        if (code != FC_OK)
            return code;
    }
}

static void *stage_main(void *argument)
{
    struct fc_stage *s = argument;
    struct fc_pipeline *p = s->pipeline;
    struct fc_error err = {0};
    enum fc_code code = s->spec.run ? s->spec.run(s, s->spec.context, &err) : process_all(s, &err);

    pthread_mutex_lock(&p->lock);
    bool unwanted = code == FC_ERR_CANCELLED && s->out && s->out->deserted;
    if (code != FC_OK && !unwanted && !p->stopping) {
        fc_fail(&err, code, "failed (%s)", fc_code_name(code));
        fc_error_prefix(&err, "%s", s->spec.name);
        stop_all(p, &err);
    }
    if (s->out)
        s->out->closed = true;
    if (s->in)
        s->in->deserted = true;
    s->ended = fc_now();
    s->stats.ended = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- life of a pipeline ---- */

static enum fc_code init_lock(struct fc_pipeline *p, struct fc_error *err)
{
    pthread_condattr_t attributes;
    if (pthread_mutex_init(&p->lock, NULL) != 0)
        return fc_fail(err, FC_ERR_MEMORY, "pipeline: cannot make a lock");
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* the clock of fc_now */
    int bad = pthread_cond_init(&p->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (bad) {
        pthread_mutex_destroy(&p->lock);
        return fc_fail(err, FC_ERR_MEMORY, "pipeline: cannot make a condition variable");
    }
    return FC_OK;
}

static enum fc_code connect_stages(struct fc_pipeline *p, const struct fc_stage_spec *specs,
                                   struct fc_error *err)
{
    p->stages = fc_alloc(p->n, sizeof *p->stages, "pipeline stages", err);
    p->queues = fc_alloc(p->n, sizeof *p->queues, "pipeline queues", err);
    if (!p->stages || !p->queues)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < p->n; i++) {
        struct fc_stage *s = &p->stages[i];
        *s = (struct fc_stage){.pipeline = p, .spec = specs[i], .stats.name = specs[i].name};
        s->in = i ? &p->queues[i - 1] : NULL;
        if (!s->spec.run && !s->spec.process)
            return fc_fail(err, FC_ERR_INTERNAL, "stage %s: no function", s->spec.name);
        if (i + 1 == p->n)
            break;
        if (!s->spec.capacity)
            return fc_fail(err, FC_ERR_INTERNAL, "stage %s: capacity 0, expected >= 1",
                           s->spec.name);
        s->out = &p->queues[i];
        s->out->capacity = s->spec.capacity;
        s->out->destroy = s->spec.destroy;
        s->out->ring = fc_alloc(s->spec.capacity, sizeof(struct slot), "pipeline queue", err);
        if (!s->out->ring)
            return FC_ERR_MEMORY;
    }
    return FC_OK;
}

/* Signals that end a program go to the thread that started the pipeline, whose waits they are
 * meant to interrupt. */
static enum fc_code start_threads(struct fc_pipeline *p, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &block, &before);
    for (size_t i = 0; i < p->n && code == FC_OK; i++) {
        struct fc_stage *s = &p->stages[i];
        s->started = fc_now();
        if (pthread_create(&s->thread, NULL, stage_main, s) == 0)
            s->has_thread = true;
        else
            code = fc_fail(err, FC_ERR_MEMORY, "stage %s: cannot start a thread", s->spec.name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

enum fc_code fc_pipeline_start(struct fc_pipeline **out, const struct fc_stage_spec *stages,
                               size_t n, const atomic_int *stop, struct fc_error *err)
{
    *out = NULL;
    struct fc_pipeline *p = fc_alloc(1, sizeof *p, "pipeline", err);
    if (!p)
        return FC_ERR_MEMORY;
    p->n = n;
    p->stop = stop;
    enum fc_code code = init_lock(p, err);
    if (code != FC_OK) {
        free(p);
        return code;
    }
    code = connect_stages(p, stages, err);
    if (code == FC_OK)
        code = start_threads(p, err);
    if (code != FC_OK)
        fc_pipeline_free(p);
    else
        *out = p;
    return code;
}

enum fc_code fc_pipeline_join(struct fc_pipeline *p, struct fc_error *err)
{
    for (size_t i = 0; p->stages && i < p->n; i++) {
        if (p->stages[i].has_thread)
            pthread_join(p->stages[i].thread, NULL);
        p->stages[i].has_thread = false;
    }
    for (size_t i = 0; p->queues && i + 1 < p->n; i++)
        while (p->queues[i].count) {
            struct slot s = queue_pop(&p->queues[i]);
            if (p->queues[i].destroy)
                p->queues[i].destroy(s.item);
        }
    if (p->first_error.code == FC_OK)
        return FC_OK;
    return fc_fail(err, p->first_error.code, "%s", p->first_error.text);
}

void fc_pipeline_cancel(struct fc_pipeline *p)
{
    pthread_mutex_lock(&p->lock);
    stop_cancelled(p);
    pthread_mutex_unlock(&p->lock);
}

void fc_pipeline_free(struct fc_pipeline *p)
{
    if (!p)
        return;
    fc_pipeline_cancel(p);
    fc_pipeline_join(p, NULL);
    for (size_t i = 0; p->queues && i < p->n; i++)
        free(p->queues[i].ring);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p->stages);
    free(p->queues);
    free(p);
}

size_t fc_pipeline_stages(const struct fc_pipeline *p)
{
    return p->n;
}

void fc_pipeline_stats(struct fc_pipeline *p, size_t stage, struct fc_stage_stats *stats)
{
    struct fc_stage *s = &p->stages[stage];
    pthread_mutex_lock(&p->lock);
    *stats = s->stats;
    stats->queued = s->out ? s->out->count : 0;
    stats->busy =
        (stats->ended ? s->ended : fc_now()) - s->started - stats->starved - stats->blocked;
    pthread_mutex_unlock(&p->lock);
}
