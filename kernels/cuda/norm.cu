/* RMSNorm and LayerNorm with the residual addition in front of them, and their gradients.
 *
 * Floor per element: forward reads x (and delta) and writes y (and x, where there is a delta), 5
 * FLOPs; backward reads x, dy and dx and writes dx, 10 FLOPs; LayerNorm 3 FLOPs more each. The
 * weights are read once a block and the slices of dweight and dbias are written and read once:
 * under 5 % where there are many more rows than slices. y, mean and rstd are overwritten; x, dx,
 * dweight and dbias accumulate.
 *
 * A row belongs to a GROUP of threads, a warp or a whole block, which keeps it in registers between
 * the sums and the scaling: VECTORS of 16 bytes a thread. Rows that are wider, ragged or not
 * aligned take the loops of the _any kernels, a block for a row.
 *
 * dweight is a sum over rows: each block of backward adds the rows of its slice in registers, then
 * its groups in order in shared memory, then the slices are added in order.
 *
 * CENTERED is LayerNorm; without it mean and bias are not touched. */
#include "kernels/cuda/rows.cuh"

enum {
    FORWARD_THREADS = 256,
    BACKWARD_THREADS = 512, /* where a block shares a row */
    BACKWARD_WARPS = 256,   /* where each warp has its own, and needs registers for 1,024 sums */
    WIDEST_BACKWARD = 8192  /* channels: sums of a slice in 32 KB of shared memory */
};

/* Sum over a GROUP, which is a warp or the block of THREADS; every thread of it gets the sum.
 * `partial` has two rows that take turns: the block may still read one while it fills the other. */
template <int GROUP, int THREADS>
__device__ __forceinline__ float group_sum(float x, float (*partial)[THREADS / 32], int &turn)
{
    if constexpr (GROUP == 32)
        return fc_warp_sum(x);
    turn ^= 1;
    return fc_block_sum<THREADS>(x, partial[turn]);
}

/* ---- forward -------------------------------------------------------------------------------- */

template <typename T> struct forward_args {
    T *y, *x;
    const T *delta;
    float *mean, *rstd;
    const T *weight, *bias;
    float eps;
    size_t rows, C;
};

/* One block a multiprocessor is promised, so that no compiler saves registers at the price of a
 * spill (nvcc 12.4 did, at 128). */
template <typename T, int GROUP, int VECTORS, bool CENTERED>
__global__ void __launch_bounds__(FORWARD_THREADS, 1) norm_forward_kernel(struct forward_args<T> a)
{
    constexpr int W = fc_vec<T>::N, TOGETHER = FORWARD_THREADS / GROUP;
    __shared__ fc_vec<T> gain[GROUP * VECTORS], shift[CENTERED ? GROUP * VECTORS : 1];
    __shared__ float partial[2][FORWARD_THREADS / 32];
    int C = (int)a.C, lane = (int)threadIdx.x % GROUP, turn = 0;
    for (int j = (int)threadIdx.x; j * W < C; j += FORWARD_THREADS) {
        gain[j] = fc_load16(a.weight + j * W);
        if (CENTERED)
            shift[j] = fc_load16(a.bias + j * W);
    }
    __syncthreads();
    size_t step = (size_t)gridDim.x * TOGETHER;
    for (size_t t = (size_t)blockIdx.x * TOGETHER + threadIdx.x / GROUP; t < a.rows; t += step) {
        size_t at = t * a.C + (size_t)(lane * W);
        fc_vec<T> v[VECTORS], d[VECTORS];
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                v[j] = fc_load16(a.x + at + j * GROUP * W);
                if (a.delta)
                    d[j] = fc_load16(a.delta + at + j * GROUP * W);
            }
        float sum = 0, mean = 0;
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
#pragma unroll
                for (int k = 0; k < W; k++) {
                    if (a.delta)
                        v[j].v[k] =
                            fc_from_float<T>(fc_to_float(v[j].v[k]) + fc_to_float(d[j].v[k]));
                    float f = fc_to_float(v[j].v[k]);
                    sum += CENTERED ? f : f * f;
                }
                if (a.delta)
                    fc_store16(a.x + at + j * GROUP * W, v[j]);
            }
        sum = group_sum<GROUP, FORWARD_THREADS>(sum, partial, turn);
        if constexpr (CENTERED) {
            mean = sum / (float)C;
            sum = 0;
#pragma unroll
            for (int j = 0; j < VECTORS; j++)
                if ((j * GROUP + lane) * W < C)
#pragma unroll
                    for (int k = 0; k < W; k++) {
                        float f = fc_to_float(v[j].v[k]) - mean;
                        sum += f * f;
                    }
            sum = group_sum<GROUP, FORWARD_THREADS>(sum, partial, turn);
            if (a.mean && lane == 0)
                a.mean[t] = mean;
        }
        float r = rsqrtf(sum / (float)C + a.eps);
        if (a.rstd && lane == 0)
            a.rstd[t] = r;
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                fc_vec<T> w = gain[j * GROUP + lane], b;
                if (CENTERED)
                    b = shift[j * GROUP + lane];
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float f = (fc_to_float(v[j].v[k]) - mean) * r * fc_to_float(w.v[k]);
                    w.v[k] = fc_from_float<T>(CENTERED ? f + fc_to_float(b.v[k]) : f);
                }
                fc_store16(a.y + at + j * GROUP * W, w);
            }
    }
}

/* A thread reads back only the x that it wrote: no barrier is needed for them. */
template <typename T, bool CENTERED>
__global__ void __launch_bounds__(FORWARD_THREADS) norm_forward_any_kernel(struct forward_args<T> a)
{
    __shared__ float partial[2][FORWARD_THREADS / 32];
    size_t t = blockIdx.x;
    T *x = a.x + t * a.C;
    float sum = 0, mean = 0;
    for (size_t c = threadIdx.x; c < a.C; c += FORWARD_THREADS) {
        T v = x[c];
        if (a.delta) {
            v = fc_from_float<T>(fc_to_float(v) + fc_to_float(a.delta[t * a.C + c]));
            x[c] = v;
        }
        sum += CENTERED ? fc_to_float(v) : fc_to_float(v) * fc_to_float(v);
    }
    sum = fc_block_sum<FORWARD_THREADS>(sum, partial[0]);
    if constexpr (CENTERED) {
        mean = sum / (float)a.C;
        sum = 0;
        for (size_t c = threadIdx.x; c < a.C; c += FORWARD_THREADS) {
            float f = fc_to_float(x[c]) - mean;
            sum += f * f;
        }
        sum = fc_block_sum<FORWARD_THREADS>(sum, partial[1]);
        if (a.mean && threadIdx.x == 0)
            a.mean[t] = mean;
    }
    float r = rsqrtf(sum / (float)a.C + a.eps);
    if (a.rstd && threadIdx.x == 0)
        a.rstd[t] = r;
    for (size_t c = threadIdx.x; c < a.C; c += FORWARD_THREADS) {
        float f = (fc_to_float(x[c]) - mean) * r * fc_to_float(a.weight[c]);
        a.y[t * a.C + c] = fc_from_float<T>(CENTERED ? f + fc_to_float(a.bias[c]) : f);
    }
}

template <typename T, int GROUP, int VECTORS, bool CENTERED>
static void launch_forward(struct fc_stream *s, const struct forward_args<T> &a)
{
    unsigned grid = fc_cuda_grid(s, a.rows, FORWARD_THREADS / GROUP, 2);
    FC_LAUNCH(s, (norm_forward_kernel<T, GROUP, VECTORS, CENTERED>), grid, FORWARD_THREADS, 0, a);
}

template <typename T, bool CENTERED>
static void forward(struct fc_stream *s, const struct forward_args<T> &a)
{
    constexpr int W = fc_vec<T>::N, BLOCK = FORWARD_THREADS;
    constexpr int MOST =
        CENTERED ? 4 : 8; /* vectors of a thread; shared memory holds weight, bias */
    bool vectors = fc_cuda_vectors<W, T>(a.C, a.y, a.x, a.delta, a.weight, a.bias);
    if (!vectors || a.C > MOST * BLOCK * W)
        FC_LAUNCH(s, (norm_forward_any_kernel<T, CENTERED>), (unsigned)a.rows, BLOCK, 0, a);
    else if (a.C <= 2 * 32 * W)
        launch_forward<T, 32, 2, CENTERED>(s, a);
    else if (a.C <= 4 * 32 * W)
        launch_forward<T, 32, 4, CENTERED>(s, a);
    else if (a.C <= 8 * 32 * W)
        launch_forward<T, 32, 8, CENTERED>(s, a);
    else if (a.C <= 2 * BLOCK * W)
        launch_forward<T, BLOCK, 2, CENTERED>(s, a);
    else if (a.C <= 4 * BLOCK * W)
        launch_forward<T, BLOCK, 4, CENTERED>(s, a);
    else
        launch_forward<T, BLOCK, MOST, CENTERED>(s, a);
}

void fc_cuda_rmsnorm_forward(struct fc_stream *s, void *y, void *x, const void *delta, float *rstd,
                             const void *weight, float eps, size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * C == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        struct forward_args<E> a = {
            (E *)y, (E *)x, (const E *)delta, nullptr, rstd, (const E *)weight, nullptr, eps, T, C
        };
        forward<E, false>(s, a);
    });
}

void fc_cuda_layernorm_forward(struct fc_stream *s, void *y, void *x, const void *delta,
                               float *mean, float *rstd, const void *weight, const void *bias,
                               float eps, size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * C == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        struct forward_args<E> a = {
            (E *)y, (E *)x, (const E *)delta, mean, rstd, (const E *)weight,
                (const E *)bias, eps, T, C
        };
        forward<E, true>(s, a);
    });
}

/* ---- backward ------------------------------------------------------------------------------- */

template <typename T> struct backward_args {
    T *dx;
    float *slices; /* of dweight; those of dbias come FC_ROW_SLICES * C behind them */
    const T *dy, *x;
    const float *mean, *rstd;
    const T *weight;
    size_t rows, C;
};

/* Shared memory for the sums of a block: element k of a row's vectors is one line, the lines 32 / W
 * banks apart, so that neither neighbouring lanes nor neighbouring channels meet in a bank. */
template <int VECTORS_OF_ROW, int W> constexpr int line_of = VECTORS_OF_ROW + 32 / W;

/* slice[C] = the sums of the block's groups, one group after another. All threads must call. */
template <int THREADS, int GROUP, int VECTORS, int W>
__device__ __forceinline__ void sum_groups(float *slice, float *room,
                                           const float (&sum)[VECTORS][W], int C)
{
    constexpr int LINE = line_of<GROUP * VECTORS, W>;
    int lane = (int)threadIdx.x % GROUP, group = (int)threadIdx.x / GROUP;
    for (int now = 0; now < THREADS / GROUP; now++) {
        __syncthreads(); /* before the first: `room` held something else */
        if (group == now)
#pragma unroll
            for (int j = 0; j < VECTORS; j++)
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float *to = &room[k * LINE + j * GROUP + lane];
                    *to = now ? *to + sum[j][k] : sum[j][k];
                }
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < C; c += THREADS)
        slice[c] = room[c % W * LINE + c / W];
}

/* With h = (x - mean) rstd and g = dy weight: dx += rstd (g - mean(g) - h mean(g h)), where mean(g)
 * is LayerNorm's; dweight's slice = the sum of dy h, dbias' of dy. */
template <typename T, int THREADS, int GROUP, int VECTORS, bool CENTERED>
__global__ void __launch_bounds__(THREADS) norm_backward_kernel(struct backward_args<T> a)
{
    constexpr int W = fc_vec<T>::N, TOGETHER = THREADS / GROUP;
    __shared__ alignas(
        16) float room[line_of<GROUP * VECTORS, W> * W]; /* the weights, then sums of groups */
    __shared__ float partial[2][THREADS / 32];
    auto *gain = reinterpret_cast<fc_vec<T> *>(room);
    int C = (int)a.C, lane = (int)threadIdx.x % GROUP, turn = 0;
    for (int j = (int)threadIdx.x; j * W < C; j += THREADS)
        gain[j] = fc_load16(a.weight + j * W);
    __syncthreads();
    float dweight[VECTORS][W], dbias[VECTORS][W];
#pragma unroll
    for (int j = 0; j < VECTORS; j++)
#pragma unroll
        for (int k = 0; k < W; k++)
            dweight[j][k] = dbias[j][k] = 0;
    size_t begin = blockIdx.x * a.rows / gridDim.x, end = (blockIdx.x + 1) * a.rows / gridDim.x;
    for (size_t t = begin + threadIdx.x / GROUP; t < end; t += TOGETHER) {
        size_t at = t * a.C + (size_t)(lane * W);
        fc_vec<T> v[VECTORS], g[VECTORS], d[VECTORS];
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                v[j] = fc_load16(a.x + at + j * GROUP * W);
                g[j] = fc_load16(a.dy + at + j * GROUP * W);
            }
        float r = a.rstd[t], mean = CENTERED ? a.mean[t] : 0, dot = 0, sum = 0;
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                fc_vec<T> w = gain[j * GROUP + lane];
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float gk = fc_to_float(g[j].v[k]) * fc_to_float(w.v[k]);
                    dot += gk * (fc_to_float(v[j].v[k]) - mean);
                    sum += gk;
                }
            }
        dot = group_sum<GROUP, THREADS>(dot, partial, turn) * r / (float)C;
        if constexpr (CENTERED)
            sum = group_sum<GROUP, THREADS>(sum, partial, turn) / (float)C;
        else
            sum = 0;
#pragma unroll
        for (int j = 0; j < VECTORS; j++) /* not earlier: registers */
            if ((j * GROUP + lane) * W < C)
                d[j] = fc_load16(a.dx + at + j * GROUP * W);
#pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if ((j * GROUP + lane) * W < C) {
                fc_vec<T> w = gain[j * GROUP + lane];
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float h = (fc_to_float(v[j].v[k]) - mean) * r, dy = fc_to_float(g[j].v[k]);
                    float by = r * (dy * fc_to_float(w.v[k]) - sum - h * dot);
                    d[j].v[k] = fc_from_float<T>(fc_to_float(d[j].v[k]) + by);
                    dweight[j][k] += dy * h;
                    if (CENTERED)
                        dbias[j][k] += dy;
                }
                fc_store16(a.dx + at + j * GROUP * W, d[j]);
            }
    }
    float *slice = a.slices + blockIdx.x * a.C;
    sum_groups<THREADS, GROUP>(slice, room, dweight, C);
    if constexpr (CENTERED)
        sum_groups<THREADS, GROUP>(slice + FC_ROW_SLICES * a.C, room, dbias, C);
}

template <typename T, bool CENTERED>
__global__ void __launch_bounds__(BACKWARD_THREADS)
    norm_backward_any_kernel(struct backward_args<T> a)
{
    __shared__ float partial[2][BACKWARD_THREADS / 32];
    float *slice = a.slices + blockIdx.x * a.C, *shift = slice + FC_ROW_SLICES * a.C;
    int turn = 0;
    for (size_t c = threadIdx.x; c < a.C; c += BACKWARD_THREADS) {
        slice[c] = 0;
        if (CENTERED)
            shift[c] = 0;
    }
    size_t begin = blockIdx.x * a.rows / gridDim.x, end = (blockIdx.x + 1) * a.rows / gridDim.x;
    for (size_t t = begin; t < end; t++) {
        const T *v = a.x + t * a.C, *g = a.dy + t * a.C;
        float r = a.rstd[t], mean = CENTERED ? a.mean[t] : 0, dot = 0, sum = 0;
        for (size_t c = threadIdx.x; c < a.C; c += BACKWARD_THREADS) {
            float gc = fc_to_float(g[c]) * fc_to_float(a.weight[c]);
            dot += gc * (fc_to_float(v[c]) - mean);
            sum += gc;
        }
        dot = group_sum<BACKWARD_THREADS, BACKWARD_THREADS>(dot, partial, turn) * r / (float)a.C;
        if constexpr (CENTERED)
            sum = group_sum<BACKWARD_THREADS, BACKWARD_THREADS>(sum, partial, turn) / (float)a.C;
        else
            sum = 0;
        for (size_t c = threadIdx.x; c < a.C; c += BACKWARD_THREADS) {
            float h = (fc_to_float(v[c]) - mean) * r, dy = fc_to_float(g[c]);
            float by = r * (dy * fc_to_float(a.weight[c]) - sum - h * dot);
            T *dx = a.dx + t * a.C + c;
            *dx = fc_from_float<T>(fc_to_float(*dx) + by);
            slice[c] += dy * h;
            if (CENTERED)
                shift[c] += dy;
        }
    }
}

template <typename T, int GROUP, int VECTORS, bool CENTERED>
static void launch_backward(struct fc_stream *s, const struct backward_args<T> &a, unsigned slices)
{
    constexpr int THREADS = GROUP == 32 ? BACKWARD_WARPS : GROUP;
    FC_LAUNCH(s, (norm_backward_kernel<T, THREADS, GROUP, VECTORS, CENTERED>), slices, THREADS, 0,
              a);
}

template <typename T, bool CENTERED>
static void backward(struct fc_stream *s, const struct backward_args<T> &a, float *dweight,
                     float *dbias)
{
    constexpr int W = fc_vec<T>::N, BLOCK = BACKWARD_THREADS;
    unsigned slices = (unsigned)fc_cuda_min(a.rows, FC_ROW_SLICES);
    bool vectors = fc_cuda_vectors<W, T>(a.C, a.dx, a.dy, a.x, a.weight);
    if (!vectors || a.C > WIDEST_BACKWARD)
        FC_LAUNCH(s, (norm_backward_any_kernel<T, CENTERED>), slices, BLOCK, 0, a);
    else if (a.C <= 2 * 32 * W)
        launch_backward<T, 32, 2, CENTERED>(s, a, slices);
    else if (a.C <= 4 * 32 * W)
        launch_backward<T, 32, 4, CENTERED>(s, a, slices);
    else if (a.C <= BLOCK * W)
        launch_backward<T, BLOCK, 1, CENTERED>(s, a, slices);
    else
        launch_backward<T, BLOCK, WIDEST_BACKWARD / (BLOCK * W), CENTERED>(s, a, slices);
    fc_cuda_add_slices(s, dweight, a.slices, slices, a.C);
    if (CENTERED)
        fc_cuda_add_slices(s, dbias, a.slices + FC_ROW_SLICES * a.C, slices, a.C);
}

void fc_cuda_rmsnorm_backward(struct fc_stream *s, void *dx, float *dweight, const void *dy,
                              const void *x, const float *rstd, const void *weight, float *scratch,
                              size_t T, size_t C, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * C == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        struct backward_args<E> a = {
            (E *)dx, scratch, (const E *)dy, (const E *)x, nullptr, rstd, (const E *)weight, T, C
        };
        backward<E, false>(s, a, dweight, nullptr);
    });
}

void fc_cuda_layernorm_backward(struct fc_stream *s, void *dx, float *dweight, float *dbias,
                                const void *dy, const void *x, const float *mean, const float *rstd,
                                const void *weight, float *scratch, size_t T, size_t C,
                                enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * C == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        struct backward_args<E> a = {
            (E *)dx, scratch, (const E *)dy, (const E *)x, mean, rstd, (const E *)weight, T, C
        };
        backward<E, true>(s, a, dweight, dbias);
    });
}
