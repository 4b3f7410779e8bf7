/* What `fedcot serve` can be asked. */
#ifndef FC_CLI_SERVE_FLAGS_H
#define FC_CLI_SERVE_FLAGS_H

#include "cli/key_flags.h"
#include "cli/options.h"

struct fc_serve_flags {
    struct fc_model_flags model;
    struct fc_compute_flags compute;
    const char *listen, *templates, *state;
    struct fc_batch_flags batch;
    struct fc_key_flags keys;
    size_t max_tokens, max_jobs, max_items, queue_bytes, state_bytes;
    double state_age, drain;
    int task;
    bool keep_quantised;
};
extern const struct fc_command_spec fc_serve_spec;

#endif
