#include "net/channel.h"

#include <sodium.h>
#include <string.h>

#define MAX_AGE 3600.0 /* seconds: half of what the server allows */
#define SENT 256       /* as much as a refusal is bound to */

enum channel_state { NONE, ASKING, OPEN };

/* All of it in guarded memory. */
struct fc_channel {
    enum channel_state state;
    enum fc_pad pad;
    struct fc_key_pair own;
    unsigned char server[FC_KEY_SIZE];
    struct fc_noise noise;
    struct fc_tunnel tunnel;
    double begun; /* of the session */
    unsigned char sent[SENT];
    size_t n_sent;
    bool saw_clear, saw_forged;
};

enum fc_code fc_channel_open(struct fc_channel **out, const struct fc_key_pair *own,
                             const unsigned char server[FC_KEY_SIZE], enum fc_pad pad,
                             struct fc_error *err)
{
    struct fc_channel *c = *out = sodium_init() < 0 ? NULL : sodium_malloc(sizeof *c);
    if (!c)
        return fc_fail(err, FC_ERR_MEMORY, "session: no guarded memory");
    memset(c, 0, sizeof *c);
    c->pad = pad;
    c->own = *own;
    memcpy(c->server, server, FC_KEY_SIZE);
    return FC_OK;
}

void fc_channel_close(struct fc_channel *c)
{
    sodium_free(c);
}

bool fc_channel_ready(struct fc_channel *c, double now)
{
    if (c->state == OPEN && (now - c->begun > MAX_AGE || fc_tunnel_spent(&c->tunnel))) {
        sodium_memzero(&c->tunnel, sizeof c->tunnel);
        c->state = NONE;
    }
    return c->state == OPEN;
}

static void remember(struct fc_channel *c, const void *packet, size_t len)
{
    c->n_sent = len < SENT ? len : SENT;
    memcpy(c->sent, packet, c->n_sent);
}

enum fc_code fc_channel_first(struct fc_channel *c, struct fc_text *out, struct fc_error *err)
{
    if (c->state != ASKING) {
        unsigned char packet[FC_FIRST_SIZE];
        if (!fc_handshake_first(&c->noise, &c->own, c->server, packet))
            return fc_fail(err, FC_ERR_INPUT, "the server's public key is no such key");
        remember(c, packet, sizeof packet);
        c->state = ASKING;
    }
    fc_text_clear(out);
    fc_text_add(out, (const char *)c->sent, c->n_sent);
    return fc_text_check(out, err);
}

enum fc_code fc_channel_seal(struct fc_channel *c, const struct fc_text *frame, struct fc_text *out,
                             struct fc_error *err)
{
    enum fc_code code = fc_tunnel_seal(&c->tunnel, c->pad, frame->data, frame->len, out, err);
    if (code == FC_OK)
        remember(c, out->data, out->len);
    return code;
}

static enum fc_code take_refusal(struct fc_channel *c, int code, const unsigned char *packet,
                                 enum fc_channel_event *event, struct fc_error *err)
{
    if (code == FC_REFUSAL_VERSION)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "the server speaks version %u of the encrypted sessions, expected %d: run "
                       "the same release of fedcot on both ends",
                       fc_packet_version(packet), FC_PACKET_VERSION);
    if (code == FC_REFUSAL_KEY && c->state == ASKING)
        return fc_fail(err, FC_ERR_INPUT,
                       "the server does not hold the key that --server-key names: ask its owner "
                       "for its public key, by a way that you trust");
    if (code == FC_REFUSAL_CLIENT && c->state == ASKING)
        return fc_fail(err, FC_ERR_INPUT,
                       "the server does not know this client's key, or no longer: give its owner "
                       "the public key (the .pub file) for the server's list of clients");
    if (code == FC_REFUSAL_SESSION && c->state == OPEN) {
        sodium_memzero(&c->tunnel, sizeof c->tunnel);
        c->state = NONE;
        *event = FC_CHANNEL_LOST;
    }
    return FC_OK;
}

enum fc_code fc_channel_receive(struct fc_channel *c, double now, unsigned char *packet, size_t len,
                                enum fc_channel_event *event, const char **frame, size_t *n_frame,
                                struct fc_error *err)
{
    *event = FC_CHANNEL_DROP;
    if (!fc_packet_is(packet, len)) {
        c->saw_clear = true;
        return FC_OK;
    }
    int refusal = fc_packet_refusal_of(packet, len, c->sent, c->n_sent);
    if (refusal)
        return take_refusal(c, refusal, packet, event, err);
    if (c->state == ASKING && fc_handshake_finish(&c->noise, packet, len, &c->tunnel)) {
        sodium_memzero(&c->noise, sizeof c->noise);
        c->state = OPEN;
        c->begun = now;
        c->saw_clear = c->saw_forged = false;
        *event = FC_CHANNEL_OPENED;
    } else if (c->state == OPEN && fc_tunnel_open(&c->tunnel, packet, len, frame, n_frame)) {
        *event = FC_CHANNEL_FRAME;
    } else {
        c->saw_forged = true;
    }
    return FC_OK;
}

const char *fc_channel_trouble(const struct fc_channel *c)
{
    if (c->state == OPEN)
        return "";
    if (c->saw_clear)
        return "; what answers there does not encrypt: is it `fedcot serve --key`?";
    return c->saw_forged ? "; what answers there does not hold the key of --server-key: somebody "
                           "may be in the middle"
                         : "";
}
