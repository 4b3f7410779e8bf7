/* A server that keeps finished answers in a folder: killed with SIGKILL at several moments, stopped
 * well, with another model, with bounds on disk and age, on a disk that is full. Servers are
 * children; what they count lies in memory shared with them. */
#include "harness.h"

#include "base/file.h"
#include "net/results.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { ITEMS = 60 };

struct shared {
    struct fake_counts counts;
    atomic_int ready, stop;
    struct fc_server_stats stats;
    atomic_bool told[ITEMS]; /* answers that some client has received */
    char error[FC_ERROR_SIZE];
    char notices[2000];
};

static struct shared *shared;
static char address[64], folder[64], log_path[96];
static pid_t server;

static void note(void *context, const char *text)
{
    (void)context;
    size_t n = strlen(shared->notices);
    snprintf(shared->notices + n, sizeof shared->notices - n, "%s\n", text);
}

static int begin(void **state)
{
    (void)state;
    if (!shared)
        shared =
            mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(shared, 0, sizeof *shared);
    server = 0;
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", free_port(23600));
    alarm(280); /* many processes, each with its own start */
    strcpy(folder, "/tmp/fedcot-state-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(log_path, sizeof log_path, "%s/answers.log", folder);
    return 0;
}

static int end(void **state)
{
    (void)state;
    static const char *const names[] = {"answers.log", "answers.log.lock", "answers.log.tmp"};
    char name[128];
    if (server)
        kill(server, SIGKILL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(name, sizeof name, "%s/%s", folder, names[i]);
        unlink(name);
    }
    return rmdir(folder);
}

static struct fc_server_options with_state(void)
{
    return (struct fc_server_options){
        .address = address, .model = "fake", .state = folder, .window = 16, .notice = note};
}

/* Returns whether it listens; else shared->error. */
static bool fork_server(const struct fc_server_options *options, double slowest)
{
    atomic_store(&shared->ready, 0);
    atomic_store(&shared->stop, 0);
    server = fork();
    assert_true(server >= 0);
    if (server == 0) {
        struct fc_error err = {0};
        struct fake_options o = {.server = *options,
                                 .longest = slowest,
                                 .counts = &shared->counts,
                                 .stop = &shared->stop,
                                 .stats = &shared->stats,
                                 .ready = &shared->ready};
        enum fc_code code = fake_serve(&o, &err);
        memcpy(shared->error, err.text, sizeof err.text);
        _exit((int)code);
    }
    while (!atomic_load(&shared->ready))
        fc_sleep(0.002);
    if (atomic_load(&shared->ready) == 1)
        return true;
    waitpid(server, NULL, 0);
    server = 0;
    return false;
}

static void end_server(bool killed)
{
    int status;
    if (killed)
        kill(server, SIGKILL);
    atomic_store(&shared->stop, 1);
    assert_int_equal(waitpid(server, &status, 0), server);
    assert_true(killed ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
    server = 0;
}

enum which { ALL, TOLD };

/* As a child, since nanomsg cannot be used before a fork and after it: submits items [0, n), or
 * those of them whose answers were told to a client before; takes so many answers, and acknowledges
 * them only if asked to. */
static enum fc_code run_client(enum which which, size_t n, size_t take, bool ack,
                               struct fc_error *err)
{
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(address, 5);
    o.timeout = 30;
    enum fc_code code = fc_client_open(&c, &o, err);
    for (size_t i = 0; i < n && code == FC_OK; i++) {
        if (which == TOLD && !atomic_load(&shared->told[i]))
            continue;
        struct fc_perturbed p = perturbed("kept", i);
        code = fc_client_submit(c, i, seed_of(i), &p, err);
    }
    if (which == TOLD && c)
        take = fc_client_outstanding(c);
    for (size_t got = 0; got < take && code == FC_OK;) {
        struct fc_answer a;
        bool found;
        code = fc_client_next(c, 2, &a, &found, err);
        if (code != FC_OK || !found)
            continue;
        got++;
        atomic_store(&shared->told[a.index], true);
        if (!answer_is_right(&a, "kept"))
            code = fc_fail(err, FC_ERR_INTERNAL, "a wrong answer to item %zu", a.index);
        else if (ack)
            code = fc_client_ack(c, a.index, err);
    }
    if (code == FC_OK && ack)
        code = fc_client_finish(c, err);
    fc_client_close(c);
    return code;
}

/* How many items were generated for it. */
static unsigned client(enum which which, size_t n, size_t take, bool ack)
{
    int status;
    unsigned before = atomic_load(&shared->counts.submitted);
    pid_t pid = fork();
    if (pid == 0) {
        struct fc_error err = {0};
        enum fc_code code = run_client(which, n, take, ack, &err);
        memcpy(shared->error, err.text, sizeof err.text);
        _exit((int)code);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("client: %s", shared->error);
    return atomic_load(&shared->counts.submitted) - before;
}

/* Asks for items [0, n) and takes all answers. */
static unsigned generated_for(size_t n, bool ack)
{
    return client(ALL, n, n, ack);
}

static size_t size_of_log(void)
{
    struct stat st;
    assert_int_equal(stat(log_path, &st), 0);
    return (size_t)st.st_size;
}

/* Whatever a client was told is there after SIGKILL, at any moment. */
static void test_killed_while_it_answers(void **state)
{
    (void)state;
    struct fc_server_options o = with_state();
    assert_true(fork_server(&o, 0.02));
    for (size_t take = ITEMS / 4; take <= ITEMS; take += ITEMS / 4) {
        client(ALL, ITEMS, take, false);
        end_server(true);
        assert_true(fork_server(&o, 0.02));
        assert_int_equal(client(TOLD, ITEMS, take, false), 0);
        end_server(true);
        assert_true(fork_server(&o, 0.02));
    }
    assert_int_equal(generated_for(ITEMS, true), 0);
    end_server(false);
    assert_int_equal(shared->stats.jobs, 0);
    assert_non_null(strstr(shared->notices, "took up 60 finished answers"));
}

/* What was acknowledged is gone, also from the disk. */
static void test_acknowledged_is_forgotten(void **state)
{
    (void)state;
    struct fc_server_options o = with_state();
    assert_true(fork_server(&o, 0));
    assert_int_equal(generated_for(ITEMS, true), ITEMS);
    end_server(false);
    assert_true(fork_server(&o, 0)); /* which writes the log anew */
    end_server(false);
    assert_true(size_of_log() < 100);
    assert_int_equal(shared->stats.jobs, 0);
    assert_null(strstr(shared->notices, "took up"));
}

static void test_another_model(void **state)
{
    (void)state;
    struct fc_server_options o = with_state();
    assert_true(fork_server(&o, 0));
    generated_for(10, false);
    end_server(true);
    o.model = "another";
    size_t size = size_of_log();
    assert_false(fork_server(&o, 0));
    assert_non_null(strstr(shared->error, "another model"));
    assert_int_equal(size_of_log(), size); /* nothing is thrown away */
    o.model = "fake";
    assert_true(fork_server(&o, 0));
    assert_int_equal(generated_for(10, false), 0);
    end_server(false);
}

static void test_folder_in_use_and_bad_folders(void **state)
{
    (void)state;
    struct fc_server_options o = with_state(), other = o;
    assert_true(fork_server(&o, 0));
    pid_t first = server;
    char second[64];
    snprintf(second, sizeof second, "tcp://127.0.0.1:%d", free_port(23600));
    other.address = second;
    assert_false(fork_server(&other, 0));
    assert_non_null(strstr(shared->error, "another process"));
    server = first;
    end_server(false);
    o.state = "/dev/null/x";
    assert_false(fork_server(&o, 0));
    assert_non_null(strstr(shared->error, "/dev/null"));
}

/* A log that anything happened to: the server starts and serves, or says why not. */
static void test_corrupt_log(void **state)
{
    (void)state;
    struct fc_server_options o = with_state();
    struct fc_error err = {0};
    char *bytes;
    size_t len;
    assert_true(fork_server(&o, 0));
    generated_for(8, false);
    end_server(true);
    assert_int_equal(fc_file_read(log_path, 1 << 20, &bytes, &len, &err), FC_OK);
    for (size_t i = 0; i < 24; i++) {
        uint32_t w[4];
        fc_philox(11, i, 0, w);
        size_t n = i % 2 ? len : w[1] % len; /* damaged, or cut */
        char kept = bytes[w[0] % len];
        bytes[w[0] % len] = (char)(kept ^ (char)(1 + w[2] % 255));
        assert_int_equal(fc_file_write(log_path, bytes, n, &err), FC_OK);
        bytes[w[0] % len] = kept;
        if (!fork_server(&o, 0)) {
            assert_non_null(strstr(shared->error, "answers.log"));
            continue;
        }
        assert_in_range(generated_for(8, false), 0, 8);
        end_server(true);
    }
    free(bytes);
}

/* More answers than the bound: the file stays below it, nothing fails, and what is on disk is used.
 * Said once. */
static void test_bound_on_disk(void **state)
{
    (void)state;
    struct fc_server_options o = with_state();
    o.state_bytes = 4096;
    assert_true(fork_server(&o, 0));
    assert_int_equal(generated_for(ITEMS, false), ITEMS);
    end_server(true);
    assert_in_range(size_of_log(), 2048, 4096);
    const char *said = strstr(shared->notices, "--state-bytes");
    assert_non_null(said);
    assert_null(strstr(said + 1, "--state-bytes"));
    assert_true(fork_server(&o, 0));
    assert_in_range(generated_for(ITEMS, true), ITEMS / 4, ITEMS - 10);
    /* As clients take theirs, there is room again. */
    assert_int_equal(generated_for(10, false), 10);
    end_server(true);
    assert_true(fork_server(&o, 0));
    assert_int_equal(generated_for(10, true), 0);
    end_server(false);
}

/* Older than max_age, by the wall clock in the record: not read back. */
static void test_bound_on_age(void **state)
{
    (void)state;
    struct fc_server_options o = with_state();
    assert_true(fork_server(&o, 0));
    generated_for(10, false);
    end_server(true);
    fc_sleep(2.1); /* whole seconds are counted */
    o.max_age = 1;
    assert_true(fork_server(&o, 0));
    assert_non_null(strstr(shared->notices, "left out 10 answers"));
    assert_int_equal(generated_for(10, true), 10);
    end_server(false);
}

/* No byte can be written to the disk: the server says so once and serves all the same. */
static void test_full_disk(void **state)
{
    (void)state;
    struct fc_server_options o = with_state();
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 600; /* a few answers */
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    bool listens = fork_server(&o, 0.01);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_true(listens);
    assert_int_equal(generated_for(ITEMS, false), ITEMS);
    assert_int_equal(generated_for(ITEMS, false), 0); /* from memory */
    end_server(false);
    const char *said = strstr(shared->notices, "the server goes on");
    assert_non_null(said);
    assert_null(strstr(said + 1, "the server goes on"));
    assert_in_range(size_of_log(), 8, 600);
    assert_true(fork_server(&o, 0)); /* what was there before is whole */
    assert_in_range(generated_for(ITEMS, true), 1, ITEMS);
    end_server(false);
}

/* What a key has spent of its day is not given again by a server that starts again. The tables
 * alone: no sockets. */
static void test_budgets_survive(void **state)
{
    (void)state;
    const struct fc_client_identity who = {.name = "k", .key = {9}, .tokens_per_day = 100};
    const struct fc_results_options o = {
        .folder = folder, .model = "m", .max_bytes = 1 << 20, .max_age = 9, .max_text_bytes = 1};
    int64_t wall = (int64_t)time(NULL), wall_of_spending = wall;
    for (int life = 0; life < 3; life++) {
        struct fc_error err = {0};
        struct fc_jobs table;
        struct fc_admission admission;
        struct fc_results results;
        double retry;
        assert_int_equal(fc_jobs_init(&table, 4, 4, &err), FC_OK);
        assert_int_equal(fc_admission_init(&admission, 4, 1 << 20, &err), FC_OK);
        assert_int_equal(fc_results_open(&results, &o, &table, &admission, &err), FC_OK);
        struct fc_party *p = fc_party_of(&admission, &table, &who, &(struct fc_route){0});
        struct fc_job *job = fc_job_add(&table, (const unsigned char *)"0123456789abcdef");
        job->party = p;
        wall = (int64_t)time(NULL);
        if (wall / 86400 != wall_of_spending / 86400)
            skip(); /* midnight */
        assert_int_equal(fc_party_spend(p, &who, 70, 0, wall, &retry), life == 0);
        assert_true(fc_party_spend(p, &who, 40 - 10 * (size_t)life, 0, wall, &retry) == (life > 0));
        if (life == 0) { /* 70 reserved, of which 60 are generated; the other item never ends */
            struct fc_submission *batch = calloc(1, sizeof *batch);
            batch->references = 1;
            struct fc_item *item = fc_item_add(&table, job, 0, "x", 1, batch, &err);
            fc_submission_release(batch);
            item->reserved = 70;
            item->day = p->day;
            free(fc_item_run(&table, item));
            fc_admission_settle(item, true, 60);
            fc_item_finish(&table, item, NULL, 0, 60, FC_ANSWER_STOP);
            assert_true(fc_party_spend(p, &who, 40, 0, wall, &retry));
        }
        fc_results_sync(&results, fc_now() + 10);
        fc_results_close(&results);
        fc_jobs_free(&table);
        fc_admission_free(&admission);
    }
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_killed_while_it_answers),
        WITH_FOLDER(test_acknowledged_is_forgotten),
        WITH_FOLDER(test_another_model),
        WITH_FOLDER(test_folder_in_use_and_bad_folders),
        WITH_FOLDER(test_corrupt_log),
        WITH_FOLDER(test_bound_on_disk),
        WITH_FOLDER(test_bound_on_age),
        WITH_FOLDER(test_full_disk),
        WITH_FOLDER(test_budgets_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
