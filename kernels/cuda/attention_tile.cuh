/* Tiles of the tensor-core attention kernels: rows of hs elements of T in shared memory, and the
 * products of a warp's 16 rows with them.
 *
 * A block is four warps with 16 rows each. A tile's row is hs + 8 elements apart from the next: an
 * odd number of 16-byte units for every head size here (9, 11, 13, 17), so the eight rows of an
 * ldmatrix, or of the eight threads that write one unit of eight rows at a time, fall into
 * different banks, and so do the 4-byte accesses (row g, unit column t) of fragments. No swizzle is
 * needed, and offsets are constants. It costs 6 to 12 % of the shared memory.
 */
#ifndef FC_KERNELS_CUDA_ATTENTION_TILE_CUH
#define FC_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

enum { TILE_WARPS = 4, TILE_THREADS = 32 * TILE_WARPS, TILE_ROWS = 16 * TILE_WARPS };

template <typename T, int HS> struct fc_tiles {
    static constexpr int STRIDE = HS + 8;
    static constexpr int UNITS = HS / 8;                            /* of 16 bytes in a row */
    static constexpr size_t BYTES = sizeof(T) * STRIDE * TILE_ROWS; /* of a tile of 64 rows */

    /* Begins to copy rows 0 .. ROWS-1 of a tile: from(i) is row i, null for zeros. Every thread of
     * the block must call. `any` is an address that may be read. Eight threads take a unit of eight
     * rows, a warp four units: 64 bytes, two whole sectors, of every row. */
    template <int ROWS, typename From>
    static __device__ __forceinline__ void load(T *tile, const T *any, From from)
    {
        const int row = threadIdx.x % 8;
#pragma unroll
        for (int i = 0; i < ROWS / 8 * UNITS; i += TILE_THREADS / 8) {
            const int u = i + threadIdx.x / 8, r = u / UNITS * 8 + row, unit = u % UNITS;
            if (ROWS / 8 * UNITS % (TILE_THREADS / 8) != 0 && u >= ROWS / 8 * UNITS)
                break;
            const T *source = from(r);
            fc_cp_async16(fc_shared_address(tile + r * STRIDE + unit * 8),
                          source ? source + unit * 8 : any, source != nullptr);
        }
    }

    /* The A fragments of 16 rows of a tile, 16 channels from `channel`. */
    static __device__ __forceinline__ void own(uint32_t (&a)[4], const T *rows, int channel)
    {
        const int lane = threadIdx.x % 32;
        fc_ldmatrix(a, fc_shared_address(rows + lane % 16 * STRIDE + lane / 16 * 8) +
                           channel * (int)sizeof(T));
    }

    /* s[n] += a . rows 8n .. 8n+7 of a tile over 16 channels from `channel`, for the first `groups`
     * groups of 16 rows. */
    template <int NT>
    static __device__ __forceinline__ void dots(float (&s)[NT][4], const uint32_t (&a)[4],
                                                const T *tile, int channel, int groups)
    {
        const int lane = threadIdx.x % 32;
        const uint32_t at =
            fc_shared_address(tile + (lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8);
#pragma unroll
        for (int j = 0; j < NT / 2; j++)
            if (j < groups) {
                uint32_t b[4];
                fc_ldmatrix(b, at + (j * 16 * STRIDE + channel) * (int)sizeof(T));
                fc_mma(tile, s[2 * j], a, b[0], b[1]);
                fc_mma(tile, s[2 * j + 1], a, b[2], b[3]);
            }
    }

    /* sum[HS/8] += w (16 x 8 NT weights, rounded to T) times the rows of a tile. */
    template <int NT>
    static __device__ __forceinline__ void
    weighted(float (&sum)[HS / 8][4], const float (&w)[NT][4], const T *tile, int groups)
    {
        const int lane = threadIdx.x % 32;
        const uint32_t at = fc_shared_address(tile + lane % 16 * STRIDE + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < NT / 2; j++)
            if (j < groups) {
                const uint32_t a[4] = {fc_pack(tile, w[2 * j][0], w[2 * j][1]),
                                       fc_pack(tile, w[2 * j][2], w[2 * j][3]),
                                       fc_pack(tile, w[2 * j + 1][0], w[2 * j + 1][1]),
                                       fc_pack(tile, w[2 * j + 1][2], w[2 * j + 1][3])};
#pragma unroll
                for (int n = 0; n < HS / 8; n += 2) {
                    uint32_t b[4];
                    fc_ldmatrix_trans(b, at + (j * 16 * STRIDE + n * 8) * (int)sizeof(T));
                    fc_mma(tile, sum[n], a, b[0], b[1]);
                    fc_mma(tile, sum[n + 1], a, b[2], b[3]);
                }
            }
    }

    /* Rounds a warp's 16 rows x[HS/8], times factor[0] (rows g) and factor[1] (rows g + 8), and
     * writes them in whole 16-byte units to to(i), null for rows that are not wanted, by way of
     * `room`: 16 rows of a tile that nobody else uses. */
    template <typename To>
    static __device__ __forceinline__ void store(T *room, const float (&x)[HS / 8][4],
                                                 const float (&factor)[2], To to)
    {
        const int lane = threadIdx.x % 32;
        T *at = room + lane / 4 * STRIDE + lane % 4 * 2;
        __syncwarp();
#pragma unroll
        for (int n = 0; n < HS / 8; n++) {
            *reinterpret_cast<uint32_t *>(at + n * 8) =
                fc_pack(room, x[n][0] * factor[0], x[n][1] * factor[0]);
            *reinterpret_cast<uint32_t *>(at + 8 * STRIDE + n * 8) =
                fc_pack(room, x[n][2] * factor[1], x[n][3] * factor[1]);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 2 * UNITS; i += 4) {
            const int u = i + lane / 8, r = u / UNITS * 8 + lane % 8, unit = u % UNITS;
            T *row = to(r);
            if (row)
                fc_store16(row + unit * 8, fc_load16(room + r * STRIDE + unit * 8));
        }
    }
};

/* A softmax in progress over a warp's 16 rows; [0] is row g, [1] is row g + 8. `sum` is the lane's
 * part of it. */
template <typename T, int HS> struct fc_tile_softmax {
    float max[2], sum[2], o[HS / 8][4];

    __device__ __forceinline__ void clear()
    {
        max[0] = max[1] = -INFINITY;
        sum[0] = sum[1] = 0.0f;
#pragma unroll
        for (int n = 0; n < HS / 8; n++)
            o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.0f;
    }

    /* Takes in the first `groups` times 16 keys of a tile: s their scores (becomes the weights),
     * -inf where a key is not seen; scale (positive) makes them powers of two. In its first tile
     * every row must see a key. */
    __device__ __forceinline__ void add(float (&s)[8][4], float scale, const T *values, int groups)
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = -INFINITY;
#pragma unroll
            for (int n = 0; n < 8; n++)
                if (n / 2 < groups)
                    top = fmaxf(top, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            top = fmaxf(max[r], top * scale);
            const float shrink = fc_exp2(max[r] - top);
            max[r] = top;
            float part = 0.0f;
#pragma unroll
            for (int n = 0; n < 8; n++)
                if (n / 2 < groups) {
                    s[n][2 * r] = fc_exp2(fmaf(s[n][2 * r], scale, -top));
                    s[n][2 * r + 1] = fc_exp2(fmaf(s[n][2 * r + 1], scale, -top));
                    part += s[n][2 * r] + s[n][2 * r + 1];
                }
            sum[r] = fmaf(sum[r], shrink, part);
#pragma unroll
            for (int n = 0; n < HS / 8; n++) {
                o[n][2 * r] *= shrink;
                o[n][2 * r + 1] *= shrink;
            }
        }
        fc_tiles<T, HS>::weighted(o, s, values, groups);
    }

    /* The whole sum of row g (0) or g + 8 (1). */
    __device__ __forceinline__ float total(int r) const
    {
        float x = sum[r] + __shfl_xor_sync(0xffffffffu, sum[r], 1);
        return x + __shfl_xor_sync(0xffffffffu, x, 2);
    }
};

/* Calls f with T * and an integral constant of the head size, and returns true, where the
 * tensor-core kernels have both. */
template <typename F> static inline bool fc_by_tile(enum fc_dtype dt, int hs, F f)
{
    auto by_size = [&](auto *t) {
        switch (hs) {
        case 64:
            return f(t, std::integral_constant<int, 64>()), true;
        case 80:
            return f(t, std::integral_constant<int, 80>()), true;
        case 96:
            return f(t, std::integral_constant<int, 96>()), true;
        case 128:
            return f(t, std::integral_constant<int, 128>()), true;
        default:
            return false;
        }
    };
    return dt == FC_BF16  ? by_size((__nv_bfloat16 *)nullptr)
           : dt == FC_F16 ? by_size((__half *)nullptr)
                          : false;
}

#endif
