/* What counts as the same answer, and the interval around an accuracy. */
#include "cli/evaluate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static void answers(void **state)
{
    (void)state;
    static const struct {
        const char *generated, *answer;
        bool same;
    } cases[] = {
        {"Bank", "bank", true},
        {"the bank.", "bank", false},
        {"  river-bank ", "river bank", true},
        {"", "bank", false},
        {"5", "5", true},
        {"3 + 2 = 5.", "5", true},
        {"5 apples, so 6", "5", false},
        {"35", "3.5", false}, /* marks of a number are not punctuation */
        {"3.50", "3.5", true},
        {"5", "-5", false},
        {"it is -5", "-5", true},
        {"1,000 dollars", "1000", true},
        {"the answer is 1000", "1,000", true},
        {"none", "0", false},
        {"", "?", false}, /* nothing but punctuation: to the letter */
        {"?", "?", true},
        {"-", "+", false},
        {"\xC3\xA9t\xC3\xA9", "\xC3\xA9t\xC3\xA9", true},
        {"\xC3\xA9t\xC3\xA9", "ete", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (fc_answers_match(cases[i].generated, cases[i].answer) != cases[i].same)
            fail_msg("\"%s\" for \"%s\": expected %d", cases[i].generated, cases[i].answer,
                     cases[i].same);
}

/* Figures of scipy.stats.binomtest(k, n).proportion_ci(method="wilson"). */
static void wilson(void **state)
{
    (void)state;
    double low, high;
    fc_wilson(0, 0, &low, &high);
    assert_true(low == 0 && high == 1);
    fc_wilson(50, 100, &low, &high);
    assert_true(fabs(low - 0.4038315303659956) < 1e-9 && fabs(high - 0.5961684696340044) < 1e-9);
    fc_wilson(0, 10, &low, &high);
    assert_true(low == 0 && fabs(high - 0.2775327998628892) < 1e-9);
    fc_wilson(10, 10, &low, &high);
    assert_true(high <= 1 && fabs(low - 0.7224672001371106) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers), cmocka_unit_test(wilson)};
    return cmocka_run_group_tests_name("cli/evaluate", tests, NULL, NULL);
}
