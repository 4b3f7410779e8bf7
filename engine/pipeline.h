/* A job as stages joined by bounded queues: read -> perturb -> send -> receive -> decode -> train.
 *
 * Each stage is one thread. It takes items from the queue before it and puts items into the queue
 * behind it; an item is a pointer (to a record, to a device buffer) whose owner is whoever holds
 * it: the stage between take and put, the queue between put and take. A full queue makes its
 * writer wait (back-pressure), an empty one its reader. So stages overlap, and memory is bounded
 * by the capacities.
 *
 * The first error wins and stops every stage; what is left in the queues is destroyed by the
 * writer's destroy function. A stop flag, which a signal handler may set, does the same with
 * FC_ERR_CANCELLED. No wait inside the pipeline outlasts a stop by more than FC_PIPELINE_POLL
 * seconds; a stage that works or waits elsewhere for long asks fc_stage_stopped now and then.
 *
 * One lock serves the whole pipeline: items are coarse (a prompt, a batch), some thousands a
 * second, and a lock costs well under a microsecond. */
#ifndef FC_ENGINE_PIPELINE_H
#define FC_ENGINE_PIPELINE_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Seconds between two looks at the stop flag while a stage waits. */
#define FC_PIPELINE_POLL 0.05

struct fc_pipeline;
struct fc_stage;

/* A stage. Either `process` (called for each item, with an optional `finish` once the input has
 * ended, to flush), or `run`, the whole body, for a stage that makes items from nothing or must do
 * more than wait for its input. Any code but FC_OK stops the pipeline, with one exception: when
 * fc_stage_put has said that nobody wants more, FC_ERR_CANCELLED is a normal end. */
struct fc_stage_spec {
    const char *name; /* in errors and statistics; outlives the pipeline */
    /* Owns `item`: frees it or puts it on, also when it fails. */
    enum fc_code (*process)(struct fc_stage *stage, void *context, void *item,
                            struct fc_error *err);
    enum fc_code (*finish)(struct fc_stage *stage, void *context, struct fc_error *err);
    enum fc_code (*run)(struct fc_stage *stage, void *context, struct fc_error *err);
    void *context;   /* borrowed; used by this stage's thread only, until join */
    size_t capacity; /* items in the queue behind this stage (>= 1; the last stage has none) */
    void (*destroy)(void *item); /* frees an item that this stage has put; any thread may call it */
};

/* Starts n >= 1 threads, stages[0] -> ... -> stages[n-1]. The table is copied. stop may be NULL;
 * otherwise any value but 0 cancels. */
enum fc_code fc_pipeline_start(struct fc_pipeline **p, const struct fc_stage_spec *stages, size_t n,
                               const atomic_int *stop, struct fc_error *err);

/* Waits until every stage has ended and destroys what is left in the queues. The code and text
 * are those of the first error ("STAGE: ..."); FC_ERR_CANCELLED after a stop. May be repeated. */
enum fc_code fc_pipeline_join(struct fc_pipeline *p, struct fc_error *err);

/* Asks every stage to stop; returns at once. From any thread; from a signal handler set the stop
 * flag instead. */
void fc_pipeline_cancel(struct fc_pipeline *p);

/* Cancels and joins if join was not called, then frees. NULL is fine. */
void fc_pipeline_free(struct fc_pipeline *p);

struct fc_stage_stats {
    const char *name;
    uint64_t items_in, items_out;
    uint64_t bytes_in, bytes_out; /* as stated by the writers' puts */
    double busy;                  /* seconds at work: neither of the two below */
    double starved;               /* seconds waiting for input */
    double blocked;               /* seconds waiting for room behind it */
    size_t queued;                /* items in the queue behind it now */
    bool ended;
};
/* From any thread, while it runs or after. stage < n. */
void fc_pipeline_stats(struct fc_pipeline *p, size_t stage, struct fc_stage_stats *stats);
size_t fc_pipeline_stages(const struct fc_pipeline *p);

/* ---- for the functions of a stage, on its own thread ---- */

enum fc_take {
    FC_TAKE_ITEM, /* *item is the stage's now */
    FC_TAKE_NONE, /* nothing came within the timeout */
    FC_TAKE_END,  /* the stage before has ended and its queue is empty (the first stage: always) */
    FC_TAKE_STOPPED /* the pipeline stops: return FC_ERR_CANCELLED */
};
/* Waits at most `timeout` seconds for an item: 0 does not wait, a negative one waits for ever. */
enum fc_take fc_stage_take(struct fc_stage *stage, double timeout, void **item);

/* Hands an item of `bytes` bytes on, waiting for room. Takes ownership in every case. When the
 * pipeline stops or the next stage has ended, the item is destroyed and the answer is
 * FC_ERR_CANCELLED: return it. In the last stage it is FC_ERR_INTERNAL. */
enum fc_code fc_stage_put(struct fc_stage *stage, void *item, size_t bytes);

bool fc_stage_stopped(struct fc_stage *stage);

#endif
