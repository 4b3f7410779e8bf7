/* Private to the matrix products of the CUDA back end: gemm.cu (the entries), plans.cu (one product
 * in cuBLASLt's words), algorithms.cu (which of its algorithms), gemm_blocks.cu (our own kernel),
 * fp8.cu.
 *
 * Row-major is handled in one place, plans.cu. cuBLASLt is column-major, and a row-major [r,c] with
 * rows ld apart is a column-major [c,r] with columns ld apart. So y = op(a) op(b) is computed as
 * y^T = op(b)^T op(a)^T: cuBLASLt's A is our b, its B our a, its m our n. */
#ifndef FC_KERNELS_CUDA_PRODUCTS_CUH
#define FC_KERNELS_CUDA_PRODUCTS_CUH

#include "kernels/cuda/algorithm_file.h"
#include "kernels/cuda/launch.cuh"

#include <cublasLt.h>

enum {
    FC_CUDA_PLANS = 1024,     /* prepared products of a stream: 0.7 KB each */
    FC_CUDA_MAX_ALIGN = 64,   /* promised to cuBLASLt at most: what arenas give */
    FC_CUDA_PACKED_ALIGN = 16 /* of every row of packed weights and of their padded blocks */
};

/* What distinguishes one product from another. 64-bit fields only: compared and hashed as bytes. */
struct fc_cuda_shape {
    uint64_t m, n, k, lda, ldb, ldy;
    uint64_t trans_a, trans_b, beta, bias, type, y_type, fp8; /* beta: y is added */
    uint64_t align_a, align_b, align_y;                       /* bytes, powers of two */
};

/* A product ready to run: only pointers are missing. Plain data, valid for every stream of the same
 * device. */
struct fc_cuda_plan {
    struct fc_cuda_shape shape; /* m 0: empty */
    bool blocks;                /* cuBLASLt refuses it: gemm_blocks.cu */
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, y;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
};

/* The pointers of one product. scale_a, scale_b: device fp32, for fp8 only. */
struct fc_cuda_operands {
    const void *a, *b, *bias;
    const float *scale_a, *scale_b;
    void *y;
};

struct fc_cuda_pad {
    struct fc_cuda_pad *next; /* smaller ones: recorded graphs may still name them */
    void *p;
    size_t bytes;
};

struct fc_cuda_products {
    cublasLtHandle_t lt;
    void *workspace; /* FC_CUDA_WORKSPACE bytes */
    struct fc_algorithms *algorithms;
    struct fc_cuda_pad *pads; /* padded blocks of gemm_packed, largest first */
    struct fc_cuda_plan plans[FC_CUDA_PLANS];
};

/* NVIDIA's advice for Hopper; 4 MiB would do for older ones. */
constexpr size_t FC_CUDA_WORKSPACE = (size_t)32 << 20;

/* Keeps the error of a cuBLASLt call in the stream, like fc_cuda_check. */
bool fc_cuda_lt_check(struct fc_stream *s, cublasStatus_t code, const char *what, const char *file,
                      int line);
#define FC_LT(s, call) fc_cuda_lt_check(s, call, #call, __FILE__, __LINE__)

/* plans.cu: the plan of a product on these operands, from the stream's table or new; NULL: error in
 * the stream. It stays valid until the next call. */
const struct fc_cuda_plan *fc_cuda_plan_for(struct fc_stream *s, const struct fc_cuda_shape *shape,
                                            const struct fc_cuda_operands *o);
/* A plan outside the table. Operands are needed where the algorithm is chosen by timing: y is
 * overwritten then, unless shape->beta. */
bool fc_cuda_plan_make(struct fc_stream *s, struct fc_cuda_plan *p,
                       const struct fc_cuda_shape *shape, const struct fc_cuda_operands *o);
/* Runs a plan that is not `blocks`. */
bool fc_cuda_plan_run(struct fc_stream *s, const struct fc_cuda_plan *p,
                      const struct fc_cuda_operands *o);
/* Most workspace that a product may use. */
size_t fc_cuda_plan_workspace(const struct fc_cuda_shape *shape);

/* gemm.cu: what fc_gemm asks for, without fp8; and y = the bias in every row. */
struct fc_cuda_shape fc_cuda_shape_of(const struct fc_gemm *g);
void fc_cuda_fill_with_bias(struct fc_stream *s, const struct fc_gemm *g);

/* algorithms.cu: fills p->algorithm and p->workspace, or sets p->blocks. False: error in the
 * stream.
 */
bool fc_cuda_choose(struct fc_stream *s, struct fc_cuda_plan *p, const struct fc_cuda_operands *o);

/* Largest power of two up to FC_CUDA_MAX_ALIGN that divides the address. */
static inline uint64_t fc_cuda_alignment(const void *p)
{
    uint64_t a = (uint64_t)(uintptr_t)p | FC_CUDA_MAX_ALIGN;
    return a & (~a + 1);
}

#endif
