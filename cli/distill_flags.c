/* The flags of `fedcot distill`. */
#include "cli/distill.h"

#define FIELD(name) offsetof(struct fc_distill_flags, name)

static const struct fc_option file_options[] = {
    {.name = "train",
     .type = FC_OPT_STRING,
     .offset = FIELD(data),
     .metavar = "D.jsonl",
     .help = "private data set to learn from",
     .required = true},
    {.name = "dev",
     .type = FC_OPT_STRING,
     .offset = FIELD(dev),
     .metavar = "D.jsonl",
     .help = "data set to measure accuracy on; stays here",
     .required = true},
    {.name = "output",
     .type = FC_OPT_STRING,
     .offset = FIELD(output),
     .metavar = "DIR",
     .help = "folder for model, rationales, metrics, summary.json and report.html; the same "
             "command goes on "
             "where it was stopped",
     .required = true},
    {.name = "templates",
     .type = FC_OPT_STRING,
     .offset = FIELD(templates),
     .metavar = "FILE",
     .help = "JSON file with texts in place of the built-in ones (see docs/templates.md)"},
    {.name = "rationales",
     .type = FC_OPT_STRING,
     .offset = FIELD(rationales),
     .metavar = "R.jsonl",
     .help = "train on these rationales, {\"id\", \"text\"}; no server is asked"},
    {0}};

static const struct fc_option server_options[] = {
    {.name = "server",
     .type = FC_OPT_STRING,
     .offset = FIELD(server),
     .metavar = "URL",
     .help = "address of `fedcot serve`, such as tcp://127.0.0.1:7450"},
    {.name = "rationale-tokens",
     .type = FC_OPT_SIZE,
     .offset = FIELD(rationale_tokens),
     .fallback = "64",
     .metavar = "N",
     .help = "most tokens of a rationale",
     .min = 1,
     .max = 1 << 20},
    {.name = "temperature",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(temperature),
     .fallback = "0",
     .metavar = "T",
     .help = "of the server's sampling; 0 takes the most likely token",
     .min = 0,
     .max = 100},
    {.name = "timeout",
     .type = FC_OPT_DOUBLE,
     .offset = FIELD(timeout),
     .fallback = "60",
     .metavar = "S",
     .help = "seconds without a word until the server counts as dead",
     .min = 0.5,
     .max = 1e6},
    {.name = "decode",
     .type = FC_OPT_FLAG,
     .offset = FIELD(decode),
     .fallback = "true",
     .help = "let the client's model rewrite rationales to fit the raw prompts"},
    {0}};

static const struct fc_option result_options[] = {
    {.name = "zero-shot",
     .type = FC_OPT_FLAG,
     .offset = FIELD(zero_shot),
     .fallback = "true",
     .help = "measure the model before training"},
    {.name = "label-only",
     .type = FC_OPT_FLAG,
     .offset = FIELD(label_only),
     .fallback = "true",
     .help = "baseline: train on labels alone"},
    {.name = "unprotected",
     .type = FC_OPT_FLAG,
     .offset = FIELD(unprotected),
     .help = "baseline: send the raw prompts, without any privacy; for public data only"},
    {.name = "inference-only",
     .type = FC_OPT_FLAG,
     .offset = FIELD(inference_only),
     .help = "stop when the rationales are there; train later with --rationales"},
    {.name = "normalize",
     .type = FC_OPT_CHOICE,
     .offset = FIELD(normalize),
     .choices = fc_normalize_names,
     .help = "what a choice's log-probability is divided by"},
    {.name = "examples",
     .type = FC_OPT_SIZE,
     .offset = FIELD(examples),
     .fallback = "0",
     .metavar = "N",
     .help = "show N examples in report.html: raw private text!",
     .min = 0,
     .max = 1000},
    {0}};

static const struct fc_option_group groups[] = {{"Model", fc_model_options, FIELD(model)},
                                                {"Files", file_options, 0},
                                                {"Server", server_options, 0},
                                                {"Keys", fc_client_key_options, FIELD(keys)},
                                                {"Privacy", fc_privacy_options, FIELD(privacy)},
                                                {"Results", result_options, 0},
                                                {"Training", fc_train_options, FIELD(train)},
                                                {"Computation", fc_compute_options, FIELD(compute)},
                                                {0}};

const struct fc_command_spec fc_distill_spec = {
    .program = "fedcot",
    .name = "distill",
    .summary = "Run the whole job of a client: perturb, ask, decode, train",
    .description =
        "Each prompt's words are replaced under local differential privacy, the server writes a "
        "rationale for what is left, the model rewrites it to fit the raw prompt, and is then "
        "trained on labels and rationales at once. Training begins while rationales still "
        "arrive.\n\n"
        "What leaves is charged in the ledger before it is sent. A job that was stopped or killed "
        "goes on when the same command is given again: prompts that were sent are not charged "
        "twice, and the result is the same.",
    .groups = groups,
};
