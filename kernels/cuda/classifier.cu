/* Softmax cross-entropy, fused with its gradient.
 *
 * Floor per logit: one read, and one write with the gradient (in place, overwritten); two exp,
 * about 10 FLOPs. A block owns a row. It reads the row once, keeping a running maximum and a sum
 * relative to it (Milakov and Gimelshein 2018), and keeps what it read in shared memory, as much as
 * fits (113,000 bf16 logits on an H100), so that the gradient needs no second read; the rest of a
 * longer row comes from L2. A thread reads back only what it put there itself.
 *
 * Rows need no alignment, which matters for odd vocabularies: a row is cut into vectors from its
 * first logit, wherever it lies, so that its sum has the same order and the same bits in any
 * company (scoring relies on it). A row that is not aligned moves its vectors by the element, from
 * the same sectors. */
#include "kernels/cuda/rows.cuh"

enum { THREADS = 512, WARPS = THREADS / 32, AHEAD = 4 };

/* exp(x - top), top finite or the whole row -inf. */
__device__ __forceinline__ float exp_below(float x, float top)
{
    return exp2f((x - top) * 1.44269504f);
}

/* A running maximum and the sum of exp(x - maximum). */
struct running {
    float top, sum;
};

__device__ __forceinline__ struct running merge(struct running a, struct running b)
{
    float top = fmaxf(a.top, b.top), shift = top == -INFINITY ? 0.0f : top;
    return {top, a.sum * exp_below(a.top, shift) + b.sum * exp_below(b.top, shift)};
}

template <typename T, int W>
__device__ __forceinline__ void add(struct running &r, const fc_vec<T, W> &x)
{
    float top = r.top, sum = 0;
#pragma unroll
    for (int k = 0; k < W; k++)
        top = fmaxf(top, fc_to_float(x.v[k]));
    float shift = top == -INFINITY ? 0.0f : top; /* nothing but -inf so far: adds 0 */
#pragma unroll
    for (int k = 0; k < W; k++)
        sum += exp_below(fc_to_float(x.v[k]), shift);
    /* Rescaled always: a branch would cost the warp more than one exp in W. */
    r = {top, r.sum * exp_below(r.top, shift) + sum};
}

/* Over the block, in a fixed order; every thread gets it. */
__device__ __forceinline__ struct running block_merge(struct running r, struct running *partial)
{
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) {
        struct running other = {__shfl_xor_sync(0xffffffffu, r.top, lane),
                                __shfl_xor_sync(0xffffffffu, r.sum, lane)};
        r = merge(r, other);
    }
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = r;
    __syncthreads();
    r = partial[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        r = merge(r, partial[w]);
    return r;
}

/* What the gradient of a logit needs. */
struct gradient {
    float top, factor, weight; /* factor = weight / sum */
    size_t target;
};

template <typename T, int W>
__device__ __forceinline__ fc_vec<T, W> gradient_of(fc_vec<T, W> x, size_t at,
                                                    const struct gradient &g)
{
#pragma unroll
    for (int k = 0; k < W; k++) {
        float p = exp_below(fc_to_float(x.v[k]), g.top) * g.factor;
        x.v[k] = fc_from_float<T>(at + (size_t)k == g.target ? p - g.weight : p);
    }
    return x;
}

/* A vector of a row, and back, by the element where the row is not aligned. */
template <typename T> __device__ __forceinline__ fc_vec<T> load_part(const T *p, bool aligned)
{
    if (aligned)
        return fc_load16(p);
    fc_vec<T> x;
#pragma unroll
    for (int k = 0; k < fc_vec<T>::N; k++)
        x.v[k] = p[k];
    return x;
}

template <typename T>
__device__ __forceinline__ void store_part(T *p, const fc_vec<T> &x, bool aligned)
{
    if (aligned) {
        fc_store16(p, x);
        return;
    }
#pragma unroll
    for (int k = 0; k < fc_vec<T>::N; k++)
        p[k] = x.v[k];
}

/* `room`: vectors of a row that shared memory holds. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    cross_entropy_kernel(float *losses, T *logits, const int32_t *targets, const float *weights,
                         size_t V, size_t room)
{
    constexpr int W = fc_vec<T>::N;
    extern __shared__ uint4 cache[];
    __shared__ struct running partial[WARPS];
    size_t i = blockIdx.x, target = (size_t)targets[i];
    T *row = logits + i * V;
    const bool aligned = reinterpret_cast<uintptr_t>(row) % 16 == 0;
    size_t vectors = V / W, tail = vectors * W;
    struct running r = {-INFINITY, 0};
    float at_target = fc_to_float(row[target]);

    if (tail + threadIdx.x < V) /* fewer than W */
        add(r, fc_load<1>(row + tail + threadIdx.x));
    for (size_t j = threadIdx.x; j < vectors; j += AHEAD * THREADS) {
        fc_vec<T> x[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (j + (size_t)(a * THREADS) < vectors)
                x[a] = load_part(row + (j + (size_t)(a * THREADS)) * W, aligned);
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (j + (size_t)(a * THREADS) < vectors) {
                if (j + (size_t)(a * THREADS) < room)
                    fc_store16(reinterpret_cast<T *>(cache + j + a * THREADS), x[a]);
                add(r, x[a]);
            }
    }
    r = block_merge(r, partial); /* its barrier is behind every read of row[target] */
    if (threadIdx.x == 0)
        losses[i] = logf(r.sum) + (r.top - at_target);
    if (!weights)
        return;

    float weight = weights[i];
    struct gradient g = {r.top, weight / r.sum, weight, target};
    if (tail + threadIdx.x < V) {
        size_t at = tail + threadIdx.x;
        fc_store<1>(row + at, gradient_of(fc_load<1>(row + at), at, g));
    }
#pragma unroll 2
    for (size_t j = threadIdx.x; j < vectors; j += THREADS) {
        fc_vec<T> x = j < room ? fc_load16(reinterpret_cast<const T *>(cache + j))
                               : load_part(row + j * W, aligned);
        store_part(row + j * W, gradient_of(x, j * W, g), aligned);
    }
}

void fc_cuda_cross_entropy(struct fc_stream *s, float *losses, void *logits, const int32_t *targets,
                           const float *weights, size_t n, size_t V, enum fc_dtype lt)
{
    if (!fc_cuda_ok(s) || n * V == 0)
        return;
    size_t most = (s->shared_per_block - WARPS * sizeof(struct running)) / 16;
    size_t room = weights ? fc_cuda_min(V * fc_dtype_size(lt) / 16, most) : 0;
    fc_cuda_by_type(lt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        if (fc_cuda_allow_shared(s, cross_entropy_kernel<E>, room * 16))
            FC_LAUNCH(s, cross_entropy_kernel<E>, (unsigned)n, THREADS, room * 16, losses,
                      static_cast<E *>(logits), targets, weights, V, room);
    });
}
