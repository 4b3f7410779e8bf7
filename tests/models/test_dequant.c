/* Weight formats expand to the same bits as in the PyPI package `gguf`. */
#define _GNU_SOURCE
#include "tests/models/files.h"

#include "base/dequant.h"
#include "models/safetensors.h"

#include <math.h>

static void equals_gguf_package(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_safetensors *golden;
    const struct fc_weight_format *format;
    if (fc_safetensors_open(&golden, golden_path("dequant.safetensors"), &err) != FC_OK)
        fail_msg("%s", err.text);
    size_t n_formats = 0;
    for (; (format = fc_weight_format_at(n_formats)); n_formats++) {
        char name[32];
        snprintf(name, sizeof name, "%s.blocks", format->name);
        const struct fc_safetensor *blocks = fc_safetensors_find(golden, name);
        snprintf(name, sizeof name, "%s.values", format->name);
        const struct fc_safetensor *values = fc_safetensors_find(golden, name);
        assert_non_null(blocks);
        assert_non_null(values);
        size_t n = blocks->bytes / format->bytes;
        assert_int_equal(values->bytes, n * format->block * sizeof(float));
        float *out = fc_alloc(n * format->block + 1, sizeof *out, "values", &err);
        out[n * format->block] = 12345;
        format->expand(out, blocks->data, n);
        for (size_t i = 0; i < n * format->block; i++)
            if (memcmp(&out[i], values->data + 4 * i, 4) != 0)
                fail_msg("%s: element %zu is %a", format->name, i, (double)out[i]);
        assert_true(out[n * format->block] == 12345);
        free(out);
    }
    assert_int_equal(n_formats, 13);
    fc_safetensors_close(golden);
}

/* Every half: sign, exponent and mantissa put together by ldexp. */
static void halves(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        int exponent = h >> 10 & 31, mantissa = h & 1023;
        double magnitude = exponent == 0    ? ldexp(mantissa, -24)
                           : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                            : ldexp(1024 + mantissa, exponent - 25);
        float f = fc_f16_to_f32((uint16_t)h);
        if (isnan(magnitude)) {
            assert_true(isnan(f));
        } else {
            assert_true((double)fabsf(f) == magnitude);
            assert_int_equal(signbit(f) != 0, h >> 15);
        }
    }
}

static void lookups(void **state)
{
    (void)state;
    const struct fc_weight_format *format;
    for (size_t i = 0; (format = fc_weight_format_at(i)); i++) {
        assert_ptr_equal(fc_weight_format(format->type), format);
        assert_ptr_equal(fc_weight_format_by_name(format->name), format);
        assert_true(format->block <= FC_MAX_BLOCK);
    }
    assert_null(fc_weight_format(4)); /* a type that GGUF has withdrawn */
    assert_null(fc_weight_format(UINT32_MAX));
    assert_null(fc_weight_format_by_name("F64"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_gguf_package),
                                       cmocka_unit_test(halves), cmocka_unit_test(lookups)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
