/* Private to net/server.c (socket, loops, life), net/requests.c (one frame) and net/serve_KIND.c
 * (what each message does). */
#ifndef FC_NET_SERVER_PRIVATE_H
#define FC_NET_SERVER_PRIVATE_H

#include "base/memory.h"
#include "net/admission.h"
#include "net/frame.h"
#include "net/jobs.h"
#include "net/results.h"
#include "net/server.h"

struct fc_server {
    int socket;
    struct fc_server_options options;
    struct fc_server_handler handler;
    char *model;
    struct fc_jobs table;
    struct fc_admission admission;
    struct fc_results results;
    double started, cleaned;
    double drained;   /* draining: until when; 0: not */
    double hold;      /* the handler had no memory: nothing is handed out before this time */
    double item_rate; /* items finished a second, lately */
    struct {          /* the present stretch of a few seconds, and the rate of the last one */
        double began;
        uint64_t items, tokens;
        double tokens_per_second;
    } window;
    struct fc_server_stats stats;
    struct fc_text out, body; /* reused for each answer */
    struct fc_gate *gate;     /* NULL: in clear */
    struct fc_text sealed;
};

/* Serves one received frame. A client's fault is told to the client; only our own troubles are an
 * error. */
enum fc_code fc_server_serve(struct fc_server *s, const void *data, size_t len,
                             const struct fc_client_identity *identity, struct fc_route *route,
                             struct fc_error *err);

/* Tells a client without keys, in clear, that it needs some. Nothing of its frame is looked at. */
enum fc_code fc_server_refuse_clear(struct fc_server *s, struct fc_route *route);

/* Sends a frame, sealed if the route has a session. To a client that is gone or does not read,
 * nanomsg drops it: the client will ask again. */
enum fc_code fc_server_send(struct fc_server *s, const struct fc_text *frame,
                            struct fc_route *route, struct fc_error *err);

/* Drops the jobs of clients that are no longer in the list. */
void fc_server_drop_revoked(struct fc_server *s);

/* Hands items to the handler as long as its window has room. */
enum fc_code fc_server_hand_out(struct fc_server *s, struct fc_error *err);

/* Answers the parked polls that have something to tell or have waited long enough, and lowers
 * *next_deadline to the earliest of the others. */
enum fc_code fc_server_answer_parked(struct fc_server *s, double *next_deadline,
                                     struct fc_error *err);

/* Drops the jobs that aged out; looks at most every quarter of a second. */
void fc_server_drop_aged(struct fc_server *s, double now);

/* A request being served. */
struct fc_server_request {
    struct fc_server *server;
    struct fc_frame frame;
    struct fc_route *route;
    const struct fc_client_identity *identity; /* who asks */
    unsigned char job_id[FC_JOB_ID_SIZE];
    uint64_t client;
    struct fc_job *job; /* NULL: not known */
    double retry_after; /* seconds, when something has no room now */
};

/* One file each. FC_ERR_INPUT and FC_ERR_UNSUPPORTED are the client's fault: the caller tells it.
 */
enum fc_code fc_serve_hello(struct fc_server_request *r, struct fc_error *err);
enum fc_code fc_serve_submit(struct fc_server_request *r, struct fc_error *err);
enum fc_code fc_serve_poll(struct fc_server_request *r, struct fc_error *err);

/* Encodes and sends (fc_server_send) a frame whose body is s->body, which is empty then. */
enum fc_code fc_server_answer(struct fc_server *s, struct fc_route *route, int kind,
                              uint64_t sequence, const cJSON *header, struct fc_error *err);
/* The same as the answer to a request. */
enum fc_code fc_server_answer_to(struct fc_server_request *r, const cJSON *header,
                                 struct fc_error *err);
enum fc_code fc_server_refuse(struct fc_server *s, struct fc_server_request *r,
                              enum fc_refusal refusal, const char *text);
/* Busy: come back after so many seconds. */
enum fc_code fc_server_refuse_busy(struct fc_server_request *r, double retry_after,
                                   const char *text);

/* Drops the job that has been silent longest, if it has been so for max_silence. */
bool fc_server_make_room(struct fc_server *s);
/* Seconds until there may be a place for another job, for another item, or another server. */
double fc_server_job_wait(const struct fc_server *s);
double fc_server_drain_wait(const struct fc_server *s);
double fc_server_item_wait(const struct fc_server *s);
/* An answer of this job was lost for want of memory: its client must submit again. */
void fc_server_lose(struct fc_server *s, struct fc_item *item);

#endif
