#include "base/file.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/evaluate.h"
#include "cli/metrics.h"
#include "cli/signals.h"

struct eval_flags {
    struct fc_model_flags model;
    struct fc_compute_flags compute;
    const char *input, *output, *templates;
    int method, normalize;
    size_t max_tokens, limit;
    bool dump_prompts;
};

#define FIELD(name) offsetof(struct eval_flags, name)

static const char *const methods[] = {"auto", "likelihood", "generate", NULL};

static const struct fc_option file_options[] = {
    {.name = "input",
     .type = FC_OPT_STRING,
     .offset = FIELD(input),
     .metavar = "D.jsonl",
     .help = "data set: JSON lines, or an original file of CommonsenseQA, OpenBookQA, ARC, BoolQ",
     .required = true},
    {.name = "output",
     .type = FC_OPT_STRING,
     .offset = FIELD(output),
     .metavar = "E.jsonl",
     .help = "results: {\"id\", \"prediction\", \"correct\", \"scores\", \"lengths\"}",
     .required = true},
    {.name = "dump-prompts",
     .type = FC_OPT_FLAG,
     .offset = FIELD(dump_prompts),
     .help = "add prompts and tokens, just as scored, to the results (private text!)"},
    {0}};

static const struct fc_option method_options[] = {
    {.name = "method",
     .type = FC_OPT_CHOICE,
     .offset = FIELD(method),
     .choices = methods,
     .help = "score each choice, or compare a generated answer; auto scores where there are "
             "choices"},
    {.name = "normalize",
     .type = FC_OPT_CHOICE,
     .offset = FIELD(normalize),
     .choices = fc_normalize_names,
     .help = "what a choice's log-probability is divided by"},
    {.name = "max-tokens",
     .type = FC_OPT_SIZE,
     .offset = FIELD(max_tokens),
     .fallback = "64",
     .metavar = "N",
     .help = "most tokens of a generated answer",
     .min = 1,
     .max = 1 << 20},
    {.name = "limit",
     .type = FC_OPT_SIZE,
     .offset = FIELD(limit),
     .fallback = "0",
     .metavar = "N",
     .help = "only the first N examples; 0: all",
     .min = 0,
     .max = 1e12},
    {.name = "templates",
     .type = FC_OPT_STRING,
     .offset = FIELD(templates),
     .metavar = "FILE",
     .help = "JSON file with texts in place of the built-in ones (see docs/templates.md)"},
    {0}};

static const struct fc_option_group groups[] = {{"Model", fc_model_options, FIELD(model)},
                                                {"Files", file_options, 0},
                                                {"Method", method_options, 0},
                                                {"Computation", fc_compute_options, FIELD(compute)},
                                                {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "eval",
    .summary = "Measure a model's accuracy on a data set",
    .description = "By likelihood, each choice is scored as a continuation of the question and the "
                   "best one is the prediction; \"scores\" are sums of log-probabilities, "
                   "\"lengths\" their numbers of tokens. By generation, the answer is what the "
                   "model writes up to the end of the line.",
    .groups = groups,
};

static cJSON *token_list(const struct fc_tokens *t)
{
    return cJSON_CreateIntArray(t->ids, (int)t->n);
}

static cJSON *describe(const struct fc_example *example, const struct fc_verdict *v, bool dump)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", example->id);
    cJSON_AddStringToObject(o, "prediction", v->prediction);
    cJSON_AddBoolToObject(o, "correct", v->correct);
    cJSON_AddItemToObject(o, "scores", cJSON_CreateDoubleArray(v->scores, (int)v->n_choices));
    cJSON *lengths = cJSON_AddArrayToObject(o, "lengths");
    for (size_t j = 0; j < v->n_choices; j++)
        cJSON_AddItemToArray(lengths, cJSON_CreateNumber((double)v->choices[j].n));
    if (!dump)
        return o;
    cJSON_AddStringToObject(o, "prompt", v->prompt_text);
    cJSON_AddItemToObject(o, "prompt_tokens", token_list(&v->prompt));
    cJSON *choices = cJSON_AddArrayToObject(o, "choice_tokens");
    for (size_t j = 0; j < v->n_choices; j++)
        cJSON_AddItemToArray(choices, token_list(&v->choices[j]));
    return o;
}

static enum fc_code write_results(const char *path, const struct fc_dataset *data,
                                  const struct fc_evaluation *e, bool dump, struct fc_error *err)
{
    struct fc_atomic_file out;
    enum fc_code code = fc_atomic_open(&out, path, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < e->n && code == FC_OK; i++) {
        cJSON *o = describe(&data->items[i], &e->items[i], dump);
        code = fc_print_json_line(out.stream, o, err);
        cJSON_Delete(o);
    }
    if (code == FC_OK)
        return fc_atomic_commit(&out, err);
    fc_atomic_abort(&out);
    return code;
}

static cJSON *summarize(const struct fc_evaluation *e, struct fc_error *err)
{
    double low, high;
    fc_wilson(e->n_correct, e->n, &low, &high);
    const struct fc_metric figures[] = {
        {"examples", (double)e->n},
        {"correct", (double)e->n_correct},
        {"accuracy", e->n ? (double)e->n_correct / (double)e->n : 0},
        {"accuracy_low", low},
        {"accuracy_high", high},
        {"seconds", e->seconds},
        {"tokens_per_second", (double)e->tokens / (e->seconds + 1e-9)}};
    return fc_metrics_object("command", "eval", figures, sizeof figures / sizeof figures[0], err);
}

enum fc_code fc_cmd_eval(int argc, char **argv, struct fc_error *err)
{
    struct eval_flags flags;
    struct fc_options options = {0};
    struct fc_session s = {0};
    struct fc_dataset data = {0};
    struct fc_task_templates templates = {0};
    struct fc_evaluation e = {0};
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    fc_signals_catch();
    code = fc_dataset_read(&data, flags.input, true, err);
    if (code == FC_OK)
        code =
            fc_task_templates_open(&templates, fc_dataset_has_choices(&data), flags.templates, err);
    if (code == FC_OK)
        code = fc_session_open(&s, &flags.model, &flags.compute, 0, false, err);
    if (code == FC_OK)
        code = fc_model_pack(&s.model, err);
    if (code == FC_OK)
        code = fc_session_record(&options, NULL, err);
    if (code != FC_OK)
        goto cleanup;
    struct fc_dataset view = data; /* of the first --limit examples */
    if (flags.limit && flags.limit < view.n)
        view.n = flags.limit;
    const struct fc_sample_maker maker = {s.tok, &templates, s.model.n_ctx};
    const struct fc_eval_options how = {(enum fc_eval_method)flags.method,
                                        (enum fc_normalize)flags.normalize, flags.max_tokens,
                                        "eval"};
    code = fc_evaluate(&e, &s, &s.model, &maker, &view, &how, err);
    if (code == FC_OK)
        code = write_results(flags.output, &view, &e, flags.dump_prompts, err);
    if (code == FC_OK)
        code = fc_print_summary(&options, summarize(&e, err), err);
cleanup:
    fc_evaluation_free(&e);
    fc_session_close(&s);
    fc_task_templates_free(&templates);
    fc_dataset_free(&data);
    fc_options_free(&options);
    return code;
}
