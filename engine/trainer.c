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
                                       .task_weight = {1.0f, 1.0f},
                                       .loss_scale = 65536.0f,
                                       .loss_scale_steps = 2000};
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

/* What steps keep beside the model; gradients and moments zeroed. */
static enum fc_code alloc_state(struct fc_trainer *t, struct fc_error *err)
{
    struct fc_device *dev = t->model->dev;
    t->master = t->model->dtype == FC_F32 ? t->model->weights : alloc_floats(t, FC_MEM_MASTER, err);
    t->gradients = alloc_floats(t, FC_MEM_GRADIENTS, err);
    t->m = alloc_floats(t, FC_MEM_MOMENTS, err);
    t->v = alloc_floats(t, FC_MEM_MOMENTS, err);
    t->norm = fc_device_alloc(dev, NORM_DOUBLES * sizeof(double), FC_MEM_GRADIENTS, err);
    t->norm_host = dev->k->host_alloc(dev->stream, sizeof *t->norm_host, err);
    t->how = fc_device_alloc(dev, FC_RANGES * sizeof *t->how, FC_MEM_MOMENTS, err);
    if (!t->master || !t->gradients || !t->m || !t->v || !t->norm || !t->norm_host || !t->how)
        return FC_ERR_MEMORY;
    return fc_staging_open(&t->staging, dev, FC_RANGES * sizeof *t->how, err);
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
    fc_graphs_open(&t->graphs, dev);
    t->loss_scale = model->dtype == FC_F16 ? options->loss_scale : 1.0f;
    enum fc_code code = FC_OK;
    for (int i = 0; i < 2 && code == FC_OK; i++)
        code = fc_batch_create(&t->batches[i], options->tokens_per_batch, err);
    if (code == FC_OK)
        code = fc_transformer_create(&t->transformer, model, options->tokens_per_batch, err);
    if (code == FC_OK && options->fp8)
        code = fc_transformer_use_fp8(t->transformer, err);
    if (code == FC_OK)
        code = alloc_state(t, err);
    if (code != FC_OK)
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
    fc_graphs_clear(&t->graphs);
    fc_staging_close(&t->staging);
    if (t->master != t->model->weights)
        fc_device_free(dev, t->master, bytes, FC_MEM_MASTER);
    fc_device_free(dev, t->gradients, bytes, FC_MEM_GRADIENTS);
    fc_device_free(dev, t->m, bytes, FC_MEM_MOMENTS);
    fc_device_free(dev, t->v, bytes, FC_MEM_MOMENTS);
    fc_device_free(dev, t->norm, NORM_DOUBLES * sizeof(double), FC_MEM_GRADIENTS);
    fc_device_free(dev, t->how, FC_RANGES * sizeof *t->how, FC_MEM_MOMENTS);
    fc_transformer_free(t->transformer);
    for (int i = 0; i < 2; i++)
        fc_batch_free(&t->batches[i]);
    dev->k->host_free(dev->stream, t->norm_host);
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

/* Waits for a batch in flight and adds up its losses by task. */
static void take_losses(struct fc_trainer *t, const struct fc_batch *b,
                        struct fc_step_metrics *metrics)
{
    const float *losses = fc_transformer_finish(t->transformer);
    for (size_t i = 0; i < b->n_targets; i++)
        metrics->task_loss[b->tasks[i]] += (double)losses[i];
}

/* The micro-batches of a step, one packed while the device works on the one before. */
static enum fc_code accumulate(struct fc_trainer *t, const struct fc_sample *const *samples,
                               size_t n, struct fc_step_metrics *metrics, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    struct fc_batch *before = NULL;
    for (size_t i = 0, slot = 0; i < n && code == FC_OK; slot = 1 - slot) {
        struct fc_batch *b = &t->batches[slot];
        fc_batch_clear(b);
        for (; i < n; i++) {
            enum fc_task task = samples[i]->task;
            float weight = t->options.task_weight[task] / (float)metrics->targets[task];
            if (!fc_batch_add(b, samples[i], weight * t->loss_scale))
                break;
        }
        code = fc_transformer_start(t->transformer, b, t->gradients, err);
        if (before)
            take_losses(t, before, metrics);
        before = code == FC_OK ? b : NULL;
        metrics->flops += fc_transformer_flops(t->model, b);
    }
    if (before)
        take_losses(t, before, metrics);
    return code;
}

/* Of the unscaled gradients; not finite when one of them is not (the sum is in fp64, where the
 * squares of fp32 numbers do not overflow). */
static enum fc_code gradient_norm(struct fc_trainer *t, double *norm, struct fc_error *err)
{
    struct fc_device *dev = t->model->dev;
    dev->k->sum_squares(dev->stream, t->norm, t->gradients, t->norm + 1, t->model->params.total);
    dev->k->download(dev->stream, t->norm_host, t->norm, sizeof *t->norm_host);
    enum fc_code code = dev->k->sync(dev->stream, err);
    *norm = sqrt(*t->norm_host) / (double)t->loss_scale;
    return code;
}

/* The numbers of both ranges, on their way to the device. */
static void send_numbers(struct fc_trainer *t, struct fc_adamw how)
{
    const struct fc_device *dev = t->model->dev;
    struct fc_adamw_step *block = fc_staging_next(&t->staging);
    how.stochastic = t->options.stochastic;
    how.seed = t->options.seed;
    for (int i = 0; i < FC_RANGES; i++) {
        how.weight_decay = i == 0 ? t->options.weight_decay : 0;
        block[i] = fc_adamw_prepare(&how);
    }
    dev->k->upload(dev->stream, t->how, block, FC_RANGES * sizeof *block);
    fc_staging_sent(&t->staging);
}

/* Over the two flat ranges; what is the same in every step, so that it can be recorded. */
static void put_update(void *context)
{
    struct fc_trainer *t = context;
    const struct fc_model *model = t->model;
    size_t ranges[FC_RANGES + 1] = {0, model->params.n_decay, model->params.total};
    size_t element = fc_dtype_size(model->dtype);
    for (int i = 0; i < FC_RANGES; i++) {
        size_t at = ranges[i], n = ranges[i + 1] - at;
        if (n)
            model->dev->k->adamw(model->dev->stream, (char *)model->weights + at * element,
                                 t->master + at, t->m + at, t->v + at, t->gradients + at, n, at,
                                 &t->how[i], model->dtype);
    }
}

void fc_trainer_update(struct fc_trainer *t, struct fc_adamw how)
{
    const struct fc_params *p = &t->model->params;
    const struct fc_kernels *k = t->model->dev->k;
    k->range_push("optimizer");
    send_numbers(t, how);
    fc_graphs_run(&t->graphs, p->total, p->n_decay, put_update, t);
    k->range_pop();
}

/* Losses and gradients of the step, once. */
static enum fc_code compute(struct fc_trainer *t, const struct fc_sample *const *samples, size_t n,
                            struct fc_step_metrics *metrics, struct fc_error *err)
{
    const struct fc_trainer_options *o = &t->options;
    struct fc_device *dev = t->model->dev;
    metrics->loss = metrics->flops = 0;
    memset(metrics->task_loss, 0, sizeof metrics->task_loss);
    dev->k->zero(dev->stream, t->gradients, t->model->params.total * sizeof(float));
    enum fc_code code = accumulate(t, samples, n, metrics, err);
    if (code == FC_OK)
        code = gradient_norm(t, &metrics->gradient_norm, err);
    else
        (void)dev->k->sync(dev->stream, NULL); /* nothing may be in flight */
    for (int task = 0; task < FC_TASKS; task++) {
        if (metrics->targets[task])
            metrics->task_loss[task] /= (double)metrics->targets[task];
        metrics->loss += (double)o->task_weight[task] * metrics->task_loss[task];
    }
    return code;
}

/* As compute; in fp16 with smaller and smaller scales, until nothing overflows. */
static enum fc_code compute_scaled(struct fc_trainer *t, const struct fc_sample *const *samples,
                                   size_t n, struct fc_step_metrics *metrics, struct fc_error *err)
{
    for (;;) {
        enum fc_code code = compute(t, samples, n, metrics, err);
        metrics->loss_scale = t->loss_scale;
        if (code != FC_OK || (isfinite(metrics->loss) && isfinite(metrics->gradient_norm)))
            return code;
        if (!isfinite(metrics->loss) || t->loss_scale <= 1.0f)
            break; /* the scale is not to blame */
        t->loss_scale *= 0.5f;
        t->good_steps = 0;
        metrics->overflows++;
    }
    return fc_fail(err, FC_ERR_INPUT,
                   "step %zu: loss %g, gradient norm %g: not finite; lower --lr, or check the "
                   "model's weights",
                   metrics->step, metrics->loss, metrics->gradient_norm);
}

/* Doubles the scale of fp16 when it has long been small enough. */
static void count_good_step(struct fc_trainer *t)
{
    if (t->model->dtype != FC_F16 || ++t->good_steps < t->options.loss_scale_steps)
        return;
    if (t->loss_scale < 0x1p30f)
        t->loss_scale *= 2.0f;
    t->good_steps = 0;
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
    fc_device_range(dev, "step", metrics->step);
    code = compute_scaled(t, samples, n, metrics, err);
    if (code == FC_OK) {
        struct fc_adamw how = {.lr = metrics->lr,
                               .beta1 = o->beta1,
                               .beta2 = o->beta2,
                               .eps = o->eps,
                               .grad_scale = 1.0f / t->loss_scale,
                               .step = metrics->step};
        /* As torch.nn.utils.clip_grad_norm_, with its 1e-6. */
        if (o->clip > 0 && metrics->gradient_norm > (double)o->clip)
            how.grad_scale *= (float)((double)o->clip / (metrics->gradient_norm + 1e-6));
        fc_trainer_update(t, how);
        code = dev->k->sync(dev->stream, err);
    }
    dev->k->range_pop();
    if (code != FC_OK)
        return code;
    t->done++;
    count_good_step(t);
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
