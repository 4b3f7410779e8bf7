/* Encrypted jobs over real sockets, through a relay of ours that reads, changes, repeats and loses
 * what passes: what it sees, and that the job does not care. Wrong keys, a revoked key, a restarted
 * server, another client's job. */
#include "harness.h"

#include "keys.h"

#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <sodium.h>

struct world {
    char folder[200], clients[240];
    struct fc_key_pair *server, *client[2], *stranger;
    struct running running;
    atomic_int reload;
};

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    make_folder(w->folder, sizeof w->folder);
    snprintf(w->clients, sizeof w->clients, "%s/clients", w->folder);
    w->server = make_key();
    w->stranger = make_key();
    w->client[0] = make_key();
    w->client[1] = make_key();
    write_list(w->clients, w->client, 2);
    w->running.options.longest = 0.01;
    w->running.options.reload = &w->reload;
    w->running.options.server.gate =
        (struct fc_gate_options){.key = w->server, .clients = w->clients, .pad = FC_PAD_256};
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    fc_key_pair_free(w->server);
    fc_key_pair_free(w->stranger);
    fc_key_pair_free(w->client[0]);
    fc_key_pair_free(w->client[1]);
    remove_folder(w->folder);
    free(w);
    return 0;
}

/* ---- the relay ---- */

struct relay {
    int front, back;
    double share; /* of messages that it harms */
    uint64_t random;
    struct fc_text seen;      /* everything, both ways */
    struct fc_text old[2][8]; /* to be sent again */
    unsigned harmed;
    atomic_int hold; /* HOLD_NEXT: see hold_back */
    atomic_int stop;
    char address[64];
    pthread_t thread;
};

static double draw(struct relay *r)
{
    return fc_philox_uniform(23, r->random++, 0);
}

static void pass(int to, void *control, const struct fc_text *bytes)
{
    struct nn_cmsghdr head;
    memcpy(&head, control, sizeof head);
    struct nn_iovec part = {bytes->data, bytes->len};
    struct nn_msghdr h = {&part, 1, control, head.cmsg_len};
    nn_sendmsg(to, &h, NN_DONTWAIT);
}

/* What a raw answer begins with: the number of its request, which is no part of the packet. */
#define NUMBER 4

enum { HOLD_OFF, HOLD_NEXT, HOLD_ONE, HOLD_TWO, HOLD_PLAYED };

/* The answer to a request waits until the client has asked again and the server has answered that
 * too; then it goes out, and the second answer, which is as authentic and newer, on the route of
 * the next request. Whether the message was taken care of. */
static bool hold_back(struct relay *r, int way, void *control, const struct fc_text *bytes)
{
    struct fc_text *one = &r->old[1][0], *two = &r->old[1][1];
    int hold = atomic_load(&r->hold);
    if (way == 1 && hold == HOLD_NEXT) {
        fc_text_clear(one);
        fc_text_add(one, bytes->data, bytes->len);
        atomic_store(&r->hold, HOLD_ONE);
        return true;
    }
    if (way == 1 && hold == HOLD_ONE) {
        fc_text_clear(two);
        fc_text_add(two, bytes->data, bytes->len);
        pass(r->front, control, one);
        atomic_store(&r->hold, HOLD_TWO);
        return true;
    }
    if (way == 0 && hold == HOLD_TWO) {
        two->len -= NUMBER; /* the route has the number of the request that came now */
        memmove(two->data, two->data + NUMBER, two->len);
        pass(r->front, control, two);
        atomic_store(&r->hold, HOLD_PLAYED);
    }
    return false;
}

/* One message of a direction. */
static void treat(struct relay *r, int way, void *control, struct fc_text *bytes)
{
    int to = way ? r->front : r->back;
    struct fc_text *old = &r->old[way][r->random % 8];
    fc_text_add(&r->seen, bytes->data, bytes->len);
    if (atomic_load(&r->hold)) {
        if (!hold_back(r, way, control, bytes))
            pass(to, control, bytes);
        return;
    }
    bool harm = draw(r) < r->share;
    double kind = draw(r);
    r->harmed += harm;
    if (harm && kind < 0.5 && old->len > NUMBER) {
        if (way == 1)
            memcpy(old->data, bytes->data, NUMBER);
        pass(to, control, old); /* on this route, as if it were new; it may never have come */
    }
    fc_text_clear(old);
    fc_text_add(old, bytes->data, bytes->len);
    if (harm && kind < 0.25)
        return; /* lost, or held back */
    if (harm && kind < 0.5)
        pass(to, control, bytes);
    if (harm && kind >= 0.5 && kind < 0.75)
        bytes->data[(size_t)(draw(r) * (float)bytes->len)] ^= (char)(1 << (r->random % 8));
    if (harm && kind >= 0.75)
        bytes->len = (size_t)(draw(r) * (float)bytes->len);
    pass(to, control, bytes);
}

static void move_one(struct relay *r, int way)
{
    void *control = NULL, *body = NULL;
    struct nn_iovec part = {&body, NN_MSG};
    struct nn_msghdr h = {&part, 1, &control, NN_MSG};
    int n = nn_recvmsg(way ? r->back : r->front, &h, NN_DONTWAIT);
    if (n < 0)
        return;
    struct fc_text bytes = {0};
    fc_text_add(&bytes, body, (size_t)n);
    treat(r, way, control, &bytes);
    fc_text_free(&bytes);
    nn_freemsg(body);
    nn_freemsg(control);
}

static void *relay_main(void *argument)
{
    struct relay *r = argument;
    while (!atomic_load(&r->stop)) {
        struct nn_pollfd wait[] = {{r->front, NN_POLLIN, 0}, {r->back, NN_POLLIN, 0}};
        nn_poll(wait, 2, 10);
        move_one(r, 0);
        move_one(r, 1);
    }
    return NULL;
}

static void start_relay(struct relay *r, const char *server, double share)
{
    *r = (struct relay){.share = share};
    snprintf(r->address, sizeof r->address, "tcp://127.0.0.1:%d", free_port(23800));
    r->front = nn_socket(AF_SP_RAW, NN_REP);
    r->back = nn_socket(AF_SP_RAW, NN_REQ);
    assert_true(nn_bind(r->front, r->address) >= 0);
    assert_true(nn_connect(r->back, server) >= 0);
    assert_int_equal(pthread_create(&r->thread, NULL, relay_main, r), 0);
}

static void stop_relay(struct relay *r)
{
    atomic_store(&r->stop, 1);
    pthread_join(r->thread, NULL);
    nn_close(r->front);
    nn_close(r->back);
    for (int i = 0; i < 16; i++)
        fc_text_free(&r->old[i / 8][i % 8]);
}

static bool saw(const struct relay *r, const void *bytes, size_t len)
{
    return memmem(r->seen.data, r->seen.len, bytes, len) != NULL;
}

/* ---- jobs ---- */

static struct fc_client_options keyed(const struct world *w, const char *address, uint64_t job,
                                      const struct fc_key_pair *own,
                                      const struct fc_key_pair *pinned)
{
    struct fc_client_options o = client_options(address, job);
    o.timeout = 30;
    o.key = own;
    o.server_key = pinned ? pinned->public_key : w->server->public_key;
    o.pad = FC_PAD_256;
    return o;
}

static struct fc_client *open_keyed(const struct world *w, const char *address, uint64_t job,
                                    size_t client)
{
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    struct fc_client_options o = keyed(w, address, job, w->client[client], NULL);
    o.resend = 0.1;
    if (fc_client_open(&c, &o, &err) != FC_OK)
        fail_msg("%s", err.text);
    return c;
}

/* Receives the answers of n items, each right and once. */
static void receive_all(struct fc_client *c, const char *name, size_t n)
{
    struct fc_error err = {0};
    unsigned char *seen = calloc(n, 1);
    for (size_t received = 0; received < n;) {
        struct fc_answer a;
        bool found;
        if (fc_client_next(c, 1, &a, &found, &err) != FC_OK)
            fail_msg("%s", err.text);
        if (!found)
            continue;
        assert_true(answer_is_right(&a, name));
        assert_true(a.index < n && !seen[a.index]);
        seen[a.index] = 1;
        received++;
        assert_int_equal(fc_client_ack(c, a.index, &err), FC_OK);
    }
    free(seen);
}

static void test_wire_shows_nothing(void **state)
{
    struct world *w = *state;
    struct relay *r = calloc(1, sizeof *r);
    struct fc_error err = {0};
    struct fc_client_stats stats;
    for (int clear = 0; clear < 2; clear++) { /* in clear as a control: then it sees all */
        struct fc_key_pair *key = w->server;
        w->running.stop = w->running.ready = 0;
        w->running.options.server.gate.key = clear ? NULL : key;
        start_server(&w->running, 23000);
        start_relay(r, w->running.address, 0);
        struct fc_client_options o =
            clear ? client_options(r->address, 5) : keyed(w, r->address, 5, w->client[0], NULL);
        struct fc_client *c = NULL;
        assert_int_equal(fc_client_open(&c, &o, &err), FC_OK);
        submit(c, "the ward", 0, 40);
        receive_all(c, "the ward", 40);
        fc_client_stats(c, &stats);
        assert_int_equal(stats.handshakes, clear ? 0 : 1);
        assert_int_equal(fc_client_finish(c, &err), FC_OK);
        fc_client_close(c);
        stop_relay(r);
        stop_server(&w->running);
        assert_true(r->seen.len > 3000);
        assert_int_equal(saw(r, "prompt 3 of the ward", 20), clear);
        assert_int_equal(saw(r, "answer to", 9), clear);
        assert_int_equal(saw(r, "\"job\"", 5), clear);
        assert_int_equal(saw(r, "fake", 4), clear); /* the model's name */
        assert_int_equal(saw(r, "FCoT", 4), clear);
        assert_false(saw(r, w->client[0]->public_key, FC_KEY_SIZE)); /* who it is */
        assert_false(saw(r, w->client[0]->secret, FC_KEY_SIZE));
        fc_text_free(&r->seen);
    }
    free(r);
}

/* A fifth of the messages lost, repeated, changed or cut, both ways: as if nothing had been. */
static void test_hostile_wire(void **state)
{
    struct world *w = *state;
    struct relay *r = calloc(1, sizeof *r);
    struct fc_error err = {0};
    size_t n = getenv("FEDCOT_TEST_SHORT") ? 60 : 150;
    start_server(&w->running, 23000);
    start_relay(r, w->running.address, 0.2);
    struct fc_client_options o = keyed(w, r->address, 6, w->client[0], NULL);
    o.resend = 0.03;
    struct fc_client *c = NULL;
    if (fc_client_open(&c, &o, &err) != FC_OK)
        fail_msg("%s", err.text);
    for (size_t sent = 0; sent < n; sent += 10)
        submit(c, "storm", sent, 10);
    receive_all(c, "storm", n);
    if (fc_client_finish(c, &err) != FC_OK)
        fail_msg("%s", err.text);
    fc_client_close(c);
    stop_relay(r);
    stop_server(&w->running);
    assert_true(r->harmed > 5);
    assert_int_equal(atomic_load(&w->running.counts.submitted), n);
    assert_int_equal(w->running.stats.jobs, 0);
    fc_text_free(&r->seen);
    free(r);
}

/* An authentic answer that was held back does not answer another request. */
static void test_held_back_answer(void **state)
{
    struct world *w = *state;
    struct relay *r = calloc(1, sizeof *r);
    struct fc_error err = {0};
    start_server(&w->running, 23000);
    start_relay(r, w->running.address, 0);
    struct fc_client_options o = keyed(w, r->address, 12, w->client[0], NULL);
    struct fc_client *c = NULL;
    o.resend = 1;
    assert_int_equal(fc_client_open(&c, &o, &err), FC_OK);
    atomic_store(&r->hold, HOLD_NEXT);
    submit(c, "patience", 0, 3);
    receive_all(c, "patience", 3);
    assert_int_equal(fc_client_finish(c, &err), FC_OK);
    fc_client_close(c);
    stop_relay(r);
    stop_server(&w->running);
    assert_int_equal(atomic_load(&r->hold), HOLD_PLAYED);
    fc_text_free(&r->seen);
    free(r);
}

/* The server forgets its sessions when it starts again: another handshake, and the job goes on. */
static void test_restarted_server(void **state)
{
    struct world *w = *state;
    start_server(&w->running, 23000);
    struct fc_client *c = open_keyed(w, w->running.address, 7, 0);
    char address[64];
    strcpy(address, w->running.address);
    submit(c, "restart", 0, 5);
    receive_all(c, "restart", 5);
    stop_server(&w->running);
    w->running.stop = w->running.ready = 0;
    w->running.options.server.address = address;
    assert_int_equal(pthread_create(&w->running.thread, NULL, server_main, &w->running), 0);
    while (!atomic_load(&w->running.ready))
        fc_sleep(0.001);
    assert_int_equal(atomic_load(&w->running.ready), 1);
    struct fc_client_stats stats;
    struct fc_error err = {0};
    submit(c, "restart", 5, 5);
    for (size_t i = 0; i < 5;) {
        struct fc_answer a;
        bool found;
        if (fc_client_next(c, 1, &a, &found, &err) != FC_OK)
            fail_msg("%s", err.text);
        assert_true(!found || answer_is_right(&a, "restart"));
        i += found;
    }
    fc_client_stats(c, &stats);
    assert_int_equal(stats.handshakes, 2);
    assert_int_equal(stats.hellos, 2);
    fc_client_close(c);
    stop_server(&w->running);
}

static void expect_no_session(struct world *w, const struct fc_client_options *o, enum fc_code code,
                              const char *words)
{
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    enum fc_code got = fc_client_open(&c, o, &err);
    if (got != code || !strstr(err.text, words))
        fail_msg("code %d, expected %d: %s", got, code, err.text);
    assert_null(c);
    assert_int_equal(atomic_load(&w->running.counts.submitted), 0);
}

static void test_wrong_keys(void **state)
{
    struct world *w = *state;
    start_server(&w->running, 23000);
    const char *address = w->running.address;
    struct fc_client_options o = keyed(w, address, 8, w->client[0], w->stranger);
    expect_no_session(w, &o, FC_ERR_INPUT, "does not hold the key that --server-key names");
    o = keyed(w, address, 8, w->stranger, NULL);
    expect_no_session(w, &o, FC_ERR_INPUT, "does not know this client's key");
    o = client_options(address, 8);
    expect_no_session(w, &o, FC_ERR_INPUT, "encrypted sessions only");
    o.key = w->client[0];
    expect_no_session(w, &o, FC_ERR_USAGE, "both or neither");
    stop_server(&w->running);
    assert_int_equal(w->running.stats.frames_in, 0); /* nothing came further than the gate */
    assert_int_equal(w->running.stats.gate.handshakes, 0);
    assert_int_equal(w->running.stats.gate.refused, 2);

    w->running.stop = w->running.ready = 0; /* a server without keys */
    w->running.options.server.gate.key = NULL;
    start_server(&w->running, 23000);
    o = keyed(w, w->running.address, 8, w->client[0], NULL);
    o.timeout = 0.5;
    expect_no_session(w, &o, FC_ERR_NETWORK, "does not encrypt");
    stop_server(&w->running);
}

/* A client that is taken off the list in the middle of its job gets nothing more; its job is gone,
 * the other client's goes on. */
static void test_revoked_client(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_answer a;
    bool found;
    w->running.options.shortest = w->running.options.longest = 3600;
    start_server(&w->running, 23000);
    struct fc_client *gone = open_keyed(w, w->running.address, 9, 0);
    struct fc_client *stays = open_keyed(w, w->running.address, 10, 1);
    submit(gone, "gone", 0, 3);
    submit(stays, "stays", 0, 3);
    assert_int_equal(fc_client_next(gone, 0, &a, &found, &err), FC_OK);
    assert_int_equal(fc_client_next(stays, 0, &a, &found, &err), FC_OK);
    struct fc_key_pair *left[2] = {NULL, w->client[1]};
    write_list(w->clients, left, 2);
    atomic_store(&w->reload, 1);
    while (atomic_load(&w->reload) != 2)
        fc_sleep(0.001);
    enum fc_code code = FC_OK;
    while (code == FC_OK) {
        code = fc_client_next(gone, 1, &a, &found, &err);
        assert_false(code == FC_OK && found);
    }
    assert_int_equal(code, FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "or no longer"));
    err = (struct fc_error){0};
    assert_int_equal(fc_client_next(stays, 0, &a, &found, &err), FC_OK);
    assert_int_equal(fc_client_outstanding(stays), 3);
    fc_client_close(gone);
    fc_client_close(stays);
    stop_server(&w->running);
    assert_int_equal(w->running.stats.jobs, 1);
    assert_int_equal(atomic_load(&w->running.counts.cancelled), 3);
}

/* The id of a job is of no use to another client: under its key it names a job of its own. */
static void test_jobs_belong_to_keys(void **state)
{
    struct world *w = *state;
    start_server(&w->running, 23000);
    struct fc_client *mine = open_keyed(w, w->running.address, 11, 0);
    submit(mine, "mine", 0, 4);
    receive_all(mine, "mine", 3 + 1);
    struct fc_client *thief = open_keyed(w, w->running.address, 11, 1);
    submit(thief, "other", 0, 4); /* the same indexes with other texts: refused in one job */
    receive_all(thief, "other", 4);
    submit(mine, "mine", 4, 1); /* nobody has taken it over */
    struct fc_error err = {0};
    struct fc_answer a;
    bool found = false;
    while (!found)
        assert_int_equal(fc_client_next(mine, 1, &a, &found, &err), FC_OK);
    assert_true(answer_is_right(&a, "mine"));
    fc_client_close(mine);
    fc_client_close(thief);
    stop_server(&w->running);
    assert_int_equal(w->running.stats.jobs, 2);
    assert_int_equal(w->running.stats.refused, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_wire_shows_nothing),  TEST(test_hostile_wire), TEST(test_held_back_answer),
        TEST(test_restarted_server),    TEST(test_wrong_keys),   TEST(test_revoked_client),
        TEST(test_jobs_belong_to_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
