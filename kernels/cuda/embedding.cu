/* Token embedding: rows of a table by id, and their gradient.
 *
 * Floor: forward reads and writes T C elements, no FLOPs. Backward reads T C elements and reads and
 * writes C floats per distinct id (it accumulates), 1 FLOP per element of dout; ranking the ids
 * takes T^2 comparisons, which for 4,096 tokens is 1 % of the SMs' integer work in the time that
 * the addition needs from memory.
 *
 * Backward sums all rows of one id in the order of t, without atomics. Token t goes to place
 * #{u : (ids[u], u) < (ids[t], t)}: one thread counts for one token, the ids passing through shared
 * memory, and the first place of a run of equal ids learns the run's length. Then a warp adds a
 * tile of columns of a whole run, the columns of dtable staying in registers. */
#include "kernels/cuda/rows.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    W = 4,     /* columns moved at once: dtable's four are 16 bytes */
    PARTS = 4, /* such vectors of a lane */
    AHEAD = 4  /* rows in flight */
};

void fc_cuda_embed_forward(struct fc_stream *s, void *out, const void *table, const int32_t *ids,
                           size_t T, size_t C, enum fc_dtype dt)
{
    fc_cuda_gather_rows(s, out, table, ids, T, C, dt);
}

/* order[place] = t; runs[place] = the length of the run that starts there, 0 within a run. */
__global__ void __launch_bounds__(THREADS)
    embed_rank_kernel(int32_t *order, int32_t *runs, const int32_t *ids, int T)
{
    __shared__ int32_t tile[THREADS];
    int t = (int)(blockIdx.x * THREADS + threadIdx.x), less = 0, before = 0, equal = 0;
    int32_t id = t < T ? ids[t] : 0;
    for (int first = 0; first < T; first += THREADS) {
        int u = first + (int)threadIdx.x, n = min((int)THREADS, T - first);
        if (u < T)
            tile[threadIdx.x] = ids[u];
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < n; k++) {
            bool same = tile[k] == id;
            less += tile[k] < id;
            equal += same;
            before += same && first + k < t;
        }
        __syncthreads();
    }
    if (t < T) {
        order[less + before] = t;
        runs[less + before] = before == 0 ? equal : 0;
    }
}

/* Adds `n` rows, order[0..n), to a lane's columns, in order. */
template <typename T, int N, int ROWS>
__device__ __forceinline__ void add_rows(fc_vec<float, N> (&sum)[PARTS], const T *dout,
                                         const int32_t *order, size_t c, size_t C)
{
    fc_vec<T, N> x[ROWS][PARTS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const T *row = dout + (size_t)order[r] * C;
#pragma unroll
        for (int p = 0; p < PARTS; p++)
            if (c + (size_t)(p * 32 * N) < C)
                x[r][p] = fc_load<N>(row + c + p * 32 * N);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int p = 0; p < PARTS; p++)
            if (c + (size_t)(p * 32 * N) < C)
#pragma unroll
                for (int k = 0; k < N; k++)
                    sum[p].v[k] += fc_to_float(x[r][p].v[k]);
}

template <typename T, int N>
__global__ void __launch_bounds__(THREADS)
    embed_add_kernel(float *dtable, const T *dout, const int32_t *ids, const int32_t *order,
                     const int32_t *runs, int rows, size_t C)
{
    int i = (int)(blockIdx.x * WARPS + threadIdx.x / 32);
    int run = i < rows ? runs[i] : 0;
    if (run == 0)
        return;
    size_t c = ((size_t)blockIdx.y * (32 * PARTS) + threadIdx.x % 32) * N;
    order += i;
    float *to = dtable + (size_t)ids[order[0]] * C;
    fc_vec<float, N> sum[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (c + (size_t)(p * 32 * N) < C)
            sum[p] = fc_load<N>(to + c + p * 32 * N);
    int j = 0;
    for (; j + AHEAD <= run; j += AHEAD)
        add_rows<T, N, AHEAD>(sum, dout, order + j, c, C);
    for (; j < run; j++)
        add_rows<T, N, 1>(sum, dout, order + j, c, C);
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (c + (size_t)(p * 32 * N) < C)
            fc_store<N>(to + c + p * 32 * N, sum[p]);
}

template <typename T, int N>
static void embed_add(struct fc_stream *s, float *dtable, const T *dout, const int32_t *ids,
                      const int32_t *scratch, size_t rows, size_t C)
{
    dim3 grid((unsigned)fc_cuda_blocks(rows, WARPS), (unsigned)fc_cuda_blocks(C, 32 * PARTS * N));
    FC_LAUNCH(s, (embed_add_kernel<T, N>), grid, THREADS, 0, dtable, dout, ids, scratch,
              scratch + rows, (int)rows, C);
}

void fc_cuda_embed_backward(struct fc_stream *s, float *dtable, const void *dout,
                            const int32_t *ids, int32_t *scratch, size_t T, size_t C, size_t V,
                            enum fc_dtype dt)
{
    (void)V;
    if (!fc_cuda_ok(s) || T * C == 0)
        return;
    FC_LAUNCH(s, embed_rank_kernel, (unsigned)fc_cuda_blocks(T, THREADS), THREADS, 0, scratch,
              scratch + T, ids, (int)T);
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        auto *dy = static_cast<const E *>(dout);
        bool wide = fc_cuda_vectors<W, E>(C, dout) && fc_cuda_aligned(dtable, W * sizeof(float));
        if (wide)
            embed_add<E, W>(s, dtable, dy, ids, scratch, T, C);
        else
            embed_add<E, 1>(s, dtable, dy, ids, scratch, T, C);
    });
}
