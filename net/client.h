/* The client's end of the protocol (net/message.h): sends perturbed prompts, receives rationales as
 * they finish, survives lost messages and servers that restart.
 *
 * What may leave. A prompt enters the client through fc_client_submit only, and that takes a
 * `const struct fc_perturbed *`: an incomplete type here, whose only maker is privacy/ after the
 * ledger was charged. A raw char * is refused by the compiler. net/ does not include
 * privacy/: whoever composes both (cli/) puts the two accessors of privacy/perturbed.h into the
 * options. One of them is asked whether the object was charged at all; a preview stays here.
 * Bytes leave through one function, transmit in exchange.c, which only sees encoded frames. A
 * resend sends the stored bytes, so it discloses nothing new and costs no budget.
 *
 * One thread at a time owns a client. It works only inside calls; none of them waits longer than
 * its own time-out plus `timeout`, and all look at `cancelled` every 50 ms.
 *
 *     fc_client_open                                  connect, hello
 *     fc_client_submit ... fc_client_submit           remembers, sends nothing yet
 *     while (fc_client_next(...) and found)           sends, receives
 *         store the answer; fc_client_ack             the server may forget it
 *     fc_client_finish                                the server may forget the job
 *     fc_client_close
 *
 * Closing without finish leaves the job on the server: start again with the same job id, submit
 * what is not stored, and receive what was finished meanwhile. */
#ifndef FC_NET_CLIENT_H
#define FC_NET_CLIENT_H

#include "net/keys.h"
#include "net/message.h"
#include "net/tunnel.h"

struct fc_client;
struct fc_perturbed; /* privacy's; see above */

/* Memory is proportional to the largest index. */
#define FC_CLIENT_MAX_INDEX (((size_t)1 << 24) - 1)

struct fc_client_options {
    const char *address;               /* fc_address_parse */
    unsigned char job[FC_JOB_ID_SIZE]; /* fc_job_id_random once per job; kept for a restart */
    struct fc_wire_sampling sampling;  /* of every item; copied */
    double timeout; /* seconds without any answer after which the server is dead; 0: 60 */
    double resend;  /* seconds until a request is sent again, doubling up to 16 times as much, each
                       +-25 % at random; 0: 1 */
    /* Keys for an encrypted session: this client's pair and the server's public key, both or
     * neither; copied. Without them everything is in clear, and loopback only. */
    const struct fc_key_pair *key;
    const unsigned char *server_key; /* [FC_KEY_SIZE] */
    enum fc_pad pad;                 /* of what is sent */
    /* fc_perturbed_text and fc_perturbed_may_leave of privacy/perturbed.h. */
    const char *(*text)(const struct fc_perturbed *prompt, size_t *n_text);
    bool (*may_leave)(const struct fc_perturbed *prompt);
    bool (*cancelled)(void *context); /* NULL: never */
    void *cancel_context;
    /* The server has no room, or this client no budget left: it is asked again in about so many
     * seconds. Called from inside the calls; NULL: nobody is told. */
    void (*busy)(void *context, double seconds);
    void *busy_context;
};

/* 16 bytes of libsodium's randomness. The id is what protects a job from other users of a server.
 */
enum fc_code fc_job_id_random(unsigned char job[FC_JOB_ID_SIZE], struct fc_error *err);

/* Connects and says hello. FC_ERR_NETWORK after the time-out; FC_ERR_UNSUPPORTED for an address
 * that is not loopback (without keys) or a server of another protocol; FC_ERR_INPUT (from every
 * call) when the server does not hold the pinned key, or does not know ours; FC_ERR_USAGE when the
 * server's limits do not allow the sampling, and (from every call) when another client took the job
 * over. */
enum fc_code fc_client_open(struct fc_client **c, const struct fc_client_options *options,
                            struct fc_error *err);
void fc_client_close(struct fc_client *c); /* NULL is fine */

/* Of the last hello; valid until close. */
const char *fc_client_model(const struct fc_client *c);
const struct fc_limits *fc_client_limits(const struct fc_client *c);

/* Queues an item; its text is copied, nothing is sent. Submitting an index again before its answer
 * was received is FC_ERR_USAGE, as is a prompt that is longer than the server takes;
 * FC_ERR_BUDGET for one that may not leave. */
enum fc_code fc_client_submit(struct fc_client *c, size_t index, uint64_t seed,
                              const struct fc_perturbed *prompt, struct fc_error *err);

struct fc_answer {
    size_t index;
    const char
        *text; /* valid UTF-8, NUL-terminated only if it is the last of its chunk: use n_text */
    size_t n_text, n_tokens;
    enum fc_answer_finish finish;
};

/* The next finished item. Sends what is queued, asks, and waits at most `timeout` seconds for an
 * answer. *found false: nothing came, or nothing is outstanding (fc_client_outstanding is 0). The
 * text is valid until the next call. Each index is given once.
 *
 * FC_ERR_NETWORK when the server is dead; FC_ERR_INPUT when it refuses a request or does not speak
 * the protocol, or answers with another model than before. */
enum fc_code fc_client_next(struct fc_client *c, double timeout, struct fc_answer *answer,
                            bool *found, struct fc_error *err);

/* The answer is stored (or never needed again): the server is told with the next request. Items
 * that are not acknowledged count against limits.job_items. */
enum fc_code fc_client_ack(struct fc_client *c, size_t index, struct fc_error *err);

/* Gives an item up: no answer will come, the server stops working on it. */
enum fc_code fc_client_cancel(struct fc_client *c, size_t index, struct fc_error *err);

/* The job is over: the server forgets all of it. The answers that were given are acknowledged. */
enum fc_code fc_client_finish(struct fc_client *c, struct fc_error *err);

/* Items submitted whose answers fc_client_next has not given yet. */
size_t fc_client_outstanding(const struct fc_client *c);

struct fc_client_stats {
    uint64_t requests; /* answered */
    uint64_t resends;
    uint64_t hellos;     /* above 1: the server was restarted or had dropped the job */
    uint64_t handshakes; /* sessions that were made; 0 in clear */
    uint64_t bytes_in, bytes_out;
    size_t server_waiting, server_running; /* of all clients, as last told */
};
void fc_client_stats(const struct fc_client *c, struct fc_client_stats *stats);

#endif
