/* Attention over packed sequences for fp32 and for head sizes without a tensor-core kernel.
 *
 * Floor: 4 hs FLOPs per (query, head, key) seen, forward, and 10 hs backward, plus the scores that
 * the second pass of backward computes again (14 hs in all); every row of qkv, out and dout is read
 * once from memory, and from L2 once per 16 rows of the other side. The limit is shared memory: a
 * lane's FMA over scores needs 1/4 of a tile's read and a broadcast.
 *
 * A block owns 16 rows of one head (attention_plain.cuh): queries, forward and for dq; keys, for dk
 * and dv, which go through the query heads of their group in order. So every sum has one owner and
 * one order, and no atomics are needed.
 *
 * Shared memory at head size 256: forward 82,176 bytes, backward 98,560; the smallest device (sm_86,
 * sm_89) has 101,376.
 */
#include "kernels/cuda/attention_plain.cuh"

template <typename T, int NC>
__global__ void __launch_bounds__(PLAIN_THREADS)
    attention_forward_plain(const __grid_constant__ struct fc_attention_call c,
                            const __grid_constant__ struct fc_sequences seqs)
{
    extern __shared__ float shared[];
    const struct fc_block_rows at = fc_rows_of_block(seqs, blockIdx.x, PLAIN_ROWS);
    if (at.first >= at.length)
        return;
    const int hs = c.shape.hs, stride = plain_stride(hs);
    float *own = shared, *keys = own + PLAIN_ROWS * hs, *values = keys + PLAIN_TILE * stride;
    const size_t width = c.shape.width;
    const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const T *q = static_cast<const T *>(c.qkv) + at.start * width;
    const T *k = q + (size_t)(c.shape.nh + head / c.shape.group) * hs;
    const T *v = k + (size_t)c.shape.nkv * hs;
    q += (size_t)head * hs;

    const int end = min(at.first + PLAIN_ROWS, at.length);
    plain_load(own, PLAIN_ROWS, hs, hs, [&](int i) -> const T * {
        return at.first + i < end ? q + (at.first + i) * width : nullptr;
    });
    plain_softmax<NC> state;
    state.clear();
    for (int k0 = 0; k0 < end; k0 += PLAIN_TILE) {
        __syncthreads();
        plain_load(keys, PLAIN_TILE, stride, hs, [&](int i) -> const T * {
            return k0 + i < end ? k + (k0 + i) * width : nullptr;
        });
        plain_load(values, PLAIN_TILE, stride, hs, [&](int i) -> const T * {
            return k0 + i < end ? v + (k0 + i) * width : nullptr;
        });
        __syncthreads();
        float s[PLAIN_OWN];
        plain_dots(s, own, keys, hs);
#pragma unroll
        for (int r = 0; r < PLAIN_OWN; r++)
            s[r] = k0 + lane <= at.first + r * PLAIN_WARPS + warp ? s[r] * c.shape.scale_log2
                                                                  : -INFINITY;
        state.add(s, values, hs);
    }
#pragma unroll
    for (int r = 0; r < PLAIN_OWN; r++) {
        const int position = at.first + r * PLAIN_WARPS + warp;
        const float sum = fc_warp_sum(state.sum[r]);
        if (position >= end)
            continue;
        const size_t row = (size_t)(at.start + position) * c.shape.nh + head;
        T *out = static_cast<T *>(c.out) + row * hs;
#pragma unroll
        for (int i = 0; i < NC; i++)
            if (lane + 32 * i < hs)
                out[lane + 32 * i] = fc_from_float<T>(state.o[r][i] / sum);
        if (lane == 0)
            c.lse[row] = (state.max[r] + log2f(sum)) * FC_LN2;
    }
}

/* From scores (q.k) and dp (dout.v) of one (query, key): the probability, and the gradient of q.k.
 */
__device__ __forceinline__ void plain_gradient(float &s, float &dp, bool seen, float lse,
                                               float delta, const struct fc_attention_shape &shape)
{
    const float p = seen ? exp2f(fmaf(s, shape.scale_log2, -lse * FC_LOG2E)) : 0.0f;
    dp = p * (dp - delta) * shape.scale;
    s = p;
}

/* dq of 16 queries of one head, over the keys that they see. */
template <typename T, int NC>
__global__ void __launch_bounds__(PLAIN_THREADS)
    attention_dq_plain(const __grid_constant__ struct fc_attention_call c,
                       const __grid_constant__ struct fc_sequences seqs)
{
    extern __shared__ float shared[];
    const struct fc_block_rows at = fc_rows_of_block(seqs, blockIdx.x, PLAIN_ROWS);
    if (at.first >= at.length)
        return;
    const int hs = c.shape.hs, stride = plain_stride(hs);
    float *own_q = shared, *own_do = own_q + PLAIN_ROWS * hs;
    float *keys = own_do + PLAIN_ROWS * hs, *values = keys + PLAIN_TILE * stride;
    const size_t width = c.shape.width;
    const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const T *rows = static_cast<const T *>(c.qkv) + at.start * width;
    const T *k = rows + (size_t)(c.shape.nh + head / c.shape.group) * hs;
    const T *v = k + (size_t)c.shape.nkv * hs;
    const T *dout = static_cast<const T *>(c.dout) + at.start * c.shape.out + (size_t)head * hs;

    const int end = min(at.first + PLAIN_ROWS, at.length);
    plain_load(own_q, PLAIN_ROWS, hs, hs, [&](int i) -> const T * {
        return at.first + i < end ? rows + (at.first + i) * width + (size_t)head * hs : nullptr;
    });
    plain_load(own_do, PLAIN_ROWS, hs, hs, [&](int i) -> const T * {
        return at.first + i < end ? dout + (at.first + i) * c.shape.out : nullptr;
    });
    float lse[PLAIN_OWN], delta[PLAIN_OWN], dq[PLAIN_OWN][NC] = {};
#pragma unroll
    for (int r = 0; r < PLAIN_OWN; r++) {
        const int position = at.first + r * PLAIN_WARPS + warp;
        const size_t row = (size_t)(at.start + min(position, end - 1)) * c.shape.nh + head;
        lse[r] = c.lse[row];
        delta[r] = c.delta[row];
    }
    for (int k0 = 0; k0 < end; k0 += PLAIN_TILE) {
        __syncthreads();
        plain_load(keys, PLAIN_TILE, stride, hs, [&](int i) -> const T * {
            return k0 + i < end ? k + (k0 + i) * width : nullptr;
        });
        plain_load(values, PLAIN_TILE, stride, hs, [&](int i) -> const T * {
            return k0 + i < end ? v + (k0 + i) * width : nullptr;
        });
        __syncthreads();
        float s[PLAIN_OWN], dp[PLAIN_OWN];
        plain_dots(s, own_q, keys, hs);
        plain_dots(dp, own_do, values, hs);
#pragma unroll
        for (int r = 0; r < PLAIN_OWN; r++) {
            const int position = at.first + r * PLAIN_WARPS + warp;
            plain_gradient(s[r], dp[r], k0 + lane <= position && position < end, lse[r], delta[r],
                           c.shape);
        }
        plain_weighted(dq, dp, keys, hs);
    }
#pragma unroll
    for (int r = 0; r < PLAIN_OWN; r++) {
        const int position = at.first + r * PLAIN_WARPS + warp;
        if (position >= end)
            continue;
        T *to =
            static_cast<T *>(c.dqkv) + (size_t)(at.start + position) * width + (size_t)head * hs;
#pragma unroll
        for (int i = 0; i < NC; i++)
            if (lane + 32 * i < hs)
                to[lane + 32 * i] = fc_from_float<T>(dq[r][i]);
    }
}

/* dk and dv of 16 keys of one kv head, over the queries of its group that see them. */
template <typename T, int NC>
__global__ void __launch_bounds__(PLAIN_THREADS)
    attention_dkv_plain(const __grid_constant__ struct fc_attention_call c,
                        const __grid_constant__ struct fc_sequences seqs)
{
    extern __shared__ float shared[];
    const struct fc_block_rows at = fc_rows_of_block(seqs, blockIdx.x, PLAIN_ROWS);
    if (at.first >= at.length)
        return;
    const int hs = c.shape.hs, stride = plain_stride(hs);
    float *own_k = shared, *own_v = own_k + PLAIN_ROWS * hs;
    float *queries = own_v + PLAIN_ROWS * hs, *douts = queries + PLAIN_TILE * stride;
    const size_t width = c.shape.width;
    const int kv = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const T *rows = static_cast<const T *>(c.qkv) + at.start * width;
    const T *dout = static_cast<const T *>(c.dout) + at.start * c.shape.out;
    const size_t k = (size_t)(c.shape.nh + kv) * hs, v = k + (size_t)c.shape.nkv * hs;

    const int end = min(at.first + PLAIN_ROWS, at.length);
    plain_load(own_k, PLAIN_ROWS, hs, hs, [&](int i) -> const T * {
        return at.first + i < end ? rows + (at.first + i) * width + k : nullptr;
    });
    plain_load(own_v, PLAIN_ROWS, hs, hs, [&](int i) -> const T * {
        return at.first + i < end ? rows + (at.first + i) * width + v : nullptr;
    });
    float dk[PLAIN_OWN][NC] = {}, dv[PLAIN_OWN][NC] = {};
    for (int head = kv * c.shape.group; head < (kv + 1) * c.shape.group; head++)
        for (int q0 = at.first; q0 < at.length; q0 += PLAIN_TILE) {
            __syncthreads();
            plain_load(queries, PLAIN_TILE, stride, hs, [&](int i) -> const T * {
                return q0 + i < at.length ? rows + (q0 + i) * width + (size_t)head * hs : nullptr;
            });
            plain_load(douts, PLAIN_TILE, stride, hs, [&](int i) -> const T * {
                return q0 + i < at.length ? dout + (q0 + i) * c.shape.out + (size_t)head * hs
                                          : nullptr;
            });
            __syncthreads();
            const int q = q0 + lane;
            const size_t row = (size_t)(at.start + min(q, at.length - 1)) * c.shape.nh + head;
            const float lse = c.lse[row], delta = c.delta[row];
            float s[PLAIN_OWN], dp[PLAIN_OWN];
            plain_dots(s, own_k, queries, hs);
            plain_dots(dp, own_v, douts, hs);
#pragma unroll
            for (int r = 0; r < PLAIN_OWN; r++)
                plain_gradient(s[r], dp[r], at.first + r * PLAIN_WARPS + warp <= q && q < at.length,
                               lse, delta, c.shape);
            plain_weighted(dv, s, douts, hs);
            plain_weighted(dk, dp, queries, hs);
        }
#pragma unroll
    for (int r = 0; r < PLAIN_OWN; r++) {
        const int position = at.first + r * PLAIN_WARPS + warp;
        if (position >= end)
            continue;
        T *to = static_cast<T *>(c.dqkv) + (size_t)(at.start + position) * width;
#pragma unroll
        for (int i = 0; i < NC; i++)
            if (lane + 32 * i < hs) {
                to[k + lane + 32 * i] = fc_from_float<T>(dk[r][i]);
                to[v + lane + 32 * i] = fc_from_float<T>(dv[r][i]);
            }
    }
}

static dim3 grid_of(const struct fc_sequences *seqs, int heads)
{
    return dim3((unsigned)fc_first_block(*seqs, seqs->n, PLAIN_ROWS), (unsigned)heads);
}

void fc_cuda_attention_forward_plain(struct fc_stream *s, const struct fc_attention_call *c,
                                     const struct fc_sequences *seqs, enum fc_dtype dt)
{
    fc_cuda_by_type(dt, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        plain_by_channels(c->shape.hs, [&](auto nc) {
            auto attention_forward = attention_forward_plain<T, decltype(nc)::value>;
            size_t shared = plain_shared(c->shape.hs, 1, 2);
            if (fc_cuda_allow_shared(s, attention_forward, shared))
                FC_LAUNCH(s, attention_forward, grid_of(seqs, c->shape.nh), PLAIN_THREADS, shared,
                          *c, *seqs);
        });
    });
}

void fc_cuda_attention_backward_plain(struct fc_stream *s, const struct fc_attention_call *c,
                                      const struct fc_sequences *seqs, enum fc_dtype dt)
{
    fc_cuda_by_type(dt, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        plain_by_channels(c->shape.hs, [&](auto nc) {
            auto attention_dq = attention_dq_plain<T, decltype(nc)::value>;
            auto attention_dkv = attention_dkv_plain<T, decltype(nc)::value>;
            size_t shared = plain_shared(c->shape.hs, 2, 2);
            if (!fc_cuda_allow_shared(s, attention_dq, shared) ||
                !fc_cuda_allow_shared(s, attention_dkv, shared))
                return;
            FC_LAUNCH(s, attention_dq, grid_of(seqs, c->shape.nh), PLAIN_THREADS, shared, *c,
                      *seqs);
            FC_LAUNCH(s, attention_dkv, grid_of(seqs, c->shape.nkv), PLAIN_THREADS, shared, *c,
                      *seqs);
        });
    });
}
