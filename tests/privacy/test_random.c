/* The bounded integer draw: unbiased, and 128 bits wide. */
#include "privacy/random_testing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct script {
    const unsigned char *bytes;
    size_t n, at;
};

static void from_script(void *context, unsigned char *bytes, size_t n)
{
    struct script *s = context;
    for (size_t i = 0; i < n; i++) {
        assert_true(s->at < s->n);
        bytes[i] = s->bytes[s->at++];
    }
}

/* Every byte once: each value below the bound must come out equally often, whatever the bound. */
static void test_every_value_equally_often(void **state)
{
    (void)state;
    unsigned char all[256 + 1];
    for (size_t i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    all[256] = 0; /* ends a last rejected draw */
    for (unsigned bound = 2; bound <= 256; bound++) {
        unsigned counts[256] = {0};
        struct script s = {all, sizeof all, 0};
        struct fc_random r;
        fc_random_open_testing(&r, from_script, &s);
        while (s.at < 256) {
            fc_u128 u = fc_random_below(&r, bound);
            assert_true(u < bound);
            if (s.at <= 256)
                counts[(unsigned)u]++;
        }
        for (unsigned v = 1; v < bound; v++)
            assert_int_equal(counts[v], counts[1]);
        assert_true(counts[1] >= 1);
        assert_in_range(counts[0], counts[1], counts[1]);
    }
}

static void test_rejects_and_takes_the_next(void **state)
{
    (void)state;
    /* bound 2^64 + 1 needs 65 bits, nine bytes, the top one masked to a bit */
    static const unsigned char bytes[] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1,  /* 2^64 + 1: refused */
                                          0xfe, 0, 0, 0, 0, 0, 0, 0, 7,  /* 7 */
                                          0x01, 0, 0, 0, 0, 0, 0, 0, 0}; /* 2^64 */
    struct script s = {bytes, sizeof bytes, 0};
    struct fc_random r;
    fc_random_open_testing(&r, from_script, &s);
    fc_u128 bound = ((fc_u128)1 << 64) + 1;
    assert_true(fc_random_below(&r, bound) == 7);
    assert_int_equal(s.at, 18);
    assert_true(fc_random_below(&r, bound) == (fc_u128)1 << 64);
    assert_true(fc_random_below(&r, 1) == 0); /* takes nothing */
    assert_int_equal(s.at, 27);
}

/* The real source over a bound that is no power of two: thirds of 3 * 2^70 come equally often. */
static void test_real_source_over_128_bits(void **state)
{
    (void)state;
    enum { N = 300000 };
    struct fc_random r;
    struct fc_error err = {0};
    assert_int_equal(fc_random_open(&r, &err), FC_OK);
    double counts[3] = {0}, chi = 0;
    for (size_t i = 0; i < N; i++) {
        fc_u128 u = fc_random_below(&r, (fc_u128)3 << 70);
        assert_true(u < (fc_u128)3 << 70);
        counts[(unsigned)(u >> 70)]++;
    }
    for (int i = 0; i < 3; i++)
        chi += (counts[i] - N / 3.0) * (counts[i] - N / 3.0) / (N / 3.0);
    assert_true(chi < 32); /* two degrees of freedom: by chance once in 9 million runs */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_equally_often),
        cmocka_unit_test(test_rejects_and_takes_the_next),
        cmocka_unit_test(test_real_source_over_128_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
