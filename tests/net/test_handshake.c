/* The handshake: wrong, unknown and revoked keys, replays, a man in the middle, other versions.
 * Whatever happens, no frame comes out of the gate but from a client in the list, and what each
 * side says is checked. */
#define _GNU_SOURCE
#include "ends.h"

#include <sodium.h>

/* ---- the good case ---- */

static void test_session(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_text sealed = {0};
    bool done;
    struct fc_channel *c = shake(w, 3);
    assert_int_equal(stats_of(w).on_trial, 1);
    assert_int_equal(stats_of(w).sessions, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(speaks(w, c));
        assert_string_equal(w->result.identity->name, "client-3");
        assert_memory_equal(w->result.identity->key, w->client[3]->public_key, FC_KEY_SIZE);
        assert_int_equal(w->result.identity->tokens_per_day, 1000003);
        assert_true(w->result.identity->rate > 1003.4 && w->result.identity->rate < 1003.6);
        assert_int_equal(
            fc_gate_seal(w->gate, w->result.session, "answer", 6, &sealed, &done, &err), FC_OK);
        assert_true(done);
        assert_null(memmem(sealed.data, sealed.len, "answer", 6));
        assert_int_equal(to_client(w, c, sealed.data, sealed.len, &err), FC_CHANNEL_FRAME);
        assert_int_equal(to_client(w, c, sealed.data, sealed.len, &err), FC_CHANNEL_DROP);
    }
    assert_int_equal(stats_of(w).sessions, 1);
    assert_int_equal(stats_of(w).on_trial, 0);
    assert_int_equal(
        fc_gate_seal(w->gate, w->result.session ^ 1024, "answer", 6, &sealed, &done, &err), FC_OK);
    assert_false(done);
    assert_string_equal(fc_channel_trouble(c), "");
    assert_int_equal(w->notices, 0);
    fc_text_free(&sealed);
    fc_channel_close(c);
}

/* Two sessions of one client have nothing in common; a packet of one is nothing in the other. */
static void test_sessions_are_apart(void **state)
{
    struct world *w = *state;
    struct fc_channel *a = shake(w, 0), *b = shake(w, 0);
    struct fc_text fa = frame_of(a, "question"), fb = frame_of(b, "question");
    assert_memory_not_equal(fa.data + 8, fb.data + 8, 8);
    assert_memory_not_equal(fa.data + 24, fb.data + 24, 8);
    memcpy(fa.data + 8, fb.data + 8, 8);
    assert_int_equal(to_gate(w, fa.data, fa.len), FC_GATE_DROP);
    assert_true(speaks(w, a));
    uint64_t session = w->result.session;
    assert_true(speaks(w, b));
    assert_true(w->result.session != session);
    fc_text_free(&fa);
    fc_text_free(&fb);
    fc_channel_close(a);
    fc_channel_close(b);
}

/* ---- wrong keys ---- */

static void test_wrong_server_key(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_channel *c = connect_to(w->client[0], w->stranger);
    struct fc_text first = first_of(c);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_int_equal(w->result.n_reply, FC_REFUSAL_SIZE);
    assert_non_null(strstr(w->said, "not made for this server's key"));
    assert_int_equal(reply_to_client(w, c, &err), FC_CHANNEL_DROP);
    assert_int_equal(err.code, FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "does not hold the key"));
    assert_false(fc_channel_ready(c, w->now));
    assert_int_equal(stats_of(w).handshakes, 0);
    fc_text_free(&first);
    fc_channel_close(c);
}

static void test_unknown_client(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    char key[FC_KEY_TEXT_SIZE];
    struct fc_channel *c = connect_to(w->stranger, w->server);
    struct fc_text first = first_of(c);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    fc_key_text(key, w->stranger->public_key);
    assert_non_null(strstr(w->said, key));
    fc_key_text(key, w->stranger->secret);
    assert_null(strstr(w->said, key));
    reply_to_client(w, c, &err);
    assert_int_equal(err.code, FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "does not know this client's key"));
    assert_int_equal(stats_of(w).handshakes + stats_of(w).on_trial, 0);
    fc_text_free(&first);
    fc_channel_close(c);
}

/* Whoever knows the public key of a client and of the server is neither. */
static void test_stolen_public_key(void **state)
{
    struct world *w = *state;
    struct fc_key_pair claim = *w->stranger;
    memcpy(claim.public_key, w->client[0]->public_key, FC_KEY_SIZE);
    struct fc_channel *c = connect_to(&claim, w->server);
    struct fc_text first = first_of(c);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_int_equal(w->result.n_reply, FC_REFUSAL_SIZE);
    assert_int_equal(stats_of(w).handshakes, 0);
    fc_text_free(&first);
    fc_channel_close(c);
}

static void test_revoked_key(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_channel *gone = shake(w, 0), *stays = shake(w, 1), *trial = shake(w, 0);
    assert_true(speaks(w, gone));
    uint64_t session = w->result.session;
    assert_true(speaks(w, stays));
    write_text(w->clients, "nonsense\n", 9, 0600); /* a broken list changes nothing */
    assert_int_equal(fc_gate_reload(w->gate, &err), FC_ERR_INPUT);
    assert_true(speaks(w, gone));
    struct fc_key_pair *kept = w->client[0];
    w->client[0] = NULL;
    write_list(w->clients, w->client, CLIENTS);
    w->client[0] = kept;
    assert_int_equal(fc_gate_reload(w->gate, &err), FC_OK);
    err = (struct fc_error){0};
    assert_false(fc_gate_knows(w->gate, kept->public_key));
    assert_true(fc_gate_knows(w->gate, w->client[1]->public_key));
    assert_int_equal(stats_of(w).sessions, 1);
    assert_int_equal(stats_of(w).on_trial, 0);

    struct fc_text out = {0};
    bool sealed = true;
    assert_int_equal(fc_gate_seal(w->gate, session, "answer", 6, &out, &sealed, &err), FC_OK);
    assert_false(sealed); /* nor does anything go out to it */
    fc_text_free(&out);
    assert_false(speaks(w, trial));
    assert_false(speaks(w, gone));
    assert_int_equal(reply_to_client(w, gone, &err), FC_CHANNEL_LOST);
    struct fc_text first = first_of(gone);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    reply_to_client(w, gone, &err);
    assert_int_equal(err.code, FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "or no longer"));
    assert_true(speaks(w, stays));
    fc_text_free(&first);
    fc_channel_close(gone);
    fc_channel_close(trial);
    fc_channel_close(stays);
}

/* New bounds of a client that stays reach its session. */
static void test_changed_bounds(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    char line[200], key[FC_KEY_TEXT_SIZE];
    struct fc_channel *c = shake(w, 2);
    fc_key_text(key, w->client[2]->public_key);
    snprintf(line, sizeof line, "%s renamed tokens-per-day=7\n", key);
    write_text(w->clients, line, strlen(line), 0600);
    assert_int_equal(fc_gate_reload(w->gate, &err), FC_OK);
    assert_true(speaks(w, c));
    assert_string_equal(w->result.identity->name, "renamed");
    assert_int_equal(w->result.identity->tokens_per_day, 7);
    fc_channel_close(c);
}

/* ---- replays ---- */

/* The first packet again: the same answer, no second session. After a restart of the server: a
 * session that nobody can use, and old packets that are worth nothing in it. */
static void test_replayed_first(void **state)
{
    struct world *w = *state;
    struct fc_channel *c = connect_to(w->client[0], w->server);
    struct fc_text first = first_of(c), again = first_of(c);
    struct fc_error err = {0};
    unsigned char answer[FC_SECOND_SIZE];
    assert_int_equal(again.len, first.len); /* the client repeats itself byte for byte */
    assert_memory_equal(again.data, first.data, first.len);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    memcpy(answer, w->result.reply, sizeof answer);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_memory_equal(w->result.reply, answer, sizeof answer);
    assert_int_equal(stats_of(w).on_trial, 1);
    assert_int_equal(stats_of(w).handshakes, 1);
    assert_int_equal(to_client(w, c, answer, sizeof answer, &err), FC_CHANNEL_OPENED);
    struct fc_text old = frame_of(c, "question");
    assert_int_equal(to_gate(w, old.data, old.len), FC_GATE_FRAME);
    assert_int_equal(to_gate(w, old.data, old.len), FC_GATE_DROP);
    assert_int_equal(stats_of(w).dropped, 1);

    fc_gate_close(w->gate);
    open_gate(w, 0);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_int_equal(w->result.n_reply, FC_SECOND_SIZE);
    assert_memory_not_equal(w->result.reply + 8, answer + 8,
                            32); /* a fresh share of the server's */
    assert_int_equal(to_gate(w, old.data, old.len), FC_GATE_REPLY); /* "no such session" */
    assert_int_equal(w->result.n_reply, FC_REFUSAL_SIZE);
    assert_int_equal(stats_of(w).sessions, 0);
    fc_text_free(&first);
    fc_text_free(&again);
    fc_text_free(&old);
    fc_channel_close(c);
}

static void test_replayed_second(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_channel *a = connect_to(w->client[0], w->server);
    struct fc_channel *b = connect_to(w->client[0], w->server);
    struct fc_text fa = first_of(a), fb = first_of(b);
    unsigned char old[FC_SECOND_SIZE];
    assert_int_equal(to_gate(w, fa.data, fa.len), FC_GATE_REPLY);
    memcpy(old, w->result.reply, sizeof old);
    assert_int_equal(to_client(w, a, old, sizeof old, &err), FC_CHANNEL_OPENED);
    assert_int_equal(to_client(w, a, old, sizeof old, &err), FC_CHANNEL_DROP);
    assert_int_equal(to_client(w, b, old, sizeof old, &err), FC_CHANNEL_DROP);
    assert_false(fc_channel_ready(b, w->now));
    assert_int_equal(to_gate(w, fb.data, fb.len), FC_GATE_REPLY);
    assert_int_equal(reply_to_client(w, b, &err),
                     FC_CHANNEL_OPENED); /* the true one still counts */
    assert_true(speaks(w, b) && speaks(w, a));
    fc_text_free(&fa);
    fc_text_free(&fb);
    fc_channel_close(a);
    fc_channel_close(b);
}

/* ---- a man in the middle with keys of his own ---- */

static void test_man_in_the_middle(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_channel *c = connect_to(w->client[0], w->server);
    struct fc_text first = first_of(c);
    unsigned char second[FC_SECOND_SIZE];
    struct fc_noise noise;
    struct fc_tunnel tunnel;

    /* He cannot read what the client wrote to the server ... */
    assert_false(fc_handshake_read(&noise, w->stranger, (unsigned char *)first.data, first.len));
    /* ... answers all the same, as well as he can: with everything right but the server's secret.
     */
    struct fc_key_pair false_server = *w->stranger;
    memcpy(false_server.public_key, w->server->public_key, FC_KEY_SIZE);
    fc_handshake_read(&noise, &false_server, (unsigned char *)first.data, first.len);
    memcpy(noise.peer, w->client[0]->public_key, FC_KEY_SIZE);
    assert_true(fc_handshake_answer(&noise, 5, second, &tunnel));
    assert_int_equal(to_client(w, c, second, sizeof second, &err), FC_CHANNEL_DROP);
    assert_false(fc_channel_ready(c, w->now));
    assert_non_null(strstr(fc_channel_trouble(c), "in the middle"));

    /* As a client of his own he is a stranger, and as the true client's relay he changes nothing.
     */
    struct fc_channel *his = connect_to(w->stranger, w->server);
    struct fc_text hello = first_of(his);
    assert_int_equal(to_gate(w, hello.data, hello.len), FC_GATE_REPLY);
    assert_int_equal(w->result.n_reply, FC_REFUSAL_SIZE);
    memcpy(first.data + 8, hello.data + 8, FC_KEY_SIZE); /* his share in the client's packet */
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_int_equal(w->result.n_reply, FC_REFUSAL_SIZE);
    reply_to_client(w, c, &err);
    assert_int_equal(err.code, FC_OK); /* a refusal of what the client never sent */
    assert_int_equal(stats_of(w).handshakes, 0);
    fc_text_free(&first);
    fc_text_free(&hello);
    fc_channel_close(c);
    fc_channel_close(his);
}

/* What the server says in clear counts only if it is about what was sent, and untouched. */
static void test_refusals_are_bound(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_channel *c = connect_to(w->client[0], w->stranger), *other = shake(w, 0);
    struct fc_text first = first_of(c);
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    for (size_t at = 0; at < w->result.n_reply; at++)
        for (int bit = 0; bit < 8; bit++) {
            w->result.reply[at] ^= (unsigned char)(1 << bit);
            assert_int_equal(reply_to_client(w, c, &err), FC_CHANNEL_DROP);
            assert_int_equal(err.code, FC_OK);
            w->result.reply[at] ^= (unsigned char)(1 << bit);
        }
    assert_int_equal(reply_to_client(w, other, &err), FC_CHANNEL_DROP);
    assert_int_equal(err.code, FC_OK);
    assert_true(fc_channel_ready(other, w->now));
    reply_to_client(w, c, &err);
    assert_int_equal(err.code, FC_ERR_INPUT);

    /* Forged for the very packet, in a session that works: only "no such session" makes sense then,
     * and costs a handshake. */
    err = (struct fc_error){0};
    struct fc_text sealed = frame_of(other, "question");
    for (int code = FC_REFUSAL_KEY; code <= FC_REFUSAL_SESSION; code++) {
        unsigned char forged[FC_REFUSAL_SIZE];
        fc_packet_refuse(forged, (enum fc_packet_refusal)code, (unsigned char *)sealed.data,
                         sealed.len);
        assert_int_equal(to_client(w, other, forged, sizeof forged, &err),
                         code == FC_REFUSAL_SESSION ? FC_CHANNEL_LOST : FC_CHANNEL_DROP);
        assert_int_equal(err.code, FC_OK);
    }
    fc_text_free(&sealed);
    fc_text_free(&first);
    fc_channel_close(c);
    fc_channel_close(other);
}

/* ---- versions ---- */

/* What a server of version `version` would say to a packet. */
static void refuse_as(unsigned char refusal[FC_REFUSAL_SIZE], unsigned version,
                      const struct fc_text *packet)
{
    crypto_generichash_state s;
    fc_packet_refuse(refusal, FC_REFUSAL_VERSION, (unsigned char *)packet->data, packet->len);
    refusal[4] = (unsigned char)version;
    crypto_generichash_init(&s, NULL, 0, 16);
    crypto_generichash_update(&s, refusal, 10);
    crypto_generichash_update(&s, (unsigned char *)packet->data, packet->len);
    crypto_generichash_final(&s, refusal + 10, 16);
}

static void test_versions(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_channel *c = connect_to(w->client[0], w->server);
    struct fc_text first = first_of(c);
    unsigned char refusal[FC_REFUSAL_SIZE];
    /* A client of another version, and one whose version was changed on the way. */
    for (int version = 0; version < 3; version += 2) {
        first.data[4] = (char)version;
        w->now += 10;
        assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
        assert_int_equal(w->result.n_reply, FC_REFUSAL_SIZE);
        assert_int_equal(fc_packet_refusal_of(w->result.reply, FC_REFUSAL_SIZE,
                                              (unsigned char *)first.data, first.len),
                         FC_REFUSAL_VERSION);
        assert_non_null(strstr(w->said, version ? "version 2" : "version 0"));
        assert_non_null(strstr(w->said, "speaks 1"));
        reply_to_client(w, c, &err);
        assert_int_equal(err.code, FC_OK); /* it did not send that: nothing to believe */
    }
    first.data[4] = 1;
    /* An answer whose version was changed is none. */
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    w->result.reply[4] = 0;
    assert_int_equal(reply_to_client(w, c, &err), FC_CHANNEL_DROP);
    /* A server of the next version. */
    refuse_as(refusal, 2, &first);
    to_client(w, c, refusal, sizeof refusal, &err);
    assert_int_equal(err.code, FC_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "speaks version 2"));
    assert_non_null(strstr(err.text, "expected 1"));
    fc_text_free(&first);
    fc_channel_close(c);
}

/* The header is part of what both sign: two ends that were made to see different ones do not meet.
 */
static void test_header_is_bound(void **state)
{
    struct world *w = *state;
    struct fc_noise noise;
    unsigned char packet[FC_FIRST_SIZE], prologue[] = "FedCoT sessionFCoS\2\0\1";
    static const unsigned char secret[FC_KEY_SIZE] = {7};
    fc_packet_header(packet, FC_PACKET_FIRST);
    for (unsigned char version = 1; version <= 2; version++) {
        prologue[18] = version;
        fc_noise_start(&noise, prologue, sizeof prologue, w->client[0], w->server->public_key);
        assert_true(fc_noise_write_first(&noise, secret, NULL, 0, packet + FC_PACKET_HEADER));
        assert_int_equal(fc_handshake_read(&noise, w->server, packet, sizeof packet), version == 1);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_session),           TEST(test_sessions_are_apart), TEST(test_wrong_server_key),
        TEST(test_unknown_client),    TEST(test_stolen_public_key),  TEST(test_revoked_key),
        TEST(test_changed_bounds),    TEST(test_replayed_first),     TEST(test_replayed_second),
        TEST(test_man_in_the_middle), TEST(test_refusals_are_bound), TEST(test_versions),
        TEST(test_header_is_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
