/* Matrix products: y[m,n] = op(a) op(b) (+ y), and the batch-invariant product with packed weights.
 *
 * Floor: 2 m n k FLOPs; bytes (m k + n k + m n) times their sizes. cuBLASLt computes (plans.cu);
 * what it refuses goes to our own kernel (gemm_blocks.cu).
 *
 * A bias is cuBLASLt's epilogue where it takes one: of y's own type, at an aligned address.
 * Otherwise y is first filled with the bias and then added to, so that the sum is still rounded
 * once.
 *
 * gemm_packed sends every block of rows through one and the same product, with one algorithm that
 * is chosen when the weights are packed; the last block is padded in scratch. A row of a product is
 * a chain of sums over k that no other row enters, so a row has the same bits whatever m is and
 * wherever it lies. Rows of the weights are padded to 16 bytes, and x and y go through scratch
 * where theirs are not: the algorithm never depends on an address. A block of 16-bit rows has 64:
 * fewer would read the weights more often in a prefill, more would compute too much in a small
 * decode step, which is bound by reading the weights up to about 150 rows on an A100 and 300 on an
 * H100. */
#include "kernels/cuda/products.cuh"

#include <cstdlib>
#include <cstring>

enum { ROWS_16BIT = 64, ROWS_FP32 = 32, THREADS = 256, MAX_GRID = 4096 };

bool fc_cuda_has_fast(struct fc_stream *s, enum fc_dtype dt)
{
    (void)s; /* every device that a stream opens on has tensor cores for both 16-bit formats */
    return dt == FC_F32 || dt == FC_BF16 || dt == FC_F16;
}

/* ---- filling and padding rows ------------------------------------------------------------------
 */

/* to[rows, columns] = from[rows_in, columns_in], zero beyond it. A unit U is an element, or 16
 * bytes of them. Floor: every byte read and written once. */
template <typename U>
__global__ void __launch_bounds__(THREADS)
    pad_rows(U *to, size_t ld_to, size_t rows, size_t columns, const U *from, size_t ld_from,
             size_t rows_in, size_t columns_in)
{
    size_t step = (size_t)gridDim.x * THREADS, n = rows * columns;
    for (size_t e = (size_t)blockIdx.x * THREADS + threadIdx.x; e < n; e += step) {
        size_t i = e / columns, j = e % columns;
        to[i * ld_to + j] = i < rows_in && j < columns_in ? from[i * ld_from + j] : U{};
    }
}

/* y[rows, n] = bias[n] in every row. */
template <typename T, typename Y>
__global__ void __launch_bounds__(THREADS)
    spread_bias(Y *y, size_t ldy, const T *bias, size_t rows, size_t n)
{
    size_t step = (size_t)gridDim.x * THREADS;
    for (size_t e = (size_t)blockIdx.x * THREADS + threadIdx.x; e < rows * n; e += step)
        y[e / n * ldy + e % n] = fc_from_float<Y>(fc_to_float(bias[e % n]));
}

static unsigned grid_of(size_t n)
{
    size_t blocks = fc_cuda_blocks(n, THREADS);
    return blocks < MAX_GRID ? (unsigned)blocks : (unsigned)MAX_GRID;
}

/* A block of rows in memory: `columns` elements each, their starts `ld` apart. */
struct rows {
    void *p;
    size_t ld, count, columns;
};

template <typename U>
static void launch_pad(struct fc_stream *s, const struct rows *to, const struct rows *from,
                       size_t per_unit)
{
    FC_LAUNCH(s, pad_rows<U>, grid_of(to->count * to->columns / per_unit), THREADS, 0,
              static_cast<U *>(to->p), to->ld / per_unit, to->count, to->columns / per_unit,
              static_cast<const U *>(from->p), from->ld / per_unit, from->count,
              from->columns / per_unit);
}

static void copy_rows(struct fc_stream *s, const struct rows *to, const struct rows *from,
                      size_t size)
{
    size_t per = 16 / size;
    bool wide = fc_cuda_aligned(to->p, 16) && fc_cuda_aligned(from->p, 16) && to->ld % per == 0 &&
                from->ld % per == 0 && to->columns % per == 0 && from->columns % per == 0;
    if (wide)
        launch_pad<uint4>(s, to, from, per);
    else if (size == 4)
        launch_pad<uint32_t>(s, to, from, 1);
    else
        launch_pad<uint16_t>(s, to, from, 1);
}

/* ---- the general product -----------------------------------------------------------------------
 */

static bool valid(struct fc_stream *s, const struct fc_gemm *g)
{
    bool types = (g->type == FC_F32 || g->type == FC_BF16 || g->type == FC_F16) &&
                 (g->y_type == FC_F32 || g->y_type == g->type) &&
                 (!g->accumulate || (g->y_type == FC_F32 && !g->bias));
    bool rows = g->lda >= (g->trans_a ? g->m : g->k) && g->ldb >= (g->trans_b ? g->k : g->n) &&
                g->ldy >= g->n;
    if (types && rows && s->products)
        return true;
    fc_fail(&s->error, types ? FC_ERR_INTERNAL : FC_ERR_UNSUPPORTED,
            "gemm: %s: m %zu, n %zu, k %zu, lda %zu, ldb %zu, ldy %zu, %s to %s%s",
            !types  ? "dtypes that CUDA does not multiply"
            : !rows ? "rows longer than their distance"
                    : "a copy stream multiplies nothing",
            g->m, g->n, g->k, g->lda, g->ldb, g->ldy, fc_dtype_name(g->type),
            fc_dtype_name(g->y_type), g->accumulate ? ", accumulated" : "");
    return false;
}

static void empty_sum(struct fc_stream *s, const struct fc_gemm *g)
{
    size_t size = fc_dtype_size(g->y_type);
    if (g->bias)
        fc_fail(&s->error, FC_ERR_INTERNAL, "gemm: a bias on an empty sum");
    else if (!g->accumulate)
        FC_CUDA(s, cudaMemset2DAsync(g->y, g->ldy * size, 0, g->n * size, g->m, s->stream));
}

void fc_cuda_fill_with_bias(struct fc_stream *s, const struct fc_gemm *g)
{
    fc_cuda_by_type(g->type, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T *bias = static_cast<const T *>(g->bias);
        unsigned grid = grid_of(g->m * g->n);
        if (g->y_type == FC_F32)
            FC_LAUNCH(s, (spread_bias<T, float>), grid, THREADS, 0, static_cast<float *>(g->y),
                      g->ldy, bias, g->m, g->n);
        else
            FC_LAUNCH(s, (spread_bias<T, T>), grid, THREADS, 0, static_cast<T *>(g->y), g->ldy,
                      bias, g->m, g->n);
    });
}

struct fc_cuda_shape fc_cuda_shape_of(const struct fc_gemm *g)
{
    struct fc_cuda_shape shape = {};
    shape.m = g->m;
    shape.n = g->n;
    shape.k = g->k;
    shape.lda = g->lda;
    shape.ldb = g->ldb;
    shape.ldy = g->ldy;
    shape.trans_a = g->trans_a;
    shape.trans_b = g->trans_b;
    shape.beta = g->accumulate;
    shape.bias = g->bias != nullptr;
    shape.type = g->type;
    shape.y_type = g->y_type;
    shape.align_a = fc_cuda_alignment(g->a);
    shape.align_b = fc_cuda_alignment(g->b);
    shape.align_y = fc_cuda_alignment(g->y);
    return shape;
}

void fc_cuda_gemm(struct fc_stream *s, const struct fc_gemm *g)
{
    if (!fc_cuda_ok(s) || g->m == 0 || g->n == 0 || !valid(s, g))
        return;
    if (g->k == 0) {
        empty_sum(s, g);
        return;
    }
    struct fc_cuda_shape shape = fc_cuda_shape_of(g);
    if (g->bias && (g->y_type != g->type || !fc_cuda_aligned(g->bias, 16))) {
        fc_cuda_fill_with_bias(s, g);
        shape.bias = 0;
        shape.beta = 1;
    }
    struct fc_cuda_operands o = {g->a,    g->b,    shape.bias ? g->bias : nullptr,
                                 nullptr, nullptr, g->y};
    const struct fc_cuda_plan *p = fc_cuda_plan_for(s, &shape, &o);
    if (p && p->blocks)
        fc_cuda_gemm_blocks(s, g);
    else if (p)
        fc_cuda_plan_run(s, p, &o);
}

/* ---- packed weights ----------------------------------------------------------------------------
 */

struct fc_packed {
    size_t n, k;
    size_t width, height;           /* k and n, padded: of the rows of w and x, and of y's */
    enum fc_dtype dt;               /* of the weights and of x */
    void *data;                     /* [n, width], zeros beyond k */
    struct fc_cuda_plan full, same; /* the product of one block, to fp32 and to dt */
};

static size_t rows_of(enum fc_dtype dt)
{
    return dt == FC_F32 ? ROWS_FP32 : ROWS_16BIT;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Scratch of the stream for one block of x, and of y behind it at *y_offset. */
static char *padding(struct fc_stream *s, const struct fc_packed *w, size_t *y_offset)
{
    *y_offset = round_up(rows_of(w->dt) * w->width * fc_dtype_size(w->dt), 256);
    size_t bytes = *y_offset + rows_of(w->dt) * w->height * sizeof(float);
    struct fc_cuda_pad *last = s->products->pads;
    if (last && last->bytes >= bytes)
        return static_cast<char *>(last->p);
    if (s->recording) {
        fc_fail(&s->error, FC_ERR_INTERNAL,
                "gemm_packed: weights that this stream has not multiplied before, in a recording");
        return nullptr;
    }
    if (last && bytes < 2 * last->bytes)
        bytes = 2 * last->bytes; /* all that are kept together are at most twice the largest */
    auto *pad = static_cast<struct fc_cuda_pad *>(calloc(1, sizeof(struct fc_cuda_pad)));
    if (!pad || !FC_CUDA(s, cudaMalloc(&pad->p, bytes))) {
        fc_fail(&s->error, FC_ERR_MEMORY, "out of memory: scratch of packed weights");
        free(pad);
        return nullptr;
    }
    pad->bytes = bytes;
    pad->next = last;
    s->products->pads = pad;
    return static_cast<char *>(pad->p);
}

/* The product of one block, prepared on scratch. */
static bool make_plan(struct fc_stream *s, const struct fc_packed *w, struct fc_cuda_plan *p,
                      enum fc_dtype y_type)
{
    size_t y_offset;
    char *pad = padding(s, w, &y_offset);
    if (!pad)
        return false;
    struct fc_gemm g = {};
    g.m = rows_of(w->dt);
    g.n = w->n;
    g.k = g.lda = g.ldb = w->width;
    g.ldy = w->height;
    g.trans_b = true;
    g.type = w->dt;
    g.y_type = y_type;
    struct fc_cuda_shape shape = fc_cuda_shape_of(&g);
    shape.align_a = shape.align_b = shape.align_y = FC_CUDA_PACKED_ALIGN;
    struct fc_cuda_operands o = {pad, w->data, nullptr, nullptr, nullptr, pad + y_offset};
    if (!fc_cuda_plan_make(s, p, &shape, &o))
        return false;
    if (p->blocks)
        fc_fail(&s->error, FC_ERR_UNSUPPORTED, "pack: cuBLASLt cannot multiply %zu x %zu in %s",
                w->n, w->k, fc_dtype_name(w->dt));
    return !p->blocks;
}

static void pack_into(struct fc_stream *s, struct fc_packed *p, const void *w)
{
    size_t size = fc_dtype_size(p->dt);
    if (!FC_CUDA(s, cudaMalloc(&p->data, p->n * p->width * size)))
        return;
    struct rows from = {const_cast<void *>(w), p->k, p->n, p->k};
    struct rows to = {p->data, p->width, p->n, p->width};
    copy_rows(s, &to, &from, size);
    if (fc_cuda_ok(s) && make_plan(s, p, &p->full, FC_F32))
        make_plan(s, p, &p->same, p->dt);
}

struct fc_packed *fc_cuda_pack(struct fc_stream *s, const void *w, size_t n, size_t k,
                               enum fc_dtype dt)
{
    if (!fc_cuda_ok(s))
        return nullptr;
    if (n == 0 || k == 0 || (dt != FC_F32 && dt != FC_BF16 && dt != FC_F16) || !s->products) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED, "pack: cannot pack weights of %zu x %zu in %s", n, k,
                fc_dtype_name(dt));
        return nullptr;
    }
    auto *p = static_cast<struct fc_packed *>(calloc(1, sizeof(struct fc_packed)));
    if (!p) {
        fc_fail(&s->error, FC_ERR_MEMORY, "out of memory: packed weights");
        return nullptr;
    }
    p->n = n;
    p->k = k;
    p->dt = dt;
    p->width = round_up(k, FC_CUDA_PACKED_ALIGN / fc_dtype_size(dt));
    p->height = round_up(n, FC_CUDA_PACKED_ALIGN / fc_dtype_size(dt));
    pack_into(s, p, w);
    if (s->error.code != FC_OK) {
        fc_cuda_unpack(s, p);
        return nullptr;
    }
    return p;
}

void fc_cuda_unpack(struct fc_stream *s, struct fc_packed *w)
{
    if (!w)
        return;
    if (w->data && FC_CUDA(s, cudaSetDevice(s->device)))
        FC_CUDA(s, cudaFree(w->data)); /* waits for what still reads it */
    free(w);
}

/* Rows i.. of y from those of x. */
static void run_block(struct fc_stream *s, char *y, enum fc_dtype y_type, const char *x,
                      const struct fc_packed *w, size_t count)
{
    size_t y_offset, block = rows_of(w->dt);
    char *pad = padding(s, w, &y_offset);
    if (!pad)
        return;
    bool in = count == block && w->width == w->k && fc_cuda_aligned(x, FC_CUDA_PACKED_ALIGN);
    bool out = count == block && w->height == w->n && fc_cuda_aligned(y, FC_CUDA_PACKED_ALIGN);
    struct rows raw_x = {const_cast<char *>(x), w->k, count, w->k};
    struct rows pad_x = {pad, w->width, block, w->width};
    struct rows raw_y = {y, w->n, count, w->n}, pad_y = {pad + y_offset, w->height, count, w->n};
    if (!in)
        copy_rows(s, &pad_x, &raw_x, fc_dtype_size(w->dt));
    struct fc_cuda_operands o = {in ? x : pad, w->data, nullptr,
                                 nullptr,      nullptr, out ? y : pad + y_offset};
    if (fc_cuda_plan_run(s, y_type == FC_F32 ? &w->full : &w->same, &o) && !out)
        copy_rows(s, &raw_y, &pad_y, fc_dtype_size(y_type));
}

void fc_cuda_gemm_packed(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                         const struct fc_packed *w, size_t m)
{
    if (!fc_cuda_ok(s) || m == 0)
        return;
    if ((y_type != FC_F32 && y_type != w->dt) || !s->products) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED, "gemm_packed: weights in %s cannot give %s",
                fc_dtype_name(w->dt), fc_dtype_name(y_type));
        return;
    }
    size_t block = rows_of(w->dt), in = w->k * fc_dtype_size(w->dt);
    size_t out = w->n * fc_dtype_size(y_type);
    for (size_t i = 0; i < m && fc_cuda_ok(s); i += block)
        run_block(s, static_cast<char *>(y) + i * out, y_type,
                  static_cast<const char *>(x) + i * in, w, m - i < block ? m - i : block);
}
