/* The outer layer of an encrypted connection, byte by byte; docs/protocol.md tells the whole story.
 *
 *     offset  size  field (integers little-endian)
 *          0     4  magic "FCoS"
 *          4     2  version of the sessions, FC_PACKET_VERSION
 *          6     1  type
 *          7     1  0
 *          8     .  by type
 *
 * This header and the whole refusal keep their meaning in every version, so that two releases that
 * do not understand each other can still say so. */
#ifndef FC_NET_PACKET_H
#define FC_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>

#define FC_PACKET_VERSION 1
#define FC_PACKET_HEADER 8

enum fc_packet_type {
    FC_PACKET_FIRST = 1,  /* client: first message of the handshake */
    FC_PACKET_SECOND = 2, /* server: second message of the handshake */
    FC_PACKET_DATA = 3,   /* both: session, counter, sealed frame (net/tunnel.h) */
    FC_PACKET_REFUSAL = 4 /* server, in clear: code, digest of what was refused */
};

void fc_packet_header(unsigned char out[FC_PACKET_HEADER], enum fc_packet_type type);
/* Whether it begins as a packet of any version. */
bool fc_packet_is(const unsigned char *data, size_t len);
unsigned fc_packet_version(const unsigned char *packet);
/* The type of a packet of our version; 0 for anything else. */
int fc_packet_type(const unsigned char *data, size_t len);

/* A refusal is in clear and proves nothing: it comes from a server that could not or would not make
 * a session. It is bound to what it refuses by a digest, so that a packet damaged on its way cannot
 * make one that counts. Whoever sits on the wire can forge it, as he can cut the wire.
 *
 *          8     2  code
 *         10    16  BLAKE2b of bytes 0 to 9 and of the first 256 bytes of what was refused */
enum fc_packet_refusal {
    FC_REFUSAL_VERSION = 1, /* another version; the header says which one the server speaks */
    FC_REFUSAL_KEY = 2,     /* the first message was not made for this server's key */
    FC_REFUSAL_CLIENT = 3,  /* the client's key is not in the list */
    FC_REFUSAL_SESSION = 4  /* no such session (any more): shake hands */
};
#define FC_REFUSAL_SIZE 26

void fc_packet_refuse(unsigned char out[FC_REFUSAL_SIZE], enum fc_packet_refusal code,
                      const unsigned char *refused, size_t len);
/* The code, if it is a refusal of just this packet, of any version; 0 otherwise. */
int fc_packet_refusal_of(const unsigned char *data, size_t len, const unsigned char *sent,
                         size_t n_sent);

#endif
