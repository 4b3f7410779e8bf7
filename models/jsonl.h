/* JSON lines from files that nobody vouches for: data sets, prompts, rationales. */
#ifndef FC_MODELS_JSONL_H
#define FC_MODELS_JSONL_H

#include "base/error.h"
#include "base/file.h"

#include <cjson/cJSON.h>
#include <stddef.h>

#define FC_JSONL_MAX_FILE ((size_t)1 << 30)
#define FC_JSONL_MAX_LINE ((size_t)4 << 20)

struct fc_jsonl {
    struct fc_map map;
    const char *path; /* the caller's, outlives the reader */
    size_t at;
    size_t line;     /* number of the record's line, from 1 */
    char where[320]; /* "PATH: line N", for errors about the record */
};

/* FC_ERR_INPUT for a file of more than 1 GiB. */
enum fc_code fc_jsonl_open(struct fc_jsonl *f, const char *path, struct fc_error *err);

/* The next object; NULL at the end of the file. Blank lines are passed over, and a byte order mark
 * at the beginning. FC_ERR_INPUT for a line that is longer than 4 MiB, is not UTF-8, is not exactly
 * one JSON object, or holds a NUL (raw or as \u0000: a C string would end there, and two different
 * ids would look the same). Errors say where, never what. Owner: the caller, cJSON_Delete. */
enum fc_code fc_jsonl_next(struct fc_jsonl *f, cJSON **record, struct fc_error *err);

void fc_jsonl_close(struct fc_jsonl *f);

#endif
