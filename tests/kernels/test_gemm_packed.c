/* Products with packed weights: against fp64, and batch invariance bit for bit: a row's result does
 * not depend on m, on the other rows, on its place, or on the number of threads. */
#include "tests/kernels/products.h"

static void test_values(void **state)
{
    (void)state;
    const size_t shapes[][3] = {{1, 1, 1},     {7, 31, 33},  {32, 64, 576},
                                {33, 100, 65}, {100, 33, 7}, {31, 96, 100}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t type = 0; type < kt_n_dtypes(); type++) {
            enum fc_dtype dt = kt_dtypes[type];
            kt_check_packed(shapes[i][0], shapes[i][1], shapes[i][2], dt, FC_F32);
            if (dt != FC_F32)
                kt_check_packed(shapes[i][0], shapes[i][1], shapes[i][2], dt, dt);
        }
}

static void test_invariance_fp32(void **state)
{
    (void)state;
    kt_check_invariance(576, 576, FC_F32, FC_F32, 1);
    kt_check_invariance(100, 1537, FC_F32, FC_F32, 1);
    kt_check_invariance(33, 31, FC_F32, FC_F32, 1);
}

static void test_invariance_bf16(void **state)
{
    (void)state;
    kt_check_invariance(960, 576, FC_BF16, FC_BF16, 1);
    kt_check_invariance(576, 1536, FC_BF16, FC_F32, 1);
    kt_check_invariance(33, 31, FC_BF16, FC_BF16, 1);
}

static void test_invariance_fp16(void **state)
{
    (void)state;
    if (kt_n_dtypes() < 3)
        skip();
    kt_check_invariance(96, 576, FC_F16, FC_F16, 7);
    kt_check_invariance(33, 31, FC_F16, FC_F32, 7);
}

/* Rows that begin one element after an aligned address have the bits of aligned ones. */
static void test_misaligned(void **state)
{
    (void)state;
    enum { M = 70, N = 48, K = 64 };
    struct kt_rows r;
    kt_rows_open(&r, 1, M, N, K, FC_BF16, FC_BF16);
    struct kt_array x = kt_array(&r.t, M * K + 1, FC_BF16), y = kt_array(&r.t, M * N + 1, FC_BF16);
    r.t.k->copy(r.t.s, (char *)x.p + 2, r.x.p, M * K * 2);
    r.t.k->gemm_packed(r.t.s, (char *)y.p + 2, FC_BF16, (char *)x.p + 2, r.w, M);
    unsigned char *bits = kt_raw(&r.t, &y);
    assert_memory_equal(bits + 2, r.bits, M * r.row_bytes);
    assert_int_equal(bits[0], 0xff);
    assert_int_equal(bits[1], 0xff);
    free(bits);
    kt_rows_close(&r);
}

static void test_invariance_wide(void **state)
{
    (void)state;
    kt_check_invariance(49152, 64, FC_BF16, FC_F32, 33);
    kt_check_invariance(49152, 64, FC_F32, FC_F32, 33);
}

static void test_threads(void **state)
{
    (void)state;
    kt_check_packed_threads(70, 960, 577, FC_F32);
    kt_check_packed_threads(70, 960, 577, FC_BF16);
}

/* Weights packed on one stream serve another with another number of threads. */
static void test_other_stream(void **state)
{
    (void)state;
    struct kt_rows r;
    struct kt other;
    kt_rows_open(&r, 2, 40, 200, 96, FC_BF16, FC_F32);
    kt_open_threads(&other, 1);
    struct kt_array y = kt_array(&other, 40 * 200, FC_F32);
    other.k->gemm_packed(other.s, y.p, FC_F32, r.x.p, r.w, 40);
    void *bits = kt_raw(&other, &y);
    assert_memory_equal(bits, r.bits, 40 * r.row_bytes);
    free(bits);
    kt_close(&other);
    kt_rows_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),          cmocka_unit_test(test_invariance_fp32),
        cmocka_unit_test(test_invariance_bf16), cmocka_unit_test(test_invariance_wide),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_other_stream),
        cmocka_unit_test(test_invariance_fp16), cmocka_unit_test(test_misaligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
