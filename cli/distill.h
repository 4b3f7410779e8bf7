/* One distillation job: what `fedcot distill` was asked, what it measured, and how it is shown. */
#ifndef FC_CLI_DISTILL_H
#define FC_CLI_DISTILL_H

#include "cli/evaluate.h"
#include "cli/inference.h"
#include "cli/key_flags.h"
#include "cli/privacy_flags.h"
#include "cli/train_flags.h"

struct fc_distill_flags {
    struct fc_model_flags model;
    struct fc_compute_flags compute;
    struct fc_train_flags train;
    struct fc_privacy_flags privacy;
    struct fc_key_flags keys;
    const char *data, *dev, *server, *output, *templates, *rationales;
    double temperature, timeout;
    size_t rationale_tokens, examples;
    int normalize;
    bool decode, zero_shot, label_only, unprotected, inference_only;
};
extern const struct fc_command_spec fc_distill_spec;

/* One column of the result: a way of training, and what it came to. */
enum fc_arm_kind { FC_ARM_BEFORE, FC_ARM_LABEL, FC_ARM_UNPROTECTED, FC_ARM_FEDCOT, FC_ARMS };

struct fc_arm {
    const char *name; /* NULL: was not run */
    size_t correct, total, steps;
    double tokens_per_second; /* of training; 0 for before */
    double eval_tokens_per_second;
    double *step_numbers, *losses[FC_TASKS]; /* one value a step */
    size_t n_losses, capacity;
    size_t n_rationales;
};

struct fc_distill {
    const struct fc_distill_flags *flags;
    const struct fc_options *options;
    struct fc_session session;     /* the base model; the decode stage's while inference runs */
    struct fc_device train_device; /* training has a stream of its own */
    struct fc_model model;         /* the copy that is trained */
    struct fc_task_templates templates;
    struct fc_keys keys;
    struct fc_sample_maker maker;
    struct fc_dataset train, dev;
    struct fc_id_texts rationales; /* of --rationales */
    size_t *order;                 /* of the first epoch: the order of inference too */
    struct fc_metrics metrics;
    struct fc_arm arms[FC_ARMS];
    struct fc_ledger *ledger;
    cJSON *mechanism; /* what fc_perturber_json said; NULL without inference */
    struct fc_mechanism mechanism_facts;
    struct fc_inference *inference; /* of FedCoT; NULL with rationales from a file */
    struct fc_inference_report report;
    bool has_report;
    double seconds;
};

/* The table. */
void fc_distill_print(const struct fc_distill *d, FILE *out);
/* OUTPUT/report.html. */
enum fc_code fc_distill_report(const struct fc_distill *d, struct fc_error *err);
/* The summary's JSON, the caller's; NULL without memory for it. */
cJSON *fc_distill_summary(const struct fc_distill *d, struct fc_error *err);

#endif
