/* The exact draw against its definition in 128-bit integers. (tests/privacy/test_draw.c holds it
 * against the sampler of privacy/.) */
#include "tests/kernels/harness.h"

__extension__ typedef unsigned __int128 u128;

/* The rank by going through the levels, the output by going through the indices. */
static int32_t defined(const int32_t *top, const struct fc_draw *how, u128 u)
{
    size_t rank = 0, first = 0;
    for (size_t l = 0; l < how->n_levels; l++) {
        u128 mass = (u128)how->levels[l].n * how->levels[l].weight;
        if (u < mass) {
            rank = first + (size_t)(u / how->levels[l].weight);
            break;
        }
        u -= mass;
        first += (size_t)how->levels[l].n;
    }
    if (rank < how->depth)
        return top[rank];
    bool *taken = kt_malloc(how->V * sizeof *taken);
    for (size_t i = 0; i < how->depth; i++)
        taken[top[i]] = true;
    size_t left = rank - how->depth, at = 0;
    while (taken[at] || left > 0)
        left -= !taken[at++];
    free(taken);
    return (int32_t)at;
}

static u128 total_of(const struct fc_draw *how)
{
    u128 sum = 0;
    for (size_t l = 0; l < how->n_levels; l++)
        sum += (u128)how->levels[l].n * how->levels[l].weight;
    return sum;
}

/* Draws for n rankings and integers and compares every output. */
static void check(const struct fc_draw *how, const int32_t *top, const u128 *u, size_t n)
{
    struct kt t;
    kt_open(&t);
    struct kt_array tops = kt_ints(&t, top, n * how->depth);
    struct kt_array scratch = kt_array(&t, n * how->depth, KT_INT32);
    struct kt_array out = kt_array(&t, n, KT_INT32), words = kt_array(&t, 2 * n, KT_FLOAT64);
    uint64_t *halves = kt_malloc(2 * n * sizeof *halves);
    for (size_t i = 0; i < n; i++) {
        halves[2 * i] = (uint64_t)u[i];
        halves[2 * i + 1] = (uint64_t)(u[i] >> 64);
    }
    t.k->upload(t.s, words.p, halves, words.bytes);
    t.k->draw(t.s, out.p, tops.p, words.p, scratch.p, how, n);
    kt_read(&t, &out);
    for (size_t i = 0; i < n; i++) {
        int32_t want = defined(top + i * how->depth, how, u[i]);
        if ((int32_t)out.ref[i] != want)
            fail_msg("V %zu, depth %zu: u = %llx %016llx: expected %d, found %g", how->V,
                     how->depth, (unsigned long long)halves[2 * i + 1],
                     (unsigned long long)halves[2 * i], (int)want, out.ref[i]);
    }
    uint64_t *after = kt_raw(&t, &words);
    assert_memory_equal(after, halves, words.bytes);
    free(after);
    free(halves);
    kt_close(&t);
}

/* Every integer for every ranking of two out of six. */
static void test_every_integer(void **state)
{
    (void)state;
    enum { S = 18, PAIRS = 30 };
    static const struct fc_draw_level levels[] = {{2, 7}, {4, 1}};
    const struct fc_draw how = {.levels = levels, .n_levels = 2, .V = 6, .depth = 2};
    static int32_t top[S * PAIRS][2];
    static u128 u[S * PAIRS];
    size_t n = 0;
    assert_true(total_of(&how) == S);
    for (int32_t a = 0; a < 6; a++)
        for (int32_t b = 0; b < 6; b++)
            for (unsigned i = 0; a != b && i < S; i++, n++) {
                top[n][0] = a;
                top[n][1] = b;
                u[n] = i;
            }
    check(&how, &top[0][0], u, n);
}

/* `depth` distinct indices below V, in no order. */
static void some_ranking(int32_t *top, size_t depth, size_t V, uint64_t seed)
{
    int32_t *all = kt_malloc(V * sizeof *all);
    for (size_t i = 0; i < V; i++)
        all[i] = (int32_t)i;
    for (size_t i = 0; i < depth; i++) {
        size_t j = i + (size_t)kt_below(seed, i, V - i);
        top[i] = all[j];
        all[j] = all[i];
    }
    free(all);
}

/* Weights of up to 2^56: the first and the last integer of every level and of its first and last
 * rank, and integers from everywhere. */
static void check_levels(const struct fc_draw_level *levels, size_t n_levels)
{
    enum { RANDOM = 40, MOST = RANDOM + 8 * FC_DRAW_LEVELS };
    struct fc_draw how = {.levels = levels, .n_levels = n_levels};
    for (size_t l = 0; l < n_levels; l++) {
        how.depth = how.V;
        how.V += (size_t)levels[l].n;
    }
    u128 S = total_of(&how), start = 0;
    static u128 u[MOST];
    size_t n = 0;
    for (size_t l = 0; l < n_levels; l++) {
        u128 w = levels[l].weight, end = start + levels[l].n * w;
        u128 edges[] = {start, start + w - 1, start + w, end - w, end - w - 1, end - 1, end};
        for (size_t i = 0; i < 7; i++)
            if (edges[i] < S)
                u[n++] = edges[i];
        start = end;
    }
    for (size_t i = 0; i < RANDOM; i++) {
        uint32_t word[4];
        fc_philox(5, how.V, i, word);
        u128 r = (u128)word[0] << 96 | (u128)word[1] << 64 | (u128)word[2] << 32 | word[3];
        u[n++] = r % S;
    }
    int32_t *top = kt_malloc(n * how.depth * sizeof *top);
    for (size_t i = 0; i < n; i++)
        some_ranking(top + i * how.depth, how.depth, how.V, i);
    check(&how, top, u, n);
    free(top);
}

static void test_large_weights(void **state)
{
    (void)state;
    const uint64_t most = (uint64_t)1 << 56;
    const struct fc_draw_level levels[][3] = {
        {{1, most}},
        {{1, most}, {6, 1}},
        {{7, most}, {26, most - 1}},
        {{17, most}, {500, 0x123456789abcdef}, {486, 3}},
        {{520, most - 1}, {10480, (uint64_t)1 << 40}},
        {{4096, most}, {1, 1}},
        {{5001, most}, {1002, most}},
    };
    static const size_t n_levels[] = {1, 2, 2, 3, 2, 2, 2};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        check_levels(levels[i], n_levels[i]);
}

/* The sum of the weights does not fit in 64 bits, nor a rank in 16. */
static void test_large_vocabulary(void **state)
{
    (void)state;
    enum { DEPTH = 33, N = 6 };
    const size_t V = ((size_t)1 << 24) - 1;
    const struct fc_draw_level levels[] = {{DEPTH, (uint64_t)1 << 56},
                                           {V - DEPTH, 0xfedcba98765432}};
    const struct fc_draw how = {.levels = levels, .n_levels = 2, .V = V, .depth = DEPTH};
    int32_t top[N][DEPTH];
    u128 S = total_of(&how), u[N] = {0, S - 1, S - levels[1].weight, S / 2, S / 3 * 2, S / 50};
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < DEPTH; j++)
            top[i][j] = (int32_t)(V - 1 - (j * 37 + i * 1000) * (i + 1));
    check(&how, &top[0][0], u, N);
}

/* What is no ranking is an error that names the row; the other rows are drawn. */
static void test_no_ranking(void **state)
{
    (void)state;
    static const int32_t tops[][3] = {{3, 4, 3}, {0, 8, 1}, {-1, 2, 3}, {INT32_MIN, 0, 1}};
    static const struct fc_draw_level levels[] = {{3, 1000}, {5, 1}};
    const struct fc_draw how = {.levels = levels, .n_levels = 2, .V = 8, .depth = 3};
    for (size_t k = 0; k < sizeof tops / sizeof *tops; k++) {
        struct kt t;
        struct fc_error err = {0};
        kt_open_threads(&t, 2); /* a new stream: its very first call must tell */
        int32_t both[6] = {1, 0, 7, tops[k][0], tops[k][1], tops[k][2]};
        struct kt_array top = kt_ints(&t, both, 6), u = kt_constant(&t, 4, KT_FLOAT64, 0.0);
        struct kt_array scratch = kt_array(&t, 6, KT_INT32), out = kt_array(&t, 2, KT_INT32);
        t.k->draw(t.s, out.p, top.p, u.p, scratch.p, &how, 2);
        assert_int_equal(t.k->sync(t.s, &err), FC_ERR_INTERNAL);
        assert_non_null(strstr(err.text, "row 1 is no ranking"));
        kt_read(&t, &out);
        assert_true(out.ref[0] == 1.0 && out.ref[1] == -1.0);
        kt_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_integer),
        cmocka_unit_test(test_large_weights),
        cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_no_ranking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
