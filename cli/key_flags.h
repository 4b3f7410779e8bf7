/* The flags of encrypted sessions: files of keys, shared by the commands that talk to each other.
 */
#ifndef FC_CLI_KEY_FLAGS_H
#define FC_CLI_KEY_FLAGS_H

#include "cli/options.h"
#include "net/keys.h"
#include "net/tunnel.h"

struct fc_key_flags {
    const char *key;     /* a file of `fedcot keygen`; NULL: no encryption */
    const char *server;  /* client: the server's public key, or a file with it */
    const char *clients; /* server: its list of clients (net/allow_list.h) */
    int pad;             /* an enum fc_pad */
};
extern const struct fc_option fc_client_key_options[]; /* --key, --server-key, --pad-frames */
extern const struct fc_option fc_server_key_options[]; /* --key, --clients, --pad-frames */

/* One side's keys, read. Zero-initialise; release with fc_keys_close. */
struct fc_keys {
    struct fc_key_pair *own; /* NULL: in clear */
    unsigned char server[FC_KEY_SIZE];
    enum fc_pad pad;
};
/* FC_ERR_USAGE when one of the two flags of a side lacks the other. */
enum fc_code fc_keys_open_client(struct fc_keys *keys, const struct fc_key_flags *f,
                                 struct fc_error *err);
enum fc_code fc_keys_open_server(struct fc_keys *keys, const struct fc_key_flags *f,
                                 struct fc_error *err);
void fc_keys_close(struct fc_keys *keys);

#endif
