/* SwiGLU: out = silu(gate) up, silu(g) = g / (1 + exp(-g)), and its gradient.
 *
 * Floor per output element: forward reads 2 and writes 1, about 20 FLOPs, most of them exp;
 * backward reads 3 and writes 2, about 28 FLOPs. Measured on one Zen 4 core, bf16: 0.9 and 2.0 ns
 * per element, so arithmetic (exp, a division, rounding to bf16) decides, not memory; a layer of
 * 4,096 tokens pays 2-3 % of its GEMM time. libm's expf, one element at a time, took 6 times as
 * long. */
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
