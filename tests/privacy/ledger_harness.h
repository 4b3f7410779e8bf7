/* A ledger in a folder of its own, and short ways to charge it. For tests/privacy/test_ledger*.c;
 * what a test does not need of it is unused. */
#ifndef FC_TESTS_PRIVACY_LEDGER_HARNESS_H
#define FC_TESTS_PRIVACY_LEDGER_HARNESS_H

#include "base/file.h"
#include "privacy/ledger.h"
#include "tests/privacy/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char folder[64], path[128], key[128], head[128];
static const unsigned char mechanism[32] = "one", other_mechanism[32] = "two";
static const struct fc_budget unlimited = {0, 0};

static inline struct fc_profile profile_of(double epsilon)
{
    struct fc_profile p;
    assert_int_equal(fc_profile_two_level(&p, 100, 5, epsilon, NULL), FC_OK);
    return p;
}

static inline struct fc_ledger *open_ledger(struct fc_budget budget)
{
    struct fc_ledger *l = NULL;
    struct fc_error err = {0};
    if (fc_ledger_open(&l, path, budget, &err) != FC_OK)
        fail_msg("%s", err.text);
    return l;
}

static inline enum fc_code try_open(struct fc_budget budget, struct fc_error *err)
{
    struct fc_ledger *l = NULL;
    *err = (struct fc_error){0};
    enum fc_code code = fc_ledger_open(&l, path, budget, err);
    fc_ledger_close(l);
    return code;
}

/* Charges one text of `draws` units, named by id, with the raw text "raw" + id. */
static inline enum fc_code charge(struct fc_ledger *l, double epsilon, const char *id,
                                  uint64_t draws, const char *text, struct fc_error *err)
{
    struct fc_profile p = profile_of(epsilon);
    struct fc_ledger_entry e = {.draws = draws, .text = text, .len = strlen(text)};
    *err = (struct fc_error){0};
    fc_ledger_tag(l, id, "raw text", 8, mechanism, &e.tag);
    return fc_ledger_charge(l, &p, mechanism, &e, 1, err);
}

static inline const struct fc_ledger_entry *find(const struct fc_ledger *l, const char *id)
{
    struct fc_tag tag;
    fc_ledger_tag(l, id, "raw text", 8, mechanism, &tag);
    return fc_ledger_find(l, &tag);
}

/* Replaces a file without the syncs of fc_file_write: there are many of these. */
static inline void put(const char *name, const char *bytes, size_t len)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static inline void put_key(const char *bytes)
{
    put(key, bytes, 32);
    assert_int_equal(chmod(key, 0600), 0);
}

static inline int make_folder(void **state)
{
    (void)state;
    if (!scratch_make(folder))
        return -1;
    scratch_path(path, folder, "ledger");
    scratch_path(key, folder, "ledger.key");
    scratch_path(head, folder, "head");
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"ledger", "ledger.key", "head"};
    scratch_remove(folder, names, 3);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

#endif
