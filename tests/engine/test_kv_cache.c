/* Pages and the prefix tree: sharing, filling, eviction, refusal, and a long random run against a
 * plain account of who holds what. */
#include "engine/kv_cache.h"

#include "tests/engine/toy.h"

enum { PAGE = 4 };

static struct toy toy;

static struct fc_kv_cache *create(size_t n_pages)
{
    struct fc_kv_cache *c = NULL;
    must(fc_kv_cache_create(&c, &toy.model, PAGE, n_pages, why));
    assert_int_equal(fc_kv_cache_available(c), n_pages);
    return c;
}

static void fill(struct fc_kv_cache *c, const int32_t *table, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fc_kv_cache_fill(c, table[i]);
}

static void shares_whole_blocks_that_are_equal_from_the_start(void **state)
{
    (void)state;
    struct fc_kv_cache *c = create(16);
    const int32_t one[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const int32_t two[12] = {1, 2, 3, 4, 5, 6, 7, 9, 9, 10, 11, 12}; /* differs in block 1 */
    int32_t a[5], b[5], d[5];
    assert_true(fc_kv_cache_take(c, one, 3, 5, a));
    fill(c, a, 3);
    assert_true(fc_kv_cache_take(c, one, 3, 5, b));
    assert_memory_equal(a, b, 3 * sizeof *a);
    assert_int_not_equal(a[3], b[3]); /* the rest is its own */
    assert_int_equal(fc_kv_cache_available(c), 16 - 7);
    assert_true(fc_kv_cache_take(c, two, 3, 3, d));
    assert_int_equal(d[0], a[0]);
    assert_int_not_equal(d[1], a[1]);
    assert_int_not_equal(d[2], a[2]); /* the same tokens after another prefix are another page */
    fc_kv_cache_give(c, a, 5);
    fc_kv_cache_give(c, b, 5);
    fc_kv_cache_give(c, d, 3);
    assert_int_equal(fc_kv_cache_available(c), 16);
    fc_kv_cache_free(c);
}

static void keeps_prefixes_that_nobody_holds(void **state)
{
    (void)state;
    struct fc_kv_cache *c = create(8);
    const int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    int32_t a[3], b[3];
    assert_true(fc_kv_cache_take(c, ids, 2, 3, a));
    fill(c, a, 2);
    fc_kv_cache_give(c, a, 3);
    assert_true(fc_kv_cache_take(c, ids, 2, 3, b));
    assert_memory_equal(a, b, 2 * sizeof *a);
    assert_true(fc_kv_cache_filled(c, b[0]));
    fc_kv_cache_give(c, b, 3);
    fc_kv_cache_forget(c);
    assert_true(fc_kv_cache_take(c, ids, 2, 3, b));
    assert_false(fc_kv_cache_filled(c, b[0])); /* forgotten */
    fc_kv_cache_give(c, b, 3);
    fc_kv_cache_free(c);
}

static void what_was_not_filled_is_not_found_filled(void **state)
{
    (void)state;
    struct fc_kv_cache *c = create(8);
    const int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    int32_t a[2], b[2];
    assert_true(fc_kv_cache_take(c, ids, 2, 2, a));
    assert_true(fc_kv_cache_take(c, ids, 2, 2, b)); /* shared before it is computed */
    assert_memory_equal(a, b, sizeof a);
    assert_false(fc_kv_cache_filled(c, b[0]));
    fc_kv_cache_fill(c, a[0]);
    assert_true(fc_kv_cache_filled(c, b[0]));
    fc_kv_cache_give(c, a, 2); /* leaves with page 1 half done */
    assert_false(fc_kv_cache_filled(c, b[1]));
    fc_kv_cache_give(c, b, 2);
    assert_true(fc_kv_cache_take(c, ids, 2, 2, a));
    assert_true(fc_kv_cache_filled(c, a[0]));
    assert_false(fc_kv_cache_filled(c, a[1]));
    fc_kv_cache_give(c, a, 2);
    fc_kv_cache_free(c);
}

static void evicts_the_least_recently_used_and_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct fc_kv_cache *c = create(4);
    const int32_t old[8] = {1, 1, 1, 1, 2, 2, 2, 2}, young[8] = {3, 3, 3, 3, 4, 4, 4, 4};
    int32_t a[4], b[4];
    assert_true(fc_kv_cache_take(c, old, 2, 2, a));
    fill(c, a, 2);
    assert_true(fc_kv_cache_take(c, young, 2, 2, b));
    fill(c, b, 2);
    assert_false(fc_kv_cache_take(c, old, 2, 3, a)); /* two hits, but no third page */
    fc_kv_cache_give(c, a, 2);
    fc_kv_cache_give(c, b, 2);
    assert_false(fc_kv_cache_take(c, old, 0, 5, a));
    assert_int_equal(fc_kv_cache_available(c), 4);
    assert_true(fc_kv_cache_take(c, old, 0, 1, a)); /* evicts block 1 of `old`, a leaf */
    assert_true(fc_kv_cache_take(c, young, 2, 2, b));
    assert_true(fc_kv_cache_filled(c, b[0]));
    assert_true(fc_kv_cache_filled(c, b[1]));
    fc_kv_cache_give(c, b, 2);
    fc_kv_cache_give(c, a, 1);
    assert_true(fc_kv_cache_take(c, old, 2, 2, a));
    assert_true(fc_kv_cache_filled(c, a[0]));
    assert_false(fc_kv_cache_filled(c, a[1]));
    fc_kv_cache_give(c, a, 2);
    fc_kv_cache_free(c);
}

/* Every page's whole prefix, as the test remembers it. */
enum { PAGES = 24, LONGEST = 8, HOLDERS = 6 };
struct holder {
    int32_t table[LONGEST], ids[LONGEST * PAGE];
    size_t n_shared, n;
};

static void check_account(struct fc_kv_cache *c, const struct holder *holders)
{
    int refs[PAGES] = {0};
    size_t held = 0;
    for (int h = 0; h < HOLDERS; h++)
        for (size_t i = 0; i < holders[h].n; i++) {
            assert_in_range(holders[h].table[i], 0, PAGES - 1);
            held += refs[holders[h].table[i]]++ == 0;
        }
    assert_int_equal(fc_kv_cache_available(c), PAGES - held);
    for (int h = 0; h < HOLDERS; h++)
        for (size_t i = holders[h].n_shared; i < holders[h].n; i++)
            assert_int_equal(refs[holders[h].table[i]], 1); /* own pages are nobody else's */
}

/* content[page] is what the pretended passes wrote: the prefix up to the page's end. A page that
 * the cache calls ready must hold just the prefix of who reads it. */
static void random_run(void **state)
{
    (void)state;
    struct fc_kv_cache *c = create(PAGES);
    struct holder holders[HOLDERS] = {0};
    int32_t content[PAGES][LONGEST * PAGE] = {{0}};
    size_t hits = 0, refusals = 0;
    for (uint64_t step = 0; step < 20000; step++) {
        uint32_t r[4];
        fc_philox(1, 2, step, r);
        int who = (int)(r[0] % HOLDERS);
        struct holder *h = &holders[who];
        if (h->n) {
            fc_kv_cache_give(c, h->table, h->n);
            *h = (struct holder){0};
            check_account(c, holders);
            continue;
        }
        size_t n = 1 + r[1] % LONGEST, n_shared = r[2] % (n + 1);
        for (size_t i = 0; i < n_shared; i++) /* few different blocks, so that prefixes meet */
            for (size_t j = 0; j < PAGE; j++)
                h->ids[i * PAGE + j] = (int32_t)((r[3] >> (2 * i)) % 3);
        if (!fc_kv_cache_take(c, h->ids, n_shared, n, h->table)) {
            refusals++;
            continue;
        }
        h->n = n;
        h->n_shared = n_shared;
        check_account(c, holders);
        size_t stop = r[0] / 8 % 4 ? n_shared : n_shared / 2; /* some leave their work undone */
        for (size_t i = 0; i < stop; i++) {
            int32_t page = h->table[i];
            if (fc_kv_cache_filled(c, page)) {
                assert_memory_equal(content[page], h->ids, (i + 1) * PAGE * sizeof *h->ids);
                hits++;
            } else {
                memcpy(content[page], h->ids, (i + 1) * PAGE * sizeof *h->ids);
                fc_kv_cache_fill(c, page);
            }
        }
        for (size_t i = n_shared; i < n; i++) /* own pages are overwritten */
            memset(content[h->table[i]], 0x55, sizeof content[0]);
    }
    assert_true(hits > 1000);
    assert_true(refusals > 100);
    for (int h = 0; h < HOLDERS; h++)
        fc_kv_cache_give(c, holders[h].table, holders[h].n);
    fc_kv_cache_free(c);
}

static void refuses_impossible_sizes(void **state)
{
    (void)state;
    struct fc_kv_cache *c = NULL;
    struct fc_error err = {0};
    assert_int_equal(fc_kv_cache_create(&c, &toy.model, 0, 4, &err), FC_ERR_USAGE);
    assert_int_equal(fc_kv_cache_create(&c, &toy.model, 16, 0, &err), FC_ERR_USAGE);
    assert_int_equal(fc_kv_cache_create(&c, &toy.model, 16, SIZE_MAX / 8, &err), FC_ERR_USAGE);
    assert_null(c);
}

static int open_toy(void **state)
{
    (void)state;
    toy_random(&toy, FC_F32, false, 1);
    return 0;
}

static int close_toy(void **state)
{
    (void)state;
    toy_close(&toy);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_whole_blocks_that_are_equal_from_the_start),
        cmocka_unit_test(keeps_prefixes_that_nobody_holds),
        cmocka_unit_test(what_was_not_filled_is_not_found_filled),
        cmocka_unit_test(evicts_the_least_recently_used_and_refuses_what_does_not_fit),
        cmocka_unit_test(random_run),
        cmocka_unit_test(refuses_impossible_sizes),
    };
    return cmocka_run_group_tests(tests, open_toy, close_toy);
}
