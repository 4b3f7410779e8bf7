/* Paged attention on tensor cores: bf16 and fp16, head sizes 64, 80, 96 and 128, for decode and for
 * chunked prefill alike.
 *
 * Floor: decode reads the keys and values of a row once, 4 nkv hs bytes per token, for 4 nh hs
 * FLOPs: the memory is the limit. Prefill: as attention_forward.cu, 64 / group rows of queries
 * share what is read.
 *
 * A block takes up to 64 pairs (row, query head) of one kv head over FC_PAGED_SPLIT keys: the query
 * heads of a group, for a run of rows that follow each other and have the same pages there. Runs
 * are found by the blocks, since rows are device memory: every row has its blocks, and those of a
 * row that continues the run of the row before it leave at once. A row continues a run if it is not
 * shorter and names the same pages as far as the other goes, so the pages of the run's last row
 * serve all of it: the rows of a prefill, and, within a shared prompt, of decoding rows side by
 * side. Runs stay within 64 / group rows counted from row 0.
 *
 * The bits of a pair do not depend on the pairs beside it: an mma's rows do not mix; a key behind a
 * row's end has weight 0, and a tile of nothing but such keys changes neither maximum nor sum.
 *
 * In decode one warp computes and three only copy. 64 keys of 128 channels, 32 KB, cost it about
 * 2,000 cycles, so three blocks a multiprocessor read 48 bytes a cycle, several times what the
 * memory gives (H100: 15). Splitting the keys among the warps would need an exchange that has the
 * same bits.
 *
 * Shared memory: 2 KB for where the keys lie, and four tiles (layout and bank conflicts:
 * attention_tile.cuh): keys and values in two buffers; buffer 1 holds the queries before that.
 */
#include "kernels/cuda/attention_tile.cuh"

/* Whether row `row` continues the run of the row before it in keys from .. from + FC_PAGED_SPLIT
 * - 1. A warp works together. */
__device__ __forceinline__ bool continues_run(const struct fc_paged_call &c, size_t row, int from,
                                              int rows_of_run)
{
    if (row % rows_of_run == 0 || row >= c.first_row + c.rows || row == c.first_row)
        return false;
    const int before = min(c.lengths[row - 1], from + FC_PAGED_SPLIT);
    if (before <= from || min(c.lengths[row], from + FC_PAGED_SPLIT) < before)
        return false;
    const int32_t *const table = c.tables + row * c.table_width;
    const int page_size = (int)c.page_size;
    bool same = true;
    for (int page = from / page_size + threadIdx.x % 32; page <= (before - 1) / page_size;
         page += 32)
        same = same && table[page] == (table - c.table_width)[page];
    return __all_sync(0xffffffffu, same);
}

/* Rows of the run that begins at `row`; 0 if it begins before. `room`: rows_of_run + 1 ints of
 * shared memory. */
__device__ __forceinline__ int rows_of_my_run(const struct fc_paged_call &c, size_t row, int from,
                                              int rows_of_run, int *room)
{
    const int warp = threadIdx.x / 32;
    if (warp < 2)
        room[warp] = continues_run(c, row + warp, from, rows_of_run);
    __syncthreads();
    if (room[0] || !room[1])
        return room[0] ? 0 : 1;
    for (int i = 2 + warp; i < rows_of_run; i += TILE_WARPS)
        room[i] = continues_run(c, row + i, from, rows_of_run);
    __syncthreads();
    int rows = 2;
    while (rows < rows_of_run && room[rows])
        rows++;
    return rows;
}

template <typename T, int HS>
__global__ void __launch_bounds__(TILE_THREADS, HS == 64    ? 4
                                                : HS == 128 ? 2
                                                            : 3)
    paged_attention(const __grid_constant__ struct fc_paged_call c)
{
    using tiles = fc_tiles<T, HS>;
    constexpr int TILE = TILE_ROWS * tiles::STRIDE;
    extern __shared__ __align__(16) unsigned char bytes[];
    size_t *const at = reinterpret_cast<size_t *>(bytes); /* of each key of the split, elements */
    T *const shared = reinterpret_cast<T *>(at + FC_PAGED_SPLIT);
    __shared__ int room[TILE_ROWS + 1];

    const size_t row = c.first_row + blockIdx.x;
    const int from = blockIdx.z * FC_PAGED_SPLIT, kv = blockIdx.y, group = c.shape.group;
    if (c.lengths[row] <= from)
        return;
    const int rows = rows_of_my_run(c, row, from, TILE_ROWS / group, room);
    if (rows == 0)
        return;
    const int end = min(c.lengths[row + rows - 1], from + FC_PAGED_SPLIT);
    const int shortest = min(c.lengths[row], end), pairs = rows * group;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const T *const q = static_cast<const T *>(c.qkv) + (size_t)kv * group * HS;
    const T *const cache_k = static_cast<const T *>(c.keys) + (size_t)kv * HS;
    const T *const cache_v = static_cast<const T *>(c.values) + (size_t)kv * HS;

    const int32_t *const table = c.tables + (row + rows - 1) * c.table_width;
    const int page_size = (int)c.page_size;
    for (int key = from + threadIdx.x; key < end; key += TILE_THREADS)
        at[key - from] =
            ((size_t)table[key / page_size] * page_size + key % page_size) * c.shape.nkv * HS;
    __syncthreads();
    auto load_keys = [&](int k0) {
        T *to = shared + k0 / TILE_ROWS % 2 * 2 * TILE;
        tiles::template load<TILE_ROWS>(to, cache_k, [&](int i) {
            return k0 + i < end ? cache_k + at[k0 + i - from] : nullptr;
        });
        tiles::template load<TILE_ROWS>(to + TILE, cache_v, [&](int i) {
            return k0 + i < end ? cache_v + at[k0 + i - from] : nullptr;
        });
    };
    tiles::template load<TILE_ROWS>(shared + 2 * TILE, q, [&](int i) {
        return i < pairs ? q + (row + i / group) * c.shape.width + i % group * HS : nullptr;
    });
    load_keys(from);
    fc_cp_async_wait();
    __syncthreads();
    uint32_t own[HS / 16][4];
#pragma unroll
    for (int i = 0; i < HS / 16; i++)
        tiles::own(own[i], shared + 2 * TILE + warp * 16 * tiles::STRIDE, i * 16);
    /* Pairs of this lane, and the keys that they see; a pair that is not there sees all. */
    const int pair[2] = {warp * 16 + lane / 4, warp * 16 + lane / 4 + 8};
    const int seen[2] = {pair[0] < pairs ? min(c.lengths[row + pair[0] / group], end) : end,
                         pair[1] < pairs ? min(c.lengths[row + pair[1] / group], end) : end};

    fc_tile_softmax<T, HS> state;
    state.clear();
    for (int k0 = from; k0 < end; k0 += TILE_ROWS) {
        fc_cp_async_wait();
        __syncthreads(); /* this tile has come, and nobody reads the one before it any more */
        if (k0 + TILE_ROWS < end)
            load_keys(k0 + TILE_ROWS);
        if (warp * 16 >= pairs)
            continue;
        const T *keys = shared + k0 / TILE_ROWS % 2 * 2 * TILE;
        const int groups = min(4, (end - k0 + 15) / 16);
        float s[8][4] = {};
#pragma unroll
        for (int i = 0; i < HS / 16; i++)
            tiles::dots(s, own[i], keys, i * 16, groups);
        if (k0 + TILE_ROWS > shortest) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (k0 + n * 8 + lane % 4 * 2 + i % 2 >= seen[i / 2])
                        s[n][i] = -INFINITY;
        }
        state.add(s, c.shape.scale_log2, keys + TILE, groups);
    }

    __syncthreads();
    const float sum[2] = {state.total(0), state.total(1)};
    const float factor[2] = {1.0f / sum[0], 1.0f / sum[1]};
    T *const out = static_cast<T *>(c.out) + (size_t)kv * group * HS;
    tiles::store(shared + warp * 16 * tiles::STRIDE, state.o, factor, [&](int i) -> T * {
        const int p = warp * 16 + i;
        if (p >= pairs || c.lengths[row + p / group] > FC_PAGED_SPLIT)
            return nullptr;
        return out + (row + p / group) * c.shape.out + p % group * HS;
    });
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (pair[r] >= pairs || c.lengths[row + pair[r] / group] <= FC_PAGED_SPLIT)
            continue;
        const size_t part =
            ((size_t)(blockIdx.x + pair[r] / group) * c.shape.nh + kv * group + pair[r] % group) *
                c.splits +
            blockIdx.z;
        float *const to = c.part_o + part * HS + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < HS / 8; n++)
            *reinterpret_cast<float2 *>(to + n * 8) =
                make_float2(state.o[n][2 * r], state.o[n][2 * r + 1]);
        if (lane % 4 == 0)
            c.part_sum[part] = make_float2(state.max[r], sum[r]);
    }
}

bool fc_cuda_paged_mma(struct fc_stream *s, const struct fc_paged_call *c, enum fc_dtype dt)
{
    if (c->shape.group > TILE_ROWS)
        return false;
    dim3 grid((unsigned)c->rows, (unsigned)c->shape.nkv, (unsigned)c->splits);
    return fc_by_tile(dt, c->shape.hs, [&](auto *t, auto hs) {
        using T = std::remove_pointer_t<decltype(t)>;
        auto paged = paged_attention<T, decltype(hs)::value>;
        constexpr size_t shared =
            FC_PAGED_SPLIT * sizeof(size_t) + 4 * fc_tiles<T, decltype(hs)::value>::BYTES;
        if (fc_cuda_allow_shared(s, paged, shared))
            FC_LAUNCH(s, paged, grid, TILE_THREADS, shared, *c);
    });
}
