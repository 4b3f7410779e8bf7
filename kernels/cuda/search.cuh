/* Where in a row of floats, the largest first, is a target reached? The search that top-k, top-p
 * and select_smallest share; one block works on one row.
 *
 * Floats become integers of the same order (keys). A range of keys that holds the answer is cut
 * into 256 bins, what is in each is added up, the bin that reaches the target becomes the next
 * range: after as many passes as the range has bytes, one key is left. The first range begins at a
 * lower bound of the answer, so that few values enter a histogram and two or three passes do.
 *
 * Everything that is added is an integer: counts, or weights in fixed point. So the order of the
 * atomics in shared memory does not matter, prefix sums are exact, and a result has the same bits
 * in every run and for any block size.
 *
 * A warp owns a stretch of consecutive ids, a lane four of them at a time (16 bytes), so that ids
 * are visited in their order by a scan of the lanes. Rows that are not 16-byte aligned are read
 * from the vector that holds their first value on; the vectors that reach over the ends are read by
 * parts. */
#ifndef FC_KERNELS_CUDA_SEARCH_CUH
#define FC_KERNELS_CUDA_SEARCH_CUH

#include "kernels/cuda/launch.cuh"

#include <math_constants.h>

enum { FC_SEARCH_BINS = 256, FC_SEARCH_MOST_WARPS = 32 };

/* Orders like the float, -0 as 0; NaN is below everything. */
__device__ __forceinline__ uint32_t fc_key_of(float x)
{
    uint32_t u = __float_as_uint(x + 0.0f);
    uint32_t key = u & 0x80000000u ? ~u : u | 0x80000000u;
    return (u & 0x7fffffffu) > 0x7f800000u ? 0 : key;
}

/* A value that has this key. */
__device__ __forceinline__ float fc_float_of(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

/* The kept values: keys above `key`, and the first `ties` (by id) of those equal to it. */
struct fc_limit {
    uint32_t key;
    uint32_t ties;
};

/* A row as the calling warp sees it: its vectors first .. end - 1. */
struct fc_stretch {
    const float *x; /* the row's vector 0, `skip` values before its first */
    uint32_t skip, V;
    uint32_t first, end;
};

template <int THREADS>
__device__ __forceinline__ fc_stretch fc_stretch_of(const float *row, uint32_t V)
{
    fc_stretch r;
    r.skip = (uint32_t)((uintptr_t)row / 4 % 4);
    r.x = row - r.skip;
    r.V = V;
    uint32_t vectors = (V + r.skip + 3) / 4;
    uint32_t each = ((vectors + THREADS - 1) / THREADS) * 32;
    r.first = min(threadIdx.x / 32 * each, vectors);
    r.end = min(r.first + each, vectors);
    return r;
}

/* The four values of vector v; NaN where the row has none. */
__device__ __forceinline__ float4 fc_vector(const fc_stretch &r, uint32_t v)
{
    float4 x = {CUDART_NAN_F, CUDART_NAN_F, CUDART_NAN_F, CUDART_NAN_F};
    uint32_t at = 4 * v; /* counted from r.x */
    if (v >= r.end)
        return x;
    if (at >= r.skip && at + 4 <= r.V + r.skip)
        return *reinterpret_cast<const float4 *>(r.x + at);
    if (at - r.skip < r.V)
        x.x = r.x[at];
    if (at + 1 - r.skip < r.V)
        x.y = r.x[at + 1];
    if (at + 2 - r.skip < r.V)
        x.z = r.x[at + 2];
    if (at + 3 - r.skip < r.V)
        x.w = r.x[at + 3];
    return x;
}

/* Calls f(id, value) for the lane's values in rising order of ids; four loads are in flight. */
template <typename F> __device__ __forceinline__ void fc_each(const fc_stretch &r, F f)
{
    auto visit = [&](uint32_t v, float4 x) {
        uint32_t id = 4 * v - r.skip; /* wraps below 0 for what lies before the row */
        if (v >= r.end)
            return;
        if (id < r.V)
            f(id, x.x);
        if (id + 1 < r.V)
            f(id + 1, x.y);
        if (id + 2 < r.V)
            f(id + 2, x.z);
        if (id + 3 < r.V)
            f(id + 3, x.w);
    };
    for (uint32_t v = r.first + threadIdx.x % 32; v < r.end; v += 4 * 32) {
        float4 a = fc_vector(r, v), b = fc_vector(r, v + 32);
        float4 c = fc_vector(r, v + 64), d = fc_vector(r, v + 96);
        visit(v, a);
        visit(v + 32, b);
        visit(v + 64, c);
        visit(v + 96, d);
    }
}

/* ---- sums ----------------------------------------------------------------------------------- */

__device__ __forceinline__ uint64_t fc_warp_total(uint64_t x)
{
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

/* The sum over this lane and those before it. */
__device__ __forceinline__ uint64_t fc_warp_scan(uint64_t x)
{
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        uint64_t before = __shfl_up_sync(0xffffffffu, x, lanes);
        x += threadIdx.x % 32 >= (unsigned)lanes ? before : 0;
    }
    return x;
}

/* Sum over the block, for every thread. `partial` may be used again after the next barrier. */
template <int THREADS>
__device__ __forceinline__ uint64_t fc_block_total(uint64_t x, uint64_t *partial)
{
    x = fc_warp_total(x);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = x;
    __syncthreads();
    uint64_t sum = 0;
#pragma unroll
    for (int w = 0; w < THREADS / 32; w++)
        sum += partial[w];
    return sum;
}

/* ---- the search ------------------------------------------------------------------------------ */

/* Sums of 64 bits as two words: shared memory adds 32 bits at a time. */
struct fc_search {
    uint32_t low[FC_SEARCH_BINS], high[FC_SEARCH_BINS];
    uint64_t above; /* weight of all keys above the range that is left */
    uint32_t bin;
};

__device__ __forceinline__ void fc_search_add(fc_search *s, uint32_t bin, uint64_t w)
{
    uint32_t low = (uint32_t)w, high = (uint32_t)(w >> 32);
    high += atomicAdd(&s->low[bin], low) + low < low; /* the carry */
    if (high)
        atomicAdd(&s->high[bin], high);
}

/* One warp: the bin, from the highest down, with which the weight above the range reaches `target`.
 * The caller knows that one does. */
__device__ __forceinline__ void fc_search_choose(fc_search *s, uint64_t target)
{
    constexpr int EACH = FC_SEARCH_BINS / 32;
    int top = FC_SEARCH_BINS - 1 - (int)threadIdx.x * EACH; /* the lane's highest bin */
    uint64_t sum = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        sum += ((uint64_t)s->high[top - i] << 32) + s->low[top - i];
    uint64_t above = s->above, end = above + fc_warp_scan(sum), before = end - sum;
    __syncwarp(); /* every lane has read s->above */
    if (before >= target || end < target)
        return;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        uint64_t w = ((uint64_t)s->high[top - i] << 32) + s->low[top - i];
        if (before < target && before + w >= target) {
            s->bin = (uint32_t)(top - i);
            s->above = before;
        }
        before += w;
    }
}

/* The smallest set of first values whose weights reach `target` (at least 1), which those with keys
 * floor .. highest are known to do. `each(add)` calls add(key, weight) for the values that count,
 * spread over the block's threads; it may offer keys outside the range. one(key) is the weight of a
 * value with this key. All threads call; all get the answer. */
template <int THREADS, typename Each, typename One>
__device__ __forceinline__ fc_limit fc_search_run(fc_search *s, uint64_t target, uint32_t floor,
                                                  uint32_t highest, Each each, One one)
{
    uint32_t base = floor;
    int bits = 32 - __clz((int)(highest - floor));
    __syncthreads(); /* an earlier search's result has been read by all */
    if (threadIdx.x == 0)
        s->above = 0;
    while (bits > 0) {
        int shift = max(bits - 8, 0);
        for (int i = (int)threadIdx.x; i < FC_SEARCH_BINS; i += THREADS)
            s->low[i] = s->high[i] = 0;
        __syncthreads();
        each([&](uint32_t key, uint64_t w) {
            uint32_t from_base = key - base;
            if (key >= base && (bits == 32 || from_base >> bits == 0))
                fc_search_add(s, from_base >> shift, w);
        });
        __syncthreads();
        if (threadIdx.x < 32)
            fc_search_choose(s, target);
        __syncthreads();
        base += s->bin << shift;
        bits = shift;
    }
    __syncthreads();
    /* All values of one key weigh the same: how many of them are needed? */
    uint64_t w = one(base);
    uint64_t needed = (target - s->above + w - 1) / w;
    return {base, (uint32_t)min(needed, (uint64_t)UINT32_MAX)};
}

/* A key that at least n of the row's values reach, n <= THREADS: the n-th largest of the threads'
 * own maxima; 0 where n is larger than that, or so many threads have no number. */
template <int THREADS>
__device__ __forceinline__ uint32_t fc_floor_of(fc_search *s, uint32_t n, float own_max,
                                                float row_max)
{
    if (n > THREADS)
        return 0;
    uint32_t own = fc_key_of(own_max), lowest = fc_key_of(-CUDART_INF_F);
    fc_limit limit = fc_search_run<THREADS>(
        s, n, lowest, fc_key_of(row_max), [&](auto add) { add(own, 1); },
        [](uint32_t) { return (uint64_t)1; });
    return limit.key > lowest ? limit.key : 0; /* a thread of NaN alone has maximum -inf, too */
}

/* The first n values of the row. */
template <int THREADS>
__device__ __forceinline__ fc_limit fc_find_first(fc_search *s, const fc_stretch &r, float sign,
                                                  uint32_t n, float own_max, float row_max)
{
    uint32_t floor = fc_floor_of<THREADS>(s, n, own_max, row_max);
    return fc_search_run<THREADS>(
        s, n, floor, fc_key_of(row_max),
        [&](auto add) { fc_each(r, [&](uint32_t, float x) { add(fc_key_of(sign * x), 1); }); },
        [](uint32_t) { return (uint64_t)1; });
}

/* ---- what a limit keeps ---------------------------------------------------------------------- */

/* What the stretch of each warp holds of the values above a limit, and of those equal to it. */
struct fc_shares {
    uint64_t above[FC_SEARCH_MOST_WARPS];
    uint32_t ties[FC_SEARCH_MOST_WARPS];
};

/* What comes before a warp's stretch, and what is in it; ties weigh `one` until they are used up.
 */
struct fc_share {
    uint64_t before, own, total;
    uint32_t ties_before;
};

/* Fills the shares and waits for all: weigh(x) is the weight of a value with this limit or above.
 */
template <typename Weigh>
__device__ __forceinline__ void fc_share_out(fc_shares *shares, const fc_stretch &r, float sign,
                                             fc_limit limit, Weigh weigh)
{
    uint64_t above = 0;
    uint32_t ties = 0;
    fc_each(r, [&](uint32_t, float x) {
        uint32_t key = fc_key_of(sign * x);
        ties += key == limit.key;
        if (key > limit.key)
            above += weigh(x);
    });
    above = fc_warp_total(above);
    ties = __reduce_add_sync(0xffffffffu, ties);
    __syncthreads(); /* earlier shares have been read by all */
    if (threadIdx.x % 32 == 0) {
        shares->above[threadIdx.x / 32] = above;
        shares->ties[threadIdx.x / 32] = ties;
    }
    __syncthreads();
}

template <int THREADS>
__device__ __forceinline__ fc_share fc_share_of(const fc_shares *shares, fc_limit limit,
                                                uint64_t one)
{
    fc_share share = {0, 0, 0, 0};
    uint32_t ties = 0; /* of the stretches so far */
    for (int w = 0; w < THREADS / 32; w++) {
        uint32_t kept = min(shares->ties[w], limit.ties - min(ties, limit.ties));
        uint64_t sum = shares->above[w] + one * kept;
        if (w == (int)threadIdx.x / 32) {
            share.before = share.total;
            share.own = sum;
            share.ties_before = ties;
        }
        share.total += sum;
        ties += shares->ties[w];
    }
    return share;
}

/* The calling warp's vectors in the order of ids, with the limit applied: calls
 * f(id, x, kept, n_kept) for the lane's four values at a time, kept a mask of 4 bits; f returns
 * whether to go on, the same for all lanes. */
template <typename F>
__device__ __forceinline__ void fc_walk(const fc_stretch &r, float sign, fc_limit limit,
                                        uint32_t ties_before, F f)
{
    for (uint32_t first = r.first; first < r.end; first += 32) {
        uint32_t v = first + threadIdx.x % 32, id = 4 * v - r.skip;
        float4 x = fc_vector(r, v);
        uint32_t above = 0, tie = 0;
        auto sort_in = [&](int bit, float value) {
            uint32_t key = fc_key_of(sign * value);
            uint32_t there = v < r.end && id + bit < r.V;
            above |= (there & (key > limit.key)) << bit;
            tie |= (there & (key == limit.key)) << bit;
        };
        sort_in(0, x.x);
        sort_in(1, x.y);
        sort_in(2, x.z);
        sort_in(3, x.w);
        if (__any_sync(0xffffffffu, tie)) {
            uint32_t through = ties_before + (uint32_t)fc_warp_scan(__popc(tie));
            uint32_t rank = through - __popc(tie);
            ties_before = __shfl_sync(0xffffffffu, through, 31);
#pragma unroll
            for (int bit = 0; bit < 4; bit++)
                if (tie >> bit & 1)
                    above |= (uint32_t)(rank++ < limit.ties) << bit;
        }
        if (!f(id, x, above))
            return;
    }
}

#endif
