/* SmolLM2-135M-Instruct's logits in fp32 against transformers, on eight prompts, at every position
 * (tests/golden/make_logits.py). */
#include "engine/transformer.h"
#include "models/safetensors.h"
#include "tests/engine/smollm2.h"

enum { PROMPTS = 8, SAMPLED = 96, LONGEST = 128 };

static struct fc_model_file *file;

/* Adds the squared error and the squared size of one prompt's logits. */
static void compare(struct fc_transformer *t, const struct fc_safetensors *golden, int prompt,
                    size_t n_vocab, double *error, double *size)
{
    char name[32];
    struct fc_batch b;
    snprintf(name, sizeof name, "prompt.%d", prompt);
    const struct fc_safetensor *ids = fc_safetensors_find(golden, name);
    snprintf(name, sizeof name, "logits.%d", prompt);
    const struct fc_safetensor *expected = fc_safetensors_find(golden, name);
    const struct fc_safetensor *vocabulary = fc_safetensors_find(golden, "vocabulary");
    assert_true(ids && expected && vocabulary && vocabulary->dims[0] == SAMPLED);
    size_t n = ids->dims[0];
    assert_true(n <= LONGEST && expected->dims[0] == n && expected->dims[1] == SAMPLED);

    must(fc_batch_create(&b, LONGEST, why));
    memcpy(b.ids, ids->data, n * sizeof *b.ids);
    for (size_t i = 0; i < n; i++)
        b.positions[i] = b.target_rows[i] = (int32_t)i;
    b.T = b.n_targets = n;
    b.B = 1;
    b.starts[1] = (int32_t)n;
    float *logits = malloc(n * n_vocab * sizeof *logits);
    assert_non_null(logits);
    must(fc_transformer_logits(t, &b, logits, why));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < SAMPLED; j++) {
            int32_t id;
            float want;
            memcpy(&id, vocabulary->data + j * sizeof id, sizeof id);
            memcpy(&want, expected->data + (i * SAMPLED + j) * sizeof want, sizeof want);
            double d = (double)logits[i * n_vocab + (size_t)id] - (double)want;
            *error += d * d;
            *size += (double)want * (double)want;
        }
    free(logits);
    fc_batch_free(&b);
}

static void test_logits(void **state)
{
    (void)state;
    struct fc_device dev;
    struct fc_model model;
    struct fc_transformer *t;
    struct fc_safetensors *golden;
    double error = 0, size = 0;
    must(fc_safetensors_open(&golden, FC_GOLDEN_DIR "/smollm2_logits.safetensors", why));
    must(fc_device_open(&dev, "cpu", 0, why));
    must(fc_model_load(&model, &dev, file, FC_F32, LONGEST, why));
    must(fc_transformer_create(&t, &model, LONGEST, why));
    for (int i = 0; i < PROMPTS; i++)
        compare(t, golden, i, model.config.n_vocab, &error, &size);
    print_message("NMSE %.2e\n", error / size);
    assert_true(error / size <= 1e-8);
    fc_transformer_free(t);
    fc_model_free(&model);
    fc_device_close(&dev);
    fc_safetensors_close(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_logits)};
    if (!smollm2_open(&file)) {
        fc_model_file_close(file);
        return 77;
    }
    int failed = cmocka_run_group_tests_name("engine/logits_real", tests, NULL, NULL);
    fc_model_file_close(file);
    return failed;
}
