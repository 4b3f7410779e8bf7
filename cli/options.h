/* Flags of a command: one table per group of flags, read from the command line and a job file.
 *
 *     struct serve_flags { struct fc_model_flags model; const char *listen; size_t max_batch; };
 *     static const struct fc_option serve_options[] = {
 *         {.name = "listen", .type = FC_OPT_STRING, .offset = offsetof(struct serve_flags, listen),
 *          .fallback = "tcp://127.0.0.1:7450", .metavar = "URL", .help = "address to listen on"},
 *         {.name = "max-batch", .type = FC_OPT_SIZE, ..., .min = 1, .max = 4096},
 *         {0}};
 *     static const struct fc_option_group groups[] = {
 *         {"Model", fc_model_options, offsetof(struct serve_flags, model)},
 *         {"Server", serve_options, 0},
 *         {0}};
 *     static const struct fc_command_spec spec = {
 *         .program = "fedcot", .name = "serve", .summary = "...", .groups = groups};
 *
 *     struct serve_flags flags;
 *     struct fc_options options = {0};
 *     code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
 *     if (code != FC_OK || options.done)
 *         goto cleanup;
 *     ...
 * cleanup:
 *     fc_options_free(&options);   // strings in `flags` live until here
 *
 * Flags are of GNU long form: --name VALUE, --name=VALUE, --flag, --no-flag; "--" ends them. Every
 * command also has --config FILE, --json and --help, which the parser keeps itself.
 *
 * A job file is a JSON object whose keys are flag names without dashes: {"lr": 0.001, "json":
 * true}. A key that is a command's name holds an object for that command alone, whose keys win over
 * those outside; other commands' objects are passed over, so that one file can describe a whole
 * job. null means "as if absent". Unknown keys are errors. Flags win over the file, the file over
 * the defaults. Paths in it are relative to the working folder, as on the command line. */
#ifndef FC_CLI_OPTIONS_H
#define FC_CLI_OPTIONS_H

#include "base/error.h"
#include "base/memory.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* A repeated flag's values, in the order given. */
struct fc_strings {
    const char **items;
    size_t n;
};

enum fc_option_type {                /* the field's type in the command's struct */
                      FC_OPT_STRING, /* const char *, NULL when absent */
                      FC_OPT_SIZE,   /* size_t */
                      FC_OPT_DOUBLE, /* double, always finite */
                      FC_OPT_FLAG,   /* bool */
                      FC_OPT_CHOICE, /* int, the index of the word in `choices` */
                      FC_OPT_STRINGS /* struct fc_strings: the flag may be repeated; a list in a job
                                        file */
};

struct fc_option {
    const char *name; /* without dashes; NULL ends a table */
    enum fc_option_type type;
    size_t offset;        /* of the field, in the struct of its group */
    const char *fallback; /* the default as it would be typed ("true" for a flag that is on);
                             NULL: NULL, 0, false, the first choice, no strings */
    const char *metavar;  /* "FILE", "N": how help names the value; NULL: N, X, NAME or TEXT */
    const char *help;     /* one phrase; help adds the default and the choices itself */
    double min, max;      /* of numbers, both included; max < min: no upper limit; both 0:
                             no limit at all */
    const char *const *choices; /* NULL-terminated */
    bool required;
};

struct fc_option_group {
    const char *title;               /* heading in the help */
    const struct fc_option *options; /* NULL ends the list */
    size_t offset;                   /* of the group's struct inside the command's */
};

struct fc_command_spec {
    const char *program;     /* "fedcot" */
    const char *name;        /* "serve": also its object in a job file; NULL: none */
    const char *summary;     /* one line */
    const char *description; /* paragraphs divided by "\n\n", wrapped by the help; may be NULL. A
                                paragraph that begins with a blank is printed as it stands. */
    const struct fc_option_group *groups;
    const char *arguments; /* "[CASE...]": what may follow the flags; NULL: nothing may */
};

enum fc_option_source { FC_FROM_DEFAULT, FC_FROM_FILE, FC_FROM_FLAG };

struct fc_bound_option; /* private: an option and the address of its field */

/* What a parse made. Zero-initialise; release with fc_options_free. */
struct fc_options {
    bool done;              /* --help was printed to stdout: nothing is left to do */
    bool json;              /* --json: end with one JSON line of the summary on stdout */
    const char *config;     /* --config */
    const char **arguments; /* what followed the flags */
    size_t n_arguments;

    /* private */
    const struct fc_command_spec *spec;
    struct fc_bound_option *items;
    size_t n_items;
    bool help;
    cJSON *file; /* owns the strings that came from the job file */
};

/* Sets every field of *values (the command's struct) from defaults, job file and flags. argv[0] is
 * passed over; argv and spec must outlive *o. FC_ERR_USAGE names the flag or key, what was expected
 * and, for an unknown name, the nearest known one; a job file that is not JSON is FC_ERR_INPUT. */
enum fc_code fc_options_parse(struct fc_options *o, const struct fc_command_spec *spec,
                              void *values, int argc, char **argv, struct fc_error *err);
void fc_options_free(struct fc_options *o);

/* Where the value of a flag came from (FC_FROM_DEFAULT for a name that is not in the table): for
 * flags that exclude each other, or whose default depends on another. */
enum fc_option_source fc_options_source(const struct fc_options *o, const char *name);

/* The effective configuration as a job file that repeats the run: {"NAME": {every flag: value}}
 * (without the outer object when the spec has no name). Store it with the results. NULL with
 * FC_ERR_MEMORY. Owner: the caller, cJSON_Delete. */
cJSON *fc_options_to_json(const struct fc_options *o, struct fc_error *err);

/* Appends the help of a command, wrapped at `width` columns. */
void fc_options_help(const struct fc_command_spec *spec, size_t width, struct fc_text *out);
/* Appends the table of exit statuses, the same for every program and command. */
void fc_exit_status_help(size_t width, struct fc_text *out);
/* Columns of the terminal on stdout, between 60 and 100; 80 when it is none. */
size_t fc_terminal_width(void);
/* Appends text, words wrapped at `width`; every line but the first begins with `indent` blanks, and
 * the first begins in column `column`. */
void fc_wrap(const char *text, size_t column, size_t indent, size_t width, struct fc_text *out);

/* The word of names[0..n) nearest to `word` by edit distance, NULL if none is near. */
const char *fc_nearest(const char *word, const char *const *names, size_t n);

/* --- groups shared by commands ------------------------------------------------------------- */

/* --model (required), --chat-format (an enum fc_chat_format) */
struct fc_model_flags {
    const char *model;
    int chat_format;
};
extern const struct fc_option fc_model_options[];

/* --device, --threads (0: all cores), --dtype (an enum fc_dtype) */
struct fc_compute_flags {
    const char *device;
    size_t threads;
    int dtype;
};
extern const struct fc_option fc_compute_options[];

/* --keep-quantised (a bool): fc_model_load_quantised, for commands that only generate */
extern const struct fc_option fc_quantised_options[];

/* --max-batch, --cache-tokens: as in fc_generator_options */
struct fc_batch_flags {
    size_t max_batch, cache_tokens;
};
extern const struct fc_option fc_batch_options[];

#endif
