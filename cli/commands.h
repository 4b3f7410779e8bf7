/* The commands of `fedcot`, in the order of its help: name, and what it does in one line. A new
 * command is one line here and a file cli/cmd_NAME.c with its function. */
#ifndef FC_CLI_COMMANDS_H
#define FC_CLI_COMMANDS_H

#include "base/error.h"

/* X(NAME, SUMMARY) */
#define FC_COMMANDS(X)

/* argv[0] is the command's name. Results go to stdout, progress and messages to stderr; an error is
 * returned, and main prints it. The code returned is the exit status. */
#define FC_DECLARE_COMMAND(name, summary)                                                          \
    enum fc_code fc_cmd_##name(int argc, char **argv, struct fc_error *err);
FC_COMMANDS(FC_DECLARE_COMMAND)

#endif
