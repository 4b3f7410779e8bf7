/* Composition against brute force: divergences summed over outcomes, and the exact delta of n-fold
 * composition. */
#include "privacy/accountant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* The divergence of order a between the two inputs with top sets {0..m-1} and {shift..shift+m-1}.
 */
static double brute_renyi(const struct fc_profile *p, size_t shift, double a)
{
    size_t m = p->depth;
    double total = (double)p->total, sum = 0;
    for (size_t y = 0; y < p->n_outputs; y++) {
        double w0 = (double)p->levels[0].weight / total, w1 = (double)p->levels[1].weight / total;
        double px = y < m ? w0 : w1, qx = y >= shift && y < shift + m ? w0 : w1;
        sum += px * pow(px / qx, a - 1);
    }
    return log(sum) / (a - 1);
}

static void test_renyi_is_that_of_the_worst_pair(void **state)
{
    (void)state;
    static const struct {
        size_t n, m;
        double epsilon;
    } rows[] = {{10, 3, 1}, {10, 7, 1}, {12, 1, 3}, {200, 20, 4}, {50, 49, 0.5}, {40, 2, 8}};
    static const double lambdas[] = {0.001, 0.03, 0.5, 1, 3, 9, 40};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct fc_profile p;
        size_t n = rows[r].n, m = rows[r].m;
        assert_int_equal(fc_profile_two_level(&p, n, m, rows[r].epsilon, NULL), FC_OK);
        for (size_t i = 0; i < sizeof lambdas / sizeof lambdas[0]; i++) {
            double worst = 0, bound = fc_profile_renyi(&p, lambdas[i]);
            for (size_t shift = 0; shift <= n - m; shift++)
                worst = fmax(worst, brute_renyi(&p, shift, 1 + lambdas[i]));
            /* the brute force cancels at small orders: its own error is allowed for */
            assert_true(bound >= worst * (1 - 1e-9) - 1e-12);
            assert_true(bound <= worst * (1 + 1e-6) + 1e-9);
            assert_true(bound <= p.epsilon);
        }
    }
}

/* Randomised response is the worst of all mechanisms of this epsilon: its divergence is within
 * rho times the order for every order, and near it at order 1, so rho cannot be smaller. */
static void test_rho_bounds_randomised_response(void **state)
{
    (void)state;
    for (double epsilon = 0.05; epsilon < 30; epsilon *= 1.3) {
        const uint64_t w0 = (uint64_t)(exp(epsilon) * 1000);
        const struct fc_level levels[] = {{1, w0}, {1, 1000}}; /* |V| = 2 is randomised response */
        struct fc_profile p;
        assert_int_equal(fc_profile_make(&p, levels, 2, NULL), FC_OK);
        double rho = fc_profile_rho(&p);
        assert_true(rho <= p.epsilon * p.epsilon / 2 * (1 + 1e-9));
        for (double lambda = 1e-4; lambda < 1e4; lambda *= 1.2)
            assert_true(fc_profile_renyi(&p, lambda) <= rho * (1 + lambda) * (1 + 1e-9));
        assert_true(fc_profile_renyi(&p, 1e-6) > rho * (1 - 1e-4));
        /* and what is said of any number of levels is at least what holds for two */
        const struct fc_level three[] = {{1, w0}, {1, w0}, {1, 1000}};
        assert_int_equal(fc_profile_make(&p, three, 3, NULL), FC_OK);
        const struct fc_level two[] = {{2, w0}, {1, 1000}};
        struct fc_profile q;
        assert_int_equal(fc_profile_make(&q, two, 2, NULL), FC_OK);
        for (double lambda = 1e-3; lambda < 1e3; lambda *= 2)
            assert_true(fc_profile_renyi(&p, lambda) >= fc_profile_renyi(&q, lambda) * (1 - 1e-9));
    }
}

/* The true delta at epsilon of n draws for the worst pair in every position: the loss of one draw
 * is eps, -eps or 0, so that of n is a walk on -n .. n. */
static double exact_delta(const struct fc_profile *p, size_t n, double epsilon)
{
    double total = (double)p->total, eps = p->epsilon;
    double up = (double)p->depth * (double)p->levels[0].weight / total;
    double down = (double)p->depth * (double)p->levels[1].weight / total;
    size_t size = 2 * n + 1;
    double *now = calloc(size, sizeof *now), *next = calloc(size, sizeof *next), delta = 0;
    assert_true(now && next);
    now[n] = 1;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < size; j++)
            next[j] = now[j] * (1 - up - down) + (j > 0 ? now[j - 1] * up : 0) +
                      (j + 1 < size ? now[j + 1] * down : 0);
        double *t = now;
        now = next;
        next = t;
    }
    for (size_t j = 0; j < size; j++) {
        double loss = ((double)j - (double)n) * eps;
        if (loss > epsilon)
            delta += now[j] * -expm1(epsilon - loss);
    }
    free(now);
    free(next);
    return delta;
}

static void test_delta_holds_for_the_exact_composition(void **state)
{
    (void)state;
    static const struct {
        size_t n, m;
        double epsilon;
        size_t draws;
    } rows[] = {{8190, 389, 3, 20},   {8190, 389, 3, 500},  {8190, 21, 6, 40}, {8190, 1, 10, 300},
                {100, 30, 0.5, 1000}, {100, 30, 0.1, 2000}, {8190, 21, 6, 1}};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct fc_profile p;
        struct fc_account a = {0};
        struct fc_spent s;
        size_t n = rows[r].draws;
        assert_int_equal(fc_profile_two_level(&p, rows[r].n, rows[r].m, rows[r].epsilon, NULL),
                         FC_OK);
        fc_account_add(&a, &p, n / 2);
        fc_account_add(&a, &p, n - n / 2);
        fc_account_spent(&a, 1e-6, &s);
        printf("eps %g x %zu: pure %.2f, zCDP %.2f, Renyi %.2f at 1e-6\n", rows[r].epsilon, n,
               s.pure, s.zcdp, s.renyi);
        assert_int_equal(s.draws, n);
        assert_true(s.pure >= (double)n * p.epsilon);
        assert_true(s.pure <= (double)n * rows[r].epsilon);
        assert_true(exact_delta(&p, n, s.renyi) <= 1e-6);
        assert_true(exact_delta(&p, n, s.zcdp) <= 1e-6);
        assert_true(exact_delta(&p, n, s.pure) <= 0);
        assert_true(s.epsilon <= s.pure && s.epsilon <= s.zcdp && s.epsilon <= s.renyi);
        if (n >= 1000) { /* not loose: half of it would be wrong, and far below the pure figure */
            assert_true(exact_delta(&p, n, s.renyi / 2) > 1e-6);
            assert_true(s.renyi < s.pure / 2);
        }
    }
}

static void test_nothing_spent_and_no_delta(void **state)
{
    (void)state;
    struct fc_account a = {0};
    struct fc_spent s;
    fc_account_spent(&a, 0, &s);
    assert_true(s.pure == 0 && s.epsilon == 0 && s.renyi == 0);
    struct fc_profile p;
    assert_int_equal(fc_profile_two_level(&p, 100, 5, 2, NULL), FC_OK);
    fc_account_add(&a, &p, 0);
    assert_int_equal(a.draws, 0);
    fc_account_add(&a, &p, UINT64_C(1) << 60); /* absurd, still finite and rounded up */
    fc_account_spent(&a, 0, &s);
    assert_true(isinf(s.renyi) && isinf(s.zcdp) && isfinite(s.pure) && s.epsilon >= s.pure);
    const struct fc_level flat[] = {{3, 5}, {4, 5}};
    assert_int_equal(fc_profile_make(&p, flat, 2, NULL), FC_OK);
    assert_true(p.epsilon == 0 && fc_profile_renyi(&p, 3) == 0 && fc_profile_rho(&p) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_renyi_is_that_of_the_worst_pair),
        cmocka_unit_test(test_rho_bounds_randomised_response),
        cmocka_unit_test(test_delta_holds_for_the_exact_composition),
        cmocka_unit_test(test_nothing_spent_and_no_delta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
