/* Generation on CUDA beside the CPU: greedy tokens are the CPU's in fp32; a request has the same
 * tokens in any company, with steps that were recorded and steps that were not; and a recording
 * does not outlive the weights that it was made with. */
#include "engine/generate.h"

#include "tests/engine/toy.h"

enum { REQUESTS = 8, LONGEST = 48, MOST = 10 };

struct job {
    int32_t prompt[LONGEST], tokens[MOST];
    struct fc_request request;
    size_t n_tokens;
};

/* Prompts of 1 to 48 tokens, half of which begin alike; greedy ones first. */
static void make_jobs(const struct toy *toy, struct job *jobs, float temperature)
{
    memset(jobs, 0, REQUESTS * sizeof *jobs);
    for (size_t i = 0; i < REQUESTS; i++) {
        struct job *j = &jobs[i];
        size_t n = 1 + (i * 19) % LONGEST;
        toy_ids(toy, j->prompt, n, 50 + i);
        if (i % 2)
            toy_ids(toy, j->prompt, n < 20 ? n : 20, 7);
        j->request = (struct fc_request){.id = i,
                                         .prompt = j->prompt,
                                         .n_prompt = n,
                                         .max_tokens = 3 + i % (MOST - 2),
                                         .temperature = temperature,
                                         .top_k = i % 3 ? 20 : 0,
                                         .top_p = i % 2 ? 0.9f : 1,
                                         .seed = 3 * i};
    }
}

static void collect(void *context, const struct fc_result *result)
{
    struct job *j = (struct job *)context + result->id;
    memcpy(j->tokens, result->tokens, result->n_tokens * sizeof *j->tokens);
    j->n_tokens = result->n_tokens;
}

/* Runs jobs first .. first+n-1 together; returns the steps that were launched as recordings. */
static size_t run(struct fc_generator *g, struct job *jobs, size_t first, size_t n)
{
    struct fc_generator_stats stats;
    bool busy = true;
    for (size_t i = first; i < first + n; i++)
        must(fc_generator_submit(g, &jobs[i].request, why));
    while (busy)
        must(fc_generator_step(g, collect, jobs, &busy, why));
    for (size_t i = first; i < first + n; i++)
        assert_int_equal(jobs[i].n_tokens, jobs[i].request.max_tokens);
    fc_generator_stats(g, &stats);
    return stats.recorded;
}

static void check_same(const struct job *a, const struct job *b, const char *what)
{
    for (size_t i = 0; i < REQUESTS; i++)
        if (a[i].n_tokens != b[i].n_tokens ||
            memcmp(a[i].tokens, b[i].tokens, a[i].n_tokens * sizeof *a[i].tokens) != 0)
            fail_msg("%s: request %zu has other tokens", what, i);
}

static const struct fc_generator_options small = {.max_batch = 5, .chunk = 16, .cache_tokens = 512};

static void on_device(const char *device, enum fc_dtype dtype, bool qwen, struct job *jobs)
{
    struct toy toy;
    struct fc_generator *g;
    test_device = device;
    toy_random(&toy, dtype, qwen, 11);
    make_jobs(&toy, jobs, 0);
    must(fc_generator_create(&g, &toy.model, NULL, &small, why));
    size_t recorded = run(g, jobs, 0, REQUESTS);
    assert_true(strcmp(device, "cpu") == 0 ? recorded == 0 : recorded > 0);
    fc_generator_free(g);
    toy_close(&toy);
}

static void greedy_is_the_cpus(void **state)
{
    (void)state;
    static struct job cpu[REQUESTS], cuda[REQUESTS];
    for (int qwen = 0; qwen < 2; qwen++) {
        on_device("cuda", FC_F32, qwen, cuda); /* first: skips where there is none */
        on_device("cpu", FC_F32, qwen, cpu);
        check_same(cpu, cuda, qwen ? "qwen" : "llama");
    }
}

static void in_any_company(enum fc_dtype dtype)
{
    static struct job alone[REQUESTS], together[REQUESTS];
    const struct fc_generator_options cases[] = {
        small, {0}, {.max_batch = 3, .chunk = 7, .page_size = 1}};
    struct toy toy;
    struct fc_generator *g;
    test_device = "cuda";
    toy_random(&toy, dtype, true, 12);
    make_jobs(&toy, alone, 0.9f);
    must(fc_generator_create(&g, &toy.model, NULL, NULL, why));
    for (size_t i = 0; i < REQUESTS; i++)
        run(g, alone, i, 1);
    fc_generator_free(g);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        make_jobs(&toy, together, 0.9f);
        must(fc_generator_create(&g, &toy.model, NULL, &cases[c], why));
        run(g, together, 0, REQUESTS);
        fc_generator_free(g);
        check_same(alone, together, "together");
    }
    toy_close(&toy);
}

static void same_tokens_bf16(void **state)
{
    (void)state;
    in_any_company(FC_BF16);
}

/* The weights change and are packed again, elsewhere perhaps, while a generator lives. */
static void recordings_end_with_their_weights(void **state)
{
    (void)state;
    static struct job before[REQUESTS], after[REQUESTS], fresh[REQUESTS];
    struct toy toy, other;
    struct fc_generator *g;
    test_device = "cuda";
    toy_random(&other, FC_F32, false, 22);
    make_jobs(&other, fresh, 0);
    must(fc_generator_create(&g, &other.model, NULL, &small, why));
    run(g, fresh, 0, REQUESTS);
    fc_generator_free(g);

    toy_random(&toy, FC_F32, false, 21);
    make_jobs(&toy, before, 0);
    make_jobs(&toy, after, 0);
    must(fc_generator_create(&g, &toy.model, NULL, &small, why));
    size_t recorded = run(g, before, 0, REQUESTS);
    size_t bytes = toy.model.params.total * sizeof(float);
    void *host = malloc(bytes);
    assert_non_null(host);
    other.dev.k->download(other.dev.stream, host, other.model.weights, bytes);
    must(other.dev.k->sync(other.dev.stream, why));
    toy.dev.k->upload(toy.dev.stream, toy.model.weights, host, bytes);
    must(toy.dev.k->sync(toy.dev.stream, why));
    free(host);
    void *held[64]; /* in the place of the packed weights, so that the new ones lie elsewhere */
    fc_model_unpack(&toy.model);
    for (size_t i = 0; i < 64; i++) {
        held[i] = fc_device_alloc(&toy.dev, 24576, FC_MEM_STAGING, NULL);
        assert_non_null(held[i]);
    }
    must(fc_model_pack(&toy.model, why));
    fc_generator_reset_cache(g);
    assert_true(run(g, after, 0, REQUESTS) > recorded);
    for (size_t i = 0; i < 64; i++)
        fc_device_free(&toy.dev, held[i], 24576, FC_MEM_STAGING);
    fc_generator_free(g);
    check_same(fresh, after, "new weights");
    toy_close(&toy);
    toy_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_the_cpus),
        cmocka_unit_test(same_tokens_bf16),
        cmocka_unit_test(recordings_end_with_their_weights),
    };
    return cmocka_run_group_tests_name("engine_cuda/generation", tests, NULL, NULL);
}
