#define _GNU_SOURCE
#include "engine/training.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/philox.h"

#include <stdio.h>

/* Where a run stands in its data: kept in the checkpoint's note. */
struct position {
    size_t epoch, next; /* next: place in the epoch's order */
};

struct run {
    const struct fc_training_options *o;
    struct fc_trainer *trainer;
    size_t n;
    fc_item_source *source;
    void *source_context;
    struct position at;
    size_t *order;      /* [n] of epoch at.epoch */
    size_t order_epoch; /* epoch that `order` belongs to; SIZE_MAX: none yet */
    const struct fc_sample **samples;
    size_t n_samples, samples_capacity;
};

void fc_training_order(size_t *order, size_t n, uint64_t seed, size_t epoch)
{
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) { /* Fisher-Yates; the bias of a 64-bit modulus is below 2^-32 */
        uint32_t w[4];
        fc_philox(seed, epoch, i, w);
        size_t j = (size_t)((((uint64_t)w[0] << 32) | w[1]) % i);
        size_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

static bool item_is_empty(const struct fc_train_item *item)
{
    for (int task = 0; task < FC_TASKS; task++)
        if (item->samples[task].n)
            return false;
    return true;
}

static enum fc_code add_item(struct run *r, const struct fc_train_item *item, size_t *tokens,
                             struct fc_error *err)
{
    void *array = r->samples;
    enum fc_code code = fc_grow(&array, &r->samples_capacity, r->n_samples + FC_TASKS,
                                sizeof *r->samples, "samples", err);
    r->samples = array;
    for (int task = 0; task < FC_TASKS && code == FC_OK; task++) {
        if (item->samples[task].n == 0)
            continue;
        r->samples[r->n_samples++] = &item->samples[task];
        *tokens += item->samples[task].n - 1;
    }
    return code;
}

/* Collects the next step's samples, whole examples at a time, across an epoch's end only when the
 * run is counted in steps. *more is false when the epochs are over and nothing was collected. */
static enum fc_code collect(struct run *r, bool *more, struct fc_error *err)
{
    size_t tokens = 0, n_empty = 0; /* n_empty: examples without samples, one after another */
    r->n_samples = 0;
    while (tokens < r->o->tokens_per_step) {
        if (r->at.next == r->n) {
            if (r->o->steps == 0 && r->n_samples)
                break;
            r->at = (struct position){.epoch = r->at.epoch + 1};
        }
        if (r->o->steps == 0 && r->at.epoch >= r->o->epochs)
            break;
        if (r->order_epoch != r->at.epoch)
            fc_training_order(r->order, r->n, r->o->seed, r->at.epoch);
        r->order_epoch = r->at.epoch;
        const struct fc_train_item *item;
        enum fc_code code = r->source(r->source_context, r->order[r->at.next], &item, err);
        if (code == FC_OK)
            code = add_item(r, item, &tokens, err);
        if (code != FC_OK)
            return code;
        r->at.next++;
        n_empty = item_is_empty(item) ? n_empty + 1 : 0;
        if (n_empty == 2 * r->n) /* a whole epoch, wherever it begins, is among them */
            return fc_fail(err, FC_ERR_INPUT,
                           "training: none of the %zu examples has an answer or a rationale to "
                           "learn",
                           r->n);
    }
    *more = r->n_samples > 0;
    return FC_OK;
}

static double progress(const struct run *r)
{
    if (r->o->steps)
        return (double)fc_trainer_steps_done(r->trainer) / (double)r->o->steps;
    return ((double)r->at.epoch + (double)r->at.next / (double)r->n) / (double)r->o->epochs;
}

static enum fc_code save(struct run *r, struct fc_error *err)
{
    char note[64];
    if (!r->o->checkpoint)
        return FC_OK;
    snprintf(note, sizeof note, "%zu %zu", r->at.epoch, r->at.next);
    return fc_trainer_save(r->trainer, r->o->checkpoint, r->o->tag, note, err);
}

static enum fc_code resume(struct run *r, struct fc_error *err)
{
    char note[1024];
    if (!r->o->resume || !r->o->checkpoint || !fc_is_file(r->o->checkpoint))
        return FC_OK;
    enum fc_code code =
        fc_trainer_load(r->trainer, r->o->checkpoint, r->o->tag, note, sizeof note, err);
    if (code != FC_OK)
        return code;
    if (sscanf(note, "%zu %zu", &r->at.epoch, &r->at.next) != 2 || r->at.next > r->n)
        return fc_fail(err, FC_ERR_INPUT, "%s: its place in the data is not of this data set",
                       r->o->checkpoint);
    return FC_OK;
}

static enum fc_code loop(struct run *r, fc_step_fn *on_step, void *context, struct fc_error *err)
{
    size_t since_save = 0;
    enum fc_code code = FC_OK;
    while (code == FC_OK) {
        if (r->o->steps && fc_trainer_steps_done(r->trainer) >= r->o->steps)
            break;
        const struct position begin = r->at;
        double before = progress(r);
        bool more = false;
        struct fc_step_metrics metrics;
        code = collect(r, &more, err);
        if (!more) { /* the end, or the source failed: what was collected is not trained on */
            r->at = begin;
            break;
        }
        code = fc_trainer_step(r->trainer, r->samples, r->n_samples, before, &metrics, err);
        if (code != FC_OK)
            return code; /* a checkpoint would only repeat it */
        since_save++;
        if (on_step)
            code = on_step(context, &metrics, progress(r), err);
        if (code == FC_OK && r->o->checkpoint_every && since_save >= r->o->checkpoint_every) {
            code = save(r, err);
            since_save = 0;
        }
    }
    if (since_save) {
        enum fc_code saved = save(r, code == FC_OK ? err : NULL);
        code = code == FC_OK ? saved : code;
    }
    return code;
}

static enum fc_code check_options(const struct fc_training_options *o, size_t n,
                                  struct fc_error *err)
{
    if (n == 0)
        return fc_fail(err, FC_ERR_INPUT, "training: the data set has no examples");
    if (o->tokens_per_step == 0 || (o->steps == 0 && o->epochs == 0))
        return fc_fail(err, FC_ERR_USAGE,
                       "training: expected at least one token a step, and one epoch or step");
    if (o->checkpoint && !o->tag)
        return fc_fail(err, FC_ERR_USAGE, "training: a checkpoint needs a tag");
    return FC_OK;
}

enum fc_code fc_training_run(struct fc_model *model, const struct fc_training_options *options,
                             size_t n, fc_item_source *source, void *source_context,
                             fc_step_fn *on_step, void *step_context, size_t *steps_done,
                             struct fc_error *err)
{
    enum fc_code code = check_options(options, n, err);
    if (code != FC_OK)
        return code;
    struct run r = {.o = options,
                    .n = n,
                    .source = source,
                    .source_context = source_context,
                    .order_epoch = SIZE_MAX};
    r.order = fc_alloc(n, sizeof *r.order, "order of examples", err);
    code = r.order ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_trainer_create(&r.trainer, model, &options->trainer, err);
    if (code == FC_OK)
        code = resume(&r, err);
    if (code == FC_OK)
        code = loop(&r, on_step, step_context, err);
    if (r.trainer && steps_done)
        *steps_done = fc_trainer_steps_done(r.trainer);
    fc_trainer_free(r.trainer);
    free(r.samples);
    free(r.order);
    return code;
}
