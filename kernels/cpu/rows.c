/* Bias, gather and scatter of rows, casts, and the last step of sums over rows.
 *
 * Floor: every element is read once and written once; at most one addition each. All of them run
 * at the speed of memory. */
#include "kernels/cpu/cpu.h"

void fc_cpu_add_slices(struct fc_stream *s, float *to, const float *slices, size_t n_slices,
                       size_t n)
{
#pragma omp parallel for num_threads(fc_cpu_threads(s, n_slices *n))
    for (size_t c = 0; c < n; c += FC_CPU_CHUNK) {
        float sum[FC_CPU_CHUNK] = {0};
        size_t m = fc_cpu_min(FC_CPU_CHUNK, n - c);
        for (size_t k = 0; k < n_slices; k++) {
            const float *slice = slices + k * n + c;
#pragma omp simd
            for (size_t i = 0; i < m; i++)
                sum[i] += slice[i];
        }
#pragma omp simd
        for (size_t i = 0; i < m; i++)
            to[c + i] += sum[i];
    }
}

void fc_cpu_bias_forward(struct fc_stream *s, void *y, const void *bias, size_t T, size_t N,
                         enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for collapse(2) num_threads(fc_cpu_threads(s, T *N))
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < N; c += FC_CPU_CHUNK) {
            float a[FC_CPU_CHUNK], b[FC_CPU_CHUNK];
            size_t n = fc_cpu_min(FC_CPU_CHUNK, N - c);
            const float *add = fc_cpu_view(b, bias, c, n, dt);
            fc_cpu_load(a, y, t * N + c, n, dt);
#pragma omp simd
            for (size_t i = 0; i < n; i++)
                a[i] += add[i];
            fc_cpu_store(y, t * N + c, a, n, dt);
        }
}

void fc_cpu_bias_backward(struct fc_stream *s, float *dbias, const void *dy, float *scratch,
                          size_t T, size_t N, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s) || T == 0)
        return;
    size_t slices = fc_cpu_min(FC_CPU_SLICES, T);
#pragma omp parallel for num_threads(fc_cpu_threads(s, T *N))
    for (size_t k = 0; k < slices; k++) {
        float *slice = scratch + k * N;
        memset(slice, 0, N * sizeof *slice);
        for (size_t t = k * T / slices; t < (k + 1) * T / slices; t++)
            fc_cpu_add_row(slice, dy, t * N, N, dt);
    }
    fc_cpu_add_slices(s, dbias, scratch, slices, N);
}

void fc_cpu_gather_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                        size_t n, size_t C, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
    size_t bytes = C * fc_dtype_size(dt);
#pragma omp parallel for num_threads(fc_cpu_threads(s, n *C))
    for (size_t i = 0; i < n; i++)
        memcpy((char *)out + i * bytes, (const char *)in + (size_t)rows[i] * bytes, bytes);
}

void fc_cpu_scatter_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                         size_t n, size_t C, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
    size_t bytes = C * fc_dtype_size(dt);
#pragma omp parallel for num_threads(fc_cpu_threads(s, n *C))
    for (size_t i = 0; i < n; i++)
        memcpy((char *)out + (size_t)rows[i] * bytes, (const char *)in + i * bytes, bytes);
}

void fc_cpu_cast(struct fc_stream *s, void *to, enum fc_dtype to_type, const void *from,
                 enum fc_dtype from_type, size_t n)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for num_threads(fc_cpu_threads(s, n))
    for (size_t i = 0; i < n; i += FC_CPU_CHUNK) {
        float buffer[FC_CPU_CHUNK];
        size_t m = fc_cpu_min(FC_CPU_CHUNK, n - i);
        fc_cpu_store(to, i, fc_cpu_view(buffer, from, i, m, from_type), m, to_type);
    }
}
