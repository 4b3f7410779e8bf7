/* Keys and lists of clients for the tests of encrypted sessions. */
#ifndef FC_TESTS_NET_KEYS_H
#define FC_TESTS_NET_KEYS_H

#include "net/allow_list.h"
#include "net/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static inline struct fc_key_pair *make_key(void)
{
    struct fc_key_pair *pair = NULL;
    struct fc_error err = {0};
    assert_int_equal(fc_key_pair_make(&pair, &err), FC_OK);
    return pair;
}

/* A folder of this test, removed by remove_folder. */
static inline void make_folder(char *path, size_t size)
{
    const char *base = getenv("TMPDIR");
    snprintf(path, size, "%s/fedcot-keys-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(path));
}

static inline void remove_folder(const char *path)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static inline void write_text(const char *path, const char *text, size_t len, mode_t mode)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* One line for each of n pairs: named client-0 ..., the bounds of each its own. NULL: left out. */
static inline void write_list(const char *path, struct fc_key_pair *const *pairs, size_t n)
{
    char text[8192] = "# clients\n\n", key[FC_KEY_TEXT_SIZE];
    size_t len = strlen(text);
    for (size_t i = 0; i < n; i++) {
        if (!pairs[i])
            continue;
        fc_key_text(key, pairs[i]->public_key);
        len += (size_t)snprintf(text + len, sizeof text - len,
                                "%s client-%zu tokens-per-day=%zu rate=%zu.5\n", key, i,
                                1000000 + i, 1000 + i);
        assert_true(len < sizeof text);
    }
    write_text(path, text, len, 0600);
}

#endif
