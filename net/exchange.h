/* Private to net/client.c: one request, its resends, its answer. The only place in the client that
 * knows the socket. */
#ifndef FC_NET_EXCHANGE_H
#define FC_NET_EXCHANGE_H

#include "base/memory.h"
#include "net/address.h"
#include "net/channel.h"
#include "net/client.h"
#include "net/frame.h"

struct fc_exchange {
    int socket; /* -1: closed */
    struct fc_address address;
    unsigned char job[FC_JOB_ID_SIZE];
    uint64_t client;
    uint64_t first, sequence; /* of the present request: its first sending and its last */
    double timeout, resend;
    bool (*cancelled)(void *context);
    void *cancel_context;
    void (*busy)(void *context, double seconds);
    void *busy_context;
    bool greeted;               /* the server knows the job */
    double contact;             /* when the server was last heard */
    struct fc_channel *channel; /* NULL: in clear */
    struct fc_text out, sealed;
    void *received; /* the bytes of the last answer, which its frame borrows */
    uint64_t requests, resends, handshakes, bytes_in, bytes_out;
};

/* Checks the address and begins to connect; nanomsg goes on trying by itself. */
enum fc_code fc_exchange_open(struct fc_exchange *x, const struct fc_client_options *options,
                              struct fc_error *err);
void fc_exchange_close(struct fc_exchange *x);

/* Sends a request until it is answered. Consumes the header (NULL, or one that could not be
 * filled: FC_ERR_MEMORY), adds "job" and "client" to it. `wait` is how long the server may take on
 * purpose. On FC_OK *frame is the answer, or empty (header NULL) when the server does not know the
 * job: x->greeted is false then. Release it with fc_exchange_done, in every case. */
enum fc_code fc_exchange_ask(struct fc_exchange *x, int kind, cJSON *header,
                             const struct fc_text *body, double wait, struct fc_frame *frame,
                             struct fc_error *err);
void fc_exchange_done(struct fc_exchange *x, struct fc_frame *frame);

/* Seconds to wait for a server that asked for `retry_after` of them, a quarter more or less at
 * random; the user is told. */
double fc_exchange_put_off(const struct fc_exchange *x, double retry_after);

bool fc_exchange_cancelled(const struct fc_exchange *x);

#endif
