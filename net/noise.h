/* Noise_IK_25519_ChaChaPoly_SHA512 (Noise Protocol Framework, revision 34), from libsodium's parts.
 *
 *     <- s                    the initiator knows the responder's static key
 *     -> e, es, s, ss         first message
 *     <- e, ee, se            second message, then split
 *
 * Nothing here draws randomness, allocates or knows of sockets: the caller gives the ephemeral
 * secrets, so the test can replay what another implementation wrote (tests/golden/noise.json).
 *
 * A function that returns false has left the state unfit for use: try on a copy. Wipe the state
 * (sodium_memzero) when done. */
#ifndef FC_NET_NOISE_H
#define FC_NET_NOISE_H

#include "net/keys.h"

#include <stdbool.h>
#include <stdint.h>

#define FC_NOISE_HASH 64
#define FC_NOISE_TAG 16
/* Bytes that the two messages are longer than their payloads. */
#define FC_NOISE_FIRST (FC_KEY_SIZE + FC_KEY_SIZE + FC_NOISE_TAG + FC_NOISE_TAG)
#define FC_NOISE_SECOND (FC_KEY_SIZE + FC_NOISE_TAG)

struct fc_noise {
    unsigned char chain[FC_NOISE_HASH];                           /* ck */
    unsigned char hash[FC_NOISE_HASH];                            /* h: of everything said so far */
    unsigned char key[FC_KEY_SIZE];                               /* k */
    uint64_t nonce;                                               /* n: 0 again with each new k */
    struct fc_key_pair own, ephemeral;                            /* s, e */
    unsigned char peer[FC_KEY_SIZE], peer_ephemeral[FC_KEY_SIZE]; /* rs, re */
};

/* `responder` is the responder's static public key: the initiator's `own` is its own pair and the
 * responder's is the pair of `responder`. */
void fc_noise_start(struct fc_noise *n, const unsigned char *prologue, size_t n_prologue,
                    const struct fc_key_pair *own, const unsigned char responder[FC_KEY_SIZE]);

/* Initiator. out[FC_NOISE_FIRST + len]. False when a key of the peer's is of small order. */
bool fc_noise_write_first(struct fc_noise *n, const unsigned char ephemeral[FC_KEY_SIZE],
                          const unsigned char *payload, size_t len, unsigned char *out);
/* Responder. payload[len - FC_NOISE_FIRST]; n->peer is then the initiator's static key, which it
 * has proved to hold (by ss; a replay proves the same). False for anything but a whole message that
 * was made for this key. */
bool fc_noise_read_first(struct fc_noise *n, const unsigned char *in, size_t len,
                         unsigned char *payload);
/* Responder. out[FC_NOISE_SECOND + len]. */
bool fc_noise_write_second(struct fc_noise *n, const unsigned char ephemeral[FC_KEY_SIZE],
                           const unsigned char *payload, size_t len, unsigned char *out);
/* Initiator. payload[len - FC_NOISE_SECOND]. */
bool fc_noise_read_second(struct fc_noise *n, const unsigned char *in, size_t len,
                          unsigned char *payload);

/* The two keys that follow: initiator to responder, responder to initiator. */
void fc_noise_split(const struct fc_noise *n, unsigned char to_responder[FC_KEY_SIZE],
                    unsigned char to_initiator[FC_KEY_SIZE]);

/* ENCRYPT, DECRYPT and REKEY of the specification. out[len + FC_NOISE_TAG], resp.
 * out[len - FC_NOISE_TAG]; out == in is fine. */
void fc_noise_encrypt(const unsigned char key[FC_KEY_SIZE], uint64_t nonce,
                      const unsigned char *bound, size_t n_bound, const unsigned char *in,
                      size_t len, unsigned char *out);
bool fc_noise_decrypt(const unsigned char key[FC_KEY_SIZE], uint64_t nonce,
                      const unsigned char *bound, size_t n_bound, const unsigned char *in,
                      size_t len, unsigned char *out);
void fc_noise_rekey(unsigned char key[FC_KEY_SIZE]);

#endif
