/* Rationale generation as a server does it: 32 requests that share a prefix of 281 tokens, each
 * with 40 tokens of its own and an answer of 64. Decoding and reading prompts are timed apart: the
 * first is the server's steady state, the second happens once for each prompt. */
#include "base/philox.h"
#include "bench/bench.h"
#include "engine/generate.h"

#define REQUESTS 32
#define PREFIX 281
#define OWN 40
#define ANSWER 64

struct generate_state {
    struct fc_generator *g;
    size_t n_vocab, n_answer;
    uint64_t round; /* every call has prompts of its own, but for the shared prefix */
};

static void ignore_result(void *context, const struct fc_result *result)
{
    (void)context;
    (void)result;
}

static enum fc_code run_batch(void *state, struct fc_error *err)
{
    struct generate_state *s = state;
    int32_t prompt[PREFIX + OWN];
    bool busy = true;
    enum fc_code code = FC_OK;
    s->round++;
    for (uint64_t r = 0; r < REQUESTS && code == FC_OK; r++) {
        for (size_t i = 0; i < PREFIX + OWN; i++) {
            uint64_t stream = i < PREFIX ? 0 : s->round * REQUESTS + r;
            prompt[i] = (int32_t)(fc_philox_uniform(3, stream, i) * (float)s->n_vocab);
        }
        struct fc_request request = {.id = r,
                                     .prompt = prompt,
                                     .n_prompt = PREFIX + OWN,
                                     .max_tokens = s->n_answer,
                                     .top_p = 1,
                                     .ignore_eos = true};
        code = fc_generator_submit(s->g, &request, err);
    }
    while (busy && code == FC_OK)
        code = fc_generator_step(s->g, ignore_result, NULL, &busy, err);
    return code;
}

/* Multiply-adds of one token through the blocks, without attention and logits. */
static double block_products(const struct fc_model_config *c)
{
    double C = (double)c->n_embd, A = (double)(c->n_head * c->head_size);
    double Q = A + 2.0 * (double)(c->n_kv_head * c->head_size);
    return (double)c->n_layer * (C * Q + A * C + 3.0 * C * (double)c->n_ff);
}

/* Necessary FLOPs of `rows` tokens at a mean context, `logits` of them with logits. */
static double necessary(const struct fc_model_config *c, double rows, double context, double logits)
{
    double attention = 2.0 * (double)(c->n_layer * c->n_head * c->head_size) * context;
    return 2.0 * (rows * (block_products(c) + attention) +
                  logits * (double)c->n_embd * (double)c->n_vocab);
}

enum fc_code fc_case_generate(struct fc_bench_context *c, struct fc_error *err)
{
    struct fc_model model = {0};
    struct generate_state s = {.n_answer = ANSWER};
    struct fc_generator_options options = {.max_batch = REQUESTS, .cache_tokens = 32768};
    enum fc_code code = fc_bench_model(c, &model, err);
    if (code == FC_OK)
        code = fc_model_pack(&model, err);
    if (code == FC_OK)
        code = fc_generator_create(&s.g, &model, NULL, &options, err);
    if (code != FC_OK)
        goto cleanup;
    s.n_vocab = model.config.n_vocab;
    fc_device_print_memory(&c->dev, stdout);
    /* After the warm-up the prefix is cached: a call computes each request's own prompt, and
     * decodes all tokens but the first, which comes with the prompt. */
    double own = REQUESTS * OWN, tokens = REQUESTS * ANSWER;
    double prompts = necessary(&model.config, own, PREFIX + OWN / 2.0, REQUESTS);
    double decode =
        necessary(&model.config, tokens - REQUESTS, PREFIX + OWN + ANSWER / 2.0, tokens - REQUESTS);
    struct fc_measurement whole = {"generate 32 x 64, shared prefix", "tokens/s", tokens,
                                   prompts + decode};
    code = fc_bench_measure(c, &whole, run_batch, &s, err);
    if (code == FC_OK) {
        struct fc_measurement first = {"read 32 prompts of 40 new tokens", "tokens/s", own,
                                       prompts};
        s.n_answer = 1;
        code = fc_bench_measure(c, &first, run_batch, &s, err);
    }
cleanup:
    fc_generator_free(s.g);
    fc_model_free(&model);
    return code;
}
