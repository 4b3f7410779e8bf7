/* The log on disk: what was synced is there again, whatever happened to what follows it. */
#define _GNU_SOURCE
#include "base/file.h"
#include "base/memory.h"
#include "net/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 6 };

static char folder[64], path[96];
static struct fc_error err;

static int make_folder(void **state)
{
    (void)state;
    err = (struct fc_error){0};
    bool in_memory =
        access("/dev/shm", W_OK) == 0; /* hundreds of syncs, which cost there nothing */
    strcpy(folder, in_memory ? "/dev/shm/fedcot-log-XXXXXX" : "/tmp/fedcot-log-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/x.log", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"x.log", "x.log.lock", "x.log.tmp"};
    char name[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(name, sizeof name, "%s/%s", folder, names[i]);
        unlink(name);
    }
    return rmdir(folder);
}

/* Record i: i * 7 + 1 bytes of the letter 'a' + i. */
static size_t record(char *out, size_t i)
{
    memset(out, 'a' + (int)i, i * 7 + 1);
    return i * 7 + 1;
}

/* Counts the records and insists that the i-th is record i. */
static enum fc_code count(void *context, const void *payload, size_t len, struct fc_error *why)
{
    size_t *n = context;
    char expected[64];
    if (len != record(expected, *n) || memcmp(payload, expected, len) != 0)
        return fc_fail(why, FC_ERR_INPUT, "record %zu is another one", *n);
    ++*n;
    return FC_OK;
}

static struct fc_log *open_log(size_t *n, size_t *dropped)
{
    struct fc_log *log;
    *n = 0;
    if (fc_log_open(&log, folder, "x.log", SIZE_MAX, count, n, dropped, &err) != FC_OK)
        fail_msg("%s", err.text);
    return log;
}

static void append(struct fc_log *log, size_t first, size_t end)
{
    char bytes[64];
    for (size_t i = first; i < end; i++)
        assert_int_equal(fc_log_append(log, bytes, record(bytes, i), &err), FC_OK);
}

/* Writes RECORDS records; returns the file's bytes. */
static char *whole_log(size_t *len)
{
    size_t n, dropped;
    char *bytes;
    struct fc_log *log = open_log(&n, &dropped);
    assert_int_equal(n + dropped, 0);
    append(log, 0, RECORDS);
    assert_int_equal(fc_log_sync(log, &err), FC_OK);
    size_t said = fc_log_bytes(log);
    fc_log_close(log);
    assert_int_equal(fc_file_read(path, 1 << 20, &bytes, len, &err), FC_OK);
    assert_int_equal(*len, said);
    return bytes;
}

/* Whole records in the first `len` bytes. */
static size_t whole_in(size_t len)
{
    size_t n = 0;
    char bytes[64];
    for (size_t at = FC_LOG_HEAD; n < RECORDS; n++) {
        at += FC_LOG_RECORD_HEAD + record(bytes, n);
        if (at > len)
            break;
    }
    return n;
}

static void test_torn_at_every_length(void **state)
{
    (void)state;
    size_t len, n, dropped;
    char *bytes = whole_log(&len);
    for (size_t cut = 0; cut <= len; cut++) {
        assert_int_equal(fc_file_write(path, bytes, cut, &err), FC_OK);
        struct fc_log *log = open_log(&n, &dropped);
        size_t whole = whole_in(cut);
        assert_int_equal(n, whole);
        append(log, whole, RECORDS); /* and it goes on behind them */
        assert_int_equal(fc_log_sync(log, &err), FC_OK);
        fc_log_close(log);
        fc_log_close(open_log(&n, &dropped));
        assert_int_equal(n, RECORDS);
        assert_int_equal(dropped, 0);
    }
    free(bytes);
}

static void test_damaged_at_every_byte(void **state)
{
    (void)state;
    size_t len, n, dropped;
    char *bytes = whole_log(&len);
    for (size_t at = 0; at < len; at++) {
        bytes[at] = (char)(bytes[at] ^ 0x41);
        assert_int_equal(fc_file_write(path, bytes, len, &err), FC_OK);
        if (at < FC_LOG_HEAD) { /* not a log at all: refused, and left alone */
            struct fc_log *log;
            char *left;
            size_t n_left;
            n = 0;
            assert_int_equal(
                fc_log_open(&log, folder, "x.log", SIZE_MAX, count, &n, &dropped, &err),
                FC_ERR_INPUT);
            assert_non_null(strstr(err.text, "move it away"));
            err = (struct fc_error){0};
            assert_int_equal(fc_file_read(path, 1 << 20, &left, &n_left, &err), FC_OK);
            assert_true(n_left == len && memcmp(left, bytes, len) == 0);
            free(left);
        } else { /* the records before it */
            struct fc_log *log = open_log(&n, &dropped);
            size_t whole = whole_in(at);
            assert_int_equal(n, whole);
            assert_true(dropped > 0);
            append(log, whole, whole + 1); /* what followed does not come back behind it */
            assert_int_equal(fc_log_sync(log, &err), FC_OK);
            fc_log_close(log);
            fc_log_close(open_log(&n, &dropped));
            assert_int_equal(n, whole + 1);
            assert_int_equal(dropped, 0);
        }
        bytes[at] = (char)(bytes[at] ^ 0x41);
    }
    free(bytes);
}

/* A record that is right, but lies elsewhere, is none: of an older file under the same blocks. */
static void test_record_in_another_place(void **state)
{
    (void)state;
    size_t len, n, dropped;
    char *bytes = whole_log(&len);
    memmove(bytes + FC_LOG_HEAD, bytes + FC_LOG_HEAD + FC_LOG_RECORD_HEAD + 1,
            len - FC_LOG_HEAD - FC_LOG_RECORD_HEAD - 1);
    assert_int_equal(fc_file_write(path, bytes, len - FC_LOG_RECORD_HEAD - 1, &err), FC_OK);
    fc_log_close(open_log(&n, &dropped));
    assert_int_equal(n, 0);
    free(bytes);
}

static void test_not_synced_is_not_there(void **state)
{
    (void)state;
    size_t n, dropped;
    struct fc_log *log = open_log(&n, &dropped);
    append(log, 0, 2);
    assert_int_equal(fc_log_sync(log, &err), FC_OK);
    append(log, 2, 4);
    fc_log_close(log);
    fc_log_close(open_log(&n, &dropped));
    assert_int_equal(n, 2);
}

static void test_lengths_and_bounds(void **state)
{
    (void)state;
    size_t n, dropped;
    struct fc_log *log = open_log(&n, &dropped), *second;
    char *big = calloc(FC_LOG_MAX_RECORD + 1, 1);
    assert_int_equal(fc_log_append(log, big, 0, &err), FC_ERR_INTERNAL);
    err = (struct fc_error){0};
    assert_int_equal(fc_log_append(log, big, FC_LOG_MAX_RECORD + 1, &err), FC_ERR_INTERNAL);
    free(big);
    err = (struct fc_error){0}; /* a second one, while this is open */
    assert_int_equal(fc_log_open(&second, folder, "x.log", SIZE_MAX, count, &n, &dropped, &err),
                     FC_ERR_IO);
    assert_null(second);
    assert_non_null(strstr(err.text, "another process"));
    fc_log_close(log);
    err = (struct fc_error){0};
    free(whole_log(&n));
    assert_int_equal(fc_log_open(&second, folder, "x.log", 20, count, &n, &dropped, &err),
                     FC_ERR_INPUT);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static enum fc_code write_three(void *context, struct fc_log *log, struct fc_error *why)
{
    (void)why;
    append(log, 0, 3);
    return context ? fc_fail(why, FC_ERR_CANCELLED, "not to the end") : FC_OK;
}

static void test_rewrite(void **state)
{
    (void)state;
    size_t n, dropped, len;
    free(whole_log(&len));
    struct fc_log *log = open_log(&n, &dropped);
    assert_int_equal(fc_log_rewrite(log, write_three, &n, &err), FC_ERR_CANCELLED);
    err = (struct fc_error){0};
    assert_int_equal(fc_log_bytes(log), len); /* the old one is as it was */
    assert_int_equal(fc_log_rewrite(log, write_three, NULL, &err), FC_OK);
    assert_true(fc_log_bytes(log) < len);
    append(log, 3, 5); /* goes to the new one */
    assert_int_equal(fc_log_sync(log, &err), FC_OK);
    fc_log_close(log);
    fc_log_close(open_log(&n, &dropped));
    assert_int_equal(n, 5);
}

/* No byte beyond a limit can be written, as on a full disk: the log is as it was, and usable again
 * when there is room. In a child, since the limit is the process's. */
static void child_of_full_disk(size_t limit, bool again)
{
    size_t n, dropped;
    struct fc_log *log = open_log(&n, &dropped);
    struct rlimit before, small = {limit, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    append(log, 0, 2);
    bool good = fc_log_sync(log, &err) == FC_OK;
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    append(log, 2, RECORDS);
    good = good && fc_log_sync(log, &err) == FC_ERR_IO;
    good = good && fc_log_rewrite(log, write_three, NULL, &err) == FC_ERR_IO;
    setrlimit(RLIMIT_FSIZE, &before);
    append(log, 2, again ? 3 : 2);
    err = (struct fc_error){0};
    good = good && fc_log_sync(log, &err) == FC_OK;
    _exit(good ? 0 : 1);
}

static void test_full_disk(void **state)
{
    (void)state;
    size_t n, dropped;
    /* Two records end at 8 + 21 + 28 = 57; three of the rewrite at 92. */
    for (size_t limit = 57; limit < 92; limit += 7) {
        int status;
        bool again = limit % 2;
        pid_t pid = fork();
        if (pid == 0)
            child_of_full_disk(limit, again);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        fc_log_close(open_log(&n, &dropped));
        assert_int_equal(n, again ? 3 : 2);
        assert_int_equal(dropped, 0);
        unlink(path);
    }
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_torn_at_every_length),
        WITH_FOLDER(test_damaged_at_every_byte),
        WITH_FOLDER(test_record_in_another_place),
        WITH_FOLDER(test_not_synced_is_not_there),
        WITH_FOLDER(test_lengths_and_bounds),
        WITH_FOLDER(test_rewrite),
        WITH_FOLDER(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
