/* Fuzzes trainer.state (engine/checkpoint.c). The hash over the file is put right when the first
 * byte after it says so, or nothing behind the hash would ever be reached. */
#include "fuzz.h"

#include "engine/trainer.h"

#include <sodium.h>
#include <string.h>

#define DIGEST 32

static struct fc_device device;
static struct fc_model model;
static struct fc_trainer *trainer;

/* One small model for the whole run: 1 layer, 8 channels. */
static void open_trainer(void)
{
    struct fc_error err = {0};
    struct fc_model_config c = {.family = "llama",
                                .n_layer = 1,
                                .n_embd = 8,
                                .n_head = 1,
                                .n_kv_head = 1,
                                .head_size = 8,
                                .n_ff = 8,
                                .n_vocab = 16,
                                .n_ctx = 16,
                                .norm = FC_NORM_RMS,
                                .norm_eps = 1e-5,
                                .rope_theta = 1e4,
                                .activation = FC_ACT_SILU,
                                .gated = true,
                                .tied = true,
                                .bos = -1,
                                .pad = -1};
    struct fc_trainer_options options = fc_trainer_defaults();
    options.tokens_per_batch = 16;
    FUZZ_CHECK(sodium_init() >= 0);
    FUZZ_CHECK(fc_device_open(&device, "cpu", 1, &err) == FC_OK);
    FUZZ_CHECK(fc_model_create(&model, &device, &c, FC_F32, 16, &err) == FC_OK);
    device.k->zero(device.stream, model.weights, model.params.total * sizeof(float));
    FUZZ_CHECK(fc_trainer_create(&trainer, &model, &options, &err) == FC_OK);
}

static const char *with_hash(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size);
    FUZZ_CHECK(copy);
    memcpy(copy, data, size);
    crypto_generichash(copy + size - DIGEST, DIGEST, copy, size - DIGEST, NULL, 0);
    const char *path = fuzz_file(0, copy, size);
    free(copy);
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!trainer)
        open_trainer();
    bool right = size > DIGEST && data[size - 1] == 'h';
    const char *path = right ? with_hash(data, size) : fuzz_file(0, data, size);
    struct fc_error err = {0};
    char note[64];
    enum fc_code code = fc_trainer_load(trainer, path, "tag", note, sizeof note, &err);
    FUZZ_CHECK_ERROR(code, err);
    return 0;
}
