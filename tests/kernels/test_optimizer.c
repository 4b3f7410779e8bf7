/* Sum of squares, the check for infinities, and AdamW against fp64: three steps, decay, clipping
 * scale, all weight dtypes, stochastic rounding. */
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
    /* The last is more than 1,024 parts of any size that a block takes at once. */
    const size_t sizes[] = {0, 1, 7, 1023, 1025, 100003, 4200003};
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

static void check_finite(size_t n, size_t offset)
{
    struct kt t;
    kt_open(&t);
    struct kt_array g = kt_random(&t, n + offset, FC_F32, 3e38);
    struct kt_array out = kt_array(&t, 1, KT_INT32);
    const double wrong[] = {(double)INFINITY, -(double)INFINITY, (double)NAN};
    double *values = kt_malloc(g.n * sizeof *values), want = 1;
    memcpy(values, g.ref, g.n * sizeof *values);
    t.k->all_finite(t.s, out.p, (float *)g.p + offset, n);
    kt_check_within(&t, &out, &want, 0, 0, "all_finite of finite");
    want = 0;
    for (size_t i = 0; i < 6 && n; i++) { /* one wrong value at the ends and in between */
        size_t at = offset + (i % 2 ? n - 1 - i / 2 % n : i * 997 % n);
        double kept = values[at];
        values[at] = wrong[i % 3];
        kt_put(&t, &g, values);
        t.k->all_finite(t.s, out.p, (float *)g.p + offset, n);
        kt_check_within(&t, &out, &want, 0, 0, "all_finite");
        values[at] = kept;
    }
    free(values);
    kt_close(&t);
}

static void test_all_finite(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 7, 100, 4097, 40001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t offset = 0; offset < 2; offset++)
            check_finite(sizes[i], offset);
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

/* Where adamw reads the step from; sent again for each. */
static struct kt_array step_array(struct kt *t)
{
    return kt_array(t, sizeof(struct fc_adamw_step) / sizeof(double), KT_FLOAT64);
}

static const struct fc_adamw_step *send(struct kt *t, const struct kt_array *to,
                                        const struct fc_adamw *how)
{
    const struct fc_adamw_step step = fc_adamw_prepare(how);
    t->k->upload(t->s, to->p, &step, sizeof step);
    kt_sync(t);
    return to->p;
}

/* With `aliased` the fp32 weights are the master copy itself. */
static void check_adamw(size_t n, enum fc_dtype dt, bool aliased)
{
    struct kt t;
    kt_open(&t);
    struct kt_array master = kt_random(&t, n, FC_F32, 1), m = kt_constant(&t, n, FC_F32, 0);
    struct kt_array v = kt_constant(&t, n, FC_F32, 0), grad = kt_random(&t, n, FC_F32, 2);
    struct kt_array weights = kt_array(&t, n, (int)dt), numbers = step_array(&t);
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
        t.k->adamw(t.s, aliased ? master.p : weights.p, master.p, m.p, v.p, grad.p, n, 0,
                   send(&t, &numbers, &how), dt);
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

/* master between its two 16-bit neighbours, and the draw that decides, spelled out anew. */
static double stochastic(double master, uint64_t index, const struct fc_adamw *a, int kind)
{
    uint32_t words[4];
    int exponent;
    (void)frexp(master, &exponent);
    bool subnormal = kind == FC_F16 && exponent < -13;
    int cut = kind == FC_BF16 ? 16 : subnormal ? 24 : 13; /* bits of the draw that count */
    double step = ldexp(1, kind == FC_BF16 ? exponent - 8 : subnormal ? -24 : exponent - 11);
    double low = floor(fabs(master) / step), rest = fabs(master) / step - low;
    fc_philox(a->seed, a->step, index / 4, words);
    double uniform = ldexp((double)(words[index % 4] >> (32 - cut)), -cut);
    bool up = subnormal ? uniform < rest : uniform + rest >= 1;
    return copysign((low + up) * step, master);
}

static void check_stochastic(size_t n, size_t offset, double scale, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array master = kt_random(&t, n, FC_F32, scale), m = kt_constant(&t, n, FC_F32, 0);
    struct kt_array v = kt_constant(&t, n, FC_F32, 0), grad = kt_random(&t, n, FC_F32, 2);
    struct kt_array weights = kt_array(&t, n, (int)dt), again = kt_array(&t, n, (int)dt);
    struct kt_array numbers = step_array(&t);
    struct fc_adamw how = {.lr = 0.01f * (float)scale,
                           .beta1 = 0.9f,
                           .beta2 = 0.95f,
                           .eps = 1e-8f,
                           .grad_scale = 1,
                           .step = 3,
                           .stochastic = true,
                           .seed = 0x123456789abcdefULL};
    t.k->adamw(t.s, weights.p, master.p, m.p, v.p, grad.p, n, offset, send(&t, &numbers, &how), dt);
    kt_read(&t, &master);
    double *want = kt_malloc(n * sizeof *want);
    for (size_t i = 0; i < n; i++)
        want[i] = stochastic(master.ref[i], offset + i, &how, (int)dt);
    kt_check_within(&t, &weights, want, 0, 0, "adamw stochastic weights");
    /* The same range in two calls, as two ranges of parameters, at a learning rate of 0: the draws
     * depend on the index alone. */
    how.lr = 0;
    for (size_t at = 0; at < n;) {
        size_t part = at == 0 && n > 5 ? 5 : n - at;
        t.k->adamw(t.s, (char *)again.p + at * 2, (float *)master.p + at, (float *)m.p + at,
                   (float *)v.p + at, (float *)grad.p + at, part, offset + at,
                   send(&t, &numbers, &how), dt);
        at += part;
    }
    kt_check_within(&t, &again, want, 0, 0, "adamw stochastic weights in two ranges");
    kt_mark(&t, &m, false);
    kt_mark(&t, &v, false);
    free(want);
    kt_close(&t);
}

static void test_stochastic(void **state)
{
    (void)state;
    for (size_t d = 1; d < kt_n_dtypes(); d++) {
        check_stochastic(1, 0, 1, kt_dtypes[d]);
        check_stochastic(33, 3, 1, kt_dtypes[d]);
        check_stochastic(5000, 8, 4, kt_dtypes[d]);
        check_stochastic(5000, 0, 1e-5, kt_dtypes[d]); /* subnormal in fp16 */
    }
}

/* The mean of many draws is the number itself: bf16 keeps what nearest rounding would lose. */
static void test_stochastic_mean(void **state)
{
    (void)state;
    enum { N = 40000 };
    for (size_t d = 1; d < kt_n_dtypes(); d++) {
        struct kt t;
        kt_open(&t);
        const double at = 1.0 + 0x1p-12; /* 1/32 of a unit of bf16, 1/4 of one of fp16 above 1 */
        struct kt_array master = kt_constant(&t, N, FC_F32, at), m = kt_constant(&t, N, FC_F32, 0);
        struct kt_array v = kt_constant(&t, N, FC_F32, 0), grad = kt_constant(&t, N, FC_F32, 0);
        struct kt_array weights = kt_array(&t, N, (int)kt_dtypes[d]), numbers = step_array(&t);
        struct fc_adamw how = {.beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1,
                               .grad_scale = 1,
                               .step = 1,
                               .stochastic = true};
        t.k->adamw(t.s, weights.p, master.p, m.p, v.p, grad.p, N, 0, send(&t, &numbers, &how),
                   kt_dtypes[d]);
        kt_read(&t, &weights);
        double sum = 0, unit = kt_dtypes[d] == FC_BF16 ? 0x1p-7 : 0x1p-10, p = 0x1p-12 / unit;
        for (size_t i = 0; i < N; i++)
            sum += (weights.ref[i] - 1) / unit;
        assert_true(fabs(sum - N * p) < 5 * sqrt(N * p * (1 - p)));
        kt_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_squares), cmocka_unit_test(test_sum_threads),
        cmocka_unit_test(test_all_finite),  cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_stochastic),  cmocka_unit_test(test_stochastic_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
