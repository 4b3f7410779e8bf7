/* Many clients on one server at once: 64, of which one reads slowly and one floods, by asking for
 * thousands of items at once and, on a second connection, by hellos for ever new jobs whose answers
 * it never reads. The generator is trivial, so what is measured is the server. Prints memory over
 * time, shares, latencies and errors.
 *
 * Passes if every answer is right and comes once, nobody is told anything worse than "busy", and
 * the server's memory does not grow after the first quarter. Shares and latencies depend on the
 * machine's other work: they are printed; tests/net/test_admission.c counts shares where nothing
 * else has a say.
 *
 * 1,240 requests of well-behaved clients; 20,026 with FEDCOT_TEST_LONG=1. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/file.h"
#include "net/client.h"
#include "net/frame.h"
#include "net/server.h"

#include <inttypes.h>
#include <math.h>
#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MAX_CLIENTS = 64,
    WINDOW = 8,       /* items that a well-behaved client has outstanding */
    FLOOD = 4000,     /* and the flooding one */
    PER_STEP = 16,    /* items that the generator finishes in one step of a millisecond */
    MAX_ITEMS = 2048, /* places of the server: the flood must feel them */
    SAMPLES = 1 << 16,
};

/* What the client library takes as a prompt that may leave. */
struct fc_perturbed {
    char text[64];
};

static const char *prompt_text(const struct fc_perturbed *p, size_t *n)
{
    *n = strlen(p->text);
    return p->text;
}

static bool prompt_may_leave(const struct fc_perturbed *p)
{
    (void)p;
    return true;
}

/* ---- the server: a child ---- */

struct queue {
    struct fc_server *server;
    struct {
        uint64_t id, seed;
        char text[64];
    } items[256];
    size_t first, n;
};

static enum fc_code take(void *context, const struct fc_ask *ask, struct fc_error *err)
{
    struct queue *q = context;
    if (q->n == 256 || ask->n_text >= sizeof q->items[0].text)
        return fc_fail(err, FC_ERR_MEMORY, "the generator is full");
    size_t at = (q->first + q->n++) % 256;
    q->items[at].id = ask->id;
    q->items[at].seed = ask->seed;
    memcpy(q->items[at].text, ask->text, ask->n_text + 1);
    return FC_OK;
}

static void answer_to(char *out, size_t size, const char *prompt, uint64_t seed)
{
    snprintf(out, size, "%s, answered with %016" PRIx64, prompt, seed);
}

static enum fc_code step(struct queue *q, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < PER_STEP && q->n && code == FC_OK; i++) {
        char text[128];
        answer_to(text, sizeof text, q->items[q->first].text, q->items[q->first].seed);
        code = fc_server_complete(q->server, q->items[q->first].id, text, strlen(text), 20,
                                  FC_ANSWER_STOP, err);
        q->first = (q->first + 1) % 256;
        q->n--;
    }
    return code;
}

struct shared {
    atomic_int ready, stop;
    char address[64], state[64];
    struct fc_server_stats stats;
    struct fc_error err;
};

static enum fc_code serve(struct shared *s, struct fc_error *err)
{
    static struct queue q;
    const struct fc_server_options options = {.address = s->address,
                                              .model = "load",
                                              .state = s->state,
                                              .window = 64,
                                              .max_items = MAX_ITEMS};
    const struct fc_server_handler handler = {&q, take, NULL};
    enum fc_code code = fc_server_open(&q.server, &options, &handler, err);
    atomic_store(&s->ready, code == FC_OK ? 1 : -1);
    while (code == FC_OK && !atomic_load(&s->stop)) {
        code = fc_server_poll(q.server, q.n ? 0 : 0.05, err);
        if (code == FC_OK && q.n) {
            fc_sleep(0.001);
            code = step(&q, err);
        }
    }
    if (q.server)
        fc_server_stats(q.server, &s->stats);
    fc_server_close(q.server);
    return code;
}

static size_t resident(pid_t pid)
{
    char path[64];
    unsigned long long pages, in_memory = 0;
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%llu %llu", &pages, &in_memory) != 2)
        in_memory = 0;
    if (f)
        fclose(f);
    return (size_t)in_memory * (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- the clients: threads ---- */

enum kind { NORMAL, SLOW, FLOODING };

struct run;

struct client {
    struct run *run;
    size_t number, quota;
    enum kind kind;
    pthread_t thread;
    atomic_size_t received;
    size_t at_first_end; /* received when the first well-behaved client was done */
    size_t wrong, busy;
    double *submitted; /* by index, when */
    unsigned char *seen;
    struct fc_error err;
};

struct run {
    struct shared *shared;
    struct client clients[MAX_CLIENTS];
    size_t n_clients;
    atomic_int first_ended, failed, over;
    atomic_size_t n_latencies, received; /* of the well-behaved */
    double latencies[SAMPLES];
};

static void told_busy(void *context, double seconds)
{
    (void)seconds;
    ((struct client *)context)->busy++;
}

static struct fc_perturbed prompt(const struct client *c, size_t index)
{
    struct fc_perturbed p;
    snprintf(p.text, sizeof p.text, "prompt %zu of client %zu", index, c->number);
    return p;
}

static uint64_t seed_of(const struct client *c, size_t index)
{
    return (uint64_t)c->number << 32 | index;
}

static void check(struct client *c, const struct fc_answer *a)
{
    char expected[128];
    struct fc_perturbed p = prompt(c, a->index);
    answer_to(expected, sizeof expected, p.text, seed_of(c, a->index));
    c->wrong += c->seen[a->index] || a->n_text != strlen(expected) ||
                memcmp(a->text, expected, a->n_text) != 0;
    c->seen[a->index] = 1;
    atomic_fetch_add(&c->received, 1);
    if (c->kind != NORMAL)
        return;
    atomic_fetch_add(&c->run->received, 1);
    size_t at = atomic_fetch_add(&c->run->n_latencies, 1);
    if (at < SAMPLES)
        c->run->latencies[at] = fc_now() - c->submitted[a->index];
}

static bool is_done(const struct client *c)
{
    return c->kind == NORMAL ? atomic_load(&c->received) == c->quota
                             : atomic_load(&c->run->over) != 0;
}

static enum fc_code work(struct client *c, struct fc_client *link)
{
    size_t sent = 0, window = c->kind == FLOODING ? FLOOD : WINDOW;
    enum fc_code code = FC_OK;
    while (code == FC_OK && !is_done(c)) {
        for (; code == FC_OK && sent < c->quota && fc_client_outstanding(link) < window; sent++) {
            struct fc_perturbed p = prompt(c, sent);
            c->submitted[sent] = fc_now();
            code = fc_client_submit(link, sent, seed_of(c, sent), &p, &c->err);
        }
        struct fc_answer a;
        bool found = false;
        if (code == FC_OK)
            code = fc_client_next(link, 0.2, &a, &found, &c->err);
        if (code != FC_OK || !found)
            continue;
        check(c, &a);
        code = fc_client_ack(link, a.index, &c->err);
        if (c->kind == SLOW)
            fc_sleep(0.03);
    }
    return code;
}

/* The first well-behaved client that is done writes down how far the others are. */
static void note_shares(struct run *r)
{
    if (atomic_exchange(&r->first_ended, 1))
        return;
    for (size_t i = 0; i < r->n_clients; i++)
        r->clients[i].at_first_end = atomic_load(&r->clients[i].received);
}

static void *client_main(void *argument)
{
    struct client *c = argument;
    struct fc_client *link = NULL;
    struct fc_client_options o = {.address = c->run->shared->address,
                                  .sampling = {.max_tokens = 20, .top_p = 1},
                                  .timeout = 300,
                                  .text = prompt_text,
                                  .may_leave = prompt_may_leave,
                                  .busy = told_busy,
                                  .busy_context = c};
    memset(o.job, 1 + (int)c->number, sizeof o.job);
    enum fc_code code = fc_client_open(&link, &o, &c->err);
    if (code == FC_OK)
        code = work(c, link);
    if (code == FC_OK && c->kind == NORMAL)
        note_shares(c->run);
    if (code == FC_OK)
        code = fc_client_finish(link, &c->err);
    if (code != FC_OK)
        atomic_store(&c->run->failed, 1);
    fc_client_close(link);
    return NULL;
}

/* As a raw request number i, which net/exchange.c explains. */
static void send_raw(int s, uint32_t i, const struct fc_text *frame)
{
    struct {
        struct nn_cmsghdr head;
        size_t size;
        unsigned char number[8];
    } header = {.head = {sizeof header, PROTO_SP, SP_HDR}, .size = 4};
    struct nn_iovec part = {frame->data, frame->len};
    struct nn_msghdr message = {&part, 1, &header, sizeof header};
    for (int k = 0; k < 4; k++)
        header.number[k] = (unsigned char)((i | UINT32_C(0x80000000)) >> (24 - 8 * k));
    nn_sendmsg(s, &message, NN_DONTWAIT);
}

/* Hellos for new jobs without end, on one connection, that reads no answer. */
static void *hello_flood_main(void *argument)
{
    struct run *r = argument;
    int s = nn_socket(AF_SP_RAW, NN_REQ);
    struct fc_text frame = {0};
    nn_connect(s, r->shared->address);
    for (uint64_t i = 0; !atomic_load(&r->over); i++) {
        unsigned char job[FC_JOB_ID_SIZE] = {0xF1};
        cJSON *header = cJSON_CreateObject();
        memcpy(job + 8, &i, sizeof i);
        fc_text_clear(&frame);
        if (fc_number_write(header, "protocol", FC_PROTOCOL_VERSION, NULL) == FC_OK &&
            fc_hex_write(header, "job", job, sizeof job, NULL) == FC_OK &&
            fc_hex64_write(header, "client", i, NULL) == FC_OK &&
            fc_frame_encode(&frame, FC_MSG_HELLO, 1, header, "", 0, NULL) == FC_OK)
            send_raw(s, (uint32_t)i, &frame);
        cJSON_Delete(header);
        if (i % 10 == 0) /* ten thousand a second, if the machine can */
            fc_sleep(0.001);
    }
    fc_text_free(&frame);
    nn_close(s);
    return NULL;
}

/* ---- the report ---- */

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void report_latencies(struct run *r)
{
    size_t n = atomic_load(&r->n_latencies);
    n = n < SAMPLES ? n : SAMPLES;
    qsort(r->latencies, n, sizeof *r->latencies, compare);
    if (n)
        printf("latency of %zu requests: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms\n", n,
               1e3 * r->latencies[n / 2], 1e3 * r->latencies[n * 9 / 10],
               1e3 * r->latencies[n * 99 / 100], 1e3 * r->latencies[n - 1]);
}

static void report_shares(const struct run *r)
{
    size_t least = SIZE_MAX, most = 0, sum = 0, n = 0, all = 0;
    for (size_t i = 0; i < r->n_clients; i++) {
        size_t got = r->clients[i].at_first_end;
        all += got;
        if (r->clients[i].kind != NORMAL)
            continue;
        n++;
        sum += got;
        least = got < least ? got : least;
        most = got > most ? got : most;
    }
    double per_cent = all ? 100.0 / (double)all : 0;
    printf("answers when the first client was done: %zu\n", all);
    for (size_t i = 0; i < r->n_clients; i++) {
        const struct client *c = &r->clients[i];
        printf("%s%zu: %zu (%.2f %%)", i % 6 ? ", " : "  ", c->number, c->at_first_end,
               per_cent * (double)c->at_first_end);
        if (c->kind != NORMAL)
            printf(" %s", c->kind == SLOW ? "slow" : "flooding");
        if (i % 6 == 5 || i + 1 == r->n_clients)
            putchar('\n');
    }
    printf(
        "share of a well-behaved client: least %.2f %%, mean %.2f %%, most %.2f %%; an equal one "
        "is %.2f %%\n",
        per_cent * (double)least, per_cent * (double)sum / (double)n, per_cent * (double)most,
        100.0 / (double)r->n_clients);
}

/* Errors other than busy, answers that were wrong or came twice, and missing ones. */
static size_t count_faults(const struct run *r)
{
    size_t errors = 0, wrong = 0, missing = 0, busy = 0;
    for (size_t i = 0; i < r->n_clients; i++) {
        const struct client *c = &r->clients[i];
        if (c->err.code != FC_OK)
            printf("client %zu: %s\n", c->number, c->err.text);
        errors += c->err.code != FC_OK;
        wrong += c->wrong;
        busy += c->busy;
        missing += c->kind == NORMAL ? c->quota - atomic_load(&c->received) : 0;
    }
    printf(
        "errors other than busy: %zu; wrong or repeated answers: %zu; missing: %zu; clients were "
        "told busy %zu times, the server said it %" PRIu64 " times\n",
        errors, wrong, missing, busy, r->shared->stats.busy);
    return errors + wrong + missing;
}

/* Follows the server's memory until the well-behaved are done; whether it stayed flat. */
static bool watch(struct run *r, pid_t server, size_t total)
{
    size_t quarter[4] = {0}, done;
    while ((done = atomic_load(&r->received)) < total && !atomic_load(&r->shared->stop)) {
        size_t now = resident(server), at = done * 4 / total;
        quarter[at] = now > quarter[at] ? now : quarter[at];
        if (now == 0 || atomic_load(&r->failed))
            break;
        fc_sleep(0.01);
    }
    printf("server's memory, largest of each quarter:");
    size_t most = 0;
    for (size_t i = 0; i < 4; i++) {
        printf(" %.2f", (double)quarter[i] / (1 << 20));
        most = quarter[i] > most ? quarter[i] : most;
    }
    printf(" MiB\n");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true; /* what they keep grows */
#else
    return most <= quarter[0] + quarter[0] / 4 + ((size_t)8 << 20);
#endif
}

/* ---- life ---- */

static int free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    if (bind(fd, (struct sockaddr *)&a, len) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        a.sin_port = 0;
    close(fd);
    return ntohs(a.sin_port);
}

static pid_t start_server(struct shared *s)
{
    snprintf(s->address, sizeof s->address, "tcp://127.0.0.1:%d", free_port());
    strcpy(s->state, "/tmp/fedcot-load-XXXXXX");
    if (!mkdtemp(s->state))
        return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit((int)serve(s, &s->err));
    while (pid > 0 && !atomic_load(&s->ready))
        fc_sleep(0.005);
    return pid;
}

static bool start_clients(struct run *r, size_t total)
{
    bool good = true;
    for (size_t i = 0; i < r->n_clients; i++) {
        struct client *c = &r->clients[i];
        c->run = r;
        c->number = i;
        c->kind = i == 1 ? SLOW : i == 2 ? FLOODING : NORMAL;
        c->quota = c->kind == NORMAL ? total / (r->n_clients - 2) : 1 << 20;
        c->submitted = calloc(c->quota, sizeof *c->submitted);
        c->seen = calloc(c->quota, 1);
        good = good && c->submitted && c->seen &&
               pthread_create(&c->thread, NULL, client_main, c) == 0;
    }
    return good;
}

static void remove_state(const char *folder)
{
    static const char *const names[] = {"answers.log", "answers.log.lock", "answers.log.tmp"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = fc_path_join(folder, names[i], NULL);
        if (path)
            unlink(path);
        free(path);
    }
    rmdir(folder);
}

int main(void)
{
    bool is_long = getenv("FEDCOT_TEST_LONG"), is_short = getenv("FEDCOT_TEST_SHORT");
    static struct run r;
    pthread_t flood;
    int status = 0;
    r.n_clients = is_short ? 16 : MAX_CLIENTS;
    size_t per_client = is_long ? 323 : 20; /* 62 * 323 = 20,026 */
    size_t total = per_client * (r.n_clients - 2);
    r.shared =
        mmap(NULL, sizeof *r.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r.shared == MAP_FAILED)
        return 1;
    pid_t server = start_server(r.shared);
    if (server <= 0 || atomic_load(&r.shared->ready) != 1) {
        printf("the server did not start: %s\n", r.shared->err.text);
        return 1;
    }
    double begun = fc_now();
    if (pthread_create(&flood, NULL, hello_flood_main, &r) != 0 || !start_clients(&r, total))
        return 1;
    bool flat = watch(&r, server, total);
    double seconds = fc_now() - begun;
    atomic_store(&r.over, 1);
    for (size_t i = 0; i < r.n_clients; i++)
        pthread_join(r.clients[i].thread, NULL);
    pthread_join(flood, NULL);
    atomic_store(&r.shared->stop, 1);
    waitpid(server, &status, 0);
    printf("%zu clients, %zu requests of %zu well-behaved ones in %.1f s; %" PRIu64
           " answers of the server in all, %" PRIu64 " frames in\n",
           r.n_clients, total, r.n_clients - 2, seconds, r.shared->stats.submitted,
           r.shared->stats.frames_in);
    report_shares(&r);
    report_latencies(&r);
    size_t faults = count_faults(&r);
    bool server_good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!server_good)
        printf("the server ended badly: %s\n", r.shared->err.text);
    if (!flat)
        printf("the server's memory grew\n");
    for (size_t i = 0; i < r.n_clients; i++) {
        free(r.clients[i].submitted);
        free(r.clients[i].seen);
    }
    remove_state(r.shared->state);
    return faults || !flat || !server_good;
}
