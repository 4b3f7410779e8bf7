/* Bounds of a client's key, through sessions: tokens a day are its key's, whatever connections and
 * jobs it opens, and nobody else's. */
#include "harness.h"

#include "keys.h"

#include <time.h>

struct world {
    char folder[200], clients[240];
    struct fc_key_pair *server, *client[2];
    struct running running;
};

enum { PER_ITEM = 17, BUDGET = 100 }; /* client_options asks for 17 tokens, and the fake uses all */

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    char key[FC_KEY_TEXT_SIZE], list[400];
    make_folder(w->folder, sizeof w->folder);
    snprintf(w->clients, sizeof w->clients, "%s/clients", w->folder);
    w->server = make_key();
    size_t len = 0;
    for (size_t i = 0; i < 2; i++) {
        w->client[i] = make_key();
        fc_key_text(key, w->client[i]->public_key);
        len += (size_t)snprintf(list + len, sizeof list - len, "%s %s\n", key,
                                i ? "large" : "small tokens-per-day=100");
    }
    write_text(w->clients, list, len, 0600);
    w->running.options.longest = 0.002;
    w->running.options.server.gate =
        (struct fc_gate_options){.key = w->server, .clients = w->clients};
    start_server(&w->running, 24000);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    stop_server(&w->running);
    fc_key_pair_free(w->server);
    for (size_t i = 0; i < 2; i++)
        fc_key_pair_free(w->client[i]);
    remove_folder(w->folder);
    free(w);
    return 0;
}

static void told_busy(void *context, double seconds)
{
    *(double *)context = seconds;
}

static struct fc_client_options with_key(const struct world *w, size_t client, uint64_t job,
                                         double *retry)
{
    struct fc_client_options o = client_options(w->running.address, job);
    o.key = w->client[client];
    o.server_key = w->server->public_key;
    o.timeout = 30;
    o.busy = told_busy;
    o.busy_context = retry;
    return o;
}

/* A job of ten items, of which so many are answered; for the others the client is told to come
 * back. When, in seconds; 0 if it was told nothing. */
static double expect_answers(const struct world *w, size_t client, uint64_t job, size_t wanted)
{
    double retry = 0;
    struct fc_error err = {0};
    struct fc_client *c;
    struct fc_client_options o = with_key(w, client, job, &retry);
    if (fc_client_open(&c, &o, &err) != FC_OK)
        fail_msg("%s", err.text);
    submit(c, "b", 0, 10);
    for (size_t n = 0; n < wanted || (wanted < 10 && retry <= 0);) {
        bool found;
        struct fc_answer a = next(c, &found);
        n += found;
        assert_true(!found || answer_is_right(&a, "b"));
        assert_true(n <= wanted);
    }
    assert_int_equal(fc_client_outstanding(c), 10 - wanted);
    fc_client_close(c);
    return retry;
}

static void test_budget_of_a_key(void **state)
{
    struct world *w = *state;
    time_t day = time(NULL) / 86400;
    if ((time(NULL) + 300) / 86400 != day)
        skip(); /* midnight, near, would give another budget */
    double first = expect_answers(w, 0, 1, BUDGET / PER_ITEM);
    double again = expect_answers(w, 0, 2, 0); /* another connection, another job */
    assert_true(first > 0 && first <= 86400);
    assert_true(again > 0 && again <= first + 1);
    assert_true(expect_answers(w, 1, 1, 10) <= 0);
}

/* More in one answer than in a day: no waiting helps. */
static void test_answer_beyond_the_budget(void **state)
{
    struct world *w = *state;
    struct fc_error err = {0};
    struct fc_client *c;
    struct fc_answer a;
    bool found;
    double retry = 0;
    struct fc_client_options o = with_key(w, 0, 1, &retry);
    o.sampling.max_tokens = BUDGET + 1;
    assert_int_equal(fc_client_open(&c, &o, &err), FC_OK);
    submit(c, "b", 0, 1);
    assert_int_equal(fc_client_next(c, 5, &a, &found, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "this client's budget is 100 a day"));
    fc_client_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_budget_of_a_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_answer_beyond_the_budget, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
