/* A hostile network between client and server, deterministic from a seed: it passes messages on,
 * and does to a share of them, in either direction, one of
 *
 *     delay      up to 200 ms
 *     drop       it never comes
 *     duplicate  it comes twice
 *     reorder    it comes 100 ms later, behind those that follow meanwhile
 *     truncate   its end is missing
 *     corrupt    one to four of its bits are flipped
 *     replay     an old message of its direction comes once more behind it
 *
 *     tool_proxy FRONT BACK SEED PERCENT [KIND,KIND...]      (by default every kind)
 *
 * listens on FRONT, connects to BACK, says "ready" when it listens, and prints one JSON line with
 * its counts at SIGTERM or SIGINT. Message i of a direction meets the same fault in every run;
 * which message is the i-th depends on the peers. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/philox.h"

#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT 64   /* old messages of a direction, for replay */
#define HELD 4096 /* messages of a direction that are on their way; more are dropped */

enum fault { DELAY, DROP, DUPLICATE, REORDER, TRUNCATE, CORRUPT, REPLAY, FAULTS, NONE = FAULTS };
static const char *const names[FAULTS] = {"delay",    "drop",    "duplicate", "reorder",
                                          "truncate", "corrupt", "replay"};

struct message {
    void *control, *body; /* nanomsg's; control is the route back */
    size_t n;             /* bytes of the body that are sent */
    double due;
};

struct direction {
    int from, to;
    uint64_t number; /* which of the two; enters the draws */
    uint64_t count;
    struct message held[HELD], kept[KEPT];
    size_t n_held;
    uint64_t faults[FAULTS];
};

struct proxy {
    struct direction directions[2];
    uint64_t seed;
    float share;
    enum fault kinds[FAULTS];
    uint32_t n_kinds;
};

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "tool_proxy: %s: %s\n", what, nn_strerror(nn_errno()));
    exit(1);
}

static void release(struct message *m)
{
    if (m->body)
        nn_freemsg(m->body);
    if (m->control)
        nn_freemsg(m->control);
    *m = (struct message){0};
}

static bool receive(int socket, struct message *m)
{
    *m = (struct message){0};
    struct nn_iovec part = {&m->body, NN_MSG};
    struct nn_msghdr h = {&part, 1, &m->control, NN_MSG};
    int n = nn_recvmsg(socket, &h, NN_DONTWAIT);
    m->n = n < 0 ? 0 : (size_t)n;
    return n >= 0;
}

/* A copy: the message stays ours. A pipe that is gone or full loses it, as a network would. */
static void send_copy(const struct direction *d, const struct message *m)
{
    struct nn_cmsghdr head;
    memcpy(&head, m->control, sizeof head);
    struct nn_iovec part = {m->body, m->n};
    struct nn_msghdr h = {&part, 1, m->control, head.cmsg_len};
    (void)nn_sendmsg(d->to, &h, NN_DONTWAIT);
}

/* A block of nanomsg's own with the same bytes. */
static void *duplicate_block(const void *block, size_t n)
{
    void *copy = nn_allocmsg(n ? n : 1, 0);
    if (!copy)
        fail("memory");
    memcpy(copy, block, n);
    return copy;
}

static struct message duplicate(const struct message *m)
{
    struct nn_cmsghdr head;
    memcpy(&head, m->control, sizeof head);
    return (struct message){.control = duplicate_block(m->control, head.cmsg_len),
                            .body = duplicate_block(m->body, m->n),
                            .n = m->n};
}

static void hold(struct direction *d, struct message m, double due)
{
    m.due = due;
    if (d->n_held == HELD)
        release(&m);
    else
        d->held[d->n_held++] = m;
}

static enum fault choose(const struct proxy *p, const struct direction *d, uint32_t r[4])
{
    fc_philox(p->seed, d->number, d->count, r);
    if ((float)(r[0] >> 8) * 0x1p-24f >= p->share)
        return NONE;
    return p->kinds[r[1] % p->n_kinds];
}

static void corrupt(struct message *m, uint32_t r)
{
    for (uint32_t i = 0; i <= r % 4 && m->n; i++) {
        uint32_t w[4];
        fc_philox(r, 1, i, w);
        ((unsigned char *)m->body)[w[0] % m->n] ^= (unsigned char)(1u << w[1] % 8);
    }
}

static void handle(const struct proxy *p, struct direction *d, struct message m)
{
    uint32_t r[4];
    double now = fc_now(), due = now;
    enum fault fault = choose(p, d, r);
    struct message *old = &d->kept[d->count++ % KEPT];
    struct message copy = duplicate(&m); /* what was really sent, for a later replay */
    if (fault != NONE)
        d->faults[fault]++;
    if (fault == TRUNCATE)
        m.n = m.n ? r[2] % m.n : 0;
    if (fault == CORRUPT)
        corrupt(&m, r[2]);
    if (fault == DELAY || fault == REORDER)
        due = now + (fault == REORDER ? 0.1 : 1e-3 * (r[2] % 200));
    if (fault == DUPLICATE)
        hold(d, duplicate(&m), now + 0.02 * (r[2] % 3));
    if (fault == DROP)
        release(&m);
    else
        hold(d, m, due);
    if (fault == REPLAY && old->body)
        hold(d, duplicate(old), now);
    release(old);
    *old = copy;
}

/* Sends what is due, in the order in which it came. */
static void forward(struct direction *d)
{
    double now = fc_now();
    size_t kept = 0;
    for (size_t i = 0; i < d->n_held; i++) {
        if (d->held[i].due > now) {
            d->held[kept++] = d->held[i];
            continue;
        }
        send_copy(d, &d->held[i]);
        release(&d->held[i]);
    }
    d->n_held = kept;
}

static void print_counts(const struct proxy *p)
{
    uint64_t messages = 0, faulty = 0;
    for (int i = 0; i < 2; i++) {
        messages += p->directions[i].count;
        for (int f = 0; f < FAULTS; f++)
            faulty += p->directions[i].faults[f];
    }
    printf("{\"messages\": %llu, \"faulty\": %llu", (unsigned long long)messages,
           (unsigned long long)faulty);
    for (int f = 0; f < FAULTS; f++)
        printf(", \"%s\": %llu", names[f],
               (unsigned long long)(p->directions[0].faults[f] + p->directions[1].faults[f]));
    printf("}\n");
}

static void read_kinds(struct proxy *p, const char *list)
{
    for (int f = 0; f < FAULTS; f++)
        if (!list || strstr(list, names[f]))
            p->kinds[p->n_kinds++] = (enum fault)f;
    if (!p->n_kinds) {
        fprintf(stderr, "tool_proxy: no known kind of fault in \"%s\"\n", list);
        exit(2);
    }
}

static int open_socket(int protocol, const char *address, bool front)
{
    int s = nn_socket(AF_SP_RAW, protocol), most = 96 << 20;
    if (s < 0 || nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVMAXSIZE, &most, sizeof most) < 0 ||
        (front ? nn_bind(s, address) : nn_connect(s, address)) < 0)
        fail(address);
    return s;
}

static void run(struct proxy *p)
{
    while (!stopped) {
        struct message m;
        struct nn_pollfd wait[] = {{p->directions[0].from, NN_POLLIN, 0},
                                   {p->directions[1].from, NN_POLLIN, 0}};
        nn_poll(wait, 2, 5);
        for (int i = 0; i < 2; i++) {
            struct direction *d = &p->directions[i];
            while (receive(d->from, &m))
                handle(p, d, m);
            forward(d);
        }
    }
}

static void close_direction(struct direction *d)
{
    for (size_t j = 0; j < d->n_held; j++)
        release(&d->held[j]);
    for (size_t j = 0; j < KEPT; j++)
        release(&d->kept[j]);
    nn_close(d->from);
}

int main(int argc, char **argv)
{
    static struct proxy p;
    if (argc < 5) {
        fprintf(stderr, "usage: %s FRONT BACK SEED PERCENT [KIND,KIND...]\n", argv[0]);
        return 2;
    }
    p.seed = strtoull(argv[3], NULL, 10);
    p.share = strtof(argv[4], NULL) / 100;
    read_kinds(&p, argc > 5 ? argv[5] : NULL);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    int front = open_socket(NN_REP, argv[1], true), back = open_socket(NN_REQ, argv[2], false);
    p.directions[0].from = p.directions[1].to = front;
    p.directions[0].to = p.directions[1].from = back;
    p.directions[1].number = 1;
    puts("ready");
    fflush(stdout);
    run(&p);
    for (int i = 0; i < 2; i++)
        close_direction(&p.directions[i]);
    print_counts(&p);
    return 0;
}
