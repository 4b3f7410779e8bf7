/* A training run: epochs over examples in a seeded order, steps of a wanted number of tokens,
 * checkpoints and resume. Examples may still be on their way: the source is asked for them in the
 * order in which they are needed and may wait, so training starts while rationales still arrive,
 * and yet the result does not depend on when they do. */
#ifndef FC_ENGINE_TRAINING_H
#define FC_ENGINE_TRAINING_H

#include "engine/samples.h"
#include "engine/trainer.h"

struct fc_training_options {
    struct fc_trainer_options trainer;
    size_t tokens_per_step;  /* examples are added to a step until it has this many tokens */
    size_t epochs;           /* over all examples; used when steps is 0 */
    size_t steps;            /* optimizer steps; 0: by epochs */
    uint64_t seed;           /* of the order of examples */
    const char *checkpoint;  /* file for fc_trainer_save; NULL: none */
    size_t checkpoint_every; /* steps between checkpoints; 0: only at the end */
    const char *tag;         /* see fc_trainer_save; needed with a checkpoint */
    bool resume;             /* continue from the checkpoint if the file exists */
};

/* Gives example `index` (0 .. n-1), waiting for it if it must; the item stays valid until the run
 * ends. An error ends the run. */
typedef enum fc_code fc_item_source(void *context, size_t index, const struct fc_train_item **item,
                                    struct fc_error *err);

/* Called after each step; `progress` is the part of the run that is done. Returning anything but
 * FC_OK stops the run after a checkpoint (FC_ERR_CANCELLED for a signal), as an error of the source
 * does. */
typedef enum fc_code fc_step_fn(void *context, const struct fc_step_metrics *metrics,
                                double progress, struct fc_error *err);

/* The order of examples in an epoch: a permutation of 0 .. n-1 that depends on (seed, epoch). The
 * stage that sends prompts uses it too, so that what is needed first is generated first. */
void fc_training_order(size_t *order, size_t n, uint64_t seed, size_t epoch);

/* Trains the model in place. *steps_done counts the steps of the whole run, those before a resume
 * included. FC_ERR_INPUT when no example has anything to learn. */
enum fc_code fc_training_run(struct fc_model *model, const struct fc_training_options *options,
                             size_t n, fc_item_source *source, void *source_context,
                             fc_step_fn *on_step, void *step_context, size_t *steps_done,
                             struct fc_error *err);

#endif
