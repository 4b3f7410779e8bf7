/* What the attention kernels share: the shape of a call, and the way from a block to its rows.
 *
 * Which sequences there are is host memory (kernels.h), so it travels in the launch's parameters:
 * nothing is staged, nothing can change under a copy in flight, and a captured graph holds it by
 * value. 4 KB of parameters hold FC_SEQUENCES sequences; more take more launches.
 */
#ifndef FC_KERNELS_CUDA_ATTENTION_CUH
#define FC_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/launch.cuh"

#include <type_traits>

enum {
    FC_SEQUENCES = 896,          /* in one launch */
    FC_ATTENTION_MAX_HS = 256,   /* of the plain kernels, which take every head size below */
    FC_PAGED_SPLIT = 256,        /* keys of one softmax of paged attention, from the first on */
    FC_PAGED_SCRATCH = 32 << 20, /* bytes for the parts of split rows, taken at stream_open */
    FC_ATTENTION_ALIGNMENT = 16  /* of what the 16-bit kernels copy: one cp.async */
};

#define FC_LOG2E 1.4426950408889634f
#define FC_LN2 0.6931471805599453f

struct fc_attention_shape {
    int nh, nkv, group, hs;
    float scale;       /* of q.k */
    float scale_log2;  /* the same times log2(e): the softmax runs in powers of two */
    size_t width, out; /* elements of a row of qkv, and of the output */
};

/* The shape of h; false with an error in the stream where no kernel takes it. */
bool fc_cuda_attention_shape(struct fc_stream *s, struct fc_attention_shape *x,
                             const struct fc_heads *h);

struct fc_sequences {
    int32_t n, starts[FC_SEQUENCES + 1];
};

/* One launch's part of a call: `seqs` and what the kernels read and write. */
struct fc_attention_call {
    struct fc_attention_shape shape;
    const void *qkv, *dout;
    void *out, *dqkv;
    float *lse, *delta; /* [T, nh]; delta = rowsum(dout * out) */
};

/* Blocks of `rows` rows of the sequences in s, one spare per sequence at most: those of sequence b
 * are numbered from (starts[b] - starts[0]) / rows + b, which needs no table of its own. */
__host__ __device__ __forceinline__ int fc_first_block(const struct fc_sequences &s, int b,
                                                       int rows)
{
    return (s.starts[b] - s.starts[0]) / rows + b;
}

struct fc_block_rows {
    int start;  /* first row of the sequence */
    int length; /* of the sequence */
    int first;  /* position in the sequence of the block's first row; not below length: no rows */
};

__device__ __forceinline__ struct fc_block_rows fc_rows_of_block(const struct fc_sequences &s,
                                                                 int block, int rows)
{
    int low = 0, high = s.n - 1; /* the last sequence whose first block is not behind `block` */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (fc_first_block(s, middle, rows) <= block)
            low = middle;
        else
            high = middle - 1;
    }
    return {s.starts[low], s.starts[low + 1] - s.starts[low],
            (block - fc_first_block(s, low, rows)) * rows};
}

/* Paged attention, as its kernels see it. Parts of rows longer than FC_PAGED_SPLIT are put by
 * [row of the launch][query head][split]: the values weighted by exp2(score - max), then max (in
 * powers of two) and the sum of the weights. */
struct fc_paged_call {
    struct fc_attention_shape shape;
    const void *qkv, *keys, *values;
    void *out;
    const int32_t *tables, *lengths;
    size_t table_width, page_size;
    size_t first_row, rows; /* of this launch */
    int splits;             /* places for parts in a row */
    float *part_o;          /* [rows, nh, splits, hs] */
    float2 *part_sum;       /* [rows, nh, splits]: max, sum */
};

/* The tensor-core kernels: false where they have no such dtype or head size. Rows and pointers must
 * be FC_ATTENTION_ALIGNMENT bytes aligned. */
bool fc_cuda_attention_forward_mma(struct fc_stream *s, const struct fc_attention_call *c,
                                   const struct fc_sequences *seqs, enum fc_dtype dt);
bool fc_cuda_attention_backward_mma(struct fc_stream *s, const struct fc_attention_call *c,
                                    const struct fc_sequences *seqs, enum fc_dtype dt);
bool fc_cuda_paged_mma(struct fc_stream *s, const struct fc_paged_call *c, enum fc_dtype dt);

/* The plain kernels: any dtype, any head size up to FC_ATTENTION_MAX_HS. */
void fc_cuda_attention_forward_plain(struct fc_stream *s, const struct fc_attention_call *c,
                                     const struct fc_sequences *seqs, enum fc_dtype dt);
void fc_cuda_attention_backward_plain(struct fc_stream *s, const struct fc_attention_call *c,
                                      const struct fc_sequences *seqs, enum fc_dtype dt);
void fc_cuda_paged_plain(struct fc_stream *s, const struct fc_paged_call *c, enum fc_dtype dt);

#endif
