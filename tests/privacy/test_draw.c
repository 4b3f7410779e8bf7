/* The kernel that draws gives what the one exact sampler gives, integer by integer. */
#include "engine/device.h"
#include "privacy/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { V = 97, DEPTH = 20, N = 3000 };

/* N integers below S, the first ones 0, 1, 2, ..., for N rankings. */
static void check_profile(const struct fc_level *levels, size_t n_levels)
{
    static int32_t top[N][DEPTH], out[N], scratch[N * DEPTH];
    static uint64_t u[N][2];
    struct fc_profile p;
    struct fc_sampler sampler;
    struct fc_random random;
    struct fc_error err = {0};
    struct fc_draw_level same[FC_DRAW_LEVELS];
    assert_int_equal(fc_profile_make(&p, levels, n_levels, &err), FC_OK);
    assert_int_equal(fc_sampler_open(&sampler, &p, &err), FC_OK);
    assert_int_equal(fc_random_open(&random, &err), FC_OK);
    assert_int_equal(p.depth, DEPTH);
    for (size_t l = 0; l < n_levels; l++)
        same[l] = (struct fc_draw_level){levels[l].n, levels[l].weight};
    for (size_t i = 0; i < N; i++) {
        fc_u128 x = i < p.total && i < N / 2 ? i : fc_random_below(&random, p.total);
        u[i][0] = (uint64_t)x;
        u[i][1] = (uint64_t)(x >> 64);
        for (size_t j = 0; j < DEPTH; j++) /* a step of 1 .. 96 goes round all of V */
            top[i][j] = (int32_t)((i / (V - 1) + j * (1 + i % (V - 1))) % V);
    }
    const struct fc_kernels *k = &fc_kernels_cpu;
    struct fc_stream *s = k->stream_open(0, 2, &err);
    assert_non_null(s);
    const struct fc_draw how = {.levels = same, .n_levels = n_levels, .V = V, .depth = DEPTH};
    k->draw(s, out, &top[0][0], &u[0][0], scratch, &how, N);
    assert_int_equal(k->sync(s, &err), FC_OK);
    k->stream_close(s);
    for (size_t i = 0; i < N; i++) {
        int32_t want = -1;
        fc_u128 x = (fc_u128)u[i][1] << 64 | u[i][0];
        assert_int_equal(fc_sampler_map(&sampler, x, top[i], &want, &err), FC_OK);
        assert_int_equal(out[i], want);
    }
    fc_sampler_close(&sampler);
}

static void test_equals_the_sampler(void **state)
{
    (void)state;
    static const struct fc_level small[] = {{5, 11}, {15, 4}, {77, 1}};
    static const struct fc_level large[] = {{20, FC_MAX_WEIGHT}, {77, FC_MAX_WEIGHT - 1}};
    static const struct fc_level steep[] = {{20, FC_MAX_WEIGHT}, {77, 1}};
    check_profile(small, 3);
    check_profile(large, 2);
    check_profile(steep, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equals_the_sampler)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
