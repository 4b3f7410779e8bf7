/* Packed training batches: samples lie end to end, attention never crosses a boundary, no padding
 * token is ever computed. Host memory; engine/transformer.h uploads it. */
#ifndef FC_ENGINE_BATCH_H
#define FC_ENGINE_BATCH_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The two tasks of FedCoT's multi-task loss. */
enum fc_task { FC_TASK_PREDICT, FC_TASK_EXPLAIN, FC_TASKS };

/* One training sequence: a prompt and the target that follows it. Tokens first_target .. n-1 are
 * learned (each predicted from the token before it, so first_target >= 1). */
struct fc_sample {
    int32_t *ids;
    size_t n, first_target;
    enum fc_task task;
};

struct fc_batch {
    size_t T, B, n_targets; /* tokens, sequences, targets in use */
    size_t max_T, max_B;
    int32_t *ids, *positions;       /* [max_T] */
    int32_t *starts;                /* [max_B + 1] first row of each sequence; starts[B] = T */
    int32_t *target_rows, *targets; /* [max_T] row that predicts, and the token it should */
    float *weights;                 /* [max_T] of each target in the loss */
    uint8_t *tasks;                 /* [max_T] enum fc_task of each target */
};

/* Room for max_T tokens; max_B = max_T sequences at most. */
enum fc_code fc_batch_create(struct fc_batch *b, size_t max_T, struct fc_error *err);
void fc_batch_free(struct fc_batch *b);
void fc_batch_clear(struct fc_batch *b);

/* Appends a sample, each of its targets with this weight. False when there is no room. The last
 * token of a sample predicts nothing and is still an input row only if it must be: it is left out,
 * so a sample of n tokens takes n - 1 rows. */
bool fc_batch_add(struct fc_batch *b, const struct fc_sample *sample, float weight);

#endif
