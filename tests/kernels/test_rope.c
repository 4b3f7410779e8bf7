/* Rotary positions: values, v untouched, backward as the inverse. */
#include "tests/kernels/harness.h"

static void check(size_t T, struct fc_heads h, enum fc_dtype dt)
{
    struct kt t;
    enum { POSITIONS = 50 };
    kt_open(&t);
    size_t width = (h.nh + 2 * h.nkv) * h.hs, half = h.hs / 2;
    struct kt_array qkv = kt_random(&t, T * width, (int)dt, 1), place;
    struct kt_array table = kt_array(&t, POSITIONS * h.hs, FC_F32);
    double *angles = kt_malloc(table.n * sizeof *angles), *want = kt_malloc(qkv.n * sizeof *want);
    double *old = kt_malloc(qkv.n * sizeof *old);
    int32_t *positions = kt_malloc(T * sizeof *positions);
    for (size_t p = 0; p < POSITIONS; p++)
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * pow(10000.0, -2.0 * (double)i / (double)h.hs);
            angles[p * h.hs + i] = cos(angle);
            angles[p * h.hs + half + i] = sin(angle);
        }
    kt_put(&t, &table, angles);
    for (size_t i = 0; i < T; i++)
        positions[i] = kt_below(3, i, POSITIONS);
    place = kt_ints(&t, positions, T);
    memcpy(want, qkv.ref, qkv.n * sizeof *want);
    memcpy(old, qkv.ref, qkv.n * sizeof *old);
    for (size_t i = 0; i < T; i++)
        for (size_t head = 0; head < h.nh + h.nkv; head++)
            for (size_t c = 0; c < half; c++) {
                size_t at = i * width + head * h.hs + c;
                const double *row = table.ref + (size_t)positions[i] * h.hs;
                want[at] = old[at] * row[c] - old[at + half] * row[half + c];
                want[at + half] = old[at + half] * row[c] + old[at] * row[half + c];
            }
    t.k->rope(t.s, qkv.p, place.p, table.p, T, &h, false, dt);
    kt_check(&t, &qkv, want, 1, "rope");
    t.k->rope(t.s, qkv.p, place.p, table.p, T, &h, true, dt);
    /* Back again; in 16 bits both ways were rounded. */
    kt_check_within(&t, &qkv, old, 1,
                    dt == FC_F32    ? 1e-5
                    : dt == FC_BF16 ? 0x1p-7
                                    : 0x1p-10,
                    "rope backward");
    free(angles);
    free(want);
    free(old);
    free(positions);
    kt_close(&t);
}

static void test_rope(void **state)
{
    (void)state;
    for (size_t d = 0; d < kt_n_dtypes(); d++) {
        check(1, (struct fc_heads){.nh = 1, .nkv = 1, .hs = 2}, kt_dtypes[d]);
        check(7, (struct fc_heads){.nh = 9, .nkv = 3, .hs = 64}, kt_dtypes[d]);
        check(33, (struct fc_heads){.nh = 2, .nkv = 1, .hs = 6}, kt_dtypes[d]);
        check(100, (struct fc_heads){.nh = 4, .nkv = 4, .hs = 18}, kt_dtypes[d]);
        check(3, (struct fc_heads){.nh = 1, .nkv = 1, .hs = 1030}, kt_dtypes[d]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rope)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
