/* Typed, checked access to cJSON trees. Every reader says which field of which place was wrong. */
#ifndef FC_BASE_JSON_H
#define FC_BASE_JSON_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses len bytes as one JSON value (trailing blanks allowed, nothing else). NULL with
 * FC_ERR_INPUT naming `where` on malformed text. Owner: the caller, cJSON_Delete. */
cJSON *fc_json_parse(const char *text, size_t len, const char *where, struct fc_error *err);

/* fc_file_read (at most max_len bytes) and fc_json_parse. */
cJSON *fc_json_read_file(const char *path, size_t max_len, struct fc_error *err);

/* Field readers. An absent or null field leaves *out as it is (put the default there first) unless
 * `required`. A field of the wrong type or range is FC_ERR_INPUT: "WHERE: field "NAME": expected
 * ..., found ...". Strings stay owned by the tree. */
enum fc_code fc_json_size(const cJSON *object, const char *name, bool required, size_t *out,
                          const char *where, struct fc_error *err);
enum fc_code fc_json_double(const cJSON *object, const char *name, bool required, double *out,
                            const char *where, struct fc_error *err);
enum fc_code fc_json_bool(const cJSON *object, const char *name, bool required, bool *out,
                          const char *where, struct fc_error *err);
enum fc_code fc_json_string(const cJSON *object, const char *name, bool required, const char **out,
                            const char *where, struct fc_error *err);

/* Prints a tree on one line; owned by the caller (free). NULL with FC_ERR_MEMORY. */
char *fc_json_print(const cJSON *value, struct fc_error *err);

#endif
