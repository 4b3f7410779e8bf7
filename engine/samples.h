/* From an example to tokens: training samples of the two tasks, and prompts with choices to score.
 * Prompt and target are tokenized apart, so that a target's tokens do not depend on its prompt and
 * training, scoring and generation agree on where a prompt ends. */
#ifndef FC_ENGINE_SAMPLES_H
#define FC_ENGINE_SAMPLES_H

#include "engine/batch.h"
#include "models/template.h"
#include "models/tokenizer.h"

/* What turns examples into tokens; everything is borrowed. */
struct fc_sample_maker {
    const struct fc_tokenizer *tok;
    const struct fc_task_templates *templates;
    size_t max_length; /* tokens of a sample, at least 2; longer ones are cut: a target at its end,
                          down to half of the sample, then a prompt at its beginning, after BOS */
};

/* One example of the training set: each task's sample, n == 0 when it has none. */
struct fc_train_item {
    struct fc_sample samples[FC_TASKS];
    bool cut; /* something did not fit max_length */
};
void fc_train_item_free(struct fc_train_item *item);

/* The choices as one text, "a, b, c", for templates that list them; "" when there are none. */
enum fc_code fc_join_choices(const struct fc_example *e, struct fc_text *out, struct fc_error *err);

/* The tokens of a template's text for this example: BOS where the model wants one, then the text.
 */
enum fc_code fc_predict_prompt(const struct fc_sample_maker *maker, const struct fc_example *e,
                               struct fc_tokens *tokens, struct fc_text *text,
                               struct fc_error *err);
enum fc_code fc_explain_prompt(const struct fc_sample_maker *maker, const struct fc_example *e,
                               struct fc_tokens *tokens, struct fc_text *text,
                               struct fc_error *err);
/* The tokens of an answer or rationale as it continues such a prompt: a space, then the text. */
enum fc_code fc_target_tokens(const struct fc_sample_maker *maker, const char *target,
                              struct fc_tokens *tokens, struct fc_error *err);

/* Fills *item (freed with fc_train_item_free): predict from the example's answer, and explain from
 * `rationale` unless it is NULL or blank. Targets end with the end-of-sequence token, which is
 * learned too. */
enum fc_code fc_train_item_make(const struct fc_sample_maker *maker, const struct fc_example *e,
                                const char *rationale, struct fc_train_item *item,
                                struct fc_error *err);

#endif
