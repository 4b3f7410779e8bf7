/* Templates: what they may name, what they insert, and the built-in texts. */
#define _GNU_SOURCE
#include "base/file.h"
#include "models/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/fc_test_template_XXXXXX";
static const char *const fields[] = {"question", "choices"};

static void renders(const char *text, const char *expected)
{
    struct fc_error err = {0};
    struct fc_template *t;
    struct fc_text out = {0};
    const char *const values[] = {"Q {{choices}}", "a, b"};
    assert_int_equal(fc_template_compile(&t, text, "test", fields, 2, &err), FC_OK);
    fc_text_puts(&out, "> "); /* appended to */
    assert_int_equal(fc_template_render(t, values, &out, &err), FC_OK);
    assert_string_equal(out.data + 2, expected);
    fc_text_free(&out);
    fc_template_free(t);
}

static void refused(const char *text, const char *expected)
{
    struct fc_error err = {0};
    struct fc_template *t;
    assert_int_equal(fc_template_compile(&t, text, "test", fields, 2, &err), FC_ERR_INPUT);
    assert_null(t);
    if (!strstr(err.text, expected))
        fail_msg("expected \"%s\" in \"%s\"", expected, err.text);
}

static void fields_are_inserted_as_they_are(void **state)
{
    (void)state;
    renders("", "");
    renders("no field", "no field");
    renders("{{question}}", "Q {{choices}}");
    renders("Q: {{question}}\n{{ choices }}!", "Q: Q {{choices}}\na, b!");
    renders("{{choices}}{{choices}}", "a, ba, b");
    renders("{ } }} {a} {", "{ } }} {a} {");
    renders("{{{{question}}", "{{question}}");
    renders("{{{{{{question}}", "{{Q {{choices}}");
    renders("a {{{{ b {{choices}} }}", "a {{ b a, b }}");
}

static void unknown_fields_and_open_braces_are_refused(void **state)
{
    (void)state;
    refused("ab {{answer}}", "test: byte 3: {{answer}} is not a field of this text, which may name "
                             "{{question}}, {{choices}}");
    refused("{{Question}}", "is not a field");
    refused("{{}}", "{{}} is not a field");
    refused("{{question", "byte 0: \"{{\" without \"}}\"");
    refused("{{question}} {{", "byte 13");
    refused("{{question} }", "without");
    refused("{{{question}}", "is not a field");
    refused("{{questions}}", "is not a field");
    refused("{{\n}}", "is not a field");
    refused("a \xFF", "not valid UTF-8 at byte 2");
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "{{", 2);
    memcpy(longest + sizeof longest - 3, "}}", 3);
    refused(longest, "is not a field");
}

static char *text_of(const struct fc_template *t, const char *const *values)
{
    struct fc_text out = {0};
    struct fc_error err = {0};
    assert_int_equal(fc_template_render(t, values, &out, &err), FC_OK);
    return out.data;
}

static void built_in_texts(void **state)
{
    (void)state;
    for (int choices = 0; choices < 2; choices++) {
        struct fc_error err = {0};
        struct fc_task_templates t;
        assert_int_equal(fc_task_templates_open(&t, choices, NULL, &err), FC_OK);
        const char *const example[] = {"<q>", "<c>"}, *const perturbed[] = {"<p>"};
        const char *const all[] = {"<q>", "<c>", "<p>", "<r>"};
        char *perturb = text_of(t.perturb, example), *instruct = text_of(t.instruct, perturbed);
        char *decode = text_of(t.decode, all);
        char *predict = text_of(t.predict, example), *explain = text_of(t.explain, example);
        assert_string_equal(perturb, choices ? "<q> <c>" : "<q>");
        assert_non_null(strstr(instruct, "<p>"));
        assert_null(strstr(instruct, "<q>"));
        assert_true(strstr(decode, "<q>") && strstr(decode, "<p>") && strstr(decode, "<r>"));
        assert_string_equal(predict, "Q: <q>\nA:");
        /* Two tasks, two prompts: the model must know which one is asked. */
        assert_string_not_equal(predict, explain);
        free(perturb);
        free(instruct);
        free(decode);
        free(predict);
        free(explain);
        fc_task_templates_free(&t);
    }
}

static enum fc_code open_file(struct fc_task_templates *t, const char *json, struct fc_error *err)
{
    *err = (struct fc_error){0};
    assert_int_equal(fc_file_write(path, json, strlen(json), err), FC_OK);
    return fc_task_templates_open(t, true, path, err);
}

static void a_file_replaces_some_texts(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_task_templates t;
    assert_int_equal(
        open_file(&t, "{\"predict\": \"{{question}} ({{choices}})\", \"explain\": null}", &err),
        FC_OK);
    const char *const example[] = {"<q>", "<c>"};
    char *predict = text_of(t.predict, example), *explain = text_of(t.explain, example);
    assert_string_equal(predict, "<q> (<c>)");
    assert_string_equal(explain, "Q: <q>\nExplanation:");
    free(predict);
    free(explain);
    fc_task_templates_free(&t);
}

/* The server's text cannot name what is private: it is refused before any data is read. */
static void a_file_cannot_send_raw_fields(void **state)
{
    (void)state;
    static const char *const raw[] = {"question", "choices", "answer", "rationale", "id"};
    for (size_t i = 0; i < sizeof raw / sizeof raw[0]; i++) {
        char json[200];
        struct fc_error err;
        struct fc_task_templates t;
        snprintf(json, sizeof json, "{\"instruct\": \"{{perturbed}} {{%s}}\"}", raw[i]);
        assert_int_equal(open_file(&t, json, &err), FC_ERR_INPUT);
        assert_non_null(strstr(err.text, "instruct: byte 14"));
        assert_non_null(strstr(err.text, "may name {{perturbed}}"));
        assert_null(t.instruct);
    }
}

static void wrong_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *expected;
    } cases[] = {
        {"[]", "expected a JSON object of texts"},
        {"{\"predikt\": \"\"}", "unknown text \"predikt\""},
        {"{\"predict\": 3}", "field \"predict\": expected a string"},
        {"{\"predict\": \"Answer:\"}", "predict: does not name {{question}}"},
        {"{\"instruct\": \"Explain.\"}", "instruct: does not name {{perturbed}}"},
        {"{\"decode\": \"{{question}}\"}", "decode: does not name {{rationale}}"},
        {"{\"predict\": \"{{question\"}", "without"},
        {"{\"predict\": ", "not valid JSON"},
    };
    struct fc_error err;
    struct fc_task_templates t;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(open_file(&t, cases[i].json, &err), FC_ERR_INPUT);
        if (!strstr(err.text, cases[i].expected))
            fail_msg("expected \"%s\" in \"%s\"", cases[i].expected, err.text);
    }
    err = (struct fc_error){0};
    assert_int_equal(fc_task_templates_open(&t, true, "/nonexistent", &err), FC_ERR_IO);
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
        cmocka_unit_test(fields_are_inserted_as_they_are),
        cmocka_unit_test(unknown_fields_and_open_braces_are_refused),
        cmocka_unit_test(built_in_texts),
        cmocka_unit_test(a_file_replaces_some_texts),
        cmocka_unit_test(a_file_cannot_send_raw_fields),
        cmocka_unit_test(wrong_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
