/* JSON lines: one object a line, read one at a time, so that a file larger than memory can be
 * walked. Errors name the file and line, never the content, which may be private. */
#ifndef FC_BASE_JSONL_H
#define FC_BASE_JSONL_H

#include "base/json.h"

#include <stdio.h>

#define FC_JSONL_MAX_LINE (4u << 20)

struct fc_jsonl {
    FILE *stream;
    char *path, *line;
    char where[280]; /* "PATH line N" of the object that next gave last: for errors about it */
    size_t number;
};

enum fc_code fc_jsonl_open(struct fc_jsonl *r, const char *path, struct fc_error *err);
void fc_jsonl_close(struct fc_jsonl *r); /* a zeroed struct is fine */

/* The next object; blank lines are passed over. NULL without an error at the end of the file, NULL
 * with FC_ERR_INPUT for a line that is too long (FC_JSONL_MAX_LINE), holds a NUL byte or is not one
 * JSON object. Owner: the caller, cJSON_Delete. */
cJSON *fc_jsonl_next(struct fc_jsonl *r, struct fc_error *err);

#endif
