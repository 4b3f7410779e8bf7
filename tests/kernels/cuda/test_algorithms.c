/* The file of GEMM algorithms: kept and found again, by other runs too; damaged files, other
 * devices and folders that cannot be written cost time only; and a device computes right with any
 * of them. */
#define _GNU_SOURCE
#include "base/file.h"
#include "kernels/cuda/algorithm_file.h"

#include "tests/kernels/products.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/fedcot-algorithms-XXXXXX";
static char path[64];

static const uint64_t words[FC_ALGORITHM_WORDS] = {1, 2, 3, 4, 5, 6, 7, 0xfedcba9876543210u};

static struct fc_algorithms *open_for(const char *device)
{
    struct fc_error err = {0};
    struct fc_algorithms *a = fc_algorithms_open(device, "library 1", &err);
    assert_non_null(a);
    return a;
}

static bool keep(struct fc_algorithms *a, const char *key, uint64_t first)
{
    uint64_t w[FC_ALGORITHM_WORDS];
    memcpy(w, words, sizeof w);
    w[0] = first;
    if (!fc_algorithms_begin(a))
        return false;
    fc_algorithms_add(a, key, w);
    fc_algorithms_end(a);
    return true;
}

/* The first word kept under `key` in the file now, 0 for none. */
static uint64_t kept(const char *device, const char *key)
{
    uint64_t w[FC_ALGORITHM_WORDS] = {0};
    struct fc_algorithms *a = open_for(device);
    if (fc_algorithms_find(a, key, w))
        assert_memory_equal(w + 1, words + 1, sizeof w - sizeof *w);
    fc_algorithms_close(a);
    return w[0];
}

static void fresh(void)
{
    unlink(path);
    setenv("FEDCOT_ALGO_CACHE", path, 1);
}

static void test_kept(void **state)
{
    (void)state;
    fresh();
    struct fc_algorithms *a = open_for("GPU"), *b = open_for("GPU");
    assert_true(keep(a, "x", 11));
    assert_true(keep(b, "y", 12)); /* b had been opened before: it must not lose x */
    assert_true(keep(a, "x", 13));
    fc_algorithms_close(a);
    fc_algorithms_close(b);
    assert_int_equal(kept("GPU", "x"), 13);
    assert_int_equal(kept("GPU", "y"), 12);
    assert_int_equal(kept("GPU", "z"), 0);
}

/* More than the first room; all are found. */
static void test_many(void **state)
{
    (void)state;
    fresh();
    char key[32];
    struct fc_algorithms *a = open_for("GPU");
    assert_true(fc_algorithms_begin(a));
    for (uint64_t i = 1; i <= 300; i++) {
        uint64_t w[FC_ALGORITHM_WORDS];
        memcpy(w, words, sizeof w);
        w[0] = i;
        snprintf(key, sizeof key, "key:%d", (int)i);
        fc_algorithms_add(a, key, w);
    }
    fc_algorithms_close(a); /* ends what was begun */
    for (uint64_t i = 1; i <= 300; i += 23) {
        snprintf(key, sizeof key, "key:%d", (int)i);
        assert_int_equal(kept("GPU", key), i);
    }
}

static void test_other_device(void **state)
{
    (void)state;
    fresh();
    struct fc_algorithms *a = open_for("GPU");
    assert_true(keep(a, "x", 11));
    fc_algorithms_close(a);
    assert_int_equal(kept("another GPU", "x"), 0);
    assert_int_equal(kept("GPU", "x"), 11); /* looking changed nothing */
    a = open_for("another GPU");
    assert_true(keep(a, "y", 12));
    fc_algorithms_close(a);
    assert_int_equal(kept("another GPU", "y"), 12);
    assert_int_equal(kept("GPU", "x"), 0);
}

/* Without the fsync of fc_file_write: a thousand of them would take seconds. */
static void overwrite(const char *text, size_t len)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
}

/* Every single changed byte and every cut makes the file an empty one, and it can be replaced. */
static void test_damaged(void **state)
{
    (void)state;
    fresh();
    char *text = NULL;
    size_t len = 0;
    struct fc_algorithms *a = open_for("GPU");
    assert_true(keep(a, "x", 11));
    assert_true(keep(a, "y", 12));
    fc_algorithms_close(a);
    assert_int_equal(fc_file_read(path, 1 << 20, &text, &len, NULL), FC_OK);
    for (size_t i = 0; i < 2 * len; i++) {
        size_t at = i % len;
        char old = text[at];
        if (i < len)
            text[at] = old == '0' ? '1' : old ^ 1;
        overwrite(text, i < len ? len : at);
        text[at] = old;
        if (kept("GPU", "x") != 0 || kept("GPU", "y") != 0)
            fail_msg("byte %zu %s, and the file is believed", at, i < len ? "changed" : "the end");
    }
    assert_int_equal(fc_file_write(path, "\0\xff garbage \n\n", 13, NULL), FC_OK);
    a = open_for("GPU");
    assert_true(keep(a, "z", 14));
    fc_algorithms_close(a);
    assert_int_equal(kept("GPU", "z"), 14);
    free(text);
}

static void test_not_kept(void **state)
{
    (void)state;
    fresh();
    struct fc_algorithms *a = open_for("GPU");
    assert_true(keep(a, "x", 11));
    fc_algorithms_close(a);
    setenv("FEDCOT_ALGO_CACHE", "off", 1);
    assert_int_equal(kept("GPU", "x"), 0);
    a = open_for("GPU");
    assert_false(keep(a, "x", 12));
    fc_algorithms_close(a);
    setenv("FEDCOT_ALGO_CACHE", "/nowhere/at/all", 1);
    a = open_for("GPU");
    assert_false(keep(a, "x", 12));
    fc_algorithms_close(a);
}

/* What a folder without write permission holds is used, and nothing is added. */
static void test_read_only(void **state)
{
    (void)state;
    fresh();
    char lock[80];
    struct fc_algorithms *a = open_for("GPU");
    assert_true(keep(a, "x", 11));
    fc_algorithms_close(a);
    snprintf(lock, sizeof lock, "%s.lock", path);
    unlink(lock);
    assert_int_equal(chmod(folder, 0555), 0);
    bool root = geteuid() == 0; /* who writes anywhere: be nobody meanwhile */
    assert_int_equal(root ? seteuid(65534) : 0, 0);
    a = open_for("GPU");
    bool added = keep(a, "y", 12);
    fc_algorithms_close(a);
    uint64_t found = kept("GPU", "x");
    assert_int_equal(root ? seteuid(0) : 0, 0);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_false(added);
    assert_int_equal(found, 11);
}

/* Without FEDCOT_ALGO_CACHE the file lies under XDG_CACHE_HOME, named after device and library. */
static void test_default_place(void **state)
{
    (void)state;
    char name[128];
    unsetenv("FEDCOT_ALGO_CACHE");
    setenv("XDG_CACHE_HOME", folder, 1);
    struct fc_algorithms *a = open_for("GPU 9/x");
    assert_true(keep(a, "x", 11));
    fc_algorithms_close(a);
    snprintf(name, sizeof name, "%s/fedcot/GPU_9_x-library_1.algorithms", folder);
    assert_true(fc_is_file(name));
    assert_int_equal(kept("GPU 9/x", "x"), 11);
}

/* ---- with a device ----------------------------------------------------------------------------
 */

static void multiply(void)
{
    struct kt t;
    kt_open_threads(&t, 2); /* a stream of its own: it reads the file when it opens */
    for (int kind = 0; kind < 3; kind++)
        kt_check_gemm(&t,
                      (struct fc_gemm){.m = 32,
                                       .n = 40,
                                       .k = 48,
                                       .trans_b = true,
                                       .accumulate = kind == 1,
                                       .type = FC_BF16,
                                       .y_type = kind == 2 ? FC_BF16 : FC_F32},
                      0);
    kt_close(&t);
}

/* All algorithms of a file that a device filled are replaced by nonsense: the library's own check
 * must refuse them, and the products are right. */
static void spoil(void)
{
    char *text = NULL, *line = NULL;
    size_t len = 0;
    assert_int_equal(fc_file_read(path, 1 << 20, &text, &len, NULL), FC_OK);
    char *device = strstr(text, "device ") + 7, *library = strstr(text, "library ") + 8;
    char *first = strchr(library, '\n') + 1;
    *strchr(device, '\n') = '\0';
    first[-1] = '\0';
    struct fc_error err = {0};
    struct fc_algorithms *a = fc_algorithms_open(device, library, &err);
    assert_non_null(a);
    assert_true(fc_algorithms_begin(a));
    size_t n = 0;
    for (line = first; strncmp(line, "end ", 4) != 0; line = strchr(line, '\0') + 1, n++) {
        *strchr(line, '\n') = '\0';
        *strchr(line, ' ') = '\0';
        uint64_t found[FC_ALGORITHM_WORDS];
        assert_true(fc_algorithms_find(a, line, found));
        fc_algorithms_add(a, line, words);
        line += strlen(line) + 1;
    }
    assert_int_equal(n, 3);
    fc_algorithms_close(a);
    free(text);
}

static void test_device(void **state)
{
    (void)state;
    fresh();
    multiply(); /* skips all that follows where there is no device */
    assert_true(fc_is_file(path));
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    multiply();
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino); /* found, so not written again */
    spoil();
    multiply();
    assert_int_equal(fc_file_write(path, "garbage", 7, NULL), FC_OK);
    multiply();
    setenv("FEDCOT_ALGO_CACHE", "/nowhere/at/all", 1);
    multiply();
}

static void tidy(void)
{
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command) != 0)
        fprintf(stderr, "%s could not be removed\n", folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),          cmocka_unit_test(test_many),
        cmocka_unit_test(test_damaged),       cmocka_unit_test(test_other_device),
        cmocka_unit_test(test_not_kept),      cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_default_place), cmocka_unit_test(test_device),
    };
    if (!mkdtemp(folder))
        return 1;
    atexit(tidy); /* also when kt_open skips */
    snprintf(path, sizeof path, "%s/file", folder);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
