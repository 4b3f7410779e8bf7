/* Weights in the blocks of their file: expanded, gathered and multiplied as they are. The reference
 * is the format's own `expand`, which tests/models/test_dequant.c holds against the golden values.
 */
#include "base/dequant.h"
#include "tests/kernels/harness.h"

/* n blocks of random bits on the device, `bytes` of them; the halves of a block that are its scales
 * are made ordinary numbers, so that no value is NaN. Values: what they expand to. */
static struct kt_array some_blocks(struct kt *t, const struct fc_weight_format *format, size_t n,
                                   float **values, bool sane)
{
    static const struct {
        uint32_t type;
        size_t at[2];
    } scales[] = {{FC_GGML_Q8_0, {0, 0}},     {FC_GGML_Q4_0, {0, 0}}, {FC_GGML_Q4_1, {0, 2}},
                  {FC_GGML_Q5_0, {0, 0}},     {FC_GGML_Q5_1, {0, 2}}, {FC_GGML_Q2_K, {80, 82}},
                  {FC_GGML_Q3_K, {108, 108}}, {FC_GGML_Q4_K, {0, 2}}, {FC_GGML_Q5_K, {0, 2}},
                  {FC_GGML_Q6_K, {208, 208}}};
    size_t bytes = n * format->bytes;
    unsigned char *blocks = kt_malloc(bytes);
    uint64_t stream = t->draws++;
    for (size_t i = 0; i < bytes; i++) {
        uint32_t word[4];
        fc_philox(99, stream, i, word);
        blocks[i] = (unsigned char)word[0];
    }
    for (size_t k = 0; k < sizeof scales / sizeof *scales; k++)
        for (size_t b = 0; scales[k].type == format->type && b < n; b++)
            for (size_t j = 0; j < 2; j++) {
                unsigned char *high = blocks + b * format->bytes + scales[k].at[j] + 1;
                /* 2^-7 to 2^-2, either sign; or any half but infinity and NaN */
                *high = sane ? (unsigned char)(0x20 | (*high & 0x93)) : *high & 0xfb;
            }
    *values = kt_malloc(n * format->block * sizeof **values);
    format->expand(*values, blocks, n);
    struct kt_array a = kt_array(t, bytes / 2, FC_F16); /* all sizes are even */
    t->k->upload(t->s, a.p, blocks, bytes);
    kt_sync(t);
    free(blocks);
    return a;
}

static void check_bits(struct kt *t, const struct kt_array *out, const float *values, size_t n,
                       const char *what)
{
    void *got = kt_raw(t, out);
    unsigned char *want = kt_malloc(out->bytes);
    for (size_t i = 0; i < n; i++)
        kt_encode(want, i, out->kind, (double)values[i]);
    for (size_t i = 0; i < n; i++) {
        double x = kt_decode(got, i, out->kind), y = kt_decode(want, i, out->kind);
        if (memcmp((char *)got + i * kt_size(out->kind), want + i * kt_size(out->kind),
                   kt_size(out->kind)) != 0 &&
            !(isnan(x) && isnan(y)))
            fail_msg("%s: element %zu of %zu: expected %a, found %a", what, i, n, y, x);
    }
    free(want);
    free(got);
}

/* Every format to every dtype, bit for bit: one block, and enough for several tiles and a part. */
static void test_dequantise(void **state)
{
    (void)state;
    const struct fc_weight_format *format;
    for (size_t d = 0; d < kt_n_dtypes(); d++) {
        struct kt t;
        kt_open(&t);
        for (size_t f = 0; (format = fc_weight_format_at(f)); f++) {
            size_t sizes[] = {1, 7, 33, 9001 / format->block};
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                float *values;
                size_t n = sizes[i] * format->block;
                struct kt_array blocks = some_blocks(&t, format, sizes[i], &values, false);
                struct kt_array out = kt_array(&t, n, (int)kt_dtypes[d]);
                t.k->dequantise(t.s, out.p, kt_dtypes[d], blocks.p, format->type, sizes[i]);
                check_bits(&t, &out, values, n, format->name);
                free(values);
            }
        }
        kt_close(&t);
    }
}

static void test_unknown_type(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    size_t bytes;
    kt_open(&t);
    struct kt_array in = kt_array(&t, 32, FC_F32), out = kt_array(&t, 32, FC_F32);
    t.k->dequantise(t.s, out.p, FC_F32, in.p, 4, 1);
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_UNSUPPORTED);
    assert_null(t.k->quantised_open(t.s, in.p, FC_GGML_Q5_0, 1, 32, &bytes));
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_UNSUPPORTED);
    assert_null(t.k->quantised_open(t.s, in.p, FC_GGML_Q4_0, 1, 33, &bytes));
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_UNSUPPORTED);
    kt_close(&t);
}

static const uint32_t kept[] = {FC_GGML_Q4_0, FC_GGML_Q4_1, FC_GGML_Q8_0};

/* One product against fp64, and rows of the table. */
static void check_product(struct kt *t, uint32_t type, enum fc_dtype dt, enum fc_dtype y_type,
                          size_t m, size_t n, size_t k)
{
    float *w;
    const struct fc_weight_format *format = fc_weight_format(type);
    struct kt_array blocks = some_blocks(t, format, n * k / 32, &w, true);
    struct kt_array x = kt_random(t, m * k, (int)dt, 1.0), y = kt_array(t, m * n, (int)y_type);
    size_t bytes = 0, stored = n * k / 32 * format->bytes;
    struct fc_quantised *q = t->k->quantised_open(t->s, blocks.p, type, n, k, &bytes);
    assert_non_null(q);
    assert_in_range(bytes, stored, stored + stored / 4);
    t->k->gemm_quantised(t->s, y.p, y_type, x.p, dt, q, m);
    double *want = kt_malloc(m * n * sizeof *want), scale = 0.0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double size = 0.0;
            for (size_t p = 0; p < k; p++) {
                want[i * n + j] += x.ref[i * k + p] * (double)w[j * k + p];
                size += fabs(x.ref[i * k + p] * (double)w[j * k + p]);
            }
            scale = fmax(scale, size);
        }
    kt_check(t, &y, want, scale, format->name);

    enum { T = 9 };
    int32_t ids[T];
    float *rows = kt_malloc(T * k * sizeof *rows);
    for (size_t i = 0; i < T; i++) {
        ids[i] = i == 0 ? (int32_t)n - 1 : kt_below(4, i, n);
        memcpy(rows + i * k, w + (size_t)ids[i] * k, k * sizeof *rows);
    }
    struct kt_array at = kt_ints(t, ids, T), out = kt_array(t, T * k, (int)dt);
    t->k->embed_quantised(t->s, out.p, q, at.p, T, dt);
    check_bits(t, &out, rows, T * k, "embed_quantised");
    t->k->quantised_close(t->s, q);
    free(rows);
    free(want);
    free(w);
}

static void test_products(void **state)
{
    (void)state;
    static const struct {
        size_t m, n, k;
    } shapes[] = {{1, 1, 32},    {1, 33, 64},   {7, 100, 576},
                  {8, 31, 1024}, {33, 7, 1056}, {1, 17, 2080}};
    for (size_t f = 0; f < sizeof kept / sizeof *kept; f++) {
        struct kt t;
        kt_open(&t);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t d = 0; d < kt_n_dtypes(); d++) {
                enum fc_dtype dt = kt_dtypes[d];
                check_product(&t, kept[f], dt, dt, shapes[i].m, shapes[i].n, shapes[i].k);
                if (dt != FC_F32 && i == 2)
                    check_product(&t, kept[f], dt, FC_F32, shapes[i].m, shapes[i].n, shapes[i].k);
            }
        kt_close(&t);
    }
}

/* A row of y has the same bits alone, among others, and at any place. */
static void test_batch_invariance(void **state)
{
    (void)state;
    enum { M = 37, N = 50, K = 1120 };
    for (size_t f = 0; f < sizeof kept / sizeof *kept; f++) {
        struct kt t;
        kt_open(&t);
        float *w;
        struct kt_array blocks =
            some_blocks(&t, fc_weight_format(kept[f]), (size_t)N * K / 32, &w, true);
        struct kt_array x = kt_random(&t, M * K, FC_BF16, 1.0), all = kt_array(&t, M * N, FC_F32);
        size_t bytes;
        struct fc_quantised *q = t.k->quantised_open(t.s, blocks.p, kept[f], N, K, &bytes);
        assert_non_null(q);
        t.k->gemm_quantised(t.s, all.p, FC_F32, x.p, FC_BF16, q, M);
        float *together = kt_raw(&t, &all);
        static const size_t counts[] = {1, 2, 9, 20};
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            size_t m = counts[i], first = M - m;
            struct kt_array some = kt_array(&t, m * N, FC_F32);
            t.k->gemm_quantised(t.s, some.p, FC_F32, (const uint16_t *)x.p + first * K, FC_BF16, q,
                                m);
            float *alone = kt_raw(&t, &some);
            assert_memory_equal(alone, together + first * N, m * N * sizeof *alone);
            free(alone);
        }
        t.k->quantised_close(t.s, q);
        free(together);
        free(w);
        kt_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantise),
        cmocka_unit_test(test_unknown_type),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_batch_invariance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
