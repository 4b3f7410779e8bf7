/* Products in fp8 against fp64 products of the rounded operands: every e4m3 value and tie, scales
 * at both ends of the exponents, ragged m, biases; shapes that cannot be are refused. */
#include "tests/kernels/products.h"

/* Rounds to e4m3 by search among all its values: slow, and nothing like the code under test. */
static double round_e4m3(double x)
{
    double best = 0, a = fabs(x);
    bool best_even = true;
    for (int byte = 1; byte < 127; byte++) { /* 127 is NaN */
        int e = byte >> 3;
        double v = e ? ldexp(8 + (byte & 7), e - 10) : ldexp(byte & 7, -9);
        bool even = byte % 2 == 0;
        if (fabs(v - a) < fabs(best - a) || (fabs(v - a) == fabs(best - a) && even && !best_even)) {
            best = v;
            best_even = even;
        }
    }
    return x < 0 ? -best : best;
}

/* x.ref = what fp8 makes of it. */
static void round_ref(double *to, const struct kt_array *x)
{
    double most = 0, scale = 1;
    for (size_t i = 0; i < x->n; i++)
        most = fmax(most, fabs(x->ref[i]));
    if (most > 0) {
        for (scale = 0x1p127; most <= 448 * scale / 2 && scale > 0x1p-126; scale /= 2)
            continue;
    }
    for (size_t i = 0; i < x->n; i++)
        to[i] = round_e4m3(x->ref[i] / scale) * scale;
}

static bool can(struct kt *t)
{
    bool cpu = strcmp(t->k->name, "cpu") == 0;
    if (!cpu && !t->k->has_fp8(t->s))
        printf("this device has no fp8: only the refusal is tested\n");
    return cpu || t->k->has_fp8(t->s);
}

/* One product of given operands. pad: elements between the rows of y, whose NaNs must stay. exact:
 * no sum has a second term, so nothing but the rounding to e4m3 may differ. */
static void check(struct kt *t, struct kt_array *a, struct kt_array *b, struct fc_gemm g,
                  size_t pad, bool biased, bool exact)
{
    struct fc_error err = {0};
    g.lda = g.ldb = g.k;
    g.ldy = g.n + pad;
    g.trans_b = true;
    struct kt_array y = kt_array(t, g.m * g.ldy, (int)g.y_type);
    struct kt_array bias = kt_random(t, g.n, (int)g.type, 1);
    void *scratch = t->k->alloc(t->s, fc_fp8_scratch(g.m, g.n, g.k), &err);
    assert_non_null(scratch);
    double *ra = kt_malloc(a->n * sizeof *ra), *rb = kt_malloc(b->n * sizeof *rb);
    double *want = kt_malloc(y.n * sizeof *want), size = 0;
    round_ref(ra, a);
    round_ref(rb, b);
    for (size_t i = 0; i < y.n; i++)
        want[i] = i % g.ldy >= g.n ? (double)NAN : biased ? bias.ref[i % g.ldy] : 0.0;
    kt_product(want, &g, ra, rb, 1);
    for (size_t i = 0; i < y.n; i++)
        size = isnan(want[i]) ? size : fmax(size, fabs(want[i]));
    g.a = a->p;
    g.b = b->p;
    g.y = y.p;
    g.bias = biased ? bias.p : NULL;
    t->k->gemm_fp8(t->s, &g, scratch);
    char what[120];
    snprintf(what, sizeof what, "fp8 m %zu n %zu k %zu %s to %s%s", g.m, g.n, g.k,
             fc_dtype_name(g.type), fc_dtype_name(g.y_type), biased ? " + bias" : "");
    kt_check(t, &y, want, exact ? 0 : size, what);
    t->k->free(t->s, scratch);
    free(ra);
    free(rb);
    free(want);
}

static void test_shapes(void **state)
{
    (void)state;
    const size_t shapes[][3] = {{1, 16, 16}, {16, 32, 48}, {17, 48, 112}, {50, 16, 160}};
    struct kt t;
    kt_open(&t);
    for (size_t type = 0; type < kt_n_dtypes(); type++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            struct fc_gemm g = {.m = shapes[i][0], .n = shapes[i][1], .k = shapes[i][2]};
            g.type = kt_dtypes[type];
            struct kt_array a = kt_random(&t, g.m * g.k, (int)g.type, 3);
            struct kt_array b = kt_random(&t, g.n * g.k, (int)g.type, 0.02);
            for (int kind = 0; kind < 4 && can(&t); kind++) {
                g.y_type = kind & 1 ? g.type : FC_F32;
                check(&t, &a, &b, g, kind & 2 ? 8 : 0, kind != 1, false);
            }
        }
    kt_close(&t);
}

/* All values, and the points in the middle between two, through an identity. */
static void test_rounding(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    enum { K = 16, M = 40 };
    struct kt_array a = kt_array(&t, M * K, FC_F32), b = kt_array(&t, K * K, FC_F32);
    double v[M * K] = {0}, one[K * K] = {0};
    for (int i = 0; i < M * K && i < 506; i++) { /* value, middle, just above it, both signs */
        int byte = i / 4;
        double low = byte >> 3 ? ldexp(8 + (byte & 7), (byte >> 3) - 10) : ldexp(byte & 7, -9);
        double up = ldexp(1, (byte >> 3 ? byte >> 3 : 1) - 10);
        v[i] = i % 4 == 0   ? low
               : i % 4 == 1 ? low + up / 2
               : i % 4 == 2 ? -low - up / 2
                            : low + up * 0.51;
        v[i] = fmin(v[i], 448);
    }
    for (int i = 0; i < K; i++)
        one[i * K + i] = 1;
    kt_put(&t, &a, v);
    kt_put(&t, &b, one);
    if (can(&t))
        check(&t, &a, &b, (struct fc_gemm){.m = M, .n = K, .k = K}, 0, false, true);
    kt_close(&t);
}

/* Largest magnitudes from zero over subnormals to the largest float. */
static void test_scales(void **state)
{
    (void)state;
    const double most[] = {0, 1e-44, 0x1p-126, 1e-30, 447.9, 448, 448.1, 1e9, 3.4e38};
    struct kt t;
    kt_open(&t);
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        struct kt_array a = kt_random(&t, 16 * 32, FC_F32, most[i]);
        struct kt_array b = kt_random(&t, 16 * 32, FC_F32, most[i] > 1 ? 1e-3 : 1);
        double first[16 * 32];
        memcpy(first, a.ref, sizeof first);
        first[77] = most[i];
        kt_put(&t, &a, first);
        if (can(&t))
            check(&t, &a, &b, (struct fc_gemm){.m = 16, .n = 16, .k = 32}, 0, false, false);
    }
    kt_close(&t);
}

static void test_not_finite(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct kt t;
        struct fc_error err = {0};
        kt_open(&t);
        struct kt_array a = kt_random(&t, 16 * 16, FC_F32, 1),
                        b = kt_random(&t, 16 * 16, FC_F32, 1);
        struct kt_array y = kt_array(&t, 16 * 16, FC_F32);
        double bad[16 * 16];
        memcpy(bad, b.ref, sizeof bad);
        bad[100] = i ? (double)INFINITY : (double)NAN;
        kt_put(&t, &b, bad);
        t.k->zero(t.s, y.p, y.bytes);
        void *scratch = t.k->alloc(t.s, fc_fp8_scratch(16, 16, 16), &err);
        struct fc_gemm g = {.a = a.p, .b = b.p, .y = y.p, .m = 16, .n = 16, .k = 16};
        g.lda = g.ldb = g.ldy = 16;
        g.trans_b = true;
        if (can(&t)) {
            t.k->gemm_fp8(t.s, &g, scratch);
            kt_read(&t, &y);
            for (size_t e = 0; e < y.n; e++)
                assert_true(isnan(y.ref[e]));
        }
        t.k->free(t.s, scratch);
        kt_close(&t);
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    struct kt_array a = kt_random(&t, 32 * 32, FC_F32, 1), y = kt_array(&t, 32 * 32, FC_F32);
    struct fc_gemm good = {.a = a.p, .b = a.p, .y = y.p, .m = 16, .n = 16, .k = 16};
    good.lda = good.ldb = good.ldy = 16;
    good.trans_b = true;
    for (int i = 0; i < 7; i++) {
        struct fc_gemm g = good;
        struct fc_error err = {0};
        g.trans_b = i != 0;
        g.trans_a = i == 1;
        g.accumulate = i == 2;
        g.k = i == 3 ? 8 : 16;
        g.lda = g.ldb = i == 4 ? 32 : g.k;
        g.n = i == 5 ? 15 : 16;
        g.ldy = i == 6 ? 17 : 16;
        t.k->gemm_fp8(t.s, &g, y.p);
        assert_int_equal(t.k->sync(t.s, &err), FC_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.text, "gemm_fp8"));
    }
    kt_read(&t, &y);
    for (size_t e = 0; e < y.n; e++)
        assert_true(isnan(y.ref[e]));
    kt_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),  cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_scales),  cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
