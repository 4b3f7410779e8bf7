/* Attention over packed sequences against fp64, and the fp64 gradient against finite differences.
 */
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/harness.h"

enum { MAX_SEQUENCES = 16 };

struct shape {
    const char *what;
    size_t nh, nkv, hs;
    int32_t lengths[MAX_SEQUENCES]; /* 0 behind the last */
};

static const struct shape shapes[] = {
    {"one token", 3, 1, 64, {1}},
    {"SmolLM2 heads, ragged", 9, 3, 64, {1, 7, 31, 33, 100}},
    {"one long, many short", 9, 3, 64, {3, 5, 300, 2, 1, 17, 16, 15, 64, 65}},
    {"group of 1", 4, 4, 64, {33, 1, 70}},
    {"group of 8", 16, 2, 64, {31, 100, 7}},
    {"head size 80", 3, 1, 80, {33, 100, 1, 7}},
    {"head size 96", 8, 1, 96, {31, 7, 66}},
    {"head size 128", 8, 1, 128, {7, 129, 31, 1}},
    {"head size 8", 2, 2, 8, {40, 1}},
    {"odd head size", 3, 3, 13, {40, 9}},
    {"largest head size", 2, 1, 256, {90}},
    {"keys in several chunks", 2, 1, 256, {300, 20}},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static size_t starts_of(const struct shape *s, int32_t starts[MAX_SEQUENCES + 1])
{
    size_t B = 0;
    for (starts[0] = 0; B < MAX_SEQUENCES && s->lengths[B]; B++)
        starts[B + 1] = starts[B] + s->lengths[B];
    return B;
}

/* Everything of one shape: inputs of size 1, so outputs and gradients are of size 1 to 10. */
struct setting {
    struct kt t;
    struct fc_heads h;
    int32_t starts[MAX_SEQUENCES + 1];
    size_t B, T, w, ow;
    struct kt_array qkv, out, lse, dout, dqkv, scratch;
    double *want_out, *want_lse, *want_dqkv, *room;
};

static void set_up(struct setting *x, const struct shape *s, enum fc_dtype dt, int threads)
{
    memset(x, 0, sizeof *x);
    kt_open_threads(&x->t, threads);
    x->h = (struct fc_heads){s->nh, s->nkv, s->hs, 1.0f / sqrtf((float)s->hs)};
    x->B = starts_of(s, x->starts);
    x->T = (size_t)x->starts[x->B];
    x->w = ref_width(&x->h);
    x->ow = s->nh * s->hs;
    x->qkv = kt_random(&x->t, x->T * x->w, (int)dt, 2.0);
    x->dout = kt_random(&x->t, x->T * x->ow, (int)dt, 1.0);
    x->out = kt_array(&x->t, x->T * x->ow, (int)dt);
    x->lse = kt_array(&x->t, x->T * s->nh, FC_F32);
    x->dqkv = kt_array(&x->t, x->T * x->w, (int)dt);
    x->scratch = kt_array(&x->t, x->T * s->nh, FC_F32);
    x->want_out = kt_malloc(x->T * x->ow * sizeof(double));
    x->want_lse = kt_malloc(x->T * s->nh * sizeof(double));
    x->want_dqkv = kt_malloc(x->T * x->w * sizeof(double));
    x->room = kt_malloc((2 * x->T + s->hs) * sizeof(double));
}

static void tear_down(struct setting *x)
{
    free(x->want_out);
    free(x->want_lse);
    free(x->want_dqkv);
    free(x->room);
    kt_close(&x->t);
}

static void run(struct setting *x, enum fc_dtype dt)
{
    struct kt *t = &x->t;
    t->k->attention_forward(t->s, x->out.p, x->lse.p, x->qkv.p, x->starts, x->B, &x->h, dt);
    t->k->attention_backward(t->s, x->dqkv.p, x->dout.p, x->out.p, x->lse.p, x->qkv.p, x->scratch.p,
                             x->starts, x->B, &x->h, dt);
    kt_sync(t);
}

/* Root of the mean square of x - y. */
static double rms(const double *x, const double *y, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    return sqrt(sum / (double)n);
}

static double largest(const double *x, size_t n)
{
    double top = 1.0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs(x[i]));
    return top;
}

/* Tensor cores multiply the values, or dout, by probabilities that are rounded to the dtype; the
 * CPU keeps them in fp32. */
static bool rounds_probabilities(void)
{
    return strcmp(FC_TEST_KERNELS.name, "cpu") != 0;
}

/* On the whole, 16-bit arithmetic must not cost more than twice what rounding the exact results
 * does; and nowhere more than that rounding and off[]. */
static void check_rounded(struct kt *t, struct kt_array *a, const double *want, const double *off,
                          const char *what)
{
    double *rounded = kt_malloc(a->n * sizeof *rounded), u = kt_roundoff(a->kind);
    for (size_t i = 0; i < a->n; i++)
        rounded[i] = kt_round(want[i], a->kind);
    kt_read(t, a);
    double cost = rms(rounded, want, a->n), found = rms(a->ref, want, a->n);
    free(rounded);
    if (!(found <= 2.0 * cost))
        fail_msg("%s: off by %.3g (rms), rounding alone costs %.3g", what, found, cost);
    for (size_t i = 0; i < a->n; i++) {
        double limit = 1e-5 + u * fabs(want[i]) + off[i];
        if (!(fabs(a->ref[i] - want[i]) <= limit))
            fail_msg("%s: element %zu of %zu: expected %.9g, found %.9g (limit %.3g)", what, i,
                     a->n, want[i], a->ref[i], limit);
    }
}

/* The output's limit: its roundoff is relative to the values' sizes weighted as they are. */
static void check_output(struct setting *x, enum fc_dtype dt, const char *what)
{
    if (dt == FC_F32 || !rounds_probabilities()) {
        kt_check(&x->t, &x->out, x->want_out, 1.0, what);
        return;
    }
    size_t n = x->T * x->w, v = (x->h.nh + x->h.nkv) * x->h.hs;
    double *sizes = kt_malloc(n * sizeof *sizes),
           *weighted = kt_malloc(x->T * x->ow * sizeof *sizes);
    double *lse = kt_malloc(x->T * x->h.nh * sizeof *lse);
    for (size_t i = 0; i < n; i++)
        sizes[i] = i % x->w < v ? x->qkv.ref[i] : fabs(x->qkv.ref[i]);
    ref_forward(weighted, lse, sizes, x->starts, x->B, &x->h, x->room);
    for (size_t i = 0; i < x->T * x->ow; i++)
        weighted[i] *= kt_roundoff((int)dt);
    check_rounded(&x->t, &x->out, x->want_out, weighted, what);
    free(sizes);
    free(weighted);
    free(lse);
}

static void check_gradient(struct setting *x, enum fc_dtype dt, const char *what)
{
    size_t n = x->T * x->w;
    if (dt == FC_F32) {
        kt_check(&x->t, &x->dqkv, x->want_dqkv, largest(x->want_dqkv, n), what);
        return;
    }
    double *off = kt_malloc(n * sizeof *off);
    ref_backward_limits(off, x->dout.ref, x->qkv.ref, x->starts, x->B, &x->h, kt_roundoff((int)dt),
                        x->room);
    check_rounded(&x->t, &x->dqkv, x->want_dqkv, off, what);
    free(off);
}

static void check_shape(const struct shape *s, enum fc_dtype dt)
{
    struct setting x;
    set_up(&x, s, dt, 2);
    run(&x, dt);
    ref_forward(x.want_out, x.want_lse, x.qkv.ref, x.starts, x.B, &x.h, x.room);
    ref_backward(x.want_dqkv, x.dout.ref, x.qkv.ref, x.starts, x.B, &x.h, x.room);
    check_output(&x, dt, s->what);
    kt_check(&x.t, &x.lse, x.want_lse, 1.0, s->what);
    check_gradient(&x, dt, s->what);
    tear_down(&x);
}

static void test_fp32(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++)
        check_shape(&shapes[i], FC_F32);
}

static void test_16_bits(void **state)
{
    (void)state;
    for (size_t d = 1; d < kt_n_dtypes(); d++)
        for (size_t i = 0; i < N_SHAPES; i++)
            check_shape(&shapes[i], kt_dtypes[d]);
}

/* Bits do not depend on the number of threads or the run, and a sequence's not on its neighbours.
 */
static void check_same_bits(enum fc_dtype dt)
{
    static const struct shape alone = {"", 9, 3, 64, {300}}, packed = {"", 9, 3, 64, {300, 64, 7}};
    struct setting x, y, z;
    set_up(&x, &packed, dt, 1);
    set_up(&y, &packed, dt, 5);
    set_up(&z, &alone, dt, 2);
    kt_put(&z.t, &z.qkv, x.qkv.ref);
    kt_put(&z.t, &z.dout, x.dout.ref);
    run(&x, dt);
    run(&y, dt);
    run(&z, dt);
    kt_read(&x.t, &x.dqkv);
    kt_read(&y.t, &y.dqkv);
    kt_read(&z.t, &z.dqkv);
    assert_memory_equal(x.dqkv.ref, y.dqkv.ref, x.T * x.w * sizeof(double));
    assert_memory_equal(x.dqkv.ref, z.dqkv.ref, z.T * z.w * sizeof(double));
    kt_read(&x.t, &x.out);
    kt_read(&y.t, &y.out);
    assert_memory_equal(x.out.ref, y.out.ref, x.T * x.ow * sizeof(double));
    tear_down(&x);
    tear_down(&y);
    tear_down(&z);
}

static void test_same_bits(void **state)
{
    (void)state;
    for (size_t d = 1; d < kt_n_dtypes(); d++)
        check_same_bits(kt_dtypes[d]);
}

/* Scores far apart: the running maximum moves by hundreds and nothing overflows. */
static void test_large_scores(void **state)
{
    (void)state;
    static const struct shape s = {"large scores", 2, 1, 64, {150, 1}};
    struct setting x;
    set_up(&x, &s, FC_F32, 2);
    for (size_t i = 0; i < x.T * x.w; i++)
        x.want_dqkv[i] = x.qkv.ref[i] * (i % x.w < 3 * 64 ? 8.0 * (double)(i / x.w % 7) : 1.0);
    kt_put(&x.t, &x.qkv, x.want_dqkv);
    run(&x, FC_F32);
    ref_forward(x.want_out, x.want_lse, x.qkv.ref, x.starts, x.B, &x.h, x.room);
    /* A score of 5000 is rounded by 2e-4 at least, which is its factor's relative error. */
    kt_check_within(&x.t, &x.out, x.want_out, 1.0, 2e-3, s.what);
    kt_check(&x.t, &x.lse, x.want_lse, largest(x.want_lse, x.T * x.h.nh), s.what);
    kt_read(&x.t, &x.dqkv);
    for (size_t i = 0; i < x.T * x.w; i++)
        assert_true(isfinite(x.dqkv.ref[i]));
    tear_down(&x);
}

static double weighted_output(struct setting *x, const double *qkv)
{
    double sum = 0.0;
    ref_forward(x->want_out, x->want_lse, qkv, x->starts, x->B, &x->h, x->room);
    for (size_t i = 0; i < x->T * x->ow; i++)
        sum += x->want_out[i] * x->dout.ref[i];
    return sum;
}

/* The reference's own gradient: central differences of sum(out * dout) in fp64, every input. */
static void test_reference_gradient(void **state)
{
    (void)state;
    static const struct shape s = {"finite differences", 4, 2, 8, {5, 1, 9}};
    struct setting x;
    set_up(&x, &s, FC_F32, 2);
    size_t n = x.T * x.w;
    double *qkv = kt_malloc(n * sizeof *qkv), step = 1e-5;
    memcpy(qkv, x.qkv.ref, n * sizeof *qkv);
    ref_backward(x.want_dqkv, x.dout.ref, qkv, x.starts, x.B, &x.h, x.room);
    for (size_t i = 0; i < n; i++) {
        double here = qkv[i];
        qkv[i] = here + step;
        double above = weighted_output(&x, qkv);
        qkv[i] = here - step;
        double below = weighted_output(&x, qkv);
        qkv[i] = here;
        double slope = (above - below) / (2.0 * step);
        if (fabs(slope - x.want_dqkv[i]) > 1e-8)
            fail_msg("input %zu: slope %.12g, gradient %.12g", i, slope, x.want_dqkv[i]);
    }
    free(qkv);
    tear_down(&x);
}

/* More sequences than a launch of any back end might take at once. */
static void test_many_sequences(void **state)
{
    (void)state;
    enum { B = 2000, HS = 64, W = 3 * HS };
    struct kt t;
    kt_open(&t);
    int32_t *starts = kt_malloc((B + 1) * sizeof *starts);
    for (size_t b = 0; b < B; b++)
        starts[b + 1] = starts[b] + (b % 5 == 3 ? 0 : 1 + (int32_t)(b % 3));
    size_t T = (size_t)starts[B];
    struct fc_heads h = {1, 1, HS, 0.125f};
    struct kt_array qkv = kt_random(&t, T * W, FC_BF16, 2.0), out = kt_array(&t, T * HS, FC_BF16);
    struct kt_array dout = kt_random(&t, T * HS, FC_BF16, 1.0), lse = kt_array(&t, T, FC_F32);
    struct kt_array dqkv = kt_array(&t, T * W, FC_BF16), scratch = kt_array(&t, T, FC_F32);
    t.k->attention_forward(t.s, out.p, lse.p, qkv.p, starts, B, &h, FC_BF16);
    t.k->attention_backward(t.s, dqkv.p, dout.p, out.p, lse.p, qkv.p, scratch.p, starts, B, &h,
                            FC_BF16);
    double *want = kt_malloc(T * W * sizeof *want), *off = kt_malloc(T * W * sizeof *off);
    double room[2 * 3 + HS], *want_lse = kt_malloc(T * sizeof *want_lse);
    ref_forward(want, want_lse, qkv.ref, starts, B, &h, room);
    kt_check(&t, &lse, want_lse, 1.0, "lse of many sequences");
    ref_backward(want, dout.ref, qkv.ref, starts, B, &h, room);
    ref_backward_limits(off, dout.ref, qkv.ref, starts, B, &h, kt_roundoff(FC_BF16), room);
    check_rounded(&t, &dqkv, want, off, "gradient of many sequences");
    free(starts);
    free(want);
    free(want_lse);
    free(off);
    kt_close(&t);
}

/* Pointers aligned to an element and no better take a slower way to the same numbers. */
static void test_unaligned(void **state)
{
    (void)state;
    static const struct shape s = {"unaligned", 3, 1, 64, {33, 7}};
    struct setting x;
    set_up(&x, &s, FC_BF16, 2);
    run(&x, FC_BF16);
    size_t n = x.T * x.w, m = x.T * x.ow;
    struct kt_array in[2] = {kt_array(&x.t, n + 1, FC_BF16), kt_array(&x.t, m + 1, FC_BF16)};
    struct kt_array out = kt_array(&x.t, m + 1, FC_BF16), dqkv = kt_array(&x.t, n + 1, FC_BF16);
    for (size_t i = 0; i < 2; i++) {
        const struct kt_array *from = i == 0 ? &x.qkv : &x.dout;
        double *values = kt_malloc((from->n + 1) * sizeof *values);
        memcpy(values + 1, from->ref, from->n * sizeof *values);
        kt_put(&x.t, &in[i], values);
        free(values);
    }
    uint16_t *qkv = in[0].p, *dout = in[1].p, *to = out.p, *dto = dqkv.p;
    x.t.k->attention_forward(x.t.s, to + 1, x.lse.p, qkv + 1, x.starts, x.B, &x.h, FC_BF16);
    x.t.k->attention_backward(x.t.s, dto + 1, dout + 1, to + 1, x.lse.p, qkv + 1, x.scratch.p,
                              x.starts, x.B, &x.h, FC_BF16);
    kt_read(&x.t, &x.out);
    kt_read(&x.t, &x.dqkv);
    kt_read(&x.t, &out);
    kt_read(&x.t, &dqkv);
    assert_true(isnan(out.ref[0]) && isnan(dqkv.ref[0])); /* the poison before the first */
    for (size_t i = 0; i < m; i++)
        assert_true(fabs(out.ref[i + 1] - x.out.ref[i]) < 0.02);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(dqkv.ref[i + 1] - x.dqkv.ref[i]) < 0.02 * (1.0 + fabs(x.dqkv.ref[i])));
    tear_down(&x);
}

static void test_refuses_head_size(void **state)
{
    (void)state;
    static const struct shape s = {"", 1, 1, 264, {2}};
    struct setting x;
    struct fc_error err = {0};
    set_up(&x, &s, FC_F32, 2);
    x.t.k->attention_forward(x.t.s, x.out.p, x.lse.p, x.qkv.p, x.starts, x.B, &x.h, FC_F32);
    assert_int_equal(x.t.k->sync(x.t.s, &err), FC_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "264"));
    tear_down(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_16_bits),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_reference_gradient),
        cmocka_unit_test(test_many_sequences),
        cmocka_unit_test(test_unaligned),
        cmocka_unit_test(test_refuses_head_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
