#include "cli/serve_flags.h"

#define FIELD(name) offsetof(struct fc_serve_flags, name)

static const char *const tasks[] = {"choice", "free", NULL};

static const struct fc_option server_options[] = {
    {.name = "listen",
     .type = FC_OPT_STRING,
     .offset = FIELD(listen),
     .fallback = "tcp://127.0.0.1:7450",
     .metavar = "URL",
     .help = "address; without --key loopback only, since nothing is encrypted then"},
    {.name = "max-tokens",
     .type = FC_OPT_SIZE,
     .offset = FIELD(max_tokens),
     .fallback = "1024",
     .metavar = "N",
     .help = "longest answer that a client may ask for",
     .min = 1,
     .max = 1 << 20},
    {.name = "task",
     .type = FC_OPT_CHOICE,
     .offset = FIELD(task),
     .choices = tasks,
     .help = "which built-in instruction: for multiple choice or for free answers"},
    {.name = "templates",
     .type = FC_OPT_STRING,
     .offset = FIELD(templates),
     .metavar = "FILE",
     .help = "JSON file whose \"instruct\" replaces the built-in instruction (see "
             "docs/templates.md)"},
    {0}};

static const struct fc_option load_options[] = {
    {.name = "max-jobs",
     .type = FC_OPT_SIZE,
     .offset = FIELD(max_jobs),
     .fallback = "256",
     .metavar = "N",
     .help = "jobs at once; further ones are told to come back",
     .min = 1,
     .max = 4096},
    {.name = "max-items",
     .type = FC_OPT_SIZE,
     .offset = FIELD(max_items),
     .fallback = "65536",
     .metavar = "N",
     .help = "prompts and answers of all clients held at once",
     .min = 1,
     .max = 1 << 24},
    {.name = "queue-bytes",
     .type = FC_OPT_SIZE,
     .offset = FIELD(queue_bytes),
     .fallback = "268435456",
     .metavar = "N",
     .help = "bytes of their texts in memory",
     .min = 1 << 20},
    {.name = "drain",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(drain),
     .fallback = "30",
     .metavar = "SECONDS",
     .help = "after SIGTERM, how long what runs may take to finish",
     .max = 1e6},
    {.name = "state",
     .type = FC_OPT_STRING,
     .offset = FIELD(state),
     .metavar = "FOLDER",
     .help = "keep finished answers there until clients have stored them, so that they survive a "
             "crash of the server; without it they are in memory only"},
    {.name = "state-bytes",
     .type = FC_OPT_SIZE,
     .offset = FIELD(state_bytes),
     .fallback = "1073741824",
     .metavar = "N",
     .help = "largest size of the file in it",
     .min = 1 << 16},
    {.name = "state-age",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(state_age),
     .fallback = "86400",
     .metavar = "SECONDS",
     .help = "forget answers, and jobs without a word from their client, after so long (without "
             "--state: after at most an hour)",
     .min = 1,
     .max = 1e9},
    {0}};

static const struct fc_option_group groups[] = {
    {"Model", fc_model_options, FIELD(model)},
    {"Server", server_options, 0},
    {"Keys", fc_server_key_options, FIELD(keys)},
    {"Load and faults", load_options, 0},
    {"Batch", fc_batch_options, FIELD(batch)},
    {"Computation", fc_compute_options, FIELD(compute)},
    {"Weights", fc_quantised_options, FIELD(keep_quantised)},
    {0}};

const struct fc_command_spec fc_serve_spec = {
    .program = "fedcot",
    .name = "serve",
    .summary = "Write rationales for the perturbed prompts of clients",
    .description =
        "Puts each perturbed prompt into its instruction, and answers many at once: requests of "
        "all clients share one batch, and the instruction that their prompts share is computed "
        "once. Answers depend on prompt, sampling and seed only, so a client that lost one may "
        "ask again.\n\n"
        "With --key and --clients sessions are encrypted, and only clients in the list are served "
        "(see fedcot help keygen). SIGHUP reads the list again; who is no longer in it loses its "
        "session and its jobs.\n\n"
        "The line \"ready URL\" on standard output says that clients may come. Clients that find "
        "no room are told when to ask again. SIGUSR1 prints the state on standard error (see also "
        "fedcot status). SIGINT or SIGTERM ends the server: it takes no new work, finishes what "
        "runs, keeps what clients have not fetched in --state, and exits with 0; a second signal "
        "ends it at once, which loses no answer that is in --state.",
    .groups = groups,
};
