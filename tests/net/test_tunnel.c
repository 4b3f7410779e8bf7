/* A session's packets: every byte is bound, each is taken once and in order, keys are replaced on
 * time, and lengths are hidden. */
#define _GNU_SOURCE /* memmem */
#include "net/noise.h"
#include "net/packet.h"
#include "net/tunnel.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SECRET "the words of a perturbed prompt"

struct ends {
    struct fc_tunnel client, server;
    struct fc_text packet;
};

static struct ends make_ends(void)
{
    struct ends e = {.client.session = 77, .server.session = 77};
    assert_true(sodium_init() >= 0);
    memset(e.client.send.key, 1, FC_KEY_SIZE);
    memset(e.client.receive.key, 2, FC_KEY_SIZE);
    e.server.send = e.client.receive;
    e.server.receive = e.client.send;
    return e;
}

static void seal(struct ends *e, enum fc_pad pad, const char *text, size_t len)
{
    struct fc_error err = {0};
    assert_int_equal(fc_tunnel_seal(&e->client, pad, text, len, &e->packet, &err), FC_OK);
}

/* Opens a copy, so that a packet can be tried again. */
static bool opens(struct fc_tunnel *t, const char *data, size_t len, const char *expected)
{
    unsigned char *copy = malloc(len + 1);
    const char *frame = NULL;
    size_t n = 0;
    memcpy(copy, data, len);
    bool good = fc_tunnel_open(t, copy, len, &frame, &n);
    if (good && expected) {
        assert_int_equal(n, strlen(expected));
        assert_memory_equal(frame, expected, n);
    }
    free(copy);
    return good;
}

static void test_both_ways(void **state)
{
    (void)state;
    struct ends e = make_ends();
    struct fc_error err = {0};
    for (int i = 0; i < 5; i++) {
        seal(&e, FC_PAD_NONE, SECRET, strlen(SECRET));
        assert_int_equal(e.packet.len, FC_TUNNEL_HEADER + 4 + strlen(SECRET) + FC_NOISE_TAG);
        assert_null(memmem(e.packet.data, e.packet.len, "words", 5));
        assert_int_equal(fc_tunnel_session((void *)e.packet.data, e.packet.len), 77);
        assert_false(opens(&e.client, e.packet.data, e.packet.len, NULL)); /* reflected */
        assert_true(opens(&e.server, e.packet.data, e.packet.len, SECRET));
        assert_int_equal(fc_tunnel_seal(&e.server, FC_PAD_NONE, "yes", 3, &e.packet, &err), FC_OK);
        assert_true(opens(&e.client, e.packet.data, e.packet.len, "yes"));
    }
    seal(&e, FC_PAD_NONE, "", 0);
    assert_true(opens(&e.server, e.packet.data, e.packet.len, ""));
    fc_text_free(&e.packet);
}

static void test_every_byte_is_bound(void **state)
{
    (void)state;
    struct ends e = make_ends();
    seal(&e, FC_PAD_NONE, SECRET, strlen(SECRET));
    for (size_t at = 0; at < e.packet.len; at++)
        for (int bit = 0; bit < 8; bit++) {
            e.packet.data[at] ^= (char)(1 << bit);
            assert_false(opens(&e.server, e.packet.data, e.packet.len, NULL));
            e.packet.data[at] ^= (char)(1 << bit);
        }
    for (size_t len = 0; len < e.packet.len; len++)
        assert_false(opens(&e.server, e.packet.data, len, NULL));
    fc_text_add(&e.packet, "", 1);
    assert_false(opens(&e.server, e.packet.data, e.packet.len, NULL));
    assert_true(opens(&e.server, e.packet.data, e.packet.len - 1, SECRET)); /* none did harm */
    fc_text_free(&e.packet);
}

static void test_replay_and_order(void **state)
{
    (void)state;
    struct ends e = make_ends();
    struct fc_text first = {0};
    seal(&e, FC_PAD_NONE, "first", 5);
    fc_text_add(&first, e.packet.data, e.packet.len);
    seal(&e, FC_PAD_NONE, "second", 6);
    assert_true(opens(&e.server, e.packet.data, e.packet.len, "second"));
    assert_false(opens(&e.server, e.packet.data, e.packet.len, NULL)); /* again */
    assert_false(opens(&e.server, first.data, first.len, NULL));       /* late */
    seal(&e, FC_PAD_NONE, "third", 5);                                 /* lost */
    seal(&e, FC_PAD_NONE, "fourth", 6);
    assert_true(opens(&e.server, e.packet.data, e.packet.len, "fourth"));
    assert_int_equal(e.server.receive.counter, 4);
    fc_text_free(&first);
    fc_text_free(&e.packet);
}

/* Another session's packet under the same keys; another number in a packet. */
static void test_other_session(void **state)
{
    (void)state;
    struct ends e = make_ends();
    e.client.session = 78;
    seal(&e, FC_PAD_NONE, "x", 1);
    assert_false(opens(&e.server, e.packet.data, e.packet.len, NULL));
    e.packet.data[FC_PACKET_HEADER] = 77;
    assert_false(opens(&e.server, e.packet.data, e.packet.len, NULL));
    assert_int_equal(fc_tunnel_session((void *)e.packet.data, FC_TUNNEL_HEADER - 1), 0);
    fc_text_free(&e.packet);
}

static void test_rekey(void **state)
{
    (void)state;
    struct ends e = make_ends();
    unsigned char first[FC_KEY_SIZE], second[FC_KEY_SIZE];
    memcpy(first, e.client.send.key, FC_KEY_SIZE);
    memcpy(second, first, FC_KEY_SIZE);
    fc_noise_rekey(second);
    for (unsigned i = 0; i < 2 * FC_TUNNEL_REKEY + 2; i++) {
        seal(&e, FC_PAD_NONE, "x", 1);
        if (i % 3 == 0 || i == FC_TUNNEL_REKEY - 1) /* the others are lost */
            assert_true(opens(&e.server, e.packet.data, e.packet.len, "x"));
        if (i == FC_TUNNEL_REKEY - 1)
            assert_memory_equal(e.client.send.key, first, FC_KEY_SIZE);
        if (i == FC_TUNNEL_REKEY) {
            assert_memory_equal(e.client.send.key, second, FC_KEY_SIZE);
            assert_true(opens(&e.server, e.packet.data, e.packet.len, "x"));
            assert_memory_equal(e.server.receive.key, second, FC_KEY_SIZE);
        }
    }
    assert_int_equal(e.client.send.age, 2);
    assert_int_equal(e.server.receive.age, 2);
    fc_text_free(&e.packet);
}

/* Lost packets across several rekeys are fine; a jump that is too far, or past the end, is not. A
 * forged counter must not move anything. */
static void test_counter_jumps(void **state)
{
    (void)state;
    struct ends e = make_ends();
    seal(&e, FC_PAD_NONE, "x", 1);
    for (int byte = 0; byte < 8; byte++) {
        e.packet.data[16 + byte] ^= 0x10;
        assert_false(opens(&e.server, e.packet.data, e.packet.len, NULL));
        e.packet.data[16 + byte] ^= 0x10;
    }
    assert_int_equal(e.server.receive.counter, 0);
    assert_int_equal(e.server.receive.age, 0);
    e.client.send.counter = FC_TUNNEL_SKIP * FC_TUNNEL_REKEY + 5;
    seal(&e, FC_PAD_NONE, "far", 3);
    assert_true(opens(&e.server, e.packet.data, e.packet.len, "far"));
    e.client.send.counter += (uint64_t)(FC_TUNNEL_SKIP + 1) * FC_TUNNEL_REKEY;
    seal(&e, FC_PAD_NONE, "too far", 7);
    assert_false(opens(&e.server, e.packet.data, e.packet.len, NULL));
    fc_text_free(&e.packet);
}

static void test_spent(void **state)
{
    (void)state;
    struct ends e = make_ends();
    struct fc_error err = {0};
    e.client.send.counter = FC_TUNNEL_COUNTERS - 1;
    e.server.receive.counter = FC_TUNNEL_COUNTERS - 1;
    e.server.receive.age = e.client.send.age = (FC_TUNNEL_COUNTERS - 1) / FC_TUNNEL_REKEY;
    assert_false(fc_tunnel_spent(&e.client));
    seal(&e, FC_PAD_NONE, "last", 4);
    assert_true(opens(&e.server, e.packet.data, e.packet.len, "last"));
    assert_true(fc_tunnel_spent(&e.client) && fc_tunnel_spent(&e.server));
    assert_int_equal(fc_tunnel_seal(&e.client, FC_PAD_NONE, "x", 1, &e.packet, &err), FC_ERR_USAGE);
    fc_text_free(&e.packet);
}

static void test_padding_hides_lengths(void **state)
{
    (void)state;
    struct ends e = make_ends();
    static char text[3000];
    memset(text, 'a', sizeof text - 1);
    size_t seen[3] = {0}, last[3] = {0};
    for (size_t n = 1; n < 2900; n += 7)
        for (int pad = FC_PAD_NONE; pad <= FC_PAD_POWER2; pad++) {
            text[n] = '\0';
            seal(&e, (enum fc_pad)pad, text, n);
            assert_true(opens(&e.server, e.packet.data, e.packet.len, text));
            text[n] = 'a';
            size_t body = e.packet.len - FC_TUNNEL_HEADER - FC_NOISE_TAG;
            assert_true(body >= n + 4);
            seen[pad] += body != last[pad];
            last[pad] = body;
            if (pad == FC_PAD_256)
                assert_int_equal(body % 256, 0);
        }
    assert_int_equal(seen[FC_PAD_NONE], 415);
    assert_int_equal(seen[FC_PAD_256], 12);
    assert_int_equal(seen[FC_PAD_POWER2], 5); /* 256 to 4096 */
    assert_int_equal(fc_pad_length(FC_PAD_POWER2, (1 << 20) + 1), 2 << 20);
    assert_int_equal(fc_pad_length(FC_PAD_POWER2, (5 << 20) + 1), 6 << 20);
    assert_true(fc_tunnel_largest(5 << 20) >= FC_TUNNEL_HEADER + (6 << 20) + FC_NOISE_TAG);
    fc_text_free(&e.packet);
}

/* A peer that holds the keys, and lies about the length inside. */
static void test_lying_length(void **state)
{
    (void)state;
    struct ends e = make_ends();
    const char *frame;
    size_t n;
    unsigned char packet[FC_TUNNEL_HEADER + 4 + 2 + FC_NOISE_TAG] = {0};
    for (unsigned length = 0; length < 6; length++) {
        fc_packet_header(packet, FC_PACKET_DATA);
        memset(packet + 8, 0, sizeof packet - 8);
        packet[8] = 77;
        packet[16] = (unsigned char)length; /* the counter */
        unsigned char *body = packet + FC_TUNNEL_HEADER;
        body[0] = (unsigned char)length;
        body[3] = length == 5 ? 0x80 : 0;
        fc_noise_encrypt(e.client.send.key, length, packet, FC_TUNNEL_HEADER, body, 6, body);
        assert_int_equal(fc_tunnel_open(&e.server, packet, sizeof packet, &frame, &n), length <= 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_every_byte_is_bound),
        cmocka_unit_test(test_replay_and_order),
        cmocka_unit_test(test_other_session),
        cmocka_unit_test(test_rekey),
        cmocka_unit_test(test_counter_jumps),
        cmocka_unit_test(test_spent),
        cmocka_unit_test(test_padding_hides_lengths),
        cmocka_unit_test(test_lying_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
