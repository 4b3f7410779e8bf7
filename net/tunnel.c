#include "net/tunnel.h"

#include "net/noise.h"
#include "net/packet.h"

#include <sodium.h>
#include <string.h>

#define SESSION_AT FC_PACKET_HEADER
#define COUNTER_AT (SESSION_AT + 8)
#define LENGTH_SIZE ((size_t)4)
#define MEBIBYTE ((size_t)1 << 20)

static void put(unsigned char *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

size_t fc_pad_length(enum fc_pad pad, size_t len)
{
    size_t power = 256;
    switch (pad) {
    case FC_PAD_256:
        return round_up(len, 256);
    case FC_PAD_POWER2:
        if (len > MEBIBYTE)
            return round_up(len, MEBIBYTE);
        while (power < len)
            power *= 2;
        return power;
    default:
        return len;
    }
}

size_t fc_tunnel_largest(size_t len)
{
    return FC_TUNNEL_HEADER + LENGTH_SIZE + len + MEBIBYTE + FC_NOISE_TAG;
}

bool fc_tunnel_spent(const struct fc_tunnel *t)
{
    return t->send.counter >= FC_TUNNEL_COUNTERS || t->receive.counter >= FC_TUNNEL_COUNTERS;
}

uint64_t fc_tunnel_session(const unsigned char *packet, size_t len)
{
    return len < FC_TUNNEL_HEADER ? 0 : get(packet + SESSION_AT, 8);
}

/* The key of a counter, which is not before the way's present one. */
static void key_of(const struct fc_tunnel_way *way, uint64_t counter,
                   unsigned char key[FC_KEY_SIZE])
{
    memcpy(key, way->key, FC_KEY_SIZE);
    for (uint64_t age = way->age; age < counter / FC_TUNNEL_REKEY; age++)
        fc_noise_rekey(key);
}

static void advance(struct fc_tunnel_way *way, uint64_t counter,
                    const unsigned char key[FC_KEY_SIZE])
{
    memcpy(way->key, key, FC_KEY_SIZE);
    way->age = counter / FC_TUNNEL_REKEY;
    way->counter = counter + 1;
}

/* ---- sealing ---- */

static void add_zeros(struct fc_text *out, size_t n)
{
    static const char zeros[4096];
    for (size_t part; n; n -= part) {
        part = n < sizeof zeros ? n : sizeof zeros;
        fc_text_add(out, zeros, part);
    }
}

enum fc_code fc_tunnel_seal(struct fc_tunnel *t, enum fc_pad pad, const void *frame, size_t len,
                            struct fc_text *out, struct fc_error *err)
{
    unsigned char head[FC_TUNNEL_HEADER + LENGTH_SIZE], key[FC_KEY_SIZE];
    uint64_t counter = t->send.counter;
    if (fc_tunnel_spent(t) || len > UINT32_MAX - 2 * MEBIBYTE)
        return fc_fail(err, FC_ERR_USAGE, "session: used up, or a frame of %zu bytes", len);
    fc_packet_header(head, FC_PACKET_DATA);
    put(head + SESSION_AT, t->session, 8);
    put(head + COUNTER_AT, counter, 8);
    put(head + FC_TUNNEL_HEADER, len, 4);
    size_t sealed = fc_pad_length(pad, LENGTH_SIZE + len);
    fc_text_clear(out);
    fc_text_add(out, (const char *)head, sizeof head);
    fc_text_add(out, frame, len);
    add_zeros(out, sealed - LENGTH_SIZE - len + FC_NOISE_TAG);
    enum fc_code code = fc_text_check(out, err);
    if (code != FC_OK)
        return code;
    unsigned char *packet = (unsigned char *)out->data, *body = packet + FC_TUNNEL_HEADER;
    key_of(&t->send, counter, key);
    fc_noise_encrypt(key, counter, packet, FC_TUNNEL_HEADER, body, sealed, body);
    advance(&t->send, counter, key);
    sodium_memzero(key, sizeof key);
    return FC_OK;
}

/* ---- opening ---- */

bool fc_tunnel_open(struct fc_tunnel *t, unsigned char *packet, size_t len, const char **frame,
                    size_t *n_frame)
{
    unsigned char key[FC_KEY_SIZE], *body = packet + FC_TUNNEL_HEADER;
    if (len < FC_TUNNEL_HEADER + LENGTH_SIZE + FC_NOISE_TAG ||
        fc_packet_type(packet, len) != FC_PACKET_DATA ||
        fc_tunnel_session(packet, len) != t->session)
        return false;
    uint64_t counter = get(packet + COUNTER_AT, 8);
    if (counter < t->receive.counter || counter >= FC_TUNNEL_COUNTERS ||
        counter / FC_TUNNEL_REKEY - t->receive.age > FC_TUNNEL_SKIP)
        return false;
    key_of(&t->receive, counter, key);
    bool authentic = fc_noise_decrypt(key, counter, packet, FC_TUNNEL_HEADER, body,
                                      len - FC_TUNNEL_HEADER, body);
    if (authentic)
        advance(&t->receive, counter, key);
    sodium_memzero(key, sizeof key);
    if (!authentic)
        return false;
    *n_frame = (size_t)get(body, 4);
    *frame = (const char *)body + LENGTH_SIZE;
    return *n_frame <= len - FC_TUNNEL_HEADER - LENGTH_SIZE - FC_NOISE_TAG;
}
