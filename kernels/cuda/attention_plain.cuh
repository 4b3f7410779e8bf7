/* The arithmetic of the plain attention kernels, in fp32: a block has 16 rows of its own, and walks
 * over tiles of 32 rows of the other side. A lane takes one row of the tile for scores (the dot
 * products), and the channels lane, lane + 32, ... for weighted sums.
 *
 * Shared memory: own rows [16][hs], read by broadcast; tiles [32][hs | 1], an odd stride, so that
 * 32 lanes reading the same channel of 32 rows, or 32 channels of one row, fall into 32 banks.
 */
#ifndef FC_KERNELS_CUDA_ATTENTION_PLAIN_CUH
#define FC_KERNELS_CUDA_ATTENTION_PLAIN_CUH

#include "kernels/cuda/attention.cuh"

enum {
    PLAIN_WARPS = 4,
    PLAIN_THREADS = 32 * PLAIN_WARPS,
    PLAIN_OWN = 4, /* own rows of a warp (1 for small groups of heads in paged attention): row i of
                      the block is row i / 4 of warp i % 4 */
    PLAIN_ROWS = PLAIN_WARPS * PLAIN_OWN,
    PLAIN_TILE = 32
};

__host__ __device__ __forceinline__ int plain_stride(int hs)
{
    return hs | 1;
}

/* Bytes of `own` arrays of own rows and `tiles` tiles. */
static inline size_t plain_shared(int hs, int own, int tiles)
{
    return sizeof(float) *
           ((size_t)own * PLAIN_ROWS * hs + (size_t)tiles * PLAIN_TILE * plain_stride(hs));
}

/* to[i][0 .. hs) = from(i) (a pointer to hs elements, null: zeros), for `rows` rows. */
template <typename From>
__device__ __forceinline__ void plain_load(float *to, int rows, int stride, int hs, From from)
{
    for (int i = threadIdx.x / 32; i < rows; i += PLAIN_WARPS) {
        auto *row = from(i);
        for (int c = threadIdx.x % 32; c < hs; c += 32)
            to[i * stride + c] = row ? fc_to_float(row[c]) : 0.0f;
    }
}

/* s[r] = own row r . the lane's row of the tile. */
template <int OWN>
__device__ __forceinline__ void plain_dots(float (&s)[OWN], const float *own, const float *tile,
                                           int hs)
{
    const float *b = tile + threadIdx.x % 32 * plain_stride(hs);
    const float *a = own + threadIdx.x / 32 * hs;
#pragma unroll
    for (int r = 0; r < OWN; r++)
        s[r] = 0.0f;
    for (int c = 0; c < hs; c++) {
        float x = b[c];
#pragma unroll
        for (int r = 0; r < OWN; r++)
            s[r] = fmaf(a[r * PLAIN_WARPS * hs + c], x, s[r]);
    }
}

/* sum[r][i] += weight of (own row r, row j of the tile) * channel lane + 32 i of row j; the weights
 * of row j are lane j's. */
template <int OWN, int NC>
__device__ __forceinline__ void plain_weighted(float (&sum)[OWN][NC], const float (&weight)[OWN],
                                               const float *tile, int hs)
{
    int lane = threadIdx.x % 32;
    for (int j = 0; j < PLAIN_TILE; j++) {
        const float *row = tile + j * plain_stride(hs);
        float w[OWN];
#pragma unroll
        for (int r = 0; r < OWN; r++)
            w[r] = __shfl_sync(0xffffffffu, weight[r], j);
#pragma unroll
        for (int i = 0; i < NC; i++) {
            float x = lane + 32 * i < hs ? row[lane + 32 * i] : 0.0f;
#pragma unroll
            for (int r = 0; r < OWN; r++)
                sum[r][i] = fmaf(w[r], x, sum[r][i]);
        }
    }
}

/* A softmax in progress over the own rows; `sum` is the lane's part of it. */
template <int NC, int OWN = PLAIN_OWN> struct plain_softmax {
    float max[OWN], sum[OWN], o[OWN][NC];

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            max[r] = -INFINITY;
            sum[r] = 0.0f;
#pragma unroll
            for (int i = 0; i < NC; i++)
                o[r][i] = 0.0f;
        }
    }

    /* Takes in a tile: s[r] the lane's score in powers of two, -inf where it is not seen. Some lane
     * must see a key of the first tile. */
    __device__ __forceinline__ void add(float (&s)[OWN], const float *values, int hs)
    {
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            float top = fmaxf(max[r], fc_warp_max(s[r])), shrink = exp2f(max[r] - top);
            max[r] = top;
            s[r] = exp2f(s[r] - top);
            sum[r] = fmaf(sum[r], shrink, s[r]);
#pragma unroll
            for (int i = 0; i < NC; i++)
                o[r][i] *= shrink;
        }
        plain_weighted(o, s, values, hs);
    }
};

/* f(constant) with the channels of a lane: 2, 4 or 8 for head sizes up to 64, 128, 256. */
template <typename F> static inline void plain_by_channels(int hs, F f)
{
    if (hs <= 64)
        f(std::integral_constant<int, 2>());
    else if (hs <= 128)
        f(std::integral_constant<int, 4>());
    else
        f(std::integral_constant<int, 8>());
}

#endif
