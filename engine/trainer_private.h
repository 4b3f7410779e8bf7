/* The trainer's state, shared by trainer.c and checkpoint.c. */
#ifndef FC_ENGINE_TRAINER_PRIVATE_H
#define FC_ENGINE_TRAINER_PRIVATE_H

#include "engine/graphs.h"
#include "engine/staging.h"
#include "engine/trainer.h"

enum { FC_RANGES = 2 }; /* of parameters: with weight decay, and without */

struct fc_trainer {
    struct fc_model *model;
    struct fc_trainer_options options;
    struct fc_transformer *transformer;
    struct fc_batch batches[2]; /* one is packed while the device works on the other */
    float *master;              /* [total] device; model->weights itself in FC_F32 */
    float *gradients;           /* [total] device */
    float *m, *v;               /* [total] device */
    double *norm;               /* [1 + 1024] device: result and scratch of the gradient norm */
    double *norm_host;          /* [1] host memory of the device's copies */
    struct fc_adamw_step *how;  /* [FC_RANGES] device: the update at hand */
    struct fc_staging staging;  /* blocks of what `how` holds */
    struct fc_graphs graphs;    /* the update, which has one shape: its buffers live as long as t */
    size_t done;                /* steps */
    float loss_scale;           /* of fp16; 1 otherwise */
    size_t good_steps;          /* since the scale last changed */
};

/* AdamW over all parameters, which also rounds the weights. `how` with everything but the weight
 * decay, which differs by range, and the rounding. */
void fc_trainer_update(struct fc_trainer *t, struct fc_adamw how);

#endif
