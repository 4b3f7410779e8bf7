/* Log-likelihood of continuations: how probable a model finds each choice after a prompt. This is
 * accuracy by option likelihood (fedcot eval --method likelihood).
 *
 * Questions are packed into passes of many rows. The prompt is computed once for all its choices,
 * and so is every prefix that two choices or two questions share, to the token: the scorer's KV
 * cache has pages of one token, so a prefix needs no page boundary to be shared and nothing is
 * copied. Logits are computed only at the positions that predict a choice's token.
 *
 * A figure depends on its own prompt and choice only, to the bit (engine/decoder.h). */
#ifndef FC_ENGINE_SCORE_H
#define FC_ENGINE_SCORE_H

#include "engine/model.h"

struct fc_scorer;

/* Zero means the default everywhere. */
struct fc_scorer_options {
    size_t rows;         /* tokens of a pass; default 1024 */
    size_t logits;       /* rows of logits at once (logits * vocabulary floats); default 128 */
    size_t cache_tokens; /* default: 4 passes, and the model's context up to 8192 tokens */
};

struct fc_score_choice {
    const int32_t *tokens;
    size_t n;        /* may be 0: then log_prob is 0 */
    double log_prob; /* out: sum of the natural log-probabilities of the n tokens */
};

struct fc_score_item {
    const int32_t *prompt;
    size_t n_prompt; /* >= 1: the first token of a choice is predicted by the prompt's last */
    struct fc_score_choice *choices;
    size_t n_choices;
};

struct fc_scorer_stats {
    size_t rows;    /* tokens computed */
    size_t shared;  /* tokens of prompts and choices that were found in the cache */
    size_t targets; /* choice tokens scored */
    double seconds; /* inside fc_score */
};

/* model must be packed (fc_model_pack) and outlives the scorer. */
enum fc_code fc_scorer_create(struct fc_scorer **s, struct fc_model *model,
                              const struct fc_scorer_options *options, struct fc_error *err);
void fc_scorer_free(struct fc_scorer *s); /* NULL is fine */

/* Scores every choice of n items; the more at once, the fuller the passes. FC_ERR_INPUT, before
 * anything is computed, names the first item (from 0) that is out of the model's context or of the
 * cache, has an empty prompt or an id outside the vocabulary. */
enum fc_code fc_score(struct fc_scorer *s, const struct fc_score_item *items, size_t n,
                      struct fc_error *err);

/* Forgets cached prefixes: after the weights changed (and were packed again). */
void fc_scorer_reset_cache(struct fc_scorer *s);
void fc_scorer_stats(const struct fc_scorer *s, struct fc_scorer_stats *stats);

#endif
