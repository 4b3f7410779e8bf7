/* Saved directories come back as the same model, in fp32 and bf16. */
#define _GNU_SOURCE
#include "tests/models/saved.h"

static void comes_back(void **state)
{
    (void)state;
    const enum fc_dtype dtypes[] = {FC_F32, FC_BF16};
    for (size_t i = 0; i < 2 * sizeof originals / sizeof *originals; i++) {
        enum fc_dtype dtype = dtypes[i % 2];
        const char *folder = test_path("saved");
        save(golden_path(originals[i / 2]), folder, dtype);
        struct fc_model_file *a = open_model(golden_path(originals[i / 2])),
                             *b = open_model(folder);
        assert_same_config(fc_model_file_config(a), fc_model_file_config(b));
        assert_string_equal(fc_model_file_format(b),
                            dtype == FC_F32 ? "safetensors F32" : "safetensors BF16");
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
    struct fc_error absent = {0}, fp16 = {0};
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
    assert_refused(fc_model_save(folder, config, params, FC_F16, w, &fp16), &fp16,
                   FC_ERR_UNSUPPORTED, "fp16");
    free(w);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(comes_back),
                                       cmocka_unit_test(replaces_or_fails),
                                       cmocka_unit_test(header)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
