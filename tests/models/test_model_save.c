/* Saved directories come back as the same model, in fp32, bf16 and fp16. */
#define _GNU_SOURCE
#include "tests/models/saved.h"

static void comes_back(void **state)
{
    (void)state;
    const char *const formats[] = {"safetensors F32", "safetensors BF16", "safetensors F16"};
    for (size_t i = 0; i < 3 * sizeof originals / sizeof *originals; i++) {
        enum fc_dtype dtype = (enum fc_dtype)(i % 3); /* in the order of `formats` */
        const char *folder = test_path("saved");
        save(golden_path(originals[i / 3]), folder, dtype);
        struct fc_model_file *a = open_model(golden_path(originals[i / 3])),
                             *b = open_model(folder);
        assert_same_config(fc_model_file_config(a), fc_model_file_config(b));
        assert_string_equal(fc_model_file_format(b), formats[dtype]);
        unsigned char *x = load(a, dtype), *y = load(b, dtype);
        assert_memory_equal(x, y, fc_model_file_params(a)->total * fc_dtype_size(dtype));
        free(x);
        free(y);
        fc_model_file_close(a);
        fc_model_file_close(b);
        remove_saved(folder);
    }
}

/* Saving over a model replaces it; saving where one cannot says so and leaves nothing. */
static void replaces_or_fails(void **state)
{
    (void)state;
    struct fc_error absent = {0};
    const char *folder = test_path("saved");
    save(golden_path("tiny-llama"), folder, FC_F32);
    save(golden_path("tiny-qwen2"), folder, FC_F32);
    struct fc_model_file *file = open_model(folder);
    const struct fc_model_config *config = fc_model_file_config(file);
    const struct fc_params *params = fc_model_file_params(file);
    unsigned char *w = load(file, FC_F32);
    assert_string_equal(config->family, "qwen2");
    assert_refused(fc_model_save(test_path("absent"), config, params, FC_F32, w, &absent), &absent,
                   FC_ERR_IO, "absent");
    assert_false(fc_is_folder(test_path("absent")));
    free(w);
    fc_model_file_close(file);
    remove_saved(folder);
}

/* Weights are rounded to fp16 once; one that fp16 cannot hold is refused by name. */
static void fp16(void **state)
{
    (void)state;
    const char *folder = test_path("saved");
    save(golden_path("tiny-llama"), folder, FC_F32);
    struct fc_model_file *file = open_model(folder);
    const struct fc_params *params = fc_model_file_params(file);
    const struct fc_param *norm = fc_params_find(params, FC_P_NORM_FINAL, 0);
    float *w = (float *)(void *)load(file, FC_F32);
    uint16_t *half = (uint16_t *)(void *)load(file, FC_F16);
    for (size_t i = 0; i < params->total; i++)
        assert_int_equal(half[i], fc_f32_to_f16(w[i]));
    w[norm->offset + norm->count - 1] = 65520; /* the first that rounds to infinity */
    struct fc_error err = {0};
    assert_int_equal(fc_model_save(folder, fc_model_file_config(file), params, FC_F32, w, &err),
                     FC_OK);
    fc_model_file_close(file);
    file = open_model(folder);
    norm = fc_params_find(fc_model_file_params(file), FC_P_NORM_FINAL, 0);
    assert_refused(fc_model_file_read(file, norm, FC_F16, half, &err), &err, FC_ERR_INPUT,
                   "model.norm.weight has weights beyond 65504");
    free(w);
    free(half);
    fc_model_file_close(file);
    remove_saved(folder);
}

/* The header: padded to 8 bytes, and marked as transformers wants it. */
static void header(void **state)
{
    (void)state;
    char *data, path[700];
    size_t len;
    const char *folder = test_path("saved");
    save(golden_path("tiny-llama-untied"), folder, FC_BF16);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(fc_file_read(path, 1 << 20, &data, &len, NULL), FC_OK);
    uint64_t n;
    memcpy(&n, data, 8);
    assert_true(n % 8 == 0 && n < len);
    const char *start = "{\"__metadata__\":{\"format\":\"pt\"}";
    assert_memory_equal(data + 8, start, strlen(start));
    free(data);
    remove_saved(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(comes_back), cmocka_unit_test(fp16),
                                       cmocka_unit_test(replaces_or_fails),
                                       cmocka_unit_test(header)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
