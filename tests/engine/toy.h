/* Small models for the tests of inference, made here rather than read from files: one with random
 * weights, and one that counts, whose every next token is known. */
#ifndef FC_TESTS_ENGINE_TOY_H
#define FC_TESTS_ENGINE_TOY_H

#include "base/philox.h"
#include "engine/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct toy {
    struct fc_device dev;
    struct fc_model model;
};

#define must(call)                                                                                 \
    do {                                                                                           \
        struct fc_error why_ = {0};                                                                \
        struct fc_error *why = &why_;                                                              \
        enum fc_code code_ = (call);                                                               \
        if (code_ != FC_OK)                                                                        \
            fail_msg("%s: %s", #call, why_.text);                                                  \
    } while (0)

/* The device of a test, "cpu" unless it is compiled with -DFC_TEST_DEVICE="cuda"; tests that
 * compare two set it themselves. Where there is no such device here the test is skipped, not
 * passed. */
#ifndef FC_TEST_DEVICE
#define FC_TEST_DEVICE "cpu"
#endif
static const char *test_device = FC_TEST_DEVICE;

static inline void open_test_device(struct fc_device *dev)
{
    struct fc_error err = {0};
    enum fc_code code = fc_device_open(dev, test_device, 2, &err);
    if (code == FC_ERR_UNSUPPORTED) {
        printf("skipped: %s\n", err.text);
        exit(77);
    }
    if (code != FC_OK)
        fail_msg("%s: %s", test_device, err.text);
}

/* Writes host floats to a parameter in the model's dtype. */
static inline void toy_set(struct toy *t, const struct fc_param *p, const float *values)
{
    size_t size = fc_dtype_size(t->model.dtype);
    unsigned char *host = malloc(p->count * size);
    assert_non_null(host);
    for (size_t i = 0; i < p->count; i++) {
        uint16_t half = fc_f32_to_bf16(values[i]);
        if (size == 2)
            memcpy(host + i * size, &half, size);
        else
            memcpy(host + i * size, &values[i], size);
    }
    t->dev.k->upload(t->dev.stream, (char *)t->model.weights + p->offset * size, host,
                     p->count * size);
    must(t->dev.k->sync(t->dev.stream, why));
    free(host);
}

/* Random weights: a Qwen2-like block with biases and an output matrix of its own, or a Llama-like
 * one with tied embeddings. Different seeds give different models. */
static inline void toy_random(struct toy *t, enum fc_dtype dtype, bool qwen, uint64_t seed)
{
    struct fc_model_config c = {.family = "llama",
                                .n_layer = 3,
                                .n_embd = 64,
                                .n_head = 4,
                                .n_kv_head = 2,
                                .head_size = 16,
                                .n_ff = 96,
                                .n_vocab = 199,
                                .n_ctx = 512,
                                .norm = FC_NORM_RMS,
                                .norm_eps = 1e-5,
                                .position = FC_POSITION_ROPE,
                                .rope_theta = 10000,
                                .activation = FC_ACT_SILU,
                                .gated = true,
                                .qkv_bias = qwen,
                                .tied = !qwen,
                                .bos = -1,
                                .pad = -1};
    open_test_device(&t->dev);
    must(fc_model_create(&t->model, &t->dev, &c, dtype, 0, why));
    for (size_t i = 0; i < t->model.params.n; i++) {
        const struct fc_param *p = &t->model.params.items[i];
        bool norm = p->kind == FC_P_NORM1 || p->kind == FC_P_NORM2 || p->kind == FC_P_NORM_FINAL;
        float *w = malloc(p->count * sizeof *w);
        assert_non_null(w);
        for (size_t j = 0; j < p->count; j++) {
            float u = 2 * fc_philox_uniform(seed, i, j) - 1;
            w[j] = norm ? 1 + 0.3f * u : 0.35f * u;
        }
        toy_set(t, p, w);
        free(w);
    }
    must(fc_model_pack(&t->model, why));
}

/* A model that says, after token i, always token next[i]: embeddings are unit vectors, the blocks
 * are zero, and row j of the output matrix is the sum of the unit vectors of the i with
 * next[i] == j. */
static inline void toy_counting(struct toy *t, const int32_t *next, size_t n_vocab)
{
    struct fc_model_config c = {.family = "llama",
                                .n_layer = 1,
                                .n_embd = (n_vocab + 31) / 32 * 32,
                                .n_head = 2,
                                .n_kv_head = 1,
                                .head_size = 16,
                                .n_ff = 32,
                                .n_vocab = n_vocab,
                                .n_ctx = 256,
                                .norm = FC_NORM_RMS,
                                .norm_eps = 1e-5,
                                .position = FC_POSITION_ROPE,
                                .rope_theta = 10000,
                                .activation = FC_ACT_SILU,
                                .gated = true,
                                .bos = -1,
                                .pad = -1};
    open_test_device(&t->dev);
    must(fc_model_create(&t->model, &t->dev, &c, FC_F32, 0, why));
    for (size_t i = 0; i < t->model.params.n; i++) {
        const struct fc_param *p = &t->model.params.items[i];
        float *w = calloc(p->count, sizeof *w);
        assert_non_null(w);
        for (size_t j = 0; j < n_vocab && p->kind == FC_P_EMBED; j++)
            w[j * c.n_embd + j] = 1;
        for (size_t j = 0; j < n_vocab && p->kind == FC_P_HEAD; j++)
            w[(size_t)next[j] * c.n_embd + j] = 1;
        for (size_t j = 0; j < p->count && p->kind == FC_P_NORM_FINAL; j++)
            w[j] = 1;
        toy_set(t, p, w);
        free(w);
    }
    must(fc_model_pack(&t->model, why));
}

static inline void toy_close(struct toy *t)
{
    fc_model_free(&t->model);
    for (int i = 0; i < FC_MEM_PURPOSES; i++) /* everything counted was given back */
        assert_int_equal(t->dev.used[i], 0);
    fc_device_close(&t->dev);
}

/* n random ids below the vocabulary. */
static inline void toy_ids(const struct toy *t, int32_t *ids, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(fc_philox_uniform(seed, 77, i) * (float)t->model.config.n_vocab);
}

#endif
