/* Attention over a paged cache against fp64, and its promise: a row's bits do not depend on the
 * rows beside it, the threads, or where its pages lie. */
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/harness.h"

enum { MAX_ROWS = 300 };

/* A cache and rows over it. Slots that no row owns stay NaN, and so do page numbers that no row
 * needs (-1): reading one shows. */
struct cache {
    struct kt t;
    struct fc_heads h;
    enum fc_dtype dt;
    size_t page_size, pages, kv;
    struct kt_array keys, values;
    struct fc_pages p;
    size_t width; /* of tables */
    size_t rows;
    int32_t lengths[MAX_ROWS], *tables;
    size_t next_page;
};

static void open_cache(struct cache *c, struct fc_heads h, enum fc_dtype dt, size_t page_size,
                       size_t tokens, int threads)
{
    memset(c, 0, sizeof *c);
    kt_open_threads(&c->t, threads);
    c->h = h;
    c->dt = dt;
    c->page_size = page_size;
    c->pages = (tokens + page_size - 1) / page_size;
    c->kv = h.nkv * h.hs;
    c->width = c->pages + 1;
    c->keys = kt_array(&c->t, c->pages * page_size * c->kv, (int)dt);
    c->values = kt_array(&c->t, c->pages * page_size * c->kv, (int)dt);
    c->p = (struct fc_pages){c->keys.p, c->values.p, page_size};
    c->tables = kt_malloc(MAX_ROWS * c->width * sizeof *c->tables);
    memset(c->tables, 0xff, MAX_ROWS * c->width * sizeof *c->tables);
}

static void close_cache(struct cache *c)
{
    free(c->tables);
    kt_close(&c->t);
}

/* Pages are handed out in an order that is not that of memory: 7 is prime to the page count. */
static int32_t fresh_page(struct cache *c)
{
    while (c->pages % 7 == 0)
        c->pages--;
    assert_true(c->next_page < c->pages);
    return (int32_t)(c->next_page++ * 7 % c->pages);
}

static int32_t slot_of(const struct cache *c, size_t row, size_t token)
{
    int32_t page = c->tables[row * c->width + token / c->page_size];
    return page * (int32_t)c->page_size + (int32_t)(token % c->page_size);
}

/* Token `token` of text `seed`, as the fused row that a model would give it. */
static void token_row(const struct cache *c, uint64_t seed, size_t token, double *qkv)
{
    for (size_t i = 0; i < ref_width(&c->h); i++)
        qkv[i] = 4.0 * (double)fc_philox_uniform(99, seed, token * 4096 + i) - 2.0;
}

/* Writes tokens first .. last of text `seed` into the pages of `row`. */
static void write_tokens(struct cache *c, size_t row, uint64_t seed, size_t first, size_t last)
{
    size_t n = last - first, w = ref_width(&c->h);
    double *values = kt_malloc(n * w * sizeof *values);
    int32_t *slots = kt_malloc(n * sizeof *slots);
    for (size_t i = 0; i < n; i++) {
        token_row(c, seed, first + i, values + i * w);
        slots[i] = slot_of(c, row, first + i);
    }
    struct kt_array qkv = kt_array(&c->t, n * w, (int)c->dt), s = kt_ints(&c->t, slots, n);
    kt_put(&c->t, &qkv, values);
    c->t.k->cache_write(c->t.s, &c->p, qkv.p, s.p, n, &c->h, c->dt);
    kt_sync(&c->t);
    free(values);
    free(slots);
}

/* A new row of `length` tokens of text `seed`; the first `shared` are those of row `with`, in its
 * pages (shared must be whole pages). */
static size_t add_row(struct cache *c, uint64_t seed, size_t length, size_t with, size_t shared)
{
    size_t row = c->rows++;
    int32_t *table = c->tables + row * c->width;
    assert_int_equal(shared % c->page_size, 0);
    for (size_t i = 0; i * c->page_size < length; i++)
        table[i] = i * c->page_size < shared ? c->tables[with * c->width + i] : fresh_page(c);
    c->lengths[row] = (int32_t)length;
    if (length > shared)
        write_tokens(c, row, seed, shared, length);
    return row;
}

/* out[rows, nh hs] of rows first .. first + n; row i asks with the query of its last token of text
 * seeds[i]. */
static struct kt_array attend(struct cache *c, size_t first, size_t n, const uint64_t *seeds)
{
    size_t w = ref_width(&c->h);
    double *values = kt_malloc(n * w * sizeof *values);
    for (size_t i = 0; i < n; i++)
        token_row(c, seeds[i], (size_t)c->lengths[first + i] - 1, values + i * w);
    struct kt_array qkv = kt_array(&c->t, n * w, (int)c->dt);
    kt_put(&c->t, &qkv, values);
    free(values);
    struct kt_array tables = kt_ints(&c->t, c->tables + first * c->width, n * c->width);
    struct kt_array lengths = kt_ints(&c->t, c->lengths + first, n);
    struct kt_array out = kt_array(&c->t, n * c->h.nh * c->h.hs, (int)c->dt);
    c->t.k->paged_attention(c->t.s, out.p, qkv.p, &c->p, tables.p, c->width, lengths.p, n, &c->h,
                            c->dt);
    kt_sync(&c->t);
    return out;
}

/* Tensor cores multiply the values by probabilities that are rounded to the dtype, which costs its
 * roundoff of the values' sizes, `weighted`. The CPU keeps them in fp32. */
static void check_output(struct cache *c, struct kt_array *out, const double *want,
                         const double *weighted, const char *what)
{
    if (c->dt == FC_F32 || strcmp(FC_TEST_KERNELS.name, "cpu") == 0) {
        kt_check(&c->t, out, want, 1.0, what);
        return;
    }
    kt_read(&c->t, out);
    for (size_t i = 0; i < out->n; i++) {
        double limit = 1e-5 + kt_roundoff((int)c->dt) * (fabs(want[i]) + weighted[i]);
        if (!(fabs(out->ref[i] - want[i]) <= limit))
            fail_msg("%s: element %zu of %zu: expected %.9g, found %.9g (limit %.3g)", what, i,
                     out->n, want[i], out->ref[i], limit);
    }
}

/* The same in fp64, from what the cache holds. */
static void check_rows(struct cache *c, size_t first, size_t n, const uint64_t *seeds,
                       const char *what)
{
    struct kt_array out = attend(c, first, n, seeds);
    kt_read(&c->t, &c->keys);
    kt_read(&c->t, &c->values);
    size_t hs = c->h.hs, ow = c->h.nh * hs;
    double *want = kt_malloc(n * ow * sizeof *want), *weighted = kt_malloc(n * ow * sizeof *want);
    double *row = kt_malloc(ref_width(&c->h) * 8);
    for (size_t t = 0; t < n; t++) {
        size_t len = (size_t)c->lengths[first + t];
        double *k = kt_malloc(len * c->kv * 8), *v = kt_malloc(len * c->kv * 8),
               *p = kt_malloc(len * 8);
        for (size_t j = 0; j < len; j++) {
            size_t at = (size_t)slot_of(c, first + t, j) * c->kv;
            memcpy(k + j * c->kv, c->keys.ref + at, c->kv * 8);
            memcpy(v + j * c->kv, c->values.ref + at, c->kv * 8);
        }
        token_row(c, seeds[t], len - 1, row);
        for (size_t i = 0; i < ow; i++)
            row[i] = kt_round(row[i], (int)c->dt);
        for (size_t i = 0; i < c->h.nh; i++) {
            size_t g = i / (c->h.nh / c->h.nkv) * hs;
            ref_head(p, want + t * ow + i * hs, row + i * hs, k + g, v + g, c->kv, len, hs,
                     (double)c->h.scale);
            for (size_t e = 0; e < hs; e++)
                for (size_t j = 0; j < len; j++)
                    weighted[t * ow + i * hs + e] += p[j] * fabs(v[j * c->kv + g + e]);
        }
        free(k);
        free(v);
        free(p);
    }
    check_output(c, &out, want, weighted, what);
    free(want);
    free(weighted);
    free(row);
}

static const struct {
    const char *what;
    size_t nh, nkv, hs, page_size;
} settings[] = {
    {"SmolLM2 heads", 9, 3, 64, 16}, {"group of 1", 2, 2, 64, 16},
    {"group of 8", 16, 2, 64, 32},   {"head size 80, odd pages", 3, 1, 80, 7},
    {"head size 96", 4, 2, 96, 64},  {"head size 128, large pages", 8, 1, 128, 128},
    {"odd head size", 3, 1, 13, 1},
};

static void test_against_reference(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 7, 31, 33, 64, 65, 100, 256, 257, 700};
    enum { N = sizeof lengths / sizeof *lengths };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        for (size_t d = 0; d < kt_n_dtypes(); d++) {
            struct cache c;
            struct fc_heads h = {settings[i].nh, settings[i].nkv, settings[i].hs,
                                 1.0f / sqrtf((float)settings[i].hs)};
            uint64_t seeds[N];
            open_cache(&c, h, kt_dtypes[d], settings[i].page_size, 3000, 2);
            for (size_t r = 0; r < N; r++)
                add_row(&c, seeds[r] = r, lengths[r], 0, 0);
            check_rows(&c, 0, N, seeds, settings[i].what);
            close_cache(&c);
        }
}

/* 32 decoding rows, twelve of them behind one shared prefix, each also alone, on 1 to 8 threads
 * (where few rows are split along their length). */
static void check_alone(enum fc_dtype dt)
{
    enum { N = 32 };
    static const int threads[] = {2, 1, 8};
    struct fc_heads h = {9, 3, 64, 0.125f};
    unsigned char *first[N + 1] = {0};
    size_t bytes = h.nh * h.hs * fc_dtype_size(dt);
    for (size_t k = 0; k < 3; k++) {
        struct cache c;
        uint64_t seeds[N];
        open_cache(&c, h, dt, 16, 24000, threads[k]);
        for (size_t r = 0; r < N; r++) {
            size_t length = r == 20 ? 2000 : 1 + (r * 7919) % 900;
            size_t shared = r > 4 && r < 16 ? 288 : 0; /* the first pages of row 4 */
            seeds[r] = r + 1;
            add_row(&c, seeds[r], r >= 4 && r < 16 ? length + 288 : length, 4, shared);
        }
        struct kt_array together = attend(&c, 0, N, seeds);
        unsigned char *all = kt_raw(&c.t, &together);
        if (k == 0)
            first[N] = all;
        assert_memory_equal(all, first[N], N * bytes);
        for (size_t r = 0; r < N; r++) {
            struct kt_array alone = attend(&c, r, 1, seeds + r);
            unsigned char *one = kt_raw(&c.t, &alone);
            assert_memory_equal(one, all + r * bytes, bytes);
            free(one);
        }
        if (k > 0)
            free(all);
        close_cache(&c);
    }
    free(first[N]);
}

static void test_alone_and_among_others(void **state)
{
    (void)state;
    for (size_t d = 0; d < kt_n_dtypes(); d++)
        check_alone(kt_dtypes[d]);
}

/* A prompt of 300 tokens prefilled in one chunk of 256 rows and one of 44, and each position
 * decoded alone from a cache with other pages of another size: the same bits. */
static void check_prefill(enum fc_dtype dt, size_t page_size)
{
    enum { N = 300, CHUNK = 256 };
    struct fc_heads h = {9, 3, 64, 0.125f};
    size_t bytes = h.nh * h.hs * fc_dtype_size(dt);
    uint64_t seeds[N];
    struct cache c, d;
    open_cache(&c, h, dt, 16, 400, 2);
    open_cache(&d, h, dt, page_size, 1000, 1);
    add_row(&d, 42, 150, 0, 0); /* so that pages lie elsewhere */
    add_row(&c, 7, N, 0, 0);
    size_t other = add_row(&d, 7, N, 0, 0);
    for (size_t t = 0; t < N; t++) {
        seeds[t] = 7;
        memmove(c.tables + t * c.width, c.tables, c.width * sizeof *c.tables);
        c.lengths[t] = (int32_t)t + 1;
    }
    struct kt_array chunks[2] = {attend(&c, 0, CHUNK, seeds), attend(&c, CHUNK, N - CHUNK, seeds)};
    unsigned char *raw[2] = {kt_raw(&c.t, &chunks[0]), kt_raw(&c.t, &chunks[1])};
    for (size_t t = 0; t < N; t += t < 70 ? 1 : 13) {
        d.lengths[other] = (int32_t)t + 1;
        struct kt_array alone = attend(&d, other, 1, seeds);
        unsigned char *one = kt_raw(&d.t, &alone);
        if (memcmp(one, raw[t / CHUNK] + t % CHUNK * bytes, bytes) != 0)
            fail_msg("position %zu: decoded and prefilled rows differ", t);
        free(one);
        if (d.t.n_arrays > KT_ARRAYS - 8)
            break;
    }
    free(raw[0]);
    free(raw[1]);
    check_rows(&c, 0, CHUNK, seeds, "prefill");
    close_cache(&c);
    close_cache(&d);
}

static void test_prefill_and_decode(void **state)
{
    (void)state;
    check_prefill(FC_F32, 16);
    for (size_t d = 1; d < kt_n_dtypes(); d++)
        check_prefill(kt_dtypes[d], 10);
}

/* Rows of one text in an order that no prefill has: longer before shorter, some twice. */
static void test_rows_in_any_order(void **state)
{
    (void)state;
    enum { N = 60 };
    struct fc_heads h = {4, 2, 64, 0.125f};
    uint64_t seeds[N] = {0};
    struct cache c;
    open_cache(&c, h, FC_BF16, 16, 400, 2);
    add_row(&c, 0, 300, 0, 0);
    for (size_t r = 1; r < N; r++) {
        memcpy(c.tables + r * c.width, c.tables, c.width * sizeof *c.tables);
        c.lengths[r] = r < 20 ? 300 - (int32_t)(r * 13) : 1 + kt_below(5, r, 300);
    }
    check_rows(&c, 0, N, seeds, "rows in any order");
    close_cache(&c);
}

/* So many rows with such wide tables that the parts of long rows need more room than a back end may
 * hold at once (CUDA: 32 MB). */
static void test_many_wide_rows(void **state)
{
    (void)state;
    enum { N = 300 };
    struct fc_heads h = {16, 1, 128, 0.09f};
    uint64_t seeds[N];
    struct cache c;
    open_cache(&c, h, FC_BF16, 16, 4100, 2);
    for (size_t r = 0; r < N; r++) {
        size_t length = r == 3 || r == 280 ? 300 + r : 1 + r % 5;
        size_t first = r % 5 == 0 || length > 5 ? 0 : r - r % 5; /* the page of that row */
        if (r % 5 == 0 || length > 5)
            add_row(&c, seeds[r] = 100 + r, r % 5 == 0 && length <= 5 ? 5 : length, 0, 0);
        else {
            seeds[r] = seeds[first];
            memcpy(c.tables + r * c.width, c.tables + first * c.width, c.width * sizeof *c.tables);
            c.lengths[c.rows++] = (int32_t)length;
        }
    }
    check_rows(&c, 0, N, seeds, "many wide rows");
    close_cache(&c);
}

/* Only the named slots are written. */
static void test_cache_write(void **state)
{
    (void)state;
    struct cache c;
    struct fc_heads h = {2, 2, 8, 1.0f};
    open_cache(&c, h, FC_BF16, 4, 40, 2);
    static const int32_t slots[] = {13, 2, 39, 0};
    struct kt_array qkv = kt_random(&c.t, 4 * ref_width(&h), FC_BF16, 1.0);
    struct kt_array at = kt_ints(&c.t, slots, 4);
    c.t.k->cache_write(c.t.s, &c.p, qkv.p, at.p, 4, &h, FC_BF16);
    double *k = kt_malloc(40 * c.kv * 8), *v = kt_malloc(40 * c.kv * 8);
    for (size_t i = 0; i < 40 * c.kv; i++)
        k[i] = v[i] = (double)NAN;
    for (size_t t = 0; t < 4; t++) {
        const double *row = qkv.ref + t * ref_width(&h) + h.nh * h.hs;
        memcpy(k + (size_t)slots[t] * c.kv, row, c.kv * 8);
        memcpy(v + (size_t)slots[t] * c.kv, row + c.kv, c.kv * 8);
    }
    kt_check_within(&c.t, &c.keys, k, 0.0, 0.0, "keys");
    kt_check_within(&c.t, &c.values, v, 0.0, 0.0, "values");
    free(k);
    free(v);
    close_cache(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_write),
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_alone_and_among_others),
        cmocka_unit_test(test_prefill_and_decode),
        cmocka_unit_test(test_rows_in_any_order),
        cmocka_unit_test(test_many_wide_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
