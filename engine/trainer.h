/* Multi-task training: AdamW steps over packed micro-batches, with a schedule, clipping, and state
 * that resumes bit for bit.
 *
 * The loss of a step is sum over tasks of task_weight * (mean cross-entropy over that task's own
 * target tokens in the whole step), across micro-batches (FedCoT, arXiv 2406.12403, equation of
 * section 3.3: alpha weighs explain against predict). */
#ifndef FC_ENGINE_TRAINER_H
#define FC_ENGINE_TRAINER_H

#include "engine/transformer.h"

enum fc_schedule { FC_SCHEDULE_CONSTANT, FC_SCHEDULE_LINEAR, FC_SCHEDULE_COSINE };

struct fc_trainer_options {
    float lr, beta1, beta2, eps, weight_decay;
    float clip;                /* largest global gradient norm; 0: no clipping */
    enum fc_schedule schedule; /* stays, falls to 0 linearly, or by cosine, over the whole run */
    size_t warmup;             /* the first steps are scaled by step / warmup on top */
    size_t tokens_per_batch;   /* rows of a micro-batch: bounds the memory of activations */
    float task_weight[FC_TASKS];
    bool fp8; /* forward products in fp8: fc_transformer_use_fp8 */
    /* Of fp16 only: gradients of activations would vanish in it, so the loss is multiplied by a
     * scale, and the gradients of the weights, which are fp32, are divided by it again. The scale
     * begins here, is halved when gradients overflow, and doubled after so many steps without. */
    float loss_scale;
    size_t loss_scale_steps;
    /* Round 16-bit weights up or down at random after each step, by what is cut off, so that
     * changes smaller than half a unit are not lost on the average (struct fc_adamw). The draws
     * depend on seed, step and place alone: a resumed run rounds alike. */
    bool stochastic;
    uint64_t seed;
};

/* lr 5e-5, betas 0.9 and 0.999, eps 1e-8, no decay, clip 1, constant, no warm-up, 2048 tokens a
 * micro-batch, task weights 1; loss scale 65536, doubled after 2000 good steps. */
struct fc_trainer_options fc_trainer_defaults(void);

/* What one step did. */
struct fc_step_metrics {
    size_t step;                /* 1 for the first */
    double loss;                /* weighted sum over tasks */
    double task_loss[FC_TASKS]; /* mean over the task's targets; 0 when it had none */
    size_t targets[FC_TASKS], tokens;
    double gradient_norm; /* before clipping */
    float lr;
    float loss_scale;      /* that this step's gradients had; 1 unless fp16 */
    size_t overflows;      /* times that the step was run again with half the scale */
    double seconds, flops; /* flops: fc_transformer_flops */
};

struct fc_trainer;

/* The model's weights are trained in place (packed copies go stale: pack again afterwards). With
 * dtype FC_F32 the weights are their own master. */
enum fc_code fc_trainer_create(struct fc_trainer **t, struct fc_model *model,
                               const struct fc_trainer_options *options, struct fc_error *err);
void fc_trainer_free(struct fc_trainer *t); /* NULL is fine */

/* One optimizer step over these samples, in this order. `progress` is the part of the whole run
 * that lies before this step, 0 to 1: where the schedule stands (a share and not a step number,
 * because a run over data that still arrives does not know its number of steps). A sample is longer
 * than one token and at most tokens_per_batch + 1 (FC_ERR_USAGE otherwise: cut it first). Samples
 * with nothing to learn are FC_ERR_USAGE too. FC_ERR_INPUT when the loss or the gradient is not
 * finite: weights and moments are then as they were before the step. In fp16 gradients that
 * overflow are thrown away, and the same samples run again with half the scale: no sample is lost,
 * and a step is a step; FC_ERR_INPUT when they overflow without any scale. */
enum fc_code fc_trainer_step(struct fc_trainer *t, const struct fc_sample *const *samples, size_t n,
                             double progress, struct fc_step_metrics *metrics,
                             struct fc_error *err);

size_t fc_trainer_steps_done(const struct fc_trainer *t);

/* The learning rate of step `step` (1 for the first) at this progress. */
float fc_trainer_lr(const struct fc_trainer_options *o, size_t step, double progress);

/* The fp32 master weights (the weights themselves in FC_F32), in the parameter table's layout,
 * copied to host memory [params.total]. */
enum fc_code fc_trainer_master(struct fc_trainer *t, float *host, struct fc_error *err);

/* Writes master weights, moments, step count and loss scale to one file, whole or not at all; load
 * restores them and the model's weights. `tag` (at most 255 bytes) is stored beside them: load
 * returns FC_ERR_INPUT if the file's tag differs (another model, data or configuration) or the file
 * is damaged. `note` (at most 1023 bytes, may be NULL) is stored too and given back: the caller's
 * own position in its data. Format: docs in engine/checkpoint.c. */
enum fc_code fc_trainer_save(struct fc_trainer *t, const char *path, const char *tag,
                             const char *note, struct fc_error *err);
enum fc_code fc_trainer_load(struct fc_trainer *t, const char *path, const char *tag, char *note,
                             size_t note_size, struct fc_error *err);

#endif
