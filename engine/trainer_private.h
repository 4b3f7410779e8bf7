/* The trainer's state, shared by trainer.c and checkpoint.c. */
#ifndef FC_ENGINE_TRAINER_PRIVATE_H
#define FC_ENGINE_TRAINER_PRIVATE_H

#include "engine/trainer.h"

struct fc_trainer {
    struct fc_model *model;
    struct fc_trainer_options options;
    struct fc_transformer *transformer;
    struct fc_batch batch;
    float *master;    /* [total] device; model->weights itself in FC_F32 */
    float *gradients; /* [total] device */
    float *m, *v;     /* [total] device */
    double *norm;     /* [1 + 1024] device: result and scratch of the gradient norm */
    float *losses;    /* [tokens_per_batch] host */
    size_t done;      /* steps */
};

#endif
