/* Who asks: what the server's list of clients (net/allow_list.h) says about the key that a session
 * was made with. Each request carries it (struct fc_server_request), each job keeps a copy
 * (struct fc_job). A server without keys knows nobody: every request is from fc_client_anonymous.
 */
#ifndef FC_NET_CLIENT_IDENTITY_H
#define FC_NET_CLIENT_IDENTITY_H

#include <stdint.h>

#define FC_KEY_SIZE 32         /* an X25519 key, public or secret */
#define FC_CLIENT_NAME_SIZE 64 /* with the NUL */

struct fc_client_identity {
    char name[FC_CLIENT_NAME_SIZE]; /* letters, digits, "._-"; unique in the list; "": anonymous */
    unsigned char key[FC_KEY_SIZE]; /* public; unique in the list; zeros: anonymous */
    uint64_t tokens_per_day;        /* that the server may generate for it; 0: no limit */
    double rate;                    /* prompts a second, on average; 0: no limit */
};

static const struct fc_client_identity fc_client_anonymous = {0};

#endif
