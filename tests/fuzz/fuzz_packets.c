/* Fuzzes the packets of encrypted sessions, before and after they are opened (net/gate.c,
 * channel.c, handshake.c, packet.c, tunnel.c). An input is a list of steps, each behind its length
 * in two bytes: what is done (1 byte), and bytes for it. */
#include "fuzz.h"

#include "base/clock.h"
#include "net/channel.h"
#include "net/gate.h"
#include "net/packet.h"

#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

enum step {
    TO_SERVER, /* the bytes, as a packet */
    TO_CLIENT,
    HANDSHAKE, /* an honest one, with changes to its packets: pairs of place and xor */
    EXCHANGE,  /* the bytes as a frame there and back: they must arrive */
    TAMPER,    /* the same, but the packet is changed at the first byte's place: must not arrive */
    SEALED,    /* authentic packet whose inside is the bytes */
    STEPS
};

static struct fc_key_pair *server_key, *client_key;
static struct fc_gate *gate;
static struct fc_channel *channel;

static void open_ends(void)
{
    char line[128], key[FC_KEY_TEXT_SIZE];
    struct fc_error err = {0};
    FUZZ_CHECK(fc_key_pair_make(&server_key, &err) == FC_OK);
    FUZZ_CHECK(fc_key_pair_make(&client_key, &err) == FC_OK);
    fc_key_text(key, client_key->public_key);
    snprintf(line, sizeof line, "%s client\n", key);
    const char *list = fuzz_put("clients", line, strlen(line));
    FUZZ_CHECK(chmod(list, 0600) == 0);
    struct fc_gate_options options = {.key = server_key, .clients = list, .max_sessions = 4};
    FUZZ_CHECK(fc_gate_open(&gate, &options, &err) == FC_OK);
    FUZZ_CHECK(fc_channel_open(&channel, client_key, server_key->public_key, FC_PAD_NONE, &err) ==
               FC_OK);
}

static struct fc_gate_result to_server(unsigned char *packet, size_t len,
                                       enum fc_gate_verdict *verdict)
{
    struct fc_gate_result r = {0};
    *verdict = fc_gate_receive(gate, fc_now(), packet, len, &r);
    if (*verdict == FC_GATE_FRAME)
        fuzz_touch(r.frame, r.n_frame);
    FUZZ_CHECK(*verdict != FC_GATE_REPLY || r.n_reply <= sizeof r.reply);
    return r;
}

/* An answer that ends the matter for the client begins a new one here. */
static enum fc_channel_event to_client(unsigned char *packet, size_t len, const char **frame,
                                       size_t *n_frame)
{
    struct fc_error err = {0};
    enum fc_channel_event event = FC_CHANNEL_DROP;
    enum fc_code code =
        fc_channel_receive(channel, fc_now(), packet, len, &event, frame, n_frame, &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code == FC_OK && event == FC_CHANNEL_FRAME)
        fuzz_touch(*frame, *n_frame);
    return code == FC_OK ? event : FC_CHANNEL_DROP;
}

static void change(unsigned char *packet, size_t len, const uint8_t *pairs, size_t n)
{
    for (size_t i = 0; i + 1 < n && len; i += 2)
        packet[pairs[i] % len] ^= pairs[i + 1];
}

static void shake_hands(const uint8_t *data, size_t size)
{
    struct fc_error err = {0};
    struct fc_text first = {0};
    enum fc_gate_verdict verdict;
    const char *frame;
    size_t n_frame, half = size / 2;
    if (fc_channel_ready(channel, fc_now()))
        return;
    FUZZ_CHECK(fc_channel_first(channel, &first, &err) == FC_OK);
    change((unsigned char *)first.data, first.len, data, half);
    struct fc_gate_result r = to_server((unsigned char *)first.data, first.len, &verdict);
    if (verdict == FC_GATE_REPLY) {
        change(r.reply, r.n_reply, data + half, size - half);
        (void)to_client(r.reply, r.n_reply, &frame, &n_frame);
    }
    fc_text_free(&first);
}

static void answer(const struct fc_gate_result *r, const uint8_t *data, size_t size)
{
    struct fc_error err = {0};
    struct fc_text packet = {0};
    bool sealed = false;
    const char *frame = NULL;
    size_t n = 0;
    FUZZ_CHECK(fc_gate_seal(gate, r->session, data, size, &packet, &sealed, &err) == FC_OK);
    if (sealed) {
        FUZZ_CHECK(to_client((unsigned char *)packet.data, packet.len, &frame, &n) ==
                   FC_CHANNEL_FRAME);
        FUZZ_CHECK(n == size && (!n || memcmp(frame, data, n) == 0));
    }
    fc_text_free(&packet);
}

static void exchange(const uint8_t *data, size_t size, bool tamper)
{
    struct fc_error err = {0};
    struct fc_text text = {0}, packet = {0};
    enum fc_gate_verdict verdict;
    if (!fc_channel_ready(channel, fc_now()) || size < 2)
        return;
    fc_text_add(&text, (const char *)data, size);
    FUZZ_CHECK(fc_channel_seal(channel, &text, &packet, &err) == FC_OK);
    if (tamper)
        packet.data[data[0] % packet.len] ^= (char)(data[1] | 1);
    struct fc_gate_result r = to_server((unsigned char *)packet.data, packet.len, &verdict);
    if (tamper)
        FUZZ_CHECK(verdict != FC_GATE_FRAME);
    else if (verdict == FC_GATE_FRAME) { /* or the session was pushed out */
        FUZZ_CHECK(r.n_frame == size && memcmp(r.frame, data, size) == 0);
        answer(&r, data, size);
    }
    fc_text_free(&text);
    fc_text_free(&packet);
}

/* A peer that holds the key of the session may put anything inside. */
static void open_sealed(const uint8_t *data, size_t size)
{
    struct fc_tunnel t = {.session = 77};
    size_t len = FC_TUNNEL_HEADER + size + FC_NOISE_TAG, n = 0;
    unsigned char *packet = calloc(1, len);
    const char *frame = NULL;
    FUZZ_CHECK(packet);
    fc_packet_header(packet, FC_PACKET_DATA);
    packet[FC_PACKET_HEADER] = 77;
    fc_noise_encrypt(t.receive.key, 0, packet, FC_TUNNEL_HEADER, data, size,
                     packet + FC_TUNNEL_HEADER);
    if (fc_tunnel_open(&t, packet, len, &frame, &n))
        fuzz_touch(frame, n);
    free(packet);
}

static void take(enum step step, const uint8_t *data, size_t size)
{
    const char *frame;
    size_t n;
    enum fc_gate_verdict verdict;
    unsigned char *copy = malloc(size + 1);
    FUZZ_CHECK(copy);
    memcpy(copy, data, size);
    switch (step) {
    case TO_SERVER:
        (void)to_server(copy, size, &verdict);
        break;
    case TO_CLIENT:
        (void)to_client(copy, size, &frame, &n);
        break;
    case HANDSHAKE:
        shake_hands(data, size);
        break;
    case EXCHANGE:
    case TAMPER:
        exchange(data, size, step == TAMPER);
        break;
    default:
        open_sealed(data, size);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FUZZ_CHECK(sodium_init() >= 0);
    open_ends();
    while (size > 3) {
        size_t len = data[0] | (size_t)data[1] << 8;
        enum step step = (enum step)(data[2] % STEPS);
        data += 3, size -= 3;
        len = len > size ? size : len;
        take(step, data, len);
        data += len, size -= len;
    }
    fc_channel_close(channel);
    fc_gate_close(gate);
    fc_key_pair_free(server_key);
    fc_key_pair_free(client_key);
    return 0;
}
