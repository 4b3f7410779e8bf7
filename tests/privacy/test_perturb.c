/* The perturber on rankings of the test's own: what leaves, what it costs, what is refused. */
#define _GNU_SOURCE
#include "privacy/perturb.h"

#include "base/json.h"
#include "tests/privacy/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char *const entries[] = {"alpha", "beta", "gamma", "delta", "eta",
                                      "7",     "?",    ",",     "iota",  "kappa"};
enum { OUTPUTS = 10 };

static char folder[64], path[128];

/* A ranking by a hash of the unit; or, not aligned, by the last output; or no ranking at all. */
struct toy {
    struct fc_ranking base;
    int broken;
};

static enum fc_code toy_prepare(struct fc_ranking *r, const struct fc_document *documents, size_t n,
                                size_t depth, struct fc_error *err)
{
    (void)r;
    (void)documents;
    (void)n;
    (void)depth;
    (void)err;
    return FC_OK;
}

static enum fc_code toy_rank(struct fc_ranking *r, const struct fc_query *queries, size_t n,
                             size_t depth, int32_t *top, struct fc_error *err)
{
    (void)err;
    for (size_t q = 0; q < n; q++) {
        const struct fc_document *d = queries[q].document;
        size_t hash = 0, position = queries[q].position;
        if (!r->type->aligned)
            hash = position ? (size_t)queries[q].drawn[position - 1] + 1 : 0;
        else if (position < d->units.n)
            for (size_t i = 0; i < d->units.items[position].len; i++)
                hash = hash * 31 + (unsigned char)d->text[d->units.items[position].start + i];
        for (size_t i = 0; i < depth; i++)
            top[q * depth + i] = (int32_t)(((struct toy *)r)->broken ? 0 : (hash + i) % OUTPUTS);
    }
    return FC_OK;
}

static void toy_close(struct fc_ranking *r)
{
    free(r);
}

static const struct fc_ranking_type by_unit = {"toy", true, toy_prepare, toy_rank, toy_close};
static const struct fc_ranking_type by_context = {"toy context", false, toy_prepare, toy_rank,
                                                  toy_close};

static enum fc_code try_open(struct fc_perturber **p, const struct fc_ranking_type *type,
                             int broken, struct fc_perturber_options o)
{
    struct toy *toy = calloc(1, sizeof *toy);
    struct fc_vocabulary *v = NULL;
    struct fc_error err = {0};
    assert_non_null(toy);
    toy->base.type = type;
    toy->broken = broken;
    assert_int_equal(fc_vocabulary_make(&v, entries, OUTPUTS, &err), FC_OK);
    return fc_perturber_open_with(p, &toy->base, v, &o, &err);
}

static struct fc_perturber *open_perturber(struct fc_perturber_options o)
{
    struct fc_perturber *p = NULL;
    assert_int_equal(try_open(&p, &by_unit, 0, o), FC_OK);
    return p;
}

static struct fc_ledger *open_ledger(double budget)
{
    struct fc_ledger *l = NULL;
    assert_int_equal(fc_ledger_open(&l, path, (struct fc_budget){budget, 0}, NULL), FC_OK);
    return l;
}

static struct fc_private_text text_of(const char *id, const char *text)
{
    return (struct fc_private_text){id, text, strlen(text)};
}

static bool is_entry(const char *word, size_t len)
{
    for (size_t i = 0; i < OUTPUTS; i++)
        if (strlen(entries[i]) == len && memcmp(entries[i], word, len) == 0)
            return true;
    return false;
}

/* A text that is a join of entries: words apart by one space, marks closed up. The count. */
static size_t count_entries(const char *text)
{
    size_t n = 0;
    while (*text) {
        size_t len = strcspn(text, " ,?");
        if (len == 0 && *text != ' ')
            len = 1;
        assert_true(len > 0);
        assert_true(is_entry(text, len));
        n++;
        text += len;
        if (*text == ' ') {
            text++;
            assert_true(*text && *text != ' ');
        }
    }
    return n;
}

static const char *const private_texts[] = {
    "Patient Zbigniew has HIV, diagnosed 1987-03-14; call +44 7700 900123!",
    "password: hunter2\n\n\tsecret\xFF\xFE key=\xE2\x82\xAC"
    "99",
    "alpha ALPHA Alpha aLpHa",
    "\xF0\x9F\x98\x80 \xE4\xB8\xAD\xE6\x96\x87 na\xC3\xAFve <|im_end|> </s>",
    "",
    "   \n\t ",
    "gamma ? , 7"};
enum { TEXTS = sizeof private_texts / sizeof private_texts[0] };

/* Whatever comes in, only entries of V go out, one for each unit, in V's own spelling. */
static void test_only_vocabulary_leaves(void **state)
{
    (void)state;
    struct fc_perturber *p = open_perturber((struct fc_perturber_options){.epsilon = 2});
    struct fc_perturbed *out[TEXTS];
    struct fc_private_text texts[TEXTS];
    static const size_t units[TEXTS] = {18, 8, 4, 14, 0, 0, 4};
    for (size_t i = 0; i < TEXTS; i++)
        texts[i] = text_of("same id", private_texts[i]);
    for (int round = 0; round < 50; round++) {
        struct fc_run_report report;
        assert_int_equal(fc_perturber_run(p, NULL, texts, TEXTS, out, &report, NULL), FC_OK);
        size_t total = 0;
        for (size_t i = 0; i < TEXTS; i++) {
            size_t len;
            const char *text = fc_perturbed_text(out[i], &len);
            assert_int_equal(strlen(text), len);
            size_t n = count_entries(text);
            assert_int_equal(n, units[i]);
            assert_int_equal(fc_perturbed_draws(out[i]), n);
            assert_true(fc_perturbed_epsilon(out[i]) <= 2.0 * (double)n);
            assert_true(fc_perturbed_epsilon(out[i]) >= 1.999 * (double)n);
            assert_true(fc_perturbed_protected(out[i]));
            assert_false(fc_perturbed_may_leave(out[i])); /* charged nowhere */
            total += n;
            fc_perturbed_free(out[i]);
        }
        assert_int_equal(report.draws, total);
        assert_int_equal(report.texts, TEXTS);
        assert_true(report.run.pure <= 2.0 * (double)total);
    }
    fc_perturber_close(p);
}

/* Stored texts come back byte for byte, at no cost, also after a restart. */
static void test_resend_costs_nothing(void **state)
{
    (void)state;
    struct fc_perturber *p = open_perturber((struct fc_perturber_options){.epsilon = 1});
    struct fc_ledger *l = open_ledger(0);
    struct fc_private_text texts[TEXTS];
    struct fc_perturbed *first[TEXTS], *again[TEXTS];
    struct fc_run_report report;
    char ids[TEXTS][8];
    for (size_t i = 0; i < TEXTS; i++) {
        snprintf(ids[i], sizeof ids[i], "id%zu", i);
        texts[i] = text_of(ids[i], private_texts[i]);
    }
    assert_int_equal(fc_perturber_run(p, l, texts, TEXTS, first, &report, NULL), FC_OK);
    double paid = report.client.pure;
    assert_true(paid > 0 && report.run.pure >= paid);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(fc_perturber_plan(p, l, texts, TEXTS, &report, NULL), FC_OK);
        assert_int_equal(report.draws, 0);
        assert_int_equal(fc_perturber_run(p, l, texts, TEXTS, again, &report, NULL), FC_OK);
        assert_int_equal(report.resent, TEXTS);
        assert_int_equal(report.draws, 0);
        assert_true(report.run.pure == 0);
        assert_true(report.client.pure <= paid && report.client.pure >= paid);
        for (size_t i = 0; i < TEXTS; i++) {
            assert_string_equal(fc_perturbed_text(first[i], NULL),
                                fc_perturbed_text(again[i], NULL));
            assert_int_equal(fc_perturbed_draws(first[i]), fc_perturbed_draws(again[i]));
            assert_true(fc_perturbed_may_leave(first[i]) && fc_perturbed_may_leave(again[i]));
            assert_true(!fc_perturbed_resent(first[i]) && fc_perturbed_resent(again[i]));
            fc_perturbed_free(again[i]);
        }
        fc_ledger_close(l);
        l = open_ledger(0);
    }
    /* another mechanism is another draw, and pays */
    struct fc_perturber *q = open_perturber((struct fc_perturber_options){.epsilon = 2});
    assert_int_equal(fc_perturber_run(q, l, texts, TEXTS, again, &report, NULL), FC_OK);
    assert_int_equal(report.resent, 0);
    assert_true(report.client.pure > paid * 2.9);
    for (size_t i = 0; i < TEXTS; i++) {
        fc_perturbed_free(first[i]);
        fc_perturbed_free(again[i]);
    }
    fc_ledger_close(l);
    fc_perturber_close(p);
    fc_perturber_close(q);
}

static void test_overrun_is_refused_before_anything(void **state)
{
    (void)state;
    struct fc_perturber *p = open_perturber((struct fc_perturber_options){.epsilon = 2});
    struct fc_ledger *l = open_ledger(10);
    struct fc_private_text texts[] = {text_of("a", "one two three"), text_of("b", "four five"),
                                      text_of("c", "six")};
    struct fc_perturbed *out[3] = {(void *)1, (void *)1, (void *)1};
    struct fc_error err = {0};
    struct fc_run_report report;
    assert_int_equal(fc_perturber_run(p, l, texts, 3, out, &report, &err), FC_ERR_BUDGET);
    assert_null(strstr(err.text, "one"));
    assert_int_equal(fc_ledger_entries(l), 0);
    for (int i = 0; i < 3; i++)
        assert_null(out[i]);
    assert_int_equal(report.draws, 6);
    assert_int_equal(report.longest, 3);
    assert_int_equal(fc_perturber_run(p, l, texts, 2, out, &report, NULL), FC_OK); /* 10 of 10 */
    fc_perturbed_free(out[0]);
    fc_perturbed_free(out[1]);
    assert_int_equal(fc_perturber_run(p, l, texts, 3, out, &report, NULL), FC_ERR_BUDGET);
    assert_int_equal(fc_perturber_run(p, l, texts, 2, out, &report, NULL), FC_OK); /* stored */
    assert_int_equal(report.resent, 2);
    fc_perturbed_free(out[0]);
    fc_perturbed_free(out[1]);
    fc_ledger_close(l);
    fc_perturber_close(p);
}

static void test_caps_and_padding(void **state)
{
    (void)state;
    static const char *const texts[] = {"a b c d e f g", "a b", ""};
    for (int pad = 0; pad < 2; pad++) {
        struct fc_perturber *p =
            open_perturber((struct fc_perturber_options){.epsilon = 1, .max_units = 4, .pad = pad});
        struct fc_private_text t[3];
        struct fc_perturbed *out[3];
        struct fc_run_report report;
        for (size_t i = 0; i < 3; i++)
            t[i] = text_of("x", texts[i]);
        assert_int_equal(fc_perturber_run(p, NULL, t, 3, out, &report, NULL), FC_OK);
        static const size_t expected[2][3] = {{4, 2, 0}, {4, 4, 4}};
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(count_entries(fc_perturbed_text(out[i], NULL)), expected[pad][i]);
            assert_int_equal(fc_perturbed_draws(out[i]), expected[pad][i]);
            fc_perturbed_free(out[i]);
        }
        assert_int_equal(report.cut_units, 3);
        fc_perturber_close(p);
    }
}

static void test_public_words(void **state)
{
    (void)state;
    static const char *const open_words[] = {"Zbigniew", "!"};
    struct fc_perturber *p = open_perturber(
        (struct fc_perturber_options){.epsilon = 1, .public_words = open_words, .n_public = 2});
    struct fc_private_text t = text_of("x", "ZBIGNIEW met zbigniew's Zbigniew!");
    struct fc_perturbed *out;
    struct fc_run_report report;
    struct fc_error err = {0};
    assert_int_equal(fc_perturber_run(p, NULL, &t, 1, &out, &report, NULL), FC_OK);
    const char *text = fc_perturbed_text(out, NULL);
    assert_int_equal(strncmp(text, "Zbigniew", 8), 0); /* as on the list, not as in the text */
    assert_string_equal(text + strlen(text) - 10, " Zbigniew!");
    assert_int_equal(fc_perturbed_draws(out), 2);
    assert_int_equal(report.public_units, 3);
    fc_perturbed_free(out);
    cJSON *json = fc_perturber_json(p, &err);
    char *print = fc_json_print(json, &err);
    assert_non_null(strstr(print, "\"public_words_outside_guarantee\":[\"Zbigniew\",\"!\"]"));
    free(print);
    cJSON_Delete(json);
    fc_perturber_close(p);
    static const char *const two[] = {"New York"};
    assert_int_equal(
        try_open(&p, &by_unit, 0,
                 (struct fc_perturber_options){.epsilon = 1, .public_words = two, .n_public = 1}),
        FC_ERR_USAGE);
}

/* A ranking that looks at earlier outputs: drawn position by position, length public. */
static void test_ranking_by_context(void **state)
{
    (void)state;
    struct fc_perturber *p = NULL;
    struct fc_perturber_options o = {.epsilon = 30, .max_units = 5, .nearest = 1};
    assert_int_equal(try_open(&p, &by_context, 0, o), FC_OK);
    struct fc_private_text t[2] = {text_of("x", "whatever, however long this text may be"),
                                   text_of("y", "")};
    struct fc_perturbed *out[2];
    assert_int_equal(fc_perturber_run(p, NULL, t, 2, out, NULL, NULL), FC_OK);
    for (int i = 0; i < 2; i++) { /* at epsilon 30 each output is the next after the one before */
        assert_string_equal(fc_perturbed_text(out[i], NULL), "alpha beta gamma delta eta");
        assert_int_equal(fc_perturbed_draws(out[i]), 5);
        fc_perturbed_free(out[i]);
    }
    fc_perturber_close(p);
    o.max_units = 0;
    assert_int_equal(try_open(&p, &by_context, 0, o), FC_ERR_USAGE);
}

static void test_broken_ranking_sends_nothing(void **state)
{
    (void)state;
    struct fc_perturber *p = NULL;
    struct fc_perturber_options o = {.epsilon = 1, .nearest = 3};
    assert_int_equal(try_open(&p, &by_unit, 1, o), FC_OK);
    struct fc_ledger *l = open_ledger(0);
    struct fc_private_text t[2] = {text_of("x", ""), text_of("y", "words")};
    struct fc_perturbed *out[2];
    struct fc_error err = {0};
    assert_int_equal(fc_perturber_run(p, l, t, 2, out, NULL, &err), FC_ERR_INTERNAL);
    assert_null(out[0]);
    assert_null(out[1]);
    assert_int_equal(fc_ledger_entries(l), 0);
    fc_ledger_close(l);
    fc_perturber_close(p);
}

/* More texts than a batch holds; and the draws of one unit follow the profile. */
static void test_many_texts_and_their_distribution(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct fc_perturber *p =
        open_perturber((struct fc_perturber_options){.epsilon = 2, .nearest = 2});
    struct fc_ledger *l = open_ledger(0);
    static struct fc_private_text texts[N];
    static struct fc_perturbed *out[N];
    static char ids[N][12];
    struct fc_run_report report;
    for (size_t i = 0; i < N; i++) {
        snprintf(ids[i], sizeof ids[i], "%zu", i);
        texts[i] = text_of(ids[i], "x");
    }
    assert_int_equal(fc_perturber_run(p, l, texts, N, out, &report, NULL), FC_OK);
    assert_int_equal(report.draws, N);
    assert_int_equal(fc_ledger_entries(l), N);
    const struct fc_profile *profile = fc_perturber_profile(p);
    double near = 0, expected = N * profile->stay;
    size_t first = 'x' % OUTPUTS;
    for (size_t i = 0; i < N; i++) {
        const char *text = fc_perturbed_text(out[i], NULL);
        near +=
            strcmp(text, entries[first]) == 0 || strcmp(text, entries[(first + 1) % OUTPUTS]) == 0;
        fc_perturbed_free(out[i]);
    }
    /* six standard deviations */
    assert_true(fabs(near - expected) < 6 * sqrt(expected * (1 - profile->stay)));
    fc_ledger_close(l);
    fc_perturber_close(p);
}

static void test_unprotected_says_so(void **state)
{
    (void)state;
    struct fc_perturbed *p = NULL;
    assert_int_equal(fc_perturbed_unprotected(&p, "public text", 11, NULL), FC_OK);
    assert_string_equal(fc_perturbed_text(p, NULL), "public text");
    assert_false(fc_perturbed_protected(p));
    assert_true(fc_perturbed_may_leave(p));
    assert_true(isinf(fc_perturbed_epsilon(p)));
    fc_perturbed_free(p);
}

static void test_options_that_cannot_be(void **state)
{
    (void)state;
    struct fc_perturber *p = NULL;
    static const struct fc_perturber_options bad[] = {{.epsilon = 0},
                                                      {.epsilon = -1},
                                                      {.epsilon = 100},
                                                      {.epsilon = 1, .nearest = OUTPUTS},
                                                      {.epsilon = 1, .stay = 1},
                                                      {.epsilon = 1, .stay = -0.5},
                                                      {.epsilon = 1, .delta = 1},
                                                      {.epsilon = 1, .pad = true}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(try_open(&p, &by_unit, 0, bad[i]), FC_ERR_USAGE);
    assert_null(p);
}

/* Hashes tell mechanisms apart by everything public in them. */
static void test_mechanism_hash(void **state)
{
    (void)state;
    static const char *const word[] = {"word"};
    const struct fc_perturber_options variants[] = {
        {.epsilon = 1},
        {.epsilon = 2},
        {.epsilon = 1, .nearest = 1},
        {.epsilon = 1, .max_units = 9},
        {.epsilon = 1, .max_units = 9, .pad = true},
        {.epsilon = 1, .public_words = word, .n_public = 1}};
    enum { N = sizeof variants / sizeof variants[0] };
    unsigned char hashes[N][32], again[32];
    for (size_t i = 0; i < N; i++) {
        struct fc_perturber *p = open_perturber(variants[i]), *q = open_perturber(variants[i]);
        struct fc_mechanism m;
        fc_perturber_hash(p, hashes[i]);
        fc_perturber_hash(q, again);
        assert_memory_equal(hashes[i], again, 32);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(hashes[i], hashes[j], 32);
        fc_perturber_mechanism(p, &m);
        assert_int_equal(strlen(m.hash), 64);
        assert_int_equal(m.n_outputs, OUTPUTS);
        assert_true(m.epsilon <= variants[i].epsilon);
        fc_perturber_close(p);
        fc_perturber_close(q);
    }
}

static int make_folder(void **state)
{
    (void)state;
    if (!scratch_make(folder))
        return -1;
    scratch_path(path, folder, "ledger");
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"ledger", "ledger.key"};
    scratch_remove(folder, names, 2);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_only_vocabulary_leaves),
        TEST(test_resend_costs_nothing),
        TEST(test_overrun_is_refused_before_anything),
        TEST(test_caps_and_padding),
        TEST(test_public_words),
        TEST(test_ranking_by_context),
        TEST(test_broken_ranking_sends_nothing),
        TEST(test_many_texts_and_their_distribution),
        TEST(test_unprotected_says_so),
        TEST(test_options_that_cannot_be),
        TEST(test_mechanism_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
