/* Training with forward products in fp8: near the same training without, not the same, and refused
 * where it cannot be. */
#include "tests/engine/tiny.h"

#include <math.h>

enum { STEPS = 4 };

static void train(double losses[STEPS], bool fp8)
{
    struct tiny t;
    struct fc_trainer *trainer;
    test_device = "cuda";
    tiny_open(&t, "tiny-llama", FC_BF16);
    struct fc_trainer_options o = tiny_options(&t);
    o.fp8 = fp8;
    must(fc_trainer_create(&trainer, &t.model, &o, why));
    for (int step = 0; step < STEPS; step++) {
        struct fc_step_metrics m;
        must(fc_trainer_step(trainer, t.list, t.n_samples, 0, &m, why));
        losses[step] = m.loss;
    }
    fc_trainer_free(trainer);
    tiny_close(&t);
}

static void test_near(void **state)
{
    (void)state;
    double plain[STEPS], fp8[STEPS], again[STEPS];
    struct tiny t;
    test_device = "cuda";
    tiny_open(&t, "tiny-llama", FC_BF16);
    bool has = t.dev.k->has_fp8(t.dev.stream);
    tiny_close(&t);
    if (!has)
        skip();
    train(plain, false);
    train(fp8, true);
    train(again, true);
    assert_memory_equal(fp8, again, sizeof fp8);
    assert_true(fp8[STEPS - 1] < fp8[0]);
    for (int i = 0; i < STEPS; i++) {
        assert_true(fp8[i] != plain[i]); /* the flag does something */
        if (!(fabs(fp8[i] / plain[i] - 1) < 0.01))
            fail_msg("step %d: loss %.6f in fp8, %.6f without", i + 1, fp8[i], plain[i]);
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct tiny t;
    struct fc_trainer *trainer;
    struct fc_error err = {0};
    test_device = "cpu";
    tiny_open(&t, "tiny-llama", FC_F32);
    struct fc_trainer_options o = tiny_options(&t);
    o.fp8 = true;
    assert_int_equal(fc_trainer_create(&trainer, &t.model, &o, &err), FC_ERR_UNSUPPORTED);
    assert_null(trainer);
    assert_non_null(strstr(err.text, "--fp8"));
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_near),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
