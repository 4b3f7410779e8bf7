/* SIGINT and SIGTERM ask a command to stop at its next safe point; a second one kills it. */
#ifndef FC_CLI_SIGNALS_H
#define FC_CLI_SIGNALS_H

#include "base/error.h"

#include <stdbool.h>

void fc_signals_catch(void);
/* Whether one has arrived since fc_signals_catch. Safe from any thread. */
bool fc_signals_stop(void);
/* FC_ERR_CANCELLED with a text if one has arrived. */
enum fc_code fc_signals_check(struct fc_error *err);

#endif
