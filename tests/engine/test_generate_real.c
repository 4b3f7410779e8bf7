/* SmolLM2-135M-Instruct against transformers (tests/golden/make_generation.py): greedy
 * continuations, log-probabilities of choices, and the same tokens alone and among others. */
#include "base/json.h"
#include "engine/generate.h"
#include "engine/score.h"

#include "tests/engine/smollm2.h"

#include <math.h>
#include <stdio.h>

enum { PROMPTS = 20, TOKENS = 64, LONGEST = 128, TOGETHER = 32, SAMPLED = 16 };

static struct fc_model_file *file;
static cJSON *golden;

static size_t read_ids(const cJSON *item, const char *name, int32_t *ids, size_t most)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(item, name), *id;
    size_t n = 0;
    assert_true(cJSON_IsArray(array));
    cJSON_ArrayForEach(id, array)
    {
        assert_true(n < most);
        ids[n++] = (int32_t)id->valuedouble;
    }
    return n;
}

static void load(struct toy *t, enum fc_dtype dtype)
{
    must(fc_device_open(&t->dev, "cpu", 0, why));
    must(fc_model_load(&t->model, &t->dev, file, dtype, 2048, why));
    must(fc_model_pack(&t->model, why));
}

struct job {
    int32_t prompt[LONGEST], expected[TOKENS], tokens[TOKENS];
    size_t n_prompt, n_tokens;
};

static void collect(void *context, const struct fc_result *r)
{
    struct job *jobs = context;
    assert_true(r->n_tokens <= TOKENS);
    memcpy(jobs[r->id].tokens, r->tokens, r->n_tokens * sizeof *r->tokens);
    jobs[r->id].n_tokens = r->n_tokens;
}

/* Runs jobs first .. first+n-1 together, `tokens` each; sampled ones when temperature is not 0. */
static void run(struct toy *t, struct job *jobs, size_t first, size_t n, size_t tokens,
                float temperature, const struct fc_generator_options *options)
{
    struct fc_generator *g = NULL;
    bool busy = true;
    must(fc_generator_create(&g, &t->model, NULL, options, why));
    for (size_t i = first; i < first + n; i++) {
        struct fc_request r = {.id = i,
                               .prompt = jobs[i].prompt,
                               .n_prompt = jobs[i].n_prompt,
                               .max_tokens = tokens,
                               .temperature = temperature,
                               .seed = i,
                               .ignore_eos = true};
        must(fc_generator_submit(g, &r, why));
    }
    while (busy)
        must(fc_generator_step(g, collect, jobs, &busy, why));
    for (size_t i = first; i < first + n; i++)
        assert_int_equal(jobs[i].n_tokens, tokens);
    fc_generator_free(g);
}

static void read_jobs(struct job *jobs, size_t n)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(golden, "greedy");
    assert_int_equal(cJSON_GetArraySize(list), PROMPTS);
    for (size_t i = 0; i < n; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, (int)(i % PROMPTS));
        jobs[i].n_prompt = read_ids(item, "prompt", jobs[i].prompt, LONGEST);
        assert_int_equal(read_ids(item, "tokens", jobs[i].expected, TOKENS), TOKENS);
    }
}

static void greedy_equals_transformers(void **state)
{
    (void)state;
    static struct job jobs[PROMPTS];
    struct toy t;
    load(&t, FC_F32);
    read_jobs(jobs, PROMPTS);
    run(&t, jobs, 0, PROMPTS, TOKENS, 0, NULL);
    for (size_t i = 0; i < PROMPTS; i++)
        for (size_t j = 0; j < TOKENS; j++)
            if (jobs[i].tokens[j] != jobs[i].expected[j])
                fail_msg("prompt %zu, token %zu: %d, expected %d", i, j, jobs[i].tokens[j],
                         jobs[i].expected[j]);
    toy_close(&t);
}

static void scores_equal_transformers(void **state)
{
    (void)state;
    struct toy t;
    struct fc_scorer *s = NULL;
    enum { ITEMS = 8, CHOICES = 5 };
    static int32_t prompts[ITEMS][LONGEST], tokens[ITEMS][CHOICES][LONGEST];
    struct fc_score_choice choices[ITEMS][CHOICES];
    struct fc_score_item items[ITEMS];
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(golden, "scores"), *item, *choice;
    size_t n = 0;
    load(&t, FC_F32);
    cJSON_ArrayForEach(item, list)
    {
        assert_true(n < ITEMS);
        size_t c = 0;
        cJSON_ArrayForEach(choice, cJSON_GetObjectItemCaseSensitive(item, "choices"))
        {
            assert_true(c < CHOICES);
            choices[n][c] = (struct fc_score_choice){
                .tokens = tokens[n][c], .n = read_ids(choice, "tokens", tokens[n][c], LONGEST)};
            c++;
        }
        items[n] = (struct fc_score_item){.prompt = prompts[n],
                                          .n_prompt = read_ids(item, "prompt", prompts[n], LONGEST),
                                          .choices = choices[n],
                                          .n_choices = c};
        n++;
    }
    assert_int_equal(n, ITEMS);
    must(fc_scorer_create(&s, &t.model, NULL, why));
    must(fc_score(s, items, n, why));
    n = 0;
    cJSON_ArrayForEach(item, list)
    {
        size_t c = 0;
        cJSON_ArrayForEach(choice, cJSON_GetObjectItemCaseSensitive(item, "choices"))
        {
            double truth = cJSON_GetObjectItemCaseSensitive(choice, "log_prob")->valuedouble;
            double found = choices[n][c++].log_prob;
            if (!(fabs(found - truth) <= 2e-4))
                fail_msg("item %zu choice %zu: %.7f, expected %.7f", n, c - 1, found, truth);
        }
        n++;
    }
    fc_scorer_free(s);
    toy_close(&t);
}

/* One request alone and among 31 others, sampled, so that other logits would show. */
static void alone_and_among_others(enum fc_dtype dtype)
{
    static struct job together[TOGETHER], cut[TOGETHER], alone[TOGETHER];
    const struct fc_generator_options small = {.chunk = 16, .cache_tokens = 1024};
    struct toy t;
    load(&t, dtype);
    read_jobs(together, TOGETHER);
    read_jobs(cut, TOGETHER);
    read_jobs(alone, TOGETHER);
    run(&t, together, 0, TOGETHER, SAMPLED, 0.8f, NULL);
    run(&t, cut, 0, TOGETHER, SAMPLED, 0.8f, &small);
    for (size_t i = 0; i < TOGETHER; i += 20)
        run(&t, alone, i, 1, SAMPLED, 0.8f, NULL);
    for (size_t i = 0; i < TOGETHER; i++) {
        assert_memory_equal(together[i].tokens, cut[i].tokens, sizeof cut[i].tokens[0] * SAMPLED);
        if (i % 20 == 0)
            assert_memory_equal(together[i].tokens, alone[i].tokens,
                                sizeof cut[i].tokens[0] * SAMPLED);
    }
    toy_close(&t);
}

static void alone_and_among_others_fp32(void **state)
{
    (void)state;
    alone_and_among_others(FC_F32);
}

static void alone_and_among_others_bf16(void **state)
{
    (void)state;
    alone_and_among_others(FC_BF16);
}

int main(void)
{
    if (!smollm2_open(&file)) {
        fc_model_file_close(file);
        return 77;
    }
    struct fc_error err = {0};
    golden = fc_json_read_file(FC_GOLDEN_DIR "/generation.json", 1 << 20, &err);
    if (!golden) {
        printf("%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_equals_transformers),
        cmocka_unit_test(scores_equal_transformers),
        cmocka_unit_test(alone_and_among_others_fp32),
        cmocka_unit_test(alone_and_among_others_bf16),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cJSON_Delete(golden);
    fc_model_file_close(file);
    return failed;
}
