/* Products in fp8: both operands are rounded to e4m3 with one scale each, cuBLASLt multiplies.
 *
 * Floor of the rounding: one read for the largest magnitude (2 bytes an element of bf16), one read
 * and a byte written. The product then moves half the bytes and does twice the FLOPs a second of
 * bf16. It pays where m is some hundreds or more.
 *
 * Scales are powers of two, so dividing by them is exact and the rounding is that of the CPU twin,
 * bit for bit. The largest magnitude is taken over the bits of |x| as integers: a maximum has no
 * order, and NaN is larger than all.
 *
 * cuBLASLt wants 16 rows of a or a multiple; the rest of m is padded with zero rows, and their y
 * lies in scratch. */
#include "kernels/cuda/products.cuh"

#include <cuda_fp8.h>

enum { THREADS = 256, PARTS = 256, ROWS = 16 };

/* The head of the scratch; fc_fp8_scratch has its 4096 bytes and up to 255 to align it. */
struct head {
    float scale[2];
    uint32_t most[2][PARTS]; /* of each block, the bits of |x| */
};
static_assert(sizeof(struct head) <= 4096, "fc_fp8_scratch says so");

__device__ __forceinline__ uint32_t magnitude(float x)
{
    return __float_as_uint(x) & 0x7fffffffu;
}

/* Maximum over a block of THREADS; every thread gets it. */
__device__ __forceinline__ uint32_t block_max(uint32_t x)
{
    __shared__ uint32_t part[THREADS / 32];
    x = __reduce_max_sync(0xffffffffu, x);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < THREADS / 32; w++)
        x = max(x, part[w]);
    return x;
}

/* most[block] over x[vectors] of 16 bytes each. */
template <typename T>
__global__ void __launch_bounds__(THREADS) largest(uint32_t *most, const T *x, size_t vectors)
{
    uint32_t m = 0;
    size_t step = (size_t)PARTS * THREADS;
#pragma unroll 4
    for (size_t v = (size_t)blockIdx.x * THREADS + threadIdx.x; v < vectors; v += step) {
        fc_vec<T> in = fc_load16(x + v * fc_vec<T>::N);
#pragma unroll
        for (int i = 0; i < fc_vec<T>::N; i++)
            m = max(m, magnitude(fc_to_float(in.v[i])));
    }
    m = block_max(m);
    if (threadIdx.x == 0)
        most[blockIdx.x] = m;
}

/* The smallest power of two 2^e with |x| <= 448 * 2^e, e at least -126; NaN where x is not finite.
 */
__device__ __forceinline__ float scale_for(uint32_t bits)
{
    if (bits >= 0x7f800000u)
        return __uint_as_float(0x7fc00000u);
    if (bits == 0)
        return 1.0f;
    int e = (int)(bits >> 23) - 8 + ((bits & 0x7fffffu) > 0x600000u ? 1 : 0); /* biased by 127 */
    return __uint_as_float((uint32_t)max(e, 1) << 23);
}

/* Bytes of four consecutive values. */
__device__ __forceinline__ uint32_t four(float a, float b, float c, float d)
{
    uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
    uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

/* to[vectors_to] = x[vectors] / scale in e4m3, zeros beyond; *scale is kept for the product. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    quantise(uint8_t *to, float *scale, const T *x, const uint32_t *most, size_t vectors,
             size_t vectors_to)
{
    float s = scale_for(block_max(most[threadIdx.x]));
    float inverse = isnan(s) ? 0.0f : 1.0f / s; /* a power of two: exact */
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *scale = s;
    constexpr int N = fc_vec<T>::N;
    size_t step = (size_t)PARTS * THREADS;
    for (size_t v = (size_t)blockIdx.x * THREADS + threadIdx.x; v < vectors_to; v += step) {
        uint32_t out[N / 4] = {};
        if (v < vectors) {
            fc_vec<T> in = fc_load16(x + v * N);
#pragma unroll
            for (int i = 0; i < N / 4; i++)
                out[i] = four(
                    fc_to_float(in.v[4 * i]) * inverse, fc_to_float(in.v[4 * i + 1]) * inverse,
                    fc_to_float(in.v[4 * i + 2]) * inverse, fc_to_float(in.v[4 * i + 3]) * inverse);
        }
        uint32_t *at = reinterpret_cast<uint32_t *>(to + v * N);
        if constexpr (N == 8)
            *reinterpret_cast<uint2 *>(at) = make_uint2(out[0], out[1]);
        else
            *at = out[0];
    }
}
static_assert((int)PARTS == (int)THREADS, "a block reads all parts, one a thread");

bool fc_cuda_has_fp8(struct fc_stream *s)
{
    return s->capability >= 89;
}

static bool valid(struct fc_stream *s, const struct fc_gemm *g)
{
    bool shape = g->trans_b && !g->trans_a && !g->accumulate && g->lda == g->k && g->ldb == g->k &&
                 g->k % 16 == 0 && g->n % 16 == 0 && g->ldy >= g->n &&
                 g->ldy * fc_dtype_size(g->y_type) % 16 == 0 && fc_cuda_aligned(g->a, 16) &&
                 fc_cuda_aligned(g->b, 16) && fc_cuda_aligned(g->y, 16);
    bool types = (g->type == FC_F32 || g->type == FC_BF16 || g->type == FC_F16) &&
                 (g->y_type == FC_F32 || g->y_type == g->type) && s->products;
    if (shape && types && fc_cuda_has_fp8(s))
        return true;
    fc_fail(&s->error, FC_ERR_UNSUPPORTED,
            "gemm_fp8: %s: m %zu, n %zu, k %zu, lda %zu, ldb %zu, ldy %zu, %s to %s, sm_%d",
            !fc_cuda_has_fp8(s) ? "the device has no fp8 (Ada, Hopper or newer do)"
            : shape             ? "dtypes that CUDA does not multiply"
                    : "expected a b^T of dense rows, n and k multiples of 16, rows of 16 bytes",
            g->m, g->n, g->k, g->lda, g->ldb, g->ldy, fc_dtype_name(g->type),
            fc_dtype_name(g->y_type), s->capability);
    return false;
}

/* to[rows_to, k] in e4m3 from x[rows, k]. */
static void round_rows(struct fc_stream *s, struct head *h, int which, uint8_t *to, const void *x,
                       size_t rows, size_t rows_to, const struct fc_gemm *g)
{
    fc_cuda_by_type(g->type, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        constexpr size_t N = fc_vec<T>::N;
        const T *from = static_cast<const T *>(x);
        FC_LAUNCH(s, largest<T>, PARTS, THREADS, 0, h->most[which], from, rows * g->k / N);
        FC_LAUNCH(s, quantise<T>, PARTS, THREADS, 0, to, &h->scale[which], from, h->most[which],
                  rows * g->k / N, rows_to * g->k / N);
    });
}

/* y[g->m rows] from rounded rows; m is a multiple of 16. */
static void multiply(struct fc_stream *s, const struct fc_gemm *g, const struct head *h)
{
    struct fc_cuda_shape shape = fc_cuda_shape_of(g);
    struct fc_cuda_operands o = {g->a, g->b, g->bias, &h->scale[0], &h->scale[1], g->y};
    shape.fp8 = 1;
    bool epilogue = g->type == FC_BF16 || (g->type == FC_F16 && g->y_type == FC_F16);
    if (g->bias && !(epilogue && fc_cuda_aligned(g->bias, 16))) {
        fc_cuda_fill_with_bias(s, g);
        shape.bias = 0;
        shape.beta = 1;
    }
    const struct fc_cuda_plan *p = fc_cuda_plan_for(s, &shape, &o);
    if (p && !p->blocks)
        fc_cuda_plan_run(s, p, &o);
    else
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "gemm_fp8: cuBLASLt has no algorithm for m %zu, n %zu, k %zu on this device", g->m,
                g->n, g->k);
}

void fc_cuda_gemm_fp8(struct fc_stream *s, const struct fc_gemm *g, void *scratch)
{
    if (!fc_cuda_ok(s) || g->m == 0 || g->n == 0 || !valid(s, g))
        return;
    auto at = (reinterpret_cast<uintptr_t>(scratch) + 255) / 256 * 256;
    auto *h = reinterpret_cast<struct head *>(at);
    size_t whole = g->m / ROWS * ROWS, rest = g->m - whole, rows = whole + (rest ? ROWS : 0);
    uint8_t *b = reinterpret_cast<uint8_t *>(at + 4096), *a = b + g->n * g->k;
    void *last = a + rows * g->k;
    round_rows(s, h, 0, a, g->a, g->m, rows, g);
    round_rows(s, h, 1, b, g->b, g->n, g->n, g);
    struct fc_gemm part = *g;
    part.a = a;
    part.b = b;
    part.m = whole;
    if (whole && fc_cuda_ok(s))
        multiply(s, &part, h);
    if (!rest || !fc_cuda_ok(s))
        return;
    size_t size = fc_dtype_size(g->y_type);
    part.a = a + whole * g->k;
    part.m = ROWS;
    part.y = last;
    part.ldy = g->n;
    multiply(s, &part, h);
    if (fc_cuda_ok(s))
        FC_CUDA(s, cudaMemcpy2DAsync(static_cast<char *>(g->y) + whole * g->ldy * size,
                                     g->ldy * size, last, g->n * size, g->n * size, rest,
                                     cudaMemcpyDeviceToDevice, s->stream));
}
