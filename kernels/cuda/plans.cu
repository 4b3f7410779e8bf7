/* One product in cuBLASLt's words, and the table of those that a stream has run.
 *
 * Preparing a product (descriptors, heuristic) takes some 20 us on the host, running one 3 us, and
 * a training step has a few hundred of some twenty shapes: hence the table. It is direct-mapped:
 * two shapes on the same place evict each other, which costs time, never correctness.
 *
 * bf16 and fp16 multiply on tensor cores with fp32 sums; fp32 uses CUBLAS_COMPUTE_32F, which never
 * rounds its operands to TF32. */
#include "kernels/cuda/products.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>

bool fc_cuda_lt_check(struct fc_stream *s, cublasStatus_t code, const char *what, const char *file,
                      int line)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return true;
    const char *base = strrchr(file, '/');
    fc_fail(&s->error, code == CUBLAS_STATUS_ALLOC_FAILED ? FC_ERR_MEMORY : FC_ERR_INTERNAL,
            "CUDA device %d: %.120s failed at %s:%d: %s", s->device, what, base ? base + 1 : file,
            line, cublasLtGetStatusName(code));
    return false;
}

static cudaDataType_t data_type(uint64_t dt)
{
    return dt == FC_F32 ? CUDA_R_32F : dt == FC_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

size_t fc_cuda_plan_workspace(const struct fc_cuda_shape *shape)
{
    /* Algorithms that split k keep up to this many partial results in the workspace. */
    const size_t parts = 16, least = (size_t)1 << 20;
    size_t rows = shape->m < FC_CUDA_WORKSPACE ? shape->m : FC_CUDA_WORKSPACE;
    size_t columns = shape->n < FC_CUDA_WORKSPACE ? shape->n : FC_CUDA_WORKSPACE;
    size_t want = parts * sizeof(float) * rows * columns;
    want = want < least ? least : (want + 255) / 256 * 256;
    return want < FC_CUDA_WORKSPACE ? want : FC_CUDA_WORKSPACE;
}

/* A row-major matrix of `rows` rows, seen by columns. */
static cublasStatus_t set_layout(cublasLtMatrixLayoutOpaque_t *l, cudaDataType_t type,
                                 uint64_t rows, uint64_t columns, uint64_t ld)
{
    return cublasLtMatrixLayoutInit(l, type, columns, rows, (int64_t)ld);
}

template <typename T>
static bool set(struct fc_stream *s, struct fc_cuda_plan *p, cublasLtMatmulDescAttributes_t what,
                T value)
{
    return FC_LT(s, cublasLtMatmulDescSetAttribute(&p->product, what, &value, sizeof value));
}

/* The part of a description that holds pointers. */
static bool set_pointers(struct fc_stream *s, struct fc_cuda_plan *p,
                         const struct fc_cuda_operands *o)
{
    if (p->shape.bias && !set(s, p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, o->bias))
        return false;
    return !p->shape.fp8 || (set(s, p, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, o->scale_b) &&
                             set(s, p, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, o->scale_a));
}

static bool describe(struct fc_stream *s, struct fc_cuda_plan *p)
{
    const struct fc_cuda_shape *g = &p->shape;
    cudaDataType_t in = g->fp8 ? CUDA_R_8F_E4M3 : data_type(g->type), out = data_type(g->y_type);
    bool ok =
        FC_LT(s, cublasLtMatmulDescInit(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
        set(s, p, CUBLASLT_MATMUL_DESC_TRANSA, g->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N) &&
        set(s, p, CUBLASLT_MATMUL_DESC_TRANSB, g->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N) &&
        FC_LT(s,
              set_layout(&p->a, in, g->trans_a ? g->k : g->m, g->trans_a ? g->m : g->k, g->lda)) &&
        FC_LT(s,
              set_layout(&p->b, in, g->trans_b ? g->n : g->k, g->trans_b ? g->k : g->n, g->ldb)) &&
        FC_LT(s, set_layout(&p->y, out, g->m, g->n, g->ldy));
    if (ok && g->bias) /* along cuBLASLt's rows, which are our columns */
        ok = set(s, p, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS) &&
             set(s, p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(g->type));
    return ok;
}

bool fc_cuda_plan_make(struct fc_stream *s, struct fc_cuda_plan *p,
                       const struct fc_cuda_shape *shape, const struct fc_cuda_operands *o)
{
    *p = {};
    p->shape = *shape;
    if (describe(s, p) && set_pointers(s, p, o) && fc_cuda_choose(s, p, o))
        return true;
    *p = {};
    return false;
}

bool fc_cuda_plan_run(struct fc_stream *s, const struct fc_cuda_plan *p,
                      const struct fc_cuda_operands *o)
{
    struct fc_cuda_plan with = *p; /* a plan may serve several streams: only the copy is changed */
    float one = 1, beta = p->shape.beta ? 1 : 0;
    return set_pointers(s, &with, o) &&
           FC_LT(s, cublasLtMatmul(s->products->lt, &with.product, &one, o->b, &with.b, o->a,
                                   &with.a, &beta, o->y, &with.y, o->y, &with.y, &with.algorithm,
                                   s->products->workspace, with.workspace, s->stream));
}

/* FNV-1a over the fields. */
static size_t slot_of(const struct fc_cuda_shape *shape)
{
    const uint64_t *field = reinterpret_cast<const uint64_t *>(shape);
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof *shape / sizeof *field; i++)
        h = (h ^ field[i]) * 0x100000001b3u;
    return (size_t)((h ^ h >> 29) % FC_CUDA_PLANS);
}

const struct fc_cuda_plan *fc_cuda_plan_for(struct fc_stream *s, const struct fc_cuda_shape *shape,
                                            const struct fc_cuda_operands *o)
{
    struct fc_cuda_plan *p = &s->products->plans[slot_of(shape)];
    if (p->shape.m != 0 && memcmp(&p->shape, shape, sizeof *shape) == 0)
        return p;
    return fc_cuda_plan_make(s, p, shape, o) ? p : nullptr;
}

/* ---- the state of a stream --------------------------------------------------------------------
 */

/* The device's name and the library's version, under which algorithms are kept. */
static struct fc_algorithms *open_algorithms(struct fc_stream *s, struct fc_error *err)
{
    cudaDeviceProp device;
    char library[64];
    if (!FC_CUDA(s, cudaGetDeviceProperties(&device, s->device)))
        return nullptr;
    snprintf(library, sizeof library, "cublasLt %zu", cublasLtGetVersion());
    return fc_algorithms_open(device.name, library, err);
}

struct fc_cuda_products *fc_cuda_products_open(struct fc_stream *s, struct fc_error *err)
{
    if (!fc_cuda_load_cublaslt(err))
        return nullptr;
    auto *p = static_cast<struct fc_cuda_products *>(calloc(1, sizeof(struct fc_cuda_products)));
    if (!p) {
        fc_fail(err, FC_ERR_MEMORY, "out of memory: matrix products");
        return nullptr;
    }
    if (FC_LT(s, cublasLtCreate(&p->lt)) &&
        FC_CUDA(s, cudaMalloc(&p->workspace, FC_CUDA_WORKSPACE)) &&
        (p->algorithms = open_algorithms(s, err)) != nullptr)
        return p;
    if (s->error.code != FC_OK)
        fc_fail(err, s->error.code, "%s", s->error.text);
    fc_cuda_products_close(s, p);
    return nullptr;
}

void fc_cuda_products_close(struct fc_stream *s, struct fc_cuda_products *p)
{
    if (!p)
        return;
    while (p->pads) {
        struct fc_cuda_pad *pad = p->pads;
        p->pads = pad->next;
        FC_CUDA(s, cudaFree(pad->p));
        free(pad);
    }
    fc_algorithms_close(p->algorithms);
    if (p->workspace)
        FC_CUDA(s, cudaFree(p->workspace));
    if (p->lt)
        (void)cublasLtDestroy(p->lt);
    free(p);
}
