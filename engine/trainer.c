#include "engine/trainer_private.h"

#include "base/clock.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

#define NORM_DOUBLES 1025

struct fc_trainer_options fc_trainer_defaults(void)
{
    return (struct fc_trainer_options){.lr = 5e-5f,
                                       .beta1 = 0.9f,
                                       .beta2 = 0.999f,
                                       .eps = 1e-8f,
                                       .clip = 1.0f,
                                       .tokens_per_batch = 2048,
                                       .task_weight = {1.0f, 1.0f}};
}

float fc_trainer_lr(const struct fc_trainer_options *o, size_t step, double progress)
{
    double factor = 1;
    if (o->schedule == FC_SCHEDULE_LINEAR)
        factor = 1 - progress;
    else if (o->schedule == FC_SCHEDULE_COSINE)
        factor = 0.5 * (1 + cos(acos(-1.0) * progress));
    if (step < o->warmup)
        factor *= (double)step / (double)o->warmup;
    return o->lr * (float)factor;
}

static float *alloc_floats(struct fc_trainer *t, enum fc_purpose purpose, struct fc_error *err)
{
    size_t bytes = t->model->params.total * sizeof(float);
    float *p = fc_device_alloc(t->model->dev, bytes, purpose, err);
    if (p)
        t->model->dev->k->zero(t->model->dev->stream, p, bytes);
    return p;
}

enum fc_code fc_trainer_create(struct fc_trainer **out, struct fc_model *model,
                               const struct fc_trainer_options *options, struct fc_error *err)
{
    *out = NULL;
    struct fc_trainer *t = fc_alloc(1, sizeof *t, "trainer", err);
    if (!t)
        return FC_ERR_MEMORY;
    t->model = model;
    t->options = *options;
    struct fc_device *dev = model->dev;
    enum fc_code code = fc_batch_create(&t->batch, options->tokens_per_batch, err);
    if (code == FC_OK)
        code = fc_transformer_create(&t->transformer, model, options->tokens_per_batch, err);
    if (code != FC_OK)
        goto fail;
    code = FC_ERR_MEMORY;
    if (model->dtype == FC_F32)
        t->master = model->weights;
    else
        t->master = alloc_floats(t, FC_MEM_MASTER, err);
    t->gradients = alloc_floats(t, FC_MEM_GRADIENTS, err);
    t->m = alloc_floats(t, FC_MEM_MOMENTS, err);
    t->v = alloc_floats(t, FC_MEM_MOMENTS, err);
    t->norm = fc_device_alloc(dev, NORM_DOUBLES * sizeof(double), FC_MEM_GRADIENTS, err);
    t->losses = fc_alloc(options->tokens_per_batch, sizeof *t->losses, "losses", err);
    if (!t->master || !t->gradients || !t->m || !t->v || !t->norm || !t->losses)
        goto fail;
    if (t->master != model->weights)
        dev->k->cast(dev->stream, t->master, FC_F32, model->weights, model->dtype,
                     model->params.total);
    code = dev->k->sync(dev->stream, err);
    if (code != FC_OK)
        goto fail;
    *out = t;
    return FC_OK;
fail:
    fc_trainer_free(t);
    return code;
}

void fc_trainer_free(struct fc_trainer *t)
{
    if (!t)
        return;
    struct fc_device *dev = t->model->dev;
    size_t bytes = t->model->params.total * sizeof(float);
    if (t->master != t->model->weights)
        fc_device_free(dev, t->master, bytes, FC_MEM_MASTER);
    fc_device_free(dev, t->gradients, bytes, FC_MEM_GRADIENTS);
    fc_device_free(dev, t->m, bytes, FC_MEM_MOMENTS);
    fc_device_free(dev, t->v, bytes, FC_MEM_MOMENTS);
    fc_device_free(dev, t->norm, NORM_DOUBLES * sizeof(double), FC_MEM_GRADIENTS);
    fc_transformer_free(t->transformer);
    fc_batch_free(&t->batch);
    free(t->losses);
    free(t);
}

/* Checks the samples and counts each task's targets: the means of a step are over all of them. */
static enum fc_code count_targets(const struct fc_trainer *t,
                                  const struct fc_sample *const *samples, size_t n,
                                  struct fc_step_metrics *metrics, struct fc_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct fc_sample *s = samples[i];
        if (s->n < 2 || s->first_target < 1 || s->first_target >= s->n)
            return fc_fail(err, FC_ERR_USAGE, "training sample %zu has no target to learn", i);
        if (s->n - 1 > t->options.tokens_per_batch)
            return fc_fail(err, FC_ERR_USAGE,
                           "training sample %zu has %zu tokens, more than a micro-batch of %zu: "
                           "raise --tokens-per-batch or lower --max-length",
                           i, s->n, t->options.tokens_per_batch);
        metrics->targets[s->task] += s->n - s->first_target;
        metrics->tokens += s->n - 1;
    }
    return n ? FC_OK : fc_fail(err, FC_ERR_USAGE, "training step without samples");
}

/* Gradients of the packed batch, added up; losses by task. */
static enum fc_code run_batch(struct fc_trainer *t, struct fc_step_metrics *metrics,
                              struct fc_error *err)
{
    enum fc_code code =
        fc_transformer_gradients(t->transformer, &t->batch, t->gradients, t->losses, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < t->batch.n_targets; i++)
        metrics->task_loss[t->batch.tasks[i]] += (double)t->losses[i];
    metrics->flops += fc_transformer_flops(t->model, &t->batch);
    fc_batch_clear(&t->batch);
    return FC_OK;
}

static enum fc_code accumulate(struct fc_trainer *t, const struct fc_sample *const *samples,
                               size_t n, struct fc_step_metrics *metrics, struct fc_error *err)
{
    fc_batch_clear(&t->batch);
    for (size_t i = 0; i < n; i++) {
        enum fc_task task = samples[i]->task;
        float weight = t->options.task_weight[task] / (float)metrics->targets[task];
        if (fc_batch_add(&t->batch, samples[i], weight))
            continue;
        enum fc_code code = run_batch(t, metrics, err);
        if (code != FC_OK)
            return code;
        fc_batch_add(&t->batch, samples[i], weight);
    }
    return run_batch(t, metrics, err);
}

static enum fc_code gradient_norm(struct fc_trainer *t, double *norm, struct fc_error *err)
{
    struct fc_device *dev = t->model->dev;
    dev->k->sum_squares(dev->stream, t->norm, t->gradients, t->norm + 1, t->model->params.total);
    dev->k->download(dev->stream, norm, t->norm, sizeof *norm);
    enum fc_code code = dev->k->sync(dev->stream, err);
    *norm = sqrt(*norm);
    return code;
}

/* AdamW over the two flat ranges: with weight decay, and without. */
static void update(struct fc_trainer *t, struct fc_adamw *how)
{
    struct fc_model *model = t->model;
    const struct fc_kernels *k = model->dev->k;
    size_t n_decay = model->params.n_decay, total = model->params.total;
    size_t ranges[3] = {0, n_decay, total}, element = fc_dtype_size(model->dtype);
    for (int i = 0; i < 2; i++) {
        size_t at = ranges[i], n = ranges[i + 1] - at;
        how->weight_decay = i == 0 ? t->options.weight_decay : 0;
        if (n)
            k->adamw(model->dev->stream, (char *)model->weights + at * element, t->master + at,
                     t->m + at, t->v + at, t->gradients + at, n, how, model->dtype);
    }
}

enum fc_code fc_trainer_step(struct fc_trainer *t, const struct fc_sample *const *samples, size_t n,
                             double progress, struct fc_step_metrics *metrics, struct fc_error *err)
{
    const struct fc_trainer_options *o = &t->options;
    struct fc_device *dev = t->model->dev;
    double start = fc_now();
    *metrics = (struct fc_step_metrics){.step = t->done + 1,
                                        .lr = fc_trainer_lr(o, t->done + 1, progress)};
    enum fc_code code = count_targets(t, samples, n, metrics, err);
    if (code != FC_OK)
        return code;
    dev->k->zero(dev->stream, t->gradients, t->model->params.total * sizeof(float));
    code = accumulate(t, samples, n, metrics, err);
    if (code == FC_OK)
        code = gradient_norm(t, &metrics->gradient_norm, err);
    if (code != FC_OK)
        return code;
    for (int task = 0; task < FC_TASKS; task++) {
        if (metrics->targets[task])
            metrics->task_loss[task] /= (double)metrics->targets[task];
        metrics->loss += (double)o->task_weight[task] * metrics->task_loss[task];
    }
    if (!isfinite(metrics->loss) || !isfinite(metrics->gradient_norm))
        return fc_fail(err, FC_ERR_INPUT,
                       "step %zu: loss %g, gradient norm %g: not finite; lower --lr, or check the "
                       "model's weights",
                       metrics->step, metrics->loss, metrics->gradient_norm);
    struct fc_adamw how = {.lr = metrics->lr,
                           .beta1 = o->beta1,
                           .beta2 = o->beta2,
                           .eps = o->eps,
                           .grad_scale = 1.0f,
                           .step = metrics->step};
    /* As torch.nn.utils.clip_grad_norm_, with its 1e-6. */
    if (o->clip > 0 && metrics->gradient_norm > (double)o->clip)
        how.grad_scale = (float)((double)o->clip / (metrics->gradient_norm + 1e-6));
    update(t, &how);
    code = dev->k->sync(dev->stream, err);
    if (code != FC_OK)
        return code;
    t->done++;
    metrics->seconds = fc_now() - start;
    return FC_OK;
}

size_t fc_trainer_steps_done(const struct fc_trainer *t)
{
    return t->done;
}

enum fc_code fc_trainer_master(struct fc_trainer *t, float *host, struct fc_error *err)
{
    struct fc_device *dev = t->model->dev;
    dev->k->download(dev->stream, host, t->master, t->model->params.total * sizeof(float));
    return dev->k->sync(dev->stream, err);
}
