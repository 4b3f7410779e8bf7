#define _POSIX_C_SOURCE 200809L
#include "cli/evaluate.h"

#include "base/clock.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "engine/generate.h"
#include "engine/score.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#define SCORE_GROUP 64 /* examples between two progress updates */

const char *const fc_normalize_names[] = {"sum", "tokens", "bytes", NULL};

void fc_wilson(size_t k, size_t n, double *low, double *high)
{
    const double z = 1.959963984540054;
    double total = (double)n, p = n ? (double)k / total : 0;
    if (n == 0) {
        *low = 0;
        *high = 1;
        return;
    }
    double middle = p + z * z / (2 * total);
    double spread = z * sqrt(p * (1 - p) / total + z * z / (4 * total * total));
    *low = fmax(0, (middle - spread) / (1 + z * z / total));
    *high = fmin(1, (middle + spread) / (1 + z * z / total));
}

void fc_evaluation_free(struct fc_evaluation *e)
{
    for (size_t i = 0; i < e->n; i++) {
        struct fc_verdict *v = &e->items[i];
        for (size_t j = 0; v->choices && j < v->n_choices; j++)
            fc_tokens_free(&v->choices[j]);
        fc_tokens_free(&v->prompt);
        free(v->choices);
        free(v->scores);
        free(v->prompt_text);
        free(v->prediction);
    }
    free(e->items);
    *e = (struct fc_evaluation){0};
}

static enum fc_code tokenize(struct fc_verdict *v, const struct fc_sample_maker *maker,
                             const struct fc_example *example, struct fc_error *err)
{
    struct fc_text text = {0};
    enum fc_code code = fc_predict_prompt(maker, example, &v->prompt, &text, err);
    v->prompt_text = text.data;
    v->choices = fc_alloc(example->n_choices, sizeof *v->choices, "choices", err);
    v->scores = fc_alloc(example->n_choices, sizeof *v->scores, "scores", err);
    if (code == FC_OK && (!v->choices || !v->scores))
        code = FC_ERR_MEMORY;
    v->n_choices = v->choices ? example->n_choices : 0;
    for (size_t j = 0; j < v->n_choices && code == FC_OK; j++)
        code = fc_target_tokens(maker, example->choices[j], &v->choices[j], err);
    return code;
}

/* ---- by likelihood ------------------------------------------------------------------------- */

static double normalized(const struct fc_verdict *v, const struct fc_example *example, size_t j,
                         enum fc_normalize how)
{
    double length = how == FC_NORMALIZE_TOKENS  ? (double)v->choices[j].n
                    : how == FC_NORMALIZE_BYTES ? (double)strlen(example->choices[j])
                                                : 1;
    return v->scores[j] / (length > 0 ? length : 1);
}

static enum fc_code decide(struct fc_verdict *v, const struct fc_example *example,
                           enum fc_normalize how, struct fc_error *err)
{
    size_t best = 0;
    for (size_t j = 1; j < v->n_choices; j++)
        if (normalized(v, example, j, how) > normalized(v, example, best, how))
            best = j;
    v->correct = best == example->label;
    v->prediction = fc_strndup(example->choices[best], strlen(example->choices[best]), err);
    return v->prediction ? FC_OK : FC_ERR_MEMORY;
}

/* Scores examples first .. first+n-1. */
static enum fc_code score_group(struct fc_evaluation *e, struct fc_scorer *scorer, size_t first,
                                size_t n, struct fc_error *err)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += e->items[first + i].n_choices;
    struct fc_score_item *items = fc_alloc(n, sizeof *items, "scores", err);
    struct fc_score_choice *choices = fc_alloc(total, sizeof *choices, "scores", err);
    enum fc_code code = items && choices ? FC_OK : FC_ERR_MEMORY;
    struct fc_score_choice *next = choices;
    for (size_t i = 0; i < n && code == FC_OK; i++) {
        struct fc_verdict *v = &e->items[first + i];
        items[i] = (struct fc_score_item){v->prompt.ids, v->prompt.n, next, v->n_choices};
        for (size_t j = 0; j < v->n_choices; j++)
            *next++ = (struct fc_score_choice){v->choices[j].ids, v->choices[j].n, 0};
    }
    if (code == FC_OK)
        code = fc_score(scorer, items, n, err);
    for (size_t i = 0; i < n && code == FC_OK; i++)
        for (size_t j = 0; j < items[i].n_choices; j++)
            e->items[first + i].scores[j] = items[i].choices[j].log_prob;
    free(items);
    free(choices);
    return code;
}

static enum fc_code by_likelihood(struct fc_evaluation *e, struct fc_model *model,
                                  const struct fc_dataset *data,
                                  const struct fc_eval_options *options, struct fc_error *err)
{
    struct fc_scorer_options how = {0};
    struct fc_scorer *scorer;
    struct fc_progress progress;
    enum fc_code code = fc_scorer_create(&scorer, model, &how, err);
    if (code != FC_OK)
        return code;
    fc_progress_begin(&progress, stderr, options->label, "examples", e->n);
    for (size_t first = 0; first < e->n && code == FC_OK; first += SCORE_GROUP) {
        size_t n = e->n - first < SCORE_GROUP ? e->n - first : SCORE_GROUP;
        code = score_group(e, scorer, first, n, err);
        if (code != FC_OK)
            fc_error_prefix(err, "examples from number %zu on", first + 1);
        for (size_t i = first; i < first + n && code == FC_OK; i++)
            code = decide(&e->items[i], &data->items[i], options->normalize, err);
        if (code == FC_OK)
            code = fc_signals_check(err);
        fc_progress_update(&progress, first + n, NULL);
    }
    struct fc_scorer_stats stats;
    fc_scorer_stats(scorer, &stats);
    e->tokens = stats.rows;
    fc_progress_end(&progress);
    fc_scorer_free(scorer);
    return code;
}

/* ---- by generated answer --------------------------------------------------------------------- */

/* The last number in a text, commas of thousands removed; false if there is none. */
static bool last_number(const char *text, double *value)
{
    char digits[64];
    size_t n = 0;
    bool found = false;
    for (const char *p = text;; p++) {
        bool sign = *p == '-' && n == 0 && isdigit((unsigned char)p[1]);
        bool point = *p == '.' && n > 0 && isdigit((unsigned char)p[1]);
        bool comma = *p == ',' && n > 0 && isdigit((unsigned char)p[1]);
        if ((isdigit((unsigned char)*p) || sign || point) && n + 1 < sizeof digits) {
            digits[n++] = *p;
        } else if (!comma && n > 0) {
            digits[n] = '\0';
            *value = strtod(digits, NULL);
            found = true;
            n = 0;
        }
        if (!*p)
            return found;
    }
}

/* Equal but for case, punctuation and spacing of ASCII; other bytes must be the same. */
static bool same_words(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a && (unsigned char)*a < 128 && !isalnum((unsigned char)*a))
            a++;
        while (*b && (unsigned char)*b < 128 && !isalnum((unsigned char)*b))
            b++;
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
        if (!*a)
            return true;
    }
}

/* Whether a text is a number and nothing else, as "-3.5" or "1,000" are. */
static bool is_number(const char *text)
{
    size_t len = strlen(text), first = text[0] == '-';
    return len > first && strspn(text + first, "0123456789.,") == len - first &&
           isdigit((unsigned char)text[len - 1]);
}

static bool has_word(const char *text)
{
    for (; *text; text++)
        if (isalnum((unsigned char)*text) || (unsigned char)*text >= 128)
            return true;
    return false;
}

bool fc_answers_match(const char *generated, const char *answer)
{
    double x, y;
    if (is_number(answer)) /* the marks of "3.5" and "-5" matter, so it is no word */
        return last_number(generated, &x) && last_number(answer, &y) &&
               fabs(x - y) <= 1e-9 * fabs(y);
    return has_word(answer) ? same_words(generated, answer) : strcmp(generated, answer) == 0;
}

struct generation {
    struct fc_evaluation *e;
    const struct fc_dataset *data;
    size_t n_done;
    struct fc_error error;
};

static void on_answer(void *context, const struct fc_result *result)
{
    struct generation *g = context;
    struct fc_verdict *v = &g->e->items[result->id];
    const char *text = result->text;
    size_t n = result->n_text;
    while (n && isspace((unsigned char)*text)) {
        text++;
        n--;
    }
    while (n && isspace((unsigned char)text[n - 1]))
        n--;
    if (result->finish == FC_FINISH_FAILED)
        fc_fail(&g->error, FC_ERR_MEMORY, "generation: out of memory for an answer");
    v->prediction = fc_strndup(text, n, &g->error);
    v->correct =
        v->prediction && fc_answers_match(v->prediction, g->data->items[result->id].answer);
    g->n_done++;
}

static enum fc_code submit_all(struct fc_generator *generator, const struct fc_evaluation *e,
                               const struct fc_eval_options *options, struct fc_error *err)
{
    static const char *const stops[] = {"\n"};
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < e->n && code == FC_OK; i++) {
        struct fc_request request = {.id = i,
                                     .prompt = e->items[i].prompt.ids,
                                     .n_prompt = e->items[i].prompt.n,
                                     .max_tokens = options->max_tokens,
                                     .top_p = 1,
                                     .stops = stops,
                                     .n_stops = 1};
        code = fc_generator_submit(generator, &request, err);
    }
    return code;
}

static enum fc_code by_generation(struct fc_evaluation *e, const struct fc_session *s,
                                  struct fc_model *model, const struct fc_dataset *data,
                                  const struct fc_eval_options *options, struct fc_error *err)
{
    struct fc_generator_options how = {0};
    struct fc_generator *generator;
    struct fc_progress progress;
    struct generation g = {.e = e, .data = data};
    bool busy = true;
    enum fc_code code = fc_generator_create(&generator, model, s->tok, &how, err);
    if (code != FC_OK)
        return code;
    code = submit_all(generator, e, options, err);
    fc_progress_begin(&progress, stderr, options->label, "examples", e->n);
    while (busy && code == FC_OK) {
        code = fc_generator_step(generator, on_answer, &g, &busy, err);
        if (code == FC_OK && g.error.code != FC_OK)
            code = fc_fail(err, g.error.code, "%s", g.error.text);
        if (code == FC_OK)
            code = fc_signals_check(err);
        fc_progress_update(&progress, g.n_done, NULL);
    }
    struct fc_generator_stats stats;
    fc_generator_stats(generator, &stats);
    e->tokens = stats.prompt_tokens + stats.decoded_tokens;
    fc_progress_end(&progress);
    fc_generator_free(generator);
    return code;
}

enum fc_code fc_evaluate(struct fc_evaluation *e, const struct fc_session *s,
                         struct fc_model *model, const struct fc_sample_maker *maker,
                         const struct fc_dataset *data, const struct fc_eval_options *options,
                         struct fc_error *err)
{
    double start = fc_now();
    bool all_choices = true;
    enum fc_code code = FC_OK;
    *e = (struct fc_evaluation){0};
    e->items = fc_alloc(data->n, sizeof *e->items, "evaluation", err);
    if (!e->items)
        return FC_ERR_MEMORY;
    e->n = data->n;
    for (size_t i = 0; i < e->n && code == FC_OK; i++) {
        code = tokenize(&e->items[i], maker, &data->items[i], err);
        if (data->items[i].n_choices == 0)
            all_choices = false;
    }
    if (code != FC_OK)
        return code;
    if (options->method == FC_EVAL_LIKELIHOOD && !all_choices)
        return fc_fail(err, FC_ERR_INPUT,
                       "an example has no choices to score; use --method generate");
    if (options->method == FC_EVAL_LIKELIHOOD || (options->method == FC_EVAL_AUTO && all_choices))
        code = by_likelihood(e, model, data, options, err);
    else
        code = by_generation(e, s, model, data, options, err);
    for (size_t i = 0; i < e->n; i++)
        e->n_correct += e->items[i].correct;
    e->seconds = fc_now() - start;
    return code;
}
