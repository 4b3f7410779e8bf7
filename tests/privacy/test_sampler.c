/* The sampler, exactly: over every integer that can be drawn, and by a large sample. */
#include "privacy/random_testing.h"
#include "privacy/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fc_profile make(const struct fc_level *levels, size_t n)
{
    struct fc_profile p;
    struct fc_error err = {0};
    assert_int_equal(fc_profile_make(&p, levels, n, &err), FC_OK);
    return p;
}

/* The next permutation of a[n] in lexicographic order; 0 after the last. */
static int next_permutation(int32_t *a, size_t n)
{
    size_t i = n - 1;
    while (i > 0 && a[i - 1] >= a[i])
        i--;
    if (i == 0)
        return 0;
    size_t j = n - 1;
    while (a[j] <= a[i - 1])
        j--;
    int32_t t = a[i - 1];
    a[i - 1] = a[j];
    a[j] = t;
    for (j = n - 1; i < j; i++, j--) {
        t = a[i];
        a[i] = a[j];
        a[j] = t;
    }
    return 1;
}

/* Every ranking of a small vocabulary as an input, every u in [0, S): the counts of the outputs are
 * the weights of their ranks, and no two inputs' counts of an output differ by more than W_0 to
 * W_last. All in integers. */
static void test_every_integer_of_every_input(void **state)
{
    (void)state;
    static const struct fc_level profiles[][3] = {
        {{2, 7}, {4, 1}, {0, 0}}, {{1, 5}, {2, 3}, {3, 2}}, {{3, 4}, {3, 3}, {0, 0}}};
    for (size_t t = 0; t < 3; t++) {
        struct fc_profile p = make(profiles[t], profiles[t][2].n ? 3 : 2);
        struct fc_sampler s;
        assert_int_equal(fc_sampler_open(&s, &p, NULL), FC_OK);
        uint64_t w0 = p.levels[0].weight, w_last = p.levels[p.n_levels - 1].weight;
        uint64_t least[6], most[6];
        memset(least, 0xff, sizeof least);
        memset(most, 0, sizeof most);
        int32_t order[6] = {0, 1, 2, 3, 4, 5};
        size_t inputs = 0;
        do {
            uint64_t counts[6] = {0};
            for (fc_u128 u = 0; u < p.total; u++) {
                int32_t y = -1;
                assert_int_equal(fc_sampler_map(&s, u, order, &y, NULL), FC_OK);
                assert_in_range(y, 0, 5);
                counts[y]++;
            }
            size_t rank = 0;
            for (size_t l = 0; l < p.n_levels - 1; l++)
                for (size_t i = 0; i < p.levels[l].n; i++)
                    assert_int_equal(counts[order[rank++]], p.levels[l].weight);
            for (; rank < 6; rank++)
                assert_int_equal(counts[order[rank]], w_last);
            for (size_t y = 0; y < 6; y++) {
                least[y] = counts[y] < least[y] ? counts[y] : least[y];
                most[y] = counts[y] > most[y] ? counts[y] : most[y];
            }
            inputs++;
        } while (next_permutation(order, 6));
        assert_int_equal(inputs, 720);
        for (size_t y = 0; y < 6; y++) {
            assert_true(least[y] > 0); /* every output for every input */
            assert_true(most[y] * w_last <= least[y] * w0);
        }
        fc_sampler_close(&s);
    }
}

/* A vocabulary of the usual size and weights of 2^56: each rank owns exactly its weight of integers
 * (first and last of them checked, so all), and the ranks' outputs are a permutation. */
static void test_ranks_of_the_usual_profile(void **state)
{
    (void)state;
    static const struct {
        size_t n, m;
        double epsilon;
    } rows[] = {{8190, 21, 6}, {8190, 389, 3}, {8190, 1, 10}, {11000, 20, 38},
                {64, 63, 1},   {65, 64, 1},    {128, 1, 0.5}, {2, 1, 2}};
    for (size_t t = 0; t < sizeof rows / sizeof rows[0]; t++) {
        struct fc_profile p;
        struct fc_sampler s;
        size_t n = rows[t].n, m = rows[t].m;
        assert_int_equal(fc_profile_two_level(&p, n, m, rows[t].epsilon, NULL), FC_OK);
        assert_int_equal(fc_sampler_open(&s, &p, NULL), FC_OK);
        int32_t *top = calloc(m, sizeof *top);
        unsigned char *seen = calloc(n, 1), *near = calloc(n, 1);
        assert_true(top && seen && near);
        for (size_t i = 0; i < m; i++) { /* any distinct indices, the ends among them */
            size_t at = (n - 1 - i * 7919 % n + n) % n;
            while (near[at])
                at = (at + 1) % n;
            near[at] = 1;
            top[i] = (int32_t)at;
        }
        fc_u128 u = 0;
        for (size_t rank = 0; rank < n; rank++) {
            fc_u128 weight = p.levels[rank >= m].weight;
            assert_true(fc_profile_rank(&p, u) == rank);
            assert_true(fc_profile_rank(&p, u + weight - 1) == rank);
            int32_t first = -1, last = -1;
            assert_int_equal(fc_sampler_map(&s, u, top, &first, NULL), FC_OK);
            assert_int_equal(fc_sampler_map(&s, u + weight - 1, top, &last, NULL), FC_OK);
            assert_int_equal(first, last);
            assert_in_range(first, 0, n - 1);
            assert_int_equal(near[first], rank < m);
            assert_false(seen[first]);
            seen[first] = 1;
            u += weight;
        }
        assert_true(u == p.total);
        free(top);
        free(seen);
        free(near);
        fc_sampler_close(&s);
    }
}

static void test_refuses_what_is_no_permutation(void **state)
{
    (void)state;
    const struct fc_level levels[] = {{3, 9}, {97, 1}};
    struct fc_profile p = make(levels, 2);
    struct fc_sampler s;
    struct fc_random r;
    int32_t y = -5;
    static const int32_t bad[][3] = {{1, 2, 1},   {-1, 2, 3},        {1, 2, 100},
                                     {127, 1, 2}, {INT32_MIN, 1, 2}, {0, INT32_MAX, 2}};
    assert_int_equal(fc_sampler_open(&s, &p, NULL), FC_OK);
    assert_int_equal(fc_random_open(&r, NULL), FC_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fc_error err = {0};
        assert_int_equal(fc_sampler_draw(&s, &r, bad[i], &y, &err), FC_ERR_INTERNAL);
        assert_int_equal(y, -5);
    }
    fc_sampler_close(&s);
}

/* Pearson's statistic of n draws against weights w of the outputs. */
static double chi_square(const double *counts, const uint64_t *w, size_t outputs, double n)
{
    double total = 0, chi = 0;
    for (size_t y = 0; y < outputs; y++)
        total += (double)w[y];
    for (size_t y = 0; y < outputs; y++) {
        double expected = n * (double)w[y] / total;
        chi += (counts[y] - expected) * (counts[y] - expected) / expected;
    }
    return chi;
}

/* A million draws with the real randomness. With 99 degrees of freedom 190 is passed by chance once
 * in ten million runs; the same counts against weights that are 10 and 15 % off for two outputs are
 * far beyond it. */
static void test_large_sample(void **state)
{
    (void)state;
    enum { OUTPUTS = 100, N = 1000000 };
    const struct fc_level levels[] = {{5, 401}, {15, 40}, {80, 3}};
    struct fc_profile p = make(levels, 3);
    struct fc_sampler s;
    struct fc_random r;
    int32_t top[20];
    uint64_t w[OUTPUTS], other[OUTPUTS];
    static double counts[OUTPUTS];
    for (size_t y = 0; y < OUTPUTS; y++)
        w[y] = 3;
    for (int32_t i = 0; i < 20; i++) {
        top[i] = (i * 37 + 63) % OUTPUTS;
        w[top[i]] = i < 5 ? 401 : 40;
    }
    assert_int_equal(fc_sampler_open(&s, &p, NULL), FC_OK);
    assert_int_equal(fc_random_open(&r, NULL), FC_OK);
    for (size_t i = 0; i < N; i++) {
        int32_t y;
        assert_int_equal(fc_sampler_draw(&s, &r, top, &y, NULL), FC_OK);
        counts[y]++;
    }
    double chi = chi_square(counts, w, OUTPUTS, N);
    memcpy(other, w, sizeof w);
    other[top[0]] = 440;
    other[top[7]] = 46;
    double wrong = chi_square(counts, other, OUTPUTS, N);
    printf("chi-square of %d draws: %.1f (99 degrees of freedom); against other weights: %.1f\n", N,
           chi, wrong);
    assert_true(chi < 190);
    assert_true(chi > 35);
    assert_true(wrong > 250);
    fc_sampler_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_integer_of_every_input),
        cmocka_unit_test(test_ranks_of_the_usual_profile),
        cmocka_unit_test(test_refuses_what_is_no_permutation),
        cmocka_unit_test(test_large_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
