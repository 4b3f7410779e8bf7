/* The numbers of an AdamW step. In fp64 and on the host: the powers of the bias correction cost a
 * device more than the update of a parameter, and are the same for all of them. */
#include "kernels/kernels.h"

#include <math.h>

struct fc_adamw_step fc_adamw_prepare(const struct fc_adamw *how)
{
    double beta1 = (double)how->beta1, beta2 = (double)how->beta2, t = (double)how->step;
    return (struct fc_adamw_step){.decay =
                                      (float)(1.0 - (double)how->lr * (double)how->weight_decay),
                                  .gain1 = (float)(1.0 - beta1),
                                  .beta2 = how->beta2,
                                  .gain2 = (float)(1.0 - beta2),
                                  .inverse_root = (float)(1.0 / sqrt(1.0 - pow(beta2, t))),
                                  .eps = how->eps,
                                  .size = (float)((double)how->lr / (1.0 - pow(beta1, t))),
                                  .grad_scale = how->grad_scale,
                                  .seed = how->seed,
                                  .number = how->step,
                                  .stochastic = how->stochastic};
}
