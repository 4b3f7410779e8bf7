/* Devices: which names open, what `auto` takes and says, what a device that is not there is told,
 * fp16 where it is not computed, and the text of an error of memory. */
#include "engine/model.h"

#include "tests/engine/toy.h"

static bool has_cuda(struct fc_error *why)
{
    struct fc_device_entry list[8];
    size_t n = fc_device_list(list, 8, why);
    assert_true(n > 0);
    assert_string_equal(list[n - 1].name, "cpu");
    assert_true(strlen(list[n - 1].text) > 0);
    return n > 1;
}

static void test_wrong_names(void **state)
{
    (void)state;
    const char *const names[] = {"",        "gpu",     "cuda:",   "cuda:x",      "cuda:-1",
                                 "cuda:1x", "cpu:0",   "CUDA:0",  "cuda:999999", "auto:0",
                                 "cuda 0",  "cuda:0x", "cudacuda"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct fc_device dev;
        struct fc_error err = {0};
        assert_int_equal(fc_device_open(&dev, names[i], 1, &err), FC_ERR_USAGE);
        assert_non_null(strstr(err.text, "expected cpu, cuda, cuda:N"));
        assert_null(dev.stream);
        fc_device_close(&dev);
    }
}

static void test_auto(void **state)
{
    (void)state;
    struct fc_device dev;
    struct fc_error reason = {0};
    bool cuda = has_cuda(&reason);
    must(fc_device_open(&dev, "auto", 1, why));
    if (cuda) {
        assert_string_equal(dev.name, "cuda:0");
        assert_string_equal(dev.note, "");
    } else { /* never an error: the CPU, and the reason */
        assert_string_equal(dev.name, "cpu");
        assert_string_equal(dev.note, reason.text);
        assert_true(strlen(dev.note) > 0);
    }
    fc_device_close(&dev);
}

static void test_missing(void **state)
{
    (void)state;
    struct fc_device dev;
    struct fc_error reason = {0}, err = {0};
    bool cuda = has_cuda(&reason);
    assert_int_equal(fc_device_open(&dev, "cuda:1023", 1, &err), FC_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, cuda ? "counted from 0" : "CUDA"));
    assert_non_null(strstr(err.text, "cpu")); /* what to do instead */
    err = (struct fc_error){0};
    assert_int_equal(fc_device_open(&dev, "cuda", 1, &err), cuda ? FC_OK : FC_ERR_UNSUPPORTED);
    fc_device_close(&dev);
}

static void test_fp16_on_cpu(void **state)
{
    (void)state;
    struct toy t;
    toy_random(&t, FC_F32, false, 1);
    struct fc_model_config c = t.model.config;
    toy_close(&t);
    struct fc_error err = {0};
    must(fc_device_open(&t.dev, "cpu", 1, why));
    assert_int_equal(fc_model_create(&t.model, &t.dev, &c, FC_F16, 0, &err), FC_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "--device cuda"));
    toy_close(&t);
}

static void check_out_of_memory(const char *name)
{
    struct fc_device dev;
    struct fc_error err = {0};
    must(fc_device_open(&dev, name, 1, why));
    void *held = fc_device_alloc(&dev, 3 << 20, FC_MEM_WEIGHTS, &err);
    assert_non_null(held);
    assert_null(fc_device_alloc(&dev, (size_t)1 << 60, FC_MEM_CACHE, &err));
    assert_int_equal(err.code, FC_ERR_MEMORY);
    const char *const parts[] = {"KV cache", "weights 3 MiB", "--cache-tokens"};
    for (size_t i = 0; i < 3; i++)
        if (!strstr(err.text, parts[i]))
            fail_msg("no \"%s\" in: %s", parts[i], err.text);
    assert_int_equal(dev.used[FC_MEM_CACHE], 0);
    /* The device goes on. */
    struct fc_error none = {0};
    dev.k->zero(dev.stream, held, 3 << 20);
    assert_int_equal(dev.k->sync(dev.stream, &none), FC_OK);
    fc_device_free(&dev, held, 3 << 20, FC_MEM_WEIGHTS);
    fc_device_close(&dev);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct fc_error reason = {0};
    check_out_of_memory("cpu");
    if (has_cuda(&reason))
        check_out_of_memory("cuda:0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_names),   cmocka_unit_test(test_auto),
        cmocka_unit_test(test_missing),       cmocka_unit_test(test_fp16_on_cpu),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("engine/device", tests, NULL, NULL);
}
