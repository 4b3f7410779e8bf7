/* SwiGLU, GELU and ReLU and their gradients, also where they saturate; the slopes of the reference
 * against finite differences. */
#include "tests/kernels/harness.h"

static const size_t shapes[][2] = /* T, F */ {{1, 1}, {7, 33}, {33, 100}, {100, 31}, {5, 1537}};

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void check(size_t T, size_t F, double scale, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array in = kt_random(&t, T * 2 * F, (int)dt, scale);
    struct kt_array dout = kt_random(&t, T * F, (int)dt, 1), out = kt_array(&t, T * F, (int)dt);
    struct kt_array din = kt_array(&t, T * 2 * F, (int)dt);
    double *want = kt_malloc(T * F * sizeof *want), *dwant = kt_malloc(din.n * sizeof *dwant);
    for (size_t i = 0; i < T * F; i++) {
        size_t at = i / F * 2 * F + i % F;
        double g = in.ref[at], u = in.ref[at + F], s = sigmoid(g);
        want[i] = g * s * u;
        dwant[at] = dout.ref[i] * u * (s + g * s * (1 - s));
        dwant[at + F] = dout.ref[i] * g * s;
    }
    t.k->swiglu_forward(t.s, out.p, in.p, T, F, dt);
    t.k->swiglu_backward(t.s, din.p, dout.p, in.p, T, F, dt);
    kt_check(&t, &out, want, scale * scale, "swiglu_forward");
    kt_check(&t, &din, dwant, scale, "swiglu_backward");
    free(want);
    free(dwant);
    kt_close(&t);
}

static void test_swiglu(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++) {
            check(shapes[i][0], shapes[i][1], 4, kt_dtypes[d]);
            check(shapes[i][0], shapes[i][1], 200, kt_dtypes[d]);
        }
}

static double apply(double x, enum fc_ungated f)
{
    if (f == FC_RELU)
        return x > 0 ? x : 0;
    double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    return f == FC_GELU ? x / 2 * (1 + erf(x / sqrt(2))) : x / 2 * (1 + tanh(u));
}

static double slope(double x, enum fc_ungated f)
{
    if (f == FC_RELU)
        return x > 0 ? 1 : 0;
    if (f == FC_GELU)
        return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * acos(-1));
    double k = sqrt(2 / acos(-1)), t = tanh(k * (x + 0.044715 * x * x * x));
    return (1 + t) / 2 + x / 2 * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x);
}

/* `offset` elements in: not aligned. */
static void check_ungated(size_t n, size_t offset, double scale, enum fc_ungated f,
                          enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array in = kt_random(&t, n + offset, (int)dt, scale);
    struct kt_array dout = kt_random(&t, n + offset, (int)dt, 1);
    struct kt_array out = kt_array(&t, n + offset, (int)dt),
                    din = kt_array(&t, n + offset, (int)dt);
    size_t bytes = offset * fc_dtype_size(dt);
    double *want = kt_malloc(in.n * sizeof *want), *dwant = kt_malloc(in.n * sizeof *dwant);
    memcpy(want, in.ref, in.n * sizeof *want);
    want[offset] = 0; /* the corner of ReLU */
    kt_put(&t, &in, want);
    for (size_t i = 0; i < in.n; i++) { /* what lies before the offset keeps its poison */
        want[i] = i < offset ? (double)NAN : apply(in.ref[i], f);
        dwant[i] = i < offset ? (double)NAN : dout.ref[i] * slope(in.ref[i], f);
    }
    t.k->ungated_forward(t.s, (char *)out.p + bytes, (char *)in.p + bytes, f, n, dt);
    t.k->ungated_backward(t.s, (char *)din.p + bytes, (char *)dout.p + bytes, (char *)in.p + bytes,
                          f, n, dt);
    kt_check(&t, &out, want, fmin(scale, 1), "ungated_forward");
    kt_check(&t, &din, dwant, 1, "ungated_backward");
    free(want);
    free(dwant);
    kt_close(&t);
}

static void test_ungated(void **state)
{
    (void)state;
    const size_t sizes[][2] = {{1, 0}, {7, 0}, {100, 1}, {1031, 0}, {9000, 0}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            for (int f = FC_GELU; f <= FC_RELU; f++) {
                check_ungated(sizes[i][0], sizes[i][1], 4, (enum fc_ungated)f, kt_dtypes[d]);
                check_ungated(sizes[i][0], sizes[i][1], 1000, (enum fc_ungated)f, kt_dtypes[d]);
            }
}

static void test_slopes(void **state)
{
    (void)state;
    for (int f = FC_GELU; f <= FC_RELU; f++)
        for (double x = -4.05; x < 4; x += 0.1) {
            double h = 1e-6, up = apply(x + h, (enum fc_ungated)f);
            double rise = (up - apply(x - h, (enum fc_ungated)f)) / (2 * h);
            assert_true(fabs(rise - slope(x, (enum fc_ungated)f)) < 1e-8);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_ungated),
        cmocka_unit_test(test_slopes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
