/* RMSNorm, with and without the residual addition, and its gradient by the closed form; the closed
 * form itself against finite differences of the fp64 forward pass. */
#include "tests/kernels/harness.h"

static const double eps = 1e-5;
/* Wide and ragged, wide and even, more even rows than any device has blocks for. */
static const size_t shapes[][2] = /* T, C */
    {{1, 1},      {7, 33},   {33, 100}, {100, 31}, {129, 576},
     {270, 1032}, {3, 4097}, {2, 4096}, {2, 8192}, {2, 8200}};

static double row_rstd(const double *x, size_t C)
{
    double sum = 0;
    for (size_t i = 0; i < C; i++)
        sum += x[i] * x[i];
    return 1 / sqrt(sum / (double)C + (double)(float)eps);
}

/* Numbers of size `scale`: where they are small, eps decides. */
static void check_forward(size_t T, size_t C, bool delta, bool keep, double scale, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array x = kt_random(&t, T * C, (int)dt, 2 * scale);
    struct kt_array d = kt_random(&t, T * C, (int)dt, scale);
    struct kt_array w = kt_random(&t, C, (int)dt, 1), y = kt_array(&t, T * C, (int)dt);
    struct kt_array rstd = kt_array(&t, T, FC_F32);
    t.k->rmsnorm_forward(t.s, y.p, x.p, delta ? d.p : NULL, keep ? rstd.p : NULL, w.p, (float)eps,
                         T, C, dt);
    double *sum = kt_malloc(T * C * sizeof *sum), *want = kt_malloc(T * C * sizeof *want);
    double *wr = kt_malloc(T * sizeof *wr), most = 0;
    for (size_t i = 0; i < T * C; i++)
        sum[i] = kt_round(x.ref[i] + (delta ? d.ref[i] : 0), (int)dt);
    for (size_t i = 0; i < T; i++) {
        wr[i] = row_rstd(sum + i * C, C);
        most = fmax(most, wr[i]);
    }
    for (size_t i = 0; i < T * C; i++)
        want[i] = sum[i] * wr[i / C] * w.ref[i % C];
    kt_check_within(&t, &x, sum, 0, 0, "rmsnorm_forward x");
    kt_check(&t, &y, want, 1, "rmsnorm_forward y");
    if (keep)
        kt_check(&t, &rstd, wr, most, "rmsnorm_forward rstd");
    free(sum);
    free(want);
    free(wr);
    kt_close(&t);
}

static void backward_row(double *dx, double *dw, const double *dy, const double *x, const double *w,
                         double r, size_t C)
{
    double mean = 0;
    for (size_t i = 0; i < C; i++)
        mean += dy[i] * w[i] * x[i] * r / (double)C;
    for (size_t i = 0; i < C; i++) {
        dx[i] += r * (dy[i] * w[i] - x[i] * r * mean);
        dw[i] += dy[i] * x[i] * r;
    }
}

static void check_backward(size_t T, size_t C, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array x = kt_random(&t, T * C, (int)dt, 2), w = kt_random(&t, C, (int)dt, 1);
    struct kt_array dy = kt_random(&t, T * C, (int)dt, 1), dx = kt_random(&t, T * C, (int)dt, 1);
    struct kt_array dw = kt_random(&t, C, FC_F32, 1),
                    scratch = kt_array(&t, FC_ROW_SLICES * C, FC_F32);
    struct kt_array rstd = kt_array(&t, T, FC_F32);
    double *r = kt_malloc(T * sizeof *r), *want = kt_malloc(T * C * sizeof *want), most = 1;
    for (size_t i = 0; i < T; i++) {
        r[i] = row_rstd(x.ref + i * C, C);
        most = fmax(most, r[i]);
    }
    kt_put(&t, &rstd, r);
    memcpy(want, dx.ref, T * C * sizeof *want);
    for (int call = 0; call < 2; call++) {
        t.k->rmsnorm_backward(t.s, dx.p, dw.p, dy.p, x.p, rstd.p, w.p, scratch.p, T, C, dt);
        for (size_t i = 0; i < T; i++)
            backward_row(want + i * C, dw.ref, dy.ref + i * C, x.ref + i * C, w.ref, rstd.ref[i],
                         C);
    }
    double *want_dw = kt_malloc(C * sizeof *want_dw);
    memcpy(want_dw, dw.ref, C * sizeof *want_dw);
    /* A 16-bit dx is rounded after the first call too: half a unit of a number up to 1 + 2 most. */
    double unit = dt == FC_F32 ? 0 : dt == FC_BF16 ? 0x1p-9 : 0x1p-12;
    double extra = unit * (1 + 2 * most) / 1e-5;
    kt_check(&t, &dx, want, 4 * most + extra, "rmsnorm_backward dx");
    kt_check(&t, &dw, want_dw, 2 * sqrt((double)T), "rmsnorm_backward dweight");
    free(r);
    free(want);
    free(want_dw);
    kt_close(&t);
}

static void test_forward(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            for (int kind = 0; kind < 4; kind++)
                check_forward(shapes[i][0], shapes[i][1], kind & 1, kind & 2,
                              kind == 1 || kind == 2 ? 0.002 : 1, kt_dtypes[d]);
}

static void test_backward(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            check_backward(shapes[i][0], shapes[i][1], kt_dtypes[d]);
}

/* sum of dy * rmsnorm(x), whose derivative by x the closed form claims to be. */
static double loss(const double *x, const double *w, const double *dy, size_t C)
{
    double sum = 0, r = row_rstd(x, C);
    for (size_t i = 0; i < C; i++)
        sum += dy[i] * x[i] * r * w[i];
    return sum;
}

static void test_closed_form(void **state)
{
    (void)state;
    double x[] = {0.3, -1.2, 0.9, 2.0, -0.1}, w[] = {1.0, 0.5, -0.7, 1.3, 0.2};
    double dy[] = {0.4, -0.6, 1.0, 0.3, -0.8}, dx[5] = {0}, dw[5] = {0};
    backward_row(dx, dw, dy, x, w, row_rstd(x, 5), 5);
    for (size_t i = 0; i < 5; i++) {
        double at = x[i], h = 1e-5;
        x[i] = at + h;
        double up = loss(x, w, dy, 5);
        x[i] = at - h;
        double down = loss(x, w, dy, 5);
        x[i] = at;
        assert_true(fabs((up - down) / (2 * h) - dx[i]) < 1e-8);
    }
}

/* Sums over rows have fixed partitions: the same bits with any number of threads. */
static void test_threads(void **state)
{
    (void)state;
    void *bits[2];
    enum { T = 1001, C = 96 };
    for (int i = 0; i < 2; i++) {
        struct kt t;
        kt_open_threads(&t, i ? 5 : 1);
        struct kt_array x = kt_random(&t, T * C, FC_F32, 2), w = kt_random(&t, C, FC_F32, 1);
        struct kt_array dy = kt_random(&t, T * C, FC_F32, 1), dx = kt_random(&t, T * C, FC_F32, 1);
        struct kt_array dw = kt_constant(&t, C, FC_F32, 0), r = kt_random(&t, T, FC_F32, 1);
        struct kt_array scratch = kt_array(&t, FC_ROW_SLICES * C, FC_F32);
        t.k->rmsnorm_backward(t.s, dx.p, dw.p, dy.p, x.p, r.p, w.p, scratch.p, T, C, FC_F32);
        bits[i] = kt_raw(&t, &dw);
        kt_mark(&t, &dx, false);
        kt_mark(&t, &dw, false);
        kt_close(&t);
    }
    assert_memory_equal(bits[0], bits[1], C * 4);
    free(bits[0]);
    free(bits[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_closed_form),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
