/* A bad network between client and server: a proxy of raw sockets that loses requests and answers,
 * sends requests twice, and sends old requests again much later. Whatever it does, each item is
 * generated once and its answer given once. */
#include "harness.h"

#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>

struct message {
    void *control, *body;
    int n;
};

struct proxy {
    int front, back;
    double lose_request, lose_answer, repeat, replay;
    atomic_int stop;
    atomic_uint lost, repeated;
    uint64_t random;
    struct message old[64]; /* requests kept for replay */
    pthread_t thread;
};

static bool chance(struct proxy *p, double share)
{
    return fc_philox_uniform(11, p->random++, 0) < share;
}

static bool receive(int socket, struct message *m)
{
    struct nn_iovec part = {&m->body, NN_MSG};
    struct nn_msghdr h = {&part, 1, &m->control, NN_MSG};
    m->n = nn_recvmsg(socket, &h, NN_DONTWAIT);
    return m->n >= 0;
}

/* Sends a copy: the message stays ours. */
static void send_copy(int socket, const struct message *m)
{
    struct nn_cmsghdr head;
    memcpy(&head, m->control, sizeof head);
    struct nn_iovec part = {m->body, (size_t)m->n};
    struct nn_msghdr h = {&part, 1, m->control, head.cmsg_len};
    nn_sendmsg(socket, &h, NN_DONTWAIT);
}

static void release(struct message *m)
{
    if (m->body)
        nn_freemsg(m->body);
    if (m->control)
        nn_freemsg(m->control);
    *m = (struct message){0};
}

static void forward_request(struct proxy *p, struct message *m)
{
    if (chance(p, p->lose_request)) {
        atomic_fetch_add(&p->lost, 1);
        release(m);
        return;
    }
    send_copy(p->back, m);
    if (chance(p, p->repeat)) {
        send_copy(p->back, m);
        atomic_fetch_add(&p->repeated, 1);
    }
    struct message *kept = &p->old[p->random % 64];
    if (kept->body && chance(p, p->replay)) {
        send_copy(p->back, kept);
        atomic_fetch_add(&p->repeated, 1);
    }
    release(kept);
    *kept = *m;
}

static void *proxy_main(void *argument)
{
    struct proxy *p = argument;
    while (!atomic_load(&p->stop)) {
        struct message m = {0};
        struct nn_pollfd wait[] = {{p->front, NN_POLLIN, 0}, {p->back, NN_POLLIN, 0}};
        nn_poll(wait, 2, 10);
        if (receive(p->front, &m))
            forward_request(p, &m);
        m = (struct message){0};
        if (receive(p->back, &m)) {
            if (chance(p, p->lose_answer))
                atomic_fetch_add(&p->lost, 1);
            else
                send_copy(p->front, &m);
            release(&m);
        }
    }
    return NULL;
}

static void start_proxy(struct proxy *p, const char *server, char *address, size_t size)
{
    snprintf(address, size, "tcp://127.0.0.1:%d", free_port(21600));
    p->front = nn_socket(AF_SP_RAW, NN_REP);
    p->back = nn_socket(AF_SP_RAW, NN_REQ);
    assert_true(nn_bind(p->front, address) >= 0);
    assert_true(nn_connect(p->back, server) >= 0);
    assert_int_equal(pthread_create(&p->thread, NULL, proxy_main, p), 0);
}

static void stop_proxy(struct proxy *p)
{
    atomic_store(&p->stop, 1);
    pthread_join(p->thread, NULL);
    nn_close(p->front);
    nn_close(p->back);
    for (size_t i = 0; i < 64; i++)
        release(&p->old[i]);
}

/* n items through the proxy, a handful at a time as a pipeline would; every third answer is
 * acknowledged late. */
static void run_job(struct proxy *p, struct running *r, size_t n)
{
    char address[64];
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    unsigned char *seen = calloc(n, 1);
    size_t sent = 0, received = 0, late[16], n_late = 0;
    start_proxy(p, r->address, address, sizeof address);
    struct fc_client_options o = client_options(address, 1);
    o.resend = 0.02;
    assert_int_equal(fc_client_open(&c, &o, &err), FC_OK);
    while (received < n) {
        for (size_t i = 0; i < 5 && sent < n; i++, sent++) {
            struct fc_perturbed prompt = perturbed("loss", sent);
            assert_int_equal(fc_client_submit(c, sent, seed_of(sent), &prompt, &err), FC_OK);
        }
        struct fc_answer a;
        bool found = true;
        while (found) {
            if (fc_client_next(c, 0.01, &a, &found, &err) != FC_OK)
                fail_msg("%s", err.text);
            if (!found)
                break;
            assert_true(answer_is_right(&a, "loss"));
            assert_false(seen[a.index]);
            seen[a.index] = 1;
            received++;
            if (n_late < 16)
                late[n_late++] = a.index;
            while (n_late == 16 || (received == n && n_late))
                assert_int_equal(fc_client_ack(c, late[--n_late], &err), FC_OK);
        }
    }
    assert_int_equal(fc_client_finish(c, &err), FC_OK);
    fc_client_close(c);
    free(seen);
    stop_proxy(p);
}

static void test_lost_messages(void **state)
{
    (void)state;
    static struct running r;
    static struct proxy p;
    r = (struct running){.options = {.shortest = 0, .longest = 0.02}};
    p = (struct proxy){.lose_request = 0.15, .lose_answer = 0.15};
    start_server(&r, 21400);
    run_job(&p, &r, 100);
    stop_server(&r);
    assert_true(atomic_load(&p.lost) > 10);
    assert_int_equal(atomic_load(&r.counts.submitted), 100);
    assert_int_equal(r.stats.jobs, 0);
}

static void test_repeated_and_replayed_messages(void **state)
{
    (void)state;
    static struct running r;
    static struct proxy p;
    r = (struct running){.options = {.shortest = 0, .longest = 0.01}};
    p = (struct proxy){.repeat = 0.5, .replay = 0.5, .lose_answer = 0.05};
    start_server(&r, 21400);
    run_job(&p, &r, 200);
    stop_server(&r);
    assert_true(atomic_load(&p.repeated) > 50);
    assert_true(r.stats.stale > 10);
    assert_int_equal(atomic_load(&r.counts.submitted), 200); /* also those acknowledged before */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_messages),
        cmocka_unit_test(test_repeated_and_replayed_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
