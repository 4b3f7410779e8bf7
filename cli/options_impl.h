/* Shared by the files of cli/options.h: parsing, values, job file and help. Private to them. */
#ifndef FC_CLI_OPTIONS_IMPL_H
#define FC_CLI_OPTIONS_IMPL_H

#include "cli/options.h"

/* An option of the command and the address of its field. */
struct fc_bound_option {
    const struct fc_option *option;
    void *field;
    enum fc_option_source source;
};

/* The flags of every command; their fields are in struct fc_options itself. */
extern const struct fc_option_group fc_builtin_group;

struct fc_bound_option *fc_options_find(const struct fc_options *o, const char *name, size_t len);

/* How help and errors name the value; from the type where the table says nothing. */
const char *fc_option_metavar(const struct fc_option *option);

/* Sets a field from text (NULL for a flag: true). Strings are kept by pointer, and a repeated
 * option grows by one. `where` names the place in errors: "--lr", or "job.json: lr". */
enum fc_code fc_option_set(const struct fc_bound_option *item, const char *text, const char *where,
                           struct fc_error *err);
/* The same for a number that is one already. */
enum fc_code fc_option_set_number(const struct fc_bound_option *item, double value,
                                  const char *where, struct fc_error *err);
/* Empties a repeated option. */
void fc_option_clear(const struct fc_bound_option *item);

/* FC_ERR_USAGE for an unknown name, with the nearest known one. `dashes` is "--" or "". */
enum fc_code fc_options_unknown(const struct fc_options *o, const char *where, const char *dashes,
                                const char *name, size_t len, struct fc_error *err);

/* Reads o->config into every option whose value no flag has set. */
enum fc_code fc_options_read_file(struct fc_options *o, struct fc_error *err);

#endif
