/* Texts on disk as they come: a killed job's last line is cut off, another job's are refused, and
 * so is a folder whose identity differs. */
#define _GNU_SOURCE
#include "base/file.h"
#include "base/memory.h"
#include "cli/identity.h"
#include "cli/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/fedcot-store-XXXXXX";
static char path[64];

static struct fc_example examples[] = {{.id = (char *)(uintptr_t) "c"},
                                       {.id = (char *)(uintptr_t) "a"},
                                       {.id = (char *)(uintptr_t) "SECRET"}};
static const struct fc_dataset data = {.items = examples, .n = 3};

static void put_file(const char *text)
{
    assert_int_equal(fc_file_write(path, text, strlen(text), NULL), FC_OK);
}

static void file_is(const char *expected)
{
    char *text;
    size_t len;
    assert_int_equal(fc_file_read(path, 1 << 20, &text, &len, NULL), FC_OK);
    assert_string_equal(text, expected);
    free(text);
}

static struct fc_store open_store(void)
{
    struct fc_store s;
    struct fc_error err = {0};
    if (fc_store_open(&s, path, "text", &data, &err) != FC_OK)
        fail_msg("%s", err.text);
    return s;
}

static void appends_and_finds_again(void **state)
{
    (void)state;
    unlink(path);
    struct fc_store s = open_store();
    assert_int_equal(s.n, 0);
    cJSON *extra = cJSON_CreateObject();
    cJSON_AddNumberToObject(extra, "n_tokens", 7);
    cJSON_AddStringToObject(extra, "finish", "stop");
    assert_int_equal(fc_store_put(&s, 1, "two\nlines \"and\" marks", extra, NULL), FC_OK);
    assert_string_equal(s.texts[1], "two\nlines \"and\" marks");
    assert_null(s.texts[0]);
    fc_store_close(&s);
    file_is("{\"id\":\"a\",\"text\":\"two\\nlines \\\"and\\\" marks\",\"n_tokens\":7,"
            "\"finish\":\"stop\"}\n");
    s = open_store();
    assert_int_equal(s.n, 1);
    assert_string_equal(s.texts[1], "two\nlines \"and\" marks");
    assert_int_equal(fc_store_put(&s, 0, "", NULL, NULL), FC_OK);
    fc_store_close(&s);
    s = open_store();
    assert_int_equal(s.n, 2);
    assert_string_equal(s.texts[0], "");
    assert_null(s.texts[2]);
    fc_store_close(&s);
}

static void cuts_a_torn_line(void **state)
{
    (void)state;
    static const char *const torn[] = {"{\"id\":\"a\",\"te", "{", "{\"id\":\"a\",\"text\":\"x\"}"};
    for (size_t i = 0; i < 3; i++) {
        struct fc_text text = {0};
        fc_text_printf(&text, "{\"id\":\"c\",\"text\":\"one\"}\n%s", torn[i]);
        put_file(text.data);
        fc_text_free(&text);
        struct fc_store s = open_store();
        assert_int_equal(s.n, 1);
        assert_string_equal(s.texts[0], "one");
        assert_int_equal(fc_store_put(&s, 1, "two", NULL, NULL), FC_OK);
        fc_store_close(&s);
        file_is("{\"id\":\"c\",\"text\":\"one\"}\n{\"id\":\"a\",\"text\":\"two\"}\n");
    }
}

/* FC_ERR_INPUT with the file's name and these words, and nothing of the texts. */
static void refused(const char *text, const char *expected)
{
    struct fc_store s;
    struct fc_error err = {0};
    put_file(text);
    assert_int_equal(fc_store_open(&s, path, "text", &data, &err), FC_ERR_INPUT);
    if (!strstr(err.text, path) || !strstr(err.text, expected) || strstr(err.text, "SECRET"))
        fail_msg("expected \"%s\" in \"%s\"", expected, err.text);
    file_is(text); /* untouched */
}

static void refuses_foreign_lines(void **state)
{
    (void)state;
    refused("{\"id\":\"b\",\"text\":\"SECRET\"}\n", "choose another --output");
    refused("{\"id\":\"SECRET\",\"text\":\"1\"}\n{\"id\":\"SECRET\",\"text\":\"2\"}\n",
            "line 2: its id");
    refused("{\"id\":\"a\",\"prompt\":\"SECRET\"}\n", "\"text\" is missing");
    refused("{\"id\":1,\"text\":\"x\"}\n", "field \"id\"");
    refused("SECRET\n", "line 1");
    refused("[]\n", "\"id\" is missing");
    refused("\n", "line 1");
}

static void one_process_at_a_time(void **state)
{
    (void)state;
    unlink(path);
    struct fc_store s = open_store();
    pid_t child = fork();
    if (child == 0) {
        struct fc_store other;
        _exit(fc_store_open(&other, path, "text", &data, NULL));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), FC_ERR_IO);
    fc_store_close(&s);
    s = open_store();
    fc_store_close(&s);
}

static void unwritable(void **state)
{
    (void)state;
    struct fc_store s;
    struct fc_error err = {0};
    assert_int_equal(fc_store_open(&s, "/nonexistent/x.jsonl", "text", &data, &err), FC_ERR_IO);
    assert_non_null(strstr(err.text, "/nonexistent/x.jsonl"));
    if (access("/dev/full", W_OK) != 0)
        return;
    unlink(path);
    s = open_store();
    FILE *whole = s.file; /* a disk that is full */
    s.file = fopen("/dev/full", "ae");
    assert_non_null(s.file);
    err = (struct fc_error){0};
    assert_int_equal(fc_store_put(&s, 0, "x", NULL, &err), FC_ERR_IO);
    assert_null(s.texts[0]);
    assert_int_equal(s.n, 0);
    fclose(s.file);
    s.file = whole;
    fc_store_close(&s);
}

static void identity(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_identity_part parts[] = {{"training data", "d1"}, {"--seed", "0"}};
    /* without a file: refused where there are texts already */
    assert_int_equal(fc_identity_claim(folder, "identity.json", parts, 2, false, &err),
                     FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "choose another --output"));
    err = (struct fc_error){0};
    assert_int_equal(fc_identity_claim(folder, "identity.json", parts, 2, true, &err), FC_OK);
    assert_int_equal(fc_identity_claim(folder, "identity.json", parts, 2, true, &err), FC_OK);
    assert_int_equal(fc_identity_claim(folder, "identity.json", parts, 2, false, &err), FC_OK);
    parts[1].value = "1";
    assert_int_equal(fc_identity_claim(folder, "identity.json", parts, 2, true, &err),
                     FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "another --seed"));
    /* a damaged one is an error, not a new one */
    char *file = fc_path_join(folder, "identity.json", NULL);
    assert_int_equal(fc_file_write(file, "{\"training", 10, NULL), FC_OK);
    err = (struct fc_error){0};
    assert_int_equal(fc_identity_claim(folder, "identity.json", parts, 2, true, &err),
                     FC_ERR_INPUT);
    assert_int_equal(fc_file_write(file, "{}", 2, NULL), FC_OK);
    err = (struct fc_error){0};
    assert_int_equal(fc_identity_claim(folder, "identity.json", parts, 2, true, &err),
                     FC_ERR_INPUT);
    unlink(file);
    free(file);
}

static void hash(char value[FC_IDENTITY_SIZE], const char *a, const char *b)
{
    struct fc_identity_hash h;
    fc_identity_hash_begin(&h);
    fc_identity_hash_add(&h, a);
    fc_identity_hash_add(&h, b);
    fc_identity_hash_end(&h, value);
    assert_int_equal(strlen(value), FC_IDENTITY_SIZE - 1);
}

static void hashes_tell_strings_apart(void **state)
{
    (void)state;
    char x[FC_IDENTITY_SIZE], y[FC_IDENTITY_SIZE];
    hash(x, "ab", "c");
    hash(y, "a", "bc");
    assert_string_not_equal(x, y);
    hash(y, "ab", "c");
    assert_string_equal(x, y);
    hash(x, NULL, "c");
    hash(y, "", "c");
    assert_string_equal(x, y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_and_finds_again),
        cmocka_unit_test(cuts_a_torn_line),
        cmocka_unit_test(refuses_foreign_lines),
        cmocka_unit_test(one_process_at_a_time),
        cmocka_unit_test(unwritable),
        cmocka_unit_test(identity),
        cmocka_unit_test(hashes_tell_strings_apart),
    };
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/x.jsonl", folder);
    int failed = cmocka_run_group_tests_name("cli/store", tests, NULL, NULL);
    unlink(path);
    rmdir(folder);
    return failed;
}
