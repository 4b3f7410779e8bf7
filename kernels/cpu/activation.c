/* SwiGLU: out = silu(gate) up, silu(g) = g / (1 + exp(-g)), GELU and ReLU, and their gradients.
 *
 * Floor per output element: forward reads 2 and writes 1, about 20 FLOPs, most of them exp;
 * backward reads 3 and writes 2, about 28 FLOPs. Measured on one Zen 4 core, bf16: 0.9 and 2.0 ns
 * per element, so arithmetic (exp, a division, rounding to bf16) decides, not memory; a layer of
 * 4,096 tokens pays 2-3 % of its GEMM time. libm's expf, one element at a time, took 6 times as
 * long. GELU and ReLU read 1 and write 1 (backward 2 and 1); GELU by erf calls libm's erff for each
 * element. */
#include "kernels/cpu/cpu.h"

void fc_cpu_swiglu_forward(struct fc_stream *s, void *out, const void *gate_up, size_t T, size_t F,
                           enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for collapse(2) num_threads(fc_cpu_threads(s, T *F))
    for (size_t t = 0; t < T; t++)
        for (size_t f = 0; f < F; f += FC_CPU_CHUNK) {
            float a[FC_CPU_CHUNK], b[FC_CPU_CHUNK], y[FC_CPU_CHUNK];
            size_t n = fc_cpu_min(FC_CPU_CHUNK, F - f);
            const float *gate = fc_cpu_view(a, gate_up, t * 2 * F + f, n, dt);
            const float *up = fc_cpu_view(b, gate_up, t * 2 * F + F + f, n, dt);
#pragma omp simd
            for (size_t i = 0; i < n; i++)
                y[i] = gate[i] / (1.0f + fc_cpu_exp(-gate[i])) * up[i];
            fc_cpu_store(out, t * F + f, y, n, dt);
        }
}

void fc_cpu_swiglu_backward(struct fc_stream *s, void *dgate_up, const void *dout,
                            const void *gate_up, size_t T, size_t F, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for collapse(2) num_threads(fc_cpu_threads(s, T *F))
    for (size_t t = 0; t < T; t++)
        for (size_t f = 0; f < F; f += FC_CPU_CHUNK) {
            float a[FC_CPU_CHUNK], b[FC_CPU_CHUNK], c[FC_CPU_CHUNK];
            float dgate[FC_CPU_CHUNK], dup[FC_CPU_CHUNK];
            size_t n = fc_cpu_min(FC_CPU_CHUNK, F - f);
            const float *gate = fc_cpu_view(a, gate_up, t * 2 * F + f, n, dt);
            const float *up = fc_cpu_view(b, gate_up, t * 2 * F + F + f, n, dt);
            const float *d = fc_cpu_view(c, dout, t * F + f, n, dt);
#pragma omp simd
            for (size_t i = 0; i < n; i++) {
                float sigmoid = 1.0f / (1.0f + fc_cpu_exp(-gate[i]));
                dgate[i] = d[i] * up[i] * (sigmoid * (1.0f + gate[i] * (1.0f - sigmoid)));
                dup[i] = d[i] * (gate[i] * sigmoid);
            }
            fc_cpu_store(dgate_up, t * 2 * F + f, dgate, n, dt);
            fc_cpu_store(dgate_up, t * 2 * F + F + f, dup, n, dt);
        }
}

/* ---- without a gate -------------------------------------------------------------------------- */

static const float INVERSE_ROOT_2 = 0.70710678f, DENSITY_AT_0 = 0.39894228f; /* 1 / sqrt(2 pi) */
static const float ROOT_2_OVER_PI = 0.79788456f, CUBIC = 0.044715f;

/* tanh(u) without a branch; the ends saturate. */
static inline float tanh_of(float u)
{
    return 1.0f - 2.0f / (1.0f + fc_cpu_exp(2.0f * u));
}

static void apply(float *restrict y, const float *restrict x, size_t n, enum fc_ungated f)
{
    if (f == FC_RELU)
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] > 0 ? x[i] : 0;
    else if (f == FC_GELU)
        for (size_t i = 0; i < n; i++)
            y[i] = 0.5f * x[i] * (1.0f + erff(x[i] * INVERSE_ROOT_2));
    else
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            float u = ROOT_2_OVER_PI * (x[i] + CUBIC * x[i] * x[i] * x[i]);
            y[i] = 0.5f * x[i] * (1.0f + tanh_of(u));
        }
}

/* d = the slope at x. */
static void slope(float *restrict d, const float *restrict x, size_t n, enum fc_ungated f)
{
    if (f == FC_RELU)
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            d[i] = x[i] > 0 ? 1.0f : 0.0f;
    else if (f == FC_GELU)
        for (size_t i = 0; i < n; i++) {
            float density = DENSITY_AT_0 * fc_cpu_exp(-0.5f * x[i] * x[i]);
            d[i] = 0.5f * (1.0f + erff(x[i] * INVERSE_ROOT_2)) + x[i] * density;
        }
    else
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            float square = x[i] * x[i];
            float t = tanh_of(ROOT_2_OVER_PI * (x[i] + CUBIC * x[i] * square));
            float du = ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * square);
            d[i] = 0.5f * (1.0f + t) + 0.5f * x[i] * (1.0f - t * t) * du;
        }
}

void fc_cpu_ungated_forward(struct fc_stream *s, void *out, const void *in, enum fc_ungated f,
                            size_t n, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for num_threads(fc_cpu_threads(s, n))
    for (size_t at = 0; at < n; at += FC_CPU_CHUNK) {
        float x[FC_CPU_CHUNK], y[FC_CPU_CHUNK];
        size_t m = fc_cpu_min(FC_CPU_CHUNK, n - at);
        fc_cpu_load(x, in, at, m, dt);
        apply(y, x, m, f);
        fc_cpu_store(out, at, y, m, dt);
    }
}

void fc_cpu_ungated_backward(struct fc_stream *s, void *din, const void *dout, const void *in,
                             enum fc_ungated f, size_t n, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for num_threads(fc_cpu_threads(s, n))
    for (size_t at = 0; at < n; at += FC_CPU_CHUNK) {
        float x[FC_CPU_CHUNK], dy[FC_CPU_CHUNK], d[FC_CPU_CHUNK];
        size_t m = fc_cpu_min(FC_CPU_CHUNK, n - at);
        fc_cpu_load(x, in, at, m, dt);
        fc_cpu_load(dy, dout, at, m, dt);
        slope(d, x, m, f);
#pragma omp simd
        for (size_t i = 0; i < m; i++)
            d[i] *= dy[i];
        fc_cpu_store(din, at, d, m, dt);
    }
}
