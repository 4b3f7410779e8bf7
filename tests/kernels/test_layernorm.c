/* LayerNorm, with and without the residual addition, and its gradient by the closed form; the
 * closed form itself against finite differences of the fp64 forward pass. */
#include "tests/kernels/harness.h"

static const double eps = 1e-5;
/* Wide and ragged, wide and even, more even rows than any device has blocks for. */
static const size_t shapes[][2] = /* T, C */
    {{1, 1},      {7, 33},   {33, 100}, {100, 31}, {129, 576},
     {270, 1032}, {3, 4097}, {2, 4096}, {2, 8192}, {2, 8200}};

static void row_moments(const double *x, size_t C, double *mean, double *rstd)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < C; i++)
        sum += x[i] / (double)C;
    for (size_t i = 0; i < C; i++)
        squares += (x[i] - sum) * (x[i] - sum);
    *mean = sum;
    *rstd = 1 / sqrt(squares / (double)C + (double)(float)eps);
}

/* Numbers of size `scale` around 3 times that. */
static void check_forward(size_t T, size_t C, bool delta, bool keep, double scale, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array x = kt_random(&t, T * C, (int)dt, 2 * scale);
    struct kt_array d = kt_constant(&t, T * C, (int)dt, 3 * scale);
    struct kt_array w = kt_random(&t, C, (int)dt, 1), b = kt_random(&t, C, (int)dt, 1);
    struct kt_array y = kt_array(&t, T * C, (int)dt);
    struct kt_array mean = kt_array(&t, T, FC_F32), rstd = kt_array(&t, T, FC_F32);
    t.k->layernorm_forward(t.s, y.p, x.p, delta ? d.p : NULL, keep ? mean.p : NULL,
                           keep ? rstd.p : NULL, w.p, b.p, (float)eps, T, C, dt);
    double *sum = kt_malloc(T * C * sizeof *sum), *want = kt_malloc(T * C * sizeof *want);
    double *wm = kt_malloc(T * sizeof *wm), *wr = kt_malloc(T * sizeof *wr), most = 0;
    for (size_t i = 0; i < T * C; i++)
        sum[i] = kt_round(x.ref[i] + (delta ? d.ref[i] : 0), (int)dt);
    for (size_t i = 0; i < T; i++) {
        row_moments(sum + i * C, C, &wm[i], &wr[i]);
        most = fmax(most, wr[i]);
    }
    for (size_t i = 0; i < T * C; i++)
        want[i] = (sum[i] - wm[i / C]) * wr[i / C] * w.ref[i % C] + b.ref[i % C];
    kt_check_within(&t, &x, sum, 0, 0, "layernorm_forward x");
    kt_check(&t, &y, want, 4, "layernorm_forward y");
    if (keep) {
        kt_check(&t, &mean, wm, 5 * scale, "layernorm_forward mean");
        kt_check(&t, &rstd, wr, most, "layernorm_forward rstd");
    }
    free(sum);
    free(want);
    free(wm);
    free(wr);
    kt_close(&t);
}

static void backward_row(double *dx, double *dw, double *db, const double *dy, const double *x,
                         const double *w, double m, double r, size_t C)
{
    double mean_h = 0, mean_g = 0;
    for (size_t i = 0; i < C; i++) {
        mean_h += dy[i] * w[i] * (x[i] - m) * r / (double)C;
        mean_g += dy[i] * w[i] / (double)C;
    }
    for (size_t i = 0; i < C; i++) {
        double h = (x[i] - m) * r;
        dx[i] += r * (dy[i] * w[i] - mean_g - h * mean_h);
        dw[i] += dy[i] * h;
        db[i] += dy[i];
    }
}

static void check_backward(size_t T, size_t C, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array x = kt_random(&t, T * C, (int)dt, 2), w = kt_random(&t, C, (int)dt, 1);
    struct kt_array dy = kt_random(&t, T * C, (int)dt, 1), dx = kt_random(&t, T * C, (int)dt, 1);
    struct kt_array dw = kt_random(&t, C, FC_F32, 1), db = kt_random(&t, C, FC_F32, 1);
    struct kt_array scratch = kt_array(&t, 2 * FC_ROW_SLICES * C, FC_F32);
    struct kt_array mean = kt_array(&t, T, FC_F32), rstd = kt_array(&t, T, FC_F32);
    double *m = kt_malloc(T * sizeof *m), *r = kt_malloc(T * sizeof *r), most = 1;
    double *want = kt_malloc(T * C * sizeof *want);
    for (size_t i = 0; i < T; i++) {
        row_moments(x.ref + i * C, C, &m[i], &r[i]);
        r[i] = fmin(r[i], 20); /* of a row of one number it is 316 */
        most = fmax(most, r[i]);
    }
    kt_put(&t, &mean, m);
    kt_put(&t, &rstd, r);
    memcpy(want, dx.ref, T * C * sizeof *want);
    for (int call = 0; call < 2; call++) {
        t.k->layernorm_backward(t.s, dx.p, dw.p, db.p, dy.p, x.p, mean.p, rstd.p, w.p, scratch.p, T,
                                C, dt);
        for (size_t i = 0; i < T; i++)
            backward_row(want + i * C, dw.ref, db.ref, dy.ref + i * C, x.ref + i * C, w.ref,
                         mean.ref[i], rstd.ref[i], C);
    }
    double *want_w = kt_malloc(C * sizeof *want_w), *want_b = kt_malloc(C * sizeof *want_b);
    memcpy(want_w, dw.ref, C * sizeof *want_w);
    memcpy(want_b, db.ref, C * sizeof *want_b);
    /* A 16-bit dx is rounded after the first call too: half a unit of a number up to 1 + 3 most. */
    double unit = dt == FC_F32 ? 0 : dt == FC_BF16 ? 0x1p-9 : 0x1p-12;
    double extra = unit * (1 + 3 * most) / 1e-5;
    kt_check(&t, &dx, want, 4 * most + extra, "layernorm_backward dx");
    kt_check(&t, &dw, want_w, 2 * sqrt((double)T), "layernorm_backward dweight");
    kt_check(&t, &db, want_b, 2 * sqrt((double)T), "layernorm_backward dbias");
    free(m);
    free(r);
    free(want);
    free(want_w);
    free(want_b);
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

/* sum of dy * layernorm(x), whose derivative by x the closed form claims to be. */
static double loss(const double *x, const double *w, const double *dy, size_t C)
{
    double sum = 0, m, r;
    row_moments(x, C, &m, &r);
    for (size_t i = 0; i < C; i++)
        sum += dy[i] * (x[i] - m) * r * w[i];
    return sum;
}

static void test_closed_form(void **state)
{
    (void)state;
    double x[] = {0.3, -1.2, 0.9, 2.0, -0.1}, w[] = {1.0, 0.5, -0.7, 1.3, 0.2}, m, r;
    double dy[] = {0.4, -0.6, 1.0, 0.3, -0.8}, dx[5] = {0}, dw[5] = {0}, db[5] = {0};
    row_moments(x, 5, &m, &r);
    backward_row(dx, dw, db, dy, x, w, m, r, 5);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_closed_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
