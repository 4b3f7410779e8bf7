/* RMSNorm and LayerNorm with the residual addition in front of them.
 *
 * Floor per element: forward reads x and delta, writes x and y, 5 FLOPs; backward reads x, dy and
 * dx, writes dx, 10 FLOPs; LayerNorm
 * 3 FLOPs more each. All are bound by memory, or by L2 where a layer's rows fit.
 *
 * A row is swept twice, chunk by chunk (LayerNorm: three times, the mean first); later sweeps find
 * it in L1. The sum of squares is
 * taken per chunk in fp32 and over chunks in fp64. dweight is a sum over rows: FC_CPU_SLICES fixed
 * ranges of rows add into their own slice of scratch, then the slices are added in order. */
#include "kernels/cpu/cpu.h"

/* x += delta for one chunk, rounded to dt; returns the chunk as it is stored. */
static const float *add_delta(float *buffer, void *x, const void *delta, size_t offset, size_t n,
                              enum fc_dtype dt)
{
    if (!delta)
        return fc_cpu_view(buffer, x, offset, n, dt);
    float other[FC_CPU_CHUNK];
    const float *d = fc_cpu_view(other, delta, offset, n, dt);
    fc_cpu_load(buffer, x, offset, n, dt);
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        buffer[i] += d[i];
    fc_cpu_store(x, offset, buffer, n, dt);
    return fc_cpu_view(buffer, x, offset, n, dt);
}

static void forward_row(void *y, void *x, const void *delta, float *rstd, const void *weight,
                        float eps, size_t t, size_t C, enum fc_dtype dt)
{
    float buffer[FC_CPU_CHUNK], gain[FC_CPU_CHUNK], out[FC_CPU_CHUNK];
    double squares = 0;
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = add_delta(buffer, x, delta, t * C + c, n, dt);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < n; i++)
            sum += v[i] * v[i];
        squares += (double)sum;
    }
    float r = (float)(1.0 / sqrt(squares / (double)C + (double)eps));
    if (rstd)
        rstd[t] = r;
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = fc_cpu_view(buffer, x, t * C + c, n, dt);
        const float *w = fc_cpu_view(gain, weight, c, n, dt);
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            out[i] = v[i] * r * w[i];
        fc_cpu_store(y, t * C + c, out, n, dt);
    }
}

void fc_cpu_rmsnorm_forward(struct fc_stream *s, void *y, void *x, const void *delta, float *rstd,
                            const void *weight, float eps, size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for num_threads(fc_cpu_threads(s, T *C))
    for (size_t t = 0; t < T; t++)
        forward_row(y, x, delta, rstd, weight, eps, t, C, dt);
}

/* With h = x rstd and g = dy weight: dx += rstd (g - h mean(g h)), slice += dy h. */
static void backward_row(void *dx, float *restrict slice, const void *dy, const void *x, float r,
                         const void *weight, size_t t, size_t C, enum fc_dtype dt)
{
    float a[FC_CPU_CHUNK], b[FC_CPU_CHUNK], w[FC_CPU_CHUNK], d[FC_CPU_CHUNK];
    double dot = 0;
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = fc_cpu_view(a, x, t * C + c, n, dt);
        const float *g = fc_cpu_view(b, dy, t * C + c, n, dt);
        const float *gain = fc_cpu_view(w, weight, c, n, dt);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < n; i++)
            sum += g[i] * gain[i] * v[i];
        dot += (double)sum;
    }
    float mean = (float)(dot * (double)r / (double)C);
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = fc_cpu_view(a, x, t * C + c, n, dt);
        const float *g = fc_cpu_view(b, dy, t * C + c, n, dt);
        const float *gain = fc_cpu_view(w, weight, c, n, dt);
        fc_cpu_load(d, dx, t * C + c, n, dt);
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            float h = v[i] * r;
            d[i] += r * (g[i] * gain[i] - h * mean);
            slice[c + i] += g[i] * h;
        }
        fc_cpu_store(dx, t * C + c, d, n, dt);
    }
}

void fc_cpu_rmsnorm_backward(struct fc_stream *s, void *dx, float *dweight, const void *dy,
                             const void *x, const float *rstd, const void *weight, float *scratch,
                             size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s) || T == 0)
        return;
    size_t slices = fc_cpu_min(FC_CPU_SLICES, T);
#pragma omp parallel for num_threads(fc_cpu_threads(s, T *C))
    for (size_t i = 0; i < slices; i++) {
        float *slice = scratch + i * C;
        memset(slice, 0, C * sizeof *slice);
        for (size_t t = i * T / slices; t < (i + 1) * T / slices; t++)
            backward_row(dx, slice, dy, x, rstd[t], weight, t, C, dt);
    }
    fc_cpu_add_slices(s, dweight, scratch, slices, C);
}

/* ---- LayerNorm ------------------------------------------------------------------------------ */

/* x += delta for a row; returns its mean. */
static float row_mean(void *x, const void *delta, size_t t, size_t C, enum fc_dtype dt)
{
    float buffer[FC_CPU_CHUNK];
    double total = 0;
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = add_delta(buffer, x, delta, t * C + c, n, dt);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < n; i++)
            sum += v[i];
        total += (double)sum;
    }
    return (float)(total / (double)C);
}

static float row_rstd(const void *x, float mean, float eps, size_t t, size_t C, enum fc_dtype dt)
{
    float buffer[FC_CPU_CHUNK];
    double squares = 0;
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = fc_cpu_view(buffer, x, t * C + c, n, dt);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < n; i++)
            sum += (v[i] - mean) * (v[i] - mean);
        squares += (double)sum;
    }
    return (float)(1.0 / sqrt(squares / (double)C + (double)eps));
}

void fc_cpu_layernorm_forward(struct fc_stream *s, void *y, void *x, const void *delta, float *mean,
                              float *rstd, const void *weight, const void *bias, float eps,
                              size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for num_threads(fc_cpu_threads(s, T *C))
    for (size_t t = 0; t < T; t++) {
        float a[FC_CPU_CHUNK], gain[FC_CPU_CHUNK], shift[FC_CPU_CHUNK], out[FC_CPU_CHUNK];
        float m = row_mean(x, delta, t, C, dt), r = row_rstd(x, m, eps, t, C, dt);
        if (mean)
            mean[t] = m;
        if (rstd)
            rstd[t] = r;
        for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
            size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
            const float *v = fc_cpu_view(a, x, t * C + c, n, dt);
            const float *w = fc_cpu_view(gain, weight, c, n, dt);
            const float *b = fc_cpu_view(shift, bias, c, n, dt);
#pragma omp simd
            for (size_t i = 0; i < n; i++)
                out[i] = (v[i] - m) * r * w[i] + b[i];
            fc_cpu_store(y, t * C + c, out, n, dt);
        }
    }
}

/* With h = (x - mean) rstd and g = dy weight: dx += rstd (g - mean(g) - h mean(g h)), slice += dy
 * h, shift += dy. */
static void layernorm_backward_row(void *dx, float *restrict slice, float *restrict shift,
                                   const void *dy, const void *x, float m, float r,
                                   const void *weight, size_t t, size_t C, enum fc_dtype dt)
{
    float a[FC_CPU_CHUNK], b[FC_CPU_CHUNK], w[FC_CPU_CHUNK], d[FC_CPU_CHUNK];
    double dot = 0, total = 0;
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = fc_cpu_view(a, x, t * C + c, n, dt);
        const float *g = fc_cpu_view(b, dy, t * C + c, n, dt);
        const float *gain = fc_cpu_view(w, weight, c, n, dt);
        float with = 0, without = 0;
#pragma omp simd reduction(+ : with, without)
        for (size_t i = 0; i < n; i++) {
            with += g[i] * gain[i] * (v[i] - m);
            without += g[i] * gain[i];
        }
        dot += (double)with;
        total += (double)without;
    }
    float mean_h = (float)(dot * (double)r / (double)C), mean_g = (float)(total / (double)C);
    for (size_t c = 0; c < C; c += FC_CPU_CHUNK) {
        size_t n = fc_cpu_min(FC_CPU_CHUNK, C - c);
        const float *v = fc_cpu_view(a, x, t * C + c, n, dt);
        const float *g = fc_cpu_view(b, dy, t * C + c, n, dt);
        const float *gain = fc_cpu_view(w, weight, c, n, dt);
        fc_cpu_load(d, dx, t * C + c, n, dt);
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            float h = (v[i] - m) * r;
            d[i] += r * (g[i] * gain[i] - mean_g - h * mean_h);
            slice[c + i] += g[i] * h;
            shift[c + i] += g[i];
        }
        fc_cpu_store(dx, t * C + c, d, n, dt);
    }
}

void fc_cpu_layernorm_backward(struct fc_stream *s, void *dx, float *dweight, float *dbias,
                               const void *dy, const void *x, const float *mean, const float *rstd,
                               const void *weight, float *scratch, size_t T, size_t C,
                               enum fc_dtype dt)
{
    if (!fc_cpu_ok(s) || T == 0)
        return;
    size_t slices = fc_cpu_min(FC_CPU_SLICES, T);
    float *shifts = scratch + slices * C;
    memset(scratch, 0, 2 * slices * C * sizeof *scratch);
#pragma omp parallel for num_threads(fc_cpu_threads(s, T *C))
    for (size_t i = 0; i < slices; i++)
        for (size_t t = i * T / slices; t < (i + 1) * T / slices; t++)
            layernorm_backward_row(dx, scratch + i * C, shifts + i * C, dy, x, mean[t], rstd[t],
                                   weight, t, C, dt);
    fc_cpu_add_slices(s, dweight, scratch, slices, C);
    fc_cpu_add_slices(s, dbias, shifts, slices, C);
}
