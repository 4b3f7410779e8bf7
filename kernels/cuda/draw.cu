/* The exact draw of the privacy mechanisms: the twin of kernels/cpu/draw.c, which explains it.
 *
 * Floor: 4 depth bytes read a row and 16 of randomness; depth log2(depth)^2 / 4 exchanges of the
 * sorting network. One block works on one row; top is sorted in shared memory up to a depth of
 * 4,096, else in the scratch. Branches and addresses depend on the shape alone. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/sort.cuh"

#include <climits>

enum { THREADS = 128, SORTED_IN_SHARED = 4096, QUOTIENT_BITS = 24 /* V < 2^24 */ };

typedef unsigned __int128 u128;

struct draw_how {
    fc_draw_level levels[FC_DRAW_LEVELS];
    uint32_t n_levels, depth, V, call;
};

/* Both are written whatever the order. */
struct indices {
    int32_t *t;

    __device__ __forceinline__ void order(uint32_t i, uint32_t j)
    {
        int32_t a = t[i], b = t[j];
        t[i] = min(a, b);
        t[j] = max(a, b);
    }
};

/* The rank on which u falls; every level and every bit is gone through. */
__device__ __forceinline__ uint32_t rank_of(const draw_how &how, u128 u)
{
    uint32_t rank = 0, first = 0;
    u128 start = 0;
    for (uint32_t l = 0; l < how.n_levels; l++) {
        u128 weight = how.levels[l].weight, end = start + weight * how.levels[l].n;
        u128 left = u - start; /* of no meaning in other levels, and then not taken */
        uint32_t quotient = 0;
        for (int bit = QUOTIENT_BITS - 1; bit >= 0; bit--) {
            uint32_t fits = left >= weight << bit;
            left -= fits ? weight << bit : 0;
            quotient |= fits << bit;
        }
        rank |= (u >= start) & (u < end) ? first + quotient : 0;
        first += (uint32_t)how.levels[l].n;
        start = end;
    }
    return rank;
}

__global__ void __launch_bounds__(THREADS, 8)
    draw_rows(int32_t *out, const int32_t *top, const uint64_t *u, int32_t *scratch,
              const __grid_constant__ draw_how how, unsigned long long *broken)
{
    __shared__ int32_t sorted_here[SORTED_IN_SHARED];
    size_t row = blockIdx.x;
    int32_t *sorted = how.depth <= SORTED_IN_SHARED ? sorted_here : scratch + row * how.depth;
    uint32_t rank = rank_of(how, (u128)u[2 * row + 1] << 64 | u[2 * row]);
    int32_t named = 0, bad = 0, rest = (int32_t)(rank - how.depth), skipped = 0;
    top += row * how.depth;
    for (uint32_t i = threadIdx.x; i < how.depth; i += THREADS) {
        int32_t t = top[i];
        bad |= (uint32_t)t >= how.V;
        named |= i == rank ? t : 0;
        sorted[i] = t;
    }
    fc_sort_places<THREADS>(indices{sorted}, how.depth);
    for (uint32_t i = threadIdx.x; i < how.depth; i += THREADS) {
        bad |= (i > 0) & (sorted[i] == sorted[i - (i > 0)]);
        skipped += (int64_t)sorted[i] - i <= rest;
    }
    __shared__ int32_t partial[3][THREADS / 32];
    int warp = (int)threadIdx.x / 32;
    named = (int32_t)__reduce_or_sync(0xffffffffu, (unsigned)named);
    bad = (int32_t)__reduce_or_sync(0xffffffffu, (unsigned)bad);
    skipped = __reduce_add_sync(0xffffffffu, skipped);
    if (threadIdx.x % 32 == 0) {
        partial[0][warp] = named;
        partial[1][warp] = bad;
        partial[2][warp] = skipped;
    }
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int w = 1; w < THREADS / 32; w++) {
        named |= partial[0][w];
        bad |= partial[1][w];
        skipped += partial[2][w];
    }
    out[row] = bad ? -1 : rank < how.depth ? named : rest + skipped;
    if (bad)
        atomicMin(broken, (unsigned long long)how.call << 32 | row);
}

void fc_cuda_draw(struct fc_stream *s, int32_t *out, const int32_t *top, const uint64_t *u,
                  int32_t *scratch, const struct fc_draw *how, size_t n)
{
    if (!fc_cuda_ok(s) || n == 0)
        return;
    draw_how launch = {};
    for (size_t l = 0; l < how->n_levels; l++)
        launch.levels[l] = how->levels[l];
    launch.n_levels = (uint32_t)how->n_levels;
    launch.depth = (uint32_t)how->depth;
    launch.V = (uint32_t)how->V;
    launch.call = s->row_calls++;
    FC_LAUNCH(s, draw_rows, (unsigned)n, THREADS, 0, out, top, u, scratch, launch,
              &s->broken_rows[FC_BROKEN_RANKING]);
}
