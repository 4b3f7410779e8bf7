/* One token from a row of logits, by temperature, top-k and top-p: the twin of
 * kernels/cpu/sampling.c, which has the definition's reasons.
 *
 * Floor: 4 V bytes from memory once, 197 KB and 0.06 us of an H100's bandwidth for V = 49,152; a
 * row is read from L2 after that. Greedy passes over the row once; a draw twice more (sum of
 * weights, then one warp's 1/32 of the row); top-k two or three times more, top-p three or four. A
 * search reads much and adds little: its lower bound (threads' maxima; masses near the maximum)
 * keeps all but a few values out of the histogram.
 *
 * One block works on one row, so what costs is latency, not bytes: 768 threads with four 16-byte
 * loads in flight each. Weights are fixed point, exp((x - max) / temperature) in units of
 * 2^-(62 - bits of V), so that all sums are exact: within 2^-44 of the CPU's for V = 152,064, which
 * weighs in fp32 and sums in fp64. Parameters and uniforms travel as arguments of the kernel: `how`
 * is the host's, and is not needed any more when the call returns. */
#include "base/philox.h"
#include "kernels/cuda/search.cuh"

#include <cmath>

enum {
    SMALL_THREADS = 128, /* for rows up to SMALL_ROW */
    SMALL_ROW = 4096,
    LARGE_THREADS = 768, /* 80 registers each, the most threads that leaves room */
    ROWS = 224,          /* of one launch: their parameters fit in a kernel's 4 KB of arguments */
    DISTANCES = 3
};

struct row_how {
    float temperature, top_p;
    uint32_t top_k;
    uint32_t uniform; /* of 2^24 */
};

struct launch_how {
    row_how rows[ROWS];
    float unit;     /* of weights */
    uint32_t call;  /* which call of a stream: its first broken row is the one to report */
    uint32_t first; /* row of the call */
};

/* Weights of values as integers: exp((x - max) / temperature) * unit; a value equal to the maximum
 * weighs a unit even where both are infinite, NaN and -inf weigh nothing. */
struct weight {
    float max, inverse, unit;

    __device__ __forceinline__ uint64_t operator()(float x) const
    {
        /* fc_cpu_exp for x <= 0, without the results near 2^-126, which round to nothing here. */
        const float magic = 12582912.0f; /* 1.5 * 2^23 */
        float y = fmaxf((x - max) * inverse, -87.33654f);
        float t = __fmaf_rn(y, 1.44269504f, magic), n = t - magic;
        float r = __fmaf_rn(n, 2.12194440e-4f, __fmaf_rn(n, -0.693359375f, y));
        float p = 1.9875691500e-4f;
        p = __fmaf_rn(p, r, 1.3981999507e-3f);
        p = __fmaf_rn(p, r, 8.3334519073e-3f);
        p = __fmaf_rn(p, r, 4.1665795894e-2f);
        p = __fmaf_rn(p, r, 1.6666665459e-1f);
        p = __fmaf_rn(p, r, 5.0000001201e-1f);
        p = __fmaf_rn(p, r * r, r) + 1.0f;
        float e = p * __uint_as_float((__float_as_uint(t) - 0x4b400000u + 127u) << 23);
        e = x == max ? 1.0f : e;
        return x > -CUDART_INF_F ? __float2ull_rn(e * unit) : 0;
    }
};

/* Shared memory of a block. */
struct scratch {
    fc_search search;
    fc_shares shares;
    uint64_t partial[DISTANCES + 1][FC_SEARCH_MOST_WARPS];
    float max[FC_SEARCH_MOST_WARPS];
    uint32_t id[FC_SEARCH_MOST_WARPS];
};

/* The lowest id with the largest value. */
struct best {
    float value;
    uint32_t id;

    __device__ __forceinline__ void take(float v, uint32_t i)
    {
        bool better = v > value || (v == value && i < id);
        value = better ? v : value;
        id = better ? i : id;
    }
};

/* *own is the thread's, the result the row's. NaN is never taken: a row of NaN has -inf. */
template <int THREADS>
__device__ __forceinline__ best find_best(scratch *s, const fc_stretch &r, best *own)
{
    *own = {-CUDART_INF_F, UINT32_MAX};
    fc_each(r, [&](uint32_t id, float x) { own->take(x, id); });
    best all = *own;
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2)
        all.take(__shfl_xor_sync(0xffffffffu, all.value, lane),
                 __shfl_xor_sync(0xffffffffu, all.id, lane));
    if (threadIdx.x % 32 == 0) {
        s->max[threadIdx.x / 32] = all.value;
        s->id[threadIdx.x / 32] = all.id;
    }
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++)
        all.take(s->max[w], s->id[w]);
    return all;
}

/* The part of the mass that top-p keeps; at least one unit, at most all. */
__device__ __forceinline__ uint64_t mass_of(float top_p, uint64_t total)
{
    uint64_t target = (uint64_t)ceil((double)top_p * (double)total);
    return max(min(target, total), (uint64_t)1);
}

/* The limit of top-p within that of top-k: the target is at most the mass of what that keeps, so no
 * more ties than it keeps are needed. */
template <int THREADS>
__device__ __forceinline__ fc_limit find_mass_within(scratch *s, const fc_stretch &r,
                                                     const weight &w, fc_limit outer, float top_p)
{
    auto one = [&](uint32_t key) { return w(fc_float_of(key)); };
    fc_share_out(&s->shares, r, 1.0f, outer, w);
    uint64_t total = fc_share_of<THREADS>(&s->shares, outer, one(outer.key)).total;
    return fc_search_run<THREADS>(
        &s->search, mass_of(top_p, total), outer.key, fc_key_of(w.max),
        [&](auto add) { fc_each(r, [&](uint32_t, float x) { add(fc_key_of(x), w(x)); }); }, one);
}

/* The limit of top-p where top-k set none. The values near the maximum usually hold the mass: those
 * further away stay out of the histogram. */
template <int THREADS>
__device__ __forceinline__ fc_limit find_mass(scratch *s, const fc_stretch &r, const weight &w,
                                              float top_p)
{
    float step = 4.0f / w.inverse;
    float near = w.max - step, middle = w.max - 2.0f * step, far = w.max - 4.0f * step;
    uint64_t sum_near = 0, sum_middle = 0, sum_far = 0, sum = 0;
    fc_each(r, [&](uint32_t, float x) {
        uint64_t e = w(x);
        sum += e;
        sum_near += x >= near ? e : 0;
        sum_middle += x >= middle ? e : 0;
        sum_far += x >= far ? e : 0;
    });
    sum = fc_block_total<THREADS>(sum, s->partial[0]);
    sum_near = fc_block_total<THREADS>(sum_near, s->partial[1]);
    sum_middle = fc_block_total<THREADS>(sum_middle, s->partial[2]);
    sum_far = fc_block_total<THREADS>(sum_far, s->partial[3]);
    uint64_t target = mass_of(top_p, sum);
    float floor = sum_near >= target     ? near
                  : sum_middle >= target ? middle
                  : sum_far >= target    ? far
                                         : -CUDART_INF_F;
    return fc_search_run<THREADS>(
        &s->search, target, fc_key_of(floor), fc_key_of(w.max),
        [&](auto add) {
            fc_each(r, [&](uint32_t, float x) {
                if (x >= floor)
                    add(fc_key_of(x), w(x));
            });
        },
        [&](uint32_t key) { return w(fc_float_of(key)); });
}

/* The id on which the uniform falls in the running sum of weights kept, in the order of ids. */
template <int THREADS>
__device__ __forceinline__ void draw(scratch *s, int32_t *id_out, const fc_stretch &r,
                                     const weight &w, fc_limit limit, uint32_t uniform)
{
    fc_share_out(&s->shares, r, 1.0f, limit, w);
    fc_share share = fc_share_of<THREADS>(&s->shares, limit, w(fc_float_of(limit.key)));
    uint64_t target = __umul64hi(share.total, (uint64_t)uniform << 40);
    if (target < share.before || target >= share.before + share.own)
        return; /* another warp's */
    uint64_t sum = share.before;
    fc_walk(r, 1.0f, limit, share.ties_before, [&](uint32_t id, float4 x, uint32_t kept) {
        uint64_t a = kept & 1 ? w(x.x) : 0, b = a + (kept & 2 ? w(x.y) : 0);
        uint64_t c = b + (kept & 4 ? w(x.z) : 0), d = c + (kept & 8 ? w(x.w) : 0);
        uint64_t end = sum + fc_warp_scan(d), start = end - d;
        if (start <= target && target < end)
            *id_out = (int32_t)(id + (start + a <= target) + (start + b <= target) +
                                (start + c <= target));
        sum = __shfl_sync(0xffffffffu, end, 31);
        return sum <= target;
    });
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS)
    sample_rows(int32_t *ids, const float *logits, uint32_t V,
                const __grid_constant__ launch_how how, unsigned long long *broken)
{
    __shared__ scratch s;
    uint32_t row = how.first + blockIdx.x;
    row_how mine = how.rows[blockIdx.x];
    fc_stretch r = fc_stretch_of<THREADS>(logits + (size_t)row * V, V);
    best own, top = find_best<THREADS>(&s, r, &own);
    if (top.value == -CUDART_INF_F || !(mine.temperature > 0.0f)) {
        if (threadIdx.x == 0)
            ids[row] = top.value == -CUDART_INF_F ? 0 : (int32_t)top.id;
        if (threadIdx.x == 0 && top.value == -CUDART_INF_F)
            atomicMin(broken, (unsigned long long)how.call << 32 | row);
        return;
    }
    weight w = {top.value, 1.0f / mine.temperature, how.unit};
    fc_limit limit = {0, UINT32_MAX};
    bool by_rank = mine.top_k > 0 && mine.top_k < V;
    if (by_rank)
        limit = fc_find_first<THREADS>(&s.search, r, 1.0f, mine.top_k, own.value, top.value);
    if (mine.top_p < 1.0f)
        limit = by_rank ? find_mass_within<THREADS>(&s, r, w, limit, mine.top_p)
                        : find_mass<THREADS>(&s, r, w, mine.top_p);
    draw<THREADS>(&s, &ids[row], r, w, limit, mine.uniform);
}

void fc_cuda_sample(struct fc_stream *s, int32_t *ids, const float *logits,
                    const struct fc_sampling *how, size_t n, size_t V)
{
    if (!fc_cuda_ok(s) || n == 0)
        return;
    if (V == 0 || V > INT32_MAX || n > INT32_MAX) {
        fc_fail(&s->error, FC_ERR_INPUT, "sample: expected 1 to 2^31 - 1 logits, found %zu", V);
        return;
    }
    launch_how launch = {};
    launch.unit = ldexpf(1.0f, 62 - (64 - __builtin_clzll(V)));
    launch.call = s->row_calls++;
    for (size_t first = 0; first < n; first += ROWS) {
        unsigned rows = n - first < ROWS ? (unsigned)(n - first) : (unsigned)ROWS;
        launch.first = (uint32_t)first;
        for (unsigned i = 0; i < rows; i++) {
            const struct fc_sampling *h = &how[first + i];
            float uniform = fc_philox_uniform(h->seed, h->stream, h->position);
            launch.rows[i] = {h->temperature, h->top_p, h->top_k, (uint32_t)(uniform * 0x1p24f)};
        }
        if (V <= SMALL_ROW)
            FC_LAUNCH(s, sample_rows<SMALL_THREADS>, rows, SMALL_THREADS, 0, ids, logits,
                      (uint32_t)V, launch, &s->broken_rows[FC_BROKEN_LOGITS]);
        else
            FC_LAUNCH(s, sample_rows<LARGE_THREADS>, rows, LARGE_THREADS, 0, ids, logits,
                      (uint32_t)V, launch, &s->broken_rows[FC_BROKEN_LOGITS]);
    }
}
