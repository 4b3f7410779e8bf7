/* The bound on the real thing: a real model's ranking of the default vocabulary for every word of
 * it as the private input, and for words outside it. Integer arithmetic on exact level weights.
 * Skipped without a model file (FEDCOT_MODEL, or the one that the quickstart keeps). */
#define _GNU_SOURCE
#include "privacy/perturb.h"

#include "base/file.h"
#include "privacy/ranking_embedding.h"
#include "privacy/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fc_model_file *file;
static struct fc_tokenizer *tok;
static struct fc_device dev;
static struct fc_model model;

static const char *model_path(void)
{
    static char path[1024];
    const char *named = getenv("FEDCOT_MODEL"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (named && *named)
        return named;
    snprintf(path, sizeof path, "%s%s/fedcot/SmolLM2-135M-Instruct.Q4_1.gguf",
             cache && *cache ? cache
             : home          ? home
                             : "",
             cache && *cache ? "" : "/.cache");
    return path;
}

/* A document of all entries of V and of odd words, each a unit. */
static void add_inputs(const struct fc_vocabulary *v, struct fc_text *text)
{
    static const char *const odd[] = {"Zbigniew",
                                      "hepatitis",
                                      "1987",
                                      "qqqq",
                                      "\xE2\x82\xAC",
                                      "\xE4\xB8\xAD\xE6\x96\x87",
                                      "antidisestablishmentarianism"};
    for (size_t i = 0; i < fc_vocabulary_size(v); i++) {
        fc_text_puts(text, fc_vocabulary_entry(v, i));
        fc_text_puts(text, " ");
    }
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        fc_text_puts(text, odd[i]);
        fc_text_puts(text, " ");
    }
    assert_int_equal(fc_text_check(text, NULL), FC_OK);
}

/* For every input: the first m ranks hold m distinct outputs (the sampler's check), an entry of V
 * ranks itself first, and each rank's integers fall on its output. With S fixed, Pr[y|x] is W_0/S
 * or W_1/S; over all inputs every output's extremes stay within W_0 to W_1, and W_0/W_1 within
 * e^eps. */
static void check_bound(double epsilon)
{
    struct fc_vocabulary *v = NULL;
    struct fc_ranking *r = NULL;
    struct fc_cutter *cutter = NULL;
    struct fc_profile p;
    struct fc_sampler s;
    struct fc_text text = {0};
    struct fc_error err = {0};
    assert_int_equal(fc_vocabulary_open(&v, tok, 0, &err), FC_OK);
    assert_int_equal(fc_cutter_open(&cutter, &err), FC_OK);
    assert_int_equal(fc_ranking_embedding_open(&r, &dev, fc_model_weight(&model, FC_P_EMBED, 0),
                                               model.dtype, model.config.n_vocab,
                                               model.config.n_embd, tok, v, &err),
                     FC_OK);
    size_t n = fc_vocabulary_size(v), m = fc_profile_choose(n, epsilon, 0.5);
    assert_int_equal(fc_profile_two_level(&p, n, m, epsilon, &err), FC_OK);
    assert_int_equal(fc_sampler_open(&s, &p, &err), FC_OK);
    add_inputs(v, &text);
    struct fc_document d = {.text = text.data, .len = text.len};
    assert_int_equal(fc_units_cut(cutter, d.text, d.len, &d.units, &err), FC_OK);
    assert_true(d.units.n > n);
    assert_int_equal(r->type->prepare(r, &d, 1, m, &err), FC_OK);

    uint64_t w0 = p.levels[0].weight, w1 = p.levels[1].weight;
    uint64_t *least = calloc(n, sizeof *least), *most = calloc(n, sizeof *most);
    int32_t *top = calloc(m, sizeof *top);
    unsigned char *seen = calloc(n, 1);
    assert_true(least && most && top && seen);
    for (size_t y = 0; y < n; y++)
        least[y] = UINT64_MAX;
    for (size_t x = 0; x < d.units.n; x++) {
        struct fc_query q = {&d, x, NULL};
        int32_t y = -1;
        assert_int_equal(r->type->rank(r, &q, 1, m, top, &err), FC_OK);
        assert_int_equal(fc_sampler_map(&s, 0, top, &y, &err), FC_OK);
        assert_int_equal(y, top[0]);
        if (x < n)
            assert_int_equal(y, (int32_t)x);
        assert_int_equal(fc_sampler_map(&s, (fc_u128)m * w0 - 1, top, &y, &err), FC_OK);
        assert_int_equal(y, top[m - 1]);
        memset(seen, 0, n);
        for (size_t i = 0; i < m; i++)
            seen[top[i]] = 1;
        assert_int_equal(fc_sampler_map(&s, p.total - 1, top, &y, &err), FC_OK);
        for (size_t i = (size_t)y + 1; i < n; i++) /* the last rank is the last one left */
            assert_true(seen[i]);
        for (size_t i = 0; i < n; i++) {
            uint64_t w = seen[i] ? w0 : w1;
            least[i] = w < least[i] ? w : least[i];
            most[i] = w > most[i] ? w : most[i];
        }
        if (x % 1000 == 7) { /* all ranks, one by one: every output exactly once */
            fc_u128 u = 0;
            memset(seen, 0, n);
            for (size_t rank = 0; rank < n; rank++) {
                assert_int_equal(fc_sampler_map(&s, u, top, &y, &err), FC_OK);
                assert_false(seen[y]);
                seen[y] = 1;
                u += rank < m ? w0 : w1;
            }
            assert_true(u == p.total);
        }
    }
    for (size_t y = 0; y < n; y++)
        assert_true((fc_u128)most[y] * w1 <= (fc_u128)least[y] * w0);
    assert_true(fc_epsilon_upper(w0, w1) <= epsilon);
    printf("eps %g: %zu inputs, %zu outputs, m %zu, W_0 %llu, W_1 %llu, eps of them <= %.15f\n",
           epsilon, d.units.n, n, m, (unsigned long long)w0, (unsigned long long)w1, p.epsilon);
    free(least);
    free(most);
    free(top);
    free(seen);
    fc_text_free(&text);
    fc_units_free(&d.units);
    fc_sampler_close(&s);
    fc_cutter_close(cutter);
    r->type->close(r);
    fc_vocabulary_close(v);
}

static void test_bound_over_every_input(void **state)
{
    (void)state;
    check_bound(3);
    check_bound(6);
    check_bound(10);
}

/* The neighbours mean something: at a high epsilon with a few nearest, what comes out is kin. */
static void test_neighbours_are_kin(void **state)
{
    (void)state;
    static const struct {
        const char *unit, *kin; /* one of these in the nearest five, however spelled */
    } rows[] = {{"doctor", " doctors physician nurse hospital "},
                {"Seven", " six eight nine five "},
                {"Paris", " London France Berlin "},
                {"where", " which when how whose wherever wherein "},
                {"hepatitis", " influenza malaria herpes measles virus liver tuberculosis "}};
    struct fc_perturber *p = NULL;
    struct fc_error err = {0};
    struct fc_perturber_options o = {.epsilon = 30, .nearest = 5};
    if (fc_perturber_open(&p, &model, tok, &o, &err) != FC_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool kin = false;
        for (int draw = 0; draw < 40 && !kin; draw++) {
            struct fc_private_text t = {"x", rows[i].unit, strlen(rows[i].unit)};
            struct fc_perturbed *out = NULL;
            char spaced[80];
            assert_int_equal(fc_perturber_run(p, NULL, &t, 1, &out, NULL, &err), FC_OK);
            snprintf(spaced, sizeof spaced, " %s ", fc_perturbed_text(out, NULL));
            kin = strstr(rows[i].kin, spaced) != NULL;
            fc_perturbed_free(out);
        }
        if (!kin)
            printf("no kin of %s\n", rows[i].unit);
        assert_true(kin);
    }
    fc_perturber_close(p);
}

static int set_up(void **state)
{
    (void)state;
    struct fc_error err = {0};
    if (fc_model_file_open(&file, model_path(), &err) == FC_OK &&
        fc_tokenizer_open(&tok, file, &err) == FC_OK &&
        fc_device_open(&dev, "cpu", 0, &err) == FC_OK &&
        fc_model_load(&model, &dev, file, FC_BF16, 256, &err) == FC_OK)
        return 0;
    printf("%s\n", err.text);
    return -1;
}

static int tear_down(void **state)
{
    (void)state;
    fc_model_free(&model);
    fc_device_close(&dev);
    fc_tokenizer_close(tok);
    fc_model_file_close(file);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound_over_every_input),
        cmocka_unit_test(test_neighbours_are_kin),
    };
    if (!fc_is_file(model_path()) && !fc_is_folder(model_path())) {
        printf("skipped: no model at %s; set FEDCOT_MODEL\n", model_path());
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
