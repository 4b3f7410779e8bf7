/* The flags of training, shared by `train` and `distill`, and what they build. */
#ifndef FC_CLI_TRAIN_FLAGS_H
#define FC_CLI_TRAIN_FLAGS_H

#include "cli/metrics.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/session.h"
#include "engine/training.h"
#include "models/records.h"

struct fc_train_flags {
    size_t steps, epochs, tokens_per_step, tokens_per_batch, max_length, warmup, seed;
    double lr, weight_label, weight_rationale, weight_decay, clip, beta1, beta2;
    int schedule; /* enum fc_schedule */
    bool fp8, stochastic_rounding;
};
extern const struct fc_option fc_train_options[];

/* As flagged, for a model of n_ctx positions; checkpoint, tag and resume are left for the caller.
 */
struct fc_training_options fc_train_flags_apply(const struct fc_train_flags *f, size_t n_ctx);
/* Tokens of the longest sample: --max-length, or the model's context if that is less. */
size_t fc_train_flags_length(const struct fc_train_flags *f, size_t n_ctx);

/* Reads --rationales. FC_ERR_INPUT if none of the data set's ids has one: then it is the wrong
 * file, and training would quietly be on labels alone. */
enum fc_code fc_rationales_read(struct fc_id_texts *texts, const char *path,
                                const struct fc_dataset *data, struct fc_error *err);

/* Shows the steps of a run: progress on stderr, records in metrics.jsonl, totals for the summary.
 * Its address is the context of fc_training_watch_step, an fc_step_fn; a signal stops the run. */
struct fc_training_watch {
    struct fc_progress progress;
    struct fc_metrics *metrics;
    const char *run; /* which training of the job: "train", "label only", ... */
    struct fc_step_metrics last;
    size_t steps, tokens;
    double seconds, flops;
    /* For who keeps the losses; may be NULL. */
    enum fc_code (*on_step)(void *context, const struct fc_step_metrics *metrics,
                            struct fc_error *err);
    void *context;
};
/* n: examples of the training set. */
void fc_training_watch_begin(struct fc_training_watch *w, struct fc_metrics *metrics,
                             const char *run, const struct fc_training_options *how, size_t n);
enum fc_code fc_training_watch_step(void *watch, const struct fc_step_metrics *metrics,
                                    double progress, struct fc_error *err);
void fc_training_watch_end(struct fc_training_watch *w);

/* Writes a model's current weights with its tokenizer as a Hugging Face directory. */
enum fc_code fc_save_model(const struct fc_session *s, const struct fc_model *model,
                           const char *folder, struct fc_error *err);

#endif
