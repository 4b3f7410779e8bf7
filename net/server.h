/* The server's end of the protocol (net/message.h): receives prompts, hands them to whoever
 * generates, keeps the answers until their client has stored them.
 *
 * One thread, no locks. The thread that owns the generator alternates:
 *
 *     while (!stop) {
 *         fc_server_poll(server, busy ? 0 : 0.1, &err);            receive, hand out, answer
 *         fc_generator_step(generator, on_result, server, &busy, &err);   calls fc_server_complete
 *     }
 *
 * nanomsg's own thread keeps receiving while a step runs, and a client is content with a sign of
 * life every few seconds (it asks again after a second or so and gives up after its --timeout, a
 * minute), so a step may last seconds: up to a third of the time-out. In exchange there is no queue
 * between threads, no lock and no second copy of the state.
 *
 * Fairness: the handler is given at most `window` items at once, of the client that has been given
 * least, so a large job does not hold up a small one for longer than the items that are already
 * running, and many jobs of one client get no more than one. Room is shared alike, and clients with
 * keys have budgets: net/admission.h. Whoever gets no room is told when to ask again ("busy").
 *
 * What hostile clients can do: fill their share of the fixed tables and of `max_bytes` (jobs whose
 * client is silent are dropped to make room), and make us read a frame of limits.frame_bytes at a
 * time. nanomsg holds at most one message of each connection in each direction (frame_bytes and 1
 * MiB of header coming in, 2 MiB going out: memory is bounded by that times the connections that
 * there are descriptors for), reads from the connections in turn, and drops the answer that a slow
 * reader has no room for (it will ask again). What clients send never ends up in an error text or a
 * log.
 *
 * Want of memory is no end: the item or the request that it hits is put off. */
#ifndef FC_NET_SERVER_H
#define FC_NET_SERVER_H

#include "net/gate.h"
#include "net/message.h"
#include "net/status.h"

struct fc_server;

/* One item for the handler. Everything is valid during the call only. */
struct fc_ask {
    uint64_t id;      /* for fc_server_complete; never used twice by one server */
    const char *text; /* valid UTF-8 without NUL, and NUL-terminated */
    size_t n_text;
    uint64_t seed;
    const struct fc_wire_sampling *sampling;
};

struct fc_server_handler {
    void *context;
    /* Takes an item. FC_ERR_MEMORY: it is given again later. Another failure (a prompt longer than
     * the context, say) finishes the item as "refused" with the error's text as its answer; it is
     * no failure of the server. May call fc_server_complete at once. */
    enum fc_code (*submit)(void *context, const struct fc_ask *ask, struct fc_error *err);
    /* Nobody wants the item any more. A later fc_server_complete for it does nothing. */
    void (*cancel)(void *context, uint64_t id);
};

/* Fields that are 0 take the default. */
struct fc_server_options {
    const char *address;         /* fc_address_parse */
    struct fc_gate_options gate; /* key NULL: in clear, on loopback. Else every client needs a
                                    session, and its job ids are names of its own: nobody reaches
                                    the jobs of another key, whatever he knows. Its notices
                                    go to `notice` below */
    const char *model; /* what answers: the same text means the same answers (name, dtype, hash
                          of the weights); clients insist that it does not change during a job */
    const char *name;  /* program and version, told to clients: "fedcot" */
    size_t window;     /* items with the handler at once: 64 */
    struct fc_limits limits; /* 1024 items and 4 MiB a frame, 4096 items a job, 64 KiB a prompt,
                                4096 tokens */
    size_t max_jobs;         /* 256 */
    size_t max_items;        /* of all jobs: 65,536 */
    size_t max_bytes;        /* of all texts held: 256 MiB */
    double max_age;     /* seconds without a word from the client until a job is dropped: 3600 */
    double max_silence; /* the same when its place is needed: 60 */
    /* Finished answers on disk until they are acknowledged, and read back at the start
     * (net/results.h). NULL: in memory only. The folder belongs to one server at a time, and to one
     * `model`: FC_ERR_INPUT if it holds the answers of another. */
    const char *state;
    size_t state_bytes;                              /* of the file in it: 1 GiB */
    void (*notice)(void *context, const char *text); /* a line for the operator; NULL: none */
    void *notice_context;
};

/* Binds. FC_ERR_NETWORK when the address is taken; FC_ERR_UNSUPPORTED when it is not loopback and
 * there are no keys; FC_ERR_INPUT when the list of clients is not one. The handler is copied; its
 * context outlives the server. */
enum fc_code fc_server_open(struct fc_server **s, const struct fc_server_options *options,
                            const struct fc_server_handler *handler, struct fc_error *err);

/* Closes the socket and forgets everything; the handler's items are not cancelled (whoever closes
 * knows). Clients see a dead server, and go on where they were if one comes back within their
 * time-out. NULL is fine. */
void fc_server_close(struct fc_server *s);

/* From now on no new job and no new item is taken and nothing is handed out; what runs may finish,
 * and answers are delivered. Drained when nothing runs or the time is over. */
void fc_server_drain(struct fc_server *s, double seconds);
bool fc_server_is_drained(const struct fc_server *s);

/* Receives what has come, hands items to the handler, answers. Waits at most `timeout` seconds for
 * something to come; returns early when something did, or on a signal. FC_ERR_NETWORK or
 * FC_ERR_MEMORY only when the server cannot go on; bad messages are answered, not reported. */
enum fc_code fc_server_poll(struct fc_server *s, double timeout, struct fc_error *err);

/* The answer to an item: text is copied (invalid UTF-8 becomes U+FFFD, cut at FC_MAX_TEXT) and goes
 * to the client with the next fc_server_poll. Unknown ids are ignored. From the server's thread. */
enum fc_code fc_server_complete(struct fc_server *s, uint64_t id, const char *text, size_t n_text,
                                size_t n_tokens, enum fc_answer_finish finish,
                                struct fc_error *err);

/* Reads the list of clients again: clients that are no longer in it lose their sessions and their
 * jobs. On failure nothing changes. Without keys it does nothing. */
enum fc_code fc_server_reload(struct fc_server *s, struct fc_error *err);

struct fc_server_stats {
    size_t jobs, waiting, running, finished; /* now; finished: not yet acknowledged */
    size_t bytes_held, state_bytes;
    size_t clients;      /* with jobs: keys, or connections */
    uint64_t submitted;  /* items handed to the handler, ever */
    uint64_t duplicates; /* items submitted again: nothing was done */
    uint64_t refused;    /* frames that were not understood */
    uint64_t stale;      /* frames that were overtaken */
    uint64_t dropped;    /* jobs that aged out, or made room */
    uint64_t busy;       /* requests refused, or accepted in part, for want of room or budget */
    uint64_t tokens;     /* of all answers */
    uint64_t frames_in, frames_out, bytes_in, bytes_out;
    struct fc_gate_stats gate;
    double tokens_per_second, uptime;
};
void fc_server_stats(const struct fc_server *s, struct fc_server_stats *stats);
/* The same as clients are told it. */
void fc_server_status(const struct fc_server *s, struct fc_status *status);

#endif
