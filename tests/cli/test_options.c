/* Flags, job files and help: precedence, errors that name the flag, and what a run stores. */
#define _POSIX_C_SOURCE 200809L
#include "base/file.h"
#include "base/json.h"
#include "cli/options.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct flags {
    struct fc_model_flags model;
    struct fc_compute_flags compute;
    size_t steps, seed;
    double lr, top_p;
    bool resume, shuffle;
    int method;
    const char *output;
    struct fc_strings stop;
};

static const char *const methods[] = {"likelihood", "generate", NULL};
static const struct fc_option own_options[] = {
    {.name = "steps",
     .type = FC_OPT_SIZE,
     .offset = offsetof(struct flags, steps),
     .fallback = "100",
     .metavar = "N",
     .help = "optimizer steps",
     .min = 1,
     .max = 1000},
    {.name = "seed",
     .type = FC_OPT_SIZE,
     .offset = offsetof(struct flags, seed),
     .help = "of everything but privacy"},
    {.name = "lr",
     .type = FC_OPT_DOUBLE,
     .offset = offsetof(struct flags, lr),
     .fallback = "1e-3",
     .metavar = "X",
     .help = "learning rate",
     .min = 1e-9,
     .max = 0},
    {.name = "top-p",
     .type = FC_OPT_DOUBLE,
     .offset = offsetof(struct flags, top_p),
     .fallback = "1",
     .metavar = "P",
     .help = "nucleus",
     .max = 1},
    {.name = "resume",
     .type = FC_OPT_FLAG,
     .offset = offsetof(struct flags, resume),
     .help = "go on where a run stopped"},
    {.name = "shuffle",
     .type = FC_OPT_FLAG,
     .offset = offsetof(struct flags, shuffle),
     .fallback = "true",
     .help = "a new order in each epoch"},
    {.name = "method",
     .type = FC_OPT_CHOICE,
     .offset = offsetof(struct flags, method),
     .metavar = "NAME",
     .help = "how answers are found",
     .choices = methods},
    {.name = "output",
     .type = FC_OPT_STRING,
     .offset = offsetof(struct flags, output),
     .metavar = "DIR",
     .help = "a folder for the results, which are many and therefore described at a length that "
             "does not fit on one line"},
    {.name = "stop",
     .type = FC_OPT_STRINGS,
     .offset = offsetof(struct flags, stop),
     .metavar = "TEXT",
     .help = "ends generation"},
    {0}};
static const struct fc_option_group groups[] = {
    {"Model", fc_model_options, offsetof(struct flags, model)},
    {"Computation", fc_compute_options, offsetof(struct flags, compute)},
    {"Training", own_options, 0},
    {0}};
static const struct fc_command_spec spec = {.program = "fedcot",
                                            .name = "try",
                                            .summary = "Tries the parser.",
                                            .description = "First paragraph.\n\n  as it stands",
                                            .groups = groups};
static const struct fc_command_spec bare = {
    .program = "bench", .summary = "Runs cases.", .arguments = "[CASE...]"};

static struct flags flags;
static struct fc_options options;
static struct fc_error error;

/* Parses a NULL-terminated list of words; the results of the last parse are released first. */
static enum fc_code parse(const struct fc_command_spec *s, ...)
{
    char *argv[32] = {"try"};
    int argc = 1;
    va_list words;
    va_start(words, s);
    while (argc < 32 && (argv[argc] = va_arg(words, char *)))
        argc++;
    va_end(words);
    fc_options_free(&options);
    memset(&flags, 0x5a, sizeof flags);
    error = (struct fc_error){0};
    return fc_options_parse(&options, s, &flags, argc, argv, &error);
}

#define assert_refused(expected, ...)                                                              \
    do {                                                                                           \
        assert_int_equal(parse(&spec, __VA_ARGS__, NULL), FC_ERR_USAGE);                           \
        if (!strstr(error.text, expected))                                                         \
            fail_msg("expected \"%s\" in \"%s\"", expected, error.text);                           \
    } while (0)

static void defaults_fill_every_field(void **state)
{
    (void)state;
    assert_int_equal(parse(&spec, "--model", "m", NULL), FC_OK);
    assert_string_equal(flags.model.model, "m");
    assert_int_equal(flags.model.chat_format, 0);
    assert_string_equal(flags.compute.device, "auto");
    assert_int_equal(flags.compute.threads, 0);
    assert_int_equal(flags.compute.dtype, 1);
    assert_int_equal(flags.steps, 100);
    assert_int_equal(flags.seed, 0);
    assert_true(flags.lr == 1e-3 && flags.top_p == 1);
    assert_true(!flags.resume && flags.shuffle);
    assert_int_equal(flags.method, 0);
    assert_null(flags.output);
    assert_int_equal(flags.stop.n, 0);
    assert_false(options.json || options.done);
    assert_int_equal(fc_options_source(&options, "steps"), FC_FROM_DEFAULT);
}

static void every_form_of_flag(void **state)
{
    (void)state;
    assert_int_equal(parse(&spec, "--model=a=b", "--steps", "7", "--lr=-0", "--json", NULL),
                     FC_ERR_USAGE);
    assert_int_equal(parse(&spec, "--model=a=b", "--steps", "7", "--lr=2.5e-4", "--resume",
                           "--no-shuffle", "--method", "generate", "--dtype=fp32", "--stop", "\n",
                           "--stop=", "--output", "-", "--json", "--seed", "18446744073709551615",
                           NULL),
                     FC_OK);
    assert_string_equal(flags.model.model, "a=b");
    assert_int_equal(flags.steps, 7);
    assert_true(flags.lr == 2.5e-4);
    assert_true(flags.resume && !flags.shuffle && options.json);
    assert_int_equal(flags.method, 1);
    assert_int_equal(flags.compute.dtype, 0);
    assert_int_equal(flags.stop.n, 2);
    assert_string_equal(flags.stop.items[0], "\n");
    assert_string_equal(flags.stop.items[1], "");
    assert_string_equal(flags.output, "-");
    assert_true(flags.seed == UINT64_MAX);
    assert_int_equal(fc_options_source(&options, "steps"), FC_FROM_FLAG);
    assert_int_equal(fc_options_source(&options, "threads"), FC_FROM_DEFAULT);
}

static void wrong_flags_say_what_was_expected(void **state)
{
    (void)state;
    assert_refused("--model M is missing", "--json");
    assert_refused("unknown flag --stesp; did you mean --steps?", "--model", "m", "--stesp=3");
    assert_refused("did you mean --chat-format?", "--model", "m", "--chat");
    assert_refused("unknown flag --zzzz", "--zzzz");
    assert_null(strstr(error.text, "did you mean"));
    assert_refused("--steps: expected a whole number from 1 to 1000, found 0", "--steps", "0");
    assert_refused("found -1", "--steps", "-1");
    assert_refused("found  1", "--steps", " 1");
    assert_refused("found 1x", "--steps", "1x");
    assert_refused("found ", "--steps", "");
    assert_refused("--seed: expected a whole number", "--seed", "18446744073709551616");
    assert_refused("--lr: expected a number of at least 1e-09, found nan", "--lr", "nan");
    assert_refused("--top-p: expected a number from 0 to 1, found inf", "--top-p", "inf");
    assert_refused("expected one of likelihood, generate; found Generate", "--method", "Generate");
    assert_refused("--resume takes no value", "--resume=true");
    assert_refused("unknown flag --no-steps", "--no-steps");
    assert_refused("--model needs a value: --model M", "--model");
    assert_refused("--model needs a value", "--model", "--json");
    assert_refused("unexpected argument extra", "--model", "m", "extra");
    assert_refused("unknown flag -v", "-v");
    char longest[300];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    longest[0] = longest[1] = '-';
    assert_refused("unknown flag --xxx", longest);
}

static void arguments_follow_where_the_command_takes_them(void **state)
{
    (void)state;
    assert_int_equal(parse(&bare, "gemm", "--json", "--", "--train", "-", NULL), FC_OK);
    assert_int_equal(options.n_arguments, 3);
    assert_string_equal(options.arguments[0], "gemm");
    assert_string_equal(options.arguments[1], "--train");
    assert_string_equal(options.arguments[2], "-");
    assert_true(options.json);
}

static char job_path[] = "/tmp/fc_test_options_XXXXXX";

static void write_job(const char *text)
{
    assert_int_equal(fc_file_write(job_path, text, strlen(text), &error), FC_OK);
}

#define assert_job_refused(job, expected)                                                          \
    do {                                                                                           \
        write_job(job);                                                                            \
        assert_refused(expected, "--config", job_path);                                            \
    } while (0)

static void flags_win_over_the_file_and_the_file_over_defaults(void **state)
{
    (void)state;
    write_job("{\"steps\": 5, \"lr\": 0.5, \"stop\": [\"a\", \"b\"], \"output\": \"out\", "
              "\"seed\": \"18446744073709551615\", \"resume\": null,"
              "\"try\": {\"model\": \"m\", \"lr\": 0.25, \"shuffle\": false, \"method\": "
              "\"generate\", \"json\": true}}");
    assert_int_equal(parse(&spec, "--steps", "9", "--config", job_path, "--stop", "c", NULL),
                     FC_OK);
    assert_int_equal(flags.steps, 9);
    assert_true(flags.lr == 0.25 && flags.seed == UINT64_MAX);
    assert_int_equal(flags.stop.n, 1);
    assert_string_equal(flags.stop.items[0], "c");
    assert_true(!flags.shuffle && !flags.resume && options.json);
    assert_int_equal(flags.method, 1);
    assert_int_equal(fc_options_source(&options, "lr"), FC_FROM_FILE);
    assert_int_equal(fc_options_source(&options, "resume"), FC_FROM_DEFAULT);
    assert_int_equal(parse(&spec, "--config", job_path, NULL), FC_OK);
    assert_int_equal(flags.stop.n, 2);
}

static void wrong_job_files_are_refused(void **state)
{
    (void)state;
    assert_job_refused("{\"stepz\": 5}", "unknown key stepz; did you mean steps?");
    assert_job_refused("{\"steps\": 5.5}", "steps: expected a whole number from 1 to 1000");
    assert_job_refused("{\"steps\": 1e300}", "steps: expected a whole number");
    assert_job_refused("{\"steps\": -1}", "found -1");
    assert_job_refused("{\"steps\": [5]}", "steps: expected a number");
    assert_job_refused("{\"resume\": \"yes\"}", "resume: expected true or false");
    assert_job_refused("{\"output\": 3}", "output: expected a string");
    assert_job_refused("{\"stop\": [3]}", "stop: expected a list of strings");
    assert_job_refused("{\"method\": \"x\"}", "method: expected one of likelihood, generate");
    assert_job_refused("{\"config\": \"x\"}", "the key config is not for a job file");
    assert_job_refused("{\"tyr\": {\"steps\": 5}}", "unknown key tyr");
    assert_job_refused("{\"try\": {\"steps\": {}}}", "steps: expected a number");
    assert_job_refused("{\"try\": {\"try\": {}}}", "unknown key try");
    assert_job_refused("[1]", "expected a JSON object");
    write_job("{\"steps\": ");
    assert_int_equal(parse(&spec, "--config", job_path, NULL), FC_ERR_INPUT);
    assert_int_equal(parse(&spec, "--config", "/nonexistent/job.json", NULL), FC_ERR_IO);
}

/* What a run stores is a job file that gives the same configuration again. */
static void the_effective_configuration_repeats_the_run(void **state)
{
    (void)state;
    struct fc_command_spec nameless = spec;
    nameless.name = NULL;
    assert_int_equal(parse(&nameless, "--model", "m \"q\"", "--lr", "0.1", "--seed",
                           "9007199254740993", "--stop", "x", "--no-shuffle", "--steps", "3", NULL),
                     FC_OK);
    cJSON *first = fc_options_to_json(&options, &error);
    assert_non_null(first);
    char *text = fc_json_print(first, &error);
    write_job(text);
    assert_int_equal(parse(&nameless, "--config", job_path, NULL), FC_OK);
    assert_true(flags.lr == 0.1 && flags.seed == 9007199254740993u && flags.steps == 3);
    assert_false(flags.shuffle);
    cJSON *second = fc_options_to_json(&options, &error);
    char *again = fc_json_print(second, &error);
    assert_string_equal(text, again);
    cJSON_Delete(first);
    cJSON_Delete(second);
    free(text);
    free(again);

    assert_int_equal(parse(&spec, "--model", "m", NULL), FC_OK);
    cJSON *named = fc_options_to_json(&options, &error);
    assert_true(cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(named, "try")));
    cJSON_Delete(named);
}

static void help_is_complete_and_fits(void **state)
{
    (void)state;
    struct fc_text help = {0};
    fc_options_help(&spec, 72, &help);
    assert_int_equal(fc_text_check(&help, NULL), FC_OK);
    assert_non_null(strstr(help.data, "Usage: fedcot try --model M [FLAGS]\n"));
    for (const struct fc_option_group *g = groups; g->options; g++) {
        assert_non_null(strstr(help.data, g->title));
        for (const struct fc_option *p = g->options; p->name; p++) {
            char flag[64];
            snprintf(flag, sizeof flag,
                     p->fallback && !strcmp(p->fallback, "true") ? "--[no-]%s" : "--%s", p->name);
            assert_non_null(strstr(help.data, flag));
        }
    }
    assert_non_null(strstr(help.data, "  --seed N "));
    assert_non_null(strstr(help.data, "(default: 1e-3)"));
    assert_non_null(strstr(help.data, "; one of likelihood,"));
    assert_non_null(strstr(help.data, "\n  as it stands\n"));
    assert_non_null(strstr(help.data, "Exit status:\n  0  ok"));
    for (const char *line = help.data; *line;) {
        size_t len = strcspn(line, "\n");
        assert_true(len <= 72);
        assert_true(len == 0 || line[len - 1] != ' ');
        line += len + (line[len] == '\n');
    }
    fc_text_free(&help);
}

static void nearest_names(void **state)
{
    (void)state;
    const char *const names[] = {"serve", "distill", "perturb", "train", "eval"};
    assert_string_equal(fc_nearest("sevre", names, 5), "serve");
    assert_string_equal(fc_nearest("distil", names, 5), "distill");
    assert_string_equal(fc_nearest("trian", names, 5), "train");
    assert_null(fc_nearest("evaluation", names, 4));
    assert_null(fc_nearest("", names, 5));
    assert_null(fc_nearest("x", names, 5));
}

static int remove_job(void **state)
{
    (void)state;
    fc_options_free(&options);
    return unlink(job_path);
}

int main(void)
{
    int fd = mkstemp(job_path);
    if (fd < 0) {
        perror(job_path);
        return 1;
    }
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_every_field),
        cmocka_unit_test(every_form_of_flag),
        cmocka_unit_test(wrong_flags_say_what_was_expected),
        cmocka_unit_test(arguments_follow_where_the_command_takes_them),
        cmocka_unit_test(flags_win_over_the_file_and_the_file_over_defaults),
        cmocka_unit_test(wrong_job_files_are_refused),
        cmocka_unit_test(the_effective_configuration_repeats_the_run),
        cmocka_unit_test(help_is_complete_and_fits),
        cmocka_unit_test(nearest_names),
    };
    return cmocka_run_group_tests(tests, NULL, remove_job);
}
