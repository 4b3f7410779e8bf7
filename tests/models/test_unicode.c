/* UTF-8 as Python decodes it, and NFC as Python's unicodedata makes it, for every code point. */
#include "models/unicode.h"

#include "tests/models/lines.h"
#include "tests/models/tokenizer_files.h"

#include <inttypes.h>

static void check_repair(const char *bytes, size_t n, const char *expected)
{
    struct fc_text out = {0};
    fc_utf8_repair(bytes, n, &out);
    assert_int_equal(fc_utf8_valid(bytes, n), out.len == n && memcmp(out.data, bytes, n) == 0);
    assert_string_equal(out.data, expected);
    fc_text_free(&out);
}

/* bytes.decode("utf-8", "replace") */
static void repair(void **state)
{
    (void)state;
    check_repair("abc", 3, "abc");
    check_repair("", 0, "");
    check_repair("a\x80z", 3, "a" FC_REPLACEMENT "z");
    check_repair("\xC3\xA9", 2, "\xC3\xA9");
    check_repair("\xC3", 1, FC_REPLACEMENT);
    check_repair("\xC0\x80", 2, FC_REPLACEMENT FC_REPLACEMENT);
    check_repair("\xC1\xBF", 2, FC_REPLACEMENT FC_REPLACEMENT);
    check_repair("\xE4\xB8", 2, FC_REPLACEMENT);
    check_repair("\xE4\xB8z", 3, FC_REPLACEMENT "z");
    check_repair("\xE0\x80\x80", 3, FC_REPLACEMENT FC_REPLACEMENT FC_REPLACEMENT);
    check_repair("\xED\xA0\x80", 3, FC_REPLACEMENT FC_REPLACEMENT FC_REPLACEMENT);
    check_repair("\xF0\x9F\x98\x80", 4, "\xF0\x9F\x98\x80");
    check_repair("\xF0\x9F\x98", 3, FC_REPLACEMENT);
    check_repair("\xF0\x80\x80\x80", 4,
                 FC_REPLACEMENT FC_REPLACEMENT FC_REPLACEMENT FC_REPLACEMENT);
    check_repair("\xF4\x90\x80\x80", 4,
                 FC_REPLACEMENT FC_REPLACEMENT FC_REPLACEMENT FC_REPLACEMENT);
    check_repair("\xF8\xFF", 2, FC_REPLACEMENT FC_REPLACEMENT);
    check_repair("\xE4\xE4\xB8\x80", 4, FC_REPLACEMENT "\xE4\xB8\x80");
}

static void every_code_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char utf8[4];
        uint32_t back;
        size_t n = fc_utf8_encode(c, utf8);
        if (c >= 0xD800 && c < 0xE000) {
            fc_utf8_decode(utf8, n, &back);
            assert_int_equal(back, FC_UTF8_BAD);
        } else {
            assert_int_equal(fc_utf8_decode(utf8, n, &back), n);
            assert_int_equal(back, c);
        }
    }
}

static uint64_t hash_nfc(const uint32_t *cps, size_t n, uint64_t h)
{
    struct fc_text in = {0}, out = {0};
    for (size_t i = 0; i < n; i++) {
        char utf8[4];
        fc_text_add(&in, utf8, fc_utf8_encode(cps[i], utf8));
    }
    assert_int_equal(fc_nfc(in.data, in.len, &out, NULL), FC_OK);
    h = fnv(out.data, out.len, h);
    fc_text_free(&in);
    fc_text_free(&out);
    return fnv("\xff", 1, h);
}

static void nfc(void **state)
{
    (void)state;
    cJSON *golden = read_golden("tokenizer_nfc.json");
    const cJSON *block = cJSON_GetObjectItem(golden, "blocks")->child;
    for (uint32_t first = 0; first < 0x110000; first += 4096, block = block->next) {
        uint64_t h = FNV_SEED;
        for (uint32_t c = first ? first : 1; c < first + 4096; c++) {
            if (c >= 0xD800 && c < 0xE000)
                continue;
            h = hash_nfc((uint32_t[]){c}, 1, h);
            h = hash_nfc((uint32_t[]){'A', c}, 2, h);
            h = hash_nfc((uint32_t[]){c, 0x301}, 2, h);
            h = hash_nfc((uint32_t[]){'a', 0x323, c, 0x307}, 4, h);
        }
        char hex[20];
        snprintf(hex, sizeof hex, "%016" PRIx64, h);
        if (strcmp(hex, block->valuestring) != 0)
            fail_msg("code points from U+%04X", (unsigned)first);
    }
    assert_null(block);
    cJSON_Delete(golden);
}

/* A megabyte of marks on one letter: ordered, and not in quadratic time. */
static void endless_marks(void **state)
{
    (void)state;
    enum { N = 300000 };
    struct fc_text in = {0}, out = {0};
    fc_text_puts(&in, "q");
    for (int i = 0; i < N; i++)
        fc_text_puts(&in, i % 2 ? "\xCC\xA3" : "\xCC\x87"); /* U+0323 below, U+0307 above */
    assert_int_equal(fc_nfc(in.data, in.len, &out, NULL), FC_OK);
    assert_int_equal(out.len, in.len);
    assert_memory_equal(out.data + 1, "\xCC\xA3", 2);
    assert_memory_equal(out.data + 1 + N, "\xCC\x87", 2);
    fc_text_free(&in);
    fc_text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repair),
        cmocka_unit_test(every_code_point),
        cmocka_unit_test(nfc),
        cmocka_unit_test(endless_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
