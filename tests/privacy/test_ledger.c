/* The ledger: what is charged stays charged, what is stored is found, damage is refused. */
#define _GNU_SOURCE
#include "tests/privacy/ledger_harness.h"

#include <sys/wait.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stored_text_is_found_again), TEST(test_overrun_is_refused),
        TEST(test_budget_at_a_delta),          TEST(test_one_process_at_a_time),
        TEST(test_cut_at_every_byte),          TEST(test_damage_is_refused),
        TEST(test_holds_no_raw_text),          TEST(test_failed_write),
        TEST(test_versions_and_odd_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
