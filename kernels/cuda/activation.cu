/* SwiGLU and its gradient.
 *
 * Floor per output element: forward reads 2 and writes 1, about 10 FLOPs and one exp; backward
 * reads 3 and writes 2, about 16 FLOPs and one exp. Memory decides on every device. All outputs are
 * overwritten.
 *
 * A thread owns W adjacent columns (16 bytes; 1 on the scalar path) and walks down the rows, so no
 * index is divided. */
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256, LANES = 32, ROWS = THREADS / LANES };

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + __expf(-x)); /* -x past 88: exp is inf, the result 0 */
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_forward_kernel(T *out, const T *gate_up, size_t rows, size_t F)
{
    size_t c = ((size_t)blockIdx.x * LANES + threadIdx.x % LANES) * W;
    if (c >= F)
        return;
#pragma unroll 4
    for (size_t t = (size_t)blockIdx.y * ROWS + threadIdx.x / LANES; t < rows;
         t += (size_t)gridDim.y * ROWS) {
        fc_vec<T, W> g = fc_load<W>(gate_up + t * 2 * F + c);
        fc_vec<T, W> u = fc_load<W>(gate_up + t * 2 * F + F + c);
#pragma unroll
        for (int k = 0; k < W; k++) {
            float x = fc_to_float(g.v[k]);
            u.v[k] = fc_from_float<T>(x * sigmoid(x) * fc_to_float(u.v[k]));
        }
        fc_store<W>(out + t * F + c, u);
    }
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_backward_kernel(T *dgate_up, const T *dout, const T *gate_up, size_t rows, size_t F)
{
    size_t c = ((size_t)blockIdx.x * LANES + threadIdx.x % LANES) * W;
    if (c >= F)
        return;
#pragma unroll 2
    for (size_t t = (size_t)blockIdx.y * ROWS + threadIdx.x / LANES; t < rows;
         t += (size_t)gridDim.y * ROWS) {
        size_t at = t * 2 * F + c;
        fc_vec<T, W> g = fc_load<W>(gate_up + at), u = fc_load<W>(gate_up + at + F);
        fc_vec<T, W> d = fc_load<W>(dout + t * F + c);
#pragma unroll
        for (int k = 0; k < W; k++) {
            float x = fc_to_float(g.v[k]), up = fc_to_float(u.v[k]), dy = fc_to_float(d.v[k]);
            float p = sigmoid(x);
            g.v[k] = fc_from_float<T>(dy * up * (p + x * p * (1.0f - p)));
            u.v[k] = fc_from_float<T>(dy * x * p);
        }
        fc_store<W>(dgate_up + at, g);
        fc_store<W>(dgate_up + at + F, u);
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
