/* Products with packed weights: against fp64, and batch invariance bit for bit: a row's result does
 * not depend on m, on the other rows, on its place, or on the number of threads. */
#include "tests/kernels/products.h"

static void test_values(void **state)
{
    (void)state;
    const size_t shapes[][3] = {{1, 1, 1},     {7, 31, 33},  {32, 64, 576},
                                {33, 100, 65}, {100, 33, 7}, {31, 96, 100}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        kt_check_packed(shapes[i][0], shapes[i][1], shapes[i][2], FC_F32, FC_F32);
        kt_check_packed(shapes[i][0], shapes[i][1], shapes[i][2], FC_BF16, FC_F32);
        kt_check_packed(shapes[i][0], shapes[i][1], shapes[i][2], FC_BF16, FC_BF16);
    }
}

/* One set of weights and inputs, and the bits of all rows from one product of all of them. */
struct rows {
    struct kt t;
    struct fc_packed *w;
    struct kt_array x, y;
    size_t m, n, k;
    enum fc_dtype type, y_type;
    unsigned char *bits; /* of y */
    size_t row_bytes;
};

static void rows_open(struct rows *r, int threads, size_t m, size_t n, size_t k, enum fc_dtype type,
                      enum fc_dtype y_type)
{
    *r = (struct rows){.m = m, .n = n, .k = k, .type = type, .y_type = y_type};
    kt_open_threads(&r->t, threads);
    r->x = kt_random(&r->t, m * k, (int)type, 1);
    struct kt_array w = kt_random(&r->t, n * k, (int)type, 1);
    r->y = kt_array(&r->t, m * n, (int)y_type);
    r->w = r->t.k->pack(r->t.s, w.p, n, k, type);
    r->t.k->gemm_packed(r->t.s, r->y.p, y_type, r->x.p, r->w, m);
    r->bits = kt_raw(&r->t, &r->y);
    r->row_bytes = n * fc_dtype_size(y_type);
}

static void rows_close(struct rows *r)
{
    free(r->bits);
    r->t.k->unpack(r->t.s, r->w);
    kt_close(&r->t);
}

/* Computes the rows named by which[m] together and compares each with its bits. */
static void check_rows(struct rows *r, const size_t *which, size_t m)
{
    struct fc_error err = {0};
    size_t in = r->k * fc_dtype_size(r->type);
    char *x = r->t.k->alloc(r->t.s, m * in, &err),
         *y = r->t.k->alloc(r->t.s, m * r->row_bytes, &err);
    assert_true(x && y);
    unsigned char *got = kt_malloc(m * r->row_bytes);
    for (size_t i = 0; i < m; i++)
        r->t.k->copy(r->t.s, x + i * in, (char *)r->x.p + which[i] * in, in);
    r->t.k->gemm_packed(r->t.s, y, r->y_type, x, r->w, m);
    r->t.k->download(r->t.s, got, y, m * r->row_bytes);
    kt_sync(&r->t);
    for (size_t i = 0; i < m; i++)
        if (memcmp(got + i * r->row_bytes, r->bits + which[i] * r->row_bytes, r->row_bytes) != 0)
            fail_msg("n %zu k %zu %s: row %zu has other bits as row %zu of %zu", r->n, r->k,
                     fc_dtype_name(r->type), which[i], i, m);
    free(got);
    r->t.k->free(r->t.s, x);
    r->t.k->free(r->t.s, y);
}

/* Every m from 1 to 100, rows in an order that changes with m; then some alone. */
static void check_invariance(size_t n, size_t k, enum fc_dtype type, enum fc_dtype y_type,
                             size_t step)
{
    struct rows r;
    size_t which[100];
    rows_open(&r, 2, 100, n, k, type, y_type);
    for (size_t m = 1; m <= 100; m += step) {
        for (size_t i = 0; i < m; i++)
            which[i] = (i * 37 + m * 11) % 100;
        check_rows(&r, which, m);
    }
    rows_close(&r);
}

static void test_invariance_fp32(void **state)
{
    (void)state;
    check_invariance(576, 576, FC_F32, FC_F32, 1);
    check_invariance(100, 1537, FC_F32, FC_F32, 1);
    check_invariance(33, 31, FC_F32, FC_F32, 1);
}

static void test_invariance_bf16(void **state)
{
    (void)state;
    check_invariance(960, 576, FC_BF16, FC_BF16, 1);
    check_invariance(576, 1536, FC_BF16, FC_F32, 1);
    check_invariance(33, 31, FC_BF16, FC_BF16, 1);
}

static void test_invariance_wide(void **state)
{
    (void)state;
    check_invariance(49152, 64, FC_BF16, FC_F32, 33);
    check_invariance(49152, 64, FC_F32, FC_F32, 33);
}

static void test_threads(void **state)
{
    (void)state;
    for (int type = FC_F32; type <= FC_BF16; type++)
        for (int threads = 2; threads <= 16; threads = threads == 3 ? 16 : threads + 1) {
            struct rows one, many;
            rows_open(&one, 1, 70, 960, 577, (enum fc_dtype)type, FC_F32);
            rows_open(&many, threads, 70, 960, 577, (enum fc_dtype)type, FC_F32);
            if (memcmp(one.bits, many.bits, 70 * one.row_bytes) != 0)
                fail_msg("%d threads change the bits in %s", threads,
                         fc_dtype_name((enum fc_dtype)type));
            rows_close(&one);
            rows_close(&many);
        }
}

/* Weights packed on one stream serve another with another number of threads. */
static void test_other_stream(void **state)
{
    (void)state;
    struct rows r;
    struct kt other;
    rows_open(&r, 2, 40, 200, 96, FC_BF16, FC_F32);
    kt_open_threads(&other, 1);
    struct kt_array y = kt_array(&other, 40 * 200, FC_F32);
    other.k->gemm_packed(other.s, y.p, FC_F32, r.x.p, r.w, 40);
    void *bits = kt_raw(&other, &y);
    assert_memory_equal(bits, r.bits, 40 * r.row_bytes);
    free(bits);
    kt_close(&other);
    rows_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),          cmocka_unit_test(test_invariance_fp32),
        cmocka_unit_test(test_invariance_bf16), cmocka_unit_test(test_invariance_wide),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_other_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
