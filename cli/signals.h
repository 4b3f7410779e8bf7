/* SIGINT and SIGTERM ask a command to stop at its next safe point; a second one kills it. */
#ifndef FC_CLI_SIGNALS_H
#define FC_CLI_SIGNALS_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>

void fc_signals_catch(void);
/* Whether one has arrived since fc_signals_catch. Safe from any thread. */
bool fc_signals_stop(void);
/* The flag itself, not 0 once one has arrived: for fc_pipeline_start. */
const atomic_int *fc_signals_flag(void);
/* FC_ERR_CANCELLED with a text if one has arrived. */
enum fc_code fc_signals_check(struct fc_error *err);

/* A signal that asks for something (SIGUSR1: print the state; SIGHUP: read a file again): caught
 * from now on, and each arrival reported once by fc_signals_take. Several before a take are one. */
void fc_signals_catch_request(int number);
bool fc_signals_take(int number);

#endif
