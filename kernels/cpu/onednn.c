/* Primitives of oneDNN, one per shape of a product, created at the first use and kept.
 *
 * Creating a primitive generates machine code (measured: 0.1 ms for a plain one, 0.25 ms at most
 * of 95 %); running a kept one costs a few microseconds beyond the product. Packed training batches
 * have many different lengths, so the cache is bounded and the least recently used primitive
 * leaves. Looking one up compares up to CAPACITY hashes in a row, below a microsecond. Scratch is
 * grown here, when a primitive is created, and belongs to the stream, so that a step whose shapes
 * were seen allocates nothing.
 *
 * oneDNN of Debian runs on OpenMP. Its primitives are laid out for the number of threads that is
 * current when they are created, so creation and execution both happen under the stream's. */
#include "kernels/cpu/onednn.h"

#include <omp.h>
#include <stdlib.h>

enum { CAPACITY = 512 };

struct product {
    struct fc_gemm shape; /* a, b and y NULL; bias only says whether there is one */
    bool packed;
    struct fc_layout weights;   /* of b; owned if packed */
    uint64_t used;              /* tick of the last use */
    dnnl_primitive_t primitive; /* NULL: oneDNN has none that sums in a fixed order */
    dnnl_memory_t a, b, bias, y, scratch;
};

struct fc_cpu_products {
    int threads;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t tick;
    size_t count;
    uint64_t hashes[CAPACITY];
    struct product *products[CAPACITY];
    void *scratchpad; /* oneDNN's */
    size_t scratchpad_bytes;
    void *scratch; /* ours: fc_cpu_product_scratch */
    size_t scratch_bytes;
};

/* Keeps a failure of oneDNN in the error; true on success. */
static bool check(struct fc_error *err, dnnl_status_t st, const char *what)
{
    if (st == dnnl_success)
        return true;
    enum fc_code code = st == dnnl_out_of_memory   ? FC_ERR_MEMORY
                        : st == dnnl_unimplemented ? FC_ERR_UNSUPPORTED
                                                   : FC_ERR_INTERNAL;
    fc_fail(err, code, "oneDNN: %s failed with status %d", what, (int)st);
    return false;
}

struct fc_cpu_products *fc_cpu_products_open(int threads, struct fc_error *err)
{
    struct fc_cpu_products *p = calloc(1, sizeof *p);
    if (!p) {
        fc_fail(err, FC_ERR_MEMORY, "out of memory: the primitive cache");
        return NULL;
    }
    p->threads = threads;
    if (!check(err, dnnl_engine_create(&p->engine, dnnl_cpu, 0), "engine creation") ||
        !check(err, dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags),
               "stream creation")) {
        fc_cpu_products_close(p);
        return NULL;
    }
    return p;
}

static void product_free(struct product *q)
{
    if (!q)
        return;
    if (q->primitive)
        dnnl_primitive_destroy(q->primitive);
    dnnl_memory_t memories[] = {q->a, q->b, q->bias, q->y, q->scratch};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        if (memories[i])
            dnnl_memory_destroy(memories[i]);
    if (q->packed)
        fc_layout_free(&q->weights);
    free(q);
}

void fc_cpu_products_close(struct fc_cpu_products *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++)
        product_free(p->products[i]);
    if (p->stream)
        dnnl_stream_destroy(p->stream);
    if (p->engine)
        dnnl_engine_destroy(p->engine);
    fc_cpu_release(p->scratchpad);
    fc_cpu_release(p->scratch);
    free(p);
}

/* Makes *p at least `bytes` long; its contents are lost. */
static bool grow(void **p, size_t *have, size_t bytes, const char *what, struct fc_error *err)
{
    if (bytes <= *have)
        return true;
    fc_cpu_release(*p);
    *have = 0;
    *p = fc_cpu_acquire(bytes, what, err);
    if (!*p)
        return false;
    *have = bytes;
    return true;
}

void *fc_cpu_product_scratch(struct fc_stream *s, size_t bytes)
{
    struct fc_cpu_products *p = s->products;
    bool ok = grow(&p->scratch, &p->scratch_bytes, bytes, "GEMM blocks", &s->error);
    return ok ? p->scratch : NULL;
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static dnnl_data_type_t data_type(enum fc_dtype t)
{
    return t == FC_F32 ? dnnl_f32 : t == FC_BF16 ? dnnl_bf16 : dnnl_f16;
}

/* A matrix of rows x cols whose rows (or, transposed, columns) are `ld` elements apart. */
static bool matrix(struct fc_layout *l, size_t rows, size_t cols, size_t ld, bool transposed,
                   enum fc_dtype dt, struct fc_error *err)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    dnnl_dims_t plain = {(dnnl_dim_t)ld, 1}, turned = {1, (dnnl_dim_t)ld};
    return check(err, fc_layout_strided(l, dims, data_type(dt), transposed ? turned : plain),
                 "matrix description");
}

/* Attributes of every product: scratch from us, y added to where the shape says so. */
static dnnl_primitive_attr_t attributes(bool accumulate, struct fc_error *err)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    bool ok = check(err, dnnl_primitive_attr_create(&attr), "attributes") &&
              check(err, dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user),
                    "scratchpad mode");
    if (ok && accumulate)
        ok = check(err, dnnl_post_ops_create(&ops), "post-ops") &&
             check(err, fc_append_sum(ops), "sum post-op") &&
             check(err, dnnl_primitive_attr_set_post_ops(attr, ops), "post-ops attribute");
    if (ops)
        dnnl_post_ops_destroy(ops);
    if (!ok && attr) {
        dnnl_primitive_attr_destroy(attr);
        attr = NULL;
    }
    return attr;
}

/* The primitive descriptor of shape g with b in layout `weights`; NULL on error. */
static dnnl_primitive_desc_t describe(struct fc_cpu_products *p, const struct fc_gemm *g,
                                      const struct fc_layout *weights, struct fc_error *err)
{
    struct fc_layout a = {0}, bias = {0}, y = {0};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = attributes(g->accumulate, err);
    if (attr && matrix(&a, g->m, g->k, g->lda, g->trans_a, g->type, err) &&
        matrix(&bias, 1, g->n, g->n, false, g->type, err) &&
        matrix(&y, g->m, g->n, g->ldy, false, g->y_type, err))
        check(err,
              fc_matmul_desc(&pd, p->engine, fc_layout_of(&a), fc_layout_of(weights),
                             g->bias ? fc_layout_of(&bias) : NULL, fc_layout_of(&y), attr),
              "matmul description");
    fc_layout_free(&a);
    fc_layout_free(&bias);
    fc_layout_free(&y);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return pd;
}

/* ---- the cache ------------------------------------------------------------------------------ */

static uint64_t hash(const struct fc_gemm *g, bool packed)
{
    const uint64_t fields[] = {g->m,
                               g->n,
                               g->k,
                               g->lda,
                               g->ldb,
                               g->ldy,
                               (uint64_t)g->trans_a | (uint64_t)g->trans_b << 1 |
                                   (uint64_t)g->accumulate << 2 | (uint64_t)packed << 3 |
                                   (uint64_t)g->type << 4 | (uint64_t)g->y_type << 8 |
                                   (uint64_t)(g->bias != NULL) << 12};
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        h = (h ^ fields[i]) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return h;
}

static bool same(const struct product *q, const struct fc_gemm *g, const struct fc_layout *packed)
{
    const struct fc_gemm *x = &q->shape;
    bool shape = x->m == g->m && x->n == g->n && x->k == g->k && x->lda == g->lda &&
                 x->ldb == g->ldb && x->ldy == g->ldy && x->trans_a == g->trans_a &&
                 x->trans_b == g->trans_b && x->accumulate == g->accumulate && x->type == g->type &&
                 x->y_type == g->y_type && !x->bias == !g->bias && q->packed == (packed != NULL);
    return shape &&
           (!packed || dnnl_memory_desc_equal(fc_layout_of(&q->weights), fc_layout_of(packed)));
}

/* Memory objects without data, as pd wants them, and its scratchpad. */
static bool bind(struct fc_cpu_products *p, struct product *q, dnnl_primitive_desc_t pd,
                 struct fc_error *err)
{
    const struct {
        dnnl_memory_t *memory;
        dnnl_query_t query;
        int index;
    } wanted[] = {{&q->a, dnnl_query_src_md, 0},
                  {&q->b, dnnl_query_weights_md, 0},
                  {&q->y, dnnl_query_dst_md, 0},
                  {&q->scratch, dnnl_query_scratchpad_md, 0},
                  {&q->bias, dnnl_query_weights_md, 1}}; /* the last one if there is a bias */
    size_t n = sizeof wanted / sizeof *wanted - (q->shape.bias ? 0 : 1);
    for (size_t i = 0; i < n; i++)
        if (!check(err,
                   dnnl_memory_create(
                       wanted[i].memory,
                       dnnl_primitive_desc_query_md(pd, wanted[i].query, wanted[i].index),
                       p->engine, DNNL_MEMORY_NONE),
                   "memory object"))
            return false;
    size_t scratch =
        dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
    return grow(&p->scratchpad, &p->scratchpad_bytes, scratch, "oneDNN's scratchpad", err);
}

/* Only the brgemm kernels sum along k in one order for every row and number of threads; see
 * gemm_blocks.c for what the others do. */
static bool fixed_order(dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    dnnl_status_t st = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name);
    return st == dnnl_success && name && strncmp(name, "brg", 3) == 0;
}

static struct product *create(struct fc_cpu_products *p, const struct fc_gemm *g,
                              const struct fc_layout *packed, struct fc_error *err)
{
    struct fc_layout plain = {0};
    dnnl_primitive_desc_t pd = NULL;
    struct product *q = calloc(1, sizeof *q);
    bool ok = false;
    if (!q) {
        fc_fail(err, FC_ERR_MEMORY, "out of memory: a product of the primitive cache");
        return NULL;
    }
    q->shape = *g;
    q->shape.a = q->shape.b = NULL;
    q->shape.y = NULL;
    q->packed = packed != NULL;
    if (packed ? !check(err, fc_layout_clone(&q->weights, fc_layout_of(packed)), "layout copy")
               : !matrix(&plain, g->k, g->n, g->ldb, g->trans_b, g->type, err))
        goto cleanup;
    pd = describe(p, g, packed ? packed : &plain, err);
    ok = pd && (!fixed_order(pd) ||
                (check(err, dnnl_primitive_create(&q->primitive, pd), "matmul creation") &&
                 bind(p, q, pd, err)));
cleanup:
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    fc_layout_free(&plain);
    if (!ok) {
        product_free(q);
        q = NULL;
    }
    return q;
}

/* The kept product of this shape, or a new one in a free place or in that of the oldest. */
static struct product *find(struct fc_cpu_products *p, const struct fc_gemm *g,
                            const struct fc_layout *packed, struct fc_error *err)
{
    uint64_t h = hash(g, packed != NULL);
    for (size_t i = 0; i < p->count; i++)
        if (p->hashes[i] == h && same(p->products[i], g, packed))
            return p->products[i];
    struct product *q = create(p, g, packed, err);
    if (!q)
        return NULL;
    size_t place = p->count;
    if (p->count < CAPACITY) {
        p->count++;
    } else {
        place = 0;
        for (size_t i = 1; i < CAPACITY; i++)
            if (p->products[i]->used < p->products[place]->used)
                place = i;
        product_free(p->products[place]);
    }
    p->hashes[place] = h;
    p->products[place] = q;
    return q;
}

/* Threads of oneDNN's regions are those of the host thread; the caller's number comes back after.
 */
static int enter(const struct fc_cpu_products *p)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(p->threads);
    return before;
}

static void leave(int before)
{
    omp_set_num_threads(before);
}

/* Points q's memory objects at g's data and runs it. */
static void execute(struct fc_cpu_products *p, struct product *q, const struct fc_gemm *g,
                    struct fc_error *err)
{
    /* oneDNN takes every handle as writable; all but y are only read. */
    void *a, *b, *bias;
    memcpy(&a, &g->a, sizeof a);
    memcpy(&b, &g->b, sizeof b);
    memcpy(&bias, &g->bias, sizeof bias);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, q->a},
                                    {DNNL_ARG_WEIGHTS, q->b},
                                    {DNNL_ARG_DST, q->y},
                                    {DNNL_ARG_SCRATCHPAD, q->scratch},
                                    {DNNL_ARG_BIAS, q->bias}};
    if (check(err, dnnl_memory_set_data_handle(q->a, a), "handle of a") &&
        check(err, dnnl_memory_set_data_handle(q->b, b), "handle of b") &&
        check(err, dnnl_memory_set_data_handle(q->y, g->y), "handle of y") &&
        (!bias || check(err, dnnl_memory_set_data_handle(q->bias, bias), "handle of bias")) &&
        check(err, dnnl_memory_set_data_handle(q->scratch, p->scratchpad), "scratchpad"))
        check(err, dnnl_primitive_execute(q->primitive, p->stream, bias ? 5 : 4, args), "matmul");
}

static bool product(struct fc_stream *s, const struct fc_gemm *g, const struct fc_layout *packed,
                    bool run)
{
    struct fc_cpu_products *p = s->products;
    int before = enter(p);
    struct product *q = find(p, g, packed, &s->error);
    if (q)
        q->used = ++p->tick;
    if (q && q->primitive && run)
        execute(p, q, g, &s->error);
    leave(before);
    return q && q->primitive && fc_cpu_ok(s);
}

bool fc_cpu_product(struct fc_stream *s, const struct fc_gemm *g, const struct fc_layout *packed)
{
    return product(s, g, packed, true);
}

bool fc_cpu_product_ready(struct fc_stream *s, const struct fc_gemm *g,
                          const struct fc_layout *packed)
{
    return product(s, g, packed, false);
}

/* ---- packed weights ------------------------------------------------------------------------- */

bool fc_cpu_product_layout(struct fc_stream *s, size_t m, size_t n, size_t k, enum fc_dtype dt,
                           struct fc_layout *layout, size_t *bytes)
{
    struct fc_cpu_products *p = s->products;
    struct fc_gemm g = {.m = m, .n = n, .k = k, .lda = k, .ldy = n, .type = dt, .y_type = FC_F32};
    struct fc_layout any = {0};
    dnnl_dims_t dims = {(dnnl_dim_t)k, (dnnl_dim_t)n};
    dnnl_primitive_desc_t pd = NULL;
    int before = enter(p);
    bool ok = check(&s->error, fc_layout_any(&any, dims, data_type(dt)), "free layout") &&
              (pd = describe(p, &g, &any, &s->error)) != NULL;
    leave(before);
    if (ok) {
        fc_layout_ref chosen = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        *bytes = dnnl_memory_desc_get_size(chosen);
        ok = check(&s->error, fc_layout_clone(layout, chosen), "layout copy");
        dnnl_primitive_desc_destroy(pd);
    }
    fc_layout_free(&any);
    return ok;
}

bool fc_cpu_product_reorder(struct fc_stream *s, void *to, const struct fc_layout *layout,
                            const void *w, size_t n, size_t k, enum fc_dtype dt)
{
    struct fc_cpu_products *p = s->products;
    struct fc_error *err = &s->error;
    struct fc_layout plain = {0};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t in = NULL, out = NULL;
    void *source;
    memcpy(&source, &w, sizeof source);
    int before = enter(p);
    bool ok = matrix(&plain, k, n, k, true, dt, err) &&
              check(err,
                    dnnl_reorder_primitive_desc_create(&pd, fc_layout_of(&plain), p->engine,
                                                       fc_layout_of(layout), p->engine, NULL),
                    "reorder description") &&
              check(err, dnnl_primitive_create(&reorder, pd), "reorder creation") &&
              check(err, dnnl_memory_create(&in, fc_layout_of(&plain), p->engine, source),
                    "source of reorder") &&
              check(err, dnnl_memory_create(&out, fc_layout_of(layout), p->engine, to),
                    "target of reorder");
    if (ok) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, in}, {DNNL_ARG_TO, out}};
        ok = check(err, dnnl_primitive_execute(reorder, p->stream, 2, args), "reorder");
    }
    leave(before);
    if (in)
        dnnl_memory_destroy(in);
    if (out)
        dnnl_memory_destroy(out);
    if (reorder)
        dnnl_primitive_destroy(reorder);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    fc_layout_free(&plain);
    return ok;
}
