#define _POSIX_C_SOURCE 200809L
/* Training against PyTorch: logits, loss and every gradient of a ragged packed batch in two
 * micro-batches, ten AdamW steps, and a resume that changes no bit. */
#include "tiny.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static const char *const models[] = {"tiny-llama", "tiny-llama-untied", "tiny-qwen2"};
#define N_MODELS 3

static double nmse(const float *a, const float *b, size_t n)
{
    double error = 0, scale = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        scale += (double)b[i] * (double)b[i];
    }
    return error / scale;
}

static void check_logits(const char *name, enum fc_dtype dtype)
{
    struct tiny t;
    tiny_open(&t, name, dtype);
    struct fc_transformer *transformer;
    struct fc_batch b;
    const size_t V = t.model.config.n_vocab;
    must(fc_transformer_create(&transformer, &t.model, 32, why));
    must(fc_batch_create(&b, 32, why));
    double error = 0, scale = 0;
    for (int i = 0; i < 3; i++) { /* three sequences packed into one batch */
        char key[32];
        size_t n;
        snprintf(key, sizeof key, "tokens.%d", i);
        const int32_t *ids = tiny_ints(&t, key, &n);
        for (size_t j = 0; j < n; j++) {
            b.ids[b.T] = ids[j];
            b.positions[b.T] = (int32_t)j;
            b.target_rows[b.n_targets++] = (int32_t)b.T++;
        }
        b.starts[++b.B] = (int32_t)b.T;
        free((void *)(uintptr_t)ids);
    }
    float *logits = malloc(b.T * V * sizeof *logits);
    assert_non_null(logits);
    must(fc_transformer_logits(transformer, &b, logits, why));
    for (int i = 0; i < 3; i++) {
        char key[32];
        snprintf(key, sizeof key, "logits.%d", i);
        const struct fc_safetensor *x = fc_safetensors_find(t.golden, key);
        for (size_t j = 0; j < x->dims[0] * V; j++) {
            float expected;
            memcpy(&expected, x->data + j * sizeof expected, sizeof expected);
            double d = (double)logits[(size_t)b.starts[i] * V + j] - (double)expected;
            error += d * d;
            scale += (double)expected * (double)expected;
        }
    }
    const cJSON *bf16 = cJSON_GetObjectItemCaseSensitive(t.json, "bf16");
    double limit = dtype == FC_F32 ? 1e-10 : tiny_number(bf16, "logits_nmse");
    print_message("%s %s: logits NMSE %.2e (limit %.2e)\n", name, fc_dtype_name(dtype),
                  error / scale, limit);
    assert_true(error / scale <= limit);
    free(logits);
    fc_batch_free(&b);
    fc_transformer_free(transformer);
    tiny_close(&t);
}

/* The golden's micro-batches, sample by sample, with the weights of the step's task means. */
static double run_gradients(struct tiny *t, float *gradients)
{
    struct fc_transformer *transformer;
    struct fc_batch b;
    size_t counts[FC_TASKS] = {0};
    double loss = 0;
    must(fc_transformer_create(&transformer, &t->model, 28, why));
    must(fc_batch_create(&b, 28, why));
    for (size_t i = 0; i < t->n_samples; i++)
        counts[t->samples[i].task] += t->samples[i].n - t->samples[i].first_target;
    for (size_t i = 0; i <= t->n_samples; i++) {
        const struct fc_sample *s = i < t->n_samples ? t->list[i] : NULL;
        float weight = s ? (s->task ? 0.5f : 1.0f) / (float)counts[s->task] : 0;
        if (s && fc_batch_add(&b, s, weight))
            continue;
        float losses[28];
        must(fc_transformer_gradients(transformer, &b, gradients, losses, why));
        for (size_t j = 0; j < b.n_targets; j++)
            loss += (double)b.weights[j] * (double)losses[j];
        fc_batch_clear(&b);
        if (s)
            assert_true(fc_batch_add(&b, s, weight));
    }
    fc_batch_free(&b);
    fc_transformer_free(transformer);
    return loss;
}

/* Every source tensor's gradient against the golden: relative error in fp32, and in bf16 no farther
 * from PyTorch's fp32 than PyTorch's own bf16 is. */
static void compare_gradients(const struct tiny *t, const float *gradients)
{
    const cJSON *bf16 = cJSON_GetObjectItemCaseSensitive(t->json, "bf16");
    const cJSON *theirs = cJSON_GetObjectItemCaseSensitive(bf16, "grad_nmse");
    double worst = 0, sum = 0, sum_limit = 0;
    for (size_t i = 0; i < t->model.params.n; i++) {
        const struct fc_param *p = &t->model.params.items[i];
        const float *ours = gradients + p->offset;
        for (size_t j = 0; j < p->n_parts; j++) {
            char key[128];
            size_t n = p->is_vector ? p->parts[j].rows : p->parts[j].rows * p->cols;
            snprintf(key, sizeof key, "grad.%s", p->parts[j].name);
            const struct fc_safetensor *x = fc_safetensors_find(t->golden, key);
            assert_non_null(x);
            assert_int_equal(x->bytes, n * sizeof(float));
            float *expected = malloc(x->bytes);
            assert_non_null(expected);
            memcpy(expected, x->data, x->bytes);
            double e = nmse(ours, expected, n);
            double limit = t->model.dtype == FC_F32 ? 1e-8 : tiny_number(theirs, p->parts[j].name);
            sum += e;
            sum_limit += limit;
            if (e / limit > worst)
                worst = e / limit;
            if (e > (t->model.dtype == FC_F32 ? limit : 2 * limit))
                fail_msg("%s: NMSE %.3e, limit %.3e", p->parts[j].name, e, limit);
            free(expected);
            ours += n;
        }
    }
    print_message("gradients %s: worst %.3f of its limit, mean %.3f\n",
                  fc_dtype_name(t->model.dtype), worst, sum / sum_limit);
    assert_true(sum <= sum_limit);
}

static void check_gradients(const char *name, enum fc_dtype dtype)
{
    struct tiny t;
    tiny_open(&t, name, dtype);
    size_t bytes = t.model.params.total * sizeof(float);
    float *device = fc_device_alloc(&t.dev, bytes, FC_MEM_GRADIENTS, NULL);
    float *host = malloc(bytes);
    assert_non_null(device);
    assert_non_null(host);
    t.dev.k->zero(t.dev.stream, device, bytes);
    double loss = run_gradients(&t, device);
    t.dev.k->download(t.dev.stream, host, device, bytes);
    must(t.dev.k->sync(t.dev.stream, why));
    double expected = tiny_number(t.json, "loss");
    const cJSON *bf16 = cJSON_GetObjectItemCaseSensitive(t.json, "bf16");
    double room = dtype == FC_F32 ? 1e-5 : 2 * fabs(tiny_number(bf16, "loss") - expected) + 2e-3;
    print_message("%s %s: loss %.6f, PyTorch %.6f\n", name, fc_dtype_name(dtype), loss, expected);
    assert_true(fabs(loss - expected) <= room);
    compare_gradients(&t, host);
    free(host);
    fc_device_free(&t.dev, device, bytes, FC_MEM_GRADIENTS);
    tiny_close(&t);
}

static void each_model(void (*check)(const char *, enum fc_dtype))
{
    for (size_t i = 0; i < N_MODELS; i++) {
        check(models[i], FC_F32);
        check(models[i], FC_BF16);
    }
}

static void test_logits(void **state)
{
    (void)state;
    each_model(check_logits);
}

static void test_gradients(void **state)
{
    (void)state;
    each_model(check_gradients);
}

static void test_ten_steps(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct tiny t;
        tiny_open(&t, models[i], FC_F32);
        struct fc_trainer_options o = tiny_options(&t);
        struct fc_trainer *trainer;
        const cJSON *adamw = cJSON_GetObjectItemCaseSensitive(t.json, "adamw");
        const cJSON *losses = cJSON_GetObjectItemCaseSensitive(adamw, "losses");
        const cJSON *norms = cJSON_GetObjectItemCaseSensitive(adamw, "grad_norms");
        double worst = 0;
        must(fc_trainer_create(&trainer, &t.model, &o, why));
        for (int step = 0; step < 10; step++) {
            struct fc_step_metrics m;
            must(fc_trainer_step(trainer, t.list, t.n_samples, 0, &m, why));
            double loss = cJSON_GetArrayItem(losses, step)->valuedouble;
            double norm = cJSON_GetArrayItem(norms, step)->valuedouble;
            worst = fmax(worst, fabs(m.loss / loss - 1));
            assert_true(fabs(m.loss - loss) <= 1e-4);
            assert_true(fabs(m.gradient_norm / norm - 1) <= 1e-3);
        }
        print_message("%s: ten steps within %.1e of PyTorch's losses\n", models[i], worst);
        assert_int_equal(fc_trainer_steps_done(trainer), 10);
        fc_trainer_free(trainer);
        tiny_close(&t);
    }
}

/* Weights after n steps, with a save and load into a new trainer after `stop` of them. */
static void train(enum fc_dtype dtype, int n, int stop, const char *path, unsigned char **bytes,
                  size_t *size)
{
    struct tiny t;
    tiny_open(&t, "tiny-llama", dtype);
    struct fc_trainer_options o = tiny_options(&t);
    struct fc_trainer *trainer;
    struct fc_step_metrics m;
    must(fc_trainer_create(&trainer, &t.model, &o, why));
    for (int step = 0; step < n; step++) {
        if (step == stop) {
            char note[64];
            must(fc_trainer_save(trainer, path, "tag", "7 11", why));
            fc_trainer_free(trainer);
            tiny_close(&t);
            tiny_open(&t, "tiny-llama", dtype);
            must(fc_trainer_create(&trainer, &t.model, &o, why));
            must(fc_trainer_load(trainer, path, "tag", note, sizeof note, why));
            assert_string_equal(note, "7 11");
        }
        must(fc_trainer_step(trainer, t.list, t.n_samples, 0, &m, why));
    }
    *size = t.model.params.total * fc_dtype_size(dtype);
    *bytes = malloc(*size);
    assert_non_null(*bytes);
    t.dev.k->download(t.dev.stream, *bytes, t.model.weights, *size);
    must(t.dev.k->sync(t.dev.stream, why));
    fc_trainer_free(trainer);
    tiny_close(&t);
}

static void test_resume(void **state)
{
    (void)state;
    char path[] = "/tmp/fedcot-resume-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    for (int i = 0; i < 2; i++) {
        unsigned char *straight, *resumed;
        size_t n, n2;
        train(i ? FC_BF16 : FC_F32, 10, -1, path, &straight, &n);
        train(i ? FC_BF16 : FC_F32, 10, 5, path, &resumed, &n2);
        assert_int_equal(n, n2);
        assert_memory_equal(straight, resumed, n);
        free(straight);
        free(resumed);
    }
    unlink(path);
}

/* A checkpoint that is damaged, cut, or of another run is refused, and the trainer is untouched. */
static void test_bad_checkpoints(void **state)
{
    (void)state;
    char path[] = "/tmp/fedcot-checkpoint-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct tiny t;
    tiny_open(&t, "tiny-llama", FC_F32);
    struct fc_trainer_options o = tiny_options(&t);
    struct fc_trainer *trainer;
    char note[64];
    must(fc_trainer_create(&trainer, &t.model, &o, why));
    must(fc_trainer_save(trainer, path, "tag", NULL, why));
    struct fc_error err = {0};
    assert_int_equal(fc_trainer_load(trainer, path, "other", note, sizeof note, &err),
                     FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "another model, data or configuration"));
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, 5000, SEEK_SET);
    int c = getc(f);
    fseek(f, 5000, SEEK_SET);
    putc(c ^ 1, f);
    fclose(f);
    err = (struct fc_error){0};
    assert_int_equal(fc_trainer_load(trainer, path, "tag", note, sizeof note, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "damaged"));
    const off_t cuts[] = {0, 7, 100, 5000};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(truncate(path, cuts[3 - i]), 0);
        err = (struct fc_error){0};
        assert_int_equal(fc_trainer_load(trainer, path, "tag", note, sizeof note, &err),
                         FC_ERR_INPUT);
    }
    assert_int_equal(fc_trainer_steps_done(trainer), 0);
    fc_trainer_free(trainer);
    tiny_close(&t);
    unlink(path);
}

/* Samples that cannot be learned from are refused before anything is computed. */
static void test_bad_samples(void **state)
{
    (void)state;
    struct tiny t;
    tiny_open(&t, "tiny-qwen2", FC_F32);
    struct fc_trainer_options o = tiny_options(&t);
    o.tokens_per_batch = 16; /* the longest sample has 22 rows */
    struct fc_trainer *trainer;
    struct fc_step_metrics m;
    struct fc_error err = {0};
    must(fc_trainer_create(&trainer, &t.model, &o, why));
    assert_int_equal(fc_trainer_step(trainer, t.list, t.n_samples, 0, &m, &err), FC_ERR_USAGE);
    assert_non_null(strstr(err.text, "--tokens-per-batch"));
    struct fc_sample none = {.ids = t.samples[0].ids, .n = 4, .first_target = 4};
    const struct fc_sample *list[] = {&none};
    err = (struct fc_error){0};
    assert_int_equal(fc_trainer_step(trainer, list, 1, 0, &m, &err), FC_ERR_USAGE);
    err = (struct fc_error){0};
    assert_int_equal(fc_trainer_step(trainer, list, 0, 0, &m, &err), FC_ERR_USAGE);
    assert_int_equal(fc_trainer_steps_done(trainer), 0);
    fc_trainer_free(trainer);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),          cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_ten_steps),       cmocka_unit_test(test_resume),
        cmocka_unit_test(test_bad_checkpoints), cmocka_unit_test(test_bad_samples),
    };
    return cmocka_run_group_tests_name("engine/training", tests, NULL, NULL);
}
