/* Logits of the inference pass against PyTorch's, on the small models of tests/golden: tied and
 * untied, grouped heads, biases, the llama3 and linear scalings of RoPE. All sequences of a model
 * go through one pass. */
#include "engine/decoder.h"
#include "models/safetensors.h"

#include "tests/engine/toy.h"

#include <stdio.h>

enum { SEQUENCES = 3, PAGE = 4, PAGES = 64, ROWS = 64 };

/* Adds the golden's sequence to the pass, all rows kept. Returns its length. */
static size_t add_sequence(const struct fc_safetensor *tokens, struct fc_decoder *d,
                           struct fc_kv_cache *cache, int32_t *table)
{
    int32_t ids[ROWS];
    size_t n = tokens->dims[0];
    assert_true(n <= ROWS && tokens->bytes == n * sizeof *ids);
    memcpy(ids, tokens->data, tokens->bytes);
    assert_true(fc_kv_cache_take(cache, ids, 0, (n + PAGE - 1) / PAGE, table));
    for (size_t i = 0; i < n; i++) {
        size_t row = fc_decoder_add(d, ids[i], i, table);
        assert_int_not_equal(row, FC_NO_ROW);
        fc_decoder_keep(d, row);
    }
    return n;
}

/* Normalised squared error of got against the golden tensor. */
static double compare(const float *got, const struct fc_safetensor *golden)
{
    size_t n = golden->bytes / sizeof(float);
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        float truth;
        memcpy(&truth, golden->data + i * sizeof truth, sizeof truth);
        error += ((double)got[i] - (double)truth) * ((double)got[i] - (double)truth);
        power += (double)truth * (double)truth;
    }
    return error / power;
}

static void check(const char *name, enum fc_dtype dtype, double tolerance)
{
    char path[512], field[32];
    struct toy t;
    struct fc_model_file *file = NULL;
    struct fc_safetensors *golden = NULL;
    struct fc_kv_cache *cache = NULL;
    struct fc_decoder *d = NULL;
    int32_t tables[SEQUENCES][PAGES];
    size_t n[SEQUENCES], first = 0;
    snprintf(path, sizeof path, "%s/%s", FC_GOLDEN_DIR, name);
    open_test_device(&t.dev);
    must(fc_model_file_open(&file, path, why));
    must(fc_model_load(&t.model, &t.dev, file, dtype, 0, why));
    must(fc_model_pack(&t.model, why));
    snprintf(path, sizeof path, "%s/%s/golden.safetensors", FC_GOLDEN_DIR, name);
    must(fc_safetensors_open(&golden, path, why));
    must(fc_kv_cache_create(&cache, &t.model, PAGE, PAGES, why));
    const struct fc_decoder_limits limits = {.rows = ROWS, .logits = ROWS};
    must(fc_decoder_create(&d, &t.model, cache, &limits, why));

    fc_decoder_begin(d);
    for (int i = 0; i < SEQUENCES; i++) {
        snprintf(field, sizeof field, "tokens.%d", i);
        const struct fc_safetensor *tokens = fc_safetensors_find(golden, field);
        assert_non_null(tokens);
        n[i] = add_sequence(tokens, d, cache, tables[i]);
    }
    fc_decoder_run(d);
    size_t total = fc_decoder_kept(d), V = t.model.config.n_vocab;
    float *logits = malloc(total * V * sizeof *logits);
    assert_non_null(logits);
    t.dev.k->download(t.dev.stream, logits, fc_decoder_logits(d, 0, total),
                      total * V * sizeof *logits);
    must(t.dev.k->sync(t.dev.stream, why));
    for (int i = 0; i < SEQUENCES; first += n[i++]) {
        snprintf(field, sizeof field, "logits.%d", i);
        const struct fc_safetensor *truth = fc_safetensors_find(golden, field);
        assert_non_null(truth);
        assert_int_equal(truth->bytes, n[i] * V * sizeof *logits);
        double error = compare(logits + first * V, truth);
        if (!(error <= tolerance))
            fail_msg("%s, sequence %d: NMSE %g, expected at most %g", name, i, error, tolerance);
    }
    free(logits);
    fc_decoder_free(d);
    fc_kv_cache_free(cache);
    fc_safetensors_close(golden);
    fc_model_file_close(file);
    toy_close(&t);
}

static const char *const models[] = {"tiny-llama", "tiny-llama-untied", "tiny-qwen2"};

static void fp32(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        check(models[i], FC_F32, 1e-10);
}

static void bf16(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        check(models[i], FC_BF16, 1e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp32),
        cmocka_unit_test(bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
