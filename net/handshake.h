/* The handshake: two packets that make a session between two static keys.
 *
 *     client                                     server
 *     FIRST  header, e, {own static key}, {}   ->
 *                                              <- SECOND  header, e, {session number}
 *     DATA ...                                 ->
 *
 * Noise IK (net/noise.h) with "FedCoT session" and the header of the first packet as its prologue:
 * who changes the version on the way breaks the handshake. Neither packet carries anything of the
 * application, so a FIRST that is replayed makes a session that only the true client could use: its
 * keys need the client's ephemeral secret and, by the server's fresh share, are new each time. */
#ifndef FC_NET_HANDSHAKE_H
#define FC_NET_HANDSHAKE_H

#include "net/noise.h"
#include "net/packet.h"
#include "net/tunnel.h"

#define FC_FIRST_SIZE (FC_PACKET_HEADER + FC_NOISE_FIRST)
#define FC_SECOND_SIZE (FC_PACKET_HEADER + FC_NOISE_SECOND + 8)

/* Client: draws an ephemeral secret and writes the first packet. Keep *n (guarded memory) for the
 * answer. False when the server's key is no key (of small order). */
bool fc_handshake_first(struct fc_noise *n, const struct fc_key_pair *own,
                        const unsigned char server[FC_KEY_SIZE],
                        unsigned char packet[FC_FIRST_SIZE]);
/* Client: false, with *t as it was, for anything but the answer of the holder of the server's key
 * to this first packet. *n is not changed: the true answer may still come. */
bool fc_handshake_finish(const struct fc_noise *n, const unsigned char *packet, size_t len,
                         struct fc_tunnel *t);

/* Server: n->peer is then the client's static key. False for anything that was not made for our
 * key. */
bool fc_handshake_read(struct fc_noise *n, const struct fc_key_pair *own,
                       const unsigned char *packet, size_t len);
/* Server: after a read that was true; ends with *n wiped. */
bool fc_handshake_answer(struct fc_noise *n, uint64_t session, unsigned char packet[FC_SECOND_SIZE],
                         struct fc_tunnel *t);

#endif
