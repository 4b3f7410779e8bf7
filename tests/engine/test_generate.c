/* The scheduler: a request's tokens in any company, with any chunks, pages and cache; waiting,
 * eviction, cancels, the reuse of prefixes, and what is refused. */
#include "engine/batch.h"
#include "engine/generate.h"
#include "engine/transformer.h"

#include "tests/engine/toy.h"

enum { REQUESTS = 32, LONGEST = 200, MOST = 40, SHARED = 70, V = 199 };

struct job {
    int32_t prompt[LONGEST], tokens[MOST];
    struct fc_request request;
    size_t n_tokens;
    enum fc_finish finish;
    int reports;
};

/* Prompts of 1 to 150 tokens: most begin with the same 70; some greedy, most sampled. */
static void make_jobs(const struct toy *toy, struct job *jobs)
{
    memset(jobs, 0, REQUESTS * sizeof *jobs);
    for (size_t i = 0; i < REQUESTS; i++) {
        struct job *j = &jobs[i];
        size_t n = i % 4 ? SHARED + 1 + (i * 13) % 80 : 1 + (i * 29) % 150;
        toy_ids(toy, j->prompt, n, 50 + i);
        if (i % 4)
            toy_ids(toy, j->prompt, SHARED, 7);
        j->request = (struct fc_request){.id = 1000 + i,
                                         .prompt = j->prompt,
                                         .n_prompt = n,
                                         .max_tokens = 1 + (i * 7) % MOST,
                                         .temperature = i % 5 ? 0.9f : 0,
                                         .top_k = i % 3 ? 20 : 0,
                                         .top_p = i % 2 ? 0.9f : 1,
                                         .seed = 3 * i};
    }
}

static void collect(void *context, const struct fc_result *result)
{
    struct job *jobs = context;
    assert_in_range(result->id, 1000, 1000 + REQUESTS - 1);
    struct job *j = &jobs[result->id - 1000];
    assert_true(result->n_tokens <= MOST);
    memcpy(j->tokens, result->tokens, result->n_tokens * sizeof *j->tokens);
    j->n_tokens = result->n_tokens;
    j->finish = result->finish;
    j->reports++;
    assert_int_equal(result->n_text, 0);
    assert_string_equal(result->text, "");
}

static void run_until_idle(struct fc_generator *g, struct job *jobs)
{
    bool busy = true;
    for (int steps = 0; busy; steps++) {
        assert_true(steps < 10000);
        must(fc_generator_step(g, collect, jobs, &busy, why));
    }
}

/* Runs jobs first .. first+n-1 together in a new generator. */
static struct fc_generator_stats run_jobs(struct toy *toy, struct job *jobs, size_t first, size_t n,
                                          const struct fc_generator_options *options)
{
    struct fc_generator *g = NULL;
    struct fc_generator_stats stats;
    must(fc_generator_create(&g, &toy->model, NULL, options, why));
    for (size_t i = first; i < first + n; i++)
        must(fc_generator_submit(g, &jobs[i].request, why));
    run_until_idle(g, jobs);
    fc_generator_stats(g, &stats);
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(stats.running, 0);
    fc_generator_free(g);
    return stats;
}

static void check_same(const struct job *a, const struct job *b, const char *what)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        assert_int_equal(b[i].reports, 1);
        if (a[i].n_tokens != b[i].n_tokens || a[i].finish != b[i].finish ||
            memcmp(a[i].tokens, b[i].tokens, a[i].n_tokens * sizeof *a[i].tokens) != 0)
            fail_msg("%s: request %zu has other tokens", what, i);
    }
}

static void same_tokens(enum fc_dtype dtype, bool qwen)
{
    struct toy toy;
    static struct job alone[REQUESTS], together[REQUESTS];
    toy_random(&toy, dtype, qwen, 11);
    make_jobs(&toy, alone);
    for (size_t i = 0; i < REQUESTS; i++) {
        run_jobs(&toy, alone, i, 1, NULL);
        assert_int_equal(alone[i].n_tokens, alone[i].request.max_tokens);
        assert_int_equal(alone[i].finish, FC_FINISH_LENGTH);
    }
    const struct {
        const char *what;
        struct fc_generator_options options;
    } cases[] = {
        {"32 together", {0}},
        {"chunk 16", {.chunk = 16}},
        {"chunk 1, batch 5", {.chunk = 1, .max_batch = 5}},
        {"pages of 1", {.page_size = 1, .chunk = 64}},
        {"pages of 64", {.page_size = 64}},
        {"a cache for one or two", {.cache_tokens = 224, .chunk = 32}},
        {"one after the other", {.max_batch = 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_jobs(&toy, together);
        run_jobs(&toy, together, 0, REQUESTS, &cases[i].options);
        check_same(alone, together, cases[i].what);
    }
    toy_close(&toy);
}

static void same_tokens_fp32(void **state)
{
    (void)state;
    same_tokens(FC_F32, false);
}

static void same_tokens_bf16(void **state)
{
    (void)state;
    same_tokens(FC_BF16, true);
}

/* Greedy tokens from the training pass, which knows no cache and no batch. */
static void greedy_equals_the_training_pass(void **state)
{
    (void)state;
    struct toy toy;
    static struct job jobs[REQUESTS];
    struct fc_transformer *t = NULL;
    float logits[V];
    toy_random(&toy, FC_F32, true, 11);
    make_jobs(&toy, jobs);
    for (size_t i = 0; i < 6; i++)
        jobs[i].request.temperature = 0;
    run_jobs(&toy, jobs, 0, 6, NULL);
    must(fc_transformer_create(&t, &toy.model, LONGEST, why));
    for (size_t i = 0; i < 6; i++) {
        int32_t ids[LONGEST + 1];
        size_t n = jobs[i].request.n_prompt;
        memcpy(ids, jobs[i].prompt, n * sizeof *ids);
        for (size_t j = 0; j < jobs[i].n_tokens; j++) {
            struct fc_batch b = {0};
            ids[n] = 0;
            struct fc_sample sample = {.ids = ids, .n = n + 1, .first_target = n};
            must(fc_batch_create(&b, LONGEST, why));
            assert_true(fc_batch_add(&b, &sample, 1));
            must(fc_transformer_logits(t, &b, logits, why));
            fc_batch_free(&b);
            int32_t best = 0;
            for (int32_t v = 1; v < V; v++)
                best = logits[v] > logits[best] ? v : best;
            ids[n++] = best;
            assert_int_equal(jobs[i].tokens[j], best);
        }
    }
    fc_transformer_free(t);
    toy_close(&toy);
}

static void shared_prefix_is_computed_once(void **state)
{
    (void)state;
    struct toy toy;
    static struct job jobs[REQUESTS];
    toy_random(&toy, FC_F32, false, 11);
    make_jobs(&toy, jobs);
    size_t prompts = 0;
    for (size_t i = 0; i < REQUESTS; i++) {
        struct fc_request *r = &jobs[i].request;
        toy_ids(&toy, jobs[i].prompt, SHARED, 7);
        r->n_prompt = SHARED + 1 + i % 10;
        r->prompt = jobs[i].prompt;
        jobs[i].prompt[SHARED] = (int32_t)i;
        prompts += r->n_prompt;
    }
    const size_t page_sizes[] = {8, 24, 5, 70, 1}; /* steps of 32 rows end inside pages */
    for (size_t c = 0; c < sizeof page_sizes / sizeof page_sizes[0]; c++) {
        const struct fc_generator_options options = {.page_size = page_sizes[c], .chunk = 32};
        const size_t whole = SHARED / page_sizes[c] * page_sizes[c];
        struct fc_generator_stats s = run_jobs(&toy, jobs, 0, REQUESTS, &options);
        assert_int_equal(s.prompt_tokens, prompts - (REQUESTS - 1) * whole);
        assert_int_equal(s.cached_tokens, (REQUESTS - 1) * whole);
        size_t decoded = 0;
        for (size_t i = 0; i < REQUESTS; i++)
            decoded += jobs[i].n_tokens;
        assert_int_equal(s.decoded_tokens, decoded);
        /* A prompt's last row gives the first token. */
        assert_int_equal(s.rows, s.prompt_tokens + decoded - REQUESTS);
    }
    toy_close(&toy);
}

/* Equal prompts of whole pages: the last token is computed all the same, for its logits. */
static void equal_prompts_of_whole_pages(void **state)
{
    (void)state;
    struct toy toy;
    static struct job jobs[REQUESTS];
    struct fc_generator *g = NULL;
    const struct fc_generator_options options = {.page_size = 16};
    toy_random(&toy, FC_BF16, true, 11);
    make_jobs(&toy, jobs);
    must(fc_generator_create(&g, &toy.model, NULL, &options, why));
    for (size_t i = 0; i < 6; i++) {
        jobs[i].request = jobs[0].request;
        jobs[i].request.id = 1000 + i;
        jobs[i].request.prompt = jobs[1].prompt;
        jobs[i].request.n_prompt = 64;
        jobs[i].request.max_tokens = MOST;
        must(fc_generator_submit(g, &jobs[i].request, why));
        if (i >= 2) /* three together, then one after the other */
            run_until_idle(g, jobs);
    }
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(jobs[i].n_tokens, MOST);
        assert_memory_equal(jobs[i].tokens, jobs[0].tokens, sizeof jobs[0].tokens);
    }
    struct fc_generator_stats stats;
    fc_generator_stats(g, &stats);
    assert_int_equal(stats.cached_tokens, 5 * 48);
    fc_generator_free(g);
    toy_close(&toy);
}

/* A request joins while others decode and does not wait for them. */
static void joins_a_running_batch(void **state)
{
    (void)state;
    struct toy toy;
    static struct job alone[REQUESTS], jobs[REQUESTS];
    struct fc_generator *g = NULL;
    bool busy = true;
    toy_random(&toy, FC_F32, false, 11);
    make_jobs(&toy, alone);
    make_jobs(&toy, jobs);
    alone[1].request.max_tokens = jobs[1].request.max_tokens = MOST;
    alone[2].request.max_tokens = jobs[2].request.max_tokens = 3;
    run_jobs(&toy, alone, 1, 1, NULL);
    run_jobs(&toy, alone, 2, 1, NULL);
    must(fc_generator_create(&g, &toy.model, NULL, NULL, why));
    must(fc_generator_submit(g, &jobs[1].request, why));
    for (int i = 0; i < 5; i++)
        must(fc_generator_step(g, collect, jobs, &busy, why));
    must(fc_generator_submit(g, &jobs[2].request, why));
    for (int i = 0; i < 4; i++)
        must(fc_generator_step(g, collect, jobs, &busy, why));
    assert_int_equal(jobs[2].reports, 1);
    assert_int_equal(jobs[1].reports, 0);
    run_until_idle(g, jobs);
    for (int i = 1; i <= 2; i++) {
        assert_int_equal(jobs[i].n_tokens, alone[i].n_tokens);
        assert_memory_equal(jobs[i].tokens, alone[i].tokens,
                            alone[i].n_tokens * sizeof *alone[i].tokens);
    }
    fc_generator_free(g);
    toy_close(&toy);
}

/* Cancels at every stage: waiting, while its prompt is read (others wait for its pages), decoding;
 * the others' tokens stay as they were, and no page is lost. */
static void cancels(void **state)
{
    (void)state;
    struct toy toy;
    static struct job alone[REQUESTS], jobs[REQUESTS];
    const struct fc_generator_options options = {
        .max_batch = 6, .chunk = 32, .page_size = 8, .cache_tokens = 1024};
    toy_random(&toy, FC_BF16, false, 11);
    make_jobs(&toy, alone);
    for (size_t i = 0; i < REQUESTS; i++)
        run_jobs(&toy, alone, i, 1, NULL);
    struct fc_generator *g = NULL;
    must(fc_generator_create(&g, &toy.model, NULL, &options, why));
    for (int round = 0; round < 12; round++) {
        make_jobs(&toy, jobs);
        fc_generator_reset_cache(g);
        for (size_t i = 0; i < REQUESTS; i++)
            must(fc_generator_submit(g, &jobs[(i + 1) % REQUESTS].request, why));
        bool busy = true;
        for (int step = 0; step <= round; step++) {
            if (step == round) {
                fc_generator_cancel(g, 1001);
                fc_generator_cancel(g, 1002);
                fc_generator_cancel(g, 1000); /* the last of the queue */
                fc_generator_cancel(g, 1020);
                fc_generator_cancel(g, 4711);
            }
            must(fc_generator_step(g, collect, jobs, &busy, why));
        }
        run_until_idle(g, jobs);
        for (size_t i = 0; i < REQUESTS; i++) {
            bool dropped = i <= 2 || i == 20;
            assert_int_equal(jobs[i].reports, 1);
            if (jobs[i].finish == FC_FINISH_CANCELLED) {
                assert_true(dropped);
                assert_true(jobs[i].n_tokens < alone[i].n_tokens);
            } else {
                assert_int_equal(jobs[i].n_tokens, alone[i].n_tokens);
            }
            assert_memory_equal(jobs[i].tokens, alone[i].tokens,
                                jobs[i].n_tokens * sizeof *jobs[i].tokens);
        }
        for (size_t i = 1; i <= 2 && round <= 4; i++) /* was running then, or in the first step */
            assert_int_equal(jobs[i].finish, FC_FINISH_CANCELLED);
        assert_int_equal(jobs[20].finish, FC_FINISH_CANCELLED);
        assert_int_equal(jobs[20].n_tokens, 0);
    }
    /* One that needs the whole cache still fits. */
    make_jobs(&toy, jobs);
    jobs[0].request.prompt = jobs[1].prompt;
    jobs[0].request.n_prompt = 130;
    jobs[0].request.max_tokens = MOST;
    must(fc_generator_submit(g, &jobs[0].request, why));
    run_until_idle(g, jobs);
    assert_int_equal(jobs[0].n_tokens, MOST);
    fc_generator_free(g);
    toy_close(&toy);
}

/* Frees with requests waiting and running. (The sanitizers look for what is lost.) */
static void frees_what_is_left(void **state)
{
    (void)state;
    struct toy toy;
    static struct job jobs[REQUESTS];
    struct fc_generator *g = NULL;
    bool busy;
    const struct fc_generator_options options = {.max_batch = 4};
    toy_random(&toy, FC_F32, false, 11);
    make_jobs(&toy, jobs);
    must(fc_generator_create(&g, &toy.model, NULL, &options, why));
    for (size_t i = 0; i < REQUESTS; i++)
        must(fc_generator_submit(g, &jobs[i].request, why));
    must(fc_generator_step(g, collect, jobs, &busy, why));
    assert_true(busy);
    fc_generator_free(g);
    toy_close(&toy);
}

struct chain {
    struct fc_generator *g;
    struct job *jobs;
    size_t next;
};

/* Each result submits the next request and cancels one that comes later. */
static void submit_next(void *context, const struct fc_result *result)
{
    struct chain *c = context;
    collect(c->jobs, result);
    if (c->next < REQUESTS)
        must(fc_generator_submit(c->g, &c->jobs[c->next++].request, why));
    fc_generator_cancel(c->g, 1000 + REQUESTS - 1);
}

static void callbacks_may_submit_and_cancel(void **state)
{
    (void)state;
    struct toy toy;
    static struct job jobs[REQUESTS];
    const struct fc_generator_options options = {.max_batch = 3};
    toy_random(&toy, FC_F32, false, 11);
    make_jobs(&toy, jobs);
    struct chain c = {.jobs = jobs};
    must(fc_generator_create(&c.g, &toy.model, NULL, &options, why));
    for (; c.next < 5; c.next++)
        must(fc_generator_submit(c.g, &jobs[c.next].request, why));
    bool busy = true;
    while (busy)
        must(fc_generator_step(c.g, submit_next, &c, &busy, why));
    for (size_t i = 0; i < REQUESTS; i++)
        assert_int_equal(jobs[i].reports, 1);
    assert_int_equal(jobs[REQUESTS - 1].finish, FC_FINISH_CANCELLED);
    fc_generator_free(c.g);
    toy_close(&toy);
}

static void refuses(struct fc_generator *g, struct fc_request r, const char *says)
{
    struct fc_error err = {0};
    assert_int_equal(fc_generator_submit(g, &r, &err), FC_ERR_USAGE);
    if (!strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void refuses_what_can_never_run(void **state)
{
    (void)state;
    struct toy toy;
    static struct job jobs[REQUESTS];
    struct fc_generator *g = NULL;
    const struct fc_generator_options options = {.cache_tokens = 100, .page_size = 8};
    toy_random(&toy, FC_F32, false, 11);
    make_jobs(&toy, jobs);
    must(fc_generator_create(&g, &toy.model, NULL, &options, why));
    struct fc_request r = jobs[0].request, bad = r;
    bad.n_prompt = 0;
    refuses(g, bad, "prompt");
    bad = r, bad.max_tokens = 0;
    refuses(g, bad, "max_tokens");
    bad = r, bad.max_tokens = 512;
    refuses(g, bad, "context");
    bad = r, bad.max_tokens = SIZE_MAX;
    refuses(g, bad, "context");
    bad = r, bad.n_prompt = 1, bad.max_tokens = 105;
    refuses(g, bad, "KV cache");
    bad = r, bad.temperature = -1;
    refuses(g, bad, "temperature");
    bad = r, bad.top_p = 1.5f;
    refuses(g, bad, "top_p");
    const char *stop = "x";
    bad = r, bad.stops = &stop, bad.n_stops = 1;
    refuses(g, bad, "tokenizer");
    jobs[0].prompt[0] = V;
    refuses(g, r, "id below 199");
    jobs[0].prompt[0] = -1;
    refuses(g, r, "id below 199");
    jobs[0].prompt[0] = 0;
    r.n_prompt = 1, r.max_tokens = MOST; /* and goes on */
    must(fc_generator_submit(g, &r, why));
    run_until_idle(g, jobs);
    assert_int_equal(jobs[0].n_tokens, MOST);
    fc_generator_free(g);

    struct fc_error err = {0};
    const struct fc_generator_options huge = {.max_batch = 1 << 20};
    assert_int_equal(fc_generator_create(&g, &toy.model, NULL, &huge, &err), FC_ERR_USAGE);
    assert_null(g);
    toy_close(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_tokens_fp32),
        cmocka_unit_test(same_tokens_bf16),
        cmocka_unit_test(greedy_equals_the_training_pass),
        cmocka_unit_test(shared_prefix_is_computed_once),
        cmocka_unit_test(equal_prompts_of_whole_pages),
        cmocka_unit_test(joins_a_running_batch),
        cmocka_unit_test(cancels),
        cmocka_unit_test(frees_what_is_left),
        cmocka_unit_test(callbacks_may_submit_and_cancel),
        cmocka_unit_test(refuses_what_can_never_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
