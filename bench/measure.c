#include "base/clock.h"
#include "base/memory.h"
#include "base/philox.h"
#include "bench/bench.h"
#include "models/model_file.h"

#include <math.h>
#include <string.h>

#define MAX_SAMPLES 200
#define MIN_SAMPLES 5
#define WANTED_NOISE 0.005

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, size_t n)
{
    double sorted[MAX_SAMPLES];
    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    return n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
}

static double noise_of(const double *values, size_t n, double middle)
{
    double deviations[MAX_SAMPLES];
    for (size_t i = 0; i < n; i++)
        deviations[i] = fabs(values[i] - middle);
    return median(deviations, n) / middle;
}

struct samples {
    double seconds[MAX_SAMPLES];
    size_t n;
    double median, noise;
    bool converged;
};

/* Warm-up, then samples until the noise is small or the time is up. */
static enum fc_code take_samples(struct samples *s, double limit, fc_bench_fn *call, void *state,
                                 struct fc_error *err)
{
    *s = (struct samples){0};
    enum fc_code code = call(state, err);
    double begin = fc_now();
    while (code == FC_OK && s->n < MAX_SAMPLES) {
        double start = fc_now();
        code = call(state, err);
        s->seconds[s->n++] = fc_now() - start;
        s->median = median(s->seconds, s->n);
        s->noise = noise_of(s->seconds, s->n, s->median);
        s->converged = s->n >= MIN_SAMPLES && s->noise < WANTED_NOISE;
        if (s->converged || (fc_now() - begin > limit && s->n >= 3))
            break;
    }
    return code;
}

cJSON *fc_bench_record(const struct fc_bench_context *c, const char *name, enum fc_dtype dtype)
{
    char text[256];
    fc_device_describe(&c->dev, text, sizeof text);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", name);
    cJSON_AddStringToObject(o, "device", c->dev.name);
    cJSON_AddStringToObject(o, "device_name", text);
    cJSON_AddStringToObject(o, "dtype", fc_dtype_name(dtype));
    return o;
}

enum fc_code fc_bench_measure(struct fc_bench_context *c, const struct fc_measurement *m,
                              fc_bench_fn *call, void *state, struct fc_error *err)
{
    struct samples s;
    double peak = 0;
    enum fc_code code = m->flops > 0 ? fc_bench_peak(c, c->dtype, &peak, err) : FC_OK;
    if (code == FC_OK)
        code = take_samples(&s, c->seconds, call, state, err);
    if (code != FC_OK)
        return code;
    printf("%-34s %10.1f %-10s noise %4.1f %%  %3zu samples", m->name, m->work / s.median, m->unit,
           100 * s.noise, s.n);
    if (peak > 0)
        printf("  %6.1f GFLOP/s  %5.1f %% of GEMM peak", m->flops / s.median * 1e-9,
               100 * m->flops / s.median / peak);
    printf("%s\n", s.converged ? "" : "  (stopped on time, not on noise)");
    fflush(stdout);
    cJSON *o = fc_bench_record(c, m->name, c->dtype);
    cJSON_AddStringToObject(o, "unit", m->unit);
    cJSON_AddNumberToObject(o, "rate", m->work / s.median);
    cJSON_AddNumberToObject(o, "median_seconds", s.median);
    cJSON_AddNumberToObject(o, "noise", s.noise);
    cJSON_AddNumberToObject(o, "samples", (double)s.n);
    cJSON_AddBoolToObject(o, "converged", s.converged);
    if (peak > 0) {
        cJSON_AddNumberToObject(o, "flops_per_second", m->flops / s.median);
        cJSON_AddNumberToObject(o, "gemm_peak", peak);
        cJSON_AddNumberToObject(o, "share_of_peak", m->flops / s.median / peak);
    }
    cJSON_AddItemToArray(c->results, o);
    return FC_OK;
}

struct product {
    struct fc_device *dev;
    struct fc_gemm g;
};

static enum fc_code multiply(void *state, struct fc_error *err)
{
    struct product *p = state;
    p->dev->k->gemm(p->dev->stream, &p->g);
    return p->dev->k->sync(p->dev->stream, err);
}

/* Random numbers in n elements, a block of them over and over. */
static enum fc_code fill(struct fc_device *dev, void *p, size_t n, enum fc_dtype dtype,
                         struct fc_error *err)
{
    enum { BLOCK = 1 << 18 };
    enum fc_code code = FC_ERR_MEMORY;
    float *host = fc_alloc(BLOCK, sizeof *host, "random numbers", err);
    float *block = fc_device_alloc(dev, BLOCK * sizeof *block, FC_MEM_STAGING, err);
    if (!host || !block)
        goto cleanup;
    for (size_t i = 0; i < BLOCK; i++)
        host[i] = fc_philox_uniform(5, 0, i) - 0.5f;
    dev->k->upload(dev->stream, block, host, BLOCK * sizeof *block);
    for (size_t at = 0; at < n; at += BLOCK)
        dev->k->cast(dev->stream, (char *)p + at * fc_dtype_size(dtype), dtype, block, FC_F32,
                     n - at < BLOCK ? n - at : BLOCK);
    code = dev->k->sync(dev->stream, err);
cleanup:
    fc_device_free(dev, block, BLOCK * sizeof *block, FC_MEM_STAGING);
    free(host);
    return code;
}

enum fc_code fc_bench_peak(struct fc_bench_context *c, enum fc_dtype dtype, double *flops,
                           struct fc_error *err)
{
    const size_t n = c->peak_size;
    size_t bytes = n * n * fc_dtype_size(dtype);
    *flops = c->peak[dtype];
    if (*flops > 0)
        return FC_OK;
    void *matrices[3] = {0};
    enum fc_code code = FC_OK;
    for (int i = 0; i < 3 && code == FC_OK; i++) {
        matrices[i] = fc_device_alloc(&c->dev, bytes, FC_MEM_ACTIVATIONS, err);
        code = matrices[i] ? fill(&c->dev, matrices[i], n * n, dtype, err) : FC_ERR_MEMORY;
    }
    struct product p = {&c->dev,
                        {.a = matrices[0],
                         .b = matrices[1],
                         .y = matrices[2],
                         .m = n,
                         .n = n,
                         .k = n,
                         .lda = n,
                         .ldb = n,
                         .ldy = n,
                         .type = dtype,
                         .y_type = dtype}};
    struct samples s;
    if (code == FC_OK)
        code = take_samples(&s, c->seconds, multiply, &p, err);
    if (code == FC_OK) {
        char name[64];
        *flops = c->peak[dtype] = 2.0 * (double)n * (double)n * (double)n / s.median;
        snprintf(name, sizeof name, "GEMM peak %s %zu^3", fc_dtype_name(dtype), n);
        printf("%-34s %10.1f %-10s noise %4.1f %%  %3zu samples\n", name, *flops * 1e-9, "GFLOP/s",
               100 * s.noise, s.n);
        cJSON *o = fc_bench_record(c, "GEMM peak", dtype);
        cJSON_AddNumberToObject(o, "size", (double)n);
        cJSON_AddNumberToObject(o, "flops_per_second", *flops);
        cJSON_AddNumberToObject(o, "noise", s.noise);
        cJSON_AddItemToArray(c->results, o);
    }
    for (int i = 0; i < 3; i++)
        fc_device_free(&c->dev, matrices[i], bytes, FC_MEM_ACTIVATIONS);
    return code;
}

/* The shape of SmolLM2-135M: 30 layers, 9 heads on 3 kv heads of 64, 49,152 tied embeddings. */
static const struct fc_model_config smollm2 = {.family = "llama",
                                               .n_layer = 30,
                                               .n_embd = 576,
                                               .n_head = 9,
                                               .n_kv_head = 3,
                                               .head_size = 64,
                                               .n_ff = 1536,
                                               .n_vocab = 49152,
                                               .n_ctx = 8192,
                                               .norm = FC_NORM_RMS,
                                               .norm_eps = 1e-5,
                                               .position = FC_POSITION_ROPE,
                                               .rope_theta = 100000,
                                               .rope_scaling = FC_ROPE_PLAIN,
                                               .activation = FC_ACT_SILU,
                                               .gated = true,
                                               .tied = true,
                                               .bos = 1,
                                               .pad = -1,
                                               .eos = {2},
                                               .n_eos = 1};

/* Uniform weights of the usual size; norms 1. */
static enum fc_code randomize(struct fc_model *m, struct fc_error *err)
{
    size_t n = m->params.total;
    float *host = fc_alloc(n, sizeof *host, "random weights", err);
    float *staging = host ? fc_device_alloc(m->dev, n * sizeof *host, FC_MEM_STAGING, err) : NULL;
    if (!staging) {
        free(host);
        return FC_ERR_MEMORY;
    }
    for (size_t i = 0; i < m->params.n; i++) {
        const struct fc_param *p = &m->params.items[i];
        for (size_t j = 0; j < p->count; j++)
            host[p->offset + j] = p->is_vector ? 1.0f : 0.07f * (fc_philox_uniform(1, i, j) - 0.5f);
    }
    const struct fc_kernels *k = m->dev->k;
    k->upload(m->dev->stream, staging, host, n * sizeof *host);
    k->cast(m->dev->stream, m->weights, m->dtype, staging, FC_F32, n);
    enum fc_code code = k->sync(m->dev->stream, err);
    fc_device_free(m->dev, staging, n * sizeof *host, FC_MEM_STAGING);
    free(host);
    return code;
}

enum fc_code fc_bench_model(struct fc_bench_context *c, struct fc_model *m, struct fc_error *err)
{
    if (!c->model_path) {
        enum fc_code code = fc_model_create(m, &c->dev, &smollm2, c->dtype, 2048, err);
        return code == FC_OK ? randomize(m, err) : code;
    }
    struct fc_model_file *file;
    enum fc_code code = fc_model_file_open(&file, c->model_path, err);
    if (code == FC_OK)
        code = fc_model_load(m, &c->dev, file, c->dtype, 2048, err);
    fc_model_file_close(file);
    return code;
}
