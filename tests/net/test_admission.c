/* Who gets what, on the tables alone and counted, not timed: room, turns, budgets. */
#include "harness.h"

#include "net/admission.h"

#include <nanomsg/nn.h>

enum { MAX_JOBS = 64, MAX_ITEMS = 1024 };

static struct fc_jobs table;
static struct fc_admission admission;
static struct fc_error err;

static int begin(void **state)
{
    (void)state;
    err = (struct fc_error){0};
    return fc_jobs_init(&table, MAX_JOBS, MAX_ITEMS, &err) != FC_OK ||
           fc_admission_init(&admission, MAX_JOBS, 1 << 20, &err) != FC_OK;
}

static int end(void **state)
{
    (void)state;
    fc_jobs_free(&table);
    fc_admission_free(&admission);
    return 0;
}

/* A party by the number of its connection, as nanomsg tells it. */
static struct fc_party *connection(uint32_t number)
{
    struct fc_route route = {.len = sizeof(struct nn_cmsghdr) + sizeof(size_t) + 8};
    memcpy(route.control + sizeof(struct nn_cmsghdr) + sizeof(size_t), &number, sizeof number);
    return fc_party_of(&admission, &table, &fc_client_anonymous, &route);
}

static struct fc_client_identity named(const char *name, uint64_t tokens_per_day, double rate)
{
    struct fc_client_identity who = {.tokens_per_day = tokens_per_day, .rate = rate};
    snprintf(who.name, sizeof who.name, "%s", name);
    memcpy(who.key, name, strlen(name));
    return who;
}

static struct fc_job *job_of(struct fc_party *p, uint64_t number)
{
    unsigned char id[FC_JOB_ID_SIZE];
    job_id(id, number);
    struct fc_job *job = fc_job_add(&table, id);
    assert_non_null(job);
    job->party = p;
    return job;
}

static void add(struct fc_job *job, size_t first, size_t n, size_t max_tokens)
{
    struct fc_submission *batch = calloc(1, sizeof *batch);
    batch->references = 1;
    batch->sampling.max_tokens = max_tokens;
    for (size_t i = first; i < first + n; i++) {
        fc_admission_arrive(&admission, &table, job);
        assert_non_null(fc_item_add(&table, job, i, "prompt", 6, batch, &err));
    }
    fc_submission_release(batch);
}

/* Hands out the next item, which generates n_tokens at once; whose it was. */
static struct fc_job *give(size_t n_tokens)
{
    struct fc_item *item = fc_admission_next(&admission, &table);
    if (!item)
        return NULL;
    struct fc_job *job = item->job;
    item->reserved = item->batch->sampling.max_tokens;
    fc_admission_give(item);
    free(fc_item_run(&table, item));
    fc_admission_settle(item, true, n_tokens);
    fc_item_finish(&table, item, NULL, 0, n_tokens, FC_ANSWER_STOP);
    return job;
}

static void test_a_flood_gets_its_share(void **state)
{
    (void)state;
    struct fc_party *flood = connection(1);
    size_t given[9] = {0};
    for (uint64_t k = 0; k < 20; k++) /* twenty jobs of one client against eight of others */
        add(job_of(flood, k), 0, 30, 10);
    for (uint32_t k = 1; k <= 8; k++)
        add(job_of(connection(1 + k), 100 + k), 0, 30, 10);
    struct fc_job *job;
    for (size_t n = 0; n < 9 * 20 && (job = give(10)); n++) {
        uint32_t number;
        memcpy(&number, job->party->key, sizeof number);
        given[number - 1]++;
    }
    for (size_t k = 0; k < 9; k++)
        assert_in_range(given[k], 19, 21);
}

static void test_jobs_of_one_client_take_turns(void **state)
{
    (void)state;
    struct fc_party *p = connection(1);
    struct fc_job *a = job_of(p, 1), *b;
    add(a, 0, 40, 10);
    for (size_t n = 0; n < 20; n++)
        assert_ptr_equal(give(10), a);
    b = job_of(p, 2); /* comes later: no debt of the past, no advantage either */
    add(b, 0, 40, 10);
    size_t of_b = 0;
    for (size_t n = 0; n < 20; n++)
        of_b += give(10) == b;
    assert_in_range(of_b, 9, 11);
}

/* Who asks for long answers is given fewer of them; who asked for long ones and got short ones is
 * not punished. */
static void test_shares_are_tokens(void **state)
{
    (void)state;
    struct fc_job *lengthy = job_of(connection(1), 1), *brief = job_of(connection(2), 2);
    add(lengthy, 0, 200, 400);
    add(brief, 0, 200, 40);
    size_t n_long = 0, n = 0;
    for (; n < 110; n++)
        n_long += give(fc_admission_next(&admission, &table)->job == lengthy ? 400 : 40) == lengthy;
    assert_in_range(n_long, 9, 12); /* 10 : 1 */
    add(lengthy, 200, 100, 400);
    n_long = 0;
    for (n = 0; n < 100; n++)
        n_long += give(40) == lengthy;
    assert_in_range(n_long, 35, 62);
}

static void test_idle_time_is_not_saved_up(void **state)
{
    (void)state;
    struct fc_job *a = job_of(connection(1), 1), *b = job_of(connection(2), 2);
    add(a, 0, 300, 10);
    add(b, 0, 1, 10);
    for (size_t n = 0; n < 200; n++)
        give(10);
    add(b, 1, 50, 10);
    size_t of_b = 0;
    for (size_t n = 0; n < 40; n++)
        of_b += give(10) == b;
    assert_in_range(of_b, 19, 22);
}

static void test_room_is_left_for_others(void **state)
{
    (void)state;
    struct fc_party *a = connection(1), *b = connection(2), *c = connection(3);
    struct fc_job *of_a = job_of(a, 1), *of_b = job_of(b, 2), *of_c;
    size_t n_a = 0, n_b = 0;
    for (; fc_party_has_item_room(&admission, &table, a, 6); n_a++)
        add(of_a, n_a, 1, 1);
    assert_in_range(n_a, MAX_ITEMS / 2, MAX_ITEMS / 2 + 1);
    for (; fc_party_has_item_room(&admission, &table, b, 6); n_b++)
        add(of_b, n_b, 1, 1);
    assert_in_range(n_b, MAX_ITEMS / 4, MAX_ITEMS / 4 + 1);
    assert_false(fc_party_has_item_room(&admission, &table, a, 6));
    assert_true(fc_party_has_item_room(&admission, &table, c, 6));
    assert_false(fc_party_has_item_room(&admission, &table, b, 1 << 20));

    size_t jobs = 1; /* and of places for jobs */
    for (; fc_party_has_job_room(&table, a); jobs++)
        job_of(a, 100 + jobs);
    assert_in_range(jobs, MAX_JOBS / 2 - 1, MAX_JOBS / 2 + 1);
    assert_true(fc_party_has_job_room(&table, c));
    of_c = job_of(c, 3);
    add(of_c, 0, 1, 1);
    assert_int_equal(fc_admission_parties(&table), 3);
}

static void test_rate(void **state)
{
    (void)state;
    const struct fc_client_identity who = named("slow", 0, 2);
    struct fc_party *p = fc_party_of(&admission, &table, &who, &(struct fc_route){0});
    double retry = 0;
    size_t n = 0;
    for (; fc_party_spend(p, &who, 5, 100, 0, &retry); n++)
        ;
    assert_int_equal(n, 2 * FC_RATE_BURST);
    assert_true(retry > 0.49 && retry < 0.51);
    assert_true(fc_party_spend(p, &who, 5, 100.6, 0, &retry));
    assert_false(fc_party_spend(p, &who, 5, 100.6, 0, &retry));
    for (n = 0; fc_party_spend(p, &who, 5, 1e6, 0, &retry); n++)
        ;
    assert_int_equal(n, 2 * FC_RATE_BURST); /* not more after a long silence */
}

static void test_budget_of_a_day(void **state)
{
    (void)state;
    enum { DAY = 86400 };
    const struct fc_client_identity who = named("small", 100, 0);
    struct fc_party *p = fc_party_of(&admission, &table, &who, &(struct fc_route){0});
    struct fc_job *job = job_of(p, 1);
    double retry = 0;
    int64_t noon = 20000 * (int64_t)DAY + DAY / 2;
    assert_true(fc_party_spend(p, &who, 60, 0, noon, &retry));
    assert_false(fc_party_spend(p, &who, 60, 0, noon, &retry));
    assert_int_equal((int)retry, DAY / 2);
    add(job, 0, 1, 60); /* the 60 generate 10, and give 50 back */
    struct fc_item *item = fc_item_find(&table, job, 0);
    item->reserved = 60;
    item->day = p->day;
    fc_admission_give(item);
    free(fc_item_run(&table, item));
    fc_admission_settle(item, true, 10);
    assert_int_equal(p->tokens, 10);
    assert_true(fc_party_spend(p, &who, 90, 0, noon, &retry));
    assert_false(fc_party_spend(p, &who, 1, 0, noon - 5 * DAY, &retry)); /* the clock went back */
    assert_true(fc_party_spend(p, &who, 100, 0, noon + DAY, &retry));
    assert_false(fc_party_spend(p, &who, UINT64_MAX, 0, noon + 2 * DAY, &retry));

    /* Other connections and other jobs of the same key share it. */
    assert_ptr_equal(fc_party_of(&admission, &table, &who, &(struct fc_route){.len = 64}), p);
}

/* A table full of connections that come and go serves the next one; one full of budgets of today
 * refuses rather than forgets them. */
static void test_places_for_parties(void **state)
{
    (void)state;
    struct fc_party *kept = connection(7);
    job_of(kept, 7);
    for (uint32_t k = 100; k < 100 + 3 * (uint32_t)admission.n; k++)
        assert_non_null(connection(k));
    assert_ptr_equal(connection(7), kept);
    double retry;
    struct fc_party *p;
    size_t n = 0;
    for (; n <= admission.n; n++) {
        char name[16];
        snprintf(name, sizeof name, "client %zu", n);
        const struct fc_client_identity who = named(name, 10, 0);
        p = fc_party_of(&admission, &table, &who, &(struct fc_route){0});
        if (!p)
            break;
        assert_true(fc_party_spend(p, &who, 10, 0, 86400, &retry));
    }
    assert_int_equal(n, admission.n - 1);
    const struct fc_client_identity first = named("client 0", 10, 0);
    p = fc_party_of(&admission, &table, &first, &(struct fc_route){0});
    assert_false(fc_party_spend(p, &first, 1, 0, 86400, &retry)); /* not forgotten */
}

int main(void)
{
#define WITH_TABLES(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        WITH_TABLES(test_a_flood_gets_its_share),  WITH_TABLES(test_jobs_of_one_client_take_turns),
        WITH_TABLES(test_shares_are_tokens),       WITH_TABLES(test_idle_time_is_not_saved_up),
        WITH_TABLES(test_room_is_left_for_others), WITH_TABLES(test_rate),
        WITH_TABLES(test_budget_of_a_day),         WITH_TABLES(test_places_for_parties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
