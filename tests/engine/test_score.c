/* Scores of continuations: equal to the training pass's log-probabilities, the same bits whatever
 * is scored beside them, whatever the pass holds, and with a cache that hardly holds one item. */
#include "engine/batch.h"
#include "engine/score.h"
#include "engine/transformer.h"

#include "tests/engine/toy.h"

#include <math.h>

enum { ITEMS = 30, CHOICES = 5, LONGEST = 60, V = 199 };

struct question {
    int32_t prompt[LONGEST], choices[CHOICES][LONGEST];
    struct fc_score_choice scored[CHOICES];
};

/* Prompts of 1 to 56 tokens; some start alike, one is there twice; choices of 0 to 4 tokens, some
 * sharing their first ones. */
static void make_items(const struct toy *toy, struct question *q, struct fc_score_item *items)
{
    for (size_t i = 0; i < ITEMS; i++) {
        size_t n = i == 7 ? 1 : 1 + (i * 37) % 56;
        toy_ids(toy, q[i].prompt, n, i % 3 ? 100 + i : 100);
        if (i == 20)
            memcpy(q[i].prompt, q[19].prompt, (n = items[19].n_prompt) * sizeof q[i].prompt[0]);
        items[i] = (struct fc_score_item){
            .prompt = q[i].prompt, .n_prompt = n, .choices = q[i].scored, .n_choices = CHOICES};
        for (size_t c = 0; c < CHOICES; c++) {
            toy_ids(toy, q[i].choices[c], 4, 1000 * i + c / 2);
            q[i].choices[c][2] = (int32_t)c;
            q[i].scored[c] = (struct fc_score_choice){
                .tokens = q[i].choices[c], .n = (i + c) % 5, .log_prob = 99};
        }
    }
}

/* log p of the choice from logits of a plain pass over prompt + choice. */
static double truth_of(struct fc_transformer *t, const struct fc_score_item *item,
                       const struct fc_score_choice *choice)
{
    static float logits[8 * V];
    int32_t ids[2 * LONGEST];
    struct fc_batch b = {0};
    double sum = 0;
    if (choice->n == 0)
        return 0;
    memcpy(ids, item->prompt, item->n_prompt * sizeof *ids);
    memcpy(ids + item->n_prompt, choice->tokens, choice->n * sizeof *ids);
    struct fc_sample sample = {
        .ids = ids, .n = item->n_prompt + choice->n, .first_target = item->n_prompt};
    must(fc_batch_create(&b, 2 * LONGEST, why));
    assert_true(fc_batch_add(&b, &sample, 1));
    assert_int_equal(b.n_targets, choice->n);
    must(fc_transformer_logits(t, &b, logits, why));
    for (size_t i = 0; i < choice->n; i++) {
        double z = 0;
        for (size_t v = 0; v < V; v++)
            z += exp((double)logits[i * V + v]);
        sum += (double)logits[i * V + (size_t)choice->tokens[i]] - log(z);
    }
    fc_batch_free(&b);
    return sum;
}

static void equals_the_training_pass(void **state)
{
    (void)state;
    struct toy toy;
    struct question q[ITEMS];
    struct fc_score_item items[ITEMS];
    struct fc_scorer *s = NULL;
    struct fc_transformer *t = NULL;
    toy_random(&toy, FC_F32, true, 4);
    make_items(&toy, q, items);
    must(fc_scorer_create(&s, &toy.model, NULL, why));
    must(fc_score(s, items, ITEMS, why));
    must(fc_transformer_create(&t, &toy.model, 2 * LONGEST, why));
    for (size_t i = 0; i < ITEMS; i++)
        for (size_t c = 0; c < CHOICES; c++) {
            double truth = truth_of(t, &items[i], &q[i].scored[c]);
            if (!(fabs(q[i].scored[c].log_prob - truth) <= 1e-5 * (1 + fabs(truth))))
                fail_msg("item %zu choice %zu: %.9g, expected %.9g", i, c, q[i].scored[c].log_prob,
                         truth);
        }
    struct fc_scorer_stats stats;
    fc_scorer_stats(s, &stats);
    size_t naive = 0, targets = 0;
    for (size_t i = 0; i < ITEMS; i++)
        for (size_t c = 0; c < CHOICES; c++)
            if (q[i].scored[c].n) {
                naive += items[i].n_prompt + q[i].scored[c].n - 1;
                targets += q[i].scored[c].n;
            }
    assert_int_equal(stats.targets, targets);
    assert_int_equal(stats.rows + stats.shared, naive);
    assert_true(stats.rows * 3 < naive); /* 4 of 5 choices have tokens, prompts once */
    fc_transformer_free(t);
    fc_scorer_free(s);
    toy_close(&toy);
}

static void same_bits_in_any_company(enum fc_dtype dtype)
{
    struct toy toy;
    struct question q[ITEMS], r[ITEMS];
    struct fc_score_item items[ITEMS], again[ITEMS];
    toy_random(&toy, dtype, false, 9);
    make_items(&toy, q, items);
    make_items(&toy, r, again);
    const struct fc_scorer_options cuts[] = {
        {.rows = 1024},
        {.rows = 32, .logits = 3},                         /* many passes, many slices */
        {.rows = 5, .logits = 1, .cache_tokens = LONGEST}, /* prompts longer than a pass */
        {.rows = 100, .logits = 7, .cache_tokens = 70}};   /* evicted all the time */
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        struct fc_scorer *s = NULL;
        must(fc_scorer_create(&s, &toy.model, &cuts[i], why));
        must(fc_score(s, i ? again : items, ITEMS, why));
        for (size_t j = 0; i && j < ITEMS; j++)
            for (size_t c = 0; c < CHOICES; c++)
                if (q[j].scored[c].log_prob != r[j].scored[c].log_prob)
                    fail_msg("cut %zu, item %zu, choice %zu: %.17g and %.17g", i, j, c,
                             q[j].scored[c].log_prob, r[j].scored[c].log_prob);
        /* One by one, the last first, with what the cache still holds. */
        for (size_t j = ITEMS; j-- > 0;) {
            must(fc_score(s, &again[j], 1, why));
            for (size_t c = 0; c < CHOICES; c++)
                assert_true(q[j].scored[c].log_prob == r[j].scored[c].log_prob);
        }
        fc_scorer_free(s);
    }
    toy_close(&toy);
}

static void same_bits_fp32(void **state)
{
    (void)state;
    same_bits_in_any_company(FC_F32);
}

static void same_bits_bf16(void **state)
{
    (void)state;
    same_bits_in_any_company(FC_BF16);
}

static void sees_new_weights_after_reset(void **state)
{
    (void)state;
    struct toy toy;
    toy_random(&toy, FC_F32, false, 9);
    const int32_t prompt[3] = {5, 6, 7}, tokens[2] = {8, 9};
    struct fc_score_choice choice = {.tokens = tokens, .n = 2};
    struct fc_score_item item = {
        .prompt = prompt, .n_prompt = 3, .choices = &choice, .n_choices = 1};
    struct fc_scorer *s = NULL, *fresh = NULL;
    must(fc_scorer_create(&s, &toy.model, NULL, why));
    must(fc_score(s, &item, 1, why));
    double before = choice.log_prob;
    const struct fc_param *p = fc_params_find(&toy.model.params, FC_P_QKV, 1);
    float *w = calloc(p->count, sizeof *w);
    toy_set(&toy, p, w);
    free(w);
    must(fc_model_pack(&toy.model, why));
    fc_scorer_reset_cache(s);
    must(fc_score(s, &item, 1, why));
    double after = choice.log_prob;
    must(fc_scorer_create(&fresh, &toy.model, NULL, why));
    must(fc_score(fresh, &item, 1, why));
    assert_true(before != after);
    assert_true(choice.log_prob == after);
    fc_scorer_free(s);
    fc_scorer_free(fresh);
    toy_close(&toy);
}

static void refuses_what_cannot_be_scored(void **state)
{
    (void)state;
    struct toy toy;
    toy_random(&toy, FC_F32, false, 9);
    struct fc_scorer *s = NULL;
    const struct fc_scorer_options options = {.rows = 64, .cache_tokens = 100};
    must(fc_scorer_create(&s, &toy.model, &options, why));
    int32_t prompt[120] = {0}, tokens[2] = {1, V};
    struct fc_score_choice choice = {.tokens = tokens, .n = 1};
    struct fc_score_item items[2] = {
        {.prompt = prompt, .n_prompt = 10, .choices = &choice, .n_choices = 1},
        {.prompt = prompt, .n_prompt = 100, .choices = &choice, .n_choices = 1}};
    struct fc_error err = {0};
    assert_int_equal(fc_score(s, items, 2, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "item 1"));
    err = (struct fc_error){0};
    items[1].n_prompt = 0;
    assert_int_equal(fc_score(s, items, 2, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "empty"));
    err = (struct fc_error){0};
    choice.n = 2;
    assert_int_equal(fc_score(s, items, 1, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "vocabulary"));
    choice.n = 1;
    must(fc_score(s, items, 1, why)); /* still works */
    assert_true(choice.log_prob < 0);
    must(fc_score(s, items, 0, why));
    fc_scorer_free(s);
    toy_close(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_training_pass),
        cmocka_unit_test(same_bits_fp32),
        cmocka_unit_test(same_bits_bf16),
        cmocka_unit_test(sees_new_weights_after_reset),
        cmocka_unit_test(refuses_what_cannot_be_scored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
