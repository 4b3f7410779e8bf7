/* Bias and its gradient, gather, scatter, casts. */
#include "tests/kernels/harness.h"

static const size_t shapes[][2] = /* T, N */
    {{1, 1}, {7, 33}, {33, 100}, {100, 31}, {200, 960}, {3, 1500}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void check_bias(size_t T, size_t N, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array y = kt_random(&t, T * N, (int)dt, 1), bias = kt_random(&t, N, (int)dt, 1);
    struct kt_array dy = kt_random(&t, T * N, (int)dt, 1), db = kt_random(&t, N, FC_F32, 1);
    struct kt_array scratch = kt_array(&t, FC_ROW_SLICES * N, FC_F32);
    double *want = kt_malloc(T * N * sizeof *want), *dwant = kt_malloc(N * sizeof *dwant);
    memcpy(dwant, db.ref, N * sizeof *dwant);
    for (size_t i = 0; i < T * N; i++) {
        want[i] = y.ref[i] + bias.ref[i % N];
        dwant[i % N] += 2 * dy.ref[i];
    }
    t.k->bias_forward(t.s, y.p, bias.p, T, N, dt);
    t.k->bias_backward(t.s, db.p, dy.p, scratch.p, T, N, dt);
    t.k->bias_backward(t.s, db.p, dy.p, scratch.p, T, N, dt);
    kt_check(&t, &y, want, 1, "bias_forward");
    kt_check(&t, &db, dwant, sqrt((double)T), "bias_backward");
    free(want);
    free(dwant);
    kt_close(&t);
}

static void check_rows(size_t T, size_t C, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    size_t n = (T + 1) / 2;
    int32_t *rows = kt_malloc(n * sizeof *rows);
    for (size_t i = 0; i < n; i++)
        rows[i] = (int32_t)((2 * i + 4) % (T + T % 2)); /* distinct, even */
    struct kt_array in = kt_random(&t, T * C, (int)dt, 1), small = kt_random(&t, n * C, (int)dt, 1);
    struct kt_array which = kt_ints(&t, rows, n), got = kt_array(&t, n * C, (int)dt);
    struct kt_array out = kt_array(&t, T * C, (int)dt);
    double *want = kt_malloc(T * C * sizeof *want);
    for (size_t i = 0; i < n * C; i++)
        want[i] = in.ref[(size_t)rows[i / C] * C + i % C];
    t.k->gather_rows(t.s, got.p, in.p, which.p, n, C, dt);
    kt_check_within(&t, &got, want, 0, 0, "gather_rows");
    for (size_t i = 0; i < T * C; i++)
        want[i] = (double)NAN; /* rows that are not named keep their poison */
    for (size_t i = 0; i < n * C; i++)
        want[(size_t)rows[i / C] * C + i % C] = small.ref[i];
    t.k->scatter_rows(t.s, out.p, small.p, which.p, n, C, dt);
    kt_check_within(&t, &out, want, 0, 0, "scatter_rows");
    free(rows);
    free(want);
    kt_close(&t);
}

static void check_cast(size_t n, enum fc_dtype from, enum fc_dtype to)
{
    struct kt t;
    kt_open(&t);
    struct kt_array in = kt_random(&t, n, (int)from, 3), out = kt_array(&t, n, (int)to);
    double *want = kt_malloc(n * sizeof *want);
    for (size_t i = 0; i < n; i++)
        want[i] = kt_round(in.ref[i], (int)to);
    t.k->cast(t.s, out.p, to, in.p, from, n);
    kt_check_within(&t, &out, want, 0, 0, "cast");
    free(want);
    kt_close(&t);
}

static void test_bias(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            check_bias(shapes[i][0], shapes[i][1], kt_dtypes[d]);
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            check_rows(shapes[i][0], shapes[i][1], kt_dtypes[d]);
}

static void test_cast(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 7, 100, 513, 20000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t from = 0; from < kt_n_dtypes(); from++)
            for (size_t to = 0; to < kt_n_dtypes(); to++)
                check_cast(sizes[i], kt_dtypes[from], kt_dtypes[to]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_cast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
