/* A sorting network over n places, for one block. */
#ifndef FC_KERNELS_CUDA_SORT_CUH
#define FC_KERNELS_CUDA_SORT_CUH

#include <cstdint>

/* Calls places.order(i, j), i < j, which puts the smaller of the two first, for log2(n)^2 / 2 steps
 * of about n / 2 pairs: which pairs depends on n alone. Every exchange moves the larger to the
 * higher index, so the network of the next power of two serves any n: what would lie behind the end
 * is never moved. Begins and ends with a barrier. */
template <int THREADS, typename Places>
__device__ __forceinline__ void fc_sort_places(Places places, uint32_t n)
{
    for (uint32_t size = 2; size / 2 < n; size *= 2) {
        for (uint32_t half = size / 2; half > 0; half /= 2) {
            uint32_t pairs = (n + 2 * half - 1) / (2 * half) * half;
            __syncthreads();
            for (uint32_t t = threadIdx.x; t < pairs; t += THREADS) {
                uint32_t within = t & (half - 1), first = 2 * (t - within);
                /* the first step of a merge compares mirror images */
                uint32_t i = first + within;
                uint32_t j = half == size / 2 ? first + size - 1 - within : i + half;
                if (j < n)
                    places.order(i, j);
            }
        }
    }
    __syncthreads();
}

#endif
