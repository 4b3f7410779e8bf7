/* Processes killed in the middle of a job, with SIGKILL, and started again. This program only forks
 * and looks: servers and clients are its children, and what a client "stores" lies in memory shared
 * with them, as a file would. */
#include "harness.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { ITEMS = 120 };

struct shared {
    struct fake_counts counts;
    atomic_int ready;
    atomic_uchar stored[ITEMS]; /* how many times each answer was stored */
    atomic_uint n_stored, wrong, hellos;
    char error[FC_ERROR_SIZE];
};

static struct shared *shared;
static char address[64];

static void reset(int first_port)
{
    if (!shared)
        shared =
            mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    memset(shared, 0, sizeof *shared);
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", free_port(first_port));
}

static pid_t fork_server(const char *model)
{
    atomic_store(&shared->ready, 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct fc_error err = {0};
        struct fake_options o = {.server = {.address = address, .model = model, .window = 16},
                                 .shortest = 0.005,
                                 .longest = 0.1,
                                 .counts = &shared->counts,
                                 .ready = &shared->ready};
        _exit((int)fake_serve(&o, &err));
    }
    while (!atomic_load(&shared->ready))
        fc_sleep(0.005);
    assert_int_equal(atomic_load(&shared->ready), 1);
    return pid;
}

/* A client as cli/ would be: submits what is not stored, stores, acknowledges. */
static enum fc_code run_client(double timeout, struct fc_error *err)
{
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(address, 77);
    o.timeout = timeout;
    enum fc_code code = fc_client_open(&c, &o, err);
    for (size_t i = 0; i < ITEMS && code == FC_OK; i++) {
        struct fc_perturbed p = perturbed("restart", i);
        if (!atomic_load(&shared->stored[i]))
            code = fc_client_submit(c, i, seed_of(i), &p, err);
    }
    while (code == FC_OK && fc_client_outstanding(c)) {
        struct fc_answer a;
        bool found;
        code = fc_client_next(c, 1, &a, &found, err);
        if (code != FC_OK || !found)
            continue;
        if (!answer_is_right(&a, "restart"))
            atomic_fetch_add(&shared->wrong, 1);
        atomic_fetch_add(&shared->stored[a.index], 1);
        atomic_fetch_add(&shared->n_stored, 1);
        code = fc_client_ack(c, a.index, err);
    }
    if (code == FC_OK)
        code = fc_client_finish(c, err);
    if (c) {
        struct fc_client_stats stats;
        fc_client_stats(c, &stats);
        atomic_fetch_add(&shared->hellos, (unsigned)stats.hellos);
    }
    fc_client_close(c);
    return code;
}

static pid_t fork_client(double timeout)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct fc_error err = {0};
        enum fc_code code = run_client(timeout, &err);
        memcpy(shared->error, err.text, sizeof err.text);
        _exit((int)code);
    }
    return pid;
}

static void kill_child(pid_t pid)
{
    int status;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static int wait_child(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void wait_stored(unsigned n)
{
    double begin = fc_now();
    while (atomic_load(&shared->n_stored) < n && fc_now() - begin < 100)
        fc_sleep(0.002);
    assert_in_range(atomic_load(&shared->n_stored), n, ITEMS - 1);
}

static void expect_all_stored_once(void)
{
    assert_int_equal(atomic_load(&shared->wrong), 0);
    for (size_t i = 0; i < ITEMS; i++)
        assert_int_equal(atomic_load(&shared->stored[i]), 1);
}

static void test_server_killed_twice(void **state)
{
    (void)state;
    reset(22800);
    pid_t server = fork_server("m");
    pid_t client = fork_client(60);
    for (unsigned round = 1; round <= 2; round++) {
        wait_stored(round * ITEMS / 4);
        kill_child(server);
        fc_sleep(0.2);
        server = fork_server("m");
    }
    int code = wait_child(client);
    kill_child(server);
    if (code != FC_OK)
        fail_msg("client: %s", shared->error);
    expect_all_stored_once();
    assert_int_equal(atomic_load(&shared->hellos), 3);
    /* what was running at a kill was lost and generated again, and nothing else */
    assert_in_range(atomic_load(&shared->counts.submitted), ITEMS + 1, 2 * ITEMS);
}

static void test_client_killed_twice(void **state)
{
    (void)state;
    reset(22800);
    pid_t server = fork_server("m");
    for (unsigned round = 1; round <= 2; round++) {
        pid_t client = fork_client(60);
        wait_stored(round * ITEMS / 4);
        kill_child(client);
        fc_sleep(0.1);
    }
    int code = wait_child(fork_client(60));
    kill_child(server);
    if (code != FC_OK)
        fail_msg("client: %s", shared->error);
    expect_all_stored_once();
    assert_int_equal(atomic_load(&shared->counts.submitted), ITEMS); /* nothing twice */
    assert_int_equal(atomic_load(&shared->counts.completed), ITEMS);
}

static void test_server_back_with_another_model(void **state)
{
    (void)state;
    reset(22800);
    pid_t server = fork_server("m");
    pid_t client = fork_client(60);
    wait_stored(10);
    kill_child(server);
    server = fork_server("another");
    assert_int_equal(wait_child(client), FC_ERR_INPUT);
    assert_non_null(strstr(shared->error, "another model"));
    kill_child(server);
}

static void test_server_dead_for_good(void **state)
{
    (void)state;
    reset(22800);
    pid_t server = fork_server("m");
    pid_t client = fork_client(0.6);
    wait_stored(10);
    double begin = fc_now();
    kill_child(server);
    assert_int_equal(wait_child(client), FC_ERR_NETWORK);
    assert_true(fc_now() - begin < 30);
    assert_non_null(strstr(shared->error, "fedcot serve"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_killed_twice),
        cmocka_unit_test(test_client_killed_twice),
        cmocka_unit_test(test_server_back_with_another_model),
        cmocka_unit_test(test_server_dead_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
