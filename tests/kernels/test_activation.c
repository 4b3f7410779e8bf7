/* SwiGLU and its gradient, also where the sigmoid saturates. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_swiglu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
