/* The server's list of clients: a text file, one client a line.
 *
 *     KEY NAME [tokens-per-day=N] [rate=N]
 *
 * KEY is a public key (64 hexadecimal digits, as in FILE.pub), NAME up to 63 letters, digits and
 * "._-". tokens-per-day, a whole number from 1, and rate, prompts a second (decimals allowed, above
 * 0), bound what the client may ask for; without them there is no bound. Words are divided by
 * blanks; empty lines and those that begin with # are passed over. Anything else, a key or a name
 * that comes twice too, is an error: a list that is read half would let somebody in or lock
 * somebody out. */
#ifndef FC_NET_ALLOW_LIST_H
#define FC_NET_ALLOW_LIST_H

#include "base/error.h"
#include "net/client_identity.h"

#include <stddef.h>

#define FC_ALLOW_LIST_BYTES ((size_t)256 << 10) /* of the file: some 3,000 clients */

/* Zero-initialise. */
struct fc_allow_list {
    struct fc_client_identity *clients;
    size_t n;
};

/* Replaces the list by what the file says. FC_ERR_INPUT, with the line's number and never its
 * contents, for a malformed file, or one that group or others may write; the list is then as it
 * was. An empty list is fine: it lets nobody in. */
enum fc_code fc_allow_list_read(struct fc_allow_list *list, const char *path, struct fc_error *err);
/* NULL for a key that is not there. Valid until the next read. */
const struct fc_client_identity *fc_allow_list_find(const struct fc_allow_list *list,
                                                    const unsigned char key[FC_KEY_SIZE]);
void fc_allow_list_free(struct fc_allow_list *list);

#endif
