/* The inference pass: equal to the training pass, and the same bits for a row whatever else is in
 * the pass, however its prompt was cut, and whoever computed its prefix. */
#include "engine/batch.h"
#include "engine/decoder.h"
#include "engine/transformer.h"

#include "tests/engine/toy.h"

#include <math.h>

enum { PAGE = 8, N = 100, V = 199 };

struct rig {
    struct toy toy;
    struct fc_kv_cache *cache;
    struct fc_decoder *decoder;
    int32_t ids[N];
};

static void rig_open(struct rig *r, enum fc_dtype dtype, bool qwen)
{
    toy_random(&r->toy, dtype, qwen, 3);
    must(fc_kv_cache_create(&r->cache, &r->toy.model, PAGE, 200, why));
    struct fc_decoder_limits limits = {.rows = 2 * N + 32, .logits = 2 * N};
    must(fc_decoder_create(&r->decoder, &r->toy.model, r->cache, &limits, why));
    toy_ids(&r->toy, r->ids, N, 5);
}

static void rig_close(struct rig *r)
{
    fc_decoder_free(r->decoder);
    fc_kv_cache_free(r->cache);
    toy_close(&r->toy);
}

static void download_logits(struct rig *r, float *logits, size_t first, size_t n)
{
    const struct fc_kernels *k = r->toy.dev.k;
    const float *device = fc_decoder_logits(r->decoder, first, n);
    k->download(r->toy.dev.stream, logits, device, n * V * sizeof *logits);
    must(k->sync(r->toy.dev.stream, why));
}

/* Logits [N, V] of the rig's sequence, computed `chunk` tokens a pass after `others` rows of other
 * sequences. */
static void compute(struct rig *r, size_t chunk, size_t others, float *logits)
{
    int32_t table[(N + PAGE - 1) / PAGE], other[2][(N + PAGE - 1) / PAGE], noise[N];
    const size_t pages = sizeof table / sizeof table[0];
    assert_true(fc_kv_cache_take(r->cache, r->ids, 0, pages, table));
    for (int o = 0; o < 2; o++)
        assert_true(fc_kv_cache_take(r->cache, r->ids, 0, pages, other[o]));
    toy_ids(&r->toy, noise, N, 1000 + chunk);
    for (size_t at = 0; at < N; at += chunk) {
        size_t n = N - at < chunk ? N - at : chunk;
        fc_decoder_begin(r->decoder);
        for (size_t i = 0; i < others; i++)
            assert_int_equal(fc_decoder_add(r->decoder, noise[i / 2], i / 2, other[i % 2]), i);
        for (size_t i = 0; i < n; i++) {
            size_t row = fc_decoder_add(r->decoder, r->ids[at + i], at + i, table);
            assert_int_equal(row, others + i);
            assert_int_equal(fc_decoder_keep(r->decoder, row), i);
        }
        fc_decoder_run(r->decoder);
        download_logits(r, logits + at * V, 0, n);
    }
    for (int o = 0; o < 2; o++)
        fc_kv_cache_give(r->cache, other[o], pages);
    fc_kv_cache_give(r->cache, table, pages);
}

/* Logits of all N positions by the training pass, which has no cache. */
static void compute_by_training_pass(struct rig *r, float *logits)
{
    struct fc_transformer *t = NULL;
    struct fc_batch b = {0};
    int32_t ids[N + 1];
    memcpy(ids, r->ids, sizeof r->ids);
    ids[N] = 0;
    struct fc_sample sample = {.ids = ids, .n = N + 1, .first_target = 1};
    must(fc_transformer_create(&t, &r->toy.model, N + 1, why));
    must(fc_batch_create(&b, N + 1, why));
    assert_true(fc_batch_add(&b, &sample, 1));
    assert_int_equal(b.n_targets, N);
    must(fc_transformer_logits(t, &b, logits, why));
    fc_batch_free(&b);
    fc_transformer_free(t);
}

static double nmse(const float *x, const float *truth, size_t n)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)x[i] - (double)truth[i]) * ((double)x[i] - (double)truth[i]);
        power += (double)truth[i] * (double)truth[i];
    }
    return error / power;
}

static void check(enum fc_dtype dtype, bool qwen, double tolerance)
{
    static float first[N * V], again[N * V], truth[N * V];
    struct rig r = {0};
    rig_open(&r, dtype, qwen);
    compute(&r, N, 0, first);
    compute_by_training_pass(&r, truth);
    double error = nmse(first, truth, N * V);
    if (!(error <= tolerance))
        fail_msg("NMSE against the training pass %g, expected at most %g", error, tolerance);
    const struct {
        size_t chunk, others;
    } cuts[] = {{1, 0}, {7, 0}, {16, 31}, {32, 1}, {33, 64}, {N, 132}};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        memset(again, 0xff, sizeof again);
        compute(&r, cuts[i].chunk, cuts[i].others, again);
        if (memcmp(first, again, sizeof first) != 0)
            fail_msg("chunks of %zu beside %zu rows: other bits, NMSE %g", cuts[i].chunk,
                     cuts[i].others, nmse(again, first, N * V));
    }
    rig_close(&r);
}

static void llama_fp32(void **state)
{
    (void)state;
    check(FC_F32, false, 1e-11);
}

static void qwen_fp32(void **state)
{
    (void)state;
    check(FC_F32, true, 1e-11);
}

static void llama_bf16(void **state)
{
    (void)state;
    check(FC_BF16, false, 1e-3);
}

static void qwen_bf16(void **state)
{
    (void)state;
    check(FC_BF16, true, 1e-3);
}

/* Kept rows in any order and in slices; rows that nobody keeps. */
static void kept_rows(void **state)
{
    (void)state;
    static float all[N * V], some[N * V];
    struct rig r = {0};
    rig_open(&r, FC_F32, true);
    compute(&r, N, 0, all);
    const size_t wanted[3] = {N - 1, 0, 50};
    int32_t table[(N + PAGE - 1) / PAGE];
    assert_true(fc_kv_cache_take(r.cache, r.ids, 0, (N + PAGE - 1) / PAGE, table));
    fc_decoder_begin(r.decoder);
    for (size_t i = 0; i < N; i++)
        fc_decoder_add(r.decoder, r.ids[i], i, table);
    for (size_t i = 0; i < 3; i++)
        fc_decoder_keep(r.decoder, wanted[i]);
    fc_decoder_run(r.decoder);
    download_logits(&r, some, 0, 2);
    download_logits(&r, some + 2 * V, 2, 1);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(some + i * V, all + wanted[i] * V, V * sizeof(float));
    fc_decoder_begin(r.decoder); /* all of them, backwards */
    for (size_t i = 0; i < N; i++)
        fc_decoder_add(r.decoder, r.ids[i], i, table);
    for (size_t i = N; i-- > 0;)
        fc_decoder_keep(r.decoder, i);
    fc_decoder_run(r.decoder);
    download_logits(&r, some, 0, N);
    for (size_t i = 0; i < N; i++)
        assert_memory_equal(some + (N - 1 - i) * V, all + i * V, V * sizeof(float));
    rig_close(&r);
}

/* Two sequences share pages that are computed in the very pass that reads them. */
static void shares_pages_within_a_pass(void **state)
{
    (void)state;
    static float all[N * V], last[V];
    struct rig r = {0};
    rig_open(&r, FC_BF16, false);
    compute(&r, N, 0, all);
    enum { SHARED = N / PAGE, PAGES = (N + PAGE - 1) / PAGE };
    int32_t a[PAGES], b[PAGES];
    assert_true(fc_kv_cache_take(r.cache, r.ids, SHARED, PAGES, a));
    assert_true(fc_kv_cache_take(r.cache, r.ids, SHARED, PAGES, b));
    fc_decoder_begin(r.decoder);
    for (size_t i = SHARED * PAGE; i < N; i++) /* the reader's rows come first, even */
        fc_decoder_add(r.decoder, r.ids[i], i, b);
    fc_decoder_keep(r.decoder, fc_decoder_rows(r.decoder) - 1);
    for (size_t i = 0; i < SHARED * PAGE; i++)
        fc_decoder_add(r.decoder, r.ids[i], i, a);
    fc_decoder_run(r.decoder);
    download_logits(&r, last, 0, 1);
    assert_memory_equal(last, all + (N - 1) * V, sizeof last);
    rig_close(&r);
}

static void says_when_it_is_full(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_open(&r, FC_F32, false);
    struct fc_decoder *d = NULL;
    struct fc_decoder_limits limits = {.rows = 40, .logits = 1, .table_entries = 100};
    must(fc_decoder_create(&d, &r.toy.model, r.cache, &limits, why));
    int32_t table[64] = {0};
    fc_decoder_begin(d);
    for (size_t i = 0; i < 40; i++)
        assert_int_equal(fc_decoder_add(d, 1, 3, table), i);
    assert_int_equal(fc_decoder_add(d, 1, 3, table), FC_NO_ROW); /* out of rows */
    fc_decoder_begin(d);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(fc_decoder_add(d, 1, 10 * PAGE - 1, table), i);
    assert_int_equal(fc_decoder_add(d, 1, 0, table), FC_NO_ROW); /* 11 tables of 10 pages */
    fc_decoder_free(d);

    struct fc_error err = {0};
    limits.rows = 0;
    assert_int_equal(fc_decoder_create(&d, &r.toy.model, r.cache, &limits, &err), FC_ERR_USAGE);
    limits.rows = 8;
    fc_model_unpack(&r.toy.model);
    err = (struct fc_error){0};
    assert_int_equal(fc_decoder_create(&d, &r.toy.model, r.cache, &limits, &err), FC_ERR_USAGE);
    assert_non_null(strstr(err.text, "packed"));
    assert_null(d);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_fp32),
        cmocka_unit_test(qwen_fp32),
        cmocka_unit_test(llama_bf16),
        cmocka_unit_test(qwen_bf16),
        cmocka_unit_test(kept_rows),
        cmocka_unit_test(shares_pages_within_a_pass),
        cmocka_unit_test(says_when_it_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
