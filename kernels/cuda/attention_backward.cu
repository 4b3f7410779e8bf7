/* Attention over packed sequences on tensor cores, backward: bf16 and fp16, head sizes 64, 80, 96
 * and 128 (Dao 2023, without its atomics).
 *
 * Floor: 5 products, 10 hs FLOPs per (query, head, key) seen; every row of qkv, dout and dqkv is
 * moved once, and the other side of a block again from L2. The limit is the tensor cores.
 *
 * Two kernels, each the one owner of what it writes, so sums have one order and need no atomics:
 *  - attention_dq: 64 queries of a head, over tiles of 32 keys: scores, dout.v, dq.
 *  - attention_dkv: 64 keys of a kv head, over the heads of its group and tiles of 32 queries:
 *    transposed scores, v.dout, dv, dk.
 * Scores and dout.v are computed in both: 14 hs FLOPs instead of 10. An fp32 dq in memory with
 * atomics would move 8 bytes per element and tile instead, and would not have the same bits in
 * every run.
 *
 * The block's own 64 rows of two matrices stay in shared memory and give A fragments anew for every
 * tile: held in registers they would not leave room for the sums at head size 128. Tiles of 32
 * rows, copied one ahead (cp.async, two buffers, one barrier a tile), because with 64 the buffers
 * and the own rows need 104 KB at head size 128, and sm_86 and sm_89 have 99.
 *
 * Shared memory: four tiles of 64 rows' worth (layout and bank conflicts: attention_tile.cuh), as
 * attention_forward.cu, and 512 bytes of lse and delta in dkv, two floats at a time by four lanes:
 * no conflict. The own rows' places take the results at the end.
 */
#include "kernels/cuda/attention_tile.cuh"

enum { STEP = 32 }; /* rows of a tile of the other side */

/* Scores s become probabilities, and dout.v in dp gradients of the scores over `scale`, for lse in
 * powers of two. */
__device__ __forceinline__ void gradient(float &s, float &dp, float scale_log2, float lse,
                                         float delta, bool seen)
{
    const float p = seen ? fc_exp2(fmaf(s, scale_log2, -lse)) : 0.0f;
    s = p;
    dp = p * (dp - delta);
}

template <typename T, int HS>
__global__ void __launch_bounds__(TILE_THREADS, HS == 64    ? 4
                                                : HS == 128 ? 2
                                                            : 3)
    attention_dq(const __grid_constant__ struct fc_attention_call c,
                 const __grid_constant__ struct fc_sequences seqs)
{
    using tiles = fc_tiles<T, HS>;
    constexpr int TILE = TILE_ROWS * tiles::STRIDE;
    extern __shared__ __align__(16) unsigned char bytes[];
    T *const own_q = reinterpret_cast<T *>(bytes), *const own_do = own_q + TILE;
    T *const buffers = own_do + TILE; /* keys and values of 32, twice */
    const struct fc_block_rows at = fc_rows_of_block(seqs, gridDim.x - 1 - blockIdx.x, TILE_ROWS);
    if (at.first >= at.length)
        return;
    const int end = min(at.first + (int)TILE_ROWS, at.length);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
    const size_t width = c.shape.width;
    const T *const rows = static_cast<const T *>(c.qkv) + at.start * width;
    const T *const q = rows + (size_t)head * HS;
    const T *const k = rows + (size_t)(c.shape.nh + head / c.shape.group) * HS;
    const T *const v = k + (size_t)c.shape.nkv * HS;
    const T *const dout =
        static_cast<const T *>(c.dout) + at.start * c.shape.out + (size_t)head * HS;
    auto load_keys = [&](int k0) {
        T *to = buffers + k0 / STEP % 2 * TILE;
        tiles::template load<STEP>(
            to, rows, [&](int i) { return k0 + i < end ? k + (k0 + i) * width : nullptr; });
        tiles::template load<STEP>(to + TILE / 2, rows, [&](int i) {
            return k0 + i < end ? v + (k0 + i) * width : nullptr;
        });
    };
    tiles::template load<TILE_ROWS>(own_q, rows, [&](int i) {
        return at.first + i < end ? q + (at.first + i) * width : nullptr;
    });
    tiles::template load<TILE_ROWS>(own_do, rows, [&](int i) {
        return at.first + i < end ? dout + (at.first + i) * c.shape.out : nullptr;
    });
    load_keys(0);

    const int first = at.first + warp * 16; /* position of the warp's first row */
    float lse[2], delta[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int position = min(first + lane / 4 + r * 8, end - 1);
        const size_t row = (size_t)(at.start + position) * c.shape.nh + head;
        lse[r] = c.lse[row] * FC_LOG2E;
        delta[r] = c.delta[row];
    }
    float dq[HS / 8][4] = {};
    for (int k0 = 0; k0 < end; k0 += STEP) {
        fc_cp_async_wait();
        __syncthreads(); /* this tile has come, and nobody reads the one before it any more */
        if (k0 + STEP < end)
            load_keys(k0 + STEP);
        const int groups = first < end ? min(2, (first - k0) / 16 + 1) : 0;
        if (k0 > first || groups == 0)
            continue; /* none of the keys is seen */
        const T *keys = buffers + k0 / STEP % 2 * TILE, *values = keys + TILE / 2;
        float s[STEP / 8][4] = {}, dp[STEP / 8][4] = {};
#pragma unroll
        for (int i = 0; i < HS; i += 16) {
            uint32_t a[4];
            tiles::own(a, own_q + warp * 16 * tiles::STRIDE, i);
            tiles::dots(s, a, keys, i, groups);
            tiles::own(a, own_do + warp * 16 * tiles::STRIDE, i);
            tiles::dots(dp, a, values, i, groups);
        }
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                gradient(s[n][i], dp[n][i], c.shape.scale_log2, lse[i / 2], delta[i / 2],
                         k0 + n * 8 + lane % 4 * 2 + i % 2 <= first + lane / 4 + i / 2 * 8);
        tiles::weighted(dq, dp, keys, groups);
    }
    const float factor[2] = {c.shape.scale, c.shape.scale};
    T *const to = static_cast<T *>(c.dqkv) + at.start * width + (size_t)head * HS;
    tiles::store(own_q + warp * 16 * tiles::STRIDE, dq, factor,
                 [&](int i) { return first + i < end ? to + (first + i) * width : nullptr; });
}

template <typename T, int HS>
__global__ void __launch_bounds__(TILE_THREADS, HS == 64 ? 3 : 2)
    attention_dkv(const __grid_constant__ struct fc_attention_call c,
                  const __grid_constant__ struct fc_sequences seqs)
{
    using tiles = fc_tiles<T, HS>;
    constexpr int TILE = TILE_ROWS * tiles::STRIDE;
    extern __shared__ __align__(16) unsigned char bytes[];
    T *const own_k = reinterpret_cast<T *>(bytes), *const own_v = own_k + TILE;
    T *const buffers = own_v + TILE; /* queries and douts of 32, twice */
    __shared__ float row_lse[2][STEP], row_delta[2][STEP];
    const struct fc_block_rows at = fc_rows_of_block(seqs, blockIdx.x, TILE_ROWS);
    if (at.first >= at.length)
        return;
    const int end = min(at.first + (int)TILE_ROWS, at.length);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, kv = blockIdx.y;
    const size_t width = c.shape.width;
    const T *const rows = static_cast<const T *>(c.qkv) + at.start * width;
    const T *const dout = static_cast<const T *>(c.dout) + at.start * c.shape.out;
    const size_t k = (size_t)(c.shape.nh + kv) * HS, v = k + (size_t)c.shape.nkv * HS;
    auto load_queries = [&](int head, int q0, int buffer) {
        T *to = buffers + buffer * TILE;
        tiles::template load<STEP>(to, rows, [&](int i) {
            return q0 + i < at.length ? rows + (q0 + i) * width + (size_t)head * HS : nullptr;
        });
        tiles::template load<STEP>(to + TILE / 2, rows, [&](int i) {
            return q0 + i < at.length ? dout + (q0 + i) * c.shape.out + (size_t)head * HS : nullptr;
        });
        if (warp < 2) {
            const bool there = q0 + lane < at.length;
            const size_t row = (size_t)(at.start + q0 + lane) * c.shape.nh + head;
            const float *from = warp == 0 ? c.lse : c.delta;
            fc_cp_async4(
                fc_shared_address(warp == 0 ? &row_lse[buffer][lane] : &row_delta[buffer][lane]),
                there ? from + row : from, there);
        }
    };
    tiles::template load<TILE_ROWS>(own_k, rows, [&](int i) {
        return at.first + i < end ? rows + (at.first + i) * width + k : nullptr;
    });
    tiles::template load<TILE_ROWS>(own_v, rows, [&](int i) {
        return at.first + i < end ? rows + (at.first + i) * width + v : nullptr;
    });
    load_queries(kv * c.shape.group, at.first, 0);

    const int first = at.first + warp * 16; /* position of the warp's first key */
    const int last_head = (kv + 1) * c.shape.group - 1;
    float dk[HS / 8][4] = {}, dv[HS / 8][4] = {};
    int buffer = 0;
    for (int head = kv * c.shape.group, q0 = at.first; head <= last_head; buffer = 1 - buffer) {
        fc_cp_async_wait();
        __syncthreads(); /* this tile has come, and nobody reads the one before it any more */
        const int here = q0;
        q0 += STEP;
        if (q0 >= at.length) {
            q0 = at.first;
            head++;
        }
        if (head <= last_head)
            load_queries(head, q0, 1 - buffer);
        if (here + STEP <= first || first >= end)
            continue; /* none of the queries sees these keys */
        const T *queries = buffers + buffer * TILE, *douts = queries + TILE / 2;
        const int groups = min(2, (at.length - here + 15) / 16);
        float s[STEP / 8][4] = {}, dp[STEP / 8][4] = {};
#pragma unroll
        for (int i = 0; i < HS; i += 16) {
            uint32_t a[4];
            tiles::own(a, own_k + warp * 16 * tiles::STRIDE, i);
            tiles::dots(s, a, queries, i, groups);
            tiles::own(a, own_v + warp * 16 * tiles::STRIDE, i);
            tiles::dots(dp, a, douts, i, groups);
        }
#pragma unroll
        for (int n = 0; n < STEP / 8; n++) {
            const int column = n * 8 + lane % 4 * 2;
            const float2 lse = *reinterpret_cast<const float2 *>(&row_lse[buffer][column]);
            const float2 delta = *reinterpret_cast<const float2 *>(&row_delta[buffer][column]);
#pragma unroll
            for (int i = 0; i < 4; i++) /* queries that are not there: zeros, which add nothing */
                gradient(s[n][i], dp[n][i], c.shape.scale_log2, (i % 2 ? lse.y : lse.x) * FC_LOG2E,
                         i % 2 ? delta.y : delta.x,
                         first + lane / 4 + i / 2 * 8 <= here + column + i % 2);
        }
        tiles::weighted(dv, s, douts, groups);
        tiles::weighted(dk, dp, queries, groups);
    }
    T *const to = static_cast<T *>(c.dqkv) + at.start * width;
    const float one[2] = {1.0f, 1.0f}, factor[2] = {c.shape.scale, c.shape.scale};
    tiles::store(own_k + warp * 16 * tiles::STRIDE, dk, factor,
                 [&](int i) { return first + i < end ? to + (first + i) * width + k : nullptr; });
    tiles::store(own_v + warp * 16 * tiles::STRIDE, dv, one,
                 [&](int i) { return first + i < end ? to + (first + i) * width + v : nullptr; });
}

bool fc_cuda_attention_backward_mma(struct fc_stream *s, const struct fc_attention_call *c,
                                    const struct fc_sequences *seqs, enum fc_dtype dt)
{
    unsigned blocks = (unsigned)fc_first_block(*seqs, seqs->n, TILE_ROWS);
    dim3 queries(blocks, (unsigned)c->shape.nh), keys(blocks, (unsigned)c->shape.nkv);
    return fc_by_tile(dt, c->shape.hs, [&](auto *t, auto hs) {
        using T = std::remove_pointer_t<decltype(t)>;
        auto dq = attention_dq<T, decltype(hs)::value>;
        auto dkv = attention_dkv<T, decltype(hs)::value>;
        constexpr size_t shared = 4 * fc_tiles<T, decltype(hs)::value>::BYTES;
        if (!fc_cuda_allow_shared(s, dq, shared) || !fc_cuda_allow_shared(s, dkv, shared))
            return;
        FC_LAUNCH(s, dq, queries, TILE_THREADS, shared, *c, *seqs);
        FC_LAUNCH(s, dkv, keys, TILE_THREADS, shared, *c, *seqs);
    });
}
