/* What a server says about itself: the answer to STATUS, and one line for its operator. Counts
 * only: no client learns another's name or jobs from it. */
#ifndef FC_NET_STATUS_H
#define FC_NET_STATUS_H

#include "base/json.h"
#include "base/memory.h"
#include "net/client.h"

#define FC_STATUS_TEXT 128

struct fc_status {
    char server[FC_STATUS_TEXT]; /* program and version */
    char model[FC_STATUS_TEXT];
    bool draining; /* takes no new work, and will end */
    size_t protocol;
    size_t clients;                          /* that have jobs: keys, or connections */
    size_t jobs, waiting, running, finished; /* items; finished: not yet acknowledged */
    size_t text_bytes, max_text_bytes;       /* prompts and answers held, and the bound */
    size_t state_bytes;                      /* on disk */
    size_t memory_bytes;                     /* resident, of the whole process; 0: not known */
    size_t answers, tokens; /* since the start: items handed to the model, tokens it made */
    size_t busy, refused,
        dropped;              /* refusals for want of room; frames not understood; silent jobs */
    double tokens_per_second; /* over the last seconds */
    double uptime;            /* seconds */
};

/* Appends every field to an object. */
enum fc_code fc_status_write(cJSON *object, const struct fc_status *status, struct fc_error *err);
/* waiting, running and uptime are required; fields that an older server does not send stay 0. Texts
 * are cut, and bytes that are not printable ASCII become '?'. */
enum fc_code fc_status_read(struct fc_status *status, const cJSON *object, struct fc_error *err);
/* Appends one line, without its end. */
void fc_status_line(struct fc_text *out, const struct fc_status *status);

/* Asks a server. Of the options the address, the time-outs and the means of encryption count. */
enum fc_code fc_status_ask(const struct fc_client_options *options, struct fc_status *status,
                           struct fc_error *err);

#endif
