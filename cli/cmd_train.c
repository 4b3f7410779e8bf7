#include "base/file.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/signals.h"
#include "cli/train_flags.h"

#include <sodium.h>
#include <string.h>

struct train_flags {
    struct fc_model_flags model;
    struct fc_compute_flags compute;
    struct fc_train_flags train;
    const char *data, *rationales, *output, *templates;
    size_t checkpoint_every;
    bool resume;
};

#define FIELD(name) offsetof(struct train_flags, name)

static const struct fc_option file_options[] = {
    {.name = "train",
     .type = FC_OPT_STRING,
     .offset = FIELD(data),
     .metavar = "D.jsonl",
     .help = "data set with answers",
     .required = true},
    {.name = "rationales",
     .type = FC_OPT_STRING,
     .offset = FIELD(rationales),
     .metavar = "R.jsonl",
     .help = "rationales by id, {\"id\", \"text\"}: the second task; without it only labels are "
             "learned"},
    {.name = "output",
     .type = FC_OPT_STRING,
     .offset = FIELD(output),
     .metavar = "DIR",
     .help = "folder for the trained model, metrics.jsonl, job.json and trainer.state",
     .required = true},
    {.name = "templates",
     .type = FC_OPT_STRING,
     .offset = FIELD(templates),
     .metavar = "FILE",
     .help = "JSON file with texts in place of the built-in ones (see docs/templates.md)"},
    {.name = "checkpoint-every",
     .type = FC_OPT_SIZE,
     .offset = FIELD(checkpoint_every),
     .fallback = "0",
     .metavar = "N",
     .help = "steps between checkpoints; 0: only at the end",
     .min = 0,
     .max = 1e9},
    {.name = "resume",
     .type = FC_OPT_FLAG,
     .offset = FIELD(resume),
     .help = "go on from DIR/trainer.state if there is one: the same bits as not stopping"},
    {0}};

static const struct fc_option_group groups[] = {{"Model", fc_model_options, FIELD(model)},
                                                {"Files", file_options, 0},
                                                {"Training", fc_train_options, FIELD(train)},
                                                {"Computation", fc_compute_options, FIELD(compute)},
                                                {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "train",
    .summary = "Train a model on labels, and on rationales from a file",
    .description =
        "Two tasks at once: question to label, and question to rationale. Each task's loss is the "
        "mean over its own target tokens of the step; --weight-label and --weight-rationale weigh "
        "them. The output is a Hugging Face directory that every command takes as --model, and "
        "that transformers loads.\n\n"
        "A signal stops after the current step and writes DIR/trainer.state; --resume goes on "
        "from it. With a constant schedule, --steps may be larger than before.",
    .groups = groups,
};

struct training_set {
    struct fc_train_item *items;
    size_t n, n_cut, n_rationales;
};

static void training_set_free(struct training_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        fc_train_item_free(&set->items[i]);
    free(set->items);
    *set = (struct training_set){0};
}

static enum fc_code training_set_make(struct training_set *set, const struct fc_sample_maker *maker,
                                      const struct fc_dataset *data,
                                      const struct fc_id_texts *rationales, struct fc_error *err)
{
    set->items = fc_alloc(data->n, sizeof *set->items, "training set", err);
    if (!set->items)
        return FC_ERR_MEMORY;
    for (; set->n < data->n; set->n++) {
        const struct fc_example *e = &data->items[set->n];
        struct fc_train_item *item = &set->items[set->n];
        enum fc_code code =
            fc_train_item_make(maker, e, fc_id_texts_find(rationales, e->id), item, err);
        if (code != FC_OK) {
            fc_error_prefix(err, "record %zu", set->n + 1);
            return code;
        }
        set->n_cut += item->cut;
        set->n_rationales += item->samples[FC_TASK_EXPLAIN].n > 0;
    }
    return FC_OK;
}

static enum fc_code get_item(void *context, size_t index, const struct fc_train_item **item,
                             struct fc_error *err)
{
    (void)err;
    const struct training_set *set = context;
    *item = &set->items[index];
    return FC_OK;
}

static void hash_item(crypto_generichash_state *hash, const struct fc_train_item *item)
{
    for (int task = 0; task < FC_TASKS; task++) {
        const struct fc_sample *s = &item->samples[task];
        const uint64_t shape[2] = {s->n, s->first_target};
        crypto_generichash_update(hash, (const unsigned char *)shape, sizeof shape);
        if (s->n)
            crypto_generichash_update(hash, (const unsigned char *)s->ids, s->n * sizeof *s->ids);
    }
}

/* Names what a checkpoint belongs to: the samples, and the flags that change the path of training.
 * The number of steps is not among them, so that a finished run can be made longer. */
static void make_tag(const struct train_flags *f, const struct training_set *set, char tag[65])
{
    const struct fc_train_flags *t = &f->train;
    const double flags[] = {(double)t->tokens_per_step,
                            (double)t->tokens_per_batch,
                            (double)t->warmup,
                            (double)t->seed,
                            (double)t->schedule,
                            (double)f->compute.dtype,
                            (double)t->fp8,
                            (double)t->stochastic_rounding,
                            t->lr,
                            t->weight_label,
                            t->weight_rationale,
                            t->weight_decay,
                            t->clip,
                            t->beta1,
                            t->beta2};
    crypto_generichash_state hash;
    unsigned char digest[32];
    crypto_generichash_init(&hash, NULL, 0, sizeof digest);
    crypto_generichash_update(&hash, (const unsigned char *)flags, sizeof flags);
    for (size_t i = 0; i < set->n; i++)
        hash_item(&hash, &set->items[i]);
    crypto_generichash_final(&hash, digest, sizeof digest);
    sodium_bin2hex(tag, 65, digest, sizeof digest);
}

static cJSON *summarize(const struct fc_training_watch *w, const struct training_set *set,
                        size_t steps, const struct fc_session *s, struct fc_error *err)
{
    double seconds = w->seconds + 1e-9;
    const struct fc_metric figures[] = {{"examples", (double)set->n},
                                        {"rationales", (double)set->n_rationales},
                                        {"cut", (double)set->n_cut},
                                        {"steps", (double)steps},
                                        {"loss", w->last.loss},
                                        {"label_loss", w->last.task_loss[FC_TASK_PREDICT]},
                                        {"rationale_loss", w->last.task_loss[FC_TASK_EXPLAIN]},
                                        {"tokens", (double)w->tokens},
                                        {"seconds", w->seconds},
                                        {"tokens_per_second", (double)w->tokens / seconds},
                                        {"gflops", w->flops / seconds * 1e-9},
                                        {"peak_memory_bytes", (double)s->dev.peak}};
    return fc_metrics_object("command", "train", figures, sizeof figures / sizeof figures[0], err);
}

static enum fc_code train(const struct fc_options *options, const struct train_flags *f,
                          struct fc_session *s, struct training_set *set, struct fc_error *err)
{
    struct fc_training_options how = fc_train_flags_apply(&f->train, s->model.n_ctx);
    struct fc_metrics metrics = {0};
    struct fc_training_watch watch;
    size_t steps = 0;
    char tag[65];
    char *state = fc_path_join(f->output, "trainer.state", err);
    char *log = fc_path_join(f->output, "metrics.jsonl", err);
    enum fc_code code =
        state && log ? fc_metrics_open(&metrics, log, f->resume, err) : FC_ERR_MEMORY;
    if (code != FC_OK)
        goto cleanup;
    make_tag(f, set, tag);
    how.tag = tag;
    how.checkpoint = state;
    how.checkpoint_every = f->checkpoint_every;
    how.resume = f->resume;
    fc_training_watch_begin(&watch, &metrics, "train", &how, set->n);
    code = fc_training_run(&s->model, &how, set->n, get_item, set, fc_training_watch_step, &watch,
                           &steps, err);
    fc_training_watch_end(&watch);
    fc_device_print_memory(&s->dev, stderr);
    if (code == FC_OK)
        code = fc_save_model(s, &s->model, f->output, err);
    if (code == FC_OK)
        code = fc_print_summary(options, summarize(&watch, set, steps, s, err), err);
cleanup:
    if (metrics.file) {
        enum fc_code closed = fc_metrics_close(&metrics, code == FC_OK ? err : NULL);
        code = code == FC_OK ? closed : code;
    }
    free(state);
    free(log);
    return code;
}

enum fc_code fc_cmd_train(int argc, char **argv, struct fc_error *err)
{
    struct train_flags flags;
    struct fc_options options = {0};
    struct fc_session s = {0};
    struct fc_dataset data = {0};
    struct fc_id_texts rationales = {0};
    struct fc_task_templates templates = {0};
    struct training_set set = {0};
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    fc_signals_catch();
    code = fc_dataset_read(&data, flags.data, true, err);
    if (code == FC_OK && flags.rationales)
        code = fc_rationales_read(&rationales, flags.rationales, &data, err);
    if (code == FC_OK)
        code =
            fc_task_templates_open(&templates, fc_dataset_has_choices(&data), flags.templates, err);
    if (code == FC_OK)
        code = fc_session_open(&s, &flags.model, &flags.compute, 0, false, err);
    if (code != FC_OK)
        goto cleanup;
    const struct fc_sample_maker maker = {s.tok, &templates,
                                          fc_train_flags_length(&flags.train, s.model.n_ctx)};
    code = training_set_make(&set, &maker, &data, &rationales, err);
    if (code != FC_OK)
        fc_error_prefix(err, "%s", flags.data);
    if (code == FC_OK)
        code = fc_make_folder(flags.output, err);
    if (code == FC_OK)
        code = fc_session_record(&options, flags.output, err);
    if (code == FC_OK)
        code = train(&options, &flags, &s, &set, err);
cleanup:
    training_set_free(&set);
    fc_session_close(&s);
    fc_task_templates_free(&templates);
    fc_id_texts_free(&rationales);
    fc_dataset_free(&data);
    fc_options_free(&options);
    return code;
}
