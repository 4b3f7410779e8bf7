/* X25519 key pairs and the files that hold them.
 *
 * A secret file is three lines of ASCII and nothing else, readable by its owner alone:
 *
 *     fedcot secret key 1
 *     secret 64 hexadecimal digits
 *     public 64 hexadecimal digits, which must belong to the secret: a torn or mixed-up file shows
 *
 * A public key is 64 hexadecimal digits: FILE.pub holds just that line, and it is what the
 * server's list of clients (net/allow_list.h) and --server-key take. */
#ifndef FC_NET_KEYS_H
#define FC_NET_KEYS_H

#include "base/error.h"
#include "net/client_identity.h"

#include <stddef.h>

#define FC_KEY_TEXT_SIZE (2 * FC_KEY_SIZE + 1)

/* Lives in memory of libsodium's guarded kind (sodium_malloc): locked where the system allows it,
 * never in a core file, read-only once made, wiped when freed. */
struct fc_key_pair {
    unsigned char public_key[FC_KEY_SIZE], secret[FC_KEY_SIZE];
};

/* A new pair from the system's randomness. Owner: the caller, fc_key_pair_free. */
enum fc_code fc_key_pair_make(struct fc_key_pair **pair, struct fc_error *err);
/* FC_ERR_INPUT for a file that is not such a file, or that is not the caller's own, or that group
 * or others may touch (the text says chmod 600). */
enum fc_code fc_key_pair_read(struct fc_key_pair **pair, const char *path, struct fc_error *err);
/* Writes PATH (mode 0600, whole or not at all) and PATH.pub. FC_ERR_USAGE when PATH exists: a key
 * is never overwritten. */
enum fc_code fc_key_pair_write(const struct fc_key_pair *pair, const char *path,
                               struct fc_error *err);
void fc_key_pair_free(struct fc_key_pair *pair); /* NULL is fine */

/* 64 hexadecimal digits, or the path of a file that holds them and a newline at most. A secret file
 * is FC_ERR_USAGE, and says which file was meant. */
enum fc_code fc_public_key_read(unsigned char key[FC_KEY_SIZE], const char *text_or_path,
                                struct fc_error *err);
/* Exactly 64 hexadecimal digits; 0 if `text` (len bytes) is not. */
int fc_public_key_parse(unsigned char key[FC_KEY_SIZE], const char *text, size_t len);
void fc_key_text(char text[FC_KEY_TEXT_SIZE], const unsigned char key[FC_KEY_SIZE]);

#endif
