/* The report: markup that is well formed and escaped whatever it is filled with, axes, and what it
 * leaves out. FEDCOT_REPORT_SAMPLE=FILE keeps the page with made-up figures, to look at. */
#define _GNU_SOURCE
#include "base/file.h"
#include "cli/report.h"
#include "cli/report_svg.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/fc_test_report_XXXXXX";

static char *written(const struct fc_report *r)
{
    struct fc_error err = {0};
    char *page;
    size_t len;
    assert_int_equal(fc_report_write(r, path, &err), FC_OK);
    assert_int_equal(fc_file_read(path, 16 << 20, &page, &len, &err), FC_OK);
    assert_int_equal(strlen(page), len);
    return page;
}

/* Every tag is closed in order, attributes are quoted, and no bare & or < is in the text. */
static void assert_well_formed(const char *page)
{
    static const char *const empty[] = {"!DOCTYPE", "meta"};
    char stack[64][16];
    size_t depth = 0;
    for (const char *p = page; *p;) {
        if (*p == '&') {
            size_t len = strcspn(p, "; \n<");
            assert_true(p[len] == ';' && len < 8);
        }
        if (*p != '<') {
            p++;
            continue;
        }
        bool closing = *++p == '/';
        p += closing;
        size_t len = strcspn(p, " />\n");
        assert_true(len > 0 && len < 16);
        char name[16];
        snprintf(name, sizeof name, "%.*s", (int)len, p);
        for (p += len; *p && *p != '>'; p++)
            if (*p == '"') {
                p = strchr(p + 1, '"');
                assert_non_null(p);
            } else {
                assert_true(*p != '<');
            }
        assert_int_equal(*p, '>');
        bool self = p[-1] == '/';
        p++;
        if (strcmp(name, "style") == 0 && !closing) /* its text is not markup */
            p = strstr(p, "</style>");
        bool is_empty = self;
        for (size_t i = 0; i < 2; i++)
            is_empty |= strcmp(name, empty[i]) == 0;
        if (closing) {
            assert_true(depth > 0);
            assert_string_equal(stack[--depth], name);
        } else if (!is_empty) {
            assert_true(depth < 64);
            strcpy(stack[depth++], name);
        }
    }
    assert_int_equal(depth, 0);
}

static const char hostile[] = "<script>alert(\"1\" & '2')</script>\x01\xFF\xC3";
static const char escaped[] = "&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt;"
                              "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD";

static void escaping(void **state)
{
    (void)state;
    struct fc_text out = {0};
    fc_html_escape(hostile, &out);
    assert_string_equal(out.data, escaped);
    fc_text_clear(&out);
    fc_html_escape("a\tb\n\xC3\xA9\xF0\x9F\x98\x80\x7F", &out);
    assert_string_equal(out.data, "a\tb\n\xC3\xA9\xF0\x9F\x98\x80\xEF\xBF\xBD");
    fc_text_free(&out);
}

static void axes_have_round_steps(void **state)
{
    (void)state;
    static const struct {
        double low, high, step, new_low, new_high;
        int wanted;
    } cases[] = {{0, 47.3, 10, 0, 50, 5},
                 {0, 1, 0.2, 0, 1, 5},
                 {0.013, 0.047, 0.01, 0.01, 0.05, 4},
                 {-3, 3, 1, -3, 3, 6},
                 {0, 0, 0.2, 0, 1, 5},
                 {5, 5, 1, 2, 8, 5},
                 {1, 1e6, 200000, 0, 1e6, 5},
                 {NAN, NAN, 0.2, 0, 1, 5},
                 {0, INFINITY, 0.2, 0, 1, 5},
                 {99.9, 100, 0.02, 99.9, 100, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double low = cases[i].low, high = cases[i].high, step;
        fc_nice_axis(&low, &high, cases[i].wanted, &step);
        assert_true(fabs(step - cases[i].step) < 1e-9 * step);
        assert_true(fabs(low - cases[i].new_low) < 1e-6 && fabs(high - cases[i].new_high) < 1e-6);
    }
}

/* A report with every part; `text` stands for each string. */
static void fill(struct fc_report *r, const char *text)
{
    static double steps[300], label[300], rationale[300], documents[400];
    static struct fc_report_series losses[2];
    static struct fc_report_accuracy accuracies[4];
    static struct fc_report_stage stages[5];
    static struct fc_report_privacy privacy;
    static struct fc_report_example examples[2];
    static struct fc_report_fact facts[2];
    static const char *notes[2];
    for (size_t i = 0; i < 300; i++) {
        double t = (double)i, wave = sin(t * 12.9898) * 43758.5453;
        wave -= floor(wave);
        steps[i] = t + 1;
        label[i] = 0.35 + 3.2 * exp(-t / 40) + 0.5 * (wave - 0.5) * exp(-t / 300);
        rationale[i] = 1.3 + 1.9 * exp(-t / 70) + 0.4 * (wave - 0.5);
    }
    label[17] = NAN;
    for (size_t i = 0; i < 400; i++)
        documents[i] = 6.004 * (double)(14 + (i * 7919) % 23 + (i * 104729) % 11);
    losses[0] = (struct fc_report_series){text ? text : "label", steps, label, 300};
    losses[1] = (struct fc_report_series){text ? text : "rationale", steps, rationale, 300};
    accuracies[0] = (struct fc_report_accuracy){text ? text : "before", 29, 100, false};
    accuracies[1] = (struct fc_report_accuracy){text ? text : "label only", 52, 100, false};
    accuracies[2] =
        (struct fc_report_accuracy){text ? text : "unprotected rationales", 61, 100, false};
    accuracies[3] = (struct fc_report_accuracy){text ? text : "FedCoT", 58, 100, true};
    const char *const names[] = {"perturb", "server", "receive", "decode", "train"};
    for (size_t i = 0; i < 5; i++)
        stages[i] = (struct fc_report_stage){text ? text : names[i],
                                             4.0 + 22.0 * (double)i,
                                             80.0 / (1 + (double)i),
                                             41000.0 * (double)(i + 1),
                                             300,
                                             i == 1 ? 212 : 0};
    privacy = (struct fc_report_privacy){6.0021,
                                         0.42,
                                         20,
                                         4096,
                                         documents,
                                         400,
                                         50123.4,
                                         60000,
                                         0,
                                         0,
                                         text ? text : "exponential mechanism, ranking E",
                                         text ? text : "nothing"};
    examples[0] = (struct fc_report_example){
        text ? text : "Tom has 5 apples. Ann has 9 apples. Of Ann and Tom, who has more?",
        text ? text : "Jim have 6 pears . Mary has 4 apple . Of Sue or Jim , what has most ?",
        text ? text : "Jim has 6 pears, and 6 is more than 4.",
        text ? text : "Ann has 9 apples, and 9 is more than 5, so the answer is Ann.",
        text ? text : "Ann",
        text ? text : "Tom",
        text ? text : "Ann"};
    examples[1] = examples[0];
    facts[0] = (struct fc_report_fact){text ? text : "generation", text ? text : "212 tokens/s"};
    facts[1] = (struct fc_report_fact){text ? text : "training", text ? text : "941 tokens/s"};
    notes[0] = notes[1] = text ? text : "Made-up figures: this page belongs to a test.";
    *r = (struct fc_report){.title = text ? text : "FedCoT on word_problems",
                            .subtitle = text ? text : "SmolLM2-135M-Instruct on both sides",
                            .date = text ? text : "2026-11-23 21:40 UTC",
                            .facts = facts,
                            .n_facts = 2,
                            .accuracies = accuracies,
                            .n_accuracies = 4,
                            .chance = 0.263,
                            .losses = losses,
                            .n_losses = 2,
                            .stages = stages,
                            .n_stages = 5,
                            .seconds = 104.2,
                            .privacy = &privacy,
                            .examples = examples,
                            .n_examples = 2,
                            .notes = notes,
                            .n_notes = 2};
}

static void a_full_page(void **state)
{
    (void)state;
    struct fc_report r;
    struct fc_error err = {0};
    fill(&r, NULL);
    cJSON *config = cJSON_CreateObject();
    cJSON_AddStringToObject(config, "model", "<&>");
    r.config = config;
    r.show_examples = true;
    char *page = written(&r);
    assert_well_formed(page);
    static const char *const expected[] = {
        "<title>FedCoT on word_problems</title>",
        "58.0 %",
        "+29.0 points",
        "48.2 \xE2\x80\x93 67.2 %", /* Wilson, 58 of 100 */
        "3.0 points below the best baseline, unprotected rationales. Their intervals overlap",
        "guessing (26.3 %)",
        "42.0 % (nearest 20 of 4096)",
        "\xCE\xB5 6.003", /* rounded up */
        "83.5 %",         /* of the budget */
        "212 tokens/s",
        "optimizer step",
        "&quot;&lt;&amp;&gt;&quot;",
        "Ann has 9 apples, and 9 is more than 5",
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        if (!strstr(page, expected[i]))
            fail_msg("\"%s\" is not in the page", expected[i]);
    /* Nothing is fetched from anywhere, and nothing is not a number. */
    assert_null(strstr(page, "http:"));
    assert_null(strstr(page, "https:"));
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "url("));
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "\"inf"));
    if (getenv("FEDCOT_REPORT_SAMPLE"))
        assert_int_equal(fc_file_write(getenv("FEDCOT_REPORT_SAMPLE"), page, strlen(page), &err),
                         FC_OK);
    cJSON_Delete(config);
    free(page);
}

static void examples_are_left_out_unless_asked_for(void **state)
{
    (void)state;
    struct fc_report r;
    fill(&r, NULL);
    char *page = written(&r);
    assert_null(strstr(page, "apples"));
    assert_null(strstr(page, "pears"));
    assert_null(strstr(page, "Examples"));
    free(page);
}

static void hostile_strings_everywhere(void **state)
{
    (void)state;
    struct fc_report r;
    fill(&r, hostile);
    r.show_examples = true;
    char *page = written(&r);
    assert_well_formed(page);
    assert_null(strstr(page, "<script"));
    assert_non_null(strstr(page, escaped));
    free(page);
}

/* Empty parts vanish; degenerate figures draw something finite. */
static void sparse_and_degenerate_reports(void **state)
{
    (void)state;
    struct fc_report r = {.title = ""};
    char *page = written(&r);
    assert_well_formed(page);
    assert_null(strstr(page, "<svg"));
    assert_null(strstr(page, "<h2>"));
    free(page);

    fill(&r, NULL);
    const double one[] = {1}, value[] = {2.5}, nothing[] = {NAN}, infinite[] = {INFINITY};
    const struct fc_report_series losses[] = {
        {"one point", one, value, 1}, {"none", NULL, NULL, 0}, {"holes", one, nothing, 1}};
    const struct fc_report_accuracy accuracies[] = {{"of nothing", 0, 0, true},
                                                    {"all", 5, 5, false}};
    const struct fc_report_stage stages[] = {{"idle", 0, 0, 0, 0, 0}};
    const struct fc_report_privacy privacy = {.epsilon_unit = INFINITY,
                                              .stay_near = -1,
                                              .documents = infinite,
                                              .n_documents = 1,
                                              .spent = 7,
                                              .budget = 5};
    r.losses = losses;
    r.n_losses = 3;
    r.accuracies = accuracies;
    r.n_accuracies = 2;
    r.stages = stages;
    r.n_stages = 1;
    r.privacy = &privacy;
    page = written(&r);
    assert_well_formed(page);
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "inf"));
    assert_non_null(strstr(page, "no bound"));
    assert_non_null(strstr(page, "140.0 %"));
    free(page);
}

static void a_page_that_cannot_be_written(void **state)
{
    (void)state;
    struct fc_report r = {.title = "t"};
    struct fc_error err = {0};
    assert_int_equal(fc_report_write(&r, "/nonexistent/report.html", &err), FC_ERR_IO);
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
        cmocka_unit_test(escaping),
        cmocka_unit_test(axes_have_round_steps),
        cmocka_unit_test(a_full_page),
        cmocka_unit_test(examples_are_left_out_unless_asked_for),
        cmocka_unit_test(hostile_strings_everywhere),
        cmocka_unit_test(sparse_and_degenerate_reports),
        cmocka_unit_test(a_page_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
