/* The files between the stages: prompts and rationales, good ones and damaged ones. */
#define _GNU_SOURCE
#include "base/file.h"
#include "models/records.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/fc_test_records_XXXXXX";

static void write_file(const char *text)
{
    assert_int_equal(fc_file_write(path, text, strlen(text), NULL), FC_OK);
}

static void prompts_of_both_kinds(void **state)
{
    (void)state;
    struct fc_prompts p;
    struct fc_error err = {0};
    write_file("{\"id\": \"a\", \"prompt\": \"one\"}\n\n"
               "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, "
               "{\"role\": \"user\", \"content\": \"\"}]}\n"
               "{\"id\": 7, \"prompt\": \"three\"}");
    assert_int_equal(fc_prompts_read(&p, path, &err), FC_OK);
    assert_int_equal(p.n, 3);
    assert_string_equal(p.items[0].id, "a");
    assert_int_equal(p.items[0].messages[0].role, FC_ROLE_USER);
    assert_string_equal(p.items[0].messages[0].content, "one");
    assert_string_equal(p.items[1].id, "line-3");
    assert_int_equal(p.items[1].n_messages, 2);
    assert_int_equal(p.items[1].messages[1].len, 0);
    assert_string_equal(p.items[2].id, "7");
    fc_prompts_free(&p);
    write_file("");
    assert_int_equal(fc_prompts_read(&p, path, &err), FC_OK);
    assert_int_equal(p.n, 0);
    fc_prompts_free(&p);
}

static void texts_are_found_by_id(void **state)
{
    (void)state;
    struct fc_id_texts t;
    struct fc_error err = {0};
    write_file(
        "{\"id\": \"b\", \"text\": \"2\", \"tokens\": [1]}\n{\"id\": \"a\", \"text\": \"1\"}\n");
    assert_int_equal(fc_id_texts_read(&t, path, &err), FC_OK);
    assert_string_equal(fc_id_texts_find(&t, "a"), "1");
    assert_string_equal(fc_id_texts_find(&t, "b"), "2");
    assert_null(fc_id_texts_find(&t, "c"));
    fc_id_texts_free(&t);
    assert_null(fc_id_texts_find(&t, "a"));
}

/* What a reader says of a file; no byte of SECRET may be in it. */
static void refused(bool prompts, const char *text, const char *expected)
{
    struct fc_error err = {0};
    struct fc_prompts p;
    struct fc_id_texts t;
    write_file(text);
    enum fc_code code =
        prompts ? fc_prompts_read(&p, path, &err) : fc_id_texts_read(&t, path, &err);
    assert_int_equal(code, FC_ERR_INPUT);
    if (!strstr(err.text, expected) || !strstr(err.text, path) || strstr(err.text, "SECRET"))
        fail_msg("expected \"%s\" in \"%s\"", expected, err.text);
    assert_int_equal(prompts ? p.n : t.n, 0);
}

static void wrong_records_are_named(void **state)
{
    (void)state;
    refused(true, "{\"prompt\": \"x\"}\n{\"prompt\": 3}\n", "line 2: field \"prompt\"");
    refused(true,
            "{\"id\": \"SECRET\", \"prompt\": \"x\"}\n{\"id\": \"SECRET\", \"prompt\": \"y\"}\n",
            "records 1 and 2 have the same id");
    refused(true, "{\"id\": \"a\"}\n", "line 1: expected \"prompt\"");
    refused(true, "{\"messages\": []}\n", "line 1");
    refused(true, "{\"messages\": [\"SECRET\"]}\n", "field \"role\"");
    refused(true, "{\"messages\": [{\"role\": \"SECRET\", \"content\": \"\"}]}\n",
            "field \"role\"");
    refused(false, "{\"id\": \"a\", \"text\": \"SECRET\"}\n{\"id\": true, \"text\": \"y\"}\n",
            "line 2: field \"id\"");
    refused(false, "{\"id\": \"a\"}\n", "field \"text\" is missing");
    refused(false, "{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"a\", \"text\": \"y\"}\n",
            "have the same id");
    refused(false, "{\"id\": \"a\", \"text\": \"SECRET", "line 1");
    refused(false, "[\"SECRET\"]\n", "line 1: expected a JSON object");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_of_both_kinds),
        cmocka_unit_test(texts_are_found_by_id),
        cmocka_unit_test(wrong_records_are_named),
    };
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    int failed = cmocka_run_group_tests_name("models/records", tests, NULL, NULL);
    unlink(path);
    return failed;
}
