/* SwiGLU, GELU and ReLU, and their gradients.
 *
 * Floor per output element: forward reads 2 and writes 1, about 10 FLOPs and one exp; backward
 * reads 3 and writes 2, about 16 FLOPs and one exp. GELU and ReLU read 1 and write 1,
 * backward 2 and 1; about 20 FLOPs for an erf or tanh. Memory decides on every device. All outputs
 * are overwritten.
 *
 * SwiGLU: a thread owns W adjacent columns (16 bytes; 1 on the scalar path) and walks down the
 * rows, so no index is divided. The others see one flat range. */
#include "kernels/cuda/rows.cuh"

enum {
    THREADS = 256,
    LANES = 32,
    ROWS = THREADS / LANES,
    AHEAD = 2 /* rows of a thread in flight: the compiler may not load past a store by itself */
};

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + __expf(-x)); /* -x past 88: exp is inf, the result 0 */
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_forward_kernel(T *out, const T *gate_up, size_t rows, size_t F)
{
    size_t c = ((size_t)blockIdx.x * LANES + threadIdx.x % LANES) * W;
    size_t step = (size_t)gridDim.y * ROWS, t = (size_t)blockIdx.y * ROWS + threadIdx.x / LANES;
    if (c >= F)
        return;
    for (; t < rows; t += AHEAD * step) {
        fc_vec<T, W> g[AHEAD], u[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (t + a * step < rows) {
                const T *at = gate_up + (t + a * step) * 2 * F + c;
                g[a] = fc_load<W>(at);
                u[a] = fc_load<W>(at + F);
            }
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (t + a * step < rows) {
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float x = fc_to_float(g[a].v[k]);
                    g[a].v[k] = fc_from_float<T>(x * sigmoid(x) * fc_to_float(u[a].v[k]));
                }
                fc_store<W>(out + (t + a * step) * F + c, g[a]);
            }
    }
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_backward_kernel(T *dgate_up, const T *dout, const T *gate_up, size_t rows, size_t F)
{
    size_t c = ((size_t)blockIdx.x * LANES + threadIdx.x % LANES) * W;
    size_t step = (size_t)gridDim.y * ROWS, t = (size_t)blockIdx.y * ROWS + threadIdx.x / LANES;
    if (c >= F)
        return;
    for (; t < rows; t += AHEAD * step) {
        fc_vec<T, W> g[AHEAD], u[AHEAD], d[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (t + a * step < rows) {
                const T *at = gate_up + (t + a * step) * 2 * F + c;
                g[a] = fc_load<W>(at);
                u[a] = fc_load<W>(at + F);
                d[a] = fc_load<W>(dout + (t + a * step) * F + c);
            }
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (t + a * step < rows) {
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float x = fc_to_float(g[a].v[k]), up = fc_to_float(u[a].v[k]);
                    float dy = fc_to_float(d[a].v[k]), p = sigmoid(x);
                    g[a].v[k] = fc_from_float<T>(dy * up * (p + x * p * (1.0f - p)));
                    u[a].v[k] = fc_from_float<T>(dy * x * p);
                }
                T *to = dgate_up + (t + a * step) * 2 * F + c;
                fc_store<W>(to, g[a]);
                fc_store<W>(to + F, u[a]);
            }
    }
}

/* Columns in x, rows in y; a block row walks over several rows when there are many. */
template <int W> static dim3 grid_of(size_t T, size_t F)
{
    return dim3((unsigned)fc_cuda_blocks(F, LANES * W),
                (unsigned)fc_cuda_min(fc_cuda_blocks(T, 4 * ROWS), 65535));
}

void fc_cuda_swiglu_forward(struct fc_stream *s, void *out, const void *gate_up, size_t T, size_t F,
                            enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * F == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = fc_vec<E>::N;
        auto *y = static_cast<E *>(out);
        auto *x = static_cast<const E *>(gate_up);
        if (fc_cuda_vectors<W, E>(F, out, gate_up))
            FC_LAUNCH(s, (swiglu_forward_kernel<E, W>), grid_of<W>(T, F), THREADS, 0, y, x, T, F);
        else
            FC_LAUNCH(s, (swiglu_forward_kernel<E, 1>), grid_of<1>(T, F), THREADS, 0, y, x, T, F);
    });
}

void fc_cuda_swiglu_backward(struct fc_stream *s, void *dgate_up, const void *dout,
                             const void *gate_up, size_t T, size_t F, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T * F == 0)
        return;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = fc_vec<E>::N;
        auto *dx = static_cast<E *>(dgate_up);
        auto *dy = static_cast<const E *>(dout);
        auto *x = static_cast<const E *>(gate_up);
        if (fc_cuda_vectors<W, E>(F, dgate_up, dout, gate_up))
            FC_LAUNCH(s, (swiglu_backward_kernel<E, W>), grid_of<W>(T, F), THREADS, 0, dx, dy, x, T,
                      F);
        else
            FC_LAUNCH(s, (swiglu_backward_kernel<E, 1>), grid_of<1>(T, F), THREADS, 0, dx, dy, x, T,
                      F);
    });
}

/* ---- without a gate -------------------------------------------------------------------------- */

enum { PARTS = 4 }; /* vectors of a thread, all in flight at once */

__device__ __forceinline__ float tanh_argument(float x)
{
    return 0.79788456f * (x + 0.044715f * x * x * x); /* sqrt(2 / pi) */
}

template <enum fc_ungated F> __device__ __forceinline__ float apply(float x)
{
    if (F == FC_RELU)
        return x > 0 ? x : 0;
    return 0.5f * x * (1.0f + (F == FC_GELU ? erff(x * 0.70710678f) : tanhf(tanh_argument(x))));
}

template <enum fc_ungated F> __device__ __forceinline__ float slope(float x)
{
    if (F == FC_RELU)
        return x > 0 ? 1 : 0;
    if (F == FC_GELU)
        return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * __expf(-0.5f * x * x);
    float t = tanhf(tanh_argument(x));
    return 0.5f * (1.0f + t) +
           0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 3.0f * 0.044715f * x * x);
}

/* out = dout ? dout * slope(in) : apply(in). */
template <typename T, int W, enum fc_ungated F, bool BACKWARD>
__global__ void __launch_bounds__(THREADS)
    ungated_kernel(T *out, const T *dout, const T *in, size_t n)
{
    size_t first = ((size_t)blockIdx.x * PARTS * THREADS + threadIdx.x) * W;
    fc_vec<T, W> x[PARTS], d[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (first + (size_t)(p * THREADS * W) < n) {
            x[p] = fc_load<W>(in + first + p * THREADS * W);
            if (BACKWARD)
                d[p] = fc_load<W>(dout + first + p * THREADS * W);
        }
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (first + (size_t)(p * THREADS * W) < n) {
#pragma unroll
            for (int k = 0; k < W; k++) {
                float v = fc_to_float(x[p].v[k]);
                v = BACKWARD ? fc_to_float(d[p].v[k]) * slope<F>(v) : apply<F>(v);
                x[p].v[k] = fc_from_float<T>(v);
            }
            fc_store<W>(out + first + p * THREADS * W, x[p]);
        }
}

template <typename T, int W, enum fc_ungated F>
static void launch_ungated(struct fc_stream *s, T *out, const T *dout, const T *in, size_t n)
{
    unsigned grid = (unsigned)fc_cuda_blocks(n, PARTS * THREADS * W);
    if (n && dout)
        FC_LAUNCH(s, (ungated_kernel<T, W, F, true>), grid, THREADS, 0, out, dout, in, n);
    else if (n)
        FC_LAUNCH(s, (ungated_kernel<T, W, F, false>), grid, THREADS, 0, out, dout, in, n);
}

/* Vectors, then what is left of the last one. dout NULL: forward. */
template <enum fc_ungated F>
static void ungated(struct fc_stream *s, void *out, const void *dout, const void *in, size_t n,
                    enum fc_dtype dt)
{
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        constexpr int W = fc_vec<E>::N;
        auto *y = static_cast<E *>(out);
        auto *dy = static_cast<const E *>(dout), *x = static_cast<const E *>(in);
        size_t whole = fc_cuda_vectors<W, E>(0, out, dout, in) ? n - n % W : 0;
        launch_ungated<E, W, F>(s, y, dy, x, whole);
        launch_ungated<E, 1, F>(s, y + whole, dy ? dy + whole : nullptr, x + whole, n - whole);
    });
}

static void ungated_by_name(struct fc_stream *s, void *out, const void *dout, const void *in,
                            enum fc_ungated f, size_t n, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s))
        return;
    if (f == FC_GELU)
        ungated<FC_GELU>(s, out, dout, in, n, dt);
    else if (f == FC_GELU_TANH)
        ungated<FC_GELU_TANH>(s, out, dout, in, n, dt);
    else
        ungated<FC_RELU>(s, out, dout, in, n, dt);
}

void fc_cuda_ungated_forward(struct fc_stream *s, void *out, const void *in, enum fc_ungated f,
                             size_t n, enum fc_dtype dt)
{
    ungated_by_name(s, out, nullptr, in, f, n, dt);
}

void fc_cuda_ungated_backward(struct fc_stream *s, void *din, const void *dout, const void *in,
                              enum fc_ungated f, size_t n, enum fc_dtype dt)
{
    ungated_by_name(s, din, dout, in, f, n, dt);
}
