/* Time: a busy server that is not dead, a dead one, waits that end, jobs that age out. */
#include "harness.h"

#define PATIENCE                                                                                   \
    25 /* seconds in which anything ends, on a machine that does much else: below 30               \
        */

/* A server that is deaf for longer than the client's patience, again and again, but alive. */
static void test_busy_server_is_not_dead(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 4, .longest = 4.5, .step = 0.3}};
    start_server(&r, 22000);
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(r.address, 1);
    o.timeout = 3; /* shorter than the job, longer than a step */
    o.resend = 0.05;
    assert_int_equal(fc_client_open(&c, &o, &err), FC_OK);
    submit(c, "slow", 0, 5);
    size_t n = 0;
    while (fc_client_outstanding(c)) {
        bool found;
        struct fc_answer a = next(c, &found);
        n += found && answer_is_right(&a, "slow");
    }
    assert_int_equal(n, 5);
    struct fc_client_stats stats;
    fc_client_stats(c, &stats);
    assert_true(stats.resends >= 1);
    assert_int_equal(stats.hellos, 1);
    fc_client_close(c);
    stop_server(&r);
    assert_int_equal(atomic_load(&r.counts.submitted), 5);
}

static bool after_100_ms(void *context)
{
    return fc_now() > *(double *)context + 0.1;
}

static void test_deadlines(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    char address[64];
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", free_port(21200));
    struct fc_client_options o = client_options(address, 1);
    o.timeout = 0.4;
    o.resend = 0.1;
    double begin = fc_now();
    assert_int_equal(fc_client_open(&c, &o, &err), FC_ERR_NETWORK); /* nobody listens */
    assert_null(c);
    assert_true(fc_now() - begin > 0.39 && fc_now() - begin < PATIENCE);
    assert_non_null(strstr(err.text, "fedcot serve"));
    assert_non_null(strstr(err.text, "--timeout"));

    err = (struct fc_error){0};
    begin = fc_now();
    o.timeout = 60;
    o.cancelled = after_100_ms;
    o.cancel_context = &begin;
    assert_int_equal(fc_client_open(&c, &o, &err), FC_ERR_CANCELLED);
    assert_true(fc_now() - begin < PATIENCE);

    static struct running r; /* next honours its time-out while nothing finishes */
    r = (struct running){.options = {.shortest = 30, .longest = 30}};
    start_server(&r, 22000);
    c = open_client(&r, 2);
    submit(c, "never", 0, 1);
    struct fc_answer a;
    bool found;
    begin = fc_now();
    err = (struct fc_error){0};
    assert_int_equal(fc_client_next(c, 0.3, &a, &found, &err), FC_OK);
    assert_false(found);
    assert_true(fc_now() - begin > 0.29 && fc_now() - begin < PATIENCE);
    begin = fc_now();
    assert_int_equal(fc_client_next(c, 0, &a, &found, &err), FC_OK);
    assert_true(!found && fc_now() - begin < PATIENCE);
    struct fc_client_stats stats;
    fc_client_stats(c, &stats);
    assert_int_equal(stats.server_running, 1);
    stop_server(&r); /* and now it is dead */
    fc_client_close(c);
}

/* Jobs whose client is silent: dropped after max_age, and after max_silence when another one needs
 * the place. A live client whose job was dropped goes on all the same. */
static void test_ageing(void **state)
{
    (void)state;
    static struct running r;
    r = (struct running){.options = {.shortest = 0, .longest = 0.001}};
    r.options.server.max_age = 0.5;
    r.options.server.max_silence = 0.2;
    r.options.server.max_jobs = 1;
    start_server(&r, 22000);
    struct fc_client *a = open_client(&r, 1);
    bool found;
    submit(a, "a", 0, 3);
    next(a, &found);
    assert_true(found);
    double begin = fc_now();
    struct fc_client *b = open_client(&r, 2); /* waits until a was silent for max_silence */
    assert_true(fc_now() - begin > 0.1);
    fc_sleep(0.9); /* b ages out */
    size_t n = 1;
    submit(a, "a", 3, 2);
    while (fc_client_outstanding(a)) {
        next(a, &found);
        n += found;
    }
    assert_int_equal(n, 5);
    struct fc_client_stats stats;
    fc_client_stats(a, &stats);
    assert_true(stats.hellos >= 2);
    fc_client_close(a);
    fc_client_close(b);
    stop_server(&r);
    assert_true(r.stats.dropped >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_busy_server_is_not_dead),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_ageing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
