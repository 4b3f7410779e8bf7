/* Profiles: the epsilon of the integers is never above what was wanted, nor below the truth. */
#include "privacy/profile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fc_profile two_level(size_t n, size_t m, double epsilon)
{
    struct fc_profile p;
    struct fc_error err = {0};
    assert_int_equal(fc_profile_two_level(&p, n, m, epsilon, &err), FC_OK);
    return p;
}

static void test_epsilon_is_tight_and_outward(void **state)
{
    (void)state;
    static const double wanted[] = {1e-9, 1e-3, 0.1, 0.5,   1,  2,  3, 4.5,
                                    6,    8,    10,  12.25, 20, 30, 38};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct fc_profile p = two_level(8190, 21, wanted[i]);
        uint64_t w0 = p.levels[0].weight, w1 = p.levels[1].weight;
        assert_true(w1 >= 1 && w0 >= w1 && w0 <= FC_MAX_WEIGHT);
        /* long double holds 56-bit integers exactly where it has 64 bits of mantissa */
        long double truth = log1pl((long double)(w0 - w1) / (long double)w1);
        assert_true((long double)p.epsilon >= truth);
        assert_true(p.epsilon <= wanted[i]);
        assert_true(p.epsilon > wanted[i] * (1 - 1e-6) - 1e-9);
        assert_true(p.total == (fc_u128)21 * w0 + (fc_u128)(8190 - 21) * w1);
        assert_int_equal(p.depth, 21);
        /* n of them at the wanted epsilon always fit in a budget of n times the wanted epsilon */
        assert_true(1e7 * p.epsilon < 1e7 * wanted[i]);
    }
    assert_true(fc_epsilon_upper(7, 7) == 0);
    assert_true(fc_epsilon_upper(3, 1) >= log(3) && fc_epsilon_upper(3, 1) < log(3) + 1e-14);
}

/* The figures of the design: |V| = 11,000 and m = 20. */
static void test_chance_to_stay(void **state)
{
    (void)state;
    static const struct {
        double epsilon, percent;
    } rows[] = {{3, 3.5}, {6, 42}, {8, 84}, {10, 98}};
    for (size_t i = 0; i < 4; i++) {
        struct fc_profile p = two_level(11000, 20, rows[i].epsilon);
        assert_true(fabs(p.stay * 100 - rows[i].percent) < 0.6);
    }
}

static void test_choice_of_nearest(void **state)
{
    (void)state;
    for (double epsilon = 0.25; epsilon <= 12; epsilon += 0.25)
        for (double stay = 0.25; stay < 1; stay += 0.25) {
            size_t n = 8190, m = fc_profile_choose(n, epsilon, stay);
            double e = exp(epsilon);
            assert_in_range(m, 1, n - 1);
            /* enough, and one fewer would not be */
            double with = (double)m * e / ((double)m * e + (double)(n - m));
            assert_true(with >= stay - 1e-9 || m == n - 1);
            if (m > 1) {
                double less = (double)(m - 1) * e / ((double)(m - 1) * e + (double)(n - m + 1));
                assert_true(less < stay + 1e-9);
            }
        }
    assert_int_equal(fc_profile_choose(2, 1, 0.5), 1);
    assert_int_equal(fc_profile_choose(8190, 38, 0.5), 1);
}

static void test_refuses_what_cannot_be(void **state)
{
    (void)state;
    struct fc_profile p;
    static const struct {
        size_t n, m;
        double epsilon;
    } bad[] = {{10, 0, 1},        {10, 10, 1}, {0, 0, 1},
               {10, 2, 0},        {10, 2, -1}, {10, 2, NAN},
               {10, 2, INFINITY}, {10, 2, 39}, {FC_MAX_OUTPUTS + 1, 2, 1},
               {SIZE_MAX, 2, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fc_error err = {0};
        assert_int_equal(fc_profile_two_level(&p, bad[i].n, bad[i].m, bad[i].epsilon, &err),
                         FC_ERR_USAGE);
        assert_true(strlen(err.text) > 10);
    }
    const struct fc_level rising[] = {{1, 1}, {1, 2}}, none[] = {{1, 2}, {0, 1}},
                          zero[] = {{1, 2}, {1, 0}}, heavy[] = {{1, FC_MAX_WEIGHT + 1}};
    assert_int_equal(fc_profile_make(&p, rising, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_profile_make(&p, none, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_profile_make(&p, zero, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_profile_make(&p, heavy, 1, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_profile_make(&p, heavy, 0, NULL), FC_ERR_USAGE);
}

static void test_hash_tells_profiles_apart(void **state)
{
    (void)state;
    unsigned char a[32], b[32];
    struct fc_profile p = two_level(100, 5, 2), q = two_level(100, 6, 2), r = two_level(100, 5, 2);
    fc_profile_hash(&p, a);
    fc_profile_hash(&q, b);
    assert_memory_not_equal(a, b, 32);
    fc_profile_hash(&r, b);
    assert_memory_equal(a, b, 32);
}

static void test_prints_rounded_up(void **state)
{
    (void)state;
    char text[40];
    assert_string_equal(fc_format_up(text, 5.99999999, 4), "6.0000");
    assert_string_equal(fc_format_up(text, 6, 4), "6.0000");
    assert_string_equal(fc_format_up(text, 6.00001, 4), "6.0001");
    assert_string_equal(fc_format_up(text, 0, 2), "0.00");
    assert_string_equal(fc_format_up(text, INFINITY, 2), "inf");
    for (double x = 0.0137; x < 1e14; x *= 1.37)
        assert_true(atof(fc_format_up(text, x, 3)) >= x);
    assert_true(atof(fc_format_up(text, 1e18, 3)) >= 1e18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epsilon_is_tight_and_outward),
        cmocka_unit_test(test_chance_to_stay),
        cmocka_unit_test(test_choice_of_nearest),
        cmocka_unit_test(test_refuses_what_cannot_be),
        cmocka_unit_test(test_hash_tells_profiles_apart),
        cmocka_unit_test(test_prints_rounded_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
