/* Private to net/exchange.c: the client's side of a session. No sockets and no clock of its own.
 *
 *     NONE  --fc_channel_first-->  ASKING  --answer of the pinned key-->  OPEN
 *      ^                                                                |
 *      +---- the server does not know the session, or it is spent ------+ */
#ifndef FC_NET_CHANNEL_H
#define FC_NET_CHANNEL_H

#include "base/memory.h"
#include "net/handshake.h"

struct fc_channel;

/* Both keys are copied, the pair into guarded memory. */
enum fc_code fc_channel_open(struct fc_channel **c, const struct fc_key_pair *own,
                             const unsigned char server[FC_KEY_SIZE], enum fc_pad pad,
                             struct fc_error *err);
void fc_channel_close(struct fc_channel *c); /* NULL is fine; wipes all keys */

/* Whether there is a session to seal with. One that is spent, or older than an hour, ends here:
 * fresh keys for what follows. */
bool fc_channel_ready(struct fc_channel *c, double now);

/* Overwrites `out` with the first packet. It is the same one until a session has come of it: the
 * server answers a packet that it knows as it did before. */
enum fc_code fc_channel_first(struct fc_channel *c, struct fc_text *out, struct fc_error *err);
/* Overwrites `out` with the packet of a frame. Only when ready. */
enum fc_code fc_channel_seal(struct fc_channel *c, const struct fc_text *frame, struct fc_text *out,
                             struct fc_error *err);

enum fc_channel_event {
    FC_CHANNEL_DROP,   /* forged, repeated, late, or nothing of ours: as if it had not come */
    FC_CHANNEL_FRAME,  /* a frame from the server */
    FC_CHANNEL_OPENED, /* the handshake is done */
    FC_CHANNEL_LOST    /* the server does not know the session: shake hands again */
};
/* Opens a packet in its own memory. An error is a refusal that ends the matter: FC_ERR_UNSUPPORTED
 * for another version, FC_ERR_INPUT for a key that the server does not have or does not know. */
enum fc_code fc_channel_receive(struct fc_channel *c, double now, unsigned char *packet, size_t len,
                                enum fc_channel_event *event, const char **frame, size_t *n_frame,
                                struct fc_error *err);

/* Why there may be no session: a phrase for an error text, "" when nothing strange came. */
const char *fc_channel_trouble(const struct fc_channel *c);

#endif
