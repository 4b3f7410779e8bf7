/* Matrix products: y[m,n] = op(a) op(b) (+ y), and the batch-invariant product with packed weights.
 *
 * Floor: 2 m n k FLOPs; bytes (m k + n k + m n) times their sizes. Measured with 2 Zen 4 cores:
 * 370-440 GFLOP/s in bf16, 165-220 in fp32; at m = 32 packed weights beat rows by some 15 %.
 *
 * oneDNN computes (onednn.c). Two things are ours:
 *
 * - Where the CPU has no bf16 dot product, oneDNN's bf16 is missing or emulated. Then blocks of
 *   both operands are widened to fp32 and multiplied in fp32: the products are the same, only the
 *   order of sums differs, at fp32's speed less the conversion.
 *
 * - gemm_packed sends every ROWS rows through the same primitive, the last ones padded with zero
 *   rows in scratch. A row of a product is a chain of sums over k that no other row enters, and
 *   the primitive fixes its order, so a row has the same bits whatever m is and wherever it lies;
 *   that is tested bit for bit. ROWS is 32: what a decode step of a full batch has. Smaller
 *   primitives for small m are faster but free to choose another order, so they are not used. */
#include "kernels/cpu/onednn.h"

#include <stdlib.h>

enum {
    ROWS = 32, /* of the fixed primitive */
    BLOCK_M = 256,
    BLOCK_N = 1024,
    BLOCK_K = 4096 /* of bf16 widened to fp32 */
};

bool fc_cpu_has_fast(struct fc_stream *s, enum fc_dtype dt)
{
    (void)s;
    if (dt != FC_BF16)
        return dt == FC_F32;
    /* The values are bit sets, so later ones (AMX) contain earlier ones. */
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    unsigned need = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    return (isa & need) == need;
}

/* ---- bf16 by way of fp32 ------------------------------------------------------------------------
 */

/* to[rows, cols] = the block at (row, col) of a matrix with rows `ld` apart, as fp32. */
static void widen(struct fc_stream *s, float *to, const void *from, size_t ld, size_t row,
                  size_t col, size_t rows, size_t cols)
{
#pragma omp parallel for num_threads(fc_cpu_threads(s, rows *cols))
    for (size_t i = 0; i < rows; i++)
        fc_cpu_load(to + i * cols, from, (row + i) * ld + col, cols, FC_BF16);
}

/* One block of y: all of k in steps, summed in fp32 into `sum` (rows ldsum apart). */
static void widened_block(struct fc_stream *s, const struct fc_gemm *g, size_t i, size_t j,
                          float *a, float *b, float *sum, size_t ldsum)
{
    size_t m = fc_cpu_min(BLOCK_M, g->m - i), n = fc_cpu_min(BLOCK_N, g->n - j);
    for (size_t p = 0; p < g->k && fc_cpu_ok(s); p += BLOCK_K) {
        size_t k = fc_cpu_min(BLOCK_K, g->k - p);
        if (g->trans_a)
            widen(s, a, g->a, g->lda, p, i, k, m);
        else
            widen(s, a, g->a, g->lda, i, p, m, k);
        if (g->trans_b)
            widen(s, b, g->b, g->ldb, j, p, n, k);
        else
            widen(s, b, g->b, g->ldb, p, j, k, n);
        struct fc_gemm block = {.a = a,
                                .b = b,
                                .y = sum,
                                .m = m,
                                .n = n,
                                .k = k,
                                .lda = g->trans_a ? m : k,
                                .ldb = g->trans_b ? k : n,
                                .ldy = ldsum,
                                .trans_a = g->trans_a,
                                .trans_b = g->trans_b,
                                .accumulate = p > 0 || g->accumulate,
                                .type = FC_F32,
                                .y_type = FC_F32};
        fc_cpu_product(s, &block, NULL);
    }
}

static void gemm_widened(struct fc_stream *s, const struct fc_gemm *g)
{
    size_t k = fc_cpu_min(BLOCK_K, g->k);
    size_t floats = BLOCK_M * k + BLOCK_N * k + (size_t)BLOCK_M * BLOCK_N;
    float *a = fc_cpu_product_scratch(s, floats * sizeof(float));
    if (!a)
        return;
    float *b = a + BLOCK_M * k, *sum = b + BLOCK_N * k;
    for (size_t i = 0; i < g->m && fc_cpu_ok(s); i += BLOCK_M)
        for (size_t j = 0; j < g->n && fc_cpu_ok(s); j += BLOCK_N) {
            if (g->y_type == FC_F32) {
                widened_block(s, g, i, j, a, b, (float *)g->y + i * g->ldy + j, g->ldy);
                continue;
            }
            size_t m = fc_cpu_min(BLOCK_M, g->m - i), n = fc_cpu_min(BLOCK_N, g->n - j);
            widened_block(s, g, i, j, a, b, sum, n);
            for (size_t r = 0; r < m; r++)
                fc_cpu_store(g->y, (i + r) * g->ldy + j, sum + r * n, n, FC_BF16);
        }
}

/* ---- the general product
 * ------------------------------------------------------------------------- */

static bool valid(struct fc_stream *s, const struct fc_gemm *g)
{
    bool types = (g->type == FC_F32 || g->type == FC_BF16) &&
                 (g->y_type == FC_F32 || g->y_type == g->type) &&
                 (!g->accumulate || g->y_type == FC_F32);
    bool rows = g->lda >= (g->trans_a ? g->m : g->k) && g->ldb >= (g->trans_b ? g->k : g->n) &&
                g->ldy >= g->n;
    if (types && rows)
        return true;
    fc_fail(&s->error, types ? FC_ERR_INTERNAL : FC_ERR_UNSUPPORTED,
            "gemm: %s: m %zu, n %zu, k %zu, lda %zu, ldb %zu, ldy %zu, %s to %s%s",
            types ? "rows longer than their distance" : "dtypes that the CPU does not multiply",
            g->m, g->n, g->k, g->lda, g->ldb, g->ldy, fc_dtype_name(g->type),
            fc_dtype_name(g->y_type), g->accumulate ? ", accumulated" : "");
    return false;
}

void fc_cpu_gemm(struct fc_stream *s, const struct fc_gemm *g)
{
    if (!fc_cpu_ok(s) || g->m == 0 || g->n == 0 || !valid(s, g))
        return;
    if (g->k == 0) { /* the empty sum */
        for (size_t i = 0; i < g->m && !g->accumulate; i++)
            memset((char *)g->y + i * g->ldy * fc_dtype_size(g->y_type), 0,
                   g->n * fc_dtype_size(g->y_type));
        return;
    }
    if (fc_cpu_has_fast(s, g->type))
        fc_cpu_product(s, g, NULL);
    else
        gemm_widened(s, g);
}

/* ---- packed weights
 * -------------------------------------------------------------------------------- */

struct fc_packed {
    size_t n, k;
    enum fc_dtype dt;      /* of the weights that were packed, and of x */
    enum fc_dtype compute; /* of `data`: fp32 where bf16 is not fast */
    struct fc_layout layout;
    void *data;
};

/* Scratch of gemm_packed: one padded block of x in the compute type and one of y. */
static void *padding(struct fc_stream *s, const struct fc_packed *w, size_t *y_offset)
{
    *y_offset = (ROWS * w->k * fc_dtype_size(w->compute) + 63) / 64 * 64;
    return fc_cpu_product_scratch(s, *y_offset + ROWS * w->n * sizeof(float));
}

/* Fills w->data from rows of w's dtype. */
static bool pack_data(struct fc_stream *s, struct fc_packed *w, const void *rows)
{
    size_t bytes = 0, unused;
    void *wide = NULL;
    bool ok = fc_cpu_product_layout(s, ROWS, w->n, w->k, w->compute, &w->layout, &bytes) &&
              (w->data = fc_cpu_acquire(bytes, "packed weights", &s->error)) != NULL &&
              padding(s, w, &unused) != NULL;
    if (ok && w->compute != w->dt) {
        wide = fc_cpu_acquire(w->n * w->k * sizeof(float), "widened weights", &s->error);
        if (wide)
            widen(s, wide, rows, w->k, 0, 0, w->n, w->k);
        ok = wide != NULL;
    }
    ok = ok &&
         fc_cpu_product_reorder(s, w->data, &w->layout, wide ? wide : rows, w->n, w->k, w->compute);
    fc_cpu_release(wide);
    return ok;
}

struct fc_packed *fc_cpu_pack(struct fc_stream *s, const void *w, size_t n, size_t k,
                              enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return NULL;
    if (n == 0 || k == 0 || (dt != FC_F32 && dt != FC_BF16)) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED, "pack: cannot pack weights of %zu x %zu in %s", n, k,
                fc_dtype_name(dt));
        return NULL;
    }
    struct fc_packed *p = calloc(1, sizeof *p);
    if (!p) {
        fc_fail(&s->error, FC_ERR_MEMORY, "out of memory: packed weights");
        return NULL;
    }
    p->n = n;
    p->k = k;
    p->dt = dt;
    p->compute = fc_cpu_has_fast(s, dt) ? dt : FC_F32;
    if (!pack_data(s, p, w)) {
        fc_cpu_unpack(s, p);
        return NULL;
    }
    return p;
}

void fc_cpu_unpack(struct fc_stream *s, struct fc_packed *w)
{
    (void)s;
    if (!w)
        return;
    fc_layout_free(&w->layout);
    fc_cpu_release(w->data);
    free(w);
}

/* pad[ROWS,k] = rows of x, then zero rows. */
static void fill_block(struct fc_stream *s, void *pad, const struct fc_packed *w, const void *x,
                       size_t row, size_t rows)
{
    size_t size = fc_dtype_size(w->compute);
    if (w->compute == w->dt)
        memcpy(pad, fc_cpu_at(x, row * w->k, w->dt), rows * w->k * size);
    else
        widen(s, pad, x, w->k, row, 0, rows, w->k);
    memset((char *)pad + rows * w->k * size, 0, (ROWS - rows) * w->k * size);
}

/* y's rows = those of the padded block. */
static void empty_block(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *pad,
                        enum fc_dtype pad_type, size_t n, size_t row, size_t rows)
{
    size_t size = fc_dtype_size(y_type);
#pragma omp parallel for num_threads(fc_cpu_threads(s, rows *n))
    for (size_t i = 0; i < rows; i++) {
        if (pad_type == y_type)
            memcpy((char *)y + (row + i) * n * size, (const char *)pad + i * n * size, n * size);
        else
            fc_cpu_store(y, (row + i) * n, (const float *)pad + i * n, n, y_type);
    }
}

void fc_cpu_gemm_packed(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                        const struct fc_packed *w, size_t m)
{
    if (!fc_cpu_ok(s) || m == 0)
        return;
    if (y_type != FC_F32 && y_type != w->dt) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED, "gemm_packed: weights in %s cannot give %s",
                fc_dtype_name(w->dt), fc_dtype_name(y_type));
        return;
    }
    size_t y_offset;
    char *x_pad = padding(s, w, &y_offset);
    if (!x_pad)
        return;
    void *y_pad = x_pad + y_offset;
    bool same_x = w->compute == w->dt;
    enum fc_dtype out = w->compute == FC_F32 ? FC_F32 : y_type; /* of the primitive */
    for (size_t i = 0; i < m && fc_cpu_ok(s); i += ROWS) {
        size_t rows = fc_cpu_min(ROWS, m - i);
        bool direct_x = rows == ROWS && same_x, direct_y = rows == ROWS && out == y_type;
        if (!direct_x)
            fill_block(s, x_pad, w, x, i, rows);
        struct fc_gemm g = {.a = direct_x ? fc_cpu_at(x, i * w->k, w->dt) : x_pad,
                            .b = w->data,
                            .y = direct_y ? (char *)y + i * w->n * fc_dtype_size(y_type) : y_pad,
                            .m = ROWS,
                            .n = w->n,
                            .k = w->k,
                            .lda = w->k,
                            .ldy = w->n,
                            .type = w->compute,
                            .y_type = out};
        fc_cpu_product(s, &g, &w->layout);
        if (!direct_y)
            empty_block(s, y, y_type, y_pad, out, w->n, i, rows);
    }
}
