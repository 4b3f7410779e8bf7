/* Weights of files expanded to numbers: the twin of base/dequant.c, whose layouts these are, bit
 * for bit (one rounding after each product and each sum; no fused multiply-adds).
 *
 * Floor: reads the blocks (0.56 bytes an element in Q4_0, 0.82 in Q6_K), writes n elements; one or
 * two FLOPs each, and 2 to 5 integer instructions to dig the bits out. Blocks have odd sizes, so a
 * block of threads copies the bytes of TILE elements to shared memory by 16 bytes, and each thread
 * then makes 4 elements in a row, whose scales are the same, and stores 8 or 16 bytes. */
#include "base/dequant.h"
#include "kernels/cuda/launch.cuh"

enum { THREADS = 256, TILE = 4096, EACH = 4 };

__device__ __forceinline__ float half_of(const uint8_t *p)
{
    return __half2float(__ushort_as_half(*reinterpret_cast<const uint16_t *>(p)));
}

__device__ __forceinline__ float scaled(float d, int q)
{
    return __fmul_rn(d, (float)q);
}

/* Each format: the size of its blocks, and elements i .. i + 3 of a block, i a multiple of 4. */
struct f32 {
    static constexpr int BLOCK = 4, BYTES = 16; /* four of the table's blocks */
    static __device__ __forceinline__ float4 get(const uint8_t *in, int)
    {
        return *reinterpret_cast<const float4 *>(in);
    }
};

struct f16 {
    static constexpr int BLOCK = 4, BYTES = 8;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int)
    {
        return {half_of(in), half_of(in + 2), half_of(in + 4), half_of(in + 6)};
    }
};

struct bf16 {
    static constexpr int BLOCK = 4, BYTES = 8;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int)
    {
        uint2 u = *reinterpret_cast<const uint2 *>(in);
        return {__uint_as_float(u.x << 16), __uint_as_float(u.x & 0xffff0000u),
                __uint_as_float(u.y << 16), __uint_as_float(u.y & 0xffff0000u)};
    }
};

/* The four elements from f(0) .. f(3). */
template <typename F> __device__ __forceinline__ float4 four(F f)
{
    return {f(0), f(1), f(2), f(3)};
}

struct q8_0 {
    static constexpr int BLOCK = 32, BYTES = 34;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int i)
    {
        float d = half_of(in);
        return four([&](int j) { return scaled(d, (int8_t)in[2 + i + j]); });
    }
};

/* Blocks of 32 with 4 or 5 bits (HIGH) and a minimum (MIN) or a fixed offset. */
template <bool HIGH, bool MIN> struct q45 {
    static constexpr int BLOCK = 32, HEAD = (MIN ? 4 : 2) + (HIGH ? 4 : 0), BYTES = HEAD + 16;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int i)
    {
        float d = half_of(in), m = MIN ? half_of(in + 2) : 0.0f;
        const uint8_t *high = in + HEAD - 4, *low = in + HEAD + i % 16;
        return four([&](int j) {
            int q = low[j] >> (i / 16 * 4) & 15;
            if (HIGH)
                q |= (high[i / 8] >> (i % 8 + j) & 1) << 4;
            return MIN ? __fadd_rn(scaled(d, q), m) : scaled(d, q - (HIGH ? 16 : 8));
        });
    }
};

/* Where the 2-bit fields of elements i .. i + 3 of Q2_K and Q3_K lie. */
__device__ __forceinline__ const uint8_t *two_bits(const uint8_t *qs, int i, int *shift)
{
    *shift = 2 * (i % 128 / 32);
    return qs + i / 128 * 32 + i % 32;
}

struct q2_k {
    static constexpr int BLOCK = 256, BYTES = 84;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int i)
    {
        int shift, scales = in[i / 16];
        const uint8_t *q = two_bits(in + 16, i, &shift);
        float scale = scaled(half_of(in + 80), scales & 15);
        float min = scaled(half_of(in + 82), scales >> 4);
        return four([&](int j) { return __fsub_rn(scaled(scale, q[j] >> shift & 3), min); });
    }
};

struct q3_k {
    static constexpr int BLOCK = 256, BYTES = 110;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int i)
    {
        int g = i / 16, shift;
        const uint8_t *mask = in + i % 32, *scales = in + 96;
        const uint8_t *q = two_bits(in + 32, i, &shift);
        int low = scales[g % 8] >> (g / 8 * 4) & 15, high = scales[8 + g % 4] >> (2 * (g / 4)) & 3;
        float scale = scaled(half_of(in + 108), (low | high << 4) - 32);
        return four([&](int j) { /* a set bit means no offset */
                                 return scaled(scale, (q[j] >> shift & 3) -
                                                          (mask[j] >> (i / 32) & 1 ? 0 : 4));
        });
    }
};

/* Q4_K, and Q5_K with its fifth bits. */
template <bool HIGH> struct q45_k {
    static constexpr int BLOCK = 256, BYTES = HIGH ? 176 : 144;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int i)
    {
        int g = i / 32;
        const uint8_t *s = in + 4, *high = in + 16 + i % 32;
        const uint8_t *q = in + (HIGH ? 48 : 16) + g / 2 * 32 + i % 32;
        int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        float ds = scaled(half_of(in), scale), dm = scaled(half_of(in + 2), min);
        return four([&](int j) {
            int bits = q[j] >> (g % 2 * 4) & 15;
            if (HIGH)
                bits |= (high[j] >> g & 1) << 4;
            return __fsub_rn(scaled(ds, bits), dm);
        });
    }
};

struct q6_k {
    static constexpr int BLOCK = 256, BYTES = 210;
    static __device__ __forceinline__ float4 get(const uint8_t *in, int i)
    {
        int part = i / 128, quarter = i % 128 / 32, lane = i % 32;
        const uint8_t *low = in + part * 64 + quarter % 2 * 32 + lane;
        const uint8_t *high = in + 128 + part * 32 + lane;
        float scale = scaled(half_of(in + 208), (int8_t)in[192 + i / 16]);
        return four([&](int j) {
            int q = (low[j] >> (quarter / 2 * 4) & 15) | (high[j] >> (2 * quarter) & 3) << 4;
            return scaled(scale, q - 32);
        });
    }
};

/* bytes of `from` (2-byte aligned) to shared memory, by 16 where both sides allow it; zeros up to a
 * multiple of 16, of which the last elements of a plain format are read. */
__device__ __forceinline__ void fetch(uint8_t *to, const uint8_t *from, int bytes)
{
    int by16 = (uintptr_t)from % 16 == 0 ? bytes / 16 * 16 : 0;
    for (int i = (int)threadIdx.x * 16; i < by16; i += THREADS * 16)
        *reinterpret_cast<uint4 *>(to + i) = *reinterpret_cast<const uint4 *>(from + i);
    for (int i = by16 + (int)threadIdx.x * 2; i < (bytes + 15) / 16 * 16; i += THREADS * 2)
        *reinterpret_cast<uint16_t *>(to + i) =
            i < bytes ? *reinterpret_cast<const uint16_t *>(from + i) : (uint16_t)0;
}

/* n elements; a tile's bytes are a multiple of 16 in every format. */
template <typename Format, typename T>
__global__ void __launch_bounds__(THREADS)
    expand_tiles(T *out, const uint8_t *blocks, size_t n, bool aligned)
{
    constexpr int TILE_BYTES = TILE / Format::BLOCK * Format::BYTES;
    __shared__ __align__(16) uint8_t tile[TILE_BYTES];
    size_t first = (size_t)blockIdx.x * TILE;
    int count = n - first < TILE ? (int)(n - first) : TILE;
    /* n is whole blocks, but of F32, F16 and BF16: those have no head, so any part can be cut */
    fetch(tile, blocks + (size_t)blockIdx.x * TILE_BYTES,
          (int)((long long)count * Format::BYTES / Format::BLOCK));
    __syncthreads();
    for (int i = (int)threadIdx.x * EACH; i < count; i += THREADS * EACH) {
        float4 x = Format::get(tile + i / Format::BLOCK * Format::BYTES, i % Format::BLOCK);
        fc_vec<T, EACH> v = {{fc_from_float<T>(x.x), fc_from_float<T>(x.y), fc_from_float<T>(x.z),
                              fc_from_float<T>(x.w)}};
        T *to = out + first + i;
        if (aligned && i + EACH <= count) {
            fc_store<EACH>(to, v);
            continue;
        }
#pragma unroll
        for (int j = 0; j < EACH; j++)
            if (i + j < count)
                to[j] = v.v[j];
    }
}

template <typename Format>
static void expand(struct fc_stream *s, void *out, enum fc_dtype dt, const void *blocks, size_t n)
{
    fc_cuda_by_type(dt, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        FC_LAUNCH(s, (expand_tiles<Format, T>), (unsigned)fc_cuda_blocks(n, TILE), THREADS, 0,
                  static_cast<T *>(out), static_cast<const uint8_t *>(blocks), n,
                  fc_cuda_aligned(out, EACH * sizeof(T)));
    });
}

void fc_cuda_dequantise(struct fc_stream *s, void *out, enum fc_dtype dt, const void *blocks,
                        uint32_t type, size_t n)
{
    static const struct {
        uint32_t type;
        size_t block;
        void (*expand)(struct fc_stream *, void *, enum fc_dtype, const void *, size_t);
    } formats[] = {
        {FC_GGML_F32, 1, expand<f32>},
        {FC_GGML_F16, 1, expand<f16>},
        {FC_GGML_BF16, 1, expand<bf16>},
        {FC_GGML_Q8_0, 32, expand<q8_0>},
        {FC_GGML_Q4_0, 32, expand<q45<false, false>>},
        {FC_GGML_Q4_1, 32, expand<q45<false, true>>},
        {FC_GGML_Q5_0, 32, expand<q45<true, false>>},
        {FC_GGML_Q5_1, 32, expand<q45<true, true>>},
        {FC_GGML_Q2_K, 256, expand<q2_k>},
        {FC_GGML_Q3_K, 256, expand<q3_k>},
        {FC_GGML_Q4_K, 256, expand<q45_k<false>>},
        {FC_GGML_Q5_K, 256, expand<q45_k<true>>},
        {FC_GGML_Q6_K, 256, expand<q6_k>},
    };
    if (!fc_cuda_ok(s) || n == 0)
        return;
    for (const auto &f : formats)
        if (f.type == type) {
            f.expand(s, out, dt, blocks, n * f.block);
            return;
        }
    fc_fail(&s->error, FC_ERR_UNSUPPORTED, "weights of type number %u are of no known format",
            (unsigned)type);
}
