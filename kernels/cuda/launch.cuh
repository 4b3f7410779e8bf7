/* What every file of the CUDA back end shares: the stream, checked launches, dtypes, 16-byte
 * vectors, sums over warps and blocks.
 *
 * Conventions of the kernels here:
 *  - Every kernel carries __launch_bounds__ and is launched by FC_LAUNCH, which checks the launch
 * and names the kernel, file and line in the stream's error. Entries begin with fc_cuda_ok.
 *  - Products of sizes are size_t; an index is 64 bits wherever a product can pass 2^31.
 *  - Rows whose width or address is not a multiple of 16 bytes take a scalar path: sizes are ragged
 *    in tests and in vocabularies, and an unaligned vector access is a fault.
 *  - Sums are taken in a fixed order (no atomics but on integers), so a result has the same bits in
 *    every run.
 */
#ifndef FC_KERNELS_CUDA_LAUNCH_CUH
#define FC_KERNELS_CUDA_LAUNCH_CUH

#include "kernels/cuda/cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

enum { FC_BROKEN_LOGITS, FC_BROKEN_RANKING, FC_BROKEN_KINDS };

struct fc_cuda_products; /* cuBLASLt handle, algorithms and workspace: private to gemm.cu */

/* One host thread uses a stream at a time; different streams may run at the same time. */
struct fc_stream {
    int device;
    cudaStream_t stream;
    struct fc_error error; /* sticky: first error since the last sync */
    struct fc_cuda_products *products;
    int sms;                 /* multiprocessors */
    int capability;          /* 10 * major + minor: 80, 89, 90 */
    size_t shared_per_block; /* most dynamic shared memory that a block may ask for */
    bool recording;          /* between graph_begin and graph_end */
    /* Device memory: the first row that `sample`, and that `draw`, could make nothing of, as
     * call << 32 | row; all ones: there is none. Read back by sync, once there was such a call. */
    unsigned long long *broken_rows;
    uint32_t row_calls; /* of both so far */
    float *parts;       /* FC_PAGED_SCRATCH bytes for paged attention (attention.cuh) */
};

/* memory.cu: a stream that can copy and run kernels but not multiply (products is null). */
struct fc_stream *fc_cuda_stream_create(int index, struct fc_error *err);

/* plans.cu: the products state of a stream; close takes null. Null: error in *err. */
struct fc_cuda_products *fc_cuda_products_open(struct fc_stream *s, struct fc_error *err);
void fc_cuda_products_close(struct fc_stream *s, struct fc_cuda_products *p);

/* memory.cu: what CUDA says where device `index` of `count` cannot be used, and what to do. */
void fc_cuda_no_device(struct fc_error *err, cudaError_t code, int index, int count);

/* Makes the stream's device current and says whether the stream may still work. Every entry starts
 * with it. */
bool fc_cuda_ok(struct fc_stream *s);

/* Keeps the error of a CUDA call in the stream: what was done, where, and what helps. Returns
 * whether the call succeeded. `what` is the call or the kernel's name. */
bool fc_cuda_check(struct fc_stream *s, cudaError_t code, const char *what, const char *file,
                   int line);
#define FC_CUDA(s, call) fc_cuda_check(s, call, #call, __FILE__, __LINE__)

/* kernel<<<grid, block, shared, s->stream>>>(...), checked. A kernel template with commas in its
 * arguments needs parentheses or a constant of function type. Empty grids are the caller's to skip.
 */
#define FC_LAUNCH(s, kernel, grid, block, shared, ...)                                             \
    do {                                                                                           \
        (kernel)<<<grid, block, shared, (s)->stream>>>(__VA_ARGS__);                               \
        fc_cuda_check(s, cudaGetLastError(), #kernel, __FILE__, __LINE__);                         \
    } while (0)

/* Lets a kernel ask for `bytes` of dynamic shared memory; above 48 KB CUDA wants to be told. An
 * error in the stream when the device has less. Returns whether it may be launched. */
template <typename Kernel>
static inline bool fc_cuda_allow_shared(struct fc_stream *s, Kernel kernel, size_t bytes)
{
    if (bytes <= 48 * 1024)
        return true;
    if (bytes > s->shared_per_block) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "a kernel needs %zu bytes of shared memory in a block, the device has %zu", bytes,
                s->shared_per_block);
        return false;
    }
    return FC_CUDA(
        s, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

/* Calls f with a null pointer of the C++ type of dt: f = [&](auto *t) { using T = ...; }. */
template <typename F> static inline void fc_cuda_by_type(enum fc_dtype dt, F f)
{
    if (dt == FC_F32)
        f((float *)nullptr);
    else if (dt == FC_BF16)
        f((__nv_bfloat16 *)nullptr);
    else
        f((__half *)nullptr);
}

static inline size_t fc_cuda_blocks(size_t n, size_t per_block)
{
    return (n + per_block - 1) / per_block;
}

static inline bool fc_cuda_aligned(const void *p, size_t bytes)
{
    return (uintptr_t)p % bytes == 0;
}

/* ---- device side ---------------------------------------------------------------------------- */

__device__ __forceinline__ float fc_to_float(float x)
{
    return x;
}
__device__ __forceinline__ float fc_to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
__device__ __forceinline__ float fc_to_float(__half x)
{
    return __half2float(x);
}
template <typename T> __device__ __forceinline__ T fc_from_float(float x);
template <> __device__ __forceinline__ float fc_from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ __nv_bfloat16 fc_from_float<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ __half fc_from_float<__half>(float x)
{
    return __float2half_rn(x);
}

/* W elements of T, moved by one access of 2, 4, 8 or 16 bytes (the default); W = 1 is the scalar
 * path of the same code. */
template <int BYTES> struct fc_word;
template <> struct fc_word<2> {
    using type = uint16_t;
};
template <> struct fc_word<4> {
    using type = uint32_t;
};
template <> struct fc_word<8> {
    using type = uint2;
};
template <> struct fc_word<16> {
    using type = uint4;
};
template <typename T, int W = 16 / (int)sizeof(T)> struct alignas(W * sizeof(T)) fc_vec {
    static constexpr int N = W;
    T v[W];
};

template <int W, typename T> __device__ __forceinline__ fc_vec<T, W> fc_load(const T *p)
{
    using word = typename fc_word<W *(int)sizeof(T)>::type;
    fc_vec<T, W> x;
    *reinterpret_cast<word *>(&x) = *reinterpret_cast<const word *>(p);
    return x;
}
/* One store, spelled out: the compiler splits a store of 8 or 16 bytes into its elements when it
 * has just computed them, and then moves every sector several times. */
__device__ __forceinline__ void fc_store_word(void *p, uint16_t x)
{
    *static_cast<uint16_t *>(p) = x;
}
__device__ __forceinline__ void fc_store_word(void *p, uint32_t x)
{
    *static_cast<uint32_t *>(p) = x;
}
__device__ __forceinline__ void fc_store_word(void *p, uint2 x)
{
    asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(p), "r"(x.x), "r"(x.y) : "memory");
}
__device__ __forceinline__ void fc_store_word(void *p, uint4 x)
{
    asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(x.x), "r"(x.y), "r"(x.z),
                 "r"(x.w)
                 : "memory");
}
template <int W, typename T> __device__ __forceinline__ void fc_store(T *p, const fc_vec<T, W> &x)
{
    using word = typename fc_word<W *(int)sizeof(T)>::type;
    fc_store_word(p, *reinterpret_cast<const word *>(&x));
}

template <typename T> __device__ __forceinline__ fc_vec<T> fc_load16(const T *p)
{
    return fc_load<fc_vec<T>::N>(p);
}
template <typename T> __device__ __forceinline__ void fc_store16(T *p, const fc_vec<T> &x)
{
    fc_store<fc_vec<T>::N>(p, x);
}

/* Sum, and maximum, over the 32 lanes of a full warp; every lane gets it. */
__device__ __forceinline__ float fc_warp_sum(float x)
{
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
__device__ __forceinline__ float fc_warp_max(float x)
{
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

/* Sum over a block of THREADS (a multiple of 32); every thread gets it. All threads must call.
 * `partial` is THREADS / 32 floats of shared memory, free again after the next __syncthreads. */
template <int THREADS> __device__ __forceinline__ float fc_block_sum(float x, float *partial)
{
    x = fc_warp_sum(x);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int w = 0; w < THREADS / 32; w++)
        sum += partial[w];
    return sum;
}

#endif
