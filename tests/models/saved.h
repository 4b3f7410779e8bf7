/* Saving one of the golden models in a folder and taking the folder away again. */
#ifndef FC_TESTS_MODELS_SAVED_H
#define FC_TESTS_MODELS_SAVED_H

#include "tests/models/files.h"

/* The flat buffer of a model file. */
static inline unsigned char *load(const struct fc_model_file *file, enum fc_dtype dtype)
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

static inline struct fc_model_file *open_model(const char *path)
{
    struct fc_error err = {0};
    struct fc_model_file *file = NULL;
    if (fc_model_file_open(&file, path, &err) != FC_OK)
        fail_msg("%s", err.text);
    return file;
}

static inline void save(const char *from, const char *folder, enum fc_dtype dtype)
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

static inline void remove_saved(const char *folder)
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

#endif
