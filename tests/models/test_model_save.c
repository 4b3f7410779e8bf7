/* Saved directories come back as the same model, in fp32 and bf16, here and (where a Python with
 * transformers is given by FEDCOT_PEER_PYTHON) in transformers. */
#define _GNU_SOURCE
#include "tests/models/files.h"

#include <sys/stat.h>
#include <sys/wait.h>

/* The flat buffer of a model file. */
static unsigned char *load(const struct fc_model_file *file, enum fc_dtype dtype)
{
    struct fc_error err = {0};
    const struct fc_params *params = fc_model_file_params(file);
    unsigned char *w = fc_alloc(params->total, fc_dtype_size(dtype), "weights", &err);
    assert_non_null(w);
    for (size_t i = 0; i < params->n; i++)
        if (fc_model_file_read(file, &params->items[i], dtype,
                               w + params->items[i].offset * fc_dtype_size(dtype), &err) != FC_OK)
            fail_msg("%s", err.text);
    return w;
}

static struct fc_model_file *open_model(const char *path)
{
    struct fc_error err = {0};
    struct fc_model_file *file = NULL;
    if (fc_model_file_open(&file, path, &err) != FC_OK)
        fail_msg("%s", err.text);
    return file;
}

static void save(const char *from, const char *folder, enum fc_dtype dtype)
{
    struct fc_error err = {0};
    struct fc_model_file *file = open_model(from);
    unsigned char *w = load(file, dtype);
    if (fc_make_folder(folder, &err) != FC_OK ||
        fc_model_save(folder, fc_model_file_config(file), fc_model_file_params(file), dtype, w,
                      &err) != FC_OK)
        fail_msg("%s", err.text);
    free(w);
    fc_model_file_close(file);
}

static void remove_saved(const char *folder)
{
    const char *const names[] = {"config.json", "generation_config.json", "model.safetensors"};
    char path[700];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(folder), 0); /* nothing else was left there */
}

static const char *const originals[] = {"tiny-llama", "tiny-llama-untied", "tiny-qwen2",
                                        "tiny-llama.gguf", "tiny-qwen2.gguf"};

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

/* ---- transformers
 * --------------------------------------------------------------------------------- */

static void check_with_peer(const char *python, const char *from, enum fc_dtype dtype)
{
    const char *folder = test_path("saved");
    save(from, folder, dtype);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execlp(python, python, golden_path("check_saved_model.py"), folder, from, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    remove_saved(folder);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The path of the real model, or NULL. */
static const char *real_model(void)
{
    static char path[1024];
    const char *given = getenv("FEDCOT_MODEL"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (given)
        snprintf(path, sizeof path, "%s", given);
    else
        snprintf(path, sizeof path, "%s%s/fedcot/SmolLM2-135M-Instruct.Q4_1.gguf",
                 cache  ? cache
                 : home ? home
                        : "",
                 cache ? "" : "/.cache");
    return fc_is_file(path) || fc_is_folder(path) ? path : NULL;
}

static void loads_in_transformers(void **state)
{
    (void)state;
    const char *python = getenv("FEDCOT_PEER_PYTHON");
    if (!python) {
        print_message("skipped: FEDCOT_PEER_PYTHON does not name a Python with transformers\n");
        skip();
    }
    for (size_t i = 0; i < sizeof originals / sizeof *originals; i++)
        check_with_peer(python, golden_path(originals[i]), i % 2 ? FC_BF16 : FC_F32);
    if (real_model())
        check_with_peer(python, real_model(), FC_BF16);
    else
        print_message("without the real model: FEDCOT_MODEL names none\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back), cmocka_unit_test(replaces_or_fails), cmocka_unit_test(header),
        cmocka_unit_test(loads_in_transformers)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
