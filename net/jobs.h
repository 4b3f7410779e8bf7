/* Private to net/server.c: the server's memory of jobs and their items, and the one place where an
 * item changes its state. No sockets, no clock, no protocol. Two fixed tables, sized when the
 * server starts: nothing that a client sends makes them grow. */
#ifndef FC_NET_JOBS_H
#define FC_NET_JOBS_H

#include "net/client_identity.h"
#include "net/message.h"

#include <stdalign.h>

/* A circular doubly linked list with a head that is no element. */
struct fc_link {
    struct fc_link *next, *previous;
};
#define FC_LINKED(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

enum fc_item_state {
    FC_ITEM_FREE,
    FC_ITEM_WAITING, /* holds its prompt; in job->waiting */
    FC_ITEM_RUNNING, /* with the handler */
    FC_ITEM_DONE,    /* holds its answer; in job->ready if the present client asked for it */
    FC_ITEM_STATES
};

/* Sampling of the items of one SUBMIT: shared, counted. */
struct fc_submission {
    size_t references;
    cJSON *tree; /* owns the stop texts */
    struct fc_wire_sampling sampling;
};

#define FC_DIGEST_SIZE 16

struct fc_item {
    struct fc_link in_job;   /* job->items; the free list */
    struct fc_link in_queue; /* job->waiting or job->ready; a list of its own otherwise */
    struct fc_item *chain;   /* next in the bucket of (job, index) */
    struct fc_job *job;
    enum fc_item_state state;
    bool claimed; /* submitted by the client that runs the job now */
    uint64_t id;  /* the handler's name for it: never used twice */
    uint64_t index, seed, delivery;
    unsigned char digest[FC_DIGEST_SIZE]; /* of what was asked */
    struct fc_submission *batch;
    char *text; /* the prompt, later the answer */
    size_t n_text, n_tokens;
    enum fc_answer_finish finish;
    size_t cost, reserved; /* tokens: net/admission.h */
    int64_t day;           /* of whose budget they were reserved */
    int64_t when;          /* finished, seconds since 1970 */
    size_t kept;           /* bytes of its record on disk, 0: only in memory (net/results.h) */
};

/* Where an answer goes: the routing header of the request, as nanomsg gave it, and its session. */
struct fc_route {
    size_t len;
    uint64_t session; /* 0: in clear */
    alignas(16) unsigned char control[128];
};

struct fc_job {
    bool used;
    bool orphan; /* nobody has said hello to this server for it: read from disk, or an answer of it
                    was lost; requests other than hello find an unknown job */
    unsigned char id[FC_JOB_ID_SIZE];
    struct fc_client_identity owner; /* as of its last hello */
    struct fc_party *party;          /* whose share it takes (net/admission.h); NULL: an orphan's */
    double service;                  /* tokens given to it */
    uint64_t client, previous_client, last_sequence;
    double contact; /* when its client was last heard */
    struct fc_link items, waiting, ready;
    size_t n_items, n_waiting, bytes; /* bytes: of its texts */
    uint64_t deliveries;              /* numbers given so far */
    struct {                          /* a poll that waits for something to be finished */
        bool parked;
        double deadline;
        uint64_t sequence, after;
        struct fc_route route;
    } poll;
};

struct fc_jobs {
    struct fc_job *jobs;
    size_t max_jobs, n_jobs;
    struct fc_item *items;
    size_t max_items;
    struct fc_link free_items;
    struct fc_item **buckets;
    size_t n_buckets; /* a power of two */
    size_t count[FC_ITEM_STATES];
    size_t bytes; /* of texts held */
};

enum fc_code fc_jobs_init(struct fc_jobs *t, size_t max_jobs, size_t max_items,
                          struct fc_error *err);
void fc_jobs_free(struct fc_jobs *t);

/* NULL: not there; for add: no room. */
struct fc_job *fc_job_find(struct fc_jobs *t, const unsigned char id[FC_JOB_ID_SIZE]);
struct fc_job *fc_job_add(struct fc_jobs *t, const unsigned char id[FC_JOB_ID_SIZE]);
void fc_job_remove(struct fc_jobs *t, struct fc_job *job); /* and all its items */
/* Another client runs the job now: it must ask for each item before it gets it. */
void fc_job_take_over(struct fc_job *job, uint64_t client);

struct fc_item *fc_item_find(struct fc_jobs *t, const struct fc_job *job, uint64_t index);
struct fc_item *fc_item_by_id(struct fc_jobs *t, uint64_t id);
/* A waiting, claimed item that owns a copy of the prompt and a reference to the batch (which may be
 * NULL for one that is finished next). NULL with *err on lack of memory or room. */
struct fc_item *fc_item_add(struct fc_jobs *t, struct fc_job *job, uint64_t index,
                            const char *prompt, size_t n_prompt, struct fc_submission *batch,
                            struct fc_error *err);
/* The present client has asked for a known item: it may be delivered. */
void fc_item_claim(struct fc_item *item);
/* Waiting -> running; returns the prompt, which is the caller's now. */
char *fc_item_run(struct fc_jobs *t, struct fc_item *item);
/* Running -> waiting, first in its job's queue; takes the prompt back. */
void fc_item_unrun(struct fc_jobs *t, struct fc_item *item, char *prompt, size_t n_prompt);
/* Waiting or running -> done. Takes the text. */
void fc_item_finish(struct fc_jobs *t, struct fc_item *item, char *text, size_t n_text,
                    size_t n_tokens, enum fc_answer_finish finish);
void fc_item_remove(struct fc_jobs *t, struct fc_item *item);

void fc_submission_release(struct fc_submission *batch); /* NULL is fine */

#endif
