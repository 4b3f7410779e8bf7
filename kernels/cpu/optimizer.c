/* The global gradient norm, the check for infinities, and AdamW.
 *
 * Floor per parameter: the norm and the check read 4 bytes, 2 FLOPs. AdamW reads 16 bytes and
 * writes 12 (+ 2 for bf16 weights), about 14 FLOPs and one square root: memory decides. Bandwidth
 * of 2 Zen 4 cores, 31-44 GB/s, gives about 1 ns per parameter. */
#include "base/philox.h"
#include "kernels/cpu/cpu.h"

enum { PARTS = 1024 }; /* doubles of scratch that kernels.h promises */

static double part_sum(const float *g, size_t begin, size_t end)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = begin; i < end; i++)
        sum += (double)g[i] * (double)g[i];
    return sum;
}

void fc_cpu_sum_squares(struct fc_stream *s, double *out, const float *g, double *scratch, size_t n)
{
    if (!fc_cpu_ok(s))
        return;
    size_t part = (n + PARTS - 1) / PARTS;
#pragma omp parallel for num_threads(fc_cpu_threads(s, n))
    for (size_t k = 0; k < PARTS; k++)
        scratch[k] = part_sum(g, fc_cpu_min(n, k * part), fc_cpu_min(n, (k + 1) * part));
    double sum = 0;
    for (size_t k = 0; k < PARTS; k++)
        sum += scratch[k];
    *out = sum;
}

void fc_cpu_all_finite(struct fc_stream *s, int32_t *out, const float *g, size_t n)
{
    if (!fc_cpu_ok(s))
        return;
    int wrong = 0;
#pragma omp parallel for simd reduction(| : wrong) num_threads(fc_cpu_threads(s, n))
    for (size_t i = 0; i < n; i++)
        wrong |= !(fabsf(g[i]) < INFINITY); /* NaN is not below anything */
    *out = wrong ? 0 : 1;
}

static void update(float *restrict p, float *restrict m, float *restrict v,
                   const float *restrict grad, size_t n, const struct fc_adamw_step *c)
{
    /* Copies: the compiler cannot know that the arrays do not overlap *c. */
    const struct fc_adamw_step k = *c;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float g = grad[i] * k.grad_scale;
        float m1 = m[i] + k.gain1 * (g - m[i]);
        float v1 = v[i] * k.beta2 + k.gain2 * g * g;
        m[i] = m1;
        v[i] = v1;
        p[i] = p[i] * k.decay - k.size * (m1 / (sqrtf(v1) * k.inverse_root + k.eps));
    }
}

/* weights[at..at+n) = master[at..at+n) rounded at random, of parameters that begin at `first`; see
 * kernels.h. */
static void store_stochastic(uint16_t *weights, const float *master, size_t at, size_t n,
                             uint64_t first, const struct fc_adamw_step *how)
{
    uint32_t words[4] = {0};
    for (size_t i = at; i < at + n; i++) {
        uint64_t j = first + i;
        if (i == at || j % 4 == 0)
            fc_philox(how->seed, how->number, j / 4, words);
        weights[i] = fc_f32_to_bf16_random(master[i], words[j % 4]);
    }
}

void fc_cpu_adamw(struct fc_stream *s, void *weights, float *master, float *m, float *v,
                  const float *grad, size_t n, uint64_t first, const struct fc_adamw_step *how,
                  enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for num_threads(fc_cpu_threads(s, n))
    for (size_t i = 0; i < n; i += FC_CPU_CHUNK) {
        size_t k = fc_cpu_min(FC_CPU_CHUNK, n - i);
        update(master + i, m + i, v + i, grad + i, k, how);
        if (how->stochastic && dt == FC_BF16)
            store_stochastic(weights, master, i, k, first, how);
        else if (weights != (void *)master)
            fc_cpu_store(weights, i, master + i, k, dt);
    }
}
