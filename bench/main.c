/* The program `fedcot-bench`: runs cases and prints medians, noise and shares of the ceiling. */
#include "base/file.h"
#include "bench/bench.h"
#include "cli/metrics.h"
#include "cli/openmp.h"
#include "cli/options.h"
#include "cli/session.h"

#include <string.h>

static const struct bench_case {
    const char *name, *summary;
    enum fc_code (*run)(struct fc_bench_context *c, struct fc_error *err);
    bool named; /* runs only when it is named */
} cases[] = {
    {"gemm", "peak of matrix products in each dtype", fc_case_gemm, false},
    {"train", "one optimizer step on a ragged batch of two tasks", fc_case_train, false},
    {"generate", "32 requests after a shared prefix", fc_case_generate, false},
    {"perturb", "exact sampling with the embedding ranking", fc_case_perturb, false},
    {"session", "handshake, and exchanges encrypted against clear", fc_case_session, false},
    {"counters", "memory that the CUDA kernels touch, on the simulator", fc_case_counters, true},
    {0},
};

struct bench_flags {
    struct fc_compute_flags compute;
    const char *model, *output;
    double seconds;
    size_t peak_size;
};

#define FIELD(name) offsetof(struct bench_flags, name)

static const struct fc_option bench_options[] = {
    {.name = "model",
     .type = FC_OPT_STRING,
     .offset = FIELD(model),
     .metavar = "M",
     .help = "model to measure; without it, random weights in the shape of SmolLM2-135M"},
    {.name = "output",
     .type = FC_OPT_STRING,
     .offset = FIELD(output),
     .metavar = "FILE",
     .help = "write the results as JSON"},
    {.name = "seconds",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(seconds),
     .fallback = "30",
     .metavar = "S",
     .help = "most time for the samples of one measurement",
     .min = 0.1,
     .max = 1e6},
    {.name = "peak-size",
     .type = FC_OPT_SIZE,
     .offset = FIELD(peak_size),
     .fallback = "0",
     .metavar = "N",
     .help = "rows and columns of the products that measure the GEMM peak; 0: 2048 on the CPU, "
             "8192 on a GPU",
     .min = 0,
     .max = 65536},
    {0}};

static const struct fc_option_group groups[] = {
    {"Measurement", bench_options, 0}, {"Computation", fc_compute_options, FIELD(compute)}, {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot-bench",
    .summary = "Measure throughput against this machine's own ceilings",
    .description =
        "Cases: gemm, train, generate, perturb, session; all of these when none is named. counters "
        "compares the memory that each CUDA kernel touches with what it must, on the "
        "GPU simulator, and fails where a kernel passes its limit.\n\n"
        "Each figure is the median of several samples after a warm-up; noise is the "
        "median absolute deviation over the median. FLOPs are the necessary ones: no "
        "padding, logits at target positions only, backward twice forward. Compare "
        "shares of the peak of one run, not absolute times of different machines.",
    .groups = groups,
    .arguments = "[CASE...]",
};

/* The case of a name, NULL with FC_ERR_USAGE if there is none. */
static const struct bench_case *find_case(const char *name, struct fc_error *err)
{
    for (const struct bench_case *b = cases; b->name; b++)
        if (strcmp(b->name, name) == 0)
            return b;
    fc_fail(err, FC_ERR_USAGE,
            "unknown case \"%s\"; the cases are gemm, train, generate, perturb, session, "
            "counters",
            name);
    return NULL;
}

static enum fc_code run_case(struct fc_bench_context *c, const struct bench_case *b,
                             struct fc_error *err)
{
    printf("-- %s: %s\n", b->name, b->summary);
    fflush(stdout);
    return b->run(c, err);
}

/* The named cases, or all of them; a wrong name is found before any of them runs. */
static enum fc_code run_cases(struct fc_bench_context *c, const struct fc_options *options,
                              struct fc_error *err)
{
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < options->n_arguments; i++)
        if (!find_case(options->arguments[i], err))
            return FC_ERR_USAGE;
    for (size_t i = 0; i < options->n_arguments && code == FC_OK; i++)
        code = run_case(c, find_case(options->arguments[i], err), err);
    if (options->n_arguments == 0)
        for (const struct bench_case *b = cases; b->name && code == FC_OK; b++)
            if (!b->named)
                code = run_case(c, b, err);
    return code;
}

static enum fc_code write_results(const struct fc_bench_context *c, const char *path,
                                  struct fc_error *err)
{
    struct fc_atomic_file out;
    enum fc_code code = fc_atomic_open(&out, path, err);
    if (code != FC_OK)
        return code;
    code = fc_print_json_line(out.stream, c->results, err);
    if (code == FC_OK)
        return fc_atomic_commit(&out, err);
    fc_atomic_abort(&out);
    return code;
}

static enum fc_code run(int argc, char **argv, struct fc_error *err)
{
    struct bench_flags flags;
    struct fc_options options = {0};
    struct fc_bench_context c = {0};
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    c.dtype = (enum fc_dtype)flags.compute.dtype;
    c.model_path = flags.model;
    c.seconds = flags.seconds;
    c.results = cJSON_CreateArray();
    if (!c.results)
        code = fc_fail(err, FC_ERR_MEMORY, "results: out of memory");
    if (code == FC_OK)
        code = fc_session_device(&c.dev, &flags.compute, err);
    c.peak_size = flags.peak_size;
    if (code == FC_OK && c.peak_size == 0)
        c.peak_size = strcmp(c.dev.name, "cpu") == 0 ? 2048 : 8192;
    if (code == FC_OK)
        code = run_cases(&c, &options, err);
    if (code == FC_OK && flags.output)
        code = write_results(&c, flags.output, err);
    if (code == FC_OK && options.json)
        code = fc_print_json_line(stdout, c.results, err);
cleanup:
    cJSON_Delete(c.results);
    fc_device_close(&c.dev);
    fc_options_free(&options);
    return code;
}

int main(int argc, char **argv)
{
    fc_openmp_settle(argv);
    struct fc_error err = {0};
    enum fc_code code = run(argc, argv, &err);
    if (code != FC_OK)
        fprintf(stderr, "fedcot-bench: %s\n", err.text[0] ? err.text : fc_code_name(code));
    return (int)code;
}
