/* Texts by example, kept on disk as they come: a JSON lines file that is only appended to, each
 * line on disk before fc_store_put returns. A job that was killed opens it again and goes on; a
 * last line that was torn is cut off. */
#ifndef FC_CLI_STORE_H
#define FC_CLI_STORE_H

#include "models/dataset.h"

#include <cjson/cJSON.h>
#include <stdio.h>

struct fc_store {
    FILE *file;
    char *path;
    const char *field;             /* "text" or "prompt": where the text lies in a line */
    const struct fc_dataset *data; /* borrowed: ids, and their number */
    char **texts;                  /* by index of the example; NULL: none yet */
    size_t n;                      /* texts held */
};

/* Opens or creates PATH and reads what it holds. A line whose id is not of the data set, or comes
 * twice, is FC_ERR_INPUT: the file belongs to another job. FC_ERR_IO if another process has it
 * open: two jobs in one folder would mix their lines. */
enum fc_code fc_store_open(struct fc_store *s, const char *path, const char *field,
                           const struct fc_dataset *data, struct fc_error *err);
void fc_store_close(struct fc_store *s); /* a zeroed struct is fine */

/* Appends {"id", FIELD: text, ... the fields of `extra`} for an example that has none yet; `extra`
 * (may be NULL) is taken. The text is copied. */
enum fc_code fc_store_put(struct fc_store *s, size_t index, const char *text, cJSON *extra,
                          struct fc_error *err);

#endif
