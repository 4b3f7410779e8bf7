/* Products on a CPU for which oneDNN has no fixed order and no bf16: it is told to use AVX2 at
 * most, so with v2 everything goes through the CPU back end's own loops, which must hold the same
 * promises. */
#define _GNU_SOURCE
#include "tests/kernels/products.h"

static void test_not_fast(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    assert_false(t.k->has_fast(t.s, FC_BF16));
    assert_true(t.k->has_fast(t.s, FC_F32));
    kt_close(&t);
}

static void test_gemm(void **state)
{
    (void)state;
    for (int type = FC_F32; type <= FC_BF16; type++) {
        kt_check_gemm_kinds(1, 1, 1, (enum fc_dtype)type);
        kt_check_gemm_kinds(7, 31, 33, (enum fc_dtype)type);
        kt_check_gemm_kinds(100, 33, 65, (enum fc_dtype)type);
    }
}

/* Several blocks in each direction, ragged at their ends. */
static void test_blocks(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    for (int kind = 0; kind < 8; kind++)
        kt_check_gemm(&t,
                      (struct fc_gemm){.m = kind & 1 ? 400 : 3,
                                       .n = kind & 1 ? 5 : 1100,
                                       .k = kind & 2 ? 700 : 70,
                                       .trans_a = kind & 1,
                                       .trans_b = kind & 2,
                                       .accumulate = kind % 4 == 3,
                                       .type = kind & 4 ? FC_F32 : FC_BF16,
                                       .y_type = kind % 4 == 3 || kind & 4 ? FC_F32 : FC_BF16},
                      3);
    kt_close(&t);
}

static void test_packed(void **state)
{
    (void)state;
    kt_check_packed(7, 31, 33, FC_BF16, FC_BF16);
    kt_check_packed(100, 65, 96, FC_BF16, FC_F32);
    kt_check_packed(33, 100, 65, FC_F32, FC_F32);
}

static void test_invariance(void **state)
{
    (void)state;
    kt_check_invariance(576, 576, FC_F32, FC_F32, 3);
    kt_check_invariance(100, 301, FC_BF16, FC_BF16, 1);
    kt_check_invariance(4000, 64, FC_BF16, FC_F32, 33);
}

static void test_threads(void **state)
{
    (void)state;
    kt_check_gemm_threads(FC_F32);
    kt_check_gemm_threads(FC_BF16);
    kt_check_packed_threads(70, 96, 77, FC_F32);
    kt_check_packed_threads(70, 96, 77, FC_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_fast),   cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_blocks),     cmocka_unit_test(test_packed),
        cmocka_unit_test(test_invariance), cmocka_unit_test(test_threads),
    };
    setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
    setenv("DNNL_MAX_CPU_ISA", "AVX2", 1); /* its name before oneDNN 2.5 */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
