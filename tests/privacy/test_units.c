/* Cutting and joining: round trips, odd bytes, and nothing private in the spacing. */
#include "privacy/units.h"

#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct fc_cutter *cutter;

/* The units of a text, each in brackets. */
static void show(const char *text, size_t len, struct fc_text *out)
{
    struct fc_units units = {0};
    fc_text_clear(out);
    fc_text_puts(out, "");
    assert_int_equal(fc_units_cut(cutter, text, len, &units, NULL), FC_OK);
    for (size_t i = 0; i < units.n; i++) {
        fc_text_puts(out, "<");
        fc_text_add(out, text + units.items[i].start, units.items[i].len);
        fc_text_puts(out, ">");
    }
    fc_units_free(&units);
}

static void check_units(const char *text, const char *expected)
{
    struct fc_text out = {0};
    show(text, strlen(text), &out);
    assert_string_equal(out.data, expected);
    fc_text_free(&out);
}

static void test_words_numbers_and_marks(void **state)
{
    (void)state;
    check_units("Where do you go?", "<Where><do><you><go><?>");
    check_units("Don't stop, mother-in-law!", "<Don't><stop><,><mother-in-law><!>");
    check_units("Janet\xE2\x80\x99s $2,000.50 (3rd).",
                "<Janet\xE2\x80\x99s><$><2,000.50><(><3rd><)><.>");
    check_units("x86 10am 3.14abc", "<x86><10am><3><.><14abc>");
    check_units("wait... what?!", "<wait><...><what><?><!>");
    check_units("fill ____ in", "<fill><____><in>");
    check_units("na\xC3\xAFve \xD0\x9C\xD0\xB8\xD1\x80 \xE4\xB8\xAD\xE6\x96\x87",
                "<na\xC3\xAFve><\xD0\x9C\xD0\xB8\xD1\x80><\xE4\xB8\xAD\xE6\x96\x87>");
    check_units("e\xCC\x81t\xC3\xA9 \xF0\x9F\x98\x80", "<e\xCC\x81t\xC3\xA9><\xF0\x9F\x98\x80>");
    check_units("a@b.com -5", "<a><@><b><.><com><-><5>");
    check_units("'quoted'", "<'><quoted><'>");
    check_units("", "");
    check_units(" \t\r\n\xC2\xA0\xE2\x80\x83", "");
}

/* Spacing, line breaks, control and format characters and broken bytes leave no trace. */
static void test_what_lies_between_is_dropped(void **state)
{
    (void)state;
    static const char *const same[] = {"one two, three",
                                       "one  two,three",
                                       "\n one\ttwo ,  three\r\n",
                                       "one\xFF two\x80, three",
                                       "one\x01two\x1b,\x7fthree",
                                       "one\xE2\x80\x8Btwo, \xEF\xBB\xBFthree",
                                       "one\xC3 two, three\xF0\x9F",
                                       "one\xED\xA0\x80two,three\xC0\xAF"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        check_units(same[i], "<one><two><,><three>");
    struct fc_text out = {0};
    show("one\0two", 7, &out);
    assert_string_equal(out.data, "<one><two>");
    fc_text_free(&out);
}

static void check_round_trip(const char *text)
{
    struct fc_units units = {0};
    struct fc_text out = {0};
    char words[64][64];
    const char *pointers[64];
    assert_int_equal(fc_units_cut(cutter, text, strlen(text), &units, NULL), FC_OK);
    assert_in_range(units.n, 1, 64);
    for (size_t i = 0; i < units.n; i++) {
        assert_true(units.items[i].len < 64);
        memcpy(words[i], text + units.items[i].start, units.items[i].len);
        words[i][units.items[i].len] = '\0';
        pointers[i] = words[i];
    }
    fc_units_join(pointers, units.n, &out);
    assert_string_equal(out.data, text);
    fc_text_free(&out);
    fc_units_free(&units);
}

static void test_usual_writing_comes_back(void **state)
{
    (void)state;
    check_round_trip("What do people aim to do at work?");
    check_round_trip("A revolving door is convenient, but also serves as security: where?");
    check_round_trip("She said \"I don't know\" (twice); it cost $2,000.50, or 15%!");
    check_round_trip("\"Yes\", he said, \"or no\".");
    check_round_trip("See item #3 [old]: wait...");
}

static void test_join_is_spacing_only(void **state)
{
    (void)state;
    struct fc_text out = {0};
    static const char *const words[] = {".", "(", ")", "\"", "\"", "$", "a", "'", "b"};
    fc_units_join(words, 9, &out);
    assert_string_equal(out.data, ". () \"\" $a ' b");
    fc_text_clear(&out);
    fc_units_join(words, 0, &out);
    assert_int_equal(out.len, 0);
    fc_text_free(&out);
}

/* Random bytes, made to hit UTF-8 leads often: units lie in order inside the text, hold valid
 * UTF-8 and no white space, and cutting a unit gives that unit. */
static void test_any_bytes(void **state)
{
    (void)state;
    static const unsigned char liked[] = {'a',  'Z',  '1',  ',',  '.',  '\'', '-',
                                          ' ',  '\n', 0,    0xC3, 0xA9, 0xE2, 0x80,
                                          0x99, 0xF0, 0x9F, 0x98, 0xCC, 0x81};
    struct fc_units units = {0}, again = {0};
    for (uint64_t round = 0; round < 3000; round++) {
        unsigned char text[97];
        size_t len = (size_t)(round % sizeof text);
        for (size_t i = 0; i < len; i++) {
            uint32_t w[4];
            fc_philox(7, round, i, w);
            text[i] = w[0] % 4 ? liked[w[1] % sizeof liked] : (unsigned char)w[2];
        }
        assert_int_equal(fc_units_cut(cutter, (char *)text, len, &units, NULL), FC_OK);
        size_t end = 0;
        for (size_t i = 0; i < units.n; i++) {
            struct fc_unit u = units.items[i];
            assert_true(u.len > 0 && u.start >= end && u.start + u.len <= len);
            end = u.start + u.len;
            assert_null(memchr(text + u.start, ' ', u.len));
            assert_null(memchr(text + u.start, '\n', u.len));
            assert_null(memchr(text + u.start, 0, u.len));
            const char *alone = (char *)text + u.start;
            assert_int_equal(fc_units_cut(cutter, alone, u.len, &again, NULL), FC_OK);
            assert_int_equal(again.n, 1);
            assert_int_equal(again.items[0].len, u.len);
        }
    }
    fc_units_free(&units);
    fc_units_free(&again);
}

/* A megabyte without a blank, of each kind of repetition in the pattern. */
static void test_huge_units(void **state)
{
    (void)state;
    static const struct {
        const char *part;
        size_t most; /* units: runs of more than 32 parts are cut */
    } parts[] = {{"a", 1},       {"a-", 1 << 15},  {"1,", 1 << 15},
                 {"!", 1 << 15}, {"e\xCC\x81", 1}, {"\xFF", 0}};
    struct fc_units units = {0};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        struct fc_text text = {0};
        while (text.len < 1 << 20)
            fc_text_puts(&text, parts[i].part);
        struct fc_error err = {0};
        assert_int_equal(fc_units_cut(cutter, text.data, text.len, &units, &err), FC_OK);
        assert_in_range(units.n, parts[i].most > 0, parts[i].most + 1);
        fc_text_free(&text);
    }
    struct fc_error err = {0};
    assert_int_equal(fc_units_cut(cutter, "", FC_MAX_PRIVATE_TEXT + 1, &units, &err), FC_ERR_INPUT);
    fc_units_free(&units);
}

static int open_cutter(void **state)
{
    (void)state;
    return fc_cutter_open(&cutter, NULL) == FC_OK ? 0 : -1;
}

static int close_cutter(void **state)
{
    (void)state;
    fc_cutter_close(cutter);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_numbers_and_marks),
        cmocka_unit_test(test_what_lies_between_is_dropped),
        cmocka_unit_test(test_usual_writing_comes_back),
        cmocka_unit_test(test_join_is_spacing_only),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_huge_units),
    };
    return cmocka_run_group_tests(tests, open_cutter, close_cutter);
}
