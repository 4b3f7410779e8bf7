#include "net/packet.h"

#include <sodium.h>
#include <string.h>

#define CODE_AT FC_PACKET_HEADER
#define DIGEST_AT (CODE_AT + 2)
#define DIGEST_SIZE ((size_t)FC_REFUSAL_SIZE - DIGEST_AT)
#define DIGESTED ((size_t)256) /* more than a handshake message has */

static const unsigned char magic[4] = {'F', 'C', 'o', 'S'};

void fc_packet_header(unsigned char out[FC_PACKET_HEADER], enum fc_packet_type type)
{
    memcpy(out, magic, sizeof magic);
    out[4] = FC_PACKET_VERSION & 0xFF;
    out[5] = FC_PACKET_VERSION >> 8;
    out[6] = (unsigned char)type;
    out[7] = 0;
}

bool fc_packet_is(const unsigned char *data, size_t len)
{
    return len >= FC_PACKET_HEADER && memcmp(data, magic, sizeof magic) == 0;
}

unsigned fc_packet_version(const unsigned char *packet)
{
    return packet[4] | (unsigned)packet[5] << 8;
}

int fc_packet_type(const unsigned char *data, size_t len)
{
    bool ours =
        fc_packet_is(data, len) && fc_packet_version(data) == FC_PACKET_VERSION && data[7] == 0;
    return ours ? data[6] : 0;
}

static void digest(unsigned char out[DIGEST_SIZE], const unsigned char *refusal,
                   const unsigned char *refused, size_t len)
{
    crypto_generichash_state s;
    crypto_generichash_init(&s, NULL, 0, DIGEST_SIZE);
    crypto_generichash_update(&s, refusal, DIGEST_AT);
    crypto_generichash_update(&s, refused, len < DIGESTED ? len : DIGESTED);
    crypto_generichash_final(&s, out, DIGEST_SIZE);
}

void fc_packet_refuse(unsigned char out[FC_REFUSAL_SIZE], enum fc_packet_refusal code,
                      const unsigned char *refused, size_t len)
{
    fc_packet_header(out, FC_PACKET_REFUSAL);
    out[CODE_AT] = (unsigned char)code;
    out[CODE_AT + 1] = 0;
    digest(out + DIGEST_AT, out, refused, len);
}

int fc_packet_refusal_of(const unsigned char *data, size_t len, const unsigned char *sent,
                         size_t n_sent)
{
    unsigned char expected[DIGEST_SIZE];
    if (len != FC_REFUSAL_SIZE || !fc_packet_is(data, len) || data[6] != FC_PACKET_REFUSAL)
        return 0;
    digest(expected, data, sent, n_sent);
    return sodium_memcmp(expected, data + DIGEST_AT, DIGEST_SIZE) == 0
               ? data[CODE_AT] | data[CODE_AT + 1] << 8
               : 0;
}
