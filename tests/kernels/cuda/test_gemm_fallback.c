/* Our own CUDA product, which takes what cuBLASLt refuses, held to the checks of the general one:
 * ragged shapes, all transpositions, padded rows, accumulation, biases, every dtype. */
#include "kernels/cuda/cuda.h"

#include "tests/kernels/products.h"

static void check_kinds(size_t m, size_t n, size_t k, enum fc_dtype type)
{
    struct fc_kernels own = fc_kernels_cuda;
    struct kt t;
    kt_open(&t);
    own.gemm = fc_cuda_gemm_blocks;
    t.k = &own;
    for (int kind = 0; kind < 12; kind++)
        kt_check_gemm(&t,
                      (struct fc_gemm){.m = m,
                                       .n = n,
                                       .k = k,
                                       .trans_a = kind & 1,
                                       .trans_b = kind & 2,
                                       .accumulate = kind / 4 == 2,
                                       .type = type,
                                       .y_type = kind / 4 == 1 ? type : FC_F32},
                      (size_t)(kind % 3) * 5);
    kt_close(&t);
}

static void test_kinds(void **state)
{
    (void)state;
    const size_t shapes[][3] = {{1, 1, 1}, {7, 31, 33}, {33, 7, 100}, {100, 65, 17}};
    for (size_t type = 0; type < kt_n_dtypes(); type++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            check_kinds(shapes[i][0], shapes[i][1], shapes[i][2], kt_dtypes[type]);
}

/* More blocks in each direction, ragged at their ends. */
static void test_blocks(void **state)
{
    (void)state;
    check_kinds(130, 200, 40, FC_BF16);
}

static void test_too_large(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct kt_array a = kt_random(&t, 4, FC_F32, 1);
    struct fc_gemm g = {.a = a.p, .b = a.p, .y = a.p, .k = 1, .lda = 1, .ldb = 1, .trans_b = true};
    g.m = g.n = g.ldy = (size_t)1 << 22; /* 2^32 tiles of 64 x 64 */
    fc_cuda_gemm_blocks(t.s, &g);
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_UNSUPPORTED);
    kt_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
