/* Progress lines and metrics.jsonl. */
#define _GNU_SOURCE
#include "base/file.h"
#include "base/json.h"
#include "cli/metrics.h"
#include "cli/progress.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/fc_test_progress_XXXXXX";
static struct fc_error error;

static void durations_and_sizes(void **state)
{
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } durations[] = {{0.04, "0.0 s"}, {9.94, "9.9 s"}, {9.96, "10 s"},    {59.4, "59 s"},
                     {59.6, "1:00"},  {187, "3:07"},   {7387, "2:03:07"}, {-1, "?"},
                     {NAN, "?"},      {INFINITY, "?"}};
    static const struct {
        double bytes;
        const char *text;
    } sizes[] = {{0, "0 B"},
                 {1023, "1023 B"},
                 {1536, "1.5 KiB"},
                 {3221225472.0, "3.0 GiB"},
                 {1e18, "909494.7 TiB"}};
    char text[24];
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        fc_duration(durations[i].seconds, text);
        assert_string_equal(text, durations[i].text);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        fc_bytes(sizes[i].bytes, text);
        assert_string_equal(text, sizes[i].text);
    }
}

static void plain_lines_when_it_is_no_terminal(void **state)
{
    (void)state;
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    struct fc_progress p;
    fc_progress_begin(&p, out, "train", "steps", 200);
    assert_false(p.terminal);
    fc_progress_update(&p, 1, "loss %.1f", 3.25); /* too early for a line */
    p.shown -= 10;
    fc_progress_update(&p, 50, "loss %.1f", 1.5);
    fc_progress_message(&p, "checkpoint written");
    fc_progress_update(&p, 200, NULL);
    p.start -= 20;
    fc_progress_end(&p);
    fclose(out);

    char *text;
    size_t len;
    assert_int_equal(fc_file_read(path, 4096, &text, &len, &error), FC_OK);
    assert_string_equal(text, "train  25 %  50/200 steps  5.00 steps/s  30 s left  loss 1.5\n"
                              "checkpoint written\n"
                              "train  200 steps in 20 s  10.0 steps/s  loss 1.5\n");
    free(text);
}

static void a_very_long_name_and_note_are_cut(void **state)
{
    (void)state;
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    char name[400], note[300];
    memset(name, 'n', sizeof name - 1);
    memset(note, 'o', sizeof note - 1);
    name[sizeof name - 1] = note[sizeof note - 1] = '\0';
    struct fc_progress p;
    fc_progress_begin(&p, out, name, "units", SIZE_MAX);
    p.interval = 0;
    p.shown -= 1;
    fc_progress_update(&p, SIZE_MAX - 1, "%s", note);
    fc_progress_end(&p);
    assert_int_equal(fclose(out), 0);
}

static void metrics_are_one_object_a_line(void **state)
{
    (void)state;
    struct fc_metrics m = {0};
    const struct fc_metric values[] = {{"step", 3}, {"loss", 0.5}, {"norm", NAN}};
    assert_int_equal(fc_metrics_log(&m, "train", values, 3, &error), FC_OK); /* not open: dropped */
    assert_int_equal(fc_metrics_open(&m, path, false, &error), FC_OK);
    assert_int_equal(fc_metrics_log(&m, "train", values, 3, &error), FC_OK);
    cJSON *record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "text", "two\nlines");
    assert_int_equal(fc_metrics_record(&m, "note", record, &error), FC_OK);

    char *text; /* read while the file is still open: every line is flushed */
    size_t len;
    assert_int_equal(fc_file_read(path, 4096, &text, &len, &error), FC_OK);
    char *second = strchr(text, '\n') + 1;
    cJSON *first = fc_json_parse(text, (size_t)(second - text), path, &error);
    assert_non_null(first);
    assert_string_equal(cJSON_GetObjectItem(first, "kind")->valuestring, "train");
    assert_true(cJSON_GetObjectItem(first, "loss")->valuedouble == 0.5);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(first, "norm")));
    assert_true(cJSON_IsNumber(cJSON_GetObjectItem(first, "seconds")));
    assert_true(strchr(second, '\n') == text + len - 1);
    cJSON_Delete(first);
    free(text);
    assert_int_equal(fc_metrics_close(&m, &error), FC_OK);
}

/* A run killed in the middle of a line resumes after the last whole one. */
static void appending_drops_a_half_written_line(void **state)
{
    (void)state;
    static char long_line[10000];
    memset(long_line, 'x', sizeof long_line - 1);
    const char *const tails[] = {"", "{\"half", long_line};
    for (size_t i = 0; i < 3; i++) {
        for (int whole = 0; whole < 2; whole++) {
            FILE *file = fopen(path, "w");
            fprintf(file, "%s%s", whole ? "{\"a\":1}\n" : "", tails[i]);
            fclose(file);
            struct fc_metrics m;
            assert_int_equal(fc_metrics_open(&m, path, true, &error), FC_OK);
            assert_int_equal(fc_metrics_log(&m, "k", NULL, 0, &error), FC_OK);
            assert_int_equal(fc_metrics_close(&m, &error), FC_OK);
            char *text;
            size_t len;
            assert_int_equal(fc_file_read(path, 65536, &text, &len, &error), FC_OK);
            const char *begin = whole ? "{\"a\":1}\n{\"kind\":\"k\"" : "{\"kind\":\"k\"";
            assert_int_equal(strncmp(text, begin, strlen(begin)), 0);
            assert_true(len < 100);
            free(text);
        }
    }
}

static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    struct fc_metrics m;
    struct fc_error full = {0};
    if (access("/dev/full", W_OK) != 0)
        skip();
    assert_int_equal(fc_metrics_open(&m, "/dev/full", false, &full), FC_OK);
    assert_int_equal(fc_metrics_log(&m, "k", NULL, 0, &full), FC_ERR_IO);
    assert_non_null(strstr(full.text, "/dev/full"));
    fc_metrics_close(&m, NULL);
    struct fc_error none = {0};
    assert_int_equal(fc_metrics_open(&m, "/nonexistent/metrics.jsonl", true, &none), FC_ERR_IO);
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
        cmocka_unit_test(durations_and_sizes),
        cmocka_unit_test(plain_lines_when_it_is_no_terminal),
        cmocka_unit_test(a_very_long_name_and_note_are_cut),
        cmocka_unit_test(metrics_are_one_object_a_line),
        cmocka_unit_test(appending_drops_a_half_written_line),
        cmocka_unit_test(a_full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
