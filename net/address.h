/* Addresses that the transport may use.
 *
 * Without keys nothing is encrypted, so nothing may leave the machine: only loopback addresses
 * pass, on both ends. (Other users of the same machine can reach a loopback port: a job is
 * protected there by its 128-bit id alone, which is a secret between client and server.) With keys
 * any address does. */
#ifndef FC_NET_ADDRESS_H
#define FC_NET_ADDRESS_H

#include "base/error.h"

#include <stdbool.h>

#define FC_ADDRESS_SIZE 128

struct fc_address {
    char text[FC_ADDRESS_SIZE]; /* what nanomsg is given: localhost is 127.0.0.1 */
    bool ipv6;
};

/* Reads tcp://HOST:PORT with HOST of 127.0.0.0/8, [::1] or localhost and PORT 1..65535 (nanomsg has
 * no "any free port"), ipc://PATH or inproc://NAME (tests within one process). With `encrypted`
 * HOST may be any numeric address ([...] around IPv6), * (all IPv4 interfaces, for a server) or a
 * name. FC_ERR_USAGE for a text that is none of these; FC_ERR_UNSUPPORTED, with the reason and the
 * ways round it (keys, an SSH tunnel), for another host in clear. */
enum fc_code fc_address_parse(struct fc_address *address, const char *text, bool encrypted,
                              struct fc_error *err);

#endif
