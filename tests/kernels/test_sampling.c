/* Sampling against exact probabilities in fp64, and selection against a full sort. */
#include "tests/kernels/harness.h"

/* ---- the definition, with a full sort ------------------------------------------------------- */

struct scored {
    double score;
    int32_t id;
};

/* Smaller scores first, ties by id, NaN last. */
static int compare(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (isnan(x->score) != isnan(y->score))
        return isnan(x->score) ? 1 : -1;
    if (x->score < y->score || x->score > y->score)
        return x->score < y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static struct scored *sorted(const double *scores, size_t V, double sign)
{
    struct scored *s = kt_malloc(V * sizeof *s);
    for (size_t i = 0; i < V; i++)
        s[i] = (struct scored){sign * scores[i], (int32_t)i};
    qsort(s, V, sizeof *s, compare);
    return s;
}

/* p[V]: the exact probability of every id, 0 for those not kept. */
static void probabilities(double *p, const double *logits, size_t V, const struct fc_sampling *how)
{
    struct scored *s = sorted(logits, V, -1.0);
    size_t kept = how->top_k && how->top_k < V ? how->top_k : V;
    double total = 0.0, mass = 0.0;
    for (size_t i = 0; i < V; i++)
        p[i] = 0.0;
    for (size_t i = 0; i < kept; i++)
        if (!isnan(s[i].score))
            total += exp((s[0].score - s[i].score) / (double)how->temperature);
    for (size_t i = 0; i < kept && !isnan(s[i].score); i++) {
        if (i > 0 && how->top_p < 1.0f && mass >= (double)how->top_p * total)
            break;
        mass += p[s[i].id] = exp((s[0].score - s[i].score) / (double)how->temperature);
    }
    for (size_t i = 0; i < V; i++)
        p[i] /= mass;
    free(s);
}

/* ---- helpers -------------------------------------------------------------------------------- */

/* Logits like a model's: a few large, many small (sum of three uniforms, stretched). */
static double *some_logits(size_t V, uint64_t stream, double spread)
{
    double *x = kt_malloc(V * sizeof *x);
    for (size_t i = 0; i < V; i++) {
        double u = (double)fc_philox_uniform(5, stream, i) +
                   (double)fc_philox_uniform(6, stream, i) +
                   (double)fc_philox_uniform(7, stream, i);
        x[i] = (double)(float)(spread * (u - 1.5));
    }
    return x;
}

/* rows copies of logits[V] on the device. */
static struct kt_array copies(struct kt *t, const double *logits, size_t V, size_t rows)
{
    struct kt_array a = kt_array(t, rows * V, FC_F32);
    double *all = kt_malloc(rows * V * sizeof *all);
    for (size_t r = 0; r < rows; r++)
        memcpy(all + r * V, logits, V * sizeof *all);
    kt_put(t, &a, all);
    free(all);
    return a;
}

static void sample(struct kt *t, struct kt_array *ids, const struct kt_array *logits,
                   const struct fc_sampling *how, size_t n, size_t V)
{
    t->k->sample(t->s, ids->p, logits->p, how, n, V);
    kt_read(t, ids);
}

/* A GPU's own draws differ from the CPU's by rounding alone; a simulated one takes a millisecond
 * for each. */
static size_t many(const struct kt *t, size_t on_cpu, size_t on_others)
{
    return strcmp(t->k->name, "cpu") == 0 ? on_cpu : on_others;
}

/* ---- tests ---------------------------------------------------------------------------------- */

/* 100,000 draws per setting (3,000 on a GPU): chi-square over ids expected at least 5 times (the
 * others together), and no draw outside the kept set. */
static void check_distribution(const struct fc_sampling *setting, size_t V, double spread)
{
    enum { ROWS = 1000 };
    static struct fc_sampling how[ROWS];
    struct kt t;
    kt_open(&t);
    size_t calls = many(&t, 100, 3);
    double *logits = some_logits(V, 1, spread), *p = kt_malloc(V * sizeof *p);
    size_t *seen = calloc(V, sizeof *seen);
    struct kt_array x = copies(&t, logits, V, ROWS), ids = kt_array(&t, ROWS, KT_INT32);
    for (size_t call = 0; call < calls; call++) {
        for (size_t r = 0; r < ROWS; r++) {
            how[r] = *setting;
            how[r].seed = 11;
            how[r].stream = r;
            how[r].position = call;
        }
        sample(&t, &ids, &x, how, ROWS, V);
        for (size_t r = 0; r < ROWS; r++) {
            assert_in_range((uintmax_t)ids.ref[r], 0, V - 1);
            seen[(size_t)ids.ref[r]]++;
        }
    }
    probabilities(p, logits, V, setting);
    double chi = 0.0, rare = 0.0, rare_seen = 0.0, draws = (double)(ROWS * calls);
    int degrees = -1;
    for (size_t i = 0; i < V; i++) {
        double expected = p[i] * draws;
        if (p[i] == 0.0 && seen[i] > 0)
            fail_msg("id %zu is outside the kept set and was drawn %zu times", i, seen[i]);
        if (expected < 5.0) {
            rare += expected;
            rare_seen += (double)seen[i];
            continue;
        }
        chi += ((double)seen[i] - expected) * ((double)seen[i] - expected) / expected;
        degrees++;
    }
    if (rare >= 5.0) {
        chi += (rare_seen - rare) * (rare_seen - rare) / rare;
        degrees++;
    }
    double limit = degrees + 4.0 * sqrt(2.0 * degrees) + 10.0; /* one in 10^4 or less */
    if (degrees < 1 || chi > limit)
        fail_msg("top_k %u top_p %g: chi-square %.1f with %d degrees of freedom, limit %.1f",
                 setting->top_k, (double)setting->top_p, chi, degrees, limit);
    free(logits);
    free(p);
    free(seen);
    kt_close(&t);
}

static void test_distribution(void **state)
{
    (void)state;
    static const struct fc_sampling settings[] = {
        {.temperature = 1.0f, .top_p = 1.0f},  {.temperature = 0.7f, .top_k = 40, .top_p = 1.0f},
        {.temperature = 1.0f, .top_p = 0.9f},  {.temperature = 1.3f, .top_k = 50, .top_p = 0.8f},
        {.temperature = 5.0f, .top_p = 0.97f},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        check_distribution(&settings[i], 300, 8.0);
}

/* With nearly flat probabilities and few kept ids every one of them comes up: the support is
 * exactly the one of the definition, ties included. */
static void test_support(void **state)
{
    (void)state;
    enum { V = 2000, N = 2000 };
    static const struct fc_sampling settings[] = {
        {.temperature = 1000.0f, .top_k = 1, .top_p = 1.0f},
        {.temperature = 1000.0f, .top_k = 7, .top_p = 1.0f},
        {.temperature = 1000.0f, .top_k = 60, .top_p = 1.0f},
        {.temperature = 1000.0f, .top_k = 60, .top_p = 0.51f},
        {.temperature = 1000.0f, .top_p = 0.0203f},
        {.temperature = 1000.0f, .top_k = 60, .top_p = 0.0f},
        {.temperature = 1.0f, .top_k = 1500, .top_p = 0.2f},
    };
    static struct fc_sampling how[N];
    static bool drawn[V];
    double *logits = some_logits(V, 2, 8.0), *p = kt_malloc(V * sizeof *p);
    for (size_t i = 0; i < V; i++) {
        logits[i] = round(logits[i] * 4.0) / 4.0; /* many ties, also at the limits */
        if (i % 50 == 3)
            logits[i] = (double)NAN;
        if (i % 50 == 7)
            logits[i] = (double)-INFINITY;
    }
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        struct kt t;
        kt_open(&t);
        size_t n = many(&t, N, 800);
        struct kt_array x = copies(&t, logits, V, n), ids = kt_array(&t, n, KT_INT32);
        for (size_t r = 0; r < n; r++) {
            how[r] = settings[k];
            how[r].position = r;
        }
        sample(&t, &ids, &x, how, n, V);
        memset(drawn, 0, sizeof drawn);
        for (size_t r = 0; r < n; r++)
            drawn[(size_t)ids.ref[r]] = true;
        probabilities(p, logits, V, &settings[k]);
        for (size_t i = 0; i < V; i++)
            if (drawn[i] ? p[i] == 0.0 : p[i] * (double)n > 12.0) /* e^-12 */
                fail_msg("setting %zu: id %zu of probability %g was%s drawn", k, i, p[i],
                         drawn[i] ? "" : " not");
        kt_close(&t);
    }
    free(logits);
    free(p);
}

/* Real vocabularies: every draw is the id on which u falls in the running sum over ids, up to the
 * rounding of fp32 weights. */
static void check_draws(size_t V, double spread, const struct fc_sampling *setting)
{
    enum { N = 24 };
    struct fc_sampling how[N];
    struct kt t;
    kt_open(&t);
    double *logits = some_logits(V, V, spread), *p = kt_malloc(V * sizeof *p);
    struct kt_array x = copies(&t, logits, V, N), ids = kt_array(&t, N, KT_INT32);
    for (size_t r = 0; r < N; r++) {
        how[r] = *setting;
        how[r].seed = 3;
        how[r].position = r;
    }
    sample(&t, &ids, &x, how, N, V);
    probabilities(p, logits, V, setting);
    for (size_t r = 0; r < N; r++) {
        double u = (double)fc_philox_uniform(3, 0, r), before = 0.0;
        size_t id = (size_t)ids.ref[r];
        for (size_t i = 0; i < id; i++)
            before += p[i];
        if (p[id] == 0.0 || u < before - 2e-6 || u > before + p[id] + 2e-6)
            fail_msg("V %zu top_k %u top_p %g: u = %.9g gave id %zu of [%.9g, %.9g)", V,
                     setting->top_k, (double)setting->top_p, u, id, before, before + p[id]);
    }
    free(logits);
    free(p);
    kt_close(&t);
}

static void test_real_vocabularies(void **state)
{
    (void)state;
    static const struct fc_sampling settings[] = {
        {.temperature = 1.0f, .top_p = 1.0f},
        {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f},
        {.temperature = 1.0f, .top_p = 0.9f},
        {.temperature = 0.3f, .top_p = 0.5f},
        {.temperature = 1.0f, .top_k = 5000, .top_p = 1.0f},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        check_draws(49152, 30.0, &settings[i]);
        check_draws(49152, 2.0, &settings[i]);  /* flat: the mass is spread over thousands */
        check_draws(32003, 10.0, &settings[i]); /* rows begin anywhere */
        check_draws(17, 5.0, &settings[i]);
        check_draws(7, 5.0, &settings[i]);
        check_draws(1, 5.0, &settings[i]);
    }
    check_draws(152064, 30.0, &settings[1]);
    check_draws(152064, 3.0, &settings[2]);
}

/* Equal logits split [0, 1) evenly: u falls on id floor(u V). Among the draws are some on the very
 * edge of a quarter, where a row may be cut between workers. */
static void test_edges(void **state)
{
    (void)state;
    enum { V = 512, N = 40, EDGES = 3 };
    struct fc_sampling how[N];
    struct kt t;
    kt_open(&t);
    uint64_t position = 0;
    for (size_t r = 0; r < N; r++, position++) {
        while (r < EDGES && fmodf(fc_philox_uniform(8, 0, position), 0.25f) != 0.0f)
            position++;
        how[r] = (struct fc_sampling){
            .temperature = 1.0f, .top_p = 1.0f, .seed = 8, .position = position};
    }
    struct kt_array x = kt_constant(&t, N * V, FC_F32, 3.0), ids = kt_array(&t, N, KT_INT32);
    sample(&t, &ids, &x, how, N, V);
    for (size_t r = 0; r < N; r++) {
        double u = (double)fc_philox_uniform(8, 0, how[r].position);
        if (ids.ref[r] != floor(u * V))
            fail_msg("u = %.9g of %d equal logits gave id %g", u, (int)V, ids.ref[r]);
    }
    kt_close(&t);
}

/* Every back end chooses what the CPU does; odd rows, and more of them than one launch takes. */
static void test_as_on_cpu(void **state)
{
    (void)state;
    enum { V = 1003, N = 300 };
    static struct fc_sampling how[N];
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct kt_array x = kt_random(&t, N * V, FC_F32, 9.0), ids = kt_array(&t, N, KT_INT32);
    for (size_t r = 0; r < N; r++)
        how[r] = (struct fc_sampling){.temperature = r % 5 ? 0.6f + (float)(r % 7) : 0.0f,
                                      .top_k = r % 3 ? 0 : 1 + 7 * (uint32_t)r,
                                      .top_p = r % 2 ? 1.0f : 0.03f * (float)(r % 31),
                                      .seed = r / 100,
                                      .stream = (uint64_t)r << 40,
                                      .position = r};
    sample(&t, &ids, &x, how, N, V);

    float *logits = kt_malloc(N * V * sizeof *logits);
    int32_t *want = kt_malloc(N * sizeof *want);
    for (size_t i = 0; i < N * V; i++)
        logits[i] = (float)x.ref[i];
    struct fc_stream *cpu = fc_kernels_cpu.stream_open(0, 1, &err);
    assert_non_null(cpu);
    fc_kernels_cpu.sample(cpu, want, logits, how, N, V);
    assert_int_equal(fc_kernels_cpu.sync(cpu, &err), FC_OK);
    for (size_t r = 0; r < N; r++)
        if ((int32_t)ids.ref[r] != want[r])
            fail_msg("row %zu: the CPU chooses %d, this back end %g", r, (int)want[r], ids.ref[r]);
    fc_kernels_cpu.stream_close(cpu);
    free(logits);
    free(want);
    kt_close(&t);
}

/* A draw depends on its own row and (seed, stream, position) alone. */
static void test_reproducible(void **state)
{
    (void)state;
    enum { V = 5000, N = 64 };
    struct fc_sampling how[N], swapped[N];
    struct kt t, one;
    kt_open_threads(&t, 4);
    kt_open_threads(&one, 1);
    double *logits = some_logits(V, 3, 10.0);
    struct kt_array x = copies(&t, logits, V, N), y = copies(&one, logits, V, 1);
    struct kt_array a = kt_array(&t, N, KT_INT32), b = kt_array(&t, N, KT_INT32);
    struct kt_array c = kt_array(&one, 1, KT_INT32);
    for (size_t r = 0; r < N; r++)
        how[r] = (struct fc_sampling){1.0f,   r % 3 ? 0 : 100, r % 2 ? 1.0f : 0.9f,
                                      r / 16, r / 4 % 4,       r % 4};
    for (size_t r = 0; r < N; r++)
        swapped[r] = how[N - 1 - r];
    sample(&t, &a, &x, how, N, V);
    sample(&t, &b, &x, swapped, N, V);
    size_t different = 0;
    for (size_t r = 0; r < N; r++) {
        sample(&one, &c, &y, &how[r], 1, V);
        assert_true(a.ref[r] == b.ref[N - 1 - r] && a.ref[r] == c.ref[0]);
        different += a.ref[r] != a.ref[0];
    }
    assert_true(different > N / 2);
    free(logits);
    kt_close(&t);
    kt_close(&one);
}

static void test_greedy(void **state)
{
    (void)state;
    enum { V = 2100 };
    static const double nan = (double)NAN, inf = (double)INFINITY;
    static const struct {
        size_t at[3];
        double value[3], others;
        int32_t want;
    } cases[] = {
        {{5, 1700, 1701}, {3.0, 3.0, 2.0}, -1.0, 5}, {{2099, 4, 0}, {-0.5, nan, nan}, -1.0, 2099},
        {{0, 1, 2}, {nan, -0.0, 0.0}, -1.0, 1},      {{9, 8, 7}, {-9.0, -9.0, nan}, -inf, 8},
        {{100, 50, 3}, {inf, inf, nan}, 1.0, 50},    {{0, 1, 2}, {nan, nan, 7.0}, nan, 2},
    };
    double x[V];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct kt t;
        kt_open(&t);
        for (size_t i = 0; i < V; i++)
            x[i] = cases[k].others;
        for (size_t i = 0; i < 3; i++)
            x[cases[k].at[i]] = cases[k].value[i];
        struct kt_array logits = copies(&t, x, V, 2), ids = kt_array(&t, 2, KT_INT32);
        struct fc_sampling how[2] = {{.top_p = 1.0f}, {.temperature = 1e-30f, .top_p = 1.0f}};
        how[1].top_k = 1; /* a draw from one: greedy by another way */
        sample(&t, &ids, &logits, how, 2, V);
        assert_int_equal(ids.ref[0], cases[k].want);
        assert_int_equal(ids.ref[1], cases[k].want);
        kt_close(&t);
    }
}

/* A row without any token to choose is an error that stays until sync. */
static void test_no_token(void **state)
{
    (void)state;
    for (int temperature = 0; temperature < 2; temperature++) {
        struct kt t;
        struct fc_error err = {0};
        kt_open(&t);
        double x[3 * 4] = {1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4};
        for (size_t i = 4; i < 8; i++)
            x[i] = i % 2 ? (double)NAN : (double)-INFINITY;
        struct kt_array logits = kt_array(&t, 12, FC_F32), ids = kt_array(&t, 3, KT_INT32);
        kt_put(&t, &logits, x);
        struct fc_sampling how[3];
        for (size_t i = 0; i < 3; i++)
            how[i] = (struct fc_sampling){.temperature = (float)temperature, .top_p = 1.0f};
        t.k->sample(t.s, ids.p, logits.p, how, 3, 4);
        t.k->sample(t.s, ids.p, logits.p, how, 1, 4); /* does nothing any more */
        assert_int_equal(t.k->sync(t.s, &err), FC_ERR_INPUT);
        assert_non_null(strstr(err.text, "row 1"));
        kt_close(&t);
    }
}

static void check_selection(struct kt *t, const double *scores, size_t n, size_t V, size_t m,
                            const char *what)
{
    struct kt_array x = kt_array(t, n * V, FC_F32), idx = kt_array(t, n * m, KT_INT32);
    kt_put(t, &x, scores);
    t->k->select_smallest(t->s, idx.p, x.p, n, V, m);
    kt_read(t, &idx);
    for (size_t r = 0; r < n; r++) {
        struct scored *s = sorted(x.ref + r * V, V, 1.0);
        for (size_t i = 0; i < m; i++)
            if ((int32_t)idx.ref[r * m + i] != s[i].id)
                fail_msg("%s, V %zu, m %zu: place %zu of row %zu: expected %d, found %g", what, V,
                         m, i, r, (int)s[i].id, idx.ref[r * m + i]);
        free(s);
    }
}

static void test_select_smallest(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 15, 16, 17, 255, 1000, 1025, 11000, 40000};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t V = sizes[k], ms[] = {1, V < 20 ? V : 20, V < 1100 ? V : 1100, V / 2 + 1, V};
        double *scores = some_logits(3 * V, k, 10.0);
        struct kt t;
        kt_open(&t);
        for (size_t i = 0; i < V; i++) {
            double coarse = round(scores[V + i]); /* ties, 0 and -0 */
            scores[V + i] = coarse;
            scores[2 * V + i] = i % 3 == 0   ? (double)NAN
                                : i % 7 == 0 ? (double)-INFINITY
                                : i % 5 == 0 ? (double)INFINITY
                                             : coarse;
        }
        for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
            check_selection(&t, scores, 3, V, ms[i], "mixed");
        for (size_t i = 0; i < 3 * V; i++)
            scores[i] = i + 1 == 2 * V ? (double)INFINITY : (double)NAN;
        check_selection(&t, scores, 3, V, ms[1], "almost all NaN");
        kt_close(&t);
        free(scores);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_support),
        cmocka_unit_test(test_real_vocabularies),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_as_on_cpu),
        cmocka_unit_test(test_reproducible),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_no_token),
        cmocka_unit_test(test_select_smallest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
