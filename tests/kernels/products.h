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

/* One product against fp64, rows `pad` elements further apart than they are long. Run twice: a
 * plain product must overwrite, an accumulated one add twice. */
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
    double *want = kt_malloc(y.n * sizeof *want);
    for (size_t i = 0; i < y.n; i++)
        want[i] = i % g.ldy >= g.n ? (double)NAN : g.accumulate ? y.ref[i] : 0.0;
    kt_product(want, &g, a.ref, b.ref, g.accumulate ? 2.0 : 1.0);
    g.a = a.p;
    g.b = b.p;
    g.y = y.p;
    t->k->gemm(t->s, &g);
    t->k->gemm(t->s, &g);
    char what[160];
    snprintf(what, sizeof what, "gemm m %zu n %zu k %zu%s%s%s %s to %s pad %zu", g.m, g.n, g.k,
             g.trans_a ? " a^T" : "", g.trans_b ? " b^T" : "", g.accumulate ? " +=" : "",
             fc_dtype_name(g.type), fc_dtype_name(g.y_type), pad);
    kt_check(t, &y, want, sqrt((double)g.k), what);
    free(want);
}

/* All transpositions and output types of one shape and input type. */
static inline void kt_check_gemm_kinds(size_t m, size_t n, size_t k, enum fc_dtype type)
{
    for (int kind = 0; kind < 12; kind++) {
        struct kt t;
        kt_open(&t);
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

#endif
