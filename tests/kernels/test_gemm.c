/* GEMM against fp64: ragged shapes, all transpositions, padded rows, accumulation, addresses of
 * any alignment, every dtype, and the same bits for any number of threads. */
#include "tests/kernels/products.h"

static const size_t shapes[][3] = {{1, 1, 1},    {7, 31, 33},   {33, 7, 100},
                                   {100, 33, 7}, {31, 100, 65}, {64, 96, 128}};

static void test_kinds(void **state)
{
    (void)state;
    for (size_t type = 0; type < kt_n_dtypes(); type++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            kt_check_gemm_kinds(shapes[i][0], shapes[i][1], shapes[i][2], kt_dtypes[type]);
}

/* Operands that begin one element after an aligned address, each alone and all together. */
static void test_misaligned(void **state)
{
    (void)state;
    enum { M = 33, N = 40, K = 48 };
    struct kt t;
    kt_open(&t);
    for (size_t i = 0; i < 5 * kt_n_dtypes(); i++) {
        enum fc_dtype type = kt_dtypes[i / 5];
        size_t size = fc_dtype_size(type), which = i % 5 == 4 ? 15 : (size_t)1 << i % 5;
        struct kt_array a = kt_random(&t, M * K + 1, (int)type, 1);
        struct kt_array b = kt_random(&t, N * K + 1, (int)type, 1);
        struct kt_array bias = kt_random(&t, N + 1, (int)type, 1);
        struct kt_array y = kt_array(&t, M * N + 1, (int)type);
        size_t at_a = which & 1, at_b = which >> 1 & 1, at_y = which >> 2 & 1, at_bias = which >> 3;
        struct fc_gemm g = {.m = M, .n = N, .k = K, .lda = K, .ldb = K, .ldy = N};
        g.trans_b = true;
        g.type = g.y_type = type;
        double *want = kt_malloc(y.n * sizeof *want);
        want[at_y ? 0 : M * N] = (double)NAN; /* not written */
        for (size_t e = 0; e < M * N; e++)
            want[at_y + e] = bias.ref[at_bias + e % N];
        kt_product(want + at_y, &g, a.ref + at_a, b.ref + at_b, 1);
        g.a = (char *)a.p + at_a * size;
        g.b = (char *)b.p + at_b * size;
        g.y = (char *)y.p + at_y * size;
        g.bias = (char *)bias.p + at_bias * size;
        t.k->gemm(t.s, &g);
        kt_check(&t, &y, want, sqrt((double)K), "misaligned");
        free(want);
    }
    kt_close(&t);
}

static void test_wide(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    const struct fc_gemm wide[] = {
        {.m = 40,
         .n = 30,
         .k = 4100,
         .trans_a = true,
         .accumulate = true,
         .type = FC_BF16,
         .y_type = FC_F32},
        {.m = 40, .n = 30, .k = 4100, .trans_a = true, .trans_b = true, .type = FC_F32},
        {.m = 40, .n = 30, .k = 2100, .trans_a = true, .type = FC_BF16, .y_type = FC_BF16},
        {.m = 3, .n = 49152, .k = 40, .trans_b = true, .type = FC_BF16, .y_type = FC_F32},
        {.m = 5, .n = 24, .k = 49152, .type = FC_BF16, .y_type = FC_BF16},
        {.m = 2000,
         .n = 24,
         .k = 9,
         .trans_a = true,
         .accumulate = true,
         .type = FC_BF16,
         .y_type = FC_F32},
    };
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        kt_check_gemm(&t, wide[i], 5);
    kt_close(&t);
}

static void test_empty(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    struct kt_array a = kt_random(&t, 4, FC_F32, 1), y = kt_array(&t, 6, FC_F32);
    struct fc_gemm g = {.a = a.p, .b = a.p, .y = y.p, .m = 2, .n = 3, .ldb = 3, .ldy = 3};
    t.k->gemm(t.s, &g); /* k = 0: the empty sum */
    kt_check(&t, &y, (double[6]){0}, 1, "k = 0");
    g.m = 0;
    g.k = g.lda = 2;
    t.k->gemm(t.s, &g);
    kt_sync(&t);
    kt_close(&t);
}

static void test_refused(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    struct fc_error err = {0};
    struct kt_array a = kt_random(&t, 16, FC_F32, 1), y = kt_array(&t, 16, FC_F32);
    struct fc_gemm g = {
        .a = a.p, .b = a.p, .y = y.p, .m = 4, .n = 4, .k = 4, .lda = 3, .ldb = 4, .ldy = 4};
    t.k->gemm(t.s, &g);
    t.k->zero(t.s, y.p, y.bytes); /* does nothing: the stream holds an error */
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "lda 3"));
    kt_read(&t, &y);
    assert_true(isnan(y.ref[0]));
    g.lda = 4;
    g.accumulate = true;
    g.type = g.y_type = FC_BF16;
    t.k->gemm(t.s, &g);
    assert_int_equal(t.k->sync(t.s, &(struct fc_error){0}), FC_ERR_UNSUPPORTED);
    kt_close(&t);
}

static void test_threads(void **state)
{
    (void)state;
    kt_check_gemm_threads(FC_F32);
    kt_check_gemm_threads(FC_BF16);
}

/* More shapes than the cache of primitives holds, then the first ones again. */
static void test_many_shapes(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    enum { MOST = 600 };
    struct kt_array a = kt_random(&t, MOST * 4, FC_F32, 1), b = kt_random(&t, 4 * 3, FC_F32, 1);
    struct kt_array y = kt_array(&t, MOST * 3, FC_F32);
    double *want = kt_malloc(MOST * 3 * sizeof *want);
    struct fc_gemm g = {.a = a.p, .b = b.p, .y = y.p, .n = 3, .k = 4, .lda = 4, .ldb = 3, .ldy = 3};
    for (size_t i = 0; i < MOST; i++) {
        g.m = 1 + (i * 7) % MOST;
        t.k->gemm(t.s, &g);
    }
    g.m = MOST;
    t.k->gemm(t.s, &g);
    memset(want, 0, MOST * 3 * sizeof *want);
    kt_product(want, &g, a.ref, b.ref, 1);
    kt_check(&t, &y, want, 2, "after many shapes");
    free(want);
    kt_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),       cmocka_unit_test(test_misaligned),
        cmocka_unit_test(test_wide),        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_threads),
        cmocka_unit_test(test_many_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
