/* Private to net/server.c (socket, loops, life) and net/requests.c (what each message does). */
#ifndef FC_NET_SERVER_PRIVATE_H
#define FC_NET_SERVER_PRIVATE_H

#include "base/memory.h"
#include "net/jobs.h"
#include "net/server.h"

struct fc_server {
    int socket;
    struct fc_server_options options;
    struct fc_server_handler handler;
    char *model;
    struct fc_jobs table;
    size_t turn; /* the job whose item is handed out next */
    double started, cleaned;
    struct fc_server_stats stats;
    struct fc_text out, body; /* reused for each answer */
};

/* Serves one received frame. A client's fault is told to the client; only our own troubles are an
 * error. */
enum fc_code fc_server_serve(struct fc_server *s, const void *data, size_t len,
                             struct fc_route *route, struct fc_error *err);

/* Answers the parked polls that have something to tell or have waited long enough, and lowers
 * *next_deadline to the earliest of the others. */
enum fc_code fc_server_answer_parked(struct fc_server *s, double *next_deadline,
                                     struct fc_error *err);

/* Drops the jobs that aged out; looks at most every quarter of a second. */
void fc_server_drop_aged(struct fc_server *s, double now);

#endif
