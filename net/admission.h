/* Private to net/server.c: who shares the server, and who may have how much of it.
 *
 * A party is what shares are counted for: the key of a client where the server has a list of keys
 * (however many connections and jobs it opens), else a connection. (Without keys nobody can tell
 * two programs of one attacker from two clients: such a server listens on loopback only.)
 *
 * Room. A party may hold at most as many items, bytes of text and jobs as are still free: one alone
 * gets half of the server, n greedy ones 1/(n+1) each, and whoever comes next finds room at once
 * (dynamic queue thresholds: Choudhury and Hahne, IEEE/ACM Trans. Networking 6(2), 1998, alpha 1).
 *
 * Turns. The next item handed out is the waiting one of the party that has been given least,
 * counted in tokens (prompt and answer) since it last had nothing to do; within the party, of its
 * job that has been given least (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
 * What an answer may cost is charged when it is handed out and corrected when it is finished.
 *
 * Budgets of a key: prompts a second (a bucket that holds ten seconds' worth), and tokens a day of
 * UTC. An accepted item reserves its max_tokens; what it did not generate is given back. The wall
 * clock is used for days only; one that goes back gives nothing. What was spent of a day outlives
 * the server where it keeps its state on disk (net/results.h). */
#ifndef FC_NET_ADMISSION_H
#define FC_NET_ADMISSION_H

#include "net/jobs.h"

#define FC_RATE_BURST 10.0 /* seconds */

struct fc_party {
    bool used, named;
    unsigned char key[FC_KEY_SIZE]; /* named: the client's; else the connection's number */
    double service;                 /* tokens given, on the clock of fc_admission.clock */
    double job_clock;               /* the same for its jobs */
    double prompts, refilled;       /* the bucket, and when it was last filled */
    int64_t day;                    /* since 1970 */
    uint64_t tokens, reserved;      /* of the budget of that day: spent or reserved; reserved */
    bool unsaved;                   /* spent more than the disk says (net/results.h) */
    uint64_t given;                 /* items handed out, ever */
};

struct fc_admission {
    struct fc_party *parties;
    size_t n; /* places */
    double clock;
    size_t max_bytes; /* of all texts */
};

enum fc_code fc_admission_init(struct fc_admission *a, size_t max_jobs, size_t max_bytes,
                               struct fc_error *err);
void fc_admission_free(struct fc_admission *a);

/* The party of a request, made if needed; NULL when all places are taken by parties with jobs or
 * with budgets of today. */
struct fc_party *fc_party_of(struct fc_admission *a, const struct fc_jobs *t,
                             const struct fc_client_identity *who, const struct fc_route *route);

/* A budget from the disk: the party of this key has spent so many tokens of that day. false: no
 * place for it. */
bool fc_party_restore(struct fc_admission *a, const struct fc_jobs *t,
                      const unsigned char key[FC_KEY_SIZE], int64_t day, uint64_t spent);

/* Whether it may begin another job. */
bool fc_party_has_job_room(const struct fc_jobs *t, const struct fc_party *p);
/* Whether it may add an item of so many bytes to the table. */
bool fc_party_has_item_room(const struct fc_admission *a, const struct fc_jobs *t,
                            const struct fc_party *p, size_t bytes);

/* Takes a prompt from the rate and max_tokens from the day's budget. false: *retry is the time in
 * seconds after which it is worth asking again, and nothing was taken. `wall`: seconds since 1970.
 */
bool fc_party_spend(struct fc_party *p, const struct fc_client_identity *who, size_t max_tokens,
                    double now, int64_t wall, double *retry);

/* The waiting item whose turn it is; NULL if none waits. */
struct fc_item *fc_admission_next(struct fc_admission *a, struct fc_jobs *t);
/* It is going to be added to what waits for its party. Before fc_item_add. */
void fc_admission_arrive(struct fc_admission *a, const struct fc_jobs *t, struct fc_job *job);
/* It is handed out: before fc_item_run. */
void fc_admission_give(struct fc_item *item);
/* It is finished with so many tokens, or will never be: before fc_item_finish or fc_item_remove.
 * One that is given up while it runs has spent what it reserved. */
void fc_admission_settle(struct fc_item *item, bool finished, size_t n_tokens);

/* Parties with jobs. */
size_t fc_admission_parties(const struct fc_jobs *t);

#endif
