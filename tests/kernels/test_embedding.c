/* Embedding rows and their gradient: repeated ids, ragged sizes, order of summation. */
#include "tests/kernels/harness.h"

static struct kt_array random_ids(struct kt *t, size_t T, size_t V)
{
    int32_t *ids = kt_malloc(T * sizeof *ids);
    for (size_t i = 0; i < T; i++)
        ids[i] = kt_below(5, i, V);
    struct kt_array a = kt_ints(t, ids, T);
    free(ids);
    return a;
}

static const size_t shapes[][3] = /* T, C, V */
    {{1, 1, 1}, {7, 33, 3}, {33, 100, 1000}, {100, 31, 40}, {65, 1025, 7}, {700, 8, 50}};

static void check_forward(size_t T, size_t C, size_t V, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array table = kt_random(&t, V * C, (int)dt, 1), ids = random_ids(&t, T, V);
    struct kt_array out = kt_array(&t, T * C, (int)dt);
    t.k->embed_forward(t.s, out.p, table.p, ids.p, T, C, dt);
    double *want = kt_malloc(T * C * sizeof *want);
    for (size_t i = 0; i < T * C; i++)
        want[i] = table.ref[(size_t)ids.ref[i / C] * C + i % C];
    kt_check_within(&t, &out, want, 0, 0, "embed_forward");
    free(want);
    kt_close(&t);
}

static void check_backward(size_t T, size_t C, size_t V, enum fc_dtype dt)
{
    struct kt t;
    kt_open(&t);
    struct kt_array dout = kt_random(&t, T * C, (int)dt, 1), ids = random_ids(&t, T, V);
    struct kt_array dtable = kt_random(&t, V * C, FC_F32, 1);
    struct kt_array scratch = kt_array(&t, 2 * T, KT_INT32);
    float *want = kt_malloc(V * C * sizeof *want);
    double *wide = kt_malloc(V * C * sizeof *wide);
    for (size_t i = 0; i < V * C; i++)
        want[i] = (float)dtable.ref[i];
    for (size_t call = 0; call < 2; call++) {
        t.k->embed_backward(t.s, dtable.p, dout.p, ids.p, scratch.p, T, C, V, dt);
        for (size_t i = 0; i < T * C; i++) /* in the order of t, as promised: exact */
            want[(size_t)ids.ref[i / C] * C + i % C] += (float)dout.ref[i];
    }
    for (size_t i = 0; i < V * C; i++)
        wide[i] = (double)want[i];
    kt_check_within(&t, &dtable, wide, 0, 0, "embed_backward");
    free(want);
    free(wide);
    kt_close(&t);
}

static void test_forward(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            check_forward(shapes[i][0], shapes[i][1], shapes[i][2], kt_dtypes[d]);
}

static void test_backward(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++)
            check_backward(shapes[i][0], shapes[i][1], shapes[i][2], kt_dtypes[d]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
