/* Fused cross-entropy: losses, gradients, extreme logits, masked logits. */
#include "tests/kernels/harness.h"

/* Loss of one row; if `weight` is not NaN the row becomes its gradient. */
static double row_loss(double *x, size_t V, size_t target, double weight)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < V; i++)
        top = fmax(top, x[i]);
    for (size_t i = 0; i < V; i++)
        sum += exp(x[i] - top);
    double loss = log(sum) + top - x[target];
    for (size_t i = 0; i < V && !isnan(weight); i++)
        x[i] = weight * (exp(x[i] - top) / sum - (i == target ? 1 : 0));
    return loss;
}

static void check(size_t n, size_t V, double scale, bool gradient, bool masked, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array logits = kt_random(&t, n * V, (int)dt, scale), which;
    struct kt_array weights = kt_random(&t, n, FC_F32, 1), losses = kt_array(&t, n, FC_F32);
    int32_t *targets = kt_malloc(n * sizeof *targets);
    double *want = kt_malloc(n * V * sizeof *want), *lwant = kt_malloc(n * sizeof *lwant);
    memcpy(want, logits.ref, n * V * sizeof *want);
    for (size_t i = 0; i < n; i++)
        targets[i] = kt_below(11, i, V);
    if (masked) /* the first chunk and more of every row, but not the target */
        for (size_t i = 0; i < n * V; i++)
            if (i % V < V / 2 && i % V != (size_t)targets[i / V])
                want[i] = -INFINITY;
    kt_put(&t, &logits, want);
    memcpy(want, logits.ref, n * V * sizeof *want);
    which = kt_ints(&t, targets, n);
    for (size_t i = 0; i < n; i++)
        lwant[i] =
            row_loss(want + i * V, V, (size_t)targets[i], gradient ? weights.ref[i] : (double)NAN);
    t.k->cross_entropy(t.s, losses.p, logits.p, which.p, gradient ? weights.p : NULL, n, V, dt);
    kt_check(&t, &losses, lwant, 1 + scale, "losses");
    kt_check(&t, &logits, want, 1, "gradient");
    free(targets);
    free(want);
    free(lwant);
    kt_close(&t);
}

static void test_cross_entropy(void **state)
{
    (void)state;
    const size_t shapes[][2] = {{1, 1}, {7, 33}, {33, 100}, {31, 1001}, {3, 49152}, {2, 60001}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            for (int kind = 0; kind < 4; kind++)
                check(shapes[i][0], shapes[i][1], kind & 2 ? 80 : 3, kind & 1, false, kt_dtypes[d]);
}

static void test_masked(void **state)
{
    (void)state;
    for (size_t d = 0; d < kt_n_dtypes(); d++)
        check(9, 3001, 5, true, true, kt_dtypes[d]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_masked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
