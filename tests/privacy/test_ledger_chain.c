/* The chain of the ledger's records, its head, its place and its older version: what was changed,
 * put back or copied is refused. */
#define _GNU_SOURCE
#include "tests/privacy/ledger_harness.h"

/* Three charges as bytes, and where each line begins. */
static char *three_charges(size_t starts[8], size_t *n, size_t *len)
{
    struct fc_error err;
    struct fc_ledger *l = open_ledger(unlimited);
    for (int i = 0; i < 3; i++) {
        char id[8];
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(charge(l, 2, id, 3, "same", &err), FC_OK);
    }
    fc_ledger_close(l);
    char *bytes;
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, len, NULL), FC_OK);
    *n = 0;
    for (size_t at = 0; at < *len; at = (size_t)(strchr(bytes + at, '\n') - bytes) + 1) {
        assert_true(*n < 7);
        starts[(*n)++] = at;
    }
    starts[*n] = *len;
    return bytes;
}

/* Lines that are whole each for itself: left out, changed in their order, said twice. */
static void test_lines_are_chained(void **state)
{
    (void)state;
    struct fc_error err;
    size_t starts[8], n, len;
    char *bytes = three_charges(starts, &n, &len), *other = malloc(2 * len);
    assert_non_null(other);
    for (size_t i = 0; i + 1 < n; i++) { /* without line i; without the last is the next test's */
        size_t size = starts[i + 1] - starts[i];
        memcpy(other, bytes, starts[i]);
        memcpy(other + starts[i], bytes + starts[i + 1], len - starts[i + 1]);
        put(path, other, len - size);
        assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
        memcpy(other, bytes, starts[i + 1]); /* line i twice */
        memcpy(other + starts[i + 1], bytes + starts[i], len - starts[i]);
        put(path, other, len + size);
        assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    }
    size_t a = starts[n - 2], b = starts[n - 1]; /* the last two exchanged */
    memcpy(other, bytes, a);
    memcpy(other + a, bytes + b, len - b);
    memcpy(other + a + (len - b), bytes + a, b - a);
    put(path, other, len);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "checksum"));
    put(path, bytes, len);
    assert_int_equal(try_open(unlimited, &err), FC_OK);
    free(other);
    free(bytes);
}

static enum fc_code try_head(struct fc_error *err)
{
    struct fc_ledger *l = open_ledger(unlimited);
    *err = (struct fc_error){0};
    enum fc_code code = fc_ledger_keep_head(l, head, err);
    fc_ledger_close(l);
    return code;
}

/* A ledger put back into its own file, as it was before the last charge. */
static void test_rolled_back(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_ledger *l = open_ledger(unlimited);
    assert_int_equal(fc_ledger_keep_head(l, head, &err), FC_OK);
    assert_int_equal(charge(l, 2, "a", 3, "a", &err), FC_OK);
    fc_ledger_close(l);
    char *old, *other;
    size_t n_old, n_other;
    assert_int_equal(fc_file_read(path, 1 << 20, &old, &n_old, NULL), FC_OK);
    assert_int_equal(fc_file_read(head, 1 << 20, &other, &n_other, NULL), FC_OK);
    l = open_ledger(unlimited);
    assert_int_equal(fc_ledger_keep_head(l, head, &err), FC_OK);
    assert_int_equal(charge(l, 2, "b", 3, "b", &err), FC_OK);
    fc_ledger_close(l);
    assert_int_equal(try_head(&err), FC_OK);
    put(path, old, n_old);
    assert_int_equal(try_head(&err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "an old copy was put back"));
    /* and spent again, up to the same number of records */
    l = open_ledger(unlimited);
    assert_int_equal(charge(l, 2, "c", 3, "c", &err), FC_OK);
    fc_ledger_close(l);
    assert_int_equal(try_head(&err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "two copies"));
    err = (struct fc_error){0};
    assert_int_equal(fc_ledger_moved(path, head, &err), FC_OK);
    assert_int_equal(try_head(&err), FC_OK);
    /* a head that is behind is fine: a job died between the two, or another job used the ledger */
    put(head, other, n_other);
    assert_int_equal(try_head(&err), FC_OK);
    put(head, "{", 1);
    assert_int_equal(try_head(&err), FC_ERR_INPUT);
    /* another ledger altogether */
    put(head, other, n_other);
    unlink(path);
    unlink(key);
    assert_int_equal(try_head(&err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "the head of another ledger"));
    free(old);
    free(other);
}

/* The same bytes in another file are a copy, until that is said to be meant. */
static void test_copied(void **state)
{
    (void)state;
    struct fc_error err = {0};
    size_t starts[8], n, len;
    char *bytes = three_charges(starts, &n, &len), aside[160];
    snprintf(aside, sizeof aside, "%s.aside", path);
    put(aside, bytes, len);
    assert_int_equal(rename(aside, path), 0);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "--moved"));
    struct fc_ledger *l = NULL;
    struct fc_ledger_facts facts;
    err = (struct fc_error){0};
    assert_int_equal(fc_ledger_look(&l, path, &err), FC_OK); /* may be looked at */
    fc_ledger_facts(l, &facts);
    assert_false(facts.in_place);
    assert_int_equal(facts.documents, 3);
    assert_int_equal(facts.records, n);
    assert_int_equal(charge(l, 2, "z", 1, "z", &err), FC_ERR_INTERNAL); /* not more */
    fc_ledger_close(l);
    err = (struct fc_error){0};
    assert_int_equal(fc_ledger_moved(path, NULL, &err), FC_OK);
    l = open_ledger(unlimited);
    assert_int_equal(fc_ledger_entries(l), 3);
    fc_ledger_facts(l, &facts);
    assert_true(facts.in_place);
    assert_int_equal(facts.records, n + 1);
    fc_ledger_close(l);
    free(bytes);
}

/* Blocks of a last line that were never written read as zeros: dropped like a line without end. */
static void test_unwritten_blocks(void **state)
{
    (void)state;
    struct fc_error err;
    size_t starts[8], n, len;
    char *bytes = three_charges(starts, &n, &len);
    memset(bytes + starts[n - 1] + 80, 0, 20);
    put(path, bytes, len);
    struct fc_ledger *l = open_ledger(unlimited);
    assert_int_equal(fc_ledger_entries(l), 2);
    assert_int_equal(charge(l, 2, "next", 1, "more", &err), FC_OK);
    fc_ledger_close(l);
    assert_int_equal(try_open(unlimited, &err), FC_OK);
    memset(bytes + starts[n - 2] + 80, 0, 20); /* but not before a line that was acknowledged */
    put(path, bytes, len);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    free(bytes);
}

/* A line of version 1: its checksum is of the JSON alone. */
static size_t old_line(char *out, size_t room, const char *json)
{
    unsigned char hash[16];
    char hex[33];
    crypto_generichash(hash, sizeof hash, (const unsigned char *)json, strlen(json), NULL, 0);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    return (size_t)snprintf(out, room, "%s %s\n", hex, json);
}

static void test_version_1_is_upgraded(void **state)
{
    (void)state;
    static const char secret[] = "0123456789abcdef0123456789abcdef";
    struct fc_error err = {0};
    unsigned char id[32];
    char hex[65], json[512], file[4096];
    struct fc_tag tag;
    size_t len = 0;
    put_key(secret);
    crypto_generichash(id, sizeof id, (const unsigned char *)secret, 32, NULL, 0);
    sodium_bin2hex(hex, sizeof hex, id, sizeof id);
    snprintf(json, sizeof json, "{\"kind\":\"ledger\",\"version\":1,\"key\":\"%s\"}", hex);
    len += old_line(file + len, sizeof file - len, json);
    len +=
        old_line(file + len, sizeof file - len, "{\"kind\":\"budget\",\"epsilon\":0,\"delta\":0}");
    sodium_bin2hex(hex, sizeof hex, mechanism, 32);
    snprintf(json, sizeof json,
             "{\"kind\":\"mechanism\",\"mechanism\":\"%s\",\"levels\":[\"5 x 7\",\"95 x 1\"]}",
             hex);
    len += old_line(file + len, sizeof file - len, json);
    size_t before = len;
    put(path, file, len);
    struct fc_ledger *l = NULL;
    struct fc_ledger_facts facts;
    assert_int_equal(fc_ledger_look(&l, path, &err), FC_OK);
    fc_ledger_facts(l, &facts);
    assert_int_equal(facts.version, 1);
    fc_ledger_tag(l, "a", "raw text", 8, mechanism, &tag);
    fc_ledger_close(l);
    char tag_hex[65];
    sodium_bin2hex(tag_hex, sizeof tag_hex, tag.bytes, 32);
    snprintf(json, sizeof json,
             "{\"kind\":\"charge\",\"mechanism\":\"%s\",\"items\":[{\"tag\":\"%s\",\"draws\":4,"
             "\"text\":\"four old words here\"}]}",
             hex, tag_hex);
    len += old_line(file + len, sizeof file - len, json);
    put(path, file, len);
    l = open_ledger(unlimited);
    assert_string_equal(find(l, "a")->text, "four old words here");
    fc_ledger_facts(l, &facts);
    assert_int_equal(facts.version, 2);
    assert_int_equal(charge(l, 2, "b", 1, "new", &err), FC_OK);
    fc_ledger_close(l);
    l = open_ledger(unlimited);
    assert_int_equal(fc_ledger_entries(l), 2);
    fc_ledger_close(l);
    /* now the old lines are in the chain: one that is exchanged for another sound one is seen */
    char *bytes;
    size_t n;
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, &n, NULL), FC_OK);
    char *charged = strstr(bytes, "\"draws\":4");
    assert_non_null(charged);
    json[strstr(json, "\"draws\":4") - json + 8] = '1';
    char line[600];
    size_t size = old_line(line, sizeof line, json);
    memcpy(bytes + len - size, line, size);
    assert_true(before + size == len);
    put(path, bytes, n);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    free(bytes);
    /* nor may a line of version 1 follow */
    put(path, file, len);
    assert_int_equal(try_open(unlimited, &err), FC_OK);
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, &n, NULL), FC_OK);
    char *longer = malloc(n + size);
    assert_non_null(longer);
    memcpy(longer, bytes, n);
    memcpy(longer + n, line, size);
    put(path, longer, n + size);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    free(longer);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lines_are_chained), TEST(test_rolled_back),           TEST(test_copied),
        TEST(test_unwritten_blocks),  TEST(test_version_1_is_upgraded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
