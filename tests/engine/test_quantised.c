/* A model whose matrices stay in the blocks of their file decodes as the expanded one does. */
#include "engine/decoder.h"
#include "engine/trainer.h"

#include "tests/engine/toy.h"

#include <stdio.h>

enum { LENGTH = 21, PAGE = 4, PAGES = 16 };

static void open_file(struct fc_model_file **file, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", FC_GOLDEN_DIR, name);
    must(fc_model_file_open(file, path, why));
}

/* Logits of all rows of one sequence, [LENGTH, V]; the caller frees them. */
static float *decode(struct fc_model *m)
{
    struct fc_kv_cache *cache = NULL;
    struct fc_decoder *d = NULL;
    int32_t ids[LENGTH], table[PAGES];
    const struct fc_decoder_limits limits = {.rows = LENGTH, .logits = LENGTH};
    must(fc_model_pack(m, why));
    must(fc_kv_cache_create(&cache, m, PAGE, PAGES, why));
    must(fc_decoder_create(&d, m, cache, &limits, why));
    for (size_t i = 0; i < LENGTH; i++)
        ids[i] = (int32_t)((i * 37 + 5) % m->config.n_vocab);
    assert_true(fc_kv_cache_take(cache, ids, 0, (LENGTH + PAGE - 1) / PAGE, table));
    fc_decoder_begin(d);
    for (size_t i = 0; i < LENGTH; i++)
        fc_decoder_keep(d, fc_decoder_add(d, ids[i], i, table));
    fc_decoder_run(d);
    size_t bytes = LENGTH * m->config.n_vocab * sizeof(float);
    float *logits = malloc(bytes);
    assert_non_null(logits);
    m->dev->k->download(m->dev->stream, logits, fc_decoder_logits(d, 0, LENGTH), bytes);
    must(m->dev->k->sync(m->dev->stream, why));
    fc_decoder_free(d);
    fc_kv_cache_free(cache);
    return logits;
}

static void check_logits(enum fc_dtype dtype, double tolerance)
{
    struct fc_device dev;
    struct fc_model expanded, kept;
    struct fc_model_file *file;
    open_test_device(&dev);
    open_file(&file, "tiny-llama.gguf"); /* Q8_0, q and k in llama.cpp's order */
    must(fc_model_load(&expanded, &dev, file, dtype, 0, why));
    float *want = decode(&expanded);
    size_t n = LENGTH * expanded.config.n_vocab, all = dev.used[FC_MEM_WEIGHTS];
    fc_model_free(&expanded);
    must(fc_model_load_quantised(&kept, &dev, file, dtype, 0, why));
    assert_true(dev.used[FC_MEM_WEIGHTS] < all && dev.used[FC_MEM_QUANTISED] > 0);
    assert_null(fc_model_weight(&kept, FC_P_EMBED, 0));
    assert_non_null(fc_model_weight(&kept, FC_P_NORM_FINAL, 0));
    float *got = decode(&kept);
    assert_int_equal(dev.used[FC_MEM_PACKED], 0); /* all matrices are kept */
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        power += (double)want[i] * (double)want[i];
    }
    if (!(error <= tolerance * power))
        fail_msg("NMSE %g, expected at most %g", error / power, tolerance);
    fc_model_free(&kept);
    for (int p = 0; p < FC_MEM_PURPOSES; p++)
        assert_int_equal(dev.used[p], 0);
    free(want);
    free(got);
    fc_model_file_close(file);
    fc_device_close(&dev);
}

static void fp32(void **state)
{
    (void)state;
    check_logits(FC_F32, 1e-11);
}

static void bf16(void **state)
{
    (void)state;
    check_logits(FC_BF16, 1e-3);
}

static void refusals(void **state)
{
    (void)state;
    struct fc_device dev;
    struct fc_model m;
    struct fc_model_file *file;
    struct fc_trainer *trainer;
    struct fc_error err = {0};
    const struct fc_trainer_options options = fc_trainer_defaults();
    open_test_device(&dev);
    open_file(&file, "tiny-qwen2.gguf");
    assert_int_equal(fc_model_load_quantised(&m, &dev, file, FC_F32, 0, &err), FC_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "found gguf BF16"));
    fc_model_file_close(file);

    err = (struct fc_error){0};
    open_file(&file, "tiny-llama.gguf");
    must(fc_model_load_quantised(&m, &dev, file, FC_F32, 0, why));
    assert_int_equal(fc_trainer_create(&trainer, &m, &options, &err), FC_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "quantised"));
    fc_model_free(&m);
    fc_model_file_close(file);
    fc_device_close(&dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp32),
        cmocka_unit_test(bf16),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
