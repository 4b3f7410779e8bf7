/* The gate's table of sessions: ages, room, floods, notices, garbage. */
#define _GNU_SOURCE
#include "ends.h"

#include <sodium.h>

static void test_ages(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_channel *slow = shake(w, 0);
    w->now += 61; /* on trial for too long */
    assert_false(speaks(w, slow));
    assert_int_equal(reply_to_client(w, slow, &err), FC_CHANNEL_LOST);
    struct fc_channel *idle = shake(w, 0), *old = shake(w, 1);
    assert_true(speaks(w, idle) && speaks(w, old));
    fc_gate_sweep(w->gate, w->now);
    assert_int_equal(stats_of(w).sessions, 2);
    assert_int_equal(stats_of(w).on_trial, 0);
    for (int i = 0; i < 8; i++) { /* 7200 s in all, never silent */
        w->now += 899;
        assert_true(speaks(w, old));
    }
    assert_false(speaks(w, idle));
    fc_gate_sweep(w->gate, w->now);
    assert_int_equal(stats_of(w).sessions, 1);
    w->now += 10;
    assert_false(speaks(w, old));
    fc_gate_sweep(w->gate, w->now);
    assert_int_equal(stats_of(w).sessions, 0);

    struct fc_channel *c = shake(w, 2); /* the client ends it after an hour */
    assert_true(fc_channel_ready(c, w->now + 3600));
    assert_false(fc_channel_ready(c, w->now + 3601));
    assert_false(fc_channel_ready(c, w->now));
    fc_channel_close(c);
    fc_channel_close(slow);
    fc_channel_close(idle);
    fc_channel_close(old);
}

/* Hundreds of handshakes of one client, as from recorded ones, push nobody else out, nor the
 * session that the same client works with. */
static void test_flood(void **state)
{
    struct world *w = *state;
    fc_gate_close(w->gate);
    open_gate(w, 16);
    struct fc_channel *worker = shake(w, 0), *own = shake(w, 1);
    assert_true(speaks(w, worker) && speaks(w, own));
    for (int i = 0; i < 100; i++) {
        w->now += 0.01;
        fc_channel_close(shake(w, 1));
        assert_true(stats_of(w).on_trial <= 3);
    }
    assert_true(speaks(w, worker) && speaks(w, own));
    assert_int_equal(stats_of(w).handshakes, 102);
    fc_channel_close(worker);
    fc_channel_close(own);
}

/* A full table of working sessions: the one that was silent longest makes room. */
static void test_full_table(void **state)
{
    struct world *w = *state;
    fc_gate_close(w->gate);
    open_gate(w, 8);
    struct fc_channel *c[10];
    for (size_t i = 0; i < 8; i++) {
        w->now += 1;
        c[i] = shake(w, i / 2);
        assert_true(speaks(w, c[i]));
    }
    w->now += 1;
    assert_true(speaks(w, c[0]));
    c[8] = shake(w, 4);
    assert_true(speaks(w, c[8]));
    assert_int_equal(stats_of(w).sessions, 8);
    assert_false(speaks(w, c[1]));
    assert_true(speaks(w, c[0]) && speaks(w, c[2]));
    w->now += 1;
    c[9] = shake(w, 3); /* a third session of a client that has its share: its own oldest goes */
    assert_true(speaks(w, c[9]) && speaks(w, c[7]) && !speaks(w, c[6]));
    for (size_t i = 0; i < 10; i++)
        fc_channel_close(c[i]);
}

static void test_notices_are_few(void **state)
{
    struct world *w = *state;
    struct fc_channel *c = connect_to(w->stranger, w->server);
    struct fc_text first = first_of(c);
    for (int i = 0; i < 5; i++)
        assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_int_equal(w->notices, 1);
    w->now += 2;
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_int_equal(w->notices, 2);
    assert_non_null(strstr(w->said, "and 4 more"));
    assert_int_equal(stats_of(w).refused, 6);
    fc_text_free(&first);
    fc_channel_close(c);
}

/* Anything at all: never a frame, never a crash; what is not of this protocol is told apart. */
static void test_garbage(void **state)
{
    struct world *w = *state;
    unsigned char data[300];
    struct fc_channel *c = connect_to(w->client[0], w->server), *open = shake(w, 1);
    struct fc_text first = first_of(c);
    struct fc_error err = {0};
    fc_text_free(&first);
    for (size_t len = 0; len <= sizeof data; len++) {
        randombytes_buf_deterministic(data, sizeof data, (unsigned char[32]){(unsigned char)len});
        assert_int_equal(to_gate(w, data, len), FC_GATE_CLEAR);
        assert_int_equal(to_client(w, c, data, len, &err), FC_CHANNEL_DROP);
        for (int type = 0; type < 6 && len >= FC_PACKET_HEADER; type++) {
            fc_packet_header(data, (enum fc_packet_type)type);
            assert_int_not_equal(to_gate(w, data, len), FC_GATE_FRAME);
            assert_int_equal(to_client(w, c, data, len, &err), FC_CHANNEL_DROP);
            assert_int_equal(to_client(w, open, data, len, &err), FC_CHANNEL_DROP);
            data[7] = 1;
            assert_int_equal(to_gate(w, data, len), FC_GATE_DROP);
        }
    }
    assert_int_equal(err.code, FC_OK);
    assert_int_equal(to_gate(w, "FCoT\1\0\1\0 and more", 17), FC_GATE_CLEAR);
    assert_int_equal(to_client(w, c, "FCoT\1\0\1\0 and more", 17, &err), FC_CHANNEL_DROP);
    assert_non_null(strstr(fc_channel_trouble(c), "does not encrypt"));
    assert_true(speaks(w, open));
    fc_channel_close(c);
    fc_channel_close(open);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_ages),    TEST(test_flood), TEST(test_full_table), TEST(test_notices_are_few),
        TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
