/* Batched generation with a paged KV cache: continuous batching, chunked prefill, prefix reuse.
 *
 * A step is one pass of the model over one row for every sequence that decodes and a chunk of the
 * prompts that are still to be read, so new requests join while others decode. Prompts that start
 * alike (one long template) share the cache pages of their common blocks, which are computed once,
 * also when they are admitted together.
 *
 * A request's tokens depend on its own prompt, sampling and seed only, never on what else is in the
 * batch, how its prompt was cut into chunks, or what the prefix cache held: see engine/decoder.h.
 *
 * Single-threaded: one thread owns a generator; it calls submit and step in a loop. */
#ifndef FC_ENGINE_GENERATE_H
#define FC_ENGINE_GENERATE_H

#include "engine/model.h"
#include "models/tokenizer.h"

struct fc_generator;

/* Zero means the default everywhere. */
struct fc_generator_options {
    size_t max_batch; /* sequences in the batch at once; default 32 */
    size_t chunk; /* prompt tokens read in one step beside the decoding rows; default 256. A step
                     may take up to a block of rows more, to leave none of the GEMM's block
                     empty. */
    size_t page_size; /* tokens in a page; default 16 */
    /* Tokens that the KV cache holds, rounded up to pages. Default: 512 for each sequence of the
     * batch, at least 8192, at most max_batch times the model's context. A request holds pages for
     * prompt + max_tokens while it runs; what is left keeps prefixes. */
    size_t cache_tokens;
    /* Ids that end generation besides the config's eos: the chat format's end of turn
     * (fc_chat_end). Copied. */
    const int32_t *end_tokens;
    size_t n_end_tokens;
};

enum fc_finish {
    FC_FINISH_STOP,      /* an end token or a stop text */
    FC_FINISH_LENGTH,    /* max_tokens */
    FC_FINISH_CANCELLED, /* fc_generator_cancel */
    FC_FINISH_FAILED     /* out of memory for the text; the other requests go on */
};
const char *fc_finish_name(enum fc_finish finish); /* "stop", "length", "cancelled", "failed" */

struct fc_request {
    uint64_t id;              /* the caller's; returned with the result */
    const int32_t *prompt;    /* copied by submit */
    size_t n_prompt;          /* >= 1 */
    size_t max_tokens;        /* >= 1 */
    float temperature;        /* 0: greedy */
    uint32_t top_k;           /* 0: no limit */
    float top_p;              /* 1 (or 0): no limit */
    uint64_t seed;            /* token i is drawn with fc_philox(seed, 0, i), whatever the id */
    const char *const *stops; /* texts that end generation, none of them empty; copied */
    size_t n_stops;
    bool ignore_eos; /* for benchmarks: only max_tokens and stop texts end it */
};

struct fc_result {
    uint64_t id;
    const int32_t *tokens; /* generated ids: the end token is not among them, those that spell a
                              stop text are; valid during the call */
    size_t n_tokens;
    const char *text; /* decoded, cut before the stop text; NUL-terminated; valid during the call */
    size_t n_text;
    enum fc_finish finish;
};

/* Called from step for each finished request, in the order of their admission. It may call submit
 * and cancel, not step. */
typedef void fc_result_fn(void *context, const struct fc_result *result);

struct fc_generator_stats {
    size_t prompt_tokens;  /* computed */
    size_t cached_tokens;  /* of prompts, taken from the prefix cache instead */
    size_t decoded_tokens; /* end tokens included */
    size_t steps;
    size_t rows;     /* computed in all steps; steps * FC_ROW_BLOCK at best when only decoding */
    size_t recorded; /* steps that were launched as recordings (CUDA graphs) */
    size_t waiting, running;
    double seconds; /* inside step */
};

/* model must be packed (fc_model_pack) and outlives the generator, as tok does. tok may be NULL:
 * then results have no text, and requests no stop texts. */
enum fc_code fc_generator_create(struct fc_generator **g, struct fc_model *model,
                                 const struct fc_tokenizer *tok,
                                 const struct fc_generator_options *options, struct fc_error *err);
void fc_generator_free(struct fc_generator *g); /* NULL is fine; requests left are dropped */

/* Queues a request; it joins the batch, first come first served, as soon as a place and pages for
 * prompt + max_tokens are free. FC_ERR_USAGE for one that can never run: out of the model's context
 * or of the whole cache, ids outside the vocabulary, sampling that cannot be meant. The generator
 * is as it was then. */
enum fc_code fc_generator_submit(struct fc_generator *g, const struct fc_request *request,
                                 struct fc_error *err);
/* One step of the batch: reports what was cancelled, admits, reads a chunk of the prompts, decodes
 * one token of every running request, and reports what finished. *busy says whether anything is
 * left to do. An error is the pass's (the device failed, or a row of logits is all NaN): every
 * running request is lost and reported as FC_FINISH_FAILED; the waiting ones stay queued, and step
 * may be called again. */
enum fc_code fc_generator_step(struct fc_generator *g, fc_result_fn *done, void *context,
                               bool *busy, struct fc_error *err);
/* Drops a request (waiting or running); it is reported with FC_FINISH_CANCELLED by the next step.
 * Unknown ids are ignored. */
void fc_generator_cancel(struct fc_generator *g, uint64_t id);
/* Forgets cached prefixes: after the weights changed (and were packed again). */
void fc_generator_reset_cache(struct fc_generator *g);
void fc_generator_stats(const struct fc_generator *g, struct fc_generator_stats *stats);

#endif
