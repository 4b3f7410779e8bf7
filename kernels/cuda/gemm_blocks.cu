/* Our own product, for what cuBLASLt refuses: any type, transposition, distance and alignment.
 *
 * A block of 256 threads computes a tile of 64 x 64, 16 steps of k at a time: both operands are
 * widened to fp32 in shared memory, and each thread keeps 4 x 4 sums in registers. Every element is
 * one chain of fused multiply-adds over ascending k, whatever m, n and its place.
 *
 * Floor: 2 m n k FLOPs on the fp32 units, not tensor cores; operands are read (m k n / 64 + n k m /
 * 64) elements. Two shared loads per multiply-add bound it at about a quarter of the fp32 peak: a
 * fallback, not a fast path. Shared rows are 66 floats apart: stores along k touch banks 2 p + i,
 * all different, and loads are broadcasts (a) or consecutive (b). */
#include "kernels/cuda/launch.cuh"

enum { TILE = 64, STEP = 16, THREADS = 256, LD = TILE + 2, EACH = 4, GROUP = TILE / EACH };

/* One operand: element (i, p) lies at i * outer + p * inner; i below `count`, p along k. */
struct operand {
    const void *p;
    size_t outer, inner, count;
};

struct problem {
    struct operand a, b;
    const void *bias;
    void *y;
    size_t m, n, k, ldy, tiles_n;
    bool accumulate;
};

/* to[p][i] = elements (first + i, at + p), zero outside. Neighbouring threads read neighbours. */
template <typename T>
__device__ __forceinline__ void fill(float (*to)[LD], const struct operand &o, size_t first,
                                     size_t at, size_t k)
{
    const T *from = static_cast<const T *>(o.p);
#pragma unroll
    for (int r = 0; r < TILE * STEP / THREADS; r++) {
        int e = (int)threadIdx.x + r * THREADS;
        int p = o.inner == 1 ? e % STEP : e / TILE, i = o.inner == 1 ? e / STEP : e % TILE;
        bool inside = first + (size_t)i < o.count && at + (size_t)p < k;
        size_t offset = (first + (size_t)i) * o.outer + (at + (size_t)p) * o.inner;
        to[p][i] = inside ? fc_to_float(from[offset]) : 0.0f;
    }
}

template <typename T, typename Y>
__device__ __forceinline__ void put(const struct problem &g, float sum, size_t i, size_t j)
{
    if (i >= g.m || j >= g.n)
        return;
    Y *y = static_cast<Y *>(g.y) + i * g.ldy + j;
    if (g.bias)
        sum += fc_to_float(static_cast<const T *>(g.bias)[j]);
    if (g.accumulate)
        sum += fc_to_float(*y);
    *y = fc_from_float<Y>(sum);
}

template <typename T, typename Y>
__global__ void __launch_bounds__(THREADS) gemm_blocks(struct problem g)
{
    __shared__ float a[STEP][LD], b[STEP][LD];
    size_t row = blockIdx.x / g.tiles_n * TILE, column = blockIdx.x % g.tiles_n * TILE;
    int ti = (int)threadIdx.x / GROUP, tj = (int)threadIdx.x % GROUP;
    float sum[EACH][EACH] = {};
    for (size_t p = 0; p < g.k; p += STEP) {
        fill<T>(a, g.a, row, p, g.k);
        fill<T>(b, g.b, column, p, g.k);
        __syncthreads();
#pragma unroll
        for (int q = 0; q < STEP; q++) {
            float x[EACH], w[EACH];
#pragma unroll
            for (int r = 0; r < EACH; r++) {
                x[r] = a[q][ti + r * GROUP];
                w[r] = b[q][tj + r * GROUP];
            }
#pragma unroll
            for (int r = 0; r < EACH; r++)
#pragma unroll
                for (int c = 0; c < EACH; c++)
                    sum[r][c] = fmaf(x[r], w[c], sum[r][c]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < EACH; r++)
#pragma unroll
        for (int c = 0; c < EACH; c++)
            put<T, Y>(g, sum[r][c], row + (size_t)(ti + r * GROUP),
                      column + (size_t)(tj + c * GROUP));
}

void fc_cuda_gemm_blocks(struct fc_stream *s, const struct fc_gemm *g)
{
    if (!fc_cuda_ok(s))
        return;
    size_t tiles_n = fc_cuda_blocks(g->n, TILE), tiles = fc_cuda_blocks(g->m, TILE) * tiles_n;
    if (tiles > 0x7fffffff) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED, "gemm: %zu x %zu is more than one launch can hold",
                g->m, g->n);
        return;
    }
    struct problem p = {{g->a, g->trans_a ? 1 : g->lda, g->trans_a ? g->lda : 1, g->m},
                        {g->b, g->trans_b ? g->ldb : 1, g->trans_b ? 1 : g->ldb, g->n},
                        g->bias,
                        g->y,
                        g->m,
                        g->n,
                        g->k,
                        g->ldy,
                        tiles_n,
                        g->accumulate};
    fc_cuda_by_type(g->type, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        if (g->y_type == FC_F32)
            FC_LAUNCH(s, (gemm_blocks<T, float>), (unsigned)tiles, THREADS, 0, p);
        else
            FC_LAUNCH(s, (gemm_blocks<T, T>), (unsigned)tiles, THREADS, 0, p);
    });
}
