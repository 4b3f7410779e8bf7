#include "engine/batch.h"

#include "base/memory.h"

enum fc_code fc_batch_create(struct fc_batch *b, size_t max_T, struct fc_error *err)
{
    *b = (struct fc_batch){.max_T = max_T, .max_B = max_T};
    b->ids = fc_alloc(max_T, sizeof *b->ids, "batch", err);
    b->positions = fc_alloc(max_T, sizeof *b->positions, "batch", err);
    b->starts = fc_alloc(max_T + 1, sizeof *b->starts, "batch", err);
    b->target_rows = fc_alloc(max_T, sizeof *b->target_rows, "batch", err);
    b->targets = fc_alloc(max_T, sizeof *b->targets, "batch", err);
    b->weights = fc_alloc(max_T, sizeof *b->weights, "batch", err);
    b->tasks = fc_alloc(max_T, sizeof *b->tasks, "batch", err);
    if (b->ids && b->positions && b->starts && b->target_rows && b->targets && b->weights &&
        b->tasks)
        return FC_OK;
    fc_batch_free(b);
    return FC_ERR_MEMORY;
}

void fc_batch_free(struct fc_batch *b)
{
    free(b->ids);
    free(b->positions);
    free(b->starts);
    free(b->target_rows);
    free(b->targets);
    free(b->weights);
    free(b->tasks);
    *b = (struct fc_batch){0};
}

void fc_batch_clear(struct fc_batch *b)
{
    b->T = b->B = b->n_targets = 0;
}

bool fc_batch_add(struct fc_batch *b, const struct fc_sample *sample, float weight)
{
    size_t rows = sample->n - 1;
    if (rows > b->max_T - b->T || b->B == b->max_B)
        return false;
    for (size_t i = 0; i < rows; i++) {
        size_t row = b->T + i;
        b->ids[row] = sample->ids[i];
        b->positions[row] = (int32_t)i;
        if (i + 1 < sample->first_target)
            continue;
        b->target_rows[b->n_targets] = (int32_t)row;
        b->targets[b->n_targets] = sample->ids[i + 1];
        b->weights[b->n_targets] = weight;
        b->tasks[b->n_targets] = (uint8_t)sample->task;
        b->n_targets++;
    }
    b->starts[b->B++] = (int32_t)b->T;
    b->T += rows;
    b->starts[b->B] = (int32_t)b->T;
    return true;
}
