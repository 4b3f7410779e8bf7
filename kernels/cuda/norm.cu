/* RMSNorm with the residual addition in front of it, and its gradient.
 *
 * Floor per element: forward reads x (and delta) and writes y (and x, where there is a delta), 5
 * FLOPs; backward reads x, dy and dx and writes dx, 10 FLOPs. The weights are read once a block and
 * the slices of dweight are written and read once: under 5 % where there are many more rows than
 * slices. y and rstd are overwritten; x, dx and dweight accumulate.
 *
 * A row belongs to a GROUP of threads, a warp or a whole block, which keeps it in registers between
 * the sum and the scaling: VECTORS of 16 bytes a thread. Rows that are wider, ragged or not aligned
 * take the loops at the end, a block for a row.
 *
 * dweight is a sum over rows: each block of backward adds the rows of its slice in registers, then
 * its warps in order in shared memory, then the slices are added in order. */
#include "kernels/cuda/rows.cuh"

enum {
    FORWARD_THREADS = 256,
    BACKWARD_THREADS = 512, /* where a block shares a row */
    BACKWARD_WARPS = 256    /* where each warp has its own, and needs registers for 1,024 sums */
};

/* Sum over a GROUP, which is a warp or the block of THREADS; every thread of it gets the sum.
 * `partial` has two rows: a block that comes back writes the other one. */
template <int GROUP, int THREADS>
__device__ __forceinline__ float group_sum(float x, float (*partial)[THREADS / 32], int turn)
{
    if constexpr (GROUP == 32)
        return fc_warp_sum(x);
    else
        return fc_block_sum<THREADS>(x, partial[turn]);
}

/* ---- forward -------------------------------------------------------------------------------- */

template <typename T, int GROUP, int VECTORS>
__global__ void __launch_bounds__(FORWARD_THREADS)
    rmsnorm_forward_kernel(T *y, T *x, const T *delta, float *rstd, const T *weight, float eps,
                           size_t rows, int C)
{
    constexpr int W = fc_vec<T>::N, TOGETHER = FORWARD_THREADS / GROUP;
    __shared__ fc_vec<T> gain[GROUP * VECTORS];
    __shared__ float partial[2][FORWARD_THREADS / 32];
    int lane = (int)threadIdx.x % GROUP, turn = 0;
    for (int j = (int)threadIdx.x; j * W < C; j += FORWARD_THREADS)
        gain[j] = fc_load16(weight + j * W);
    __syncthreads();
    size_t step = (size_t)gridDim.x * TOGETHER;
    for (size_t t = (size_t)blockIdx.x * TOGETHER + threadIdx.x / GROUP; t < rows; t += step) {
        size_t at = t * (size_t)C + (size_t)(lane * W);
        fc_vec<T> v[VECTORS], d[VECTORS];
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                v[j] = fc_load16(x + at + j * GROUP * W);
                if (delta)
                    d[j] = fc_load16(delta + at + j * GROUP * W);
            }
        float sum = 0;
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
#pragma unroll
                for (int k = 0; k < W; k++) {
                    if (delta)
                        v[j].v[k] =
                            fc_from_float<T>(fc_to_float(v[j].v[k]) + fc_to_float(d[j].v[k]));
                    float f = fc_to_float(v[j].v[k]);
                    sum += f * f;
                }
                if (delta)
                    fc_store16(x + at + j * GROUP * W, v[j]);
            }
        sum = group_sum<GROUP, FORWARD_THREADS>(sum, partial, turn);
        turn ^= 1;
        float r = rsqrtf(sum / (float)C + eps);
        if (rstd && lane == 0)
            rstd[t] = r;
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                fc_vec<T> w = gain[j * GROUP + lane];
#pragma unroll
                for (int k = 0; k < W; k++)
                    w.v[k] = fc_from_float<T>(fc_to_float(v[j].v[k]) * r * fc_to_float(w.v[k]));
                fc_store16(y + at + j * GROUP * W, w);
            }
    }
}

template <typename T>
__global__ void __launch_bounds__(FORWARD_THREADS)
    rmsnorm_forward_any_kernel(T *y, T *x, const T *delta, float *rstd, const T *weight, float eps,
                               size_t C)
{
    __shared__ float partial[FORWARD_THREADS / 32];
    size_t t = blockIdx.x;
    float sum = 0;
    for (size_t c = threadIdx.x; c < C; c += FORWARD_THREADS) {
        size_t at = t * C + c;
        T v = x[at];
        if (delta) {
            v = fc_from_float<T>(fc_to_float(v) + fc_to_float(delta[at]));
            x[at] = v;
        }
        sum += fc_to_float(v) * fc_to_float(v);
    }
    sum = fc_block_sum<FORWARD_THREADS>(sum, partial);
    float r = rsqrtf(sum / (float)C + eps);
    if (rstd && threadIdx.x == 0)
        rstd[t] = r;
    for (size_t c = threadIdx.x; c < C; c += FORWARD_THREADS) /* its own x: no barrier needed */
        y[t * C + c] = fc_from_float<T>(fc_to_float(x[t * C + c]) * r * fc_to_float(weight[c]));
}

/* ---- backward ------------------------------------------------------------------------------- */

/* With h = x rstd and g = dy weight: dx += rstd (g - h mean(g h)), slice += dy h. */
template <typename T, int THREADS, int GROUP, int VECTORS>
__global__ void __launch_bounds__(THREADS)
    rmsnorm_backward_kernel(T *dx, float *slices, const T *dy, const T *x, const float *rstd,
                            const T *weight, size_t rows, int C)
{
    constexpr int W = fc_vec<T>::N, TOGETHER = THREADS / GROUP;
    constexpr int VECTORS_OF_ROW = GROUP * VECTORS;
    /* The weights, then the sums of the block's warps. */
    __shared__ alignas(16) float room[VECTORS_OF_ROW * W];
    __shared__ float partial[2][THREADS / 32];
    auto *gain = reinterpret_cast<fc_vec<T> *>(room);
    int lane = (int)threadIdx.x % GROUP, group = (int)threadIdx.x / GROUP, turn = 0;
    for (int j = (int)threadIdx.x; j * W < C; j += THREADS)
        gain[j] = fc_load16(weight + j * W);
    __syncthreads();
    float total[VECTORS][W];
#pragma unroll
    for (int j = 0; j < VECTORS; j++)
#pragma unroll
        for (int k = 0; k < W; k++)
            total[j][k] = 0;
    size_t begin = blockIdx.x * rows / gridDim.x, end = (blockIdx.x + 1) * rows / gridDim.x;
    for (size_t t = begin + (size_t)group; t < end; t += TOGETHER) {
        size_t at = t * (size_t)C + (size_t)(lane * W);
        fc_vec<T> v[VECTORS], g[VECTORS], d[VECTORS];
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                v[j] = fc_load16(x + at + j * GROUP * W);
                g[j] = fc_load16(dy + at + j * GROUP * W);
            }
        float r = rstd[t], dot = 0;
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                fc_vec<T> w = gain[j * GROUP + lane];
#pragma unroll
                for (int k = 0; k < W; k++)
                    dot += fc_to_float(g[j].v[k]) * fc_to_float(w.v[k]) * fc_to_float(v[j].v[k]);
            }
        dot = group_sum<GROUP, THREADS>(dot, partial, turn);
        turn ^= 1;
        float mean = dot * r / (float)C;
#pragma unroll
        for (int j = 0; j < VECTORS; j++) /* not earlier: registers */
            if ((j * GROUP + lane) * W < C)
                d[j] = fc_load16(dx + at + j * GROUP * W);
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                fc_vec<T> w = gain[j * GROUP + lane];
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float h = fc_to_float(v[j].v[k]) * r, dyk = fc_to_float(g[j].v[k]);
                    float by = r * (dyk * fc_to_float(w.v[k]) - h * mean);
                    d[j].v[k] = fc_from_float<T>(fc_to_float(d[j].v[k]) + by);
                    total[j][k] += dyk * h;
                }
                fc_store16(dx + at + j * GROUP * W, d[j]);
            }
    }
    /* The groups one after another: sums of element k of vector j lie apart, so that neighbouring
     * lanes meet in different banks. */
    for (int turn_of = 0; turn_of < TOGETHER; turn_of++) {
        __syncthreads();
        if (group == turn_of)
#pragma unroll
            for (int j = 0; j < VECTORS; j++)
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float *to = &room[(k * VECTORS + j) * GROUP + lane];
                    *to = turn_of ? *to + total[j][k] : total[j][k];
                }
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < C; c += THREADS)
        slices[blockIdx.x * (size_t)C + (size_t)c] = room[c % W * VECTORS_OF_ROW + c / W];
}

template <typename T>
__global__ void __launch_bounds__(BACKWARD_THREADS)
    rmsnorm_backward_any_kernel(T *dx, float *slices, const T *dy, const T *x, const float *rstd,
                                const T *weight, size_t rows, size_t C)
{
    __shared__ float partial[2][BACKWARD_THREADS / 32];
    float *slice = slices + blockIdx.x * C;
    int turn = 0;
    for (size_t c = threadIdx.x; c < C; c += BACKWARD_THREADS)
        slice[c] = 0;
    size_t begin = blockIdx.x * rows / gridDim.x, end = (blockIdx.x + 1) * rows / gridDim.x;
    for (size_t t = begin; t < end; t++) {
        const T *v = x + t * C, *g = dy + t * C;
        float r = rstd[t], dot = 0;
        for (size_t c = threadIdx.x; c < C; c += BACKWARD_THREADS)
            dot += fc_to_float(g[c]) * fc_to_float(weight[c]) * fc_to_float(v[c]);
        dot = fc_block_sum<BACKWARD_THREADS>(dot, partial[turn]);
        turn ^= 1;
        float mean = dot * r / (float)C;
        for (size_t c = threadIdx.x; c < C; c += BACKWARD_THREADS) {
            float h = fc_to_float(v[c]) * r, dyc = fc_to_float(g[c]);
            float by = r * (dyc * fc_to_float(weight[c]) - h * mean);
            dx[t * C + c] = fc_from_float<T>(fc_to_float(dx[t * C + c]) + by);
            slice[c] += dyc * h;
        }
    }
}

/* ---- entries -------------------------------------------------------------------------------- */

template <typename T, int GROUP, int VECTORS>
static void forward(struct fc_stream *s, T *y, T *x, const T *delta, float *rstd, const T *weight,
                    float eps, size_t rows, size_t C)
{
    unsigned grid = fc_cuda_grid(s, rows, FORWARD_THREADS / GROUP, 2);
    FC_LAUNCH(s, (rmsnorm_forward_kernel<T, GROUP, VECTORS>), grid, FORWARD_THREADS, 0, y, x, delta,
              rstd, weight, eps, rows, (int)C);
}

void fc_cuda_rmsnorm_forward(struct fc_stream *s, void *y, void *x, const void *delta, float *rstd,
                             const void *weight, float eps, size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * C == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = fc_vec<E>::N, BLOCK = FORWARD_THREADS;
        auto *out = static_cast<E *>(y), *in = static_cast<E *>(x);
        auto *add = static_cast<const E *>(delta), *w = static_cast<const E *>(weight);
        bool vectors = fc_cuda_vectors<W, E>(C, y, x, delta, weight);
        if (!vectors || C > 8 * BLOCK * W)
            FC_LAUNCH(s, rmsnorm_forward_any_kernel<E>, (unsigned)T, BLOCK, 0, out, in, add, rstd,
                      w, eps, C);
        else if (C <= 2 * 32 * W)
            forward<E, 32, 2>(s, out, in, add, rstd, w, eps, T, C);
        else if (C <= 4 * 32 * W)
            forward<E, 32, 4>(s, out, in, add, rstd, w, eps, T, C);
        else if (C <= 8 * 32 * W)
            forward<E, 32, 8>(s, out, in, add, rstd, w, eps, T, C);
        else if (C <= 2 * BLOCK * W)
            forward<E, BLOCK, 2>(s, out, in, add, rstd, w, eps, T, C);
        else if (C <= 4 * BLOCK * W)
            forward<E, BLOCK, 4>(s, out, in, add, rstd, w, eps, T, C);
        else
            forward<E, BLOCK, 8>(s, out, in, add, rstd, w, eps, T, C);
    });
}

template <typename T, int GROUP, int VECTORS>
static void backward(struct fc_stream *s, T *dx, float *slices, const T *dy, const T *x,
                     const float *rstd, const T *weight, unsigned n_slices, size_t rows, size_t C)
{
    constexpr int THREADS = GROUP == 32 ? BACKWARD_WARPS : GROUP;
    FC_LAUNCH(s, (rmsnorm_backward_kernel<T, THREADS, GROUP, VECTORS>), n_slices, THREADS, 0, dx,
              slices, dy, x, rstd, weight, rows, (int)C);
}

void fc_cuda_rmsnorm_backward(struct fc_stream *s, void *dx, float *dweight, const void *dy,
                              const void *x, const float *rstd, const void *weight, float *scratch,
                              size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * C == 0)
        return;
    unsigned slices = (unsigned)fc_cuda_min(T, FC_ROW_SLICES);
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = fc_vec<E>::N, BLOCK = BACKWARD_THREADS;
        auto *out = static_cast<E *>(dx);
        auto *g = static_cast<const E *>(dy), *v = static_cast<const E *>(x);
        auto *w = static_cast<const E *>(weight);
        bool vectors = fc_cuda_vectors<W, E>(C, dx, dy, x, weight);
        if (!vectors || C > 8192)
            FC_LAUNCH(s, rmsnorm_backward_any_kernel<E>, slices, BLOCK, 0, out, scratch, g, v, rstd,
                      w, T, C);
        else if (C <= 2 * 32 * W)
            backward<E, 32, 2>(s, out, scratch, g, v, rstd, w, slices, T, C);
        else if (C <= 4 * 32 * W)
            backward<E, 32, 4>(s, out, scratch, g, v, rstd, w, slices, T, C);
        else if (C <= BLOCK * W)
            backward<E, BLOCK, 1>(s, out, scratch, g, v, rstd, w, slices, T, C);
        else
            backward<E, BLOCK, 8192 / (BLOCK * W)>(s, out, scratch, g, v, rstd, w, slices, T, C);
    });
    fc_cuda_add_slices(s, dweight, scratch, slices, C);
}
