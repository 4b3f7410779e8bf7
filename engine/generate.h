/* Batched generation with a paged KV cache: continuous batching, chunked prefill, prefix reuse.
 *
 * A request's tokens depend on its own prompt, sampling and seed only, never on what else is in the
 * batch (section 4 of the design; gemm_packed and paged_attention keep their bits whatever the
 * batch). Single-threaded: one thread owns a generator; it calls submit and step in a loop. */
#ifndef FC_ENGINE_GENERATE_H
#define FC_ENGINE_GENERATE_H

#include "engine/model.h"
#include "models/tokenizer.h"

struct fc_generator;

struct fc_generator_options {
    size_t max_batch;    /* sequences that decode at once (rows of a step); default 32 */
    size_t chunk;        /* prompt tokens prefilled in one step beside the decoding rows; default 256 */
    size_t page_size;    /* tokens in a page; default 16 */
    size_t cache_tokens; /* tokens the KV cache holds; 0: max_batch times the longest request seen
                            at create, limited by n_ctx */
};

enum fc_finish { FC_FINISH_STOP, FC_FINISH_LENGTH, FC_FINISH_CANCELLED };

struct fc_request {
    uint64_t id;               /* the caller's; returned with the result */
    const int32_t *prompt;     /* copied by submit */
    size_t n_prompt;           /* >= 1 */
    size_t max_tokens;         /* >= 1 */
    float temperature;         /* 0: greedy */
    uint32_t top_k;
    float top_p;
    uint64_t seed;             /* of this request: draws are (seed, id-independent, position) */
    const char *const *stops;  /* texts that end generation; not part of the result; copied */
    size_t n_stops;
    bool ignore_eos;
};

struct fc_result {
    uint64_t id;
    const int32_t *tokens;     /* generated ids, the end token not included; valid during the call */
    size_t n_tokens;
    const char *text;          /* decoded, cut before a stop text; valid during the call */
    size_t n_text;
    enum fc_finish finish;
};

/* Called from step for each finished request. */
typedef void fc_result_fn(void *context, const struct fc_result *result);

struct fc_generator_stats {
    size_t prompt_tokens, cached_tokens; /* prefilled; taken from the prefix cache instead */
    size_t decoded_tokens, steps;
    size_t waiting, running;
    double seconds; /* inside step */
};

/* model must be packed (fc_model_pack) and outlives the generator, as tok does. */
enum fc_code fc_generator_create(struct fc_generator **g, struct fc_model *model,
                                 const struct fc_tokenizer *tok,
                                 const struct fc_generator_options *options,
                                 struct fc_error *err);
void fc_generator_free(struct fc_generator *g);

/* Queues a request; it joins the batch as soon as a row and pages are free. FC_ERR_USAGE when
 * prompt + max_tokens exceed the model's context or the whole cache. */
enum fc_code fc_generator_submit(struct fc_generator *g, const struct fc_request *request,
                                 struct fc_error *err);
/* One step of the batch: admits, prefills a chunk, decodes one token for every running request,
 * and reports what finished. *busy says whether anything is left to do. */
enum fc_code fc_generator_step(struct fc_generator *g, fc_result_fn *done, void *context,
                               bool *busy, struct fc_error *err);
/* Drops a request (waiting or running); it is reported with FC_FINISH_CANCELLED by the next step.
 * Unknown ids are ignored. */
void fc_generator_cancel(struct fc_generator *g, uint64_t id);
/* Forgets cached prefixes: after the weights changed. */
void fc_generator_reset_cache(struct fc_generator *g);
void fc_generator_stats(const struct fc_generator *g, struct fc_generator_stats *stats);

#endif
