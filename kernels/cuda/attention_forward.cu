/* Attention over packed sequences on tensor cores, forward: bf16 and fp16, head sizes 64, 80, 96
 * and 128 (Dao 2023: online softmax, the probabilities stay in registers).
 *
 * Floor: 4 hs FLOPs per (query, head, key) seen. Bytes: a row of qkv in and of out once, 2 (2 nh +
 * 2 nkv) hs per token, and keys and values again from L2 once per 64 queries and head: 64 FLOPs per
 * byte, so the tensor cores are the limit for all but very short sequences.
 *
 * A block takes 64 queries of one head and walks over tiles of 64 keys, which are copied one tile
 * ahead (cp.async, two buffers, one barrier a tile). The queries' fragments stay in registers. Only
 * the last tile is masked; in it, a warp leaves out the groups of 16 keys that none of its 16 rows
 * sees, so of the causal triangle 8 keys per row are wasted. Long blocks come first in the grid.
 *
 * Shared memory: four tiles of 64 rows (layout and bank conflicts: attention_tile.cuh): 36,864,
 * 45,056, 53,248 and 69,632 bytes for head sizes 64, 80, 96 and 128; the first two tiles of buffer
 * 1 hold the queries until the first barrier, and buffer 0 the output at the end.
 */
#include "kernels/cuda/attention_tile.cuh"

template <typename T, int HS>
__global__ void __launch_bounds__(TILE_THREADS, HS == 64    ? 4
                                                : HS == 128 ? 2
                                                            : 3)
    attention_forward(const __grid_constant__ struct fc_attention_call c,
                      const __grid_constant__ struct fc_sequences seqs)
{
    using tiles = fc_tiles<T, HS>;
    constexpr int TILE = TILE_ROWS * tiles::STRIDE;
    extern __shared__ __align__(16) unsigned char bytes[];
    T *const shared = reinterpret_cast<T *>(bytes); /* keys, values; keys, values */
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
    auto load_keys = [&](int k0) {
        T *to = shared + k0 / TILE_ROWS % 2 * 2 * TILE;
        tiles::template load<TILE_ROWS>(
            to, rows, [&](int i) { return k0 + i < end ? k + (k0 + i) * width : nullptr; });
        tiles::template load<TILE_ROWS>(
            to + TILE, rows, [&](int i) { return k0 + i < end ? v + (k0 + i) * width : nullptr; });
    };

    tiles::template load<TILE_ROWS>(shared + 2 * TILE, rows, [&](int i) {
        return at.first + i < end ? q + (at.first + i) * width : nullptr;
    });
    load_keys(0);
    fc_cp_async_wait();
    __syncthreads();
    uint32_t own[HS / 16][4];
#pragma unroll
    for (int i = 0; i < HS / 16; i++)
        tiles::own(own[i], shared + 2 * TILE + warp * 16 * tiles::STRIDE, i * 16);

    fc_tile_softmax<T, HS> state;
    state.clear();
    const bool live = at.first + warp * 16 < end;
    for (int k0 = 0; k0 < end; k0 += TILE_ROWS) {
        fc_cp_async_wait();
        __syncthreads(); /* this tile has come, and nobody reads the one before it any more */
        if (k0 + TILE_ROWS < end)
            load_keys(k0 + TILE_ROWS);
        const T *keys = shared + k0 / TILE_ROWS % 2 * 2 * TILE;
        const bool last = k0 == at.first;
        const int groups = !live ? 0 : last ? warp + 1 : 4;
        if (groups == 0)
            continue;
        float s[8][4] = {};
#pragma unroll
        for (int i = 0; i < HS / 16; i++)
            tiles::dots(s, own[i], keys, i * 16, groups);
        if (last) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (n * 8 + lane % 4 * 2 + i % 2 > warp * 16 + lane / 4 + i / 2 * 8)
                        s[n][i] = -INFINITY;
        }
        state.add(s, c.shape.scale_log2, keys + TILE, groups);
    }

    __syncthreads();
    const float sum[2] = {state.total(0), state.total(1)};
    const float factor[2] = {1.0f / sum[0], 1.0f / sum[1]};
    const int first = at.first + warp * 16;
    T *const out = static_cast<T *>(c.out) + at.start * c.shape.out + (size_t)head * HS;
    tiles::store(shared + warp * 16 * tiles::STRIDE, state.o, factor, [&](int i) {
        return first + i < end ? out + (first + i) * c.shape.out : nullptr;
    });
    if (lane % 4 == 0)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int position = first + lane / 4 + r * 8;
            if (position < end)
                c.lse[(size_t)(at.start + position) * c.shape.nh + head] =
                    (state.max[r] + log2f(sum[r])) * FC_LN2;
        }
}

bool fc_cuda_attention_forward_mma(struct fc_stream *s, const struct fc_attention_call *c,
                                   const struct fc_sequences *seqs, enum fc_dtype dt)
{
    dim3 grid((unsigned)fc_first_block(*seqs, seqs->n, TILE_ROWS), (unsigned)c->shape.nh);
    return fc_by_tile(dt, c->shape.hs, [&](auto *t, auto hs) {
        using T = std::remove_pointer_t<decltype(t)>;
        auto forward = attention_forward<T, decltype(hs)::value>;
        constexpr size_t shared = 4 * fc_tiles<T, decltype(hs)::value>::BYTES;
        if (fc_cuda_allow_shared(s, forward, shared))
            FC_LAUNCH(s, forward, grid, TILE_THREADS, shared, *c, *seqs);
    });
}
