/* Files that are replaced whole: what is seen before, after and instead, and what killed writers
 * leave. */
#define _GNU_SOURCE
#include "base/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], path[128];

static void assert_holds(const char *name, const char *expected)
{
    char *data;
    size_t len;
    assert_int_equal(fc_file_read(name, 1 << 20, &data, &len, NULL), FC_OK);
    assert_string_equal(data, expected);
    free(data);
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_old_or_new(void **state)
{
    (void)state;
    struct fc_atomic_file f;
    struct fc_error err = {0};
    assert_int_equal(fc_file_write(path, "old", 3, &err), FC_OK);
    assert_int_equal(fc_atomic_open(&f, path, &err), FC_OK);
    fputs("new", f.stream);
    fflush(f.stream);
    assert_holds(path, "old");
    fc_atomic_abort(&f);
    assert_holds(path, "old");
    assert_int_equal(fc_atomic_open(&f, path, &err), FC_OK);
    fputs("new", f.stream);
    assert_int_equal(fc_atomic_commit(&f, &err), FC_OK);
    assert_holds(path, "new");
}

/* A writer that was killed leaves its temporary file; the next one removes it, and nothing else. */
static void test_left_by_the_killed(void **state)
{
    (void)state;
    struct fc_error err = {0};
    char left[160], other[160], name[160];
    int ready[2];
    snprintf(left, sizeof left, "%s.tmp.1", path);
    snprintf(other, sizeof other, "%s.tmp.1x", path);
    put(left, "private");
    put(other, "somebody's");
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {                     /* a writer at work */
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when the test fails before it kills this */
        struct fc_atomic_file f;
        char go = fc_atomic_open(&f, path, NULL) == FC_OK ? 'y' : 'n';
        if (write(ready[1], &go, 1) == 1)
            pause();
        _exit(0);
    }
    char go = 0;
    assert_int_equal(read(ready[0], &go, 1), 1);
    assert_int_equal(go, 'y');
    assert_int_equal(access(left, F_OK), -1); /* the child's open has removed it */
    snprintf(name, sizeof name, "%s.tmp.%ld", path, (long)child);
    assert_int_equal(fc_file_write(path, "mine", 4, &err), FC_OK);
    assert_int_equal(access(name, F_OK), 0); /* its writer lives */
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(fc_file_write(path, "mine", 4, &err), FC_OK);
    assert_int_equal(access(name, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
    close(ready[0]);
    close(ready[1]);
    unlink(other);
}

static void test_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct fc_atomic_file f;
    struct fc_error err = {0};
    if (access("/dev/full", W_OK) != 0)
        skip();
    assert_int_equal(fc_file_write(path, "old", 3, &err), FC_OK);
    assert_int_equal(fc_atomic_open(&f, path, &err), FC_OK);
    f.stream = freopen("/dev/full", "w", f.stream);
    assert_non_null(f.stream);
    fputs("new", f.stream);
    assert_int_equal(fc_atomic_commit(&f, &err), FC_ERR_IO);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "No space left"));
    assert_holds(path, "old");
}

/* A pipe takes what it has room for: the rest must follow when somebody has read. */
static void test_short_writes(void **state)
{
    (void)state;
    enum { SIZE = 300000 };
    static char sent[SIZE], got[SIZE];
    int ends[2];
    for (size_t i = 0; i < SIZE; i++)
        sent[i] = (char)(i % 251);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        _exit(fc_write_all(ends[1], sent, SIZE) == 0 ? 0 : 1);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t part;
    while (n < SIZE && (part = read(ends[0], got + n, SIZE - n)) > 0)
        n += (size_t)part;
    assert_int_equal(n, SIZE);
    assert_memory_equal(got, sent, SIZE);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(ends[0]);
    assert_int_equal(fc_write_all(ends[0], sent, 1), -1); /* closed: errno, not for ever */
}

static void test_folders(void **state)
{
    (void)state;
    struct fc_error err = {0};
    char deep[160], below[200];
    snprintf(deep, sizeof deep, "%s/a/b/", folder);
    assert_int_equal(fc_make_folder(deep, &err), FC_OK);
    assert_int_equal(fc_make_folder(deep, &err), FC_OK);
    assert_true(fc_is_folder(deep));
    assert_int_equal(fc_file_write(path, "x", 1, &err), FC_OK);
    snprintf(below, sizeof below, "%s/c", path);
    assert_int_equal(fc_make_folder(below, &err), FC_ERR_IO);
    err = (struct fc_error){0};
    assert_int_equal(fc_make_folder(path, &err), FC_ERR_IO);
    assert_non_null(strstr(err.text, "expected a folder"));
    assert_int_equal(rmdir(deep), 0);
    snprintf(deep, sizeof deep, "%s/a", folder);
    assert_int_equal(rmdir(deep), 0);
}

static int make(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/fc_base_XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails when anything is left */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make, clear)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_old_or_new),
        TEST(test_left_by_the_killed),
        TEST(test_full_disk_leaves_nothing),
        TEST(test_short_writes),
        TEST(test_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
