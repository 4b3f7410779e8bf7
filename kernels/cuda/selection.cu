/* The m smallest scores of each row, in order: the twin of select_smallest in
 * kernels/cpu/sampling.c.
 *
 * Floor: 4 V bytes read and 4 m written a row: 44 KB for V = 11,000. A row is read four or five
 * times, from L2 after the first: maxima of the threads, a pass or two of the search for the m-th
 * smallest (see search.cuh), a count of what each warp keeps, the ids kept. Then the m are sorted:
 * a bitonic network, log2(m)^2 / 2 steps, in shared memory up to 2,048 and else in place on the
 * ids, by looks at the scores (m = V = 40,000 is 136 passes over idx: meant for tests and audits,
 * not for speed).
 *
 * One block works on one row; a ranking's rows come by the hundred and fill the device. */
#include "kernels/cuda/search.cuh"
#include "kernels/cuda/sort.cuh"

enum {
    SMALL_THREADS = 128, /* for rows up to SMALL_ROW */
    SMALL_ROW = 4096,
    LARGE_THREADS = 512,
    SORTED_IN_SHARED = 2048
};

/* Ascending in the order of the result: smaller scores, then lower ids; NaN last. */
__device__ __forceinline__ uint64_t place_of(float score, uint32_t id)
{
    return (uint64_t)~fc_key_of(-score) << 32 | id;
}

/* Places kept in shared memory. */
struct shared_places {
    uint64_t *place;

    __device__ __forceinline__ void put(uint32_t i, float score, uint32_t id)
    {
        place[i] = place_of(score, id);
    }
    __device__ __forceinline__ void order(uint32_t i, uint32_t j)
    {
        uint64_t a = place[i], b = place[j];
        if (a > b) {
            place[i] = b;
            place[j] = a;
        }
    }
};

/* Ids in the result itself; scores are looked up. */
struct global_places {
    int32_t *idx;
    const float *scores;

    __device__ __forceinline__ void put(uint32_t i, float, uint32_t id)
    {
        idx[i] = (int32_t)id;
    }
    __device__ __forceinline__ void order(uint32_t i, uint32_t j)
    {
        int32_t a = idx[i], b = idx[j];
        if (place_of(scores[a], (uint32_t)a) > place_of(scores[b], (uint32_t)b)) {
            idx[i] = b;
            idx[j] = a;
        }
    }
};

/* Puts the ids within the limit at places 0 .. m-1, in rising order. */
template <typename Places>
__device__ __forceinline__ void gather(Places places, const fc_stretch &r, fc_limit limit,
                                       const fc_share &share)
{
    uint32_t at = (uint32_t)share.before;
    fc_walk(r, -1.0f, limit, share.ties_before, [&](uint32_t id, float4 x, uint32_t kept) {
        uint32_t through = at + (uint32_t)fc_warp_scan(__popc(kept));
        uint32_t i = through - __popc(kept);
        if (kept & 1)
            places.put(i++, x.x, id);
        if (kept & 2)
            places.put(i++, x.y, id + 1);
        if (kept & 4)
            places.put(i++, x.z, id + 2);
        if (kept & 8)
            places.put(i++, x.w, id + 3);
        at = __shfl_sync(0xffffffffu, through, 31);
        return true;
    });
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    select_rows(int32_t *idx, const float *scores, uint32_t V, uint32_t m)
{
    __shared__ fc_search search;
    __shared__ fc_shares shares;
    __shared__ float partial[THREADS / 32];
    __shared__ uint64_t place[SORTED_IN_SHARED];
    const float *row = scores + (size_t)blockIdx.x * V;
    int32_t *result = idx + (size_t)blockIdx.x * m;
    fc_stretch r = fc_stretch_of<THREADS>(row, V);

    float own = -CUDART_INF_F, all = -CUDART_INF_F;
    fc_each(r, [&](uint32_t, float x) { own = fmaxf(own, -x); }); /* fmaxf passes NaN over */
    float of_warp = fc_warp_max(own);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = of_warp;
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++)
        all = fmaxf(all, partial[w]);

    fc_limit limit = fc_find_first<THREADS>(&search, r, -1.0f, m, own, all);
    fc_share_out(&shares, r, -1.0f, limit, [](float) { return (uint64_t)1; });
    fc_share share = fc_share_of<THREADS>(&shares, limit, 1);
    if (m <= SORTED_IN_SHARED) {
        shared_places places = {place};
        gather(places, r, limit, share);
        fc_sort_places<THREADS>(places, m);
        for (uint32_t i = threadIdx.x; i < m; i += THREADS)
            result[i] = (int32_t)(uint32_t)place[i];
    } else {
        global_places places = {result, row};
        gather(places, r, limit, share);
        fc_sort_places<THREADS>(places, m);
    }
}

void fc_cuda_select_smallest(struct fc_stream *s, int32_t *idx, const float *scores, size_t n,
                             size_t V, size_t m)
{
    if (!fc_cuda_ok(s) || n == 0 || m == 0)
        return;
    if (V > INT32_MAX || n > INT32_MAX || m > V) {
        fc_fail(&s->error, FC_ERR_INPUT,
                "select_smallest: expected m <= V < 2^31, found m = %zu, V = %zu", m, V);
        return;
    }
    if (V <= SMALL_ROW)
        FC_LAUNCH(s, select_rows<SMALL_THREADS>, (unsigned)n, SMALL_THREADS, 0, idx, scores,
                  (uint32_t)V, (uint32_t)m);
    else
        FC_LAUNCH(s, select_rows<LARGE_THREADS>, (unsigned)n, LARGE_THREADS, 0, idx, scores,
                  (uint32_t)V, (uint32_t)m);
}
