/* What a process that holds private text or keys gives away when it fails, and to whom. */
#ifndef FC_CLI_GUARD_H
#define FC_CLI_GUARD_H

#include "base/error.h"

/* For the rest of this process: no core file (neither a file nor a pipe to a crash reporter),
 * memory and environment that no other process of the same user may read or attach to, and files
 * that only their owner can read. Call it after the last exec, which would undo the second. A
 * debugger needs root then. Builds with the address sanitizer stay readable: its leak check
 * attaches to itself. */
enum fc_code fc_guard(struct fc_error *err);

#endif
