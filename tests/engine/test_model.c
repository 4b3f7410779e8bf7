/* Models on a device: what this engine lacks is refused by name, before memory is taken. */
#include "engine/transformer.h"
#include "toy.h"

static void refused(const struct fc_model_config *c, struct fc_device *dev, const char *what)
{
    struct fc_model m;
    struct fc_error err = {0};
    assert_int_equal(fc_model_create(&m, dev, c, FC_F32, 0, &err), FC_ERR_UNSUPPORTED);
    if (!strstr(err.text, what) || !strstr(err.text, "testfamily"))
        fail_msg("expected \"%s\" in \"%s\"", what, err.text);
    fc_model_free(&m); /* fine after a failure */
}

static void test_unsupported(void **state)
{
    (void)state;
    struct toy t;
    toy_random(&t, FC_F32, false, 1);
    struct fc_model_config good = t.model.config, c;
    strcpy(good.family, "testfamily");
    size_t peak = t.dev.peak;
#define REFUSED(change, what)                                                                      \
    do {                                                                                           \
        c = good;                                                                                  \
        c.change;                                                                                  \
        refused(&c, &t.dev, what);                                                                 \
    } while (0)
    REFUSED(norm = FC_NORM_LAYER, "LayerNorm");
    REFUSED(position = FC_POSITION_LEARNED, "learned positions");
    REFUSED(activation = FC_ACT_GELU, "SwiGLU");
    REFUSED(gated = false, "SwiGLU");
    REFUSED(parallel_residual = true, "parallel residual");
    REFUSED(qk_norm = true, "q/k norm");
    REFUSED(head_size = 15, "odd head size");
    assert_int_equal(t.dev.peak, peak);
    toy_close(&t);
}

static void test_context(void **state)
{
    (void)state;
    struct toy t;
    struct fc_model m;
    toy_random(&t, FC_F32, false, 1);
    size_t full = t.model.config.n_ctx, before = t.dev.used[FC_MEM_WEIGHTS];
    const size_t wanted[] = {0, 7, full, full + 1}, got[] = {full, 7, full, full};
    for (size_t i = 0; i < 4; i++) {
        must(fc_model_create(&m, &t.dev, &t.model.config, FC_BF16, wanted[i], why));
        assert_int_equal(m.n_ctx, got[i]);
        fc_model_free(&m);
    }
    assert_int_equal(t.dev.used[FC_MEM_WEIGHTS], before);
    toy_close(&t);
}

/* Tied models give the embedding as output matrix, packed too; packing twice does not leak. */
static void test_packing(void **state)
{
    (void)state;
    for (int qwen = 0; qwen < 2; qwen++) {
        struct toy t;
        toy_random(&t, FC_F32, qwen, 1);
        void *embed = fc_model_weight(&t.model, FC_P_EMBED, 0);
        void *head = fc_model_weight(&t.model, FC_P_HEAD, 0);
        assert_int_equal(embed == head, !qwen);
        fc_model_unpack(&t.model);
        assert_null(fc_model_packed(&t.model, FC_P_HEAD, 0));
        must(fc_model_pack(&t.model, why));
        size_t bytes = t.dev.used[FC_MEM_PACKED];
        must(fc_model_pack(&t.model, why));
        assert_int_equal(t.dev.used[FC_MEM_PACKED], bytes);
        assert_int_equal(bytes, t.model.packed_bytes);
        assert_null(fc_model_packed(&t.model, FC_P_NORM1, 0));
        assert_int_equal(fc_model_weight(&t.model, FC_P_QKV_BIAS, 0) != NULL, qwen);
        fc_model_unpack(&t.model);
        assert_int_equal(t.dev.used[FC_MEM_PACKED], 0);
        toy_close(&t);
    }
}

/* Batches that would read outside the tables are refused. */
static void test_bad_batches(void **state)
{
    (void)state;
    struct toy t;
    toy_random(&t, FC_F32, false, 1);
    struct fc_transformer *pass;
    struct fc_batch b;
    int32_t ids[4] = {1, 2, 3, 4};
    const struct fc_sample sample = {.ids = ids, .n = 4, .first_target = 2};
    float *logits = malloc(4 * t.model.config.n_vocab * sizeof *logits);
    assert_non_null(logits);
    must(fc_transformer_create(&pass, &t.model, 8, why));
    must(fc_batch_create(&b, 16, why));
    assert_true(fc_batch_add(&b, &sample, 1));
    must(fc_transformer_logits(pass, &b, logits, why));
    const int32_t n_vocab = (int32_t)t.model.config.n_vocab;
    const int32_t wrong[] = {-1, n_vocab, INT32_MAX};
    for (size_t at = 0; at < 4; at++) /* token 3 is a target only */
        for (size_t i = 0; i < 3; i++) {
            struct fc_error err = {0};
            ids[at] = wrong[i];
            fc_batch_clear(&b);
            assert_true(fc_batch_add(&b, &sample, 1));
            assert_int_equal(fc_transformer_logits(pass, &b, logits, &err), FC_ERR_USAGE);
            assert_non_null(strstr(err.text, "vocabulary"));
            ids[at] = 1;
        }
    fc_batch_clear(&b); /* empty, and larger than the workspace */
    assert_int_equal(fc_transformer_logits(pass, &b, logits, NULL), FC_ERR_USAGE);
    for (int i = 0; i < 3; i++)
        assert_true(fc_batch_add(&b, &sample, 1));
    assert_int_equal(fc_transformer_logits(pass, &b, logits, NULL), FC_ERR_USAGE);
    free(logits);
    fc_batch_free(&b);
    fc_transformer_free(pass);
    toy_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_bad_batches),
    };
    return cmocka_run_group_tests_name("engine/model", tests, NULL, NULL);
}
