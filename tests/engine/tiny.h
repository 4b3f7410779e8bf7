/* The small random models of tests/golden with what PyTorch computed on them, for the tests of
 * training. See tests/golden/make_tiny_models.py for the files' contents. */
#ifndef FC_TESTS_ENGINE_TINY_H
#define FC_TESTS_ENGINE_TINY_H

#include "base/json.h"
#include "engine/trainer.h"
#include "models/safetensors.h"
#include "toy.h"

#define TINY_MICRO 2
#define TINY_SAMPLES 5

struct tiny {
    struct fc_device dev;
    struct fc_model_file *file;
    struct fc_model model;
    struct fc_safetensors *golden;
    cJSON *json;
    struct fc_sample samples[TINY_SAMPLES]; /* of both micro-batches, in order */
    const struct fc_sample *list[TINY_SAMPLES];
    size_t n_samples;
};

static inline const int32_t *tiny_ints(const struct tiny *t, const char *name, size_t *n)
{
    const struct fc_safetensor *x = fc_safetensors_find(t->golden, name);
    assert_non_null(x);
    if (n)
        *n = x->dims[0];
    int32_t *copy = malloc(x->bytes + 1); /* the file's alignment is any: leaked into the test */
    assert_non_null(copy);
    memcpy(copy, x->data, x->bytes);
    return copy;
}

static inline const int32_t *tiny_micro(const struct tiny *t, int micro, const char *what,
                                        size_t *n)
{
    char name[64];
    snprintf(name, sizeof name, "micro.%d.%s", micro, what);
    return tiny_ints(t, name, n);
}

/* The golden's sequences as samples: everything after the first target row is a target. */
static inline void tiny_make_samples(struct tiny *t)
{
    for (int micro = 0; micro < TINY_MICRO; micro++) {
        size_t n_starts, n_rows, at = 0;
        const int32_t *ids = tiny_micro(t, micro, "tokens", NULL);
        const int32_t *starts = tiny_micro(t, micro, "starts", &n_starts);
        const int32_t *rows = tiny_micro(t, micro, "target_rows", &n_rows);
        const int32_t *tasks = tiny_micro(t, micro, "target_tasks", NULL);
        for (size_t b = 0; b + 1 < n_starts; b++) {
            struct fc_sample *s = &t->samples[t->n_samples];
            s->n = (size_t)(starts[b + 1] - starts[b]);
            s->ids = malloc(s->n * sizeof *s->ids);
            assert_non_null(s->ids);
            memcpy(s->ids, ids + starts[b], s->n * sizeof *s->ids);
            s->first_target = (size_t)(rows[at] + 1 - starts[b]);
            s->task = (enum fc_task)tasks[at];
            while (at < n_rows && rows[at] < starts[b + 1])
                at++;
            t->list[t->n_samples++] = s;
        }
        free((void *)(uintptr_t)ids);
        free((void *)(uintptr_t)starts);
        free((void *)(uintptr_t)rows);
        free((void *)(uintptr_t)tasks);
    }
    assert_int_equal(t->n_samples, TINY_SAMPLES);
}

static inline void tiny_open(struct tiny *t, const char *name, enum fc_dtype dtype)
{
    char path[512];
    *t = (struct tiny){0};
    snprintf(path, sizeof path, "%s/%s", FC_GOLDEN_DIR, name);
    open_test_device(&t->dev);
    must(fc_model_file_open(&t->file, path, why));
    must(fc_model_load(&t->model, &t->dev, t->file, dtype, 0, why));
    snprintf(path, sizeof path, "%s/%s/golden.safetensors", FC_GOLDEN_DIR, name);
    must(fc_safetensors_open(&t->golden, path, why));
    snprintf(path, sizeof path, "%s/%s/golden.json", FC_GOLDEN_DIR, name);
    struct fc_error err = {0};
    t->json = fc_json_read_file(path, 1 << 20, &err);
    assert_non_null(t->json);
    tiny_make_samples(t);
}

static inline void tiny_close(struct tiny *t)
{
    for (size_t i = 0; i < t->n_samples; i++)
        free(t->samples[i].ids);
    cJSON_Delete(t->json);
    fc_safetensors_close(t->golden);
    fc_model_free(&t->model);
    fc_model_file_close(t->file);
    fc_device_close(&t->dev);
}

static inline double tiny_number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

/* The settings of the golden's ten steps. */
static inline struct fc_trainer_options tiny_options(const struct tiny *t)
{
    const cJSON *adamw = cJSON_GetObjectItemCaseSensitive(t->json, "adamw");
    struct fc_trainer_options o = fc_trainer_defaults();
    o.lr = (float)tiny_number(adamw, "lr");
    o.beta1 = (float)tiny_number(adamw, "beta1");
    o.beta2 = (float)tiny_number(adamw, "beta2");
    o.eps = (float)tiny_number(adamw, "eps");
    o.weight_decay = (float)tiny_number(adamw, "weight_decay");
    o.clip = (float)tiny_number(adamw, "clip");
    o.tokens_per_batch = 28; /* 10 + 2 + 16 rows, then 5 + 22: the golden's two micro-batches */
    o.task_weight[1] = 0.5f;
    return o;
}

#endif
