/* The commands of `fedcot`, in the order of its help: name, and what it does in one line. A new
 * command is one line here and a file cli/cmd_NAME.c with its function. */
#ifndef FC_CLI_COMMANDS_H
#define FC_CLI_COMMANDS_H

#include "base/error.h"

/* X(NAME, SUMMARY) */
#define FC_COMMANDS(X)                                                                             \
    X(serve, "Write rationales for the perturbed prompts of clients")                              \
    X(status, "Print what a server is doing")                                                      \
    X(distill, "Run the whole job of a client: perturb, ask, decode, train")                       \
    X(perturb, "Replace the words of private prompts, and show what it costs")                     \
    X(generate, "Write the model's answer to every prompt of a file")                              \
    X(train, "Train a model on labels, and on rationales from a file")                             \
    X(eval, "Measure a model's accuracy on a data set")                                            \
    X(keygen, "Make a key for encrypted sessions between server and client")                       \
    X(info, "Print what a model file is")                                                          \
    X(ledger, "Show what a client has spent, and verify its ledger")

/* argv[0] is the command's name. Results go to stdout, progress and messages to stderr; an error is
 * returned, and main prints it. The code returned is the exit status. */
#define FC_DECLARE_COMMAND(name, summary)                                                          \
    enum fc_code fc_cmd_##name(int argc, char **argv, struct fc_error *err);
FC_COMMANDS(FC_DECLARE_COMMAND)

#endif
