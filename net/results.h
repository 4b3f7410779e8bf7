/* Private to net/server.c: finished answers on disk (net/log.h), so that a server that was killed
 * does not generate them again. The log mirrors the table of jobs: an answer is added before its
 * client is told of it, and forgotten when the client has stored it, or its job was dropped. At the
 * start the table is filled from the log.
 *
 * Losing the log costs time, never a wrong answer: the client submits again what it lacks, and an
 * answer is a function of the request. So trouble with the disk does not stop the server: a full
 * disk, or more than `max_bytes`, is said once, new answers stay in memory only, and from time to
 * time the log is written anew from the table. Only at the start is it an error.
 *
 *     payload of a record (integers little-endian)
 *     MODEL   1, text                 first record: what answers; another model's log is refused
 *     ANSWER  2, job 16, index 8, digest of the request 16, owner's key 32, tokens 8,
 *             seconds since 1970 8, finish 1, text
 *     FORGET  3, job 16, index 8
 *     SPENT   4, key 32, day since 1970 8, tokens 8    a client's budget of a day: the last one
 * holds
 *
 * Age is counted from the end of generation by the wall clock, which may jump: an answer from the
 * future is new, and one that seems too old costs its generation. */
#ifndef FC_NET_RESULTS_H
#define FC_NET_RESULTS_H

#include "base/memory.h"
#include "net/admission.h"
#include "net/jobs.h"
#include "net/log.h"

struct fc_results_options {
    const char *folder; /* created with mode 0700 if missing; NULL: nothing is kept on disk */
    const char *model;
    size_t max_bytes;      /* of the log; while it is rewritten there is a second one */
    double max_age;        /* seconds; older answers are not read back */
    size_t max_text_bytes; /* of the table */
    void (*notice)(void *context, const char *text); /* one line for the operator; NULL: none */
    void *context;
};

struct fc_results {
    struct fc_results_options options;
    struct fc_jobs *table;
    struct fc_admission *admission;
    struct fc_log *log; /* NULL: nothing is kept */
    size_t live;        /* bytes of the records of answers that the table holds */
    bool answers_wait;  /* for a sync; what is forgotten can wait longer */
    bool failing, full; /* said already */
    double again;       /* failing: when the log is next tried; forgotten: when it is next synced */
    struct fc_text payload;
};

/* Fills the table and the budgets of today with what the folder holds, and begins the log where
 * there is none. */
enum fc_code fc_results_open(struct fc_results *r, const struct fc_results_options *options,
                             struct fc_jobs *table, struct fc_admission *admission,
                             struct fc_error *err);
void fc_results_close(struct fc_results *r);

/* A finished item: durable after the next fc_results_sync. */
void fc_results_add(struct fc_results *r, struct fc_item *item);
/* An item that is going to be removed from the table. */
void fc_results_forget(struct fc_results *r, struct fc_item *item);
/* Before anything is told to a client. */
void fc_results_sync(struct fc_results *r, double now);
/* On disk. */
size_t fc_results_bytes(const struct fc_results *r);

#endif
