/* The training pass of every decoder-only family: forward over a packed batch, fused classifier at
 * the target positions, backward into fp32 gradients. One block description (models/config.h), one
 * pass; activations live in one arena sized at creation. */
#ifndef FC_ENGINE_TRANSFORMER_H
#define FC_ENGINE_TRANSFORMER_H

#include "engine/batch.h"
#include "engine/model.h"

struct fc_transformer;

/* Workspace for batches of up to max_T tokens, over a model that outlives it. */
enum fc_code fc_transformer_create(struct fc_transformer **t, struct fc_model *model, size_t max_T,
                                   struct fc_error *err);
void fc_transformer_free(struct fc_transformer *t); /* NULL is fine */

/* From now on the forward products of the blocks (not of the head) are in fp8, see gemm_fp8 of
 * kernels.h; backward ones stay as they are. FC_ERR_UNSUPPORTED where the device has no fp8 or the
 * model a width that is no multiple of 16. */
enum fc_code fc_transformer_use_fp8(struct fc_transformer *t, struct fc_error *err);

/* Forward only. logits[n, V] fp32, host memory, of the batch's n_targets target rows. For tests
 * and small uses: scoring at speed is engine/score.h. */
enum fc_code fc_transformer_logits(struct fc_transformer *t, const struct fc_batch *b,
                                   float *logits, struct fc_error *err);

/* Puts forward and backward of a batch on the model's stream; b may change when the call returns.
 * gradients[params.total] fp32 on the device += d (sum of weights[i] losses[i]) / d weights, in the
 * layout of the parameter table. Two batches may be in flight: while the device works on one, the
 * host packs the next. FC_ERR_USAGE for what is no batch of this model; errors of the device stay
 * in the stream (sync). */
enum fc_code fc_transformer_start(struct fc_transformer *t, const struct fc_batch *b,
                                  float *gradients, struct fc_error *err);
/* Waits for the oldest batch in flight. Its losses[n_targets], -log p of each target, unweighted:
 * host memory, valid until the second start from here. Meaningless after an error of the device,
 * which sync will tell. */
const float *fc_transformer_finish(struct fc_transformer *t);

/* Both in one, for one batch; losses[n_targets] (host) are copied. Waits for the device. */
enum fc_code fc_transformer_gradients(struct fc_transformer *t, const struct fc_batch *b,
                                      float *gradients, float *losses, struct fc_error *err);

/* Necessary floating point operations of fc_transformer_gradients on this batch: matrix products
 * and causal attention, logits at targets only; backward counts twice forward. */
double fc_transformer_flops(const struct fc_model *model, const struct fc_batch *b);

#endif
