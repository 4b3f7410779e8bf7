/* What a server says of itself, what it says when it has no room, and how it ends: status, busy
 * with a time to come back, draining, other versions. */
#include "harness.h"

#include "net/exchange.h"
#include "net/status.h"

static struct fc_status ask_status(const struct running *r)
{
    struct fc_error err = {0};
    struct fc_status s;
    struct fc_client_options o = client_options(r->address, 99);
    if (fc_status_ask(&o, &s, &err) != FC_OK)
        fail_msg("%s", err.text);
    return s;
}

static void test_status_of_a_server(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0, .longest = 0.001}};
    r.options.server.name = "fedcot 7.8.9";
    start_server(&r, 23800);
    struct fc_client *c = open_client(&r, 1);
    struct fc_status s = ask_status(&r);
    assert_string_equal(s.server, "fedcot 7.8.9");
    assert_string_equal(s.model, "fake");
    assert_int_equal(s.protocol, FC_PROTOCOL_VERSION);
    assert_int_equal(s.clients, 1);
    assert_int_equal(s.jobs, 1);
    assert_int_equal(s.answers + s.finished + s.tokens + s.draining, 0);
    assert_true(s.memory_bytes > 1 << 16);
    assert_true(s.uptime >= 0 && s.uptime < 300);
    submit(c, "s", 0, 5);
    for (int n = 0; n < 5;) {
        bool found;
        next(c, &found);
        n += found;
    }
    s = ask_status(&r);
    assert_int_equal(s.answers, 5);
    assert_int_equal(s.finished, 5);
    assert_int_equal(s.tokens, 5 * 17);
    assert_int_equal(s.waiting + s.running, 0);
    assert_true(s.text_bytes > 5 * 30 && s.text_bytes < 5 * 256);
    assert_int_equal(s.max_text_bytes, 256 << 20);
    fc_client_close(c);
    stop_server(&r);
}

static void test_text_and_json(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_status s = {.server = "fedcot 1",
                          .model = "m",
                          .clients = 2,
                          .jobs = 3,
                          .waiting = 4,
                          .running = 5,
                          .finished = 6,
                          .tokens_per_second = 7.5,
                          .uptime = 8,
                          .busy = 9,
                          .draining = true,
                          .memory_bytes = 10 << 20};
    struct fc_status back;
    cJSON *o = cJSON_CreateObject();
    assert_int_equal(fc_status_write(o, &s, &err), FC_OK);
    assert_int_equal(fc_status_read(&back, o, &err), FC_OK);
    assert_memory_equal(&back, &s, sizeof s);
    struct fc_text line = {0};
    fc_status_line(&line, &s);
    assert_non_null(strstr(line.data, "fedcot 1 (draining), up 8 s: 2 clients, 3 jobs, 4 waiting, "
                                      "5 running, 6 finished, 7.5 tokens/s"));
    assert_non_null(strstr(line.data, "memory 10.0 MiB"));
    assert_null(strchr(line.data, '\n'));
    fc_text_free(&line);

    /* What a server may send: an old one less, a malicious one control characters and nonsense. */
    cJSON_DeleteItemFromObject(o, "tokens_per_second");
    cJSON_ReplaceItemInObject(o, "model", cJSON_CreateString("a\033[31mb\n"));
    assert_int_equal(fc_status_read(&back, o, &err), FC_OK);
    assert_string_equal(back.model, "a?[31mb?");
    cJSON_ReplaceItemInObject(o, "jobs", cJSON_CreateNumber(-1));
    assert_int_equal(fc_status_read(&back, o, &err), FC_ERR_INPUT);
    cJSON_Delete(o);
}

struct told {
    unsigned n;
    double least;
};

static void told_busy(void *context, double seconds)
{
    struct told *t = context;
    t->n++;
    t->least = t->n == 1 || seconds < t->least ? seconds : t->least;
}

/* One place for a job: the second client is told busy, with a time, until the first one is done. */
static void test_busy_until_there_is_room(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0, .longest = 0.001}};
    r.options.server.max_jobs = 1;
    r.options.server.max_silence = 1; /* the first one's client will be silent */
    start_server(&r, 23800);
    double begun = fc_now();
    struct fc_client *first = open_client(&r, 1), *second;
    struct told told = {0};
    struct fc_error err = {0};
    struct fc_client_options o = client_options(r.address, 2);
    o.busy = told_busy;
    o.busy_context = &told;
    o.timeout = 30;
    assert_int_equal(fc_client_open(&second, &o, &err), FC_OK);
    if (told.n) /* unless the machine slept longer than the first client was silent */
        assert_true(told.least >= 0.1 && told.least <= 1);
    else
        assert_true(fc_now() - begun > 1);
    struct fc_status s = ask_status(&r);
    assert_true(s.busy >= told.n);
    assert_int_equal(s.dropped, 1);
    fc_client_close(first);
    fc_client_close(second);
    stop_server(&r);
}

/* A client whose share is full gets all of its answers in the end, and is told. */
static void test_items_wait_for_their_share(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0, .longest = 0.002}};
    r.options.server.max_items = 16;
    start_server(&r, 23800);
    struct told told = {0};
    struct fc_error err = {0};
    struct fc_client *c;
    struct fc_client_options o = client_options(r.address, 1);
    o.busy = told_busy;
    o.busy_context = &told;
    o.timeout = 30;
    assert_int_equal(fc_client_open(&c, &o, &err), FC_OK);
    submit(c, "many", 0, 100);
    for (size_t n = 0; n < 100;) {
        bool found;
        struct fc_answer a = next(c, &found);
        if (!found)
            continue;
        assert_true(answer_is_right(&a, "many"));
        assert_int_equal(fc_client_ack(c, a.index, &err), FC_OK);
        n++;
    }
    assert_true(told.n >= 5);
    fc_client_close(c);
    stop_server(&r);
    assert_int_equal(atomic_load(&r.counts.submitted), 100);
}

/* ---- draining: the server is driven by hand ---- */

struct hand {
    struct fc_server *server;
    uint64_t ids[64];
    size_t n;
    size_t full; /* submits to refuse for want of memory */
};

static enum fc_code hold(void *context, const struct fc_ask *ask, struct fc_error *err)
{
    struct hand *h = context;
    if (h->full) {
        h->full--;
        return fc_fail(err, FC_ERR_MEMORY, "out of memory");
    }
    h->ids[h->n++] = ask->id;
    return FC_OK;
}

struct sending {
    const char *address;
    struct fc_answer answers[8];
    size_t n, asked;
    struct told told;
    double timeout;
    atomic_int done;
    struct fc_error err;
    pthread_t thread;
};

static void *sending_main(void *argument)
{
    struct sending *x = argument;
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(x->address, 1);
    o.timeout = x->timeout;
    o.busy = told_busy;
    o.busy_context = &x->told;
    enum fc_code code = fc_client_open(&c, &o, &x->err);
    for (size_t i = 0; i < x->asked && code == FC_OK; i++) {
        struct fc_perturbed p = perturbed("d", i);
        code = fc_client_submit(c, i, seed_of(i), &p, &x->err);
    }
    while (code == FC_OK && fc_client_outstanding(c) && x->n < 2) {
        bool found;
        code = fc_client_next(c, 1, &x->answers[x->n], &found, &x->err);
        x->n += code == FC_OK && found;
    }
    fc_client_close(c);
    atomic_store(&x->done, 1);
    return NULL;
}

static struct hand *open_hand(char address[64], size_t window)
{
    static struct hand h;
    struct fc_error err = {0};
    h = (struct hand){0};
    snprintf(address, 64, "tcp://127.0.0.1:%d", free_port(23800));
    const struct fc_server_options o = {.address = address, .model = "fake", .window = window};
    const struct fc_server_handler handler = {&h, hold, NULL};
    if (fc_server_open(&h.server, &o, &handler, &err) != FC_OK)
        fail_msg("%s", err.text);
    return &h;
}

/* Serves until `n` items are with the handler, or the client is done. */
static void serve_until(struct hand *h, size_t n, struct sending *x)
{
    struct fc_error err = {0};
    while (h->n < n && !atomic_load(&x->done))
        assert_int_equal(fc_server_poll(h->server, 0.05, &err), FC_OK);
}

static void test_drain(void **state)
{
    (void)state;
    char address[64];
    struct fc_error err = {0};
    struct hand *h = open_hand(address, 2);
    struct sending x = {.address = address, .asked = 6, .timeout = 30};
    assert_int_equal(pthread_create(&x.thread, NULL, sending_main, &x), 0);
    serve_until(h, 2, &x);
    assert_false(fc_server_is_drained(h->server));
    fc_server_drain(h->server, 1000);
    for (int i = 0; i < 10; i++)
        fc_server_poll(h->server, 0.01, &err);
    assert_false(fc_server_is_drained(h->server)); /* two run */
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(fc_server_complete(h->server, h->ids[i], "x", 1, 1, FC_ANSWER_STOP, &err),
                         FC_OK);
    assert_true(fc_server_is_drained(h->server));
    serve_until(h, 99, &x); /* what ran is delivered */
    pthread_join(x.thread, NULL);
    assert_int_equal(x.err.code, FC_OK);
    assert_int_equal(x.n, 2);
    assert_int_equal(h->n, 2); /* and nothing new was begun */

    struct fc_status s;
    fc_server_status(h->server, &s);
    assert_true(s.draining);
    assert_int_equal(s.waiting, 4);
    /* A new job is told when to come back; one that cannot wait so long gives up, and says why. */
    struct sending late = {.address = address, .asked = 1, .timeout = 0.5};
    fc_server_close(h->server);
    h = open_hand(address, 2);
    fc_server_drain(h->server, 1000);
    late.address = address;
    assert_int_equal(pthread_create(&late.thread, NULL, sending_main, &late), 0);
    serve_until(h, 1, &late);
    pthread_join(late.thread, NULL);
    assert_int_equal(late.err.code, FC_ERR_NETWORK);
    assert_non_null(strstr(late.err.text, "busy"));
    assert_true(late.told.n >= 1 && late.told.least <= 5);
    fc_server_close(h->server);
}

/* What runs too long is not waited for. */
static void test_drain_ends(void **state)
{
    (void)state;
    char address[64];
    struct fc_error err = {0};
    struct hand *h = open_hand(address, 2);
    struct sending x = {.address = address, .asked = 1, .timeout = 0.5};
    assert_int_equal(pthread_create(&x.thread, NULL, sending_main, &x), 0);
    serve_until(h, 1, &x);
    fc_server_drain(h->server, 0.05);
    while (!fc_server_is_drained(h->server))
        fc_server_poll(h->server, 0.01, &err);
    fc_server_close(h->server);
    pthread_join(x.thread, NULL);
    assert_int_equal(x.err.code, FC_ERR_NETWORK);
}

/* A handler without memory gets the item again; it is not the client's to know. */
static void test_handler_without_memory(void **state)
{
    (void)state;
    char address[64];
    struct fc_error err = {0};
    struct hand *h = open_hand(address, 2);
    struct sending x = {.address = address, .asked = 2, .timeout = 60};
    h->full = 2;
    assert_int_equal(pthread_create(&x.thread, NULL, sending_main, &x), 0);
    serve_until(h, 2, &x);
    for (size_t i = 0; i < 2; i++)
        fc_server_complete(h->server, h->ids[i], "x", 1, 1, FC_ANSWER_STOP, &err);
    serve_until(h, 99, &x);
    pthread_join(x.thread, NULL);
    assert_int_equal(x.err.code, FC_OK);
    assert_int_equal(x.n, 2);
    assert_int_equal(x.answers[0].finish, FC_ANSWER_STOP);
    struct fc_server_stats s;
    fc_server_stats(h->server, &s);
    assert_int_equal(s.submitted, 2);
    fc_server_close(h->server);
}

/* A client of another protocol: both numbers are in what it is told. */
static void test_another_protocol(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){0};
    start_server(&r, 23800);
    struct fc_error err = {0};
    struct fc_exchange x;
    struct fc_frame frame;
    const struct fc_text none = {0};
    struct fc_client_options o = client_options(r.address, 1);
    assert_int_equal(fc_exchange_open(&x, &o, &err), FC_OK);
    cJSON *hello = cJSON_CreateObject();
    assert_int_equal(fc_number_write(hello, "protocol", 41, &err), FC_OK);
    assert_int_equal(fc_exchange_ask(&x, FC_MSG_HELLO, hello, &none, 0, &frame, &err),
                     FC_ERR_UNSUPPORTED);
    char expected[64];
    snprintf(expected, sizeof expected, "speaks protocol %d and this client speaks 41",
             FC_PROTOCOL_VERSION);
    assert_non_null(strstr(err.text, expected));
    fc_exchange_done(&x, &frame);
    fc_exchange_close(&x);
    stop_server(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_of_a_server),
        cmocka_unit_test(test_text_and_json),
        cmocka_unit_test(test_busy_until_there_is_room),
        cmocka_unit_test(test_items_wait_for_their_share),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_ends),
        cmocka_unit_test(test_handler_without_memory),
        cmocka_unit_test(test_another_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
