/* fedcot-bench: cases, samples, statistics, ceilings.
 *
 * A case sets itself up once and is then timed as nvbench does: warm-up, samples until the noise is
 * small or the time is up, median and noise printed beside the share of a measured ceiling. */
#ifndef FC_BENCH_BENCH_H
#define FC_BENCH_BENCH_H

#include "base/error.h"
#include "engine/model.h"

#include <cjson/cJSON.h>

struct fc_bench_context {
    struct fc_device dev;
    enum fc_dtype dtype;
    const char *model_path; /* NULL: random weights in the shape of SmolLM2-135M */
    double seconds;         /* most time for the samples of one measurement */
    size_t peak_size;       /* rows and columns of the products that measure the peak */
    double peak[3];         /* measured GEMM peak by dtype, FLOP/s; 0: not measured yet */
    cJSON *results;         /* array */
};

/* One measurement, filled by the case. */
struct fc_measurement {
    const char *name, *unit; /* "train step", "tokens/s" */
    double work;             /* units in one call: tokens */
    double flops;            /* necessary floating point operations of one call; 0: none stated */
};

/* One timed call. */
typedef enum fc_code fc_bench_fn(void *state, struct fc_error *err);

/* Times `call`: prints a line (median rate, noise, share of the GEMM peak) and adds it to
 * context->results. Noise is the median absolute deviation over the median. */
enum fc_code fc_bench_measure(struct fc_bench_context *c, const struct fc_measurement *m,
                              fc_bench_fn *call, void *state, struct fc_error *err);

/* The device's GEMM peak in this dtype, measured on first use: the median of square products of
 * random numbers (of zeros a GPU makes more, at less power). */
enum fc_code fc_bench_peak(struct fc_bench_context *c, enum fc_dtype dtype, double *flops,
                           struct fc_error *err);

/* A result that names its device and dtype, to be filled up. NULL: out of memory. */
cJSON *fc_bench_record(const struct fc_bench_context *c, const char *name, enum fc_dtype dtype);

/* The model of the cases: from context->model_path, or random. */
enum fc_code fc_bench_model(struct fc_bench_context *c, struct fc_model *m, struct fc_error *err);

/* The cases (bench/case_NAME.c). */
enum fc_code fc_case_gemm(struct fc_bench_context *c, struct fc_error *err);
enum fc_code fc_case_train(struct fc_bench_context *c, struct fc_error *err);
enum fc_code fc_case_generate(struct fc_bench_context *c, struct fc_error *err);
enum fc_code fc_case_perturb(struct fc_bench_context *c, struct fc_error *err);
enum fc_code fc_case_session(struct fc_bench_context *c, struct fc_error *err);
/* FC_ERR_INTERNAL when a kernel moves more than its limit, FC_ERR_UNSUPPORTED outside the
 * simulator. */
enum fc_code fc_case_counters(struct fc_bench_context *c, struct fc_error *err);

#endif
