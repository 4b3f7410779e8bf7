#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/metrics.h"
#include "cli/progress.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "engine/generate.h"
#include "models/records.h"

struct generate_flags {
    struct fc_model_flags model;
    struct fc_compute_flags compute;
    const char *input, *output;
    struct fc_batch_flags batch;
    size_t max_tokens, top_k, seed;
    double temperature, top_p;
    struct fc_strings stop;
    bool raw, ignore_eos, keep_quantised;
};

#define FIELD(name) offsetof(struct generate_flags, name)

static const struct fc_option file_options[] = {
    {.name = "input",
     .type = FC_OPT_STRING,
     .offset = FIELD(input),
     .metavar = "P.jsonl",
     .help = "prompts: {\"id\", \"prompt\"} or {\"id\", \"messages\"}",
     .required = true},
    {.name = "output",
     .type = FC_OPT_STRING,
     .offset = FIELD(output),
     .metavar = "R.jsonl",
     .help = "results: {\"id\", \"text\", \"tokens\", \"finish\"}",
     .required = true},
    {.name = "raw",
     .type = FC_OPT_FLAG,
     .offset = FIELD(raw),
     .help = "give the prompt to the model as it is, without chat format"},
    {0}};

static const struct fc_option sampling_options[] = {
    {.name = "max-tokens",
     .type = FC_OPT_SIZE,
     .offset = FIELD(max_tokens),
     .fallback = "128",
     .metavar = "N",
     .help = "most tokens of one answer",
     .min = 1,
     .max = 1 << 20},
    {.name = "temperature",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(temperature),
     .fallback = "0",
     .metavar = "T",
     .help = "0 takes the most likely token",
     .min = 0,
     .max = 100},
    {.name = "top-k",
     .type = FC_OPT_SIZE,
     .offset = FIELD(top_k),
     .fallback = "0",
     .metavar = "K",
     .help = "draw among the K most likely tokens; 0: all",
     .min = 0,
     .max = 1 << 20},
    {.name = "top-p",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(top_p),
     .fallback = "1",
     .metavar = "P",
     .help = "draw among the likeliest tokens that make up this probability",
     .min = 0,
     .max = 1},
    {.name = "seed",
     .type = FC_OPT_SIZE,
     .offset = FIELD(seed),
     .fallback = "0",
     .metavar = "S",
     .help = "prompt i draws with seed S + i",
     .min = 0,
     .max = 9e15},
    {.name = "stop",
     .type = FC_OPT_STRINGS,
     .offset = FIELD(stop),
     .metavar = "TEXT",
     .help = "end an answer before this text; may be repeated"},
    {.name = "ignore-eos",
     .type = FC_OPT_FLAG,
     .offset = FIELD(ignore_eos),
     .help = "go on past end tokens, to --max-tokens"},
    {0}};

static const struct fc_option_group groups[] = {
    {"Model", fc_model_options, FIELD(model)},
    {"Files", file_options, 0},
    {"Sampling", sampling_options, 0},
    {"Batch", fc_batch_options, FIELD(batch)},
    {"Computation", fc_compute_options, FIELD(compute)},
    {"Weights", fc_quantised_options, FIELD(keep_quantised)},
    {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "generate",
    .summary = "Write the model's answer to every prompt of a file",
    .description = "Prompts are answered in batches; prefixes that prompts share are computed "
                   "once. An answer depends on its own prompt and seed only, never on what else "
                   "is in the batch. Results come in the order of the prompts.",
    .groups = groups,
};

struct answer {
    char *text;
    int32_t *tokens;
    size_t n_tokens;
    enum fc_finish finish;
};

struct generate_run {
    struct answer *answers;
    size_t n_done;
    struct fc_error error;
};

static void on_result(void *context, const struct fc_result *result)
{
    struct generate_run *run = context;
    struct answer *a = &run->answers[result->id];
    a->text = fc_strndup(result->text, result->n_text, &run->error);
    a->tokens = fc_alloc(result->n_tokens, sizeof *a->tokens, "tokens", &run->error);
    for (size_t i = 0; a->tokens && i < result->n_tokens; i++)
        a->tokens[i] = result->tokens[i];
    a->n_tokens = a->tokens ? result->n_tokens : 0;
    a->finish = result->finish;
    if (result->finish == FC_FINISH_FAILED)
        fc_fail(&run->error, FC_ERR_MEMORY, "generation: out of memory for an answer");
    run->n_done++;
}

/* The prompt's tokens, with or without chat format. */
static enum fc_code encode_prompt(const struct fc_session *s, const struct fc_prompt *p, bool raw,
                                  struct fc_tokens *tokens, struct fc_error *err)
{
    tokens->n = 0;
    if (!raw)
        return fc_chat_encode(s->tok, s->chat, p->messages, p->n_messages, true, tokens, err);
    if (fc_tokenizer_adds_bos(s->tok) &&
        fc_tokens_add(tokens, fc_tokenizer_bos(s->tok), err) != FC_OK)
        return FC_ERR_MEMORY;
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < p->n_messages && code == FC_OK; i++)
        code = fc_tokenizer_encode(s->tok, p->messages[i].content, p->messages[i].len, FC_TEXT,
                                   tokens, err);
    return code;
}

static enum fc_code submit_all(const struct fc_session *s, const struct generate_flags *f,
                               const struct fc_prompts *prompts, struct fc_generator *g,
                               struct fc_error *err)
{
    struct fc_tokens tokens = {0};
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < prompts->n && code == FC_OK; i++) {
        code = encode_prompt(s, &prompts->items[i], f->raw, &tokens, err);
        if (code != FC_OK)
            break;
        struct fc_request request = {.id = i,
                                     .prompt = tokens.ids,
                                     .n_prompt = tokens.n,
                                     .max_tokens = f->max_tokens,
                                     .temperature = (float)f->temperature,
                                     .top_k = (uint32_t)f->top_k,
                                     .top_p = (float)f->top_p,
                                     .seed = f->seed + i,
                                     .stops = f->stop.items,
                                     .n_stops = f->stop.n,
                                     .ignore_eos = f->ignore_eos};
        code = fc_generator_submit(g, &request, err);
        if (code != FC_OK)
            fc_error_prefix(err, "%s: prompt %zu", f->input, i + 1);
    }
    fc_tokens_free(&tokens);
    return code;
}

static enum fc_code run_all(struct fc_generator *g, struct generate_run *run, size_t n,
                            struct fc_error *err)
{
    struct fc_progress progress;
    struct fc_generator_stats stats;
    bool busy = true;
    enum fc_code code = FC_OK;
    fc_progress_begin(&progress, stderr, "generate", "prompts", n);
    while (busy && code == FC_OK) {
        code = fc_generator_step(g, on_result, run, &busy, err);
        if (code == FC_OK && run->error.code != FC_OK)
            code = fc_fail(err, run->error.code, "%s", run->error.text);
        if (code == FC_OK)
            code = fc_signals_check(err);
        fc_generator_stats(g, &stats);
        fc_progress_update(&progress, run->n_done, "%.0f tokens/s",
                           (double)stats.decoded_tokens / (stats.seconds + 1e-9));
    }
    fc_progress_end(&progress);
    return code;
}

static enum fc_code write_results(const char *path, const struct fc_prompts *prompts,
                                  const struct answer *answers, struct fc_error *err)
{
    struct fc_atomic_file out;
    enum fc_code code = fc_atomic_open(&out, path, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < prompts->n && code == FC_OK; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "id", prompts->items[i].id);
        cJSON_AddStringToObject(o, "text", answers[i].text);
        cJSON_AddItemToObject(o, "tokens",
                              cJSON_CreateIntArray(answers[i].tokens, (int)answers[i].n_tokens));
        cJSON_AddStringToObject(o, "finish", fc_finish_name(answers[i].finish));
        code = fc_print_json_line(out.stream, o, err);
        cJSON_Delete(o);
    }
    if (code == FC_OK)
        return fc_atomic_commit(&out, err);
    fc_atomic_abort(&out);
    return code;
}

static cJSON *summarize(const struct fc_generator *g, const struct fc_session *s, double seconds,
                        struct fc_error *err)
{
    struct fc_generator_stats stats;
    fc_generator_stats(g, &stats);
    const struct fc_metric figures[] = {
        {"prompt_tokens", (double)stats.prompt_tokens},
        {"cached_tokens", (double)stats.cached_tokens},
        {"decoded_tokens", (double)stats.decoded_tokens},
        {"seconds", seconds},
        {"tokens_per_second", (double)stats.decoded_tokens / (seconds > 0 ? seconds : 1)},
        {"peak_memory_bytes", (double)s->dev.peak}};
    return fc_metrics_object("command", "generate", figures, sizeof figures / sizeof figures[0],
                             err);
}

enum fc_code fc_cmd_generate(int argc, char **argv, struct fc_error *err)
{
    struct generate_flags flags;
    struct fc_options options = {0};
    struct fc_session s = {0};
    struct fc_prompts prompts = {0};
    struct fc_generator *g = NULL;
    struct generate_run run = {0};
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    fc_signals_catch();
    code = fc_prompts_read(&prompts, flags.input, err);
    if (code == FC_OK)
        code = fc_session_open(&s, &flags.model, &flags.compute, 0, flags.keep_quantised, err);
    if (code == FC_OK && !flags.raw)
        code = fc_session_chat(&s, err);
    if (code == FC_OK)
        code = fc_model_pack(&s.model, err);
    if (code == FC_OK)
        code = fc_session_record(&options, NULL, err);
    if (code != FC_OK)
        goto cleanup;
    int32_t end = flags.raw ? -1 : fc_chat_end(s.tok, s.chat);
    struct fc_generator_options how = {.max_batch = flags.batch.max_batch,
                                       .cache_tokens = flags.batch.cache_tokens,
                                       .end_tokens = &end,
                                       .n_end_tokens = end >= 0};
    run.answers = fc_alloc(prompts.n, sizeof *run.answers, "answers", err);
    code = run.answers ? fc_generator_create(&g, &s.model, s.tok, &how, err) : FC_ERR_MEMORY;
    if (code != FC_OK)
        goto cleanup;
    fc_device_print_memory(&s.dev, stderr);
    double start = fc_now();
    code = submit_all(&s, &flags, &prompts, g, err);
    if (code == FC_OK)
        code = run_all(g, &run, prompts.n, err);
    if (code == FC_OK)
        code = write_results(flags.output, &prompts, run.answers, err);
    if (code == FC_OK)
        code = fc_print_summary(&options, summarize(g, &s, fc_now() - start, err), err);
cleanup:
    for (size_t i = 0; run.answers && i < prompts.n; i++) {
        free(run.answers[i].text);
        free(run.answers[i].tokens);
    }
    free(run.answers);
    fc_generator_free(g);
    fc_session_close(&s);
    fc_prompts_free(&prompts);
    fc_options_free(&options);
    return code;
}
