/* The CPU's vectorised exp: within 2 ulp of libm's double, and exact at the ends. */
#include "kernels/cpu/cpu.h"
#include "tests/kernels/harness.h"

static void test_ulps(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t u = 0; u < UINT64_C(1) << 32; u += 1009) { /* every kind of float */
        uint32_t bits = (uint32_t)u;
        float x;
        memcpy(&x, &bits, sizeof x);
        float got = fc_cpu_exp(x);
        double want = exp((double)x);
        if (isnan(x)) {
            assert_true(isnan(got));
        } else if (want > 3.4028235e38) {
            assert_true(isinf(got) && got > 0);
        } else if (want < 0x1p-126) {
            assert_true(got >= 0 && got <= 0x1p-126f);
        } else {
            double ulps = fabs((double)got - want) / ldexp(1, ilogb(want) - 23);
            worst = ulps > worst ? ulps : worst;
        }
    }
    if (worst > 2)
        fail_msg("worst error %.3f ulp", worst);
}

static void test_ends(void **state)
{
    (void)state;
    assert_true(fc_cpu_exp(0.0f) == 1.0f);
    assert_true(fc_cpu_exp(-INFINITY) == 0.0f);
    assert_true(fc_cpu_exp(INFINITY) == INFINITY);
    float row[37];
    for (size_t i = 0; i < 37; i++)
        row[i] = (float)i - 20.0f;
    row[5] = -INFINITY;
    fc_cpu_exp_row(row, 36, 16.0f);
    for (size_t i = 0; i < 36; i++) {
        double want = i == 5 ? 0 : exp((double)i - 36.0);
        assert_true(fabs((double)row[i] - want) <= 3e-7 * want);
    }
    assert_true(row[36] == 16.0f);
}

static void test_rounding(void **state)
{
    (void)state;
    for (uint64_t u = 0; u < UINT64_C(1) << 32; u += 8191) {
        float in[3], out;
        uint16_t half[3];
        for (size_t i = 0; i < 3; i++) {
            uint32_t bits = (uint32_t)(u + i * 0x7fff);
            memcpy(&in[i], &bits, sizeof bits);
        }
        fc_cpu_store(half, 0, in, 3, FC_BF16);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(half[i], fc_f32_to_bf16(in[i]));
            fc_cpu_load(&out, half, i, 1, FC_BF16);
            float want = fc_bf16_to_f32(half[i]);
            assert_memory_equal(&out, &want, sizeof out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ulps),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
