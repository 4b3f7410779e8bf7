/* metrics.jsonl: one JSON object a line, flushed as it is written, so that a run can be watched and
 * a crash loses nothing but the line it was in. */
#ifndef FC_CLI_METRICS_H
#define FC_CLI_METRICS_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Zero-initialise; a zeroed one takes records and drops them, for runs without an output folder. */
struct fc_metrics {
    FILE *file;
    char *path;
    double start;
};

struct fc_metric {
    const char *name;
    double value; /* NaN and infinity become null */
};

/* `append` continues the file of a resumed run, after cutting off a half-written last line;
 * otherwise the file begins empty. */
enum fc_code fc_metrics_open(struct fc_metrics *m, const char *path, bool append,
                             struct fc_error *err);
enum fc_code fc_metrics_close(struct fc_metrics *m, struct fc_error *err);

/* {"kind": kind, "seconds": since open, NAME: value, ...}. Any thread may call it. */
enum fc_code fc_metrics_log(struct fc_metrics *m, const char *kind, const struct fc_metric *values,
                            size_t n, struct fc_error *err);
/* The same for any object; `record` is taken, also on failure. */
enum fc_code fc_metrics_record(struct fc_metrics *m, const char *kind, cJSON *record,
                               struct fc_error *err);

/* {KEY: text, NAME: value, ...}, as of the summary of a command; key NULL: values only. NULL with
 * FC_ERR_MEMORY. Owner: the caller, cJSON_Delete. */
cJSON *fc_metrics_object(const char *key, const char *text, const struct fc_metric *values,
                         size_t n, struct fc_error *err);

/* Prints one value on one line of `out` and flushes: the summary of a command under --json. */
enum fc_code fc_print_json_line(FILE *out, const cJSON *value, struct fc_error *err);

#endif
