#include "net/handshake.h"

#include <sodium.h>
#include <string.h>

#define TITLE "FedCoT session"

static void start(struct fc_noise *n, const unsigned char header[FC_PACKET_HEADER],
                  const struct fc_key_pair *own, const unsigned char server[FC_KEY_SIZE])
{
    unsigned char prologue[sizeof TITLE - 1 + FC_PACKET_HEADER];
    memcpy(prologue, TITLE, sizeof TITLE - 1);
    memcpy(prologue + sizeof TITLE - 1, header, FC_PACKET_HEADER);
    fc_noise_start(n, prologue, sizeof prologue, own, server);
}

/* ---- client ---- */

bool fc_handshake_first(struct fc_noise *n, const struct fc_key_pair *own,
                        const unsigned char server[FC_KEY_SIZE],
                        unsigned char packet[FC_FIRST_SIZE])
{
    unsigned char secret[FC_KEY_SIZE];
    randombytes_buf(secret, sizeof secret);
    fc_packet_header(packet, FC_PACKET_FIRST);
    start(n, packet, own, server);
    bool good = fc_noise_write_first(n, secret, NULL, 0, packet + FC_PACKET_HEADER);
    sodium_memzero(secret, sizeof secret);
    return good;
}

bool fc_handshake_finish(const struct fc_noise *n, const unsigned char *packet, size_t len,
                         struct fc_tunnel *t)
{
    unsigned char number[8];
    if (len != FC_SECOND_SIZE || fc_packet_type(packet, len) != FC_PACKET_SECOND)
        return false;
    struct fc_noise copy = *n; /* a forged answer must not spoil the state for the true one */
    bool good =
        fc_noise_read_second(&copy, packet + FC_PACKET_HEADER, len - FC_PACKET_HEADER, number);
    if (good) {
        *t = (struct fc_tunnel){0};
        for (int i = 0; i < 8; i++)
            t->session |= (uint64_t)number[i] << (8 * i);
        fc_noise_split(&copy, t->send.key, t->receive.key);
    }
    sodium_memzero(&copy, sizeof copy);
    return good;
}

/* ---- server ---- */

bool fc_handshake_read(struct fc_noise *n, const struct fc_key_pair *own,
                       const unsigned char *packet, size_t len)
{
    unsigned char nothing[1];
    if (len != FC_FIRST_SIZE || fc_packet_type(packet, len) != FC_PACKET_FIRST)
        return false;
    start(n, packet, own, own->public_key);
    return fc_noise_read_first(n, packet + FC_PACKET_HEADER, len - FC_PACKET_HEADER, nothing);
}

bool fc_handshake_answer(struct fc_noise *n, uint64_t session, unsigned char packet[FC_SECOND_SIZE],
                         struct fc_tunnel *t)
{
    unsigned char secret[FC_KEY_SIZE], number[8];
    randombytes_buf(secret, sizeof secret);
    for (int i = 0; i < 8; i++)
        number[i] = (unsigned char)(session >> (8 * i));
    fc_packet_header(packet, FC_PACKET_SECOND);
    bool good = fc_noise_write_second(n, secret, number, sizeof number, packet + FC_PACKET_HEADER);
    if (good) {
        *t = (struct fc_tunnel){.session = session};
        fc_noise_split(n, t->receive.key, t->send.key);
    }
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(n, sizeof *n);
    return good;
}
