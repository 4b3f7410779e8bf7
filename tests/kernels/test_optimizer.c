/* Sum of squares and AdamW against fp64, three steps, decay, clipping scale, both weight dtypes. */
#include "tests/kernels/harness.h"

static void check_sum(size_t n)
{
    struct kt t;
    kt_open(&t);
    struct kt_array g = kt_random(&t, n, FC_F32, 3), scratch = kt_array(&t, 1024, KT_FLOAT64);
    struct kt_array out = kt_array(&t, 1, KT_FLOAT64);
    double want = 0;
    for (size_t i = 0; i < n; i++)
        want += g.ref[i] * g.ref[i];
    t.k->sum_squares(t.s, out.p, g.p, scratch.p, n);
    kt_check_within(&t, &out, &want, want, 1e-12, "sum_squares");
    kt_close(&t);
}

static void test_sum_squares(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 7, 1023, 1025, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_sum(sizes[i]);
}

static void test_sum_threads(void **state)
{
    (void)state;
    void *bits[2];
    for (int i = 0; i < 2; i++) {
        struct kt t;
        kt_open_threads(&t, i ? 7 : 1);
        struct kt_array g = kt_random(&t, 70001, FC_F32, 3);
        struct kt_array scratch = kt_array(&t, 1024, KT_FLOAT64);
        struct kt_array out = kt_array(&t, 1, KT_FLOAT64);
        t.k->sum_squares(t.s, out.p, g.p, scratch.p, g.n);
        bits[i] = kt_raw(&t, &out);
        kt_close(&t);
    }
    assert_memory_equal(bits[0], bits[1], 8);
    free(bits[0]);
    free(bits[1]);
}

/* torch.optim.AdamW's single-tensor step in fp64. */
static void reference(double *p, double *m, double *v, const double *grad, size_t n,
                      const struct fc_adamw *a)
{
    double b1 = (double)a->beta1, b2 = (double)a->beta2, lr = (double)a->lr;
    for (size_t i = 0; i < n; i++) {
        double g = grad[i] * (double)a->grad_scale;
        p[i] *= 1 - lr * (double)a->weight_decay;
        m[i] += (1 - b1) * (g - m[i]);
        v[i] = b2 * v[i] + (1 - b2) * g * g;
        double denom = sqrt(v[i]) / sqrt(1 - pow(b2, (double)a->step)) + (double)a->eps;
        p[i] -= lr / (1 - pow(b1, (double)a->step)) * m[i] / denom;
    }
}

/* With `aliased` the fp32 weights are the master copy itself. */
static void check_adamw(size_t n, enum fc_dtype dt, bool aliased)
{
    struct kt t;
    kt_open(&t);
    struct kt_array master = kt_random(&t, n, FC_F32, 1), m = kt_constant(&t, n, FC_F32, 0);
    struct kt_array v = kt_constant(&t, n, FC_F32, 0), grad = kt_random(&t, n, FC_F32, 2);
    struct kt_array weights = kt_array(&t, n, (int)dt);
    double *wide[3];
    for (size_t i = 0; i < 3; i++) {
        wide[i] = kt_malloc(n * sizeof **wide);
        memcpy(wide[i], i == 0 ? master.ref : m.ref, n * sizeof **wide);
    }
    for (uint64_t step = 1; step <= 3; step++) {
        struct fc_adamw how = {.lr = 0.01f / (float)step,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-8f,
                               .weight_decay = 0.1f,
                               .grad_scale = 0.37f,
                               .step = step};
        t.k->adamw(t.s, aliased ? master.p : weights.p, master.p, m.p, v.p, grad.p, n, &how, dt);
        reference(wide[0], wide[1], wide[2], grad.ref, n, &how);
    }
    kt_check(&t, &master, wide[0], 1, "adamw master");
    kt_check(&t, &m, wide[1], 1, "adamw m");
    kt_check(&t, &v, wide[2], 1, "adamw v");
    for (size_t i = 0; i < n; i++) /* rounding of what master really holds */
        wide[0][i] = kt_round(master.ref[i], (int)dt);
    if (!aliased)
        kt_check_within(&t, &weights, wide[0], 0, 0, "adamw weights");
    for (size_t i = 0; i < 3; i++)
        free(wide[i]);
    kt_close(&t);
}

static void test_adamw(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 7, 100, 1025, 40001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_adamw(sizes[i], FC_F32, true);
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            check_adamw(sizes[i], kt_dtypes[d], false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_squares),
        cmocka_unit_test(test_sum_threads),
        cmocka_unit_test(test_adamw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
