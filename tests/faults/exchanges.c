/* Exchanges through the hostile network of tool_proxy.c, a fifth of whose messages meet a fault:
 * each item is generated once, its answer given once, and no answer is accepted that the server did
 * not write. 300 exchanges; with FEDCOT_TEST_LONG 10,000. The seed is printed, and FEDCOT_TEST_SEED
 * sets it. */
#define _GNU_SOURCE
#include "tests/net/harness.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define CLIENTS 4
#define PERCENT "20"

struct party {
    const char *address;
    struct fc_key_pair *key;
    const unsigned char *server_key;
    uint64_t number;
    size_t items;
    size_t given, twice, forged;
    struct fc_client_stats stats;
    struct fc_error err;
    pthread_t thread;
};

/* Two items in the air, so that there are as many frames as exchanges; every third is acknowledged
 * late.
 */
static enum fc_code run_job(struct party *p, struct fc_client *c, unsigned char *seen)
{
    char name[32];
    size_t submitted = 0;
    snprintf(name, sizeof name, "client %d", (int)p->number);
    while (submitted < p->items || fc_client_outstanding(c)) {
        for (; submitted < p->items && fc_client_outstanding(c) < 2; submitted++) {
            struct fc_perturbed text = perturbed(name, submitted);
            if (fc_client_submit(c, submitted, seed_of(submitted), &text, &p->err) != FC_OK)
                return p->err.code;
        }
        struct fc_answer a;
        bool found = false;
        if (fc_client_next(c, 1, &a, &found, &p->err) != FC_OK)
            return p->err.code;
        if (!found)
            continue;
        p->given++;
        p->forged += !answer_is_right(&a, name);
        p->twice += seen[a.index]++ > 0;
        if (a.index % 3 && fc_client_ack(c, a.index, &p->err) != FC_OK)
            return p->err.code;
    }
    return fc_client_finish(c, &p->err);
}

static void must_be(bool holds, const char *what)
{
    if (!holds)
        fail_msg("cannot make %s", what);
}

static void *client_main(void *argument)
{
    struct party *p = argument;
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(p->address, p->number);
    unsigned char *seen = calloc(p->items, 1);
    o.timeout = 120;
    o.key = p->key;
    o.server_key = p->server_key;
    if (seen && fc_client_open(&c, &o, &p->err) == FC_OK) {
        (void)run_job(p, c, seen);
        fc_client_stats(c, &p->stats);
    }
    fc_client_close(c);
    free(seen);
    return NULL;
}

/* Runs the proxy beside this program; *counts is where its line will be. */
static pid_t start_proxy(const char *self, const char *front, const char *back, const char *seed,
                         FILE **counts)
{
    char path[512], line[32] = "";
    int ends[2];
    snprintf(path, sizeof path, "%.*s/tool_proxy", (int)(strrchr(self, '/') - self), self);
    if (pipe2(ends, O_CLOEXEC) != 0)
        fail_msg("pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(path, path, front, back, seed, PERCENT, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *counts = fdopen(ends[0], "r");
    if (!*counts || !fgets(line, sizeof line, *counts) || strcmp(line, "ready\n") != 0)
        fail_msg("%s does not start", path);
    return child;
}

/* Prints what the proxy did; returns how many messages met a fault. */
static unsigned long stop_proxy(pid_t child, FILE *counts)
{
    char line[512] = "";
    unsigned long messages = 0, faulty = 0;
    kill(child, SIGTERM);
    if (!fgets(line, sizeof line, counts) ||
        sscanf(line, "{\"messages\": %lu, \"faulty\": %lu", &messages, &faulty) != 2)
        fail_msg("the proxy said: %s", line);
    fclose(counts);
    waitpid(child, NULL, 0);
    printf("proxy: %s", line);
    return faulty;
}

static size_t size_of_run(void)
{
    return getenv("FEDCOT_TEST_LONG") ? 10000 : getenv("FEDCOT_TEST_SHORT") ? 100 : 300;
}

static struct fc_key_pair *make_key(void)
{
    struct fc_key_pair *pair = NULL;
    must_be(fc_key_pair_make(&pair, NULL) == FC_OK, "a key");
    return pair;
}

/* The list of clients, in a file that lives as long as this program. */
static void write_list(char *path, const struct party *parties)
{
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    must_be(f != NULL, path);
    for (size_t i = 0; i < CLIENTS; i++) {
        char key[FC_KEY_TEXT_SIZE];
        fc_key_text(key, parties[i].key->public_key);
        fprintf(f, "%s client-%zu\n", key, i + 1);
    }
    must_be(fclose(f) == 0, path);
}

static void start_clients(struct party *parties, const char *address, size_t items)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        parties[i].address = address;
        parties[i].items = items;
        assert_int_equal(pthread_create(&parties[i].thread, NULL, client_main, &parties[i]), 0);
    }
}

/* Adds up what the clients saw. */
static struct party join_clients(struct party *parties)
{
    struct party all = {0};
    for (size_t i = 0; i < CLIENTS; i++) {
        pthread_join(parties[i].thread, NULL);
        if (parties[i].err.code != FC_OK)
            printf("client %zu: %s\n", i + 1, parties[i].err.text);
        all.given += parties[i].given;
        all.twice += parties[i].twice;
        all.forged += parties[i].forged;
        all.stats.handshakes += parties[i].stats.handshakes;
        fc_key_pair_free(parties[i].key);
    }
    return all;
}

int main(int argc, char **argv)
{
    (void)argc;
    static struct running r;
    struct party parties[CLIENTS] = {0};
    char front[64], list[] = "/tmp/fedcot-clients-XXXXXX";
    const char *seed = getenv("FEDCOT_TEST_SEED") ? getenv("FEDCOT_TEST_SEED") : "7";
    size_t items = size_of_run() / CLIENTS;
    struct fc_key_pair *server_key = make_key();
    for (size_t i = 0; i < CLIENTS; i++)
        parties[i] = (struct party){
            .key = make_key(), .server_key = server_key->public_key, .number = i + 1};
    write_list(list, parties);
    r = (struct running){.options = {.shortest = 0, .longest = 0.02}};
    r.options.server.gate = (struct fc_gate_options){.key = server_key, .clients = list};
    start_server(&r, 23000);
    snprintf(front, sizeof front, "tcp://127.0.0.1:%d", free_port(23300));
    FILE *counts;
    alarm(0); /* a run has the time of its test */
    pid_t proxy = start_proxy(argv[0], front, r.address, seed, &counts);
    start_clients(parties, front, items);
    struct party all = join_clients(parties);
    unsigned long faulty = stop_proxy(proxy, counts);
    stop_server(&r);
    unlink(list);
    fc_key_pair_free(server_key);
    size_t wanted = items * CLIENTS, generated = atomic_load(&r.counts.submitted);
    printf("seed %s: %zu exchanges: lost %zu, generated twice %zu, given twice %zu, forged %zu; "
           "%llu sessions, %llu messages not authentic or not new\n",
           seed, wanted, wanted - (all.given - all.twice), generated - wanted, all.twice,
           all.forged, (unsigned long long)all.stats.handshakes,
           (unsigned long long)r.stats.gate.dropped);
    return !(faulty > 0 && all.given == wanted && generated == wanted && !all.twice && !all.forged);
}
