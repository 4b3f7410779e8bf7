#define _POSIX_C_SOURCE 200809L
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/distill.h"
#include "cli/signals.h"
#include "net/address.h"

#include <math.h>
#include <string.h>

/* ---- one arm: train a fresh copy of the model, measure it --------------------------------- */

/* Where an arm's rationales come from; at most one is set. */
struct rationale_source {
    struct fc_distill *d;
    struct fc_inference *inference;
    const struct fc_id_texts *texts;
    struct fc_train_item *items; /* [train.n] made when first asked for */
    bool *made;
    struct fc_arm *arm;
};

static enum fc_code get_item(void *context, size_t index, const struct fc_train_item **item,
                             struct fc_error *err)
{
    struct rationale_source *source = context;
    const struct fc_example *example = &source->d->train.items[index];
    *item = &source->items[index];
    if (source->made[index])
        return FC_OK;
    const char *text = NULL;
    enum fc_code code = FC_OK;
    if (source->inference)
        code = fc_inference_wait(source->inference, index, &text, err);
    else if (source->texts)
        text = fc_id_texts_find(source->texts, example->id);
    if (code == FC_OK)
        code = fc_train_item_make(&source->d->maker, example, text, &source->items[index], err);
    source->made[index] = code == FC_OK;
    if (code == FC_OK && source->items[index].samples[FC_TASK_EXPLAIN].n)
        source->arm->n_rationales++;
    return code;
}

static enum fc_code record_step(void *context, const struct fc_step_metrics *m,
                                struct fc_error *err)
{
    const struct rationale_source *source = context;
    struct fc_arm *arm = source->arm;
    double **const columns[] = {&arm->step_numbers, &arm->losses[0], &arm->losses[1]};
    const double values[] = {(double)m->step, m->targets[0] ? m->task_loss[0] : NAN,
                             m->targets[1] ? m->task_loss[1] : NAN};
    size_t capacity = arm->capacity;
    for (int i = 0; i < 3; i++) {
        void *array = *columns[i];
        capacity = arm->capacity;
        enum fc_code code =
            fc_grow(&array, &capacity, arm->n_losses + 1, sizeof(double), "losses", err);
        *columns[i] = array;
        if (code != FC_OK)
            return code;
        (*columns[i])[arm->n_losses] = values[i];
    }
    arm->capacity = capacity;
    arm->n_losses++;
    /* A baseline is not trained to its end when the server is found to be missing. */
    return source->d->inference ? fc_inference_check(source->d->inference, err) : FC_OK;
}

static void reset_model(struct fc_distill *d)
{
    fc_model_unpack(&d->model);
    d->model.dev->k->copy(d->model.dev->stream, d->model.weights, d->session.model.weights,
                          d->model.params.total * fc_dtype_size(d->model.dtype));
}

static enum fc_code measure(struct fc_distill *d, struct fc_arm *arm, struct fc_error *err)
{
    const struct fc_eval_options how = {.normalize = (enum fc_normalize)d->flags->normalize,
                                        .max_tokens = d->flags->rationale_tokens,
                                        .label = "measure"};
    struct fc_evaluation e = {0};
    enum fc_code code = fc_model_pack(&d->model, err);
    if (code == FC_OK)
        code = fc_evaluate(&e, &d->session, &d->model, &d->maker, &d->dev, &how, err);
    if (code == FC_OK) {
        arm->correct = e.n_correct;
        arm->total = e.n;
        arm->eval_tokens_per_second = (double)e.tokens / (e.seconds + 1e-9);
        const struct fc_metric values[] = {
            {"correct", (double)e.n_correct}, {"total", (double)e.n}, {"eval_seconds", e.seconds}};
        code = fc_metrics_log(&d->metrics, arm->name, values, 3, err);
    }
    fc_evaluation_free(&e);
    fc_model_unpack(&d->model);
    return code;
}

static enum fc_code train(struct fc_distill *d, struct fc_arm *arm, struct rationale_source *source,
                          struct fc_error *err)
{
    struct fc_training_options how = fc_train_flags_apply(&d->flags->train, d->model.n_ctx);
    struct fc_training_watch watch;
    source->d = d;
    source->arm = arm;
    source->items = fc_alloc(d->train.n, sizeof *source->items, "training set", err);
    source->made = fc_alloc(d->train.n, sizeof *source->made, "training set", err);
    enum fc_code code = source->items && source->made ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK) {
        reset_model(d);
        fc_training_watch_begin(&watch, &d->metrics, arm->name, &how, d->train.n);
        watch.on_step = record_step;
        watch.context = source;
        code = fc_training_run(&d->model, &how, d->train.n, get_item, source,
                               fc_training_watch_step, &watch, &arm->steps, err);
        fc_training_watch_end(&watch);
        arm->tokens_per_second = (double)watch.tokens / (watch.seconds + 1e-9);
    }
    for (size_t i = 0; source->items && i < d->train.n; i++)
        fc_train_item_free(&source->items[i]);
    free(source->items);
    free(source->made);
    return code == FC_OK ? measure(d, arm, err) : code;
}

/* ---- inference ---------------------------------------------------------------------------- */

static enum fc_code start_inference(struct fc_distill *d, const char *name, const char *folder,
                                    const struct fc_perturber_options *perturber,
                                    struct fc_inference **inference, struct fc_error *err)
{
    const struct fc_distill_flags *f = d->flags;
    const struct fc_inference_options how = {.threads = (int)f->compute.threads,
                                             .folder = folder,
                                             .name = name,
                                             .server = f->server,
                                             .keys = &d->keys,
                                             .timeout = f->timeout,
                                             .perturber = perturber,
                                             .ledger = perturber ? d->ledger : NULL,
                                             .decode = f->decode,
                                             .max_tokens = f->rationale_tokens,
                                             .temperature = f->temperature,
                                             .seed = f->train.seed};
    return fc_inference_start(inference, &d->session, &d->templates, &d->train, d->order, &how,
                              err);
}

static enum fc_code open_ledger(struct fc_distill *d, struct fc_error *err)
{
    char *own = fc_path_join(d->flags->output, "client.ledger", err);
    char *head = fc_path_join(d->flags->output, "ledger.head", err);
    enum fc_code code =
        own && head ? fc_privacy_flags_ledger(&d->ledger, &d->flags->privacy, own, head, err)
                    : FC_ERR_MEMORY;
    free(head);
    free(own);
    return code;
}

static enum fc_code start_fedcot(struct fc_distill *d, struct fc_error *err)
{
    const struct fc_perturber_options how = fc_privacy_flags_apply(&d->flags->privacy);
    enum fc_code code = open_ledger(d, err);
    if (code == FC_OK)
        code = start_inference(d, "FedCoT", d->flags->output, &how, &d->inference, err);
    if (code != FC_OK)
        return code;
    fc_perturber_mechanism(fc_inference_perturber(d->inference), &d->mechanism_facts);
    d->mechanism = fc_perturber_json(fc_inference_perturber(d->inference), err);
    return d->mechanism ? FC_OK : FC_ERR_MEMORY;
}

static enum fc_code run_unprotected(struct fc_distill *d, struct fc_error *err)
{
    struct rationale_source source = {0};
    struct fc_inference_report report;
    char *folder = fc_path_join(d->flags->output, "unprotected", err);
    fprintf(stderr, "--unprotected: the raw prompts are sent to the server\n");
    enum fc_code code = folder ? fc_make_folder(folder, err) : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = start_inference(d, "unprotected", folder, NULL, &source.inference, err);
    if (code == FC_OK)
        code = train(d, &d->arms[FC_ARM_UNPROTECTED], &source, err);
    if (code == FC_OK)
        code = fc_inference_finish(source.inference, &report, err);
    fc_inference_free(source.inference);
    free(folder);
    return code;
}

static enum fc_code finish_fedcot(struct fc_distill *d, struct fc_error *err)
{
    enum fc_code code = fc_inference_finish(d->inference, &d->report, err);
    d->has_report = code == FC_OK;
    if (code == FC_OK && d->report.refused == d->train.n)
        code = fc_fail(err, FC_ERR_INPUT,
                       "the server refused all %zu prompts: they are longer than it takes, or "
                       "--rationale-tokens is",
                       d->train.n);
    return code;
}

static enum fc_code run_fedcot(struct fc_distill *d, struct fc_error *err)
{
    const struct fc_distill_flags *f = d->flags;
    struct rationale_source source = {.inference = d->inference,
                                      .texts = f->rationales ? &d->rationales : NULL};
    enum fc_code code = FC_OK;
    if (!f->inference_only)
        code = train(d, &d->arms[FC_ARM_FEDCOT], &source, err);
    if (code == FC_OK && d->inference)
        code = finish_fedcot(d, err);
    if (code == FC_OK && !f->inference_only) {
        char *folder = fc_path_join(f->output, "model", err);
        code = folder ? fc_save_model(&d->session, &d->model, folder, err) : FC_ERR_MEMORY;
        free(folder);
    }
    return code;
}

/* ---- the job ------------------------------------------------------------------------------ */

static bool asks_server(const struct fc_distill_flags *f)
{
    return !f->rationales || f->unprotected;
}

static enum fc_code check_flags(const struct fc_distill_flags *f, struct fc_error *err)
{
    if (asks_server(f) && !f->server)
        return fc_fail(err, FC_ERR_USAGE,
                       "--server URL is needed (or --rationales R.jsonl, to train on a file)");
    struct fc_address address;
    enum fc_code code =
        asks_server(f) ? fc_address_parse(&address, f->server, f->keys.key != NULL, err) : FC_OK;
    if (code != FC_OK) {
        fc_error_prefix(err, "--server %s", f->server);
        return code;
    }
    if (f->inference_only && (f->rationales || f->unprotected))
        return fc_fail(err, FC_ERR_USAGE, "--inference-only and %s exclude each other",
                       f->rationales ? "--rationales" : "--unprotected");
    return f->rationales ? FC_OK : fc_privacy_flags_check(&f->privacy, err);
}

static enum fc_code read_data(struct fc_distill *d, struct fc_error *err)
{
    const struct fc_distill_flags *f = d->flags;
    enum fc_code code = fc_dataset_read(&d->train, f->data, true, err);
    if (code == FC_OK)
        code = fc_dataset_read(&d->dev, f->dev, true, err);
    if (code == FC_OK && fc_dataset_has_choices(&d->train) != fc_dataset_has_choices(&d->dev))
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s and %s are of two tasks: one has choices, the other free answers",
                       f->data, f->dev);
    if (code == FC_OK && f->rationales)
        code = fc_rationales_read(&d->rationales, f->rationales, &d->train, err);
    if (code == FC_OK)
        code = fc_task_templates_open(&d->templates, fc_dataset_has_choices(&d->train),
                                      f->templates, err);
    return code;
}

static enum fc_code open_job(struct fc_distill *d, struct fc_error *err)
{
    const struct fc_distill_flags *f = d->flags;
    bool decodes = f->decode && asks_server(f);
    enum fc_code code = read_data(d, err);
    if (code == FC_OK)
        code = fc_session_open(&d->session, &f->model, &f->compute, 0, false, err);
    if (code == FC_OK && decodes)
        code = fc_session_chat(&d->session, err);
    if (code == FC_OK && decodes)
        code = fc_model_pack(&d->session.model, err);
    if (code == FC_OK)
        code = fc_device_open(&d->train_device, d->session.dev.name, (int)f->compute.threads, err);
    if (code == FC_OK)
        code = fc_model_create(&d->model, &d->train_device, &d->session.model.config,
                               d->session.model.dtype, d->session.model.n_ctx, err);
    if (code != FC_OK)
        return code;
    d->maker = (struct fc_sample_maker){d->session.tok, &d->templates,
                                        fc_train_flags_length(&f->train, d->session.model.n_ctx)};
    d->order = fc_alloc(d->train.n, sizeof *d->order, "order", err);
    if (!d->order)
        return FC_ERR_MEMORY;
    fc_training_order(d->order, d->train.n, f->train.seed, 0);
    return FC_OK;
}

/* What another job left here is refused before anything of it is overwritten. */
static enum fc_code open_output(struct fc_distill *d, struct fc_error *err)
{
    enum fc_code code = fc_make_folder(d->flags->output, err);
    if (code == FC_OK && !d->flags->rationales)
        code = start_fedcot(d, err);
    if (code == FC_OK)
        code = fc_session_record(d->options, d->flags->output, err);
    char *path = code == FC_OK ? fc_path_join(d->flags->output, "metrics.jsonl", err) : NULL;
    if (code == FC_OK)
        code = path ? fc_metrics_open(&d->metrics, path, false, err) : FC_ERR_MEMORY;
    free(path);
    return code;
}

/* The server works on FedCoT's prompts from the start; the baselines are trained meanwhile. */
static enum fc_code run_arms(struct fc_distill *d, struct fc_error *err)
{
    const struct fc_distill_flags *f = d->flags;
    bool trains = !f->inference_only;
    d->arms[FC_ARM_BEFORE].name = trains && f->zero_shot ? "before" : NULL;
    d->arms[FC_ARM_LABEL].name = trains && f->label_only ? "label only" : NULL;
    d->arms[FC_ARM_UNPROTECTED].name = trains && f->unprotected ? "unprotected" : NULL;
    d->arms[FC_ARM_FEDCOT].name = trains ? "FedCoT" : NULL;
    enum fc_code code = FC_OK;
    if (d->arms[FC_ARM_BEFORE].name) {
        reset_model(d);
        code = measure(d, &d->arms[FC_ARM_BEFORE], err);
    }
    if (code == FC_OK && d->arms[FC_ARM_LABEL].name) {
        struct rationale_source none = {0};
        code = train(d, &d->arms[FC_ARM_LABEL], &none, err);
    }
    if (code == FC_OK)
        code = run_fedcot(d, err);
    return code;
}

/* OUTPUT/summary.json and OUTPUT/report.html. */
static enum fc_code write_results(const struct fc_distill *d, struct fc_error *err)
{
    cJSON *summary = fc_distill_summary(d, err);
    char *text = summary ? fc_json_print(summary, err) : NULL;
    char *path = fc_path_join(d->flags->output, "summary.json", err);
    enum fc_code code = text && path ? fc_file_write(path, text, strlen(text), err) : FC_ERR_MEMORY;
    free(path);
    free(text);
    cJSON_Delete(summary);
    return code == FC_OK ? fc_distill_report(d, err) : code;
}

static enum fc_code run_job(struct fc_distill *d, struct fc_error *err)
{
    double start = fc_now();
    enum fc_code code = open_job(d, err);
    if (code == FC_OK)
        code = open_output(d, err);
    if (code == FC_OK)
        code = run_arms(d, err);
    /* Its decode stage takes the session's stream, so it waits for FedCoT's. */
    if (code == FC_OK && d->arms[FC_ARM_UNPROTECTED].name)
        code = run_unprotected(d, err);
    d->seconds = fc_now() - start;
    return code == FC_OK ? write_results(d, err) : code;
}

static void free_job(struct fc_distill *d)
{
    fc_inference_free(d->inference);
    fc_keys_close(&d->keys);
    fc_ledger_close(d->ledger);
    for (int i = 0; i < FC_ARMS; i++) {
        free(d->arms[i].step_numbers);
        free(d->arms[i].losses[0]);
        free(d->arms[i].losses[1]);
    }
    cJSON_Delete(d->mechanism);
    fc_model_free(&d->model);
    fc_device_close(&d->train_device);
    fc_session_close(&d->session);
    fc_task_templates_free(&d->templates);
    fc_id_texts_free(&d->rationales);
    fc_dataset_free(&d->train);
    fc_dataset_free(&d->dev);
    free(d->order);
}

enum fc_code fc_cmd_distill(int argc, char **argv, struct fc_error *err)
{
    struct fc_distill_flags flags;
    struct fc_options options = {0};
    struct fc_distill d = {.flags = &flags, .options = &options};
    enum fc_code code = fc_options_parse(&options, &fc_distill_spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    fc_signals_catch();
    code = check_flags(&flags, err);
    if (code == FC_OK)
        code = fc_keys_open_client(&d.keys, &flags.keys, err);
    if (code == FC_OK)
        code = run_job(&d, err);
    if (d.metrics.file) {
        enum fc_code closed = fc_metrics_close(&d.metrics, code == FC_OK ? err : NULL);
        code = code == FC_OK ? closed : code;
    }
    if (code == FC_OK)
        fc_distill_print(&d, options.json ? stderr : stdout);
    if (code == FC_OK && options.json)
        code = fc_print_summary(&options, fc_distill_summary(&d, err), err);
cleanup:
    free_job(&d);
    fc_options_free(&options);
    return code;
}
