/* Softmax cross-entropy, fused with its gradient.
 *
 * Floor per logit: one read for the loss; one more read and one write for the gradient; about 20
 * FLOPs for each of the two exp. A row of 49,152 bf16 logits is 96 KiB, so the second sweep finds
 * it in L2. The first sweep keeps a running maximum and a sum relative to it (Milakov and
 * Gimelshein 2018), rescaled at most once per chunk; the chunks are summed in fp64, in order. */
#include "kernels/cpu/cpu.h"

enum { LANES = 16 };

/* Largest of `floor` and x[0..n). Lanes are spelled out: a maximum that must respect NaN is one
 * that no compiler reorders by itself. A NaN is passed over here and shows in the sum. */
static float largest(const float *x, size_t n, float floor)
{
    float lane[LANES], high = floor;
    size_t i = 0;
    for (size_t l = 0; l < LANES; l++)
        lane[l] = floor;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (size_t l = 0; l < LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    for (; i < n; i++)
        high = x[i] > high ? x[i] : high;
    for (size_t l = 0; l < LANES; l++)
        high = lane[l] > high ? lane[l] : high;
    return high;
}

/* Maximum of a row and the sum of exp(x - maximum). */
static void row_sum(const void *logits, size_t offset, size_t V, enum fc_dtype lt, float *maximum,
                    double *total)
{
    float buffer[FC_CPU_CHUNK], top = -INFINITY;
    double sum = 0;
    for (size_t c = 0; c < V; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, V - c);
        const float *x = fc_cpu_view(buffer, logits, offset + c, n, lt);
        float high = largest(x, n, top), part = 0;
        if (high > top) {
            sum *= exp((double)top - (double)high);
            top = high;
        }
        float shift = top == -INFINITY ? 0.0f : top; /* nothing but -inf so far: adds 0 */
#pragma omp simd reduction(+ : part)
        for (size_t i = 0; i < n; i++)
            part += fc_cpu_exp(x[i] - shift);
        sum += (double)part;
    }
    *maximum = top;
    *total = sum;
}

/* logits = weight * softmax(logits), then - weight at the target. */
static void row_gradient(void *logits, size_t offset, size_t V, enum fc_dtype lt, float maximum,
                         double total, size_t target, float weight)
{
    float a[FC_CPU_CHUNK];
    float factor = (float)((double)weight / total);
    for (size_t c = 0; c < V; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, V - c);
        fc_cpu_load(a, logits, offset + c, n, lt);
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            a[i] = fc_cpu_exp(a[i] - maximum) * factor;
        if (target - c < n) /* wraps to a large number before the target's chunk */
            a[target - c] -= weight;
        fc_cpu_store(logits, offset + c, a, n, lt);
    }
}

void fc_cpu_cross_entropy(struct fc_stream *s, float *losses, void *logits, const int32_t *targets,
                          const float *weights, size_t n, size_t V, enum fc_dtype lt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for num_threads(fc_cpu_threads(s, n *V))
    for (size_t i = 0; i < n; i++) {
        size_t target = (size_t)targets[i];
        float maximum, x;
        double total;
        row_sum(logits, i * V, V, lt, &maximum, &total);
        fc_cpu_load(&x, logits, i * V + target, 1, lt);
        losses[i] = (float)(log(total) + ((double)maximum - (double)x));
        if (weights)
            row_gradient(logits, i * V, V, lt, maximum, total, target, weights[i]);
    }
}
