/* What every kernel test needs: guarded and poisoned device arrays, random inputs, comparison with
 * an fp64 reference.
 *
 * A test never touches device memory itself, only through upload and download, so the same program
 * tests another back end when it is compiled with -DFC_TEST_KERNELS=fc_kernels_NAME.
 *
 * Use: struct kt t; kt_open(&t); struct kt_array x = kt_random(&t, n, FC_BF16, 1.0), y =
 * kt_array(&t, n, FC_BF16); t.k->...(t.s, y.p, x.p, ...); compute want[] from x.ref;
 * kt_check(&t, &y, want, scale); kt_close(&t).
 *
 * - Every array has 64 guard bytes on both sides, checked by kt_read, kt_check and kt_close (which
 *   also frees everything); inputs are checked not to have changed unless kt_read was called.
 * - Fresh arrays hold 0xff bytes: NaN in every float format, -1 in int32.
 * - x.ref holds in fp64 exactly what the device holds, after rounding to the dtype. */
#ifndef FC_TESTS_KERNELS_HARNESS_H
#define FC_TESTS_KERNELS_HARNESS_H

#include "base/dtype.h"
#include "base/philox.h"
#include "kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef FC_TEST_KERNELS
#define FC_TEST_KERNELS fc_kernels_cpu
#endif

enum { KT_GUARD = 64, KT_ARRAYS = 256 };

struct kt_array {
    void *p;      /* device memory */
    size_t n;     /* elements */
    size_t bytes; /* of the payload */
    int kind;     /* enum fc_dtype, or one of the kinds below */
    double *ref;  /* n values: what was put there, or what kt_read found */
    bool input;   /* holds ref until somebody reads it as an output */
};
enum { KT_INT32 = 100, KT_FLOAT64 = 101 };

struct kt {
    const struct fc_kernels *k;
    struct fc_stream *s;
    uint64_t draws; /* streams of philox used so far */
    struct kt_array arrays[KT_ARRAYS];
    size_t n_arrays;
};

static inline void kt_open_threads(struct kt *t, int threads)
{
    struct fc_error err = {0};
    memset(t, 0, sizeof *t);
    t->k = &FC_TEST_KERNELS;
    t->s = t->k->stream_open(0, threads, &err);
    if (!t->s && err.code == FC_ERR_UNSUPPORTED) { /* no such device here: skipped, not passed */
        printf("skipped: %s\n", err.text);
        exit(77);
    }
    if (!t->s)
        fail_msg("stream_open: %s", err.text);
}

/* The stream of kt_open, shared by the checks of a program: opening one takes memory that costs
 * more than most checks where it is simulated and poisoned. */
static struct fc_stream *kt_shared;

static inline void kt_close_shared(void)
{
    FC_TEST_KERNELS.stream_close(kt_shared);
}

/* Two threads: even a test machine with one core runs the threaded paths. */
static inline void kt_open(struct kt *t)
{
    struct fc_error failed = {0};
    if (!kt_shared) {
        kt_open_threads(t, 2);
        kt_shared = t->s;
        (void)atexit(kt_close_shared);
        return;
    }
    memset(t, 0, sizeof *t);
    t->k = &FC_TEST_KERNELS;
    t->s = kt_shared;
    (void)t->k->sync(t->s, &failed); /* what a check that failed before left there */
}

static inline void kt_sync(struct kt *t)
{
    struct fc_error err = {0};
    if (t->k->sync(t->s, &err) != FC_OK)
        fail_msg("sync: %s", err.text);
}

static inline size_t kt_size(int kind)
{
    return kind == KT_INT32 ? 4 : kind == KT_FLOAT64 ? 8 : fc_dtype_size((enum fc_dtype)kind);
}

/* Zeroed host memory. */
static inline void *kt_malloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p)
        fail_msg("out of memory: %zu bytes", bytes);
    return p;
}

static inline double kt_decode(const void *p, size_t i, int kind)
{
    if (kind == KT_INT32)
        return (double)((const int32_t *)p)[i];
    if (kind == KT_FLOAT64)
        return ((const double *)p)[i];
    if (kind == FC_F32)
        return (double)((const float *)p)[i];
    if (kind == FC_F16)
        return (double)fc_f16_to_f32(((const uint16_t *)p)[i]);
    return (double)fc_bf16_to_f32(((const uint16_t *)p)[i]);
}

static inline void kt_encode(void *p, size_t i, int kind, double value)
{
    if (kind == KT_INT32)
        ((int32_t *)p)[i] = (int32_t)value;
    else if (kind == KT_FLOAT64)
        ((double *)p)[i] = value;
    else if (kind == FC_F32)
        ((float *)p)[i] = (float)value;
    else if (kind == FC_F16)
        ((uint16_t *)p)[i] = fc_f32_to_f16((float)value);
    else
        ((uint16_t *)p)[i] = fc_f32_to_bf16((float)value);
}

/* v as an array of that kind holds it. */
static inline double kt_round(double v, int kind)
{
    double place;
    kt_encode(&place, 0, kind, v);
    return kt_decode(&place, 0, kind);
}

/* The largest error of rounding to the kind, relative to the value. */
static inline double kt_roundoff(int kind)
{
    return kind == FC_BF16 ? 0x1p-8 : kind == FC_F16 ? 0x1p-11 : 0x1p-24;
}

/* The dtypes of activations that the back end under test has; tests loop over them. */
static const enum fc_dtype kt_dtypes[] = {FC_F32, FC_BF16, FC_F16};
static inline size_t kt_n_dtypes(void)
{
    return strcmp(FC_TEST_KERNELS.name, "cpu") == 0 ? 2 : 3; /* fp16 is CUDA's only */
}

/* n elements of poison. `kind`: a dtype, KT_INT32 or KT_FLOAT64. */
static inline struct kt_array kt_array(struct kt *t, size_t n, int kind)
{
    struct fc_error err = {0};
    struct kt_array a = {.n = n, .bytes = n * kt_size(kind), .kind = kind};
    size_t total = a.bytes + 2 * KT_GUARD;
    char *base = t->k->alloc(t->s, total, &err);
    if (!base || t->n_arrays == KT_ARRAYS)
        fail_msg("alloc: %s", base ? "more arrays than KT_ARRAYS" : err.text);
    unsigned char *fill = kt_malloc(total);
    memset(fill, 0xff, total);
    memset(fill, 0xa5, KT_GUARD);
    memset(fill + total - KT_GUARD, 0xa5, KT_GUARD);
    t->k->upload(t->s, base, fill, total);
    kt_sync(t);
    free(fill);
    a.p = base + KT_GUARD;
    a.ref = kt_malloc(n * sizeof(double));
    for (size_t i = 0; i < n; i++)
        a.ref[i] = (double)NAN;
    t->arrays[t->n_arrays++] = a;
    return a;
}

/* Marks what the harness owns of `a` as input or output. */
static inline void kt_mark(struct kt *t, const struct kt_array *a, bool input)
{
    for (size_t i = 0; i < t->n_arrays; i++)
        if (t->arrays[i].p == a->p)
            t->arrays[i].input = input;
}

/* Puts values, rounded to the array's dtype, on the device; a->ref becomes the rounded values. */
static inline void kt_put(struct kt *t, struct kt_array *a, const double *values)
{
    void *host = kt_malloc(a->bytes);
    for (size_t i = 0; i < a->n; i++) {
        kt_encode(host, i, a->kind, values[i]);
        a->ref[i] = kt_decode(host, i, a->kind);
    }
    t->k->upload(t->s, a->p, host, a->bytes);
    kt_sync(t);
    free(host);
    kt_mark(t, a, true);
}

/* Uniform in [-scale, scale), a different stream of Philox for every array of a test. */
static inline struct kt_array kt_random(struct kt *t, size_t n, int kind, double scale)
{
    struct kt_array a = kt_array(t, n, kind);
    double *values = kt_malloc(n * sizeof *values);
    uint64_t stream = t->draws++;
    for (size_t i = 0; i < n; i++)
        values[i] = scale * (2.0 * (double)fc_philox_uniform(1234, stream, i) - 1.0);
    kt_put(t, &a, values);
    free(values);
    return a;
}

static inline struct kt_array kt_constant(struct kt *t, size_t n, int kind, double value)
{
    struct kt_array a = kt_array(t, n, kind);
    double *values = kt_malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = value;
    kt_put(t, &a, values);
    free(values);
    return a;
}

/* int32 values, for ids, positions, slots. */
static inline struct kt_array kt_ints(struct kt *t, const int32_t *values, size_t n)
{
    struct kt_array a = kt_array(t, n, KT_INT32);
    double *d = kt_malloc(n * sizeof *d);
    for (size_t i = 0; i < n; i++)
        d[i] = (double)values[i];
    kt_put(t, &a, d);
    free(d);
    return a;
}

/* A uniform integer below `bound`, a pure function of (seed, i). */
static inline int32_t kt_below(uint64_t seed, size_t i, size_t bound)
{
    return (int32_t)((double)fc_philox_uniform(seed, 77, i) * (double)bound);
}

/* Waits for the work, checks the guards and returns the raw payload; the caller frees it. */
static inline void *kt_raw(struct kt *t, const struct kt_array *a)
{
    size_t total = a->bytes + 2 * KT_GUARD;
    unsigned char *host = kt_malloc(total);
    t->k->download(t->s, host, (const char *)a->p - KT_GUARD, total);
    kt_sync(t);
    for (size_t i = 0; i < KT_GUARD; i++)
        if (host[i] != 0xa5 || host[total - 1 - i] != 0xa5)
            fail_msg("guard byte %zu of an array of %zu elements was overwritten", i, a->n);
    memmove(host, host + KT_GUARD, a->bytes);
    return host;
}

/* Waits for the work, checks the guards, and fills a->ref with what the device holds. */
static inline void kt_read(struct kt *t, struct kt_array *a)
{
    void *host = kt_raw(t, a);
    for (size_t i = 0; i < a->n; i++)
        a->ref[i] = kt_decode(host, i, a->kind);
    free(host);
    kt_mark(t, a, false);
}

/* Fails unless every element is within the tolerance of want[]: 1e-5 of `scale` (the natural size
 * of a result: what its terms sum to when none cancel), and for bf16 outputs also twice the
 * rounding of the result, 2 * 2^-9 |want| (fp16: 2 * 2^-12, subnormals 2^-24). NaN in want asks for
 * NaN. a->ref becomes what was found. */
static inline void kt_check_within(struct kt *t, struct kt_array *a, const double *want,
                                   double scale, double relative, const char *what)
{
    kt_read(t, a);
    double rounding = a->kind == FC_BF16 ? 0x1p-8 : a->kind == FC_F16 ? 0x1p-11 : 0.0;
    double smallest = a->kind == FC_F16 ? 0x1p-24 : 0.0;
    for (size_t i = 0; i < a->n; i++) {
        double got = a->ref[i], limit = relative * scale + rounding * fabs(want[i]) + smallest;
        bool same = isnan(want[i]) ? isnan(got) : got == want[i] || fabs(got - want[i]) <= limit;
        if (!same)
            fail_msg("%s: element %zu of %zu: expected %.9g, found %.9g (limit %.3g)", what, i,
                     a->n, want[i], got, limit);
    }
}

static inline void kt_check(struct kt *t, struct kt_array *a, const double *want, double scale,
                            const char *what)
{
    kt_check_within(t, a, want, scale, 1e-5, what);
}

/* Fails unless two arrays hold the same bits. */
static inline void kt_check_same_bits(struct kt *t, const struct kt_array *a,
                                      const struct kt_array *b, const char *what)
{
    assert_int_equal(a->bytes, b->bytes);
    unsigned char *x = kt_raw(t, a), *y = kt_raw(t, b);
    size_t i = 0;
    while (i < a->bytes && x[i] == y[i])
        i++;
    free(x);
    free(y);
    if (i < a->bytes)
        fail_msg("%s: element %zu of %zu has different bits", what, i / kt_size(a->kind), a->n);
}

/* Checks the guards of every array and that inputs still hold what was put; frees everything. */
static inline void kt_close(struct kt *t)
{
    for (size_t i = 0; i < t->n_arrays; i++) {
        struct kt_array *a = &t->arrays[i];
        void *host = kt_raw(t, a);
        for (size_t j = 0; a->input && j < a->n; j++) {
            double got = kt_decode(host, j, a->kind);
            if (got != a->ref[j] && !(isnan(got) && isnan(a->ref[j])))
                fail_msg("input array %zu: element %zu changed from %.9g to %.9g", i, j, a->ref[j],
                         got);
        }
        free(host);
        t->k->free(t->s, (char *)a->p - KT_GUARD);
        free(a->ref);
    }
    if (t->s != kt_shared)
        t->k->stream_close(t->s);
    memset(t, 0, sizeof *t);
}

#endif
