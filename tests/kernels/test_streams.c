/* Streams of two host threads at the same time, with different numbers of threads, as in a process
 * that serves and trains: every result has the bits of a stream alone, and weights packed once
 * serve both. */
#include "tests/kernels/harness.h"

#include <pthread.h>

enum { M = 45, N = 96, K = 130, ROUNDS = 20 };

/* One host thread: its stream, and the bits it must find in every round. */
struct worker {
    struct kt t;
    struct kt_array x, w, y, z, norm, gain;
    const struct fc_packed *packed;
    void *product, *packed_product, *normed;
    size_t wrong;
    pthread_t thread;
};

static void compute(struct worker *r)
{
    const struct fc_kernels *k = r->t.k;
    const struct fc_gemm g = {.a = r->x.p,
                              .b = r->w.p,
                              .y = r->y.p,
                              .m = M,
                              .n = N,
                              .k = K,
                              .lda = K,
                              .ldb = K,
                              .ldy = N,
                              .trans_b = true,
                              .type = FC_BF16,
                              .y_type = FC_F32};
    k->gemm(r->t.s, &g);
    k->gemm_packed(r->t.s, r->z.p, FC_F32, r->x.p, r->packed, M);
    k->rmsnorm_forward(r->t.s, r->norm.p, r->x.p, NULL, NULL, r->gain.p, 1e-5f, M, K, FC_BF16);
}

/* cmocka's assertions belong to the main thread, so differences are only counted here. */
static size_t differs(struct worker *r, const struct kt_array *a, const void *want)
{
    unsigned char *got = malloc(a->bytes);
    if (!got)
        return 1;
    struct fc_error err = {0};
    r->t.k->download(r->t.s, got, a->p, a->bytes);
    bool wrong = r->t.k->sync(r->t.s, &err) != FC_OK || memcmp(got, want, a->bytes) != 0;
    free(got);
    return wrong;
}

static void *work(void *argument)
{
    struct worker *r = argument;
    for (int i = 0; i < ROUNDS; i++) {
        compute(r);
        r->wrong += differs(r, &r->y, r->product) + differs(r, &r->z, r->packed_product) +
                    differs(r, &r->norm, r->normed);
    }
    return NULL;
}

static void open_worker(struct worker *r, int threads)
{
    memset(r, 0, sizeof *r);
    kt_open_threads(&r->t, threads);
    r->x = kt_random(&r->t, M * K, FC_BF16, 1);
    r->w = kt_random(&r->t, N * K, FC_BF16, 1);
    r->gain = kt_random(&r->t, K, FC_BF16, 1);
    r->y = kt_array(&r->t, M * N, FC_F32);
    r->z = kt_array(&r->t, M * N, FC_F32);
    r->norm = kt_array(&r->t, M * K, FC_BF16);
}

static void test_two_at_once(void **state)
{
    (void)state;
    struct worker r[2];
    open_worker(&r[0], 1);
    open_worker(&r[1], 3);
    struct fc_packed *packed = r[0].t.k->pack(r[0].t.s, r[0].w.p, N, K, FC_BF16);
    kt_sync(&r[0].t);
    for (int i = 0; i < 2; i++) {
        r[i].packed = packed;
        compute(&r[i]);
        r[i].product = kt_raw(&r[i].t, &r[i].y);
        r[i].packed_product = kt_raw(&r[i].t, &r[i].z);
        r[i].normed = kt_raw(&r[i].t, &r[i].norm);
    }
    /* Both hold the same inputs, so also the same bits. */
    assert_memory_equal(r[0].product, r[1].product, r[0].y.bytes);
    assert_memory_equal(r[0].packed_product, r[1].packed_product, r[0].z.bytes);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&r[i].thread, NULL, work, &r[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(r[i].thread, NULL), 0);
    r[0].t.k->unpack(r[0].t.s, packed);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r[i].wrong, 0);
        free(r[i].product);
        free(r[i].packed_product);
        free(r[i].normed);
        kt_close(&r[i].t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
