/* One server thread, clients in other threads, real sockets: many clients at once, chunks as they
 * finish, limits and back-pressure, fairness, refusals, cancel, the same job again. */
#include "harness.h"

/* ---- several clients at once ---- */

struct job {
    const struct running *server;
    char name[16];
    uint64_t number;
    size_t n, wrong, twice, received, out_of_order;
    double first, last; /* seconds after the start at which answers came */
    enum fc_code code;
    pthread_t thread;
};

/* No assertions: cmocka's jump out of the main thread only. */
static void *job_main(void *argument)
{
    struct job *j = argument;
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(j->server->address, j->number);
    unsigned char *seen = calloc(j->n, 1);
    double begin = fc_now();
    size_t previous = 0;
    j->code = fc_client_open(&c, &o, &err);
    for (size_t i = 0; i < j->n && j->code == FC_OK; i++) {
        struct fc_perturbed p = perturbed(j->name, i);
        j->code = fc_client_submit(c, i, seed_of(i), &p, &err);
    }
    while (j->code == FC_OK && fc_client_outstanding(c)) {
        struct fc_answer a;
        bool found;
        j->code = fc_client_next(c, 1, &a, &found, &err);
        if (j->code != FC_OK || !found)
            continue;
        if (!j->received)
            j->first = fc_now() - begin;
        j->last = fc_now() - begin;
        j->received++;
        j->wrong += !answer_is_right(&a, j->name);
        j->twice += seen[a.index];
        seen[a.index] = 1;
        j->out_of_order += a.index < previous;
        previous = a.index;
        j->code = fc_client_ack(c, a.index, &err);
    }
    if (j->code == FC_OK)
        j->code = fc_client_finish(c, &err);
    fc_client_close(c);
    free(seen);
    return NULL;
}

static void test_many_clients(void **state)
{
    (void)state;
    enum { CLIENTS = 6, ITEMS = 150 };
    static struct running r;
    r = (struct running){.options = {.shortest = 0.001, .longest = 0.05}};
    start_server(&r, 21000);
    struct job jobs[CLIENTS] = {0};
    for (size_t i = 0; i < CLIENTS; i++) {
        jobs[i] = (struct job){.server = &r, .number = i, .n = ITEMS};
        snprintf(jobs[i].name, sizeof jobs[i].name, "client %zu", i);
        assert_int_equal(pthread_create(&jobs[i].thread, NULL, job_main, &jobs[i]), 0);
    }
    size_t out_of_order = 0;
    for (size_t i = 0; i < CLIENTS; i++) {
        pthread_join(jobs[i].thread, NULL);
        assert_int_equal(jobs[i].code, FC_OK);
        assert_int_equal(jobs[i].received, ITEMS);
        assert_int_equal(jobs[i].wrong, 0);
        assert_int_equal(jobs[i].twice, 0);
        assert_true(jobs[i].first < jobs[i].last / 2); /* as they finish, not at the end */
        out_of_order += jobs[i].out_of_order;
    }
    assert_true(out_of_order > 100); /* the fake generator does shuffle */
    stop_server(&r);
    assert_int_equal(atomic_load(&r.counts.submitted), CLIENTS * ITEMS);
    assert_int_equal(r.stats.jobs, 0); /* all forgotten */
    assert_int_equal(r.stats.bytes_held, 0);
    assert_int_equal(r.stats.refused, 0);
}

/* A small job that comes after a large one is served between its items. */
static void test_fairness(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0.01, .longest = 0.02, .server.window = 8}};
    start_server(&r, 21000);
    struct job large = {.server = &r, .name = "large", .number = 1, .n = 600};
    struct job small = {.server = &r, .name = "small", .number = 2, .n = 16};
    assert_int_equal(pthread_create(&large.thread, NULL, job_main, &large), 0);
    fc_sleep(0.1);
    assert_int_equal(pthread_create(&small.thread, NULL, job_main, &small), 0);
    pthread_join(small.thread, NULL);
    double small_done = small.last;
    pthread_join(large.thread, NULL);
    assert_int_equal(small.code, FC_OK);
    assert_int_equal(large.code, FC_OK);
    assert_int_equal(small.received + large.received, 616);
    assert_true(small_done < large.last / 3);
    stop_server(&r);
}

/* Limits far below the job: everything still arrives, in frames of 7 items and 8 at the server. */
static void test_small_limits(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0, .longest = 0.005}};
    r.options.server.limits.frame_items = 7;
    r.options.server.limits.frame_bytes = 200;
    r.options.server.limits.job_items = 12;
    r.options.server.max_items = 8; /* of all jobs: submits are accepted in part */
    r.options.server.window = 3;
    start_server(&r, 21000);
    struct job a = {.server = &r, .name = "a", .number = 1, .n = 60}, b = a;
    strcpy(b.name, "b");
    b.number = 2;
    pthread_create(&a.thread, NULL, job_main, &a);
    pthread_create(&b.thread, NULL, job_main, &b);
    pthread_join(a.thread, NULL);
    pthread_join(b.thread, NULL);
    assert_int_equal(a.code, FC_OK);
    assert_int_equal(b.code, FC_OK);
    assert_int_equal(a.received + b.received, 120);
    assert_int_equal(a.wrong + b.wrong + a.twice + b.twice, 0);
    stop_server(&r);
    assert_int_equal(atomic_load(&r.counts.submitted), 120);
}

/* ---- one client, step by step ---- */

static void test_refused_and_cancelled_items(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0.3, .longest = 0.3}};
    start_server(&r, 21000);
    struct fc_client *c = open_client(&r, 5);
    struct fc_error err = {0};
    struct fc_perturbed p = {"this one is too long", true};
    bool found;
    assert_int_equal(fc_client_submit(c, 3, 1, &p, &err), FC_OK);
    submit(c, "x", 10, 2);
    struct fc_answer a = next(c, &found); /* the refusal does not wait for the others */
    assert_true(found);
    assert_int_equal(a.index, 3);
    assert_int_equal(a.finish, FC_ANSWER_REFUSED);
    assert_int_equal(a.n_text, strlen("the prompt is longer than the context"));
    assert_int_equal(fc_client_cancel(c, 10, &err), FC_OK);
    assert_int_equal(fc_client_outstanding(c), 1);
    a = next(c, &found);
    assert_true(found && a.index == 11 && answer_is_right(&a, "x"));
    next(c, &found);
    assert_false(found);
    fc_client_close(c);
    stop_server(&r);
    assert_int_equal(atomic_load(&r.counts.cancelled), 1);
    assert_int_equal(r.stats.jobs, 1); /* not finished: kept for a restart */
}

static void test_misuse(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0, .longest = 0}};
    r.options.server.limits.prompt_bytes = 40;
    r.options.server.limits.max_tokens = 20;
    start_server(&r, 21000);
    struct fc_client *c = open_client(&r, 5);
    struct fc_error err = {0};
    struct fc_perturbed preview = {"a preview", false}, large = {.may_leave = true};
    memset(large.text, 'x', 41);
    assert_int_equal(fc_client_submit(c, 0, 1, &preview, &err), FC_ERR_BUDGET);
    err = (struct fc_error){0};
    assert_int_equal(fc_client_submit(c, 0, 1, &large, &err), FC_ERR_USAGE);
    assert_null(strstr(err.text, "xxx"));
    err = (struct fc_error){0};
    submit(c, "y", 0, 1);
    assert_int_equal(fc_client_submit(c, 0, 1, &large, &err), FC_ERR_USAGE);
    err = (struct fc_error){0};
    assert_int_equal(fc_client_submit(c, FC_CLIENT_MAX_INDEX + 1, 1, &large, &err), FC_ERR_USAGE);
    err = (struct fc_error){0};
    assert_int_equal(fc_client_ack(c, 0, &err), FC_ERR_USAGE); /* not answered yet */
    fc_client_close(c);

    err = (struct fc_error){0};
    struct fc_client_options o = client_options(r.address, 6);
    o.sampling.max_tokens = 21;
    assert_int_equal(fc_client_open(&c, &o, &err), FC_ERR_USAGE);
    assert_null(c);

    err = (struct fc_error){0}; /* a second server on the same port */
    struct fc_server *s = NULL;
    struct fc_server_handler handler = {NULL, fake_submit, fake_cancel};
    assert_int_equal(fc_server_open(&s, &r.options.server, &handler, &err), FC_ERR_NETWORK);
    assert_non_null(strstr(err.text, "--listen"));
    stop_server(&r);
}

/* The same job id again while the answers are still there: nothing is generated twice, answers
 * come again, and the first client is told. */
static void test_same_job_again(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0, .longest = 0.02}};
    start_server(&r, 21000);
    struct fc_client *first = open_client(&r, 9), *second;
    struct fc_error err = {0};
    struct fc_answer a;
    bool found = true;
    submit(first, "z", 0, 50);
    for (int i = 0; i < 30; i++) {
        a = next(first, &found);
        assert_true(found);
        if (i < 10) /* stored; the other 20 are received and lost */
            assert_int_equal(fc_client_ack(first, a.index, &err), FC_OK);
    }
    fc_sleep(0.1);
    second = open_client(&r, 9);
    struct fc_perturbed other = perturbed("another text", 0);
    submit(second, "z", 1, 49); /* it lacks all but one, it thinks */
    unsigned seen = 0;
    while (fc_client_outstanding(second)) {
        a = next(second, &found);
        assert_true(found && answer_is_right(&a, "z"));
        seen++;
    }
    assert_int_equal(seen, 49);
    submit(first, "z", 50, 1);
    enum fc_code code = FC_OK;
    for (found = true; code == FC_OK && found;) /* first what it has received, then the news */
        code = fc_client_next(first, 1, &a, &found, &err);
    assert_int_equal(code, FC_ERR_USAGE);
    assert_non_null(strstr(err.text, "another program runs this job"));
    err = (struct fc_error){0};
    fc_client_close(second);
    fc_client_close(first);

    second = open_client(&r, 9); /* an index with another text is no duplicate: it is refused */
    for (size_t i = 1; i < 50; i++) {
        struct fc_perturbed p = i == 33 ? other : perturbed("z", i);
        assert_int_equal(fc_client_submit(second, i, seed_of(i), &p, &err), FC_OK);
    }
    assert_int_equal(fc_client_next(second, 1, &a, &found, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "another prompt"));
    fc_client_close(second);
    stop_server(&r);
    /* acknowledged items were forgotten: at most those are generated again */
    assert_in_range(atomic_load(&r.counts.submitted), 50, 60);
    assert_true(r.stats.duplicates >= 39);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_clients), cmocka_unit_test(test_fairness),
        cmocka_unit_test(test_small_limits), cmocka_unit_test(test_refused_and_cancelled_items),
        cmocka_unit_test(test_misuse),       cmocka_unit_test(test_same_job_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
