/* The checks that every test of matrix products makes, for whatever path computes them. */
#ifndef FC_TESTS_KERNELS_PRODUCTS_H
#define FC_TESTS_KERNELS_PRODUCTS_H

#include "tests/kernels/harness.h"

/* A matrix of rows whose distance is `ld`; what lies between their ends is NaN and must neither
 * enter a result nor change. */
static inline struct kt_array kt_matrix(struct kt *t, size_t rows, size_t cols, size_t ld, int kind)
{
    struct kt_array a = kt_array(t, rows * ld, kind);
    double *v = kt_malloc(rows * ld * sizeof *v);
    uint64_t stream = t->draws++;
    for (size_t i = 0; i < rows * ld; i++)
        v[i] = i % ld < cols ? 2.0 * (double)fc_philox_uniform(99, stream, i) - 1.0 : (double)NAN;
    kt_put(t, &a, v);
    free(v);
    return a;
}

/* want[m, ldy] += times * op(a) op(b). */
static inline void kt_product(double *want, const struct fc_gemm *g, const double *a,
                              const double *b, double times)
{
    for (size_t i = 0; i < g->m; i++)
        for (size_t j = 0; j < g->n; j++) {
            double sum = 0;
            for (size_t p = 0; p < g->k; p++)
                sum += a[g->trans_a ? p * g->lda + i : i * g->lda + p] *
                       b[g->trans_b ? j * g->ldb + p : p * g->ldb + j];
            want[i * g->ldy + j] += times * sum;
        }
}

/* One product against fp64, rows `pad` elements further apart than they are long; every second
 * plain one with a bias. Run twice: a plain product must overwrite, an accumulated one add twice.
 */
static inline void kt_check_gemm(struct kt *t, struct fc_gemm g, size_t pad)
{
    g.lda = (g.trans_a ? g.m : g.k) + pad;
    g.ldb = (g.trans_b ? g.k : g.n) + pad;
    g.ldy = g.n + pad;
    struct kt_array a =
        kt_matrix(t, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda, (int)g.type);
    struct kt_array b =
        kt_matrix(t, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb, (int)g.type);
    struct kt_array y = g.accumulate ? kt_matrix(t, g.m, g.n, g.ldy, (int)g.y_type)
                                     : kt_array(t, g.m * g.ldy, (int)g.y_type);
    bool biased = !g.accumulate && (g.m + g.n + pad / 4) % 2;
    struct kt_array bias = kt_random(t, g.n, (int)g.type, 1);
    double *want = kt_malloc(y.n * sizeof *want);
    for (size_t i = 0; i < y.n; i++)
        want[i] = i % g.ldy >= g.n ? (double)NAN
                  : g.accumulate   ? y.ref[i]
                  : biased         ? bias.ref[i % g.ldy]
                                   : 0.0;
    kt_product(want, &g, a.ref, b.ref, g.accumulate ? 2.0 : 1.0);
    if (biased)
        g.bias = bias.p;
    g.a = a.p;
    g.b = b.p;
    g.y = y.p;
    t->k->gemm(t->s, &g);
    t->k->gemm(t->s, &g);
    char what[160];
    snprintf(what, sizeof what, "gemm m %zu n %zu k %zu%s%s%s%s %s to %s pad %zu", g.m, g.n, g.k,
             g.trans_a ? " a^T" : "", g.trans_b ? " b^T" : "", g.accumulate ? " +=" : "",
             biased ? " + bias" : "", fc_dtype_name(g.type), fc_dtype_name(g.y_type), pad);
    kt_check(t, &y, want, sqrt((double)g.k), what);
    free(want);
}

/* All transpositions and output types of one shape and input type. */
static inline void kt_check_gemm_kinds(size_t m, size_t n, size_t k, enum fc_dtype type)
{
    struct kt t;
    kt_open(&t);
    for (int kind = 0; kind < 12; kind++)
        kt_check_gemm(&t,
                      (struct fc_gemm){.m = m,
                                       .n = n,
                                       .k = k,
                                       .trans_a = kind & 1,
                                       .trans_b = kind & 2,
                                       .accumulate = kind / 4 == 2,
                                       .type = type,
                                       .y_type = kind / 4 == 1 ? type : FC_F32},
                      (size_t)(kind % 3) * 4);
    kt_close(&t);
}

/* A product with packed weights against fp64. */
static inline void kt_check_packed(size_t m, size_t n, size_t k, enum fc_dtype type,
                                   enum fc_dtype y_type)
{
    struct kt t;
    kt_open(&t);
    struct kt_array x = kt_random(&t, m * k, (int)type, 1.0);
    struct kt_array w = kt_random(&t, n * k, (int)type, 1.0);
    struct kt_array y = kt_array(&t, m * n, (int)y_type);
    struct fc_packed *packed = t.k->pack(t.s, w.p, n, k, type);
    kt_sync(&t);
    assert_non_null(packed);
    t.k->zero(t.s, w.p, w.bytes); /* the source is no longer needed */
    kt_mark(&t, &w, false);
    t.k->gemm_packed(t.s, y.p, y_type, x.p, packed, m);
    double *want = kt_malloc(m * n * sizeof *want);
    memset(want, 0, m * n * sizeof *want);
    struct fc_gemm g = {.m = m, .n = n, .k = k, .lda = k, .ldb = k, .ldy = n, .trans_b = true};
    kt_product(want, &g, x.ref, w.ref, 1.0);
    char what[120];
    snprintf(what, sizeof what, "packed m %zu n %zu k %zu %s to %s", m, n, k, fc_dtype_name(type),
             fc_dtype_name(y_type));
    kt_check(&t, &y, want, sqrt((double)k), what);
    free(want);
    t.k->unpack(t.s, packed);
    kt_close(&t);
}

/* The product of one shape computed with `threads`, in the device order of bytes. */
static inline void *kt_bits_with_threads(int threads, struct fc_gemm g)
{
    struct kt t;
    kt_open_threads(&t, threads);
    g.lda = g.trans_a ? g.m : g.k;
    g.ldb = g.trans_b ? g.k : g.n;
    g.ldy = g.n;
    struct kt_array a = kt_random(&t, g.m * g.k, (int)g.type, 1);
    struct kt_array b = kt_random(&t, g.k * g.n, (int)g.type, 1);
    struct kt_array y = kt_array(&t, g.m * g.n, FC_F32);
    g.a = a.p;
    g.b = b.p;
    g.y = y.p;
    t.k->gemm(t.s, &g);
    void *bits = kt_raw(&t, &y);
    kt_close(&t);
    return bits;
}

/* 1, 2, 3 and 16 threads give the same bits for the products of a training step. */
static inline void kt_check_gemm_threads(enum fc_dtype type)
{
    const struct fc_gemm products[] = {
        {.m = 100, .n = 576, .k = 192, .trans_b = true}, /* forward */
        {.m = 65, .n = 72, .k = 1536},                   /* backward to the input */
        {.m = 96, .n = 80, .k = 1001, .trans_a = true},  /* to the weights: long k, small m n */
        {.m = 33, .n = 40, .k = 4001, .trans_a = true, .trans_b = true},
        {.m = 100, .n = 40, .k = 4096, .trans_a = true}, /* oneDNN would share k among threads */
    };
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        struct fc_gemm g = products[i];
        g.type = type;
        void *one = kt_bits_with_threads(1, g);
        for (int threads = 2; threads <= 16; threads = threads == 3 ? 16 : threads + 1) {
            void *many = kt_bits_with_threads(threads, g);
            if (memcmp(one, many, g.m * g.n * 4) != 0)
                fail_msg("product %zu in %s: %d threads change the bits", i, fc_dtype_name(type),
                         threads);
            free(many);
        }
        free(one);
    }
}

/* One set of weights and inputs, and the bits of all rows from one product of all of them. */
struct kt_rows {
    struct kt t;
    struct fc_packed *w;
    struct kt_array x, y;
    size_t m, n, k;
    enum fc_dtype type, y_type;
    unsigned char *bits; /* of y */
    size_t row_bytes;
};

static inline void kt_rows_open(struct kt_rows *r, int threads, size_t m, size_t n, size_t k,
                                enum fc_dtype type, enum fc_dtype y_type)
{
    *r = (struct kt_rows){.m = m, .n = n, .k = k, .type = type, .y_type = y_type};
    kt_open_threads(&r->t, threads);
    r->x = kt_random(&r->t, m * k, (int)type, 1);
    struct kt_array w = kt_random(&r->t, n * k, (int)type, 1);
    r->y = kt_array(&r->t, m * n, (int)y_type);
    r->w = r->t.k->pack(r->t.s, w.p, n, k, type);
    r->t.k->gemm_packed(r->t.s, r->y.p, y_type, r->x.p, r->w, m);
    r->bits = kt_raw(&r->t, &r->y);
    r->row_bytes = n * fc_dtype_size(y_type);
}

static inline void kt_rows_close(struct kt_rows *r)
{
    free(r->bits);
    r->t.k->unpack(r->t.s, r->w);
    kt_close(&r->t);
}

/* Computes the rows named by which[m] together and compares each with its bits. */
static inline void kt_check_rows(struct kt_rows *r, const size_t *which, size_t m)
{
    struct fc_error err = {0};
    size_t in = r->k * fc_dtype_size(r->type);
    char *x = r->t.k->alloc(r->t.s, m * in, &err),
         *y = r->t.k->alloc(r->t.s, m * r->row_bytes, &err);
    assert_true(x && y);
    unsigned char *got = kt_malloc(m * r->row_bytes);
    for (size_t i = 0; i < m; i++)
        r->t.k->copy(r->t.s, x + i * in, (char *)r->x.p + which[i] * in, in);
    r->t.k->gemm_packed(r->t.s, y, r->y_type, x, r->w, m);
    r->t.k->download(r->t.s, got, y, m * r->row_bytes);
    kt_sync(&r->t);
    for (size_t i = 0; i < m; i++)
        if (memcmp(got + i * r->row_bytes, r->bits + which[i] * r->row_bytes, r->row_bytes) != 0)
            fail_msg("n %zu k %zu %s: row %zu has other bits as row %zu of %zu", r->n, r->k,
                     fc_dtype_name(r->type), which[i], i, m);
    free(got);
    r->t.k->free(r->t.s, x);
    r->t.k->free(r->t.s, y);
}

/* Every m from 1 to 100, rows in an order that changes with m; then some alone. */
static inline void kt_check_invariance(size_t n, size_t k, enum fc_dtype type, enum fc_dtype y_type,
                                       size_t step)
{
    struct kt_rows r;
    size_t which[100];
    kt_rows_open(&r, 2, 100, n, k, type, y_type);
    for (size_t m = 1; m <= 100; m += step) {
        for (size_t i = 0; i < m; i++)
            which[i] = (i * 37 + m * 11) % 100;
        kt_check_rows(&r, which, m);
    }
    kt_rows_close(&r);
}

/* The same with packed weights. */
static inline void kt_check_packed_threads(size_t m, size_t n, size_t k, enum fc_dtype type)
{
    for (int threads = 2; threads <= 16; threads = threads == 3 ? 16 : threads + 1) {
        struct kt_rows one, many;
        kt_rows_open(&one, 1, m, n, k, type, FC_F32);
        kt_rows_open(&many, threads, m, n, k, type, FC_F32);
        if (memcmp(one.bits, many.bits, m * one.row_bytes) != 0)
            fail_msg("%d threads change the bits in %s", threads, fc_dtype_name(type));
        kt_rows_close(&one);
        kt_rows_close(&many);
    }
}

#endif
