/* What the tests of net/ share: a stand-in for privacy's type, a free port, and a server whose
 * handler finishes items after random delays, so in random order. An answer is a function of prompt
 * and seed alone, as a real generator's is. */
#ifndef FC_TESTS_NET_HARNESS_H
#define FC_TESTS_NET_HARNESS_H

#define _GNU_SOURCE
#include "base/clock.h"
#include "base/memory.h"
#include "base/philox.h"
#include "net/client.h"
#include "net/server.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- outgoing text: what privacy/ makes in the real program ---- */

struct fc_perturbed {
    char text[128];
    bool may_leave;
};

static inline const char *perturbed_text(const struct fc_perturbed *p, size_t *n)
{
    *n = strlen(p->text);
    return p->text;
}

static inline bool perturbed_may_leave(const struct fc_perturbed *p)
{
    return p->may_leave;
}

static inline struct fc_perturbed perturbed(const char *name, size_t index)
{
    struct fc_perturbed p = {.may_leave = true};
    snprintf(p.text, sizeof p.text, "prompt %zu of %s \xE2\x82\xAC", index, name);
    return p;
}

static inline uint64_t seed_of(size_t index)
{
    return UINT64_C(0xF000000000000001) + index;
}

/* ---- ports: a range for each test program ---- */

static inline int free_port(int first)
{
    alarm(280); /* every test comes by here: one that hangs is killed */
    for (int port = first; port < first + 200; port++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)(port + getpid() % 7)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int bad = bind(fd, (struct sockaddr *)&a, sizeof a);
        close(fd);
        if (!bad)
            return port + getpid() % 7;
    }
    fail_msg("no free port from %d on", first);
    return 0;
}

/* ---- the fake generator ---- */

struct fake_item {
    uint64_t id, seed;
    double due;
    char *text;
    size_t max_tokens;
};

/* Counts are atomic, and may lie in memory shared between processes. */
struct fake_counts {
    atomic_uint submitted, completed, cancelled;
};

struct fake {
    struct fc_server *server;
    struct fake_item items[4096];
    size_t n;
    double shortest, longest; /* delay of an item, seconds */
    uint64_t random;
    struct fake_counts *counts;
};

static inline void fake_answer(char *out, size_t size, const char *prompt, uint64_t seed)
{
    snprintf(out, size, "answer to <%s> by %016" PRIx64, prompt, seed);
}

static inline enum fc_code fake_submit(void *context, const struct fc_ask *ask,
                                       struct fc_error *err)
{
    struct fake *f = context;
    atomic_fetch_add(&f->counts->submitted, 1);
    if (strstr(ask->text, "too long"))
        return fc_fail(err, FC_ERR_USAGE, "the prompt is longer than the context");
    if (f->n == 4096)
        return fc_fail(err, FC_ERR_INTERNAL, "fake handler: full");
    double share = fc_philox_uniform(7, f->random++, 0);
    f->items[f->n++] =
        (struct fake_item){.id = ask->id,
                           .seed = ask->seed,
                           .due = fc_now() + f->shortest + share * (f->longest - f->shortest),
                           .text = fc_strndup(ask->text, ask->n_text, err),
                           .max_tokens = ask->sampling->max_tokens};
    return FC_OK;
}

static inline void fake_drop(struct fake *f, size_t i)
{
    free(f->items[i].text);
    f->items[i] = f->items[--f->n];
}

static inline void fake_cancel(void *context, uint64_t id)
{
    struct fake *f = context;
    for (size_t i = 0; i < f->n; i++)
        if (f->items[i].id == id) {
            atomic_fetch_add(&f->counts->cancelled, 1);
            fake_drop(f, i);
            return;
        }
}

static inline enum fc_code fake_complete_due(struct fake *f, struct fc_error *err)
{
    double now = fc_now();
    for (size_t i = 0; i < f->n;) {
        char text[256];
        if (f->items[i].due > now) {
            i++;
            continue;
        }
        fake_answer(text, sizeof text, f->items[i].text, f->items[i].seed);
        atomic_fetch_add(&f->counts->completed, 1);
        enum fc_code code = fc_server_complete(f->server, f->items[i].id, text, strlen(text),
                                               f->items[i].max_tokens, FC_ANSWER_STOP, err);
        if (code != FC_OK)
            return code;
        fake_drop(f, i);
    }
    return FC_OK;
}

struct fake_options {
    struct fc_server_options server;
    double shortest, longest;
    double step;            /* seconds that the server is deaf in each turn: a generation step */
    const atomic_int *stop; /* NULL: runs until killed */
    struct fake_counts *counts;
    struct fc_server_stats *stats; /* filled at the end; may be NULL */
    atomic_int *ready;             /* set once it listens; may be NULL */
    atomic_int *reload;            /* set: read the list of clients again; becomes 2; may be NULL */
};

/* The serve loop, as cli/ has it. */
static inline enum fc_code fake_serve(const struct fake_options *o, struct fc_error *err)
{
    struct fake *f = calloc(1, sizeof *f);
    *f = (struct fake){.shortest = o->shortest, .longest = o->longest, .counts = o->counts};
    struct fc_server_handler handler = {f, fake_submit, fake_cancel};
    enum fc_code code = fc_server_open(&f->server, &o->server, &handler, err);
    if (o->ready)
        atomic_store(o->ready, code == FC_OK ? 1 : -1);
    while (code == FC_OK && !(o->stop && atomic_load(o->stop))) {
        if (o->reload && atomic_load(o->reload) == 1) {
            code = fc_server_reload(f->server, err);
            atomic_store(o->reload, 2);
        }
        if (code == FC_OK)
            code = fc_server_poll(f->server, 0.002, err);
        fc_sleep(o->step);
        if (code == FC_OK)
            code = fake_complete_due(f, err);
    }
    if (f->server && o->stats)
        fc_server_stats(f->server, o->stats);
    fc_server_close(f->server);
    while (f->n)
        fake_drop(f, 0);
    free(f);
    return code;
}

/* ---- the server in a thread ---- */

struct running {
    struct fake_options options;
    char address[64];
    pthread_t thread;
    atomic_int stop, ready;
    struct fake_counts counts;
    struct fc_server_stats stats;
    struct fc_error err;
};

static inline void *server_main(void *argument)
{
    struct running *r = argument;
    fake_serve(&r->options, &r->err);
    return NULL;
}

/* Fill r->options.server and the delays before. */
static inline void start_server(struct running *r, int first_port)
{
    snprintf(r->address, sizeof r->address, "tcp://127.0.0.1:%d", free_port(first_port));
    r->options.server.address = r->address;
    r->options.server.model = "fake";
    r->options.stop = &r->stop;
    r->options.ready = &r->ready;
    r->options.counts = &r->counts;
    r->options.stats = &r->stats;
    assert_int_equal(pthread_create(&r->thread, NULL, server_main, r), 0);
    while (!atomic_load(&r->ready))
        fc_sleep(0.001);
    assert_int_equal(atomic_load(&r->ready), 1);
}

static inline void stop_server(struct running *r)
{
    atomic_store(&r->stop, 1);
    pthread_join(r->thread, NULL);
    assert_int_equal(r->err.code, FC_OK);
}

/* ---- clients ---- */

static inline void job_id(unsigned char job[FC_JOB_ID_SIZE], uint64_t number)
{
    memset(job, 0xAB, FC_JOB_ID_SIZE);
    memcpy(job, &number, sizeof number);
}

static inline struct fc_client_options client_options(const char *address, uint64_t job)
{
    struct fc_client_options o = {.address = address,
                                  .sampling = {.max_tokens = 17, .temperature = 0.7, .top_p = 0.9},
                                  .timeout = 60,
                                  .resend = 0.2,
                                  .text = perturbed_text,
                                  .may_leave = perturbed_may_leave};
    o.sampling.stops[0] = "\n\n";
    o.sampling.n_stops = 1;
    job_id(o.job, job);
    return o;
}

static inline struct fc_client *open_client(const struct running *r, uint64_t job)
{
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(r->address, job);
    if (fc_client_open(&c, &o, &err) != FC_OK)
        fail_msg("%s", err.text);
    assert_string_equal(fc_client_model(c), "fake");
    return c;
}

static inline void submit(struct fc_client *c, const char *name, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++) {
        struct fc_perturbed p = perturbed(name, i);
        struct fc_error err = {0};
        assert_int_equal(fc_client_submit(c, i, seed_of(i), &p, &err), FC_OK);
    }
}

static inline struct fc_answer next(struct fc_client *c, bool *found)
{
    struct fc_error err = {0};
    struct fc_answer a = {0};
    if (fc_client_next(c, 2, &a, found, &err) != FC_OK)
        fail_msg("%s", err.text);
    return a;
}

/* Whether an answer is what the fake generator says to prompt `index` of `name`. */
static inline bool answer_is_right(const struct fc_answer *a, const char *name)
{
    char expected[256];
    struct fc_perturbed p = perturbed(name, a->index);
    fake_answer(expected, sizeof expected, p.text, seed_of(a->index));
    return a->finish == FC_ANSWER_STOP && a->n_tokens == 17 && a->n_text == strlen(expected) &&
           memcmp(a->text, expected, a->n_text) == 0;
}

#endif
