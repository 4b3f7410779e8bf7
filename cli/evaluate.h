/* Accuracy of a model on a data set, by the likelihood of each choice or by what it generates. */
#ifndef FC_CLI_EVALUATE_H
#define FC_CLI_EVALUATE_H

#include "cli/session.h"
#include "engine/samples.h"

enum fc_eval_method { FC_EVAL_AUTO, FC_EVAL_LIKELIHOOD, FC_EVAL_GENERATE };

/* What the sum of a choice's log-probabilities is divided by before choices are compared. */
enum fc_normalize { FC_NORMALIZE_SUM, FC_NORMALIZE_TOKENS, FC_NORMALIZE_BYTES };
extern const char *const fc_normalize_names[]; /* of the flag --normalize */

/* One example after evaluation; lists are parallel to the example's choices. */
struct fc_verdict {
    char *prompt_text;
    struct fc_tokens prompt, *choices;
    double *scores; /* sums of log-probabilities */
    size_t n_choices;
    char *prediction; /* the choice's text, or the generated answer */
    bool correct;
};

struct fc_evaluation {
    struct fc_verdict *items; /* one for each example, in their order */
    size_t n, n_correct;
    double seconds;
    size_t tokens; /* computed: prompts and choices, or prompts and answers */
};

struct fc_eval_options {
    enum fc_eval_method method;
    enum fc_normalize normalize;
    size_t max_tokens; /* of a generated answer */
    const char *label; /* of the progress line */
};

/* `model` must be packed; it may differ from the session's own (a trained copy). AUTO takes
 * likelihood when every example has choices. Release with fc_evaluation_free, also after an
 * error. */
enum fc_code fc_evaluate(struct fc_evaluation *e, const struct fc_session *s,
                         struct fc_model *model, const struct fc_sample_maker *maker,
                         const struct fc_dataset *data, const struct fc_eval_options *options,
                         struct fc_error *err);
void fc_evaluation_free(struct fc_evaluation *e);

/* Whether a generated text gives the example's answer: a number by the value of the last number in
 * the text, any other by its letters and digits, whatever their case. */
bool fc_answers_match(const char *generated, const char *answer);

/* 95 % Wilson interval of k successes in n trials. */
void fc_wilson(size_t k, size_t n, double *low, double *high);

#endif
