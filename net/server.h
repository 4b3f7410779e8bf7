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
 * Fairness: the handler is given at most `window` items at once, taken in turn from all jobs, so a
 * large job does not hold up a small one for longer than the items that are already running.
 *
 * What hostile clients can do: fill the fixed tables and `max_bytes` (others are told to come back;
 * jobs whose client is silent are dropped to make room), and make us read a frame of
 * limits.frame_bytes at a time. What they send never ends up in an error text or a log. */
#ifndef FC_NET_SERVER_H
#define FC_NET_SERVER_H

#include "net/message.h"

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
    /* Takes an item. A failure (a prompt longer than the context, say) finishes the item as
     * "refused" with the error's text as its answer; it is no failure of the server. May call
     * fc_server_complete at once. */
    enum fc_code (*submit)(void *context, const struct fc_ask *ask, struct fc_error *err);
    /* Nobody wants the item any more. A later fc_server_complete for it does nothing. */
    void (*cancel)(void *context, uint64_t id);
};

/* Fields that are 0 take the default. */
struct fc_server_options {
    const char *address; /* fc_address_parse */
    const char *model;   /* what answers: the same text means the same answers (name, dtype, hash
                            of the weights); clients insist that it does not change during a job */
    size_t window;       /* items with the handler at once: 64 */
    struct fc_limits limits; /* 1024 items and 16 MiB a frame, 4096 items a job, 64 KiB a prompt,
                                4096 tokens */
    size_t max_jobs;         /* 256 */
    size_t max_items;        /* of all jobs: 65,536 */
    size_t max_bytes;        /* of all texts held: 256 MiB */
    double max_age;     /* seconds without a word from the client until a job is dropped: 3600 */
    double max_silence; /* the same when its place is needed: 60 */
};

/* Binds. FC_ERR_NETWORK when the address is taken; FC_ERR_UNSUPPORTED when it is not loopback. The
 * handler is copied; its context outlives the server. */
enum fc_code fc_server_open(struct fc_server **s, const struct fc_server_options *options,
                            const struct fc_server_handler *handler, struct fc_error *err);

/* Closes the socket and forgets everything; the handler's items are not cancelled (whoever closes
 * knows). Clients see a dead server, and go on where they were if one comes back within their
 * time-out. NULL is fine. */
void fc_server_close(struct fc_server *s);

/* Receives what has come, hands items to the handler, answers. Waits at most `timeout` seconds for
 * something to come; returns early when something did, or on a signal. FC_ERR_NETWORK or
 * FC_ERR_MEMORY only when the server cannot go on; bad messages are answered, not reported. */
enum fc_code fc_server_poll(struct fc_server *s, double timeout, struct fc_error *err);

/* The answer to an item: text is copied (invalid UTF-8 becomes U+FFFD, cut at FC_MAX_TEXT) and goes
 * to the client with the next fc_server_poll. Unknown ids are ignored. From the server's thread. */
enum fc_code fc_server_complete(struct fc_server *s, uint64_t id, const char *text, size_t n_text,
                                size_t n_tokens, enum fc_answer_finish finish,
                                struct fc_error *err);

struct fc_server_stats {
    size_t jobs, waiting, running, finished; /* now; finished: not yet acknowledged */
    size_t bytes_held;
    uint64_t submitted;  /* items handed to the handler, ever */
    uint64_t duplicates; /* items submitted again: nothing was done */
    uint64_t refused;    /* frames that were not understood */
    uint64_t stale;      /* frames that were overtaken */
    uint64_t dropped;    /* jobs that aged out */
    uint64_t frames_in, frames_out, bytes_in, bytes_out;
    double uptime;
};
void fc_server_stats(const struct fc_server *s, struct fc_server_stats *stats);

#endif
