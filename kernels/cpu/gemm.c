/* Matrix products: y[m,n] = op(a) op(b) (+ y), and the batch-invariant product with packed weights.
 *
 * Floor: 2 m n k FLOPs; bytes (m k + n k + m n) times their sizes. Measured with 2 Zen 4 cores:
 * 370-440 GFLOP/s in bf16, 165-220 in fp32; at m = 32 packed weights beat rows by some 15 %.
 *
 * oneDNN computes (onednn.c) wherever it has a kernel that sums in a fixed order, which is
 * wherever it is fast; the rest goes to our own loops (gemm_blocks.c).
 *
 * gemm_packed sends every ROWS rows through the same primitive, the last ones padded with zero rows
 * in scratch. A row of a product is a chain of sums over k that no other row enters, and the
 * primitive fixes its order, so a row has the same bits whatever m is and wherever it lies; that is
 * tested bit for bit. ROWS is 32: what a decode step of a full batch has. Smaller primitives for
 * small m are faster but free to choose another order, so they are not used. Our own loops have
 * that property for any m and take the weights as they are. */
#include "kernels/cpu/onednn.h"

#include <stdlib.h>

enum {
    ROWS = 32,    /* of the fixed primitive */
    LONG_K = 2048 /* from which on oneDNN may share k among threads */
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

/* ---- the general product -------------------------------------------------------------------- */

static bool valid(struct fc_stream *s, const struct fc_gemm *g)
{
    bool types = (g->type == FC_F32 || g->type == FC_BF16) &&
                 (g->y_type == FC_F32 || g->y_type == g->type) &&
                 (!g->accumulate || (g->y_type == FC_F32 && !g->bias));
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

/* Parts of k that are computed one after the other. Where a is transposed and k >= 2048, oneDNN
 * lets idle threads share k, so that the order of sums depends on their number (seen in 192 of
 * 2,048 combinations of shape and threads, all of this kind). Shorter parts keep it from that; each
 * costs one more read and write of y, not measurable at 3072 x 576 x 4096. */
static size_t parts_of_k(const struct fc_gemm *g)
{
    return g->trans_a && g->k >= LONG_K ? g->k / LONG_K + 1 : 1;
}

static void compute(struct fc_stream *s, const struct fc_gemm *g)
{
    size_t parts = parts_of_k(g);
    if (!fc_cpu_has_fast(s, g->type) || (parts > 1 && g->y_type != FC_F32)) {
        fc_cpu_gemm_blocks(s, g);
        return;
    }
    for (size_t i = 0; i < parts && fc_cpu_ok(s); i++) {
        size_t first = i * g->k / parts;
        struct fc_gemm part = *g;
        part.a = fc_cpu_at(g->a, first * (g->trans_a ? g->lda : 1), g->type);
        part.b = fc_cpu_at(g->b, first * (g->trans_b ? 1 : g->ldb), g->type);
        part.k = (i + 1) * g->k / parts - first;
        part.accumulate = g->accumulate || i > 0;
        if (part.accumulate)
            part.bias = NULL;
        if (!fc_cpu_product(s, &part, NULL) && fc_cpu_ok(s))
            fc_cpu_gemm_blocks(s, &part);
    }
}

void fc_cpu_gemm(struct fc_stream *s, const struct fc_gemm *g)
{
    if (!fc_cpu_ok(s) || g->m == 0 || g->n == 0 || !valid(s, g))
        return;
    if (g->k == 0) { /* the empty sum */
        for (size_t i = 0; i < g->m && !g->accumulate; i++)
            memset((char *)g->y + i * g->ldy * fc_dtype_size(g->y_type), 0,
                   g->n * fc_dtype_size(g->y_type));
        if (g->bias)
            fc_fail(&s->error, FC_ERR_INTERNAL, "gemm: a bias on an empty sum");
        return;
    }
    compute(s, g);
}

/* ---- packed weights ------------------------------------------------------------------------- */

struct fc_packed {
    size_t n, k;
    enum fc_dtype dt;        /* of the weights and of x */
    bool rows;               /* data is w as it was; otherwise it lies in `layout` */
    struct fc_layout layout; /* of the primitives with ROWS rows */
    void *data;
};

/* The product of one block, without its pointers. */
static struct fc_gemm block_shape(const struct fc_packed *w, enum fc_dtype y_type)
{
    return (struct fc_gemm){
        .m = ROWS, .n = w->n, .k = w->k, .lda = w->k, .ldy = w->n, .type = w->dt, .y_type = y_type};
}

/* Scratch of gemm_packed: one padded block of x and one of y, at *y_offset. */
static char *padding(struct fc_stream *s, const struct fc_packed *w, size_t *y_offset)
{
    *y_offset = (ROWS * w->k * fc_dtype_size(w->dt) + 63) / 64 * 64;
    return fc_cpu_product_scratch(s, *y_offset + ROWS * w->n * sizeof(float));
}

/* Fills w->data in oneDNN's layout. False: error in the stream, or no fitting primitive. */
static bool pack_layout(struct fc_stream *s, struct fc_packed *w, const void *from)
{
    size_t bytes = 0, unused;
    if (!fc_cpu_has_fast(s, w->dt) ||
        !fc_cpu_product_layout(s, ROWS, w->n, w->k, w->dt, &w->layout, &bytes))
        return false;
    struct fc_gemm full = block_shape(w, FC_F32), same = block_shape(w, w->dt);
    if (!fc_cpu_product_ready(s, &full, &w->layout) || !fc_cpu_product_ready(s, &same, &w->layout))
        return false;
    w->data = fc_cpu_acquire(bytes, "packed weights", &s->error);
    return w->data && padding(s, w, &unused) &&
           fc_cpu_product_reorder(s, w->data, &w->layout, from, w->n, w->k, w->dt);
}

static void pack_rows(struct fc_stream *s, struct fc_packed *w, const void *from)
{
    size_t bytes = w->n * w->k * fc_dtype_size(w->dt);
    w->rows = true;
    w->data = fc_cpu_acquire(bytes, "weights", &s->error);
    if (w->data)
        fc_cpu_copy(s, w->data, from, bytes);
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
    if (!pack_layout(s, p, w) && fc_cpu_ok(s))
        pack_rows(s, p, w);
    if (!fc_cpu_ok(s)) {
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

/* y's rows = those of the padded block. */
static void put_rows(struct fc_stream *s, char *y, const char *pad, size_t rows, size_t bytes)
{
#pragma omp parallel for num_threads(fc_cpu_threads(s, rows *bytes))
    for (size_t i = 0; i < rows; i++)
        memcpy(y + i * bytes, pad + i * bytes, bytes);
}

/* All rows by the fixed primitive. */
static void run_blocks(struct fc_stream *s, char *y, enum fc_dtype y_type, const char *x,
                       const struct fc_packed *w, size_t m)
{
    size_t y_offset, in = w->k * fc_dtype_size(w->dt), out = w->n * fc_dtype_size(y_type);
    char *pad = padding(s, w, &y_offset);
    struct fc_gemm g = block_shape(w, y_type);
    g.b = w->data;
    for (size_t i = 0; i < m && pad && fc_cpu_ok(s); i += ROWS) {
        size_t rows = fc_cpu_min(ROWS, m - i);
        g.a = x + i * in;
        g.y = y + i * out;
        if (rows < ROWS) {
            memcpy(pad, x + i * in, rows * in);
            memset(pad + rows * in, 0, (ROWS - rows) * in);
            g.a = pad;
            g.y = pad + y_offset;
        }
        if (!fc_cpu_product(s, &g, &w->layout))
            fc_fail(&s->error, FC_ERR_INTERNAL,
                    "gemm_packed: oneDNN has no kernel for a layout that it chose");
        else if (rows < ROWS)
            put_rows(s, y + i * out, pad + y_offset, rows, out);
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
    if (!w->rows) {
        run_blocks(s, y, y_type, x, w, m);
        return;
    }
    struct fc_gemm g = block_shape(w, y_type);
    g.a = x;
    g.b = w->data;
    g.y = y;
    g.m = m;
    g.ldb = w->k;
    g.trans_b = true;
    fc_cpu_gemm_blocks(s, &g);
}
