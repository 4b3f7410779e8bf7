/* Streams, device memory, copies, and errors that stick until sync. */
#include "tests/kernels/harness.h"

static void test_alloc(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    const size_t sizes[] = {0, 1, 63, 64, 1000, (size_t)5 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = t.k->alloc(t.s, sizes[i], &err);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        t.k->free(t.s, p);
    }
    assert_null(t.k->alloc(t.s, SIZE_MAX - 7, &err));
    assert_int_equal(err.code, FC_ERR_MEMORY);
    t.k->free(t.s, NULL);
    kt_sync(&t); /* a failed allocation is the caller's, not the stream's */
    kt_close(&t);
}

static void test_open_refused(void **state)
{
    (void)state;
    struct fc_error err = {0};
    assert_null(FC_TEST_KERNELS.stream_open(0, -1, &err));
    assert_int_equal(err.code, FC_ERR_USAGE);
    FC_TEST_KERNELS.stream_close(NULL);
}

/* Sizes on both sides of the blocks that copies are cut into. */
static void test_copies(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 100, 1 << 18, (1 << 19) + 33};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct kt t;
        kt_open(&t);
        struct kt_array a = kt_random(&t, sizes[i], FC_F32, 1), b = kt_array(&t, sizes[i], FC_F32);
        t.k->copy(t.s, b.p, a.p, a.bytes);
        kt_check_same_bits(&t, &a, &b, "copy");
        t.k->zero(t.s, b.p, b.bytes - 1);
        unsigned char *raw = kt_raw(&t, &b), *old = kt_raw(&t, &a);
        for (size_t j = 0; j + 1 < b.bytes; j++)
            assert_int_equal(raw[j], 0);
        assert_int_equal(raw[b.bytes - 1], old[b.bytes - 1]);
        free(raw);
        free(old);
        kt_close(&t);
    }
}

static void test_sticky(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct kt_array a = kt_random(&t, 8, FC_F32, 1), y = kt_array(&t, 8, FC_F32);
    struct fc_gemm bad = {
        .a = a.p, .b = a.p, .y = y.p, .m = 2, .n = 2, .k = 2, .lda = 2, .ldb = 2, .ldy = 1};
    t.k->gemm(t.s, &bad);
    bad.type = FC_F16;
    bad.y_type = FC_F32;
    bad.accumulate = true;
    t.k->gemm(t.s, &bad); /* the second error does not hide the first */
    t.k->cast(t.s, y.p, FC_F32, a.p, FC_F32, 8);
    t.k->swiglu_forward(t.s, y.p, a.p, 1, 4, FC_F32);
    assert_null(t.k->pack(t.s, a.p, 2, 2, FC_F32));
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "ldy 1"));
    kt_read(&t, &y);
    for (size_t i = 0; i < 8; i++)
        assert_true(isnan(y.ref[i]));
    kt_sync(&t); /* sync cleared it */
    t.k->cast(t.s, y.p, FC_F32, a.p, FC_F32, 8);
    kt_check(&t, &y, a.ref, 0, "after the error");
    kt_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_open_refused),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_sticky),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
