#include "cli/train_flags.h"

#include "base/file.h"
#include "base/memory.h"
#include "cli/signals.h"

#include <math.h>

#define FIELD(name) offsetof(struct fc_train_flags, name)

static const char *const schedules[] = {"constant", "linear", "cosine", NULL};

const struct fc_option fc_train_options[] = {
    {.name = "steps",
     .type = FC_OPT_SIZE,
     .offset = FIELD(steps),
     .fallback = "0",
     .metavar = "N",
     .help = "optimizer steps; 0: as --epochs says",
     .min = 0,
     .max = 1e9},
    {.name = "epochs",
     .type = FC_OPT_SIZE,
     .offset = FIELD(epochs),
     .fallback = "1",
     .metavar = "N",
     .help = "passes over the training data",
     .min = 1,
     .max = 1e6},
    {.name = "lr",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(lr),
     .fallback = "5e-5",
     .metavar = "X",
     .help = "learning rate",
     .min = 0,
     .max = 10},
    {.name = "schedule",
     .type = FC_OPT_CHOICE,
     .offset = FIELD(schedule),
     .choices = schedules,
     .help = "learning rate over the run; linear and cosine fall to 0"},
    {.name = "warmup",
     .type = FC_OPT_SIZE,
     .offset = FIELD(warmup),
     .fallback = "0",
     .metavar = "N",
     .help = "steps of linear warm-up",
     .min = 0,
     .max = 1e9},
    {.name = "tokens-per-step",
     .type = FC_OPT_SIZE,
     .offset = FIELD(tokens_per_step),
     .fallback = "2048",
     .metavar = "N",
     .help = "examples are added to a step until it has this many tokens",
     .min = 1,
     .max = 1e9},
    {.name = "tokens-per-batch",
     .type = FC_OPT_SIZE,
     .offset = FIELD(tokens_per_batch),
     .fallback = "2048",
     .metavar = "N",
     .help = "tokens of a micro-batch: bounds the memory of activations",
     .min = 16,
     .max = 1e6},
    {.name = "max-length",
     .type = FC_OPT_SIZE,
     .offset = FIELD(max_length),
     .fallback = "512",
     .metavar = "N",
     .help = "tokens of a sample; longer ones are cut",
     .min = 8,
     .max = 1e6},
    {.name = "weight-label",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(weight_label),
     .fallback = "1",
     .metavar = "A",
     .help = "weight of the label task in the loss",
     .min = 0,
     .max = 1e6},
    {.name = "weight-rationale",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(weight_rationale),
     .fallback = "1",
     .metavar = "A",
     .help = "weight of the rationale task in the loss",
     .min = 0,
     .max = 1e6},
    {.name = "weight-decay",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(weight_decay),
     .fallback = "0",
     .metavar = "X",
     .help = "AdamW's decay of matrices",
     .min = 0,
     .max = 10},
    {.name = "clip",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(clip),
     .fallback = "1",
     .metavar = "X",
     .help = "largest gradient norm; 0: no limit",
     .min = 0,
     .max = 1e9},
    {.name = "beta1",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(beta1),
     .fallback = "0.9",
     .metavar = "X",
     .help = "AdamW's first decay",
     .min = 0,
     .max = 0.999999},
    {.name = "beta2",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(beta2),
     .fallback = "0.999",
     .metavar = "X",
     .help = "AdamW's second decay",
     .min = 0,
     .max = 0.999999},
    {.name = "fp8",
     .type = FC_OPT_FLAG,
     .offset = FIELD(fp8),
     .help = "forward products in fp8: faster on Ada, Hopper and newer GPUs, rounds more"},
    {.name = "seed",
     .type = FC_OPT_SIZE,
     .offset = FIELD(seed),
     .fallback = "0",
     .metavar = "S",
     .help = "of the order of examples, and of random rounding",
     .min = 0,
     .max = 9e15},
    {.name = "stochastic-rounding",
     .type = FC_OPT_FLAG,
     .offset = FIELD(stochastic_rounding),
     .help = "round 16-bit weights at random after each step, so that small steps are not lost"},
    {0}};

size_t fc_train_flags_length(const struct fc_train_flags *f, size_t n_ctx)
{
    return f->max_length < n_ctx ? f->max_length : n_ctx;
}

enum fc_code fc_rationales_read(struct fc_id_texts *texts, const char *path,
                                const struct fc_dataset *data, struct fc_error *err)
{
    enum fc_code code = fc_id_texts_read(texts, path, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < data->n; i++)
        if (fc_id_texts_find(texts, data->items[i].id))
            return FC_OK;
    return fc_fail(err, FC_ERR_INPUT,
                   "%s: none of its %zu ids is in the training data: it belongs to other data",
                   path, texts->n);
}

struct fc_training_options fc_train_flags_apply(const struct fc_train_flags *f, size_t n_ctx)
{
    size_t longest = fc_train_flags_length(f, n_ctx);
    struct fc_training_options o = {.trainer = fc_trainer_defaults(),
                                    .tokens_per_step = f->tokens_per_step,
                                    .epochs = f->epochs,
                                    .steps = f->steps,
                                    .seed = f->seed};
    o.trainer.fp8 = f->fp8;
    o.trainer.lr = (float)f->lr;
    o.trainer.beta1 = (float)f->beta1;
    o.trainer.beta2 = (float)f->beta2;
    o.trainer.weight_decay = (float)f->weight_decay;
    o.trainer.clip = (float)f->clip;
    o.trainer.schedule = (enum fc_schedule)f->schedule;
    o.trainer.warmup = f->warmup;
    o.trainer.stochastic = f->stochastic_rounding;
    o.trainer.seed = f->seed;
    /* A micro-batch must hold the longest sample. */
    o.trainer.tokens_per_batch = f->tokens_per_batch > longest ? f->tokens_per_batch : longest;
    o.trainer.task_weight[FC_TASK_PREDICT] = (float)f->weight_label;
    o.trainer.task_weight[FC_TASK_EXPLAIN] = (float)f->weight_rationale;
    return o;
}

void fc_training_watch_begin(struct fc_training_watch *w, struct fc_metrics *metrics,
                             const char *run, const struct fc_training_options *how, size_t n)
{
    *w = (struct fc_training_watch){.metrics = metrics, .run = run};
    fc_progress_begin(&w->progress, stderr, run, how->steps ? "steps" : "examples",
                      how->steps ? how->steps : n * how->epochs);
}

static enum fc_code log_step(const struct fc_training_watch *w, const struct fc_step_metrics *m,
                             struct fc_error *err)
{
    const struct fc_metric figures[] = {
        {"step", (double)m->step},
        {"loss", m->loss},
        {"label_loss", m->targets[FC_TASK_PREDICT] ? m->task_loss[FC_TASK_PREDICT] : NAN},
        {"rationale_loss", m->targets[FC_TASK_EXPLAIN] ? m->task_loss[FC_TASK_EXPLAIN] : NAN},
        {"gradient_norm", m->gradient_norm},
        {"lr", (double)m->lr},
        {"loss_scale", (double)m->loss_scale},
        {"overflows", (double)m->overflows},
        {"tokens", (double)m->tokens},
        {"tokens_per_second", (double)m->tokens / m->seconds},
        {"gflops", m->flops / m->seconds * 1e-9}};
    cJSON *o = fc_metrics_object("run", w->run, figures, sizeof figures / sizeof figures[0], err);
    return fc_metrics_record(w->metrics, "step", o, err);
}

enum fc_code fc_training_watch_step(void *watch, const struct fc_step_metrics *m, double progress,
                                    struct fc_error *err)
{
    struct fc_training_watch *w = watch;
    w->last = *m;
    w->steps++;
    w->tokens += m->tokens;
    w->seconds += m->seconds;
    w->flops += m->flops;
    fc_progress_update(&w->progress, (size_t)lround(progress * (double)w->progress.total),
                       "step %zu  loss %.3f (label %.3f, rationale %.3f)  %.0f tokens/s", m->step,
                       m->loss, m->task_loss[FC_TASK_PREDICT], m->task_loss[FC_TASK_EXPLAIN],
                       (double)m->tokens / m->seconds);
    enum fc_code code = log_step(w, m, err);
    if (code == FC_OK && w->on_step)
        code = w->on_step(w->context, m, err);
    return code == FC_OK ? fc_signals_check(err) : code;
}

void fc_training_watch_end(struct fc_training_watch *w)
{
    fc_progress_end(&w->progress);
}

enum fc_code fc_save_model(const struct fc_session *s, const struct fc_model *model,
                           const char *folder, struct fc_error *err)
{
    struct fc_device *dev = model->dev;
    size_t element = fc_dtype_size(model->dtype);
    void *host = fc_alloc(model->params.total, element, "weights", err);
    if (!host)
        return FC_ERR_MEMORY;
    dev->k->download(dev->stream, host, model->weights, model->params.total * element);
    enum fc_code code = dev->k->sync(dev->stream, err);
    if (code == FC_OK)
        code = fc_make_folder(folder, err);
    if (code == FC_OK)
        code = fc_model_save(folder, &model->config, &model->params, model->dtype, host, err);
    if (code == FC_OK)
        code = fc_tokenizer_save(s->tok, folder, err);
    free(host);
    return code;
}
