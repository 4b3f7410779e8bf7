/* Bias and its gradient, gather, scatter, casts.
 *
 * Floor: bias_forward reads and writes T N elements, 1 FLOP each (y accumulates). bias_backward
 * reads T N, 1 FLOP each (dbias accumulates; its slices are written and read once, under 2 % from
 * 256 rows a slice). gather and scatter read and write n C elements, cast n: no FLOPs, outputs
 * overwritten. All are bound by memory. */
#include "kernels/cuda/rows.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    AHEAD = 4 /* vectors in flight: the compiler may not load past a store by itself */
};

/* ---- bias --------------------------------------------------------------------------------- */

enum { BIAS_ROWS = 16 }; /* rows to which a thread adds the bias that it loaded once */

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    bias_forward_kernel(T *y, const T *bias, size_t rows, size_t N)
{
    size_t c = ((size_t)blockIdx.x * 32 + threadIdx.x % 32) * W;
    if (c >= N)
        return;
    fc_vec<T, W> b = fc_load<W>(bias + c);
    size_t step = (size_t)gridDim.y * WARPS, t = (size_t)blockIdx.y * WARPS + threadIdx.x / 32;
    for (; t < rows; t += AHEAD * step) {
        fc_vec<T, W> x[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (t + a * step < rows)
                x[a] = fc_load<W>(y + (t + a * step) * N + c);
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (t + a * step < rows) {
#pragma unroll
                for (int k = 0; k < W; k++)
                    x[a].v[k] = fc_from_float<T>(fc_to_float(x[a].v[k]) + fc_to_float(b.v[k]));
                fc_store<W>(y + (t + a * step) * N + c, x[a]);
            }
    }
}

void fc_cuda_bias_forward(struct fc_stream *s, void *y, const void *bias, size_t T, size_t N,
                          enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * N == 0)
        return;
    unsigned grid_y = (unsigned)fc_cuda_min(fc_cuda_blocks(T, WARPS * BIAS_ROWS), 65535);
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = fc_vec<E>::N;
        auto *to = static_cast<E *>(y);
        auto *b = static_cast<const E *>(bias);
        if (fc_cuda_vectors<W, E>(N, y, bias))
            FC_LAUNCH(s, (bias_forward_kernel<E, W>),
                      dim3((unsigned)fc_cuda_blocks(N, 32 * W), grid_y), THREADS, 0, to, b, T, N);
        else
            FC_LAUNCH(s, (bias_forward_kernel<E, 1>), dim3((unsigned)fc_cuda_blocks(N, 32), grid_y),
                      THREADS, 0, to, b, T, N);
    });
}

/* A block sums LANES * W columns of one slice of rows: every thread a column vector and every
 * (THREADS / LANES)th row, then the threads of a column in order. LANES * 16 bytes is a line. */
enum { LANES = 8, DOWN = THREADS / LANES, SLICE_ROWS = 256 };

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    bias_backward_kernel(float *slices, const T *dy, size_t rows, size_t N)
{
    /* Column lane * W + k lies at k * LANES + lane; a row's length is 8 of 32 banks past the
     * last's, so that the four rows of a warp do not meet. */
    __shared__ float part[DOWN][LANES * W + (W > 1 ? 8 : 0)];
    int lane = (int)threadIdx.x % LANES, down = (int)threadIdx.x / LANES;
    size_t c = ((size_t)blockIdx.x * LANES + (size_t)lane) * W;
    size_t begin = blockIdx.y * rows / gridDim.y, end = (blockIdx.y + 1) * rows / gridDim.y;
    float sum[W];
#pragma unroll
    for (int k = 0; k < W; k++)
        sum[k] = 0;
    if (c < N)
#pragma unroll 8
        for (size_t t = begin + (size_t)down; t < end; t += DOWN) {
            fc_vec<T, W> x = fc_load<W>(dy + t * N + c);
#pragma unroll
            for (int k = 0; k < W; k++)
                sum[k] += fc_to_float(x.v[k]);
        }
#pragma unroll
    for (int k = 0; k < W; k++)
        part[down][k * LANES + lane] = sum[k];
    __syncthreads();
    c = ((size_t)blockIdx.x * LANES + threadIdx.x % LANES) * W + threadIdx.x / LANES;
    if (threadIdx.x >= LANES * W || c >= N)
        return;
    float total = 0;
#pragma unroll 8
    for (int d = 0; d < DOWN; d++)
        total += part[d][threadIdx.x];
    slices[blockIdx.y * N + c] = total;
}

template <typename T, int W>
static void bias_slices(struct fc_stream *s, float *slices, const void *dy, size_t n_slices,
                        size_t rows, size_t N)
{
    dim3 grid((unsigned)fc_cuda_blocks(N, LANES * W), (unsigned)n_slices);
    FC_LAUNCH(s, (bias_backward_kernel<T, W>), grid, THREADS, 0, slices, static_cast<const T *>(dy),
              rows, N);
}

void fc_cuda_bias_backward(struct fc_stream *s, float *dbias, const void *dy, float *scratch,
                           size_t T, size_t N, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * N == 0)
        return;
    size_t slices = fc_cuda_min(fc_cuda_blocks(T, SLICE_ROWS), FC_ROW_SLICES);
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = fc_vec<E>::N;
        if (fc_cuda_vectors<W, E>(N, dy))
            bias_slices<E, W>(s, scratch, dy, slices, T, N);
        else
            bias_slices<E, 1>(s, scratch, dy, slices, T, N);
    });
    fc_cuda_add_slices(s, dbias, scratch, slices, N);
}

/* 32 columns a block; a warp sums every WARPSth slice, then the warps are summed in order. */
__global__ void __launch_bounds__(THREADS)
    add_slices_kernel(float *to, const float *slices, size_t n_slices, size_t n)
{
    __shared__ float part[WARPS][32];
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    size_t c = (size_t)blockIdx.x * 32 + (size_t)lane;
    float sum = 0;
    if (c < n)
#pragma unroll 8
        for (size_t k = (size_t)warp; k < n_slices; k += WARPS)
            sum += slices[k * n + c];
    part[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || c >= n)
        return;
    float total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        total += part[w][lane];
    to[c] += total;
}

void fc_cuda_add_slices(struct fc_stream *s, float *to, const float *slices, size_t n_slices,
                        size_t n)
{
    FC_LAUNCH(s, add_slices_kernel, (unsigned)fc_cuda_blocks(n, 32), THREADS, 0, to, slices,
              n_slices, n);
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* out[to ? to[i] : i] = in[from ? from[i] : i], a warp for a row. C words of W elements of T. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    move_rows_kernel(T *out, const T *in, const int32_t *from, const int32_t *to, size_t n,
                     size_t C)
{
    size_t i = (size_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (i >= n)
        return;
    const T *source = in + (from ? (size_t)from[i] : i) * C;
    T *target = out + (to ? (size_t)to[i] : i) * C;
    for (size_t c = threadIdx.x % 32; c < C; c += AHEAD * 32) {
        T x[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (c + (size_t)(a * 32) < C)
                x[a] = source[c + (size_t)(a * 32)];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (c + (size_t)(a * 32) < C)
                target[c + (size_t)(a * 32)] = x[a];
    }
}

/* Rows are moved as the widest words that fit them. */
static void move_rows(struct fc_stream *s, void *out, const void *in, const int32_t *from,
                      const int32_t *to, size_t n, size_t C, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || n * C == 0)
        return;
    unsigned grid = (unsigned)fc_cuda_blocks(n, WARPS);
    size_t bytes = C * fc_dtype_size(dt);
    if (fc_cuda_vectors<16, char>(bytes, out, in))
        FC_LAUNCH(s, move_rows_kernel<uint4>, grid, THREADS, 0, static_cast<uint4 *>(out),
                  static_cast<const uint4 *>(in), from, to, n, bytes / 16);
    else if (fc_cuda_vectors<4, char>(bytes, out, in))
        FC_LAUNCH(s, move_rows_kernel<uint32_t>, grid, THREADS, 0, static_cast<uint32_t *>(out),
                  static_cast<const uint32_t *>(in), from, to, n, bytes / 4);
    else
        FC_LAUNCH(s, move_rows_kernel<uint16_t>, grid, THREADS, 0, static_cast<uint16_t *>(out),
                  static_cast<const uint16_t *>(in), from, to, n, bytes / 2);
}

void fc_cuda_gather_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                         size_t n, size_t C, enum fc_dtype dt)
{
    move_rows(s, out, in, rows, nullptr, n, C, dt);
}

void fc_cuda_scatter_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                          size_t n, size_t C, enum fc_dtype dt)
{
    move_rows(s, out, in, nullptr, rows, n, C, dt);
}

/* ---- casts --------------------------------------------------------------------------------- */

enum { CAST_PARTS = 4 }; /* vectors of a thread, all in flight at once */

template <typename To, typename From, int W>
__global__ void __launch_bounds__(THREADS) cast_kernel(To *to, const From *from, size_t n)
{
    size_t first = ((size_t)blockIdx.x * CAST_PARTS * THREADS + threadIdx.x) * W;
    fc_vec<From, W> x[CAST_PARTS];
#pragma unroll
    for (int p = 0; p < CAST_PARTS; p++)
        if (first + (size_t)(p * THREADS * W) < n)
            x[p] = fc_load<W>(from + first + p * THREADS * W);
#pragma unroll
    for (int p = 0; p < CAST_PARTS; p++)
        if (first + (size_t)(p * THREADS * W) < n) {
            fc_vec<To, W> y;
#pragma unroll
            for (int k = 0; k < W; k++)
                y.v[k] = fc_from_float<To>(fc_to_float(x[p].v[k]));
            fc_store<W>(to + first + p * THREADS * W, y);
        }
}

void fc_cuda_cast(struct fc_stream *s, void *to, enum fc_dtype to_type, const void *from,
                  enum fc_dtype from_type, size_t n)
{
    if (to_type == from_type) {
        fc_cuda_copy(s, to, from, n * fc_dtype_size(to_type));
        return;
    }
    if (!fc_cuda_ok(s) || n == 0)
        return;
    fc_cuda_by_type(to_type, [&](auto *a) {
        fc_cuda_by_type(from_type, [&](auto *b) {
            using To = std::remove_pointer_t<decltype(a)>;
            using From = std::remove_pointer_t<decltype(b)>;
            /* 16 bytes of the wider type; what is left of the last vector goes by the scalars. */
            constexpr int W = sizeof(To) + sizeof(From) > 4 ? 4 : 8;
            auto *y = static_cast<To *>(to);
            auto *x = static_cast<const From *>(from);
            size_t whole =
                fc_cuda_vectors<W, To>(0, to) && fc_cuda_vectors<W, From>(0, from) ? n - n % W : 0;
            if (whole)
                FC_LAUNCH(s, (cast_kernel<To, From, W>),
                          (unsigned)fc_cuda_blocks(whole, CAST_PARTS * THREADS * W), THREADS, 0, y,
                          x, whole);
            if (whole < n)
                FC_LAUNCH(s, (cast_kernel<To, From, 1>),
                          (unsigned)fc_cuda_blocks(n - whole, CAST_PARTS * THREADS), THREADS, 0,
                          y + whole, x + whole, n - whole);
        });
    });
}
