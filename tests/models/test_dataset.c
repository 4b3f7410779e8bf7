/* Data sets: the five formats, and files that mean harm. */
#define _GNU_SOURCE
#include "base/file.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "models/dataset.h"
#include "models/jsonl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/fc_test_dataset_XXXXXX";

static enum fc_code read_bytes(struct fc_dataset *d, const char *bytes, size_t len,
                               bool need_answers, struct fc_error *err)
{
    struct fc_error own = {0};
    assert_int_equal(fc_file_write(path, bytes, len, &own), FC_OK);
    *err = (struct fc_error){0};
    return fc_dataset_read(d, path, need_answers, err);
}

static enum fc_code read_text(struct fc_dataset *d, const char *text, bool need_answers,
                              struct fc_error *err)
{
    return read_bytes(d, text, strlen(text), need_answers, err);
}

/* The file is refused with these words, and no byte of SECRET is repeated. */
static void refused_bytes(const char *bytes, size_t len, const char *expected)
{
    struct fc_dataset d;
    struct fc_error err;
    assert_int_equal(read_bytes(&d, bytes, len, true, &err), FC_ERR_INPUT);
    if (!strstr(err.text, expected) || strstr(err.text, "SECRET"))
        fail_msg("expected \"%s\" in \"%s\"", expected, err.text);
    assert_null(d.items);
    assert_int_equal(d.n, 0);
}

static void refused(const char *text, const char *expected)
{
    refused_bytes(text, strlen(text), expected);
}

#define OURS(id, rest) "{\"id\": \"" id "\", \"question\": \"SECRET?\", " rest "}\n"

static void our_format(void **state)
{
    (void)state;
    struct fc_dataset d;
    struct fc_error err;
    assert_int_equal(
        read_text(&d,
                  "\xEF\xBB\xBF{\"id\": \"a\", \"task\": \"t\", \"question\": \"Q \\u00e9?\", "
                  "\"choices\": [\"x\", \"y\", \"y\"], \"answer\": \"y\", \"rationale\": \"r\"}\r\n"
                  "\n  \t\n"
                  "{\"question\": \"free\", \"choices\": [], \"answer\": \"72\"}",
                  true, &err),
        FC_OK);
    assert_int_equal(d.n, 2);
    assert_string_equal(d.task, "t");
    assert_string_equal(d.items[0].id, "a");
    assert_string_equal(d.items[0].question, "Q \xC3\xA9?");
    assert_int_equal(d.items[0].n_choices, 3);
    assert_int_equal(d.items[0].label, 1); /* the first of equal choices */
    assert_string_equal(d.items[0].answer, "y");
    assert_string_equal(d.items[0].rationale, "r");
    assert_string_equal(d.items[1].id, "line-4");
    assert_int_equal(d.items[1].n_choices, 0);
    assert_int_equal(d.items[1].label, 0);
    assert_null(d.items[1].rationale);
    assert_true(fc_dataset_has_choices(&d));
    fc_dataset_free(&d);
}

static void original_files_with_stems(void **state)
{
    (void)state;
    struct fc_dataset d;
    struct fc_error err;
    /* CommonsenseQA train_rand_split.jsonl */
    assert_int_equal(
        read_text(&d,
                  "{\"answerKey\": \"B\", \"id\": \"c1\", \"question\": {\"question_concept\": "
                  "\"p\", \"choices\": [{\"label\": \"A\", \"text\": \"bank\"}, {\"label\": \"B\", "
                  "\"text\": \"library\"}], \"stem\": \"Where?\"}}\n"
                  "{\"id\": \"c2\", \"question\": {\"choices\": [{\"label\": \"A\", \"text\": "
                  "\"x\"}], \"stem\": \"No key?\"}}\n",
                  false, &err),
        FC_OK);
    assert_int_equal(d.n, 2);
    assert_string_equal(d.items[0].question, "Where?");
    assert_string_equal(d.items[0].answer, "library");
    assert_int_equal(d.items[0].label, 1);
    assert_null(d.items[1].answer);
    assert_int_equal(d.items[1].label, 1); /* n_choices: unknown */
    assert_string_equal(d.task, "");
    fc_dataset_free(&d);
    /* OpenBookQA's additional file, ARC with numbered labels */
    assert_int_equal(
        read_text(
            &d,
            "{\"id\":\"7-1\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\","
            "\"label\":\"1\"},{\"text\":\"b\",\"label\":\"2\"},{\"text\":\"c\",\"label\":\"3\"}"
            "]},\"fact1\":\"the fact\",\"humanScore\":\"1.00\",\"answerKey\":\"3\"}",
            true, &err),
        FC_OK);
    assert_string_equal(d.items[0].answer, "c");
    assert_string_equal(d.items[0].rationale, "the fact");
    fc_dataset_free(&d);
}

static void boolq(void **state)
{
    (void)state;
    struct fc_dataset d;
    struct fc_error err;
    assert_int_equal(read_text(&d,
                               "{\"question\": \"is it so\", \"title\": \"T\", \"answer\": false, "
                               "\"passage\": \"It is not.\"}\n"
                               "{\"question\": \"is it?\", \"title\": \"T\", \"answer\": true, "
                               "\"passage\": \"It is.\"}\n",
                               true, &err),
                     FC_OK);
    assert_string_equal(d.items[0].question, "It is not.\nis it so?");
    assert_string_equal(d.items[0].answer, "no");
    assert_int_equal(d.items[0].label, 1);
    assert_int_equal(d.items[0].n_choices, 2);
    assert_string_equal(d.items[1].question, "It is.\nis it?");
    assert_string_equal(d.items[1].choices[d.items[1].label], "yes");
    fc_dataset_free(&d);
}

static void wrong_records_name_line_and_field(void **state)
{
    (void)state;
    refused("", "holds no examples");
    refused("\n\n", "holds no examples");
    refused("[1]\n", "line 1: expected a JSON object");
    refused("{\"id\": \"a\"}\n", "line 1: field \"question\" is missing");
    refused("{\"question\": \"\", \"answer\": \"x\"}", "field \"question\" is empty");
    refused("{\"question\": 3}", "field \"question\": expected a string, found a number");
    refused(OURS("a", "\"answer\": true"), "field \"answer\": expected a string");
    refused(OURS("a", "\"choices\": \"SECRET\""), "field \"choices\": expected an array");
    refused(OURS("a", "\"choices\": [\"x\", 2]"), "choice 2: expected a text");
    refused(OURS("a", "\"choices\": [\"x\", \"\"]"), "choice 2: expected a text, found an empty");
    refused(OURS("a", "\"choices\": [\"x\"], \"answer\": \"SECRET\""), "not among the choices");
    refused(OURS("a", "\"choices\": [\"x\"]"), "the answer is absent");
    refused(OURS("a", "\"choices\": []"), "field \"answer\" is missing");
    refused("{\"id\": 7, \"question\": \"q\", \"answer\": \"a\"}",
            "field \"id\": expected a string");
    refused("{\"id\": \"\", \"question\": \"q\", \"answer\": \"a\"}", "field \"id\" is empty");
    refused(OURS("a", "\"answer\": \"x\"") OURS("b", "\"answer\": \"x\"") OURS("a", "\"answer\": "
                                                                                    "\"x\""),
            "line 3: field \"id\": the same as on line 1");
    refused("{\"question\": \"q\", \"answer\": \"a\"}\n" OURS("line-1", "\"answer\": \"x\""),
            "line 2: field \"id\": the same as on line 1");
    refused("{\"question\": {\"stem\": \"q\", \"choices\": []}, \"answerKey\": \"A\"}",
            "expected 1 to 64 of them, found 0");
    refused("{\"question\": {\"stem\": \"q\", \"choices\": [{\"label\": \"A\", \"text\": \"x\"}]}, "
            "\"answerKey\": \"SECRET\"}",
            "names no choice");
    refused("{\"question\": {\"stem\": \"q\", \"choices\": [\"SECRET\"]}, \"answerKey\": \"A\"}",
            "field \"label\" is missing");
    refused("{\"question\": {\"stem\": \"q\", \"choices\": [{\"label\": \"A\", \"text\": \"x\"}]}, "
            "\"answerKey\": \"A\"}\n" OURS("b", "\"answer\": \"x\""),
            "line 2: field \"question\": expected an object");
    refused("{\"question\": \"q\", \"passage\": \"p\", \"answer\": \"yes\"}",
            "field \"answer\": expected true or false");
    refused("{\"question\": \"q\", \"passage\": \"p\"}", "the answer is absent");
}

static void more_choices_than_allowed(void **state)
{
    (void)state;
    for (size_t n = FC_DATASET_MAX_CHOICES; n <= FC_DATASET_MAX_CHOICES + 1; n++) {
        struct fc_text t = {0};
        fc_text_puts(&t, "{\"question\": \"q\", \"answer\": \"c0\", \"choices\": [");
        for (size_t i = 0; i < n; i++)
            fc_text_printf(&t, "%s\"c%zu\"", i ? "," : "", i);
        fc_text_puts(&t, "]}");
        struct fc_dataset d;
        struct fc_error err;
        assert_int_equal(read_text(&d, t.data, true, &err),
                         n > FC_DATASET_MAX_CHOICES ? FC_ERR_INPUT : FC_OK);
        fc_dataset_free(&d);
        fc_text_free(&t);
    }
}

static void broken_bytes(void **state)
{
    (void)state;
    refused("{\"question\": \"SECR", "line 1: not valid JSON");
    refused(OURS("a", "\"answer\": \"x\"") "{\"question\": \"SECRET", "line 2: not valid JSON");
    refused(OURS("a", "\"answer\": \"x\"} {"), "line 1: unexpected text after");
    refused(OURS("a", "\"answer\": \"\xFF\""), "line 1: not valid UTF-8 at byte");
    refused(OURS("a", "\"answer\": \"\xC3\""), "not valid UTF-8");
    refused(OURS("a", "\"answer\": \"\\ud800\""), "not valid JSON"); /* lone surrogate */
    refused(OURS("a\\u0000b", "\"answer\": \"x\""), "NUL");
    refused_bytes("{\"question\": \"a\0b\", \"answer\": \"x\"}", 34, "NUL");
    refused_bytes("{}\0\n", 4, "NUL");
    struct fc_dataset d;
    struct fc_error err;
    /* An escaped backslash before "u0000" is no NUL. */
    assert_int_equal(read_text(&d, OURS("a", "\"answer\": \"\\\\u0000\""), true, &err), FC_OK);
    assert_string_equal(d.items[0].answer, "\\u0000");
    fc_dataset_free(&d);
    err = (struct fc_error){0};
    assert_int_equal(fc_dataset_read(&d, "/nonexistent/d.jsonl", true, &err), FC_ERR_IO);
    err = (struct fc_error){0};
    assert_int_equal(fc_dataset_read(&d, "/tmp", true, &err), FC_ERR_INPUT);
}

/* Every prefix of a good file is read or refused, never more. */
static void every_truncation(void **state)
{
    (void)state;
    const char *whole = OURS("a", "\"choices\": [\"x\", \"y\"], \"answer\": \"x\"")
        OURS("b", "\"choices\": [\"\xC3\xA9\"], \"answer\": \"\\u00e9\"");
    size_t len = strlen(whole), good = 0;
    for (size_t n = 0; n <= len; n++) {
        struct fc_dataset d;
        struct fc_error err;
        good += read_bytes(&d, whole, n, true, &err) == FC_OK;
        fc_dataset_free(&d);
    }
    assert_int_equal(good, 4); /* one line and two lines, with and without the last newline */
}

static void lines_and_nesting_beyond_the_limits(void **state)
{
    (void)state;
    size_t len = FC_JSONL_MAX_LINE + 1;
    char *line = malloc(len);
    assert_non_null(line);
    memset(line, '[', len);
    refused_bytes(line, len, "line 1: 4194305 bytes, expected at most 4194304");
    refused_bytes(line, len - 1, "line 1: not valid JSON");
    memset(line, ' ', len);
    memcpy(line, "{\"question\":\"q\",\"answer\":\"", 26);
    memset(line + 26, 'a', len - 30);
    memcpy(line + len - 4, "\"}\n\n", 4);
    struct fc_dataset d;
    struct fc_error err;
    assert_int_equal(read_bytes(&d, line, len, true, &err), FC_OK);
    assert_int_equal(strlen(d.items[0].answer), len - 30);
    fc_dataset_free(&d);
    free(line);
}

/* A sparse file of more than 1 GiB is refused by its size, without being read. */
static void files_beyond_the_limit(void **state)
{
    (void)state;
    struct fc_dataset d;
    struct fc_error err = {0};
    assert_int_equal(truncate(path, (off_t)FC_JSONL_MAX_FILE + 1), 0);
    assert_int_equal(fc_dataset_read(&d, path, true, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "expected at most 1073741824"));
    assert_int_equal(truncate(path, 0), 0);
}

static void utf8(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len, valid;
    } cases[] = {
        {"", 0, 0},
        {"a\x7F", 2, 2},
        {"\xC2\x80\xDF\xBF", 4, 4},
        {"\xE0\xA0\x80\xEF\xBF\xBF", 6, 6},
        {"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 8, 8},
        {"a\x80", 2, 1},    /* continuation alone */
        {"\xC0\xAF", 2, 0}, /* overlong */
        {"\xC1\xBF", 2, 0},
        {"\xE0\x9F\xBF", 3, 0},     /* overlong */
        {"\xED\xA0\x80", 3, 0},     /* surrogate */
        {"\xF0\x8F\xBF\xBF", 4, 0}, /* overlong */
        {"\xF4\x90\x80\x80", 4, 0}, /* above U+10FFFF */
        {"\xF5\x80\x80\x80", 4, 0},
        {"ab\xE2\x82", 4, 2}, /* truncated */
        {"ab\xF0\x9F\x98", 5, 2},
        {"\xE2\x28\xA1", 3, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(fc_utf8_prefix(cases[i].bytes, cases[i].len), cases[i].valid);
}

/* The development data, where it is. */
static void development_data(void **state)
{
    (void)state;
    static const struct {
        const char *file, *task;
        size_t n, choices;
        bool rationales;
    } sets[] = {{"cqa/train.jsonl", "cqa", 9741, 5, true},
                {"cqa/dev.jsonl", "cqa", 1221, 5, false},
                {"arc_e/dev.jsonl", "arc_e", 2376, 4, false},
                {"gsm8k/train.jsonl", "gsm8k", 7473, 0, true}};
    const char *folder = getenv("FEDCOT_DATA");
    folder = folder ? folder : FC_GOLDEN_DIR "/../../../shared/data";
    if (!fc_is_folder(folder)) {
        print_message("skipped: no folder %s (set FEDCOT_DATA)\n", folder);
        skip();
    }
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        struct fc_error err = {0};
        struct fc_dataset d;
        char *file = fc_path_join(folder, sets[i].file, &err);
        assert_int_equal(fc_dataset_read(&d, file, true, &err), FC_OK);
        assert_int_equal(d.n, sets[i].n);
        assert_string_equal(d.task, sets[i].task);
        assert_int_equal(d.items[0].n_choices, sets[i].choices);
        assert_int_equal(d.items[0].rationale != NULL, sets[i].rationales);
        fc_dataset_free(&d);
        free(file);
    }
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd < 0) {
        perror(path);
        return 1;
    }
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_format),
        cmocka_unit_test(original_files_with_stems),
        cmocka_unit_test(boolq),
        cmocka_unit_test(wrong_records_name_line_and_field),
        cmocka_unit_test(more_choices_than_allowed),
        cmocka_unit_test(broken_bytes),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(lines_and_nesting_beyond_the_limits),
        cmocka_unit_test(files_beyond_the_limit),
        cmocka_unit_test(utf8),
        cmocka_unit_test(development_data),
    };
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
