/* The server's side of the sessions, between its socket and fc_server_serve: turns packets into
 * frames with the identity of who sent them, and frames into packets. No sockets and no clock of
 * its own. Options and statistics are part of net/server.h; the functions are net/server.c's.
 *
 * A table of fixed size. A session is on trial until the first packet that its client sealed has
 * come; only then does it count. When there is no room the session on trial that is oldest goes,
 * or else the one that was silent longest; one client's key has at most a quarter of the table, and
 * loses its own first. So replayed handshakes push out nobody who is at work. A client whose
 * session is gone is told so and shakes hands again. */
#ifndef FC_NET_GATE_H
#define FC_NET_GATE_H

#include "base/memory.h"
#include "net/handshake.h"

struct fc_gate;

struct fc_gate_options {
    const struct fc_key_pair *key; /* borrowed */
    const char *clients;           /* path of the list (net/allow_list.h); copied */
    enum fc_pad pad;
    size_t max_sessions; /* 0: 1024 */
    /* A line about what was refused, at most one a second; holds no secret. NULL: silent. */
    void (*notice)(void *context, const char *text);
    void *context;
};

enum fc_code fc_gate_open(struct fc_gate **g, const struct fc_gate_options *options,
                          struct fc_error *err);
void fc_gate_close(struct fc_gate *g); /* NULL is fine; wipes all keys */

enum fc_gate_verdict {
    FC_GATE_DROP,  /* forged, repeated, late: not a word */
    FC_GATE_REPLY, /* send back `reply` */
    FC_GATE_FRAME, /* `frame` came from `identity` */
    FC_GATE_CLEAR  /* not of this protocol: a client without keys, or garbage */
};

struct fc_gate_result {
    const char *frame; /* inside the packet */
    size_t n_frame;
    uint64_t session;
    const struct fc_client_identity *identity; /* until the next call */
    unsigned char reply[FC_SECOND_SIZE];
    size_t n_reply;
};

/* Opens the packet in its own memory. `now` in seconds (fc_now). */
enum fc_gate_verdict fc_gate_receive(struct fc_gate *g, double now, unsigned char *packet,
                                     size_t len, struct fc_gate_result *r);

/* Seals a frame for a session into `out`. *sealed false: the session is gone, nothing to send. */
enum fc_code fc_gate_seal(struct fc_gate *g, uint64_t session, const void *frame, size_t len,
                          struct fc_text *out, bool *sealed, struct fc_error *err);

/* Reads the list again. Sessions of keys that are no longer there end at once; the others take
 * their new bounds. On failure everything is as it was. */
enum fc_code fc_gate_reload(struct fc_gate *g, struct fc_error *err);
bool fc_gate_knows(const struct fc_gate *g, const unsigned char key[FC_KEY_SIZE]);

/* Wipes sessions that are too old; cheap enough for a few times a second. */
void fc_gate_sweep(struct fc_gate *g, double now);

struct fc_gate_stats {
    size_t sessions;     /* now, without those on trial */
    size_t on_trial;     /* now */
    uint64_t handshakes; /* answered with a new session */
    uint64_t refused;    /* packets answered with a refusal */
    uint64_t dropped;    /* packets that were forged, repeated or late */
};
void fc_gate_stats(const struct fc_gate *g, struct fc_gate_stats *stats);

#endif
