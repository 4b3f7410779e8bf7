/* The output vocabulary: public, distinct units, found in any case; independent of private data. */
#include "privacy/vocabulary.h"

#include "privacy/units.h"
#include "privacy/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int32_t find(const struct fc_vocabulary *v, const char *unit)
{
    return fc_vocabulary_find(v, unit, strlen(unit));
}

static void test_default_vocabulary(void **state)
{
    (void)state;
    struct fc_vocabulary *v = NULL, *same = NULL, *smaller = NULL;
    struct fc_error err = {0};
    if (fc_vocabulary_open(&v, NULL, 0, &err) != FC_OK) /* also checks every entry as one unit */
        fail_msg("%s", err.text);
    size_t n = fc_vocabulary_size(v);
    printf("%zu outputs\n", n);
    assert_in_range(n, 4000, 11000);
    for (size_t i = 0; i < n; i++) {
        const char *entry = fc_vocabulary_entry(v, i);
        assert_int_equal(find(v, entry), (int32_t)i);
        for (const char *c = entry; *c; c++)
            assert_in_range(*c, '!', '~');
    }
    static const char *const there[] = {"the", "doctor", "I",     "7",     "100",  "1000000",
                                        "?",   "...",    "don't", "Paris", "where"};
    for (size_t i = 0; i < sizeof there / sizeof there[0]; i++)
        assert_true(find(v, there[i]) >= 0);
    assert_int_equal(find(v, "Where"), find(v, "where"));
    assert_int_equal(find(v, "DON\xE2\x80\x99T"), find(v, "don't"));
    assert_int_equal(find(v, "i"), -1); /* "I" is upper case only */
    assert_int_equal(find(v, "zyzzyva"), -1);
    assert_int_equal(find(v, ""), -1);
    assert_int_equal(fc_vocabulary_find(v, "the\0n", 5), -1);
    char longer[200];
    memset(longer, 'a', sizeof longer);
    assert_int_equal(fc_vocabulary_find(v, longer, sizeof longer), -1);

    unsigned char a[32], b[32];
    assert_int_equal(fc_vocabulary_open(&same, NULL, FC_DEFAULT_WORDS, NULL), FC_OK);
    assert_int_equal(fc_vocabulary_open(&smaller, NULL, 4000, NULL), FC_OK);
    fc_vocabulary_hash(v, a);
    fc_vocabulary_hash(same, b);
    assert_memory_equal(a, b, 32);
    fc_vocabulary_hash(smaller, b);
    assert_memory_not_equal(a, b, 32);
    fc_vocabulary_close(v);
    fc_vocabulary_close(same);
    fc_vocabulary_close(smaller);
    assert_int_equal(fc_vocabulary_open(&v, NULL, fc_n_words, NULL), FC_OK);
    fc_vocabulary_close(v);
    assert_int_equal(fc_vocabulary_open(&v, NULL, fc_n_words + 1, &err), FC_ERR_USAGE);
}

static void test_entries_must_be_distinct_units(void **state)
{
    (void)state;
    static const char *const twice[] = {"a", "b", "a"}, *const two[] = {"a", "b c"},
                             *const blank[] = {"a", " b"}, *const none[] = {"a", ""},
                             *const broken[] = {"a", "b\xFF"}, *const one[] = {"a"},
                             *const mark[] = {"a", "b."},
                             *const good[] = {"\xC3\xA9t\xC3\xA9", "b"};
    struct fc_vocabulary *v = NULL;
    assert_int_equal(fc_vocabulary_make(&v, twice, 3, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_vocabulary_make(&v, two, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_vocabulary_make(&v, blank, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_vocabulary_make(&v, none, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_vocabulary_make(&v, broken, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_vocabulary_make(&v, one, 1, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_vocabulary_make(&v, mark, 2, NULL), FC_ERR_USAGE);
    assert_int_equal(fc_vocabulary_make(&v, good, 2, NULL), FC_OK);
    assert_int_equal(find(v, "\xC3\xA9t\xC3\xA9"), 0);
    fc_vocabulary_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_vocabulary),
        cmocka_unit_test(test_entries_must_be_distinct_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
