/* A session once hands are shaken: seals frames into packets and opens them.
 *
 *     offset  size  field (integers little-endian)
 *          0     8  header (net/packet.h), type FC_PACKET_DATA
 *          8     8  session
 *         16     8  counter of this direction: 0, 1, 2, ...
 *         24     .  sealed: length of the frame (4), the frame, zeros up to the bucket
 *          .    16  tag, over the first 24 bytes too
 *
 * Each direction has its own key and counter. The receiver takes a counter only if it is above all
 * that it has taken: a packet that comes twice, late or out of order is dropped without a word,
 * which costs nothing, because whoever waits for an answer asks again with a new counter. After
 * every FC_TUNNEL_REKEY counters the key is replaced by a one-way function of itself (Noise's
 * REKEY), on both sides by the counter alone; packets lost meanwhile do not matter. Up to
 * FC_TUNNEL_SKIP such steps may be missing: beyond, a forged counter would make the receiver
 * compute, and the session is dead. */
#ifndef FC_NET_TUNNEL_H
#define FC_NET_TUNNEL_H

#include "base/memory.h"
#include "net/client_identity.h"

#include <stdbool.h>

#define FC_TUNNEL_HEADER 24
#define FC_TUNNEL_REKEY 1024U
#define FC_TUNNEL_SKIP 64U
#define FC_TUNNEL_COUNTERS (UINT64_C(1) << 20) /* then the session is spent: shake hands again */

/* The length of what is sealed is rounded up, so that the wire shows buckets and not lengths:
 * to a multiple of 256, or to a power of two (from 256; above 1 MiB to a multiple of 1 MiB). POWER2
 * costs up to as many bytes again, half as many on average. */
enum fc_pad { FC_PAD_NONE, FC_PAD_256, FC_PAD_POWER2 };
size_t fc_pad_length(enum fc_pad pad, size_t len);
/* Bytes of the packet that holds a frame of `len` bytes, at most: for receive limits. */
size_t fc_tunnel_largest(size_t len);

struct fc_tunnel_way {
    unsigned char key[FC_KEY_SIZE];
    uint64_t counter; /* next to send; least that is taken */
    uint64_t age;     /* rekeys so far */
};

/* Holds keys: keep it in memory from sodium_malloc, and wipe it. */
struct fc_tunnel {
    uint64_t session;
    struct fc_tunnel_way send, receive;
};

/* Overwrites `out` with the packet. FC_ERR_USAGE when the counters are used up or the frame does
 * not fit into 32 bits. */
enum fc_code fc_tunnel_seal(struct fc_tunnel *t, enum fc_pad pad, const void *frame, size_t len,
                            struct fc_text *out, struct fc_error *err);

/* Opens a packet in its own memory: *frame points into it. False, with the tunnel as it was
 * and nothing to read in the packet, for anything that the peer did not seal for this place in this
 * session. */
bool fc_tunnel_open(struct fc_tunnel *t, unsigned char *packet, size_t len, const char **frame,
                    size_t *n_frame);

bool fc_tunnel_spent(const struct fc_tunnel *t);

/* The session of a data packet, 0 if it is too short to be one. */
uint64_t fc_tunnel_session(const unsigned char *packet, size_t len);

#endif
