/* bf16 products on a CPU without bf16 instructions: oneDNN is told to use AVX2 at most, so the
 * blocks go through fp32. */
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
    kt_check_gemm_kinds(7, 31, 33, FC_BF16);
    kt_check_gemm_kinds(100, 33, 65, FC_BF16);
    struct kt t;
    kt_open(&t);
    /* Several blocks in each direction, ragged at their ends. */
    for (int kind = 0; kind < 4; kind++)
        kt_check_gemm(&t,
                      (struct fc_gemm){.m = kind & 1 ? 260 : 3,
                                       .n = kind & 1 ? 5 : 1100,
                                       .k = kind & 2 ? 4100 : 70,
                                       .trans_a = kind & 1,
                                       .trans_b = kind & 2,
                                       .accumulate = kind == 3,
                                       .type = FC_BF16,
                                       .y_type = kind == 3 ? FC_F32 : FC_BF16},
                      3);
    kt_close(&t);
}

static void test_packed(void **state)
{
    (void)state;
    kt_check_packed(7, 31, 33, FC_BF16, FC_BF16);
    kt_check_packed(100, 65, 96, FC_BF16, FC_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_fast),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_packed),
    };
    setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
    setenv("DNNL_MAX_CPU_ISA", "AVX2", 1); /* its name before oneDNN 2.5 */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
