/* One optimizer step on a ragged packed batch of two tasks, with lengths like CommonsenseQA's:
 * questions of 15 to 45 tokens, answers of 2 to 5, rationales of 20 to 70. */
#include "base/memory.h"
#include "base/philox.h"
#include "bench/bench.h"
#include "engine/trainer.h"

#define N_SAMPLES 64

struct train_state {
    struct fc_trainer *trainer;
    struct fc_sample samples[N_SAMPLES];
    const struct fc_sample *list[N_SAMPLES];
    size_t n;
    struct fc_step_metrics metrics;
};

static size_t draw(uint64_t position, size_t low, size_t high)
{
    return low + (size_t)(fc_philox_uniform(2, 0, position) * (float)(high - low + 1));
}

static enum fc_code make_samples(struct train_state *t, size_t n_vocab, struct fc_error *err)
{
    size_t tokens = 0;
    for (t->n = 0; t->n < N_SAMPLES; t->n++) {
        enum fc_task task = t->n % 2 ? FC_TASK_EXPLAIN : FC_TASK_PREDICT;
        size_t prompt = draw(2 * (t->n / 2), 15, 45);
        size_t target =
            task == FC_TASK_PREDICT ? draw(2 * t->n + 1, 2, 5) : draw(2 * t->n + 1, 20, 70);
        if (tokens + prompt + target - 1 > 2048)
            break;
        struct fc_sample *s = &t->samples[t->n];
        s->ids = fc_alloc(prompt + target, sizeof *s->ids, "sample", err);
        if (!s->ids)
            return FC_ERR_MEMORY;
        s->n = prompt + target;
        s->first_target = prompt;
        s->task = task;
        for (size_t i = 0; i < s->n; i++)
            s->ids[i] = (int32_t)draw(1000 + 1000 * t->n + i, 0, n_vocab - 1);
        t->list[t->n] = s;
        tokens += s->n - 1;
    }
    return FC_OK;
}

static enum fc_code step(void *state, struct fc_error *err)
{
    struct train_state *t = state;
    return fc_trainer_step(t->trainer, t->list, t->n, 0, &t->metrics, err);
}

enum fc_code fc_case_train(struct fc_bench_context *c, struct fc_error *err)
{
    struct fc_model model = {0};
    struct train_state t = {0};
    struct fc_trainer_options options = fc_trainer_defaults();
    options.lr = 1e-6f; /* the bench repeats one batch: it is not meant to be learned */
    enum fc_code code = fc_bench_model(c, &model, err);
    if (code == FC_OK)
        code = make_samples(&t, model.config.n_vocab, err);
    if (code == FC_OK)
        code = fc_trainer_create(&t.trainer, &model, &options, err);
    if (code == FC_OK)
        code = step(&t, err); /* learns the step's tokens and FLOPs */
    if (code == FC_OK) {
        fc_device_print_memory(&c->dev, stdout);
        struct fc_measurement m = {"train step", "tokens/s", (double)t.metrics.tokens,
                                   t.metrics.flops};
        code = fc_bench_measure(c, &m, step, &t, err);
    }
    fc_trainer_free(t.trainer);
    for (size_t i = 0; i < t.n; i++)
        free(t.samples[i].ids);
    fc_model_free(&model);
    return code;
}
