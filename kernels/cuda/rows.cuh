/* What the row-wise kernels of the CUDA back end share. */
#ifndef FC_KERNELS_CUDA_ROWS_CUH
#define FC_KERNELS_CUDA_ROWS_CUH

#include "kernels/cuda/launch.cuh"

static inline size_t fc_cuda_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* to[n] += slices[n_slices, n], summed over the slices in a fixed order. rows.cu. */
void fc_cuda_add_slices(struct fc_stream *s, float *to, const float *slices, size_t n_slices,
                        size_t n);

/* Whether rows of `width` elements of T that start at each of the pointers can be moved W elements
 * at a time. */
template <int W, typename T, typename... Pointers>
static inline bool fc_cuda_vectors(size_t width, const Pointers *...p)
{
    return width % W == 0 && (fc_cuda_aligned(p, W * sizeof(T)) && ...);
}

/* A grid over n pieces of work that walks with its own stride: never more blocks than keep the
 * device full, never more than the work. */
static inline unsigned fc_cuda_grid(const struct fc_stream *s, size_t n, size_t per_block,
                                    size_t blocks_per_sm)
{
    return (unsigned)fc_cuda_min(fc_cuda_blocks(n, per_block), (size_t)s->sms * blocks_per_sm);
}

#endif
