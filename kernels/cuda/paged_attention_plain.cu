/* Paged attention for fp32 and for head sizes without a tensor-core kernel.
 *
 * Floor: a row reads its keys and values once, 2 nkv hs elements per token, for 4 nh hs FLOPs. A
 * block takes up to 16 query heads of one kv head of one row over FC_PAGED_SPLIT keys, so for
 * groups up to 16 the floor is met in decode; rows of a prefill that share their keys meet in L2
 * only. Tiles of 32 keys, see attention_plain.cuh; nothing but the row's length decides the order
 * of sums.
 */
#include "kernels/cuda/attention_plain.cuh"

template <typename T, int NC, int OWN>
__global__ void __launch_bounds__(PLAIN_THREADS)
    paged_attention_plain(const __grid_constant__ struct fc_paged_call c)
{
    constexpr int ROWS = OWN * PLAIN_WARPS;
    extern __shared__ float shared[];
    const struct fc_attention_shape &x = c.shape;
    const int hs = x.hs, stride = plain_stride(hs);
    float *own = shared, *keys = own + ROWS * hs, *values = keys + PLAIN_TILE * stride;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int kv = blockIdx.y % x.nkv, first = blockIdx.y / x.nkv * ROWS;
    const size_t row = c.first_row + blockIdx.x;
    const int length = c.lengths[row], from = blockIdx.z * FC_PAGED_SPLIT;
    const int end = min(from + FC_PAGED_SPLIT, length);
    if (from >= end)
        return;
    const int head0 = kv * x.group + first, heads = min(x.group - first, ROWS);
    const T *q = static_cast<const T *>(c.qkv) + row * x.width + (size_t)head0 * hs;
    const int32_t *table = c.tables + row * c.table_width;
    const int page_size = (int)c.page_size;
    auto token = [&](const void *cache, int key) -> const T * {
        if (key >= end)
            return nullptr;
        const size_t slot = (size_t)table[key / page_size] * page_size + key % page_size;
        return static_cast<const T *>(cache) + (slot * x.nkv + kv) * hs;
    };

    plain_load(own, ROWS, hs, hs,
               [&](int i) -> const T * { return i < heads ? q + (size_t)i * hs : nullptr; });
    plain_softmax<NC, OWN> state;
    state.clear();
    for (int k0 = from; k0 < end; k0 += PLAIN_TILE) {
        __syncthreads();
        plain_load(keys, PLAIN_TILE, stride, hs, [&](int i) { return token(c.keys, k0 + i); });
        plain_load(values, PLAIN_TILE, stride, hs, [&](int i) { return token(c.values, k0 + i); });
        __syncthreads();
        float s[OWN];
        plain_dots(s, own, keys, hs);
#pragma unroll
        for (int r = 0; r < OWN; r++)
            s[r] = k0 + lane < end ? s[r] * x.scale_log2 : -INFINITY;
        state.add(s, values, hs);
    }
    const bool whole = length <= FC_PAGED_SPLIT;
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        const int head = head0 + r * PLAIN_WARPS + warp;
        const float sum = fc_warp_sum(state.sum[r]);
        if (head >= head0 + heads)
            continue;
        const size_t part = ((size_t)blockIdx.x * x.nh + head) * c.splits + blockIdx.z;
        T *out = static_cast<T *>(c.out) + row * x.out + (size_t)head * hs;
#pragma unroll
        for (int i = 0; i < NC; i++) {
            const int channel = lane + 32 * i;
            if (channel < hs && whole)
                out[channel] = fc_from_float<T>(state.o[r][i] / sum);
            else if (channel < hs)
                c.part_o[part * hs + channel] = state.o[r][i];
        }
        if (lane == 0 && !whole)
            c.part_sum[part] = make_float2(state.max[r], sum);
    }
}

template <typename T, int OWN>
static void launch(struct fc_stream *s, const struct fc_paged_call *c)
{
    unsigned passes = (unsigned)fc_cuda_blocks((size_t)c->shape.group, OWN * PLAIN_WARPS);
    dim3 grid((unsigned)c->rows, (unsigned)c->shape.nkv * passes, (unsigned)c->splits);
    plain_by_channels(c->shape.hs, [&](auto nc) {
        auto paged_attention = paged_attention_plain<T, decltype(nc)::value, OWN>;
        size_t shared = plain_shared(c->shape.hs, 1, 2);
        if (fc_cuda_allow_shared(s, paged_attention, shared))
            FC_LAUNCH(s, paged_attention, grid, PLAIN_THREADS, shared, *c);
    });
}

void fc_cuda_paged_plain(struct fc_stream *s, const struct fc_paged_call *c, enum fc_dtype dt)
{
    fc_cuda_by_type(dt, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        if (c->shape.group <= PLAIN_WARPS)
            launch<T, 1>(s, c);
        else
            launch<T, PLAIN_OWN>(s, c);
    });
}
