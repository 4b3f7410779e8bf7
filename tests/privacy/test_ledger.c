/* The ledger: what is charged stays charged, what is stored is found, damage is refused. */
#define _GNU_SOURCE
#include "privacy/ledger.h"

#include "base/file.h"
#include "tests/privacy/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char folder[64], path[128], key[128], head[128];
static const unsigned char mechanism[32] = "one", other_mechanism[32] = "two";
static const struct fc_budget unlimited = {0, 0};

static struct fc_profile profile_of(double epsilon)
{
    struct fc_profile p;
    assert_int_equal(fc_profile_two_level(&p, 100, 5, epsilon, NULL), FC_OK);
    return p;
}

static struct fc_ledger *open_ledger(struct fc_budget budget)
{
    struct fc_ledger *l = NULL;
    struct fc_error err = {0};
    if (fc_ledger_open(&l, path, budget, &err) != FC_OK)
        fail_msg("%s", err.text);
    return l;
}

static enum fc_code try_open(struct fc_budget budget, struct fc_error *err)
{
    struct fc_ledger *l = NULL;
    *err = (struct fc_error){0};
    enum fc_code code = fc_ledger_open(&l, path, budget, err);
    fc_ledger_close(l);
    return code;
}

/* Charges one text of `draws` units, named by id, with the raw text "raw" + id. */
static enum fc_code charge(struct fc_ledger *l, double epsilon, const char *id, uint64_t draws,
                           const char *text, struct fc_error *err)
{
    struct fc_profile p = profile_of(epsilon);
    struct fc_ledger_entry e = {.draws = draws, .text = text, .len = strlen(text)};
    *err = (struct fc_error){0};
    fc_ledger_tag(l, id, "raw text", 8, mechanism, &e.tag);
    return fc_ledger_charge(l, &p, mechanism, &e, 1, err);
}

static const struct fc_ledger_entry *find(const struct fc_ledger *l, const char *id)
{
    struct fc_tag tag;
    fc_ledger_tag(l, id, "raw text", 8, mechanism, &tag);
    return fc_ledger_find(l, &tag);
}

/* Replaces a file without the syncs of fc_file_write: there are many of these. */
static void put(const char *name, const char *bytes, size_t len)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void put_key(const char *bytes)
{
    put(key, bytes, 32);
    assert_int_equal(chmod(key, 0600), 0);
}

static void test_stored_text_is_found_again(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_ledger *l = open_ledger(unlimited);
    assert_null(find(l, "a"));
    assert_int_equal(charge(l, 2, "a", 7, "some words \"out\" \xC3\xA9\n", &err), FC_OK);
    assert_int_equal(charge(l, 2, "empty", 0, "", &err), FC_OK);
    for (int i = 0; i < 100; i++) {
        char id[16], text[32];
        snprintf(id, sizeof id, "n%d", i);
        snprintf(text, sizeof text, "text %d", i);
        assert_int_equal(charge(l, 2, id, 1, text, &err), FC_OK);
    }
    for (int again = 0; again < 2; again++) {
        assert_int_equal(fc_ledger_entries(l), 102);
        const struct fc_ledger_entry *e = find(l, "a");
        assert_non_null(e);
        assert_string_equal(e->text, "some words \"out\" \xC3\xA9\n");
        assert_int_equal(e->draws, 7);
        assert_string_equal(find(l, "n99")->text, "text 99");
        assert_string_equal(find(l, "empty")->text, "");
        assert_null(find(l, "b"));
        struct fc_tag tag; /* another text or mechanism under the same id is another thing */
        fc_ledger_tag(l, "a", "raw texT", 8, mechanism, &tag);
        assert_null(fc_ledger_find(l, &tag));
        fc_ledger_tag(l, "a", "raw text", 8, other_mechanism, &tag);
        assert_null(fc_ledger_find(l, &tag));
        struct fc_spent spent;
        fc_ledger_spent(l, &spent);
        assert_int_equal(spent.draws, 107);
        assert_true(spent.pure <= 107 * 2.0 && spent.pure > 106.99 * 2);
        fc_ledger_close(l);
        l = open_ledger(unlimited);
    }
    fc_ledger_close(l);
}

static void test_overrun_is_refused(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_ledger *l = open_ledger((struct fc_budget){20, 0});
    struct fc_profile p = profile_of(2);
    assert_int_equal(fc_ledger_afford(l, &p, 10, &err), FC_OK);
    err = (struct fc_error){0};
    assert_int_equal(fc_ledger_afford(l, &p, 11, &err), FC_ERR_BUDGET);
    assert_non_null(strstr(err.text, "22.00"));
    assert_int_equal(charge(l, 2, "a", 4, "four", &err), FC_OK);
    assert_int_equal(charge(l, 2, "b", 7, "seven", &err), FC_ERR_BUDGET);
    assert_null(find(l, "b"));
    for (int i = 0; i < 6; i++) { /* exactly to the limit */
        char id[8];
        snprintf(id, sizeof id, "c%d", i);
        assert_int_equal(charge(l, 2, id, 1, "one", &err), FC_OK);
    }
    assert_int_equal(charge(l, 2, "d", 1, "one", &err), FC_ERR_BUDGET);
    assert_int_equal(charge(l, 0.001, "d", 1, "one", &err), FC_ERR_BUDGET);
    assert_int_equal(charge(l, 2, "free", 0, "", &err), FC_OK);
    assert_string_equal(find(l, "a")->text, "four"); /* a resend is never refused */
    fc_ledger_close(l);
    l = open_ledger((struct fc_budget){20, 0}); /* nor forgotten by a restart */
    assert_int_equal(charge(l, 2, "d", 1, "one", &err), FC_ERR_BUDGET);
    fc_ledger_close(l);
    l = open_ledger((struct fc_budget){22, 0}); /* more, on the record */
    assert_int_equal(charge(l, 2, "d", 1, "one", &err), FC_OK);
    assert_int_equal(charge(l, 2, "e", 1, "one", &err), FC_ERR_BUDGET);
    fc_ledger_close(l);
    char *bytes;
    size_t len;
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, &len, NULL), FC_OK);
    assert_non_null(strstr(bytes, "\"kind\":\"budget\",\"epsilon\":20"));
    assert_non_null(strstr(bytes, "\"kind\":\"budget\",\"epsilon\":22"));
    free(bytes);
}

/* With a delta the smaller figure counts, so more fits. */
static void test_budget_at_a_delta(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_profile p = profile_of(0.1);
    struct fc_ledger *l = open_ledger((struct fc_budget){20, 0});
    assert_int_equal(fc_ledger_afford(l, &p, 1000, &err), FC_ERR_BUDGET);
    fc_ledger_close(l);
    l = open_ledger((struct fc_budget){20, 1e-6});
    assert_int_equal(fc_ledger_afford(l, &p, 1000, NULL), FC_OK);
    assert_int_equal(fc_ledger_afford(l, &p, 100000, NULL), FC_ERR_BUDGET);
    fc_ledger_close(l);
    assert_int_equal(try_open((struct fc_budget){-1, 0}, &err), FC_ERR_USAGE);
    assert_int_equal(try_open((struct fc_budget){1, 1}, &err), FC_ERR_USAGE);
    assert_int_equal(try_open((struct fc_budget){NAN, 0}, &err), FC_ERR_USAGE);
}

static void test_one_process_at_a_time(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_ledger *l = open_ledger(unlimited);
    assert_int_equal(charge(l, 2, "a", 1, "x", &err), FC_OK);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_IO); /* a second opening in this one */
    assert_non_null(strstr(err.text, "another process"));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* another process; and what it inherited it may not write */
        int ok = try_open(unlimited, &err) == FC_ERR_IO;
        ok = ok && charge(l, 2, "b", 1, "y", &err) == FC_ERR_INTERNAL;
        _exit(ok ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(charge(l, 2, "c", 1, "z", &err), FC_OK);
    fc_ledger_close(l);
    l = open_ledger(unlimited);
    assert_int_equal(fc_ledger_entries(l), 2);
    fc_ledger_close(l);
}

/* Cut at every byte: whole lines before the cut stand, the piece of a line is dropped, and the
 * ledger goes on. */
static void test_cut_at_every_byte(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_ledger *l = open_ledger(unlimited);
    size_t ends[4] = {0};
    struct stat st;
    for (int i = 0; i < 3; i++) {
        char id[8];
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(charge(l, 2, id, 3, "text", &err), FC_OK);
        assert_int_equal(stat(path, &st), 0);
        ends[i] = (size_t)st.st_size;
    }
    fc_ledger_close(l);
    char *bytes;
    size_t len;
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, &len, NULL), FC_OK);
    assert_int_equal(len, ends[2]);
    size_t header = (size_t)(strchr(bytes, '\n') - bytes) + 1;
    for (size_t cut = header; cut <= len; cut++) {
        size_t whole = 0;
        while (whole < 3 && ends[whole] <= cut)
            whole++;
        put(path, bytes, cut);
        l = open_ledger(unlimited);
        assert_int_equal(fc_ledger_entries(l), whole);
        struct fc_spent spent;
        fc_ledger_spent(l, &spent);
        assert_int_equal(spent.draws, 3 * whole);
        if (cut % 16 == 0) {
            assert_int_equal(charge(l, 2, "next", 1, "more", &err), FC_OK);
            fc_ledger_close(l);
            l = open_ledger(unlimited);
            assert_int_equal(fc_ledger_entries(l), whole + 1);
            assert_string_equal(find(l, "next")->text, "more");
        }
        fc_ledger_close(l);
    }
    free(bytes);
}

/* A changed byte anywhere in a whole line is refused, not skipped. */
static void test_damage_is_refused(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_ledger *l = open_ledger(unlimited);
    assert_int_equal(charge(l, 2, "a", 3, "SECRET", &err), FC_OK);
    fc_ledger_close(l);
    char *bytes;
    size_t len;
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, &len, NULL), FC_OK);
    for (size_t i = 0; i < len; i += 3) {
        if (bytes[i] == '\n')
            continue;
        bytes[i] ^= 1;
        put(path, bytes, len);
        assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
        assert_null(strstr(err.text, "SECRE"));
        bytes[i] ^= 1;
    }
    put(path, bytes, len);
    l = open_ledger(unlimited);
    fc_ledger_close(l);
    free(bytes);
    unlink(key); /* without its key the ledger is not opened, so nothing is charged anew */
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    put_key("0123456789abcdef0123456789abcdef");
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    assert_int_equal(chmod(key, 0640), 0);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "others can read it"));
}

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

static void test_holds_no_raw_text(void **state)
{
    (void)state;
    static const char raw[] = "my very private diagnosis", id[] = "patient-4711";
    struct fc_ledger *l = open_ledger(unlimited);
    struct fc_profile p = profile_of(2);
    struct fc_ledger_entry e = {.draws = 4, .text = "a b c d", .len = 7};
    fc_ledger_tag(l, id, raw, strlen(raw), mechanism, &e.tag);
    assert_int_equal(fc_ledger_charge(l, &p, mechanism, &e, 1, NULL), FC_OK);
    fc_ledger_close(l);
    char *bytes;
    size_t len;
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, &len, NULL), FC_OK);
    assert_null(strstr(bytes, "diagnosis"));
    assert_null(strstr(bytes, "4711"));
    assert_non_null(strstr(bytes, "a b c d"));
    free(bytes);
    struct stat st;
    assert_int_equal(stat(key, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* A full disk: nothing is sent, what was charged stays, and the ledger asks to be opened again. */
static void test_failed_write(void **state)
{
    (void)state;
    struct fc_error err;
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct fc_ledger *l = open_ledger(unlimited);
        int ok = charge(l, 2, "a", 1, "fits", &err) == FC_OK;
        /* stands in for the full disk: the ledger's descriptor refuses to write */
        FILE *full = fopen("/dev/full", "w");
        ok = ok && full;
        for (int fd = 3; ok && fd < 20; fd++) {
            char link[64], target[256];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(link, target, sizeof target - 1);
            if (n > 0 && (target[n] = '\0', strcmp(target, path) == 0))
                ok = dup2(fileno(full), fd) == fd;
        }
        ok = ok && charge(l, 2, "b", 1, big, &err) == FC_ERR_IO;
        ok = ok && !find(l, "b") && find(l, "a");
        ok = ok && charge(l, 2, "c", 1, "c", &err) == FC_ERR_IO;
        _exit(ok ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    struct fc_ledger *l = open_ledger(unlimited);
    assert_int_equal(fc_ledger_entries(l), 1);
    fc_ledger_close(l);
}

static void test_versions_and_odd_files(void **state)
{
    (void)state;
    struct fc_error err;
    put(path, "not a ledger\n", 13);
    put_key("0123456789abcdef0123456789abcdef");
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    put(path, "\n\n", 2);
    assert_int_equal(try_open(unlimited, &err), FC_ERR_INPUT);
    struct fc_ledger *l = NULL;
    err = (struct fc_error){0};
    assert_int_equal(fc_ledger_open(&l, folder, unlimited, &err), FC_ERR_IO);
    err = (struct fc_error){0};
    assert_int_equal(fc_ledger_look(&l, head, &err), FC_ERR_IO); /* looking makes nothing */
    assert_int_equal(access(head, F_OK), -1);
}

static int make_folder(void **state)
{
    (void)state;
    if (!scratch_make(folder))
        return -1;
    scratch_path(path, folder, "ledger");
    scratch_path(key, folder, "ledger.key");
    scratch_path(head, folder, "head");
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"ledger", "ledger.key", "head"};
    scratch_remove(folder, names, 3);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stored_text_is_found_again),
        TEST(test_overrun_is_refused),
        TEST(test_budget_at_a_delta),
        TEST(test_one_process_at_a_time),
        TEST(test_cut_at_every_byte),
        TEST(test_damage_is_refused),
        TEST(test_holds_no_raw_text),
        TEST(test_failed_write),
        TEST(test_versions_and_odd_files),
        TEST(test_lines_are_chained),
        TEST(test_rolled_back),
        TEST(test_copied),
        TEST(test_unwritten_blocks),
        TEST(test_version_1_is_upgraded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
