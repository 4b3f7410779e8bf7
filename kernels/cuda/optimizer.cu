/* The global gradient norm, the check for infinities, and AdamW.
 *
 * Floor per parameter: the norm and the check read 4 bytes; 2 FLOPs in fp64 for the norm (which
 * even a device with one fp64 unit to 64 does faster than it reads). AdamW reads 16 bytes and
 * writes 12 (+ 2 for 16-bit weights), about 14 FLOPs and one square root: memory decides.
 * The numbers of a step are read once a block, 56 bytes to 61,440. sum_squares and all_finite
 * overwrite out; adamw updates master, m, v and overwrites the weights.
 */
#include "base/philox.h"
#include "kernels/cuda/rows.cuh"

#include <cmath>

/* ---- sum of squares ------------------------------------------------------------------------- */

enum { THREADS = 256, PARTS = 1024, SUM_VECTORS = 4 };

/* Sum over a block in a fixed order; thread 0 gets it. `partial` is blockDim.x / 32 doubles. */
__device__ __forceinline__ double block_sum(double x, double *partial)
{
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2)
        x += __shfl_down_sync(0xffffffffu, x, lane);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (unsigned w = 1; w < blockDim.x / 32; w++)
            x += partial[w];
    return x;
}

/* parts[block] = the sum over every gridDim.x-th piece. The grid depends on n only. */
template <int W>
__global__ void __launch_bounds__(THREADS)
    sum_squares_kernel(double *parts, const float *g, size_t n)
{
    __shared__ double partial[THREADS / 32];
    constexpr size_t PIECE = (size_t)SUM_VECTORS * THREADS * W;
    double sum = 0;
    for (size_t at = blockIdx.x * PIECE + threadIdx.x * W; at < n; at += gridDim.x * PIECE) {
        fc_vec<float, W> x[SUM_VECTORS];
#pragma unroll
        for (int p = 0; p < SUM_VECTORS; p++)
            if (at + (size_t)(p * THREADS * W) < n)
                x[p] = fc_load<W>(g + at + p * THREADS * W);
#pragma unroll
        for (int p = 0; p < SUM_VECTORS; p++)
            if (at + (size_t)(p * THREADS * W) < n)
#pragma unroll
                for (int k = 0; k < W; k++)
                    sum += (double)x[p].v[k] * (double)x[p].v[k];
    }
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

/* out[0] = the sum of n parts and of the squares of what the vectors left over, g[0..tail). */
__global__ void __launch_bounds__(PARTS)
    sum_parts_kernel(double *out, const double *parts, unsigned n, const float *g, unsigned tail)
{
    __shared__ double partial[PARTS / 32];
    double sum = threadIdx.x < n ? parts[threadIdx.x] : 0;
    if (threadIdx.x < tail)
        sum += (double)g[threadIdx.x] * (double)g[threadIdx.x];
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0)
        out[0] = sum;
}

template <int W>
static void sum_squares(struct fc_stream *s, double *out, const float *g, double *scratch, size_t n)
{
    size_t whole = n - n % W;
    size_t parts = fc_cuda_min(fc_cuda_blocks(whole, (size_t)SUM_VECTORS * THREADS * W), PARTS);
    if (parts)
        FC_LAUNCH(s, sum_squares_kernel<W>, (unsigned)parts, THREADS, 0, scratch, g, whole);
    FC_LAUNCH(s, sum_parts_kernel, 1, PARTS, 0, out, scratch, (unsigned)parts, g + whole,
              (unsigned)(n - whole));
}

void fc_cuda_sum_squares(struct fc_stream *s, double *out, const float *g, double *scratch,
                         size_t n)
{
    if (!fc_cuda_ok(s))
        return;
    if (fc_cuda_aligned(g, 16))
        sum_squares<4>(s, out, g, scratch, n);
    else
        sum_squares<1>(s, out, g, scratch, n);
}

/* ---- infinities ----------------------------------------------------------------------------- */

__global__ void __launch_bounds__(32) all_finite_begin_kernel(int32_t *out)
{
    if (threadIdx.x == 0)
        out[0] = 1;
}

/* Whoever meets an infinity writes 0; that several do makes no difference. */
template <int W>
__global__ void __launch_bounds__(THREADS) all_finite_kernel(int32_t *out, const float *g, size_t n)
{
    size_t at = ((size_t)blockIdx.x * SUM_VECTORS * THREADS + threadIdx.x) * W;
    fc_vec<float, W> x[SUM_VECTORS];
#pragma unroll
    for (int p = 0; p < SUM_VECTORS; p++)
        if (at + (size_t)(p * THREADS * W) < n)
            x[p] = fc_load<W>(g + at + p * THREADS * W);
    bool finite = true;
#pragma unroll
    for (int p = 0; p < SUM_VECTORS; p++)
        if (at + (size_t)(p * THREADS * W) < n)
#pragma unroll
            for (int k = 0; k < W; k++)
                finite &= fabsf(x[p].v[k]) < INFINITY; /* NaN is not below anything */
    if (!finite)
        out[0] = 0;
}

template <int W> static void all_finite(struct fc_stream *s, int32_t *out, const float *g, size_t n)
{
    if (n)
        FC_LAUNCH(s, all_finite_kernel<W>, (unsigned)fc_cuda_blocks(n, SUM_VECTORS * THREADS * W),
                  THREADS, 0, out, g, n);
}

void fc_cuda_all_finite(struct fc_stream *s, int32_t *out, const float *g, size_t n)
{
    if (!fc_cuda_ok(s))
        return;
    size_t whole = fc_cuda_aligned(g, 16) ? n - n % 4 : 0;
    FC_LAUNCH(s, all_finite_begin_kernel, 1, 32, 0, out);
    all_finite<4>(s, out, g, whole);
    all_finite<1>(s, out, g + whole, n - whole);
}

/* ---- AdamW ----------------------------------------------------------------------------------- */

enum { STEP_VECTORS = 2 }; /* vectors of a thread: 8 loads of 16 bytes in flight */

__device__ __forceinline__ __nv_bfloat16 round_random(__nv_bfloat16, float x, uint32_t random)
{
    return __ushort_as_bfloat16(fc_f32_to_bf16_random(x, random));
}
__device__ __forceinline__ __half round_random(__half, float x, uint32_t random)
{
    return __ushort_as_half(fc_f32_to_f16_random(x, random));
}

/* The weights of p, the elements first .. first + W of all; W = 4 wants first % 4 = 0. */
template <typename T, int W>
__device__ __forceinline__ fc_vec<T, W> rounded(const fc_vec<float, W> &p, uint64_t first,
                                                const struct fc_adamw_step &k)
{
    fc_vec<T, W> w;
    if constexpr (sizeof(T) == 2) {
        if (k.stochastic) {
            uint32_t words[4];
            fc_philox(k.seed, k.number, first / 4, words);
            if (W == 1) { /* selected, not indexed: an index would put words into local memory */
                uint32_t low = first % 2 ? words[1] : words[0];
                words[0] = first % 4 < 2 ? low : first % 2 ? words[3] : words[2];
            }
#pragma unroll
            for (int i = 0; i < W; i++)
                w.v[i] = round_random(T(), p.v[i], words[i]);
            return w;
        }
    }
#pragma unroll
    for (int i = 0; i < W; i++)
        w.v[i] = fc_from_float<T>(p.v[i]);
    return w;
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    adamw_kernel(T *weights, float *master, float *m, float *v, const float *grad, size_t n,
                 uint64_t place, const struct fc_adamw_step *how)
{
    __shared__ struct fc_adamw_step k;
    size_t first = ((size_t)blockIdx.x * STEP_VECTORS * THREADS + threadIdx.x) * W;
    fc_vec<float, W> p[STEP_VECTORS], a[STEP_VECTORS], b[STEP_VECTORS], g[STEP_VECTORS];
#pragma unroll
    for (int j = 0; j < STEP_VECTORS; j++) {
        size_t at = first + (size_t)(j * THREADS * W);
        if (at < n) {
            g[j] = fc_load<W>(grad + at);
            p[j] = fc_load<W>(master + at);
            a[j] = fc_load<W>(m + at);
            b[j] = fc_load<W>(v + at);
        }
    }
    if (threadIdx.x == 0) /* read once a block, while the others' loads are on their way */
        k = *how;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < STEP_VECTORS; j++) {
        size_t at = first + (size_t)(j * THREADS * W);
        if (at >= n)
            return;
#pragma unroll
        for (int i = 0; i < W; i++) {
            float x = g[j].v[i] * k.grad_scale;
            float m1 = a[j].v[i] + k.gain1 * (x - a[j].v[i]);
            float v1 = b[j].v[i] * k.beta2 + k.gain2 * x * x;
            a[j].v[i] = m1;
            b[j].v[i] = v1;
            p[j].v[i] = p[j].v[i] * k.decay - k.size * (m1 / (sqrtf(v1) * k.inverse_root + k.eps));
        }
        fc_store<W>(m + at, a[j]);
        fc_store<W>(v + at, b[j]);
        fc_store<W>(master + at, p[j]);
        if ((void *)weights != (void *)master)
            fc_store<W>(weights + at, rounded<T, W>(p[j], place + at, k));
    }
}

template <typename T, int W>
static void launch_adamw(struct fc_stream *s, T *weights, float *master, float *m, float *v,
                         const float *grad, size_t n, uint64_t first,
                         const struct fc_adamw_step *how)
{
    if (n)
        FC_LAUNCH(s, (adamw_kernel<T, W>), (unsigned)fc_cuda_blocks(n, STEP_VECTORS * THREADS * W),
                  THREADS, 0, weights, master, m, v, grad, n, first, how);
}

void fc_cuda_adamw(struct fc_stream *s, void *weights, float *master, float *m, float *v,
                   const float *grad, size_t n, uint64_t first, const struct fc_adamw_step *how,
                   enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || n == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = 4;
        auto *w = static_cast<E *>(weights);
        bool wide = fc_cuda_vectors<W, float>(0, master, m, v, grad) &&
                    fc_cuda_vectors<W, E>(0, weights) && first % W == 0;
        size_t whole = wide ? n - n % W : 0;
        launch_adamw<E, W>(s, w, master, m, v, grad, whole, first, how);
        launch_adamw<E, 1>(s, w + whole, master + whole, m + whole, v + whole, grad + whole,
                           n - whole, first + whole, how);
    });
}
