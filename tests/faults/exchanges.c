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
    uint64_t number;
    size_t items;
    size_t given, twice, forged;
    struct fc_client_stats stats;
    struct fc_error err;
    pthread_t thread;
};

/* Two items in the air, so that there are as many frames as exchanges; every third is acknowledged late.
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

static void *client_main(void *argument)
{
    struct party *p = argument;
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(p->address, p->number);
    unsigned char *seen = calloc(p->items, 1);
    o.timeout = 120;
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
                         const char *kinds, FILE **counts)
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
        execl(path, path, front, back, seed, PERCENT, kinds, (char *)NULL);
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

/* Nothing authenticates a message here, so its content is left alone; the rest is done to it. */
static const char *const loss = "delay,drop,duplicate,reorder,replay";

int main(int argc, char **argv)
{
    (void)argc;
    static struct running r;
    struct party parties[CLIENTS] = {0};
    char front[64];
    const char *seed = getenv("FEDCOT_TEST_SEED") ? getenv("FEDCOT_TEST_SEED") : "7";
    size_t items = size_of_run() / CLIENTS;
    r = (struct running){.options = {.shortest = 0, .longest = 0.02}};
    start_server(&r, 23000);
    snprintf(front, sizeof front, "tcp://127.0.0.1:%d", free_port(23300));
    FILE *counts;
    alarm(0); /* a run has the time of its test */
    pid_t proxy = start_proxy(argv[0], front, r.address, seed, loss, &counts);
    for (size_t i = 0; i < CLIENTS; i++) {
        parties[i] = (struct party){.address = front, .number = i + 1, .items = items};
        assert_int_equal(pthread_create(&parties[i].thread, NULL, client_main, &parties[i]), 0);
    }
    struct party all = {0};
    for (size_t i = 0; i < CLIENTS; i++) {
        pthread_join(parties[i].thread, NULL);
        if (parties[i].err.code != FC_OK)
            printf("client %zu: %s\n", i + 1, parties[i].err.text);
        all.given += parties[i].given;
        all.twice += parties[i].twice;
        all.forged += parties[i].forged;
    }
    unsigned long faulty = stop_proxy(proxy, counts);
    stop_server(&r);
    size_t wanted = items * CLIENTS, generated = atomic_load(&r.counts.submitted);
    printf("seed %s: %zu exchanges: lost %zu, generated twice %zu, given twice %zu, forged %zu\n",
           seed, wanted, wanted - (all.given - all.twice), generated - wanted, all.twice,
           all.forged);
    return !(faulty > 0 && all.given == wanted && generated == wanted && !all.twice && !all.forged);
}
