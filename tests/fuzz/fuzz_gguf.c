/* Fuzzes GGUF files: metadata and tensors (models/gguf*.c), configuration (config_gguf.c),
 * parameter table and dequantisation (model_file.c, params.c, dequant.c), tokenizer
 * (tokenizer_gguf.c). */
#include "fuzz.h"

#include "models/gguf.h"
#include "models/tokenizer.h"

#define MOST_ELEMENTS                                                                              \
    (1u << 20) /* a header may claim more than its file can hold only by types of                  \
                  less than a byte: still, time is not what is tested here */

static void read_weights(const struct fc_model_file *file)
{
    const struct fc_params *params = fc_model_file_params(file);
    for (size_t i = 0; i < params->n; i++) {
        const struct fc_param *p = &params->items[i];
        struct fc_error err = {0};
        float *weights = p->count <= MOST_ELEMENTS ? malloc(p->count * sizeof *weights) : NULL;
        if (weights) {
            enum fc_code code = fc_model_file_read(file, p, FC_F32, weights, &err);
            FUZZ_CHECK_ERROR(code, err);
        }
        free(weights);
    }
}

static void use_model(const char *path)
{
    struct fc_error err = {0};
    struct fc_model_file *file = NULL;
    enum fc_code code = fc_model_file_open(&file, path, &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code != FC_OK)
        return;
    read_weights(file);
    struct fc_tokenizer *tok = NULL;
    code = fc_tokenizer_open(&tok, file, &err);
    FUZZ_CHECK_ERROR(code, err);
    struct fc_tokens ids = {0};
    if (code == FC_OK)
        (void)fc_tokenizer_encode(tok, "a river bank, 42", 16, FC_MARKUP, &ids, &err);
    fc_tokens_free(&ids);
    fc_tokenizer_close(tok);
    fc_model_file_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file(0, data, size);
    struct fc_error err = {0};
    struct fc_gguf *gguf = NULL;
    enum fc_code code = fc_gguf_open(&gguf, path, &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code != FC_OK)
        return 0;
    const struct fc_gguf_tensor *tensors;
    size_t n = fc_gguf_tensors(gguf, &tensors);
    for (size_t i = 0; i < n; i++) {
        fuzz_touch(tensors[i].name.data, tensors[i].name.len);
        fuzz_touch(tensors[i].data, tensors[i].bytes);
    }
    fc_gguf_close(gguf);
    use_model(path);
    return 0;
}
