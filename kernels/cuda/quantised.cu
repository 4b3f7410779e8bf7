/* Products with weights that stay in blocks of 32: Q4_0, Q4_1, Q8_0. The twin of
 * kernels/cpu/quantised.c.
 *
 * Floor: the weights are read once for each ROWS rows of x, 0.56, 0.625 or 1.06 bytes each; 2 m n k
 * FLOPs on the fp32 units, and 3 instructions to expand a weight, shared by the rows. For one row
 * about 6 instructions a weight: an H100 issues 4.6e12 of these a second, so Q4 is near, Q8 at the
 * speed of its memory.
 *
 * Every block reads x again, from L2: in bf16, 2 k bytes for the 9 k of its 16 columns of Q4.
 *
 * A warp computes COLUMNS columns of y. A lane takes one block of 32 weights (16 bytes of Q4: a
 * warp reads 512 in a row) of each column at a time; x comes through shared memory, CHUNK elements
 * of each row as fp32, once for all warps of the block. There, each 32 elements lie 36 floats
 * apart, so that lanes read 16 bytes each without bank conflicts. A lane's sum goes over its
 * weights in rising blocks, then a tree over the lanes: one order, whatever m is. */
#include "base/dequant.h"
#include "kernels/cuda/launch.cuh"

#include <cstdlib>

enum {
    BLOCK = 32,
    WARPS = 8,
    THREADS = 32 * WARPS,
    COLUMNS = 2,             /* of a warp */
    ROWS = 8,                /* of x at a time */
    CHUNK = 32 * BLOCK,      /* elements of a row in shared memory */
    SPREAD = BLOCK + 4,      /* floats between blocks there */
    ROW_FLOATS = 32 * SPREAD /* and between rows */
};

/* Planes of the file's blocks: quants by themselves, 16-byte aligned, and scales. */
struct fc_quantised {
    size_t n, k;
    uint32_t type;
    uint4 *quants;  /* [n, k / 32]: one vector a block; two of Q8_0, see vector_at */
    __half2 *pairs; /* Q4_1: scale and minimum */
    __half *scales; /* the others */
    void *memory;
};

/* Where vector v of block b of a row of `blocks` lies: a warp's 32 blocks together, first the
 * vectors 0 of all of them, so that its lanes read neighbours. */
template <int VECTORS>
__host__ __device__ __forceinline__ size_t vector_at(size_t row, size_t blocks, size_t b, int v)
{
    size_t first = b / 32 * 32, together = blocks - first < 32 ? blocks - first : 32;
    return (row * blocks + first) * VECTORS + v * together + (b - first);
}

/* 8388608 + b as a float, exactly, for the byte b of word at `shift`, masked. */
__device__ __forceinline__ float biased(uint32_t word, int shift, uint32_t mask)
{
    return __uint_as_float(0x4b000000u | (word >> shift & mask));
}

/* Weights 4 j .. 4 j + 3 of a block from word(j) of its quants; with the bits of base/dequant.c. */
struct q4_0 {
    static constexpr int VECTORS = 1;
    using scale = __half;
    static __device__ __forceinline__ int word(int j)
    {
        return j % 4;
    }
    static __device__ __forceinline__ float4 get(uint32_t w, __half s, int j)
    {
        float d = __half2float(s), zero = 8388608.0f + 8.0f;
        int at = j / 4 * 4;
        return {__fmul_rn(d, biased(w, at, 15) - zero), __fmul_rn(d, biased(w, at + 8, 15) - zero),
                __fmul_rn(d, biased(w, at + 16, 15) - zero),
                __fmul_rn(d, biased(w, at + 24, 15) - zero)};
    }
};

struct q4_1 {
    static constexpr int VECTORS = 1;
    using scale = __half2;
    static __device__ __forceinline__ int word(int j)
    {
        return j % 4;
    }
    static __device__ __forceinline__ float4 get(uint32_t w, __half2 s, int j)
    {
        float d = __low2float(s), m = __high2float(s), zero = 8388608.0f;
        int at = j / 4 * 4;
        return {__fadd_rn(__fmul_rn(d, biased(w, at, 15) - zero), m),
                __fadd_rn(__fmul_rn(d, biased(w, at + 8, 15) - zero), m),
                __fadd_rn(__fmul_rn(d, biased(w, at + 16, 15) - zero), m),
                __fadd_rn(__fmul_rn(d, biased(w, at + 24, 15) - zero), m)};
    }
};

struct q8_0 {
    static constexpr int VECTORS = 2;
    using scale = __half;
    static __device__ __forceinline__ int word(int j)
    {
        return j;
    }
    static __device__ __forceinline__ float4 get(uint32_t signed_quants, __half s, int)
    {
        float d = __half2float(s), zero = 8388608.0f + 128.0f;
        uint32_t w = signed_quants ^ 0x80808080u; /* -128 is now 0 */
        return {__fmul_rn(d, biased(w, 0, 255) - zero), __fmul_rn(d, biased(w, 8, 255) - zero),
                __fmul_rn(d, biased(w, 16, 255) - zero), __fmul_rn(d, biased(w, 24, 255) - zero)};
    }
};

template <typename Scale> __device__ __forceinline__ Scale scale_at(const fc_quantised &w, size_t b)
{
    if constexpr (sizeof(Scale) == sizeof(__half2))
        return w.pairs[b];
    else
        return w.scales[b];
}

template <typename T> __device__ __forceinline__ float4 four_at(const void *p, size_t i)
{
    const T *from = static_cast<const T *>(p) + i;
    fc_vec<T, 4> v;
    if ((uintptr_t)from % sizeof v == 0)
        v = fc_load<4>(from);
    else
        v = {{from[0], from[1], from[2], from[3]}};
    return {fc_to_float(v.v[0]), fc_to_float(v.v[1]), fc_to_float(v.v[2]), fc_to_float(v.v[3])};
}

/* Elements i .. i + 3. */
__device__ __forceinline__ float4 any_to_float(const void *p, size_t i, enum fc_dtype dt)
{
    return dt == FC_F32    ? four_at<float>(p, i)
           : dt == FC_BF16 ? four_at<__nv_bfloat16>(p, i)
                           : four_at<__half>(p, i);
}

__device__ __forceinline__ void any_from_float(void *p, size_t i, enum fc_dtype dt, float x)
{
    if (dt == FC_F32)
        static_cast<float *>(p)[i] = x;
    else if (dt == FC_BF16)
        static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn(x);
    else
        static_cast<__half *>(p)[i] = __float2half_rn(x);
}

/* ---- products ------------------------------------------------------------------------------- */

struct product {
    void *y;
    const void *x;
    enum fc_dtype y_type, x_type;
    size_t m;
};

/* Elements at .. at + CHUNK - 1 of M rows of x; zero beyond k and m. */
template <int M>
__device__ __forceinline__ void fetch(float *tile, const product &p, size_t first, size_t at,
                                      size_t k)
{
    for (int i = (int)threadIdx.x * 4; i < M * CHUNK; i += THREADS * 4) {
        int r = i / CHUNK, c = i % CHUNK;
        bool inside = first + r < p.m && at + c < k; /* k is a multiple of 4 */
        *reinterpret_cast<float4 *>(&tile[r * ROW_FLOATS + c / BLOCK * SPREAD + c % BLOCK]) =
            inside ? any_to_float(p.x, (first + r) * k + at + c, p.x_type) : float4{};
    }
}

template <typename Format, int M>
__global__ void __launch_bounds__(THREADS, 2) multiply(const product p, const fc_quantised w)
{
    extern __shared__ __align__(16) float tile[];
    int lane = (int)threadIdx.x % 32;
    size_t column = ((size_t)blockIdx.x * WARPS + threadIdx.x / 32) * COLUMNS;
    size_t first = (size_t)blockIdx.y * M, blocks = w.k / BLOCK;
    float sum[COLUMNS][M] = {};
    for (size_t at = 0; at < w.k; at += CHUNK) {
        size_t b = at / BLOCK + lane;
        uint4 q[COLUMNS][Format::VECTORS];
        typename Format::scale scale[COLUMNS];
        bool inside = b < blocks && column < w.n;
        if (inside) {
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                size_t row = min(column + c, w.n - 1); /* the last is not stored twice */
#pragma unroll
                for (int v = 0; v < Format::VECTORS; v++)
                    q[c][v] = w.quants[vector_at<Format::VECTORS>(row, blocks, b, v)];
                scale[c] = scale_at<typename Format::scale>(w, row * blocks + b);
            }
        }
        __syncthreads(); /* the last chunk has been used by all */
        fetch<M>(tile, p, first, at, w.k);
        __syncthreads();
        if (!inside)
            continue;
#pragma unroll
        for (int j = 0; j < BLOCK / 4; j++) {
            float4 weight[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                weight[c] = Format::get(reinterpret_cast<const uint32_t *>(q[c])[Format::word(j)],
                                        scale[c], j);
#pragma unroll
            for (int r = 0; r < M; r++) {
                float4 x = *reinterpret_cast<const float4 *>(
                    &tile[r * ROW_FLOATS + lane * SPREAD + 4 * j]);
#pragma unroll
                for (int c = 0; c < COLUMNS; c++) {
                    float a = __fmaf_rn(weight[c].x, x.x, sum[c][r]);
                    a = __fmaf_rn(weight[c].y, x.y, a);
                    a = __fmaf_rn(weight[c].z, x.z, a);
                    sum[c][r] = __fmaf_rn(weight[c].w, x.w, a);
                }
            }
        }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
#pragma unroll
        for (int r = 0; r < M; r++) {
            float total = fc_warp_sum(sum[c][r]);
            if (lane == 0 && column + c < w.n && first + r < p.m)
                any_from_float(p.y, (first + r) * w.n + column + c, p.y_type, total);
        }
}

template <typename Format>
static void run(struct fc_stream *s, const product &p, const fc_quantised &w)
{
    unsigned columns = (unsigned)fc_cuda_blocks(w.n, WARPS * COLUMNS);
    if (p.m == 1)
        FC_LAUNCH(s, (multiply<Format, 1>), columns, THREADS, ROW_FLOATS * sizeof(float), p, w);
    else
        FC_LAUNCH(s, (multiply<Format, ROWS>), dim3(columns, (unsigned)fc_cuda_blocks(p.m, ROWS)),
                  THREADS, ROWS * ROW_FLOATS * sizeof(float), p, w);
}

void fc_cuda_gemm_quantised(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                            enum fc_dtype x_type, const struct fc_quantised *w, size_t m)
{
    if (!fc_cuda_ok(s) || m == 0)
        return;
    product p = {y, x, y_type, x_type, m};
    if (w->type == FC_GGML_Q4_0)
        run<q4_0>(s, p, *w);
    else if (w->type == FC_GGML_Q4_1)
        run<q4_1>(s, p, *w);
    else
        run<q8_0>(s, p, *w);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* A thread makes four elements from the one word that holds them. */
template <typename Format, typename T>
__global__ void __launch_bounds__(THREADS)
    expand_rows(T *out, const fc_quantised w, const int32_t *ids)
{
    size_t at = ((size_t)blockIdx.y * THREADS + threadIdx.x) * 4, t = blockIdx.x;
    if (at >= w.k)
        return;
    size_t row = (size_t)ids[t], blocks = w.k / BLOCK, b = at / BLOCK;
    int j = (int)(at % BLOCK / 4), word = Format::word(j);
    const uint4 *vector = w.quants + vector_at<Format::VECTORS>(row, blocks, b, word / 4);
    float4 x = Format::get(reinterpret_cast<const uint32_t *>(vector)[word % 4],
                           scale_at<typename Format::scale>(w, row * blocks + b), j);
    fc_store<4>(out + t * w.k + at, fc_vec<T, 4>{{fc_from_float<T>(x.x), fc_from_float<T>(x.y),
                                                  fc_from_float<T>(x.z), fc_from_float<T>(x.w)}});
}

void fc_cuda_embed_quantised(struct fc_stream *s, void *out, const struct fc_quantised *w,
                             const int32_t *ids, size_t T, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T == 0)
        return;
    dim3 grid((unsigned)T, (unsigned)fc_cuda_blocks(w->k, 4 * THREADS));
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        auto *to = static_cast<E *>(out);
        if (w->type == FC_GGML_Q4_0)
            FC_LAUNCH(s, (expand_rows<q4_0, E>), grid, THREADS, 0, to, *w, ids);
        else if (w->type == FC_GGML_Q4_1)
            FC_LAUNCH(s, (expand_rows<q4_1, E>), grid, THREADS, 0, to, *w, ids);
        else
            FC_LAUNCH(s, (expand_rows<q8_0, E>), grid, THREADS, 0, to, *w, ids);
    });
}

/* ---- planes ---------------------------------------------------------------------------------- */

/* Half-words of blocks to the planes: the scale (and minimum) first, then VECTORS * 16 bytes of
 * quants. A row has `blocks` blocks. */
template <int VECTORS>
__global__ void __launch_bounds__(THREADS)
    split_blocks(uint16_t *quants, uint16_t *scales, const uint16_t *words, size_t n, size_t blocks,
                 int head)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n)
        return;
    int each = head + VECTORS * 8, at = (int)(i % each);
    size_t b = i / each;
    if (at < head) {
        scales[b * head + at] = words[i];
        return;
    }
    at -= head;
    quants[vector_at<VECTORS>(b / blocks, blocks, b % blocks, at / 8) * 8 + at % 8] = words[i];
}

struct fc_quantised *fc_cuda_quantised_open(struct fc_stream *s, const void *blocks, uint32_t type,
                                            size_t n, size_t k, size_t *bytes)
{
    if (!fc_cuda_ok(s))
        return nullptr;
    if ((type != FC_GGML_Q4_0 && type != FC_GGML_Q4_1 && type != FC_GGML_Q8_0) || k % BLOCK) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "quantised weights: expected rows of whole blocks in Q4_0, Q4_1 or Q8_0, found "
                "type number %u and rows of %zu",
                (unsigned)type, k);
        return nullptr;
    }
    auto *w = static_cast<struct fc_quantised *>(calloc(1, sizeof(struct fc_quantised)));
    size_t count = n * (k / BLOCK), quants = type == FC_GGML_Q8_0 ? 32 : 16;
    size_t head = type == FC_GGML_Q4_1 ? 4 : 2;
    if (!w || !FC_CUDA(s, cudaMalloc(&w->memory, count * (quants + head) + 1))) {
        fc_fail(&s->error, FC_ERR_MEMORY, "out of memory: quantised weights");
        free(w);
        return nullptr;
    }
    *bytes = count * (quants + head);
    w->n = n;
    w->k = k;
    w->type = type;
    w->quants = static_cast<uint4 *>(w->memory);
    auto *scales = static_cast<char *>(w->memory) + count * quants;
    if (type == FC_GGML_Q4_1)
        w->pairs = reinterpret_cast<__half2 *>(scales);
    else
        w->scales = reinterpret_cast<__half *>(scales);
    size_t words = count * (quants + head) / 2;
    if (words)
        FC_LAUNCH(s, (type == FC_GGML_Q8_0 ? split_blocks<2> : split_blocks<1>),
                  (unsigned)fc_cuda_blocks(words, THREADS), THREADS, 0,
                  static_cast<uint16_t *>(w->memory), reinterpret_cast<uint16_t *>(scales),
                  static_cast<const uint16_t *>(blocks), words, k / BLOCK, (int)head / 2);
    if (s->error.code == FC_OK)
        return w;
    fc_cuda_quantised_close(s, w);
    return nullptr;
}

void fc_cuda_quantised_close(struct fc_stream *s, struct fc_quantised *w)
{
    if (!w)
        return;
    if (FC_CUDA(s, cudaSetDevice(s->device)))
        FC_CUDA(s, cudaFree(w->memory)); /* waits for what still reads it */
    free(w);
}
