/* The stage pipeline: order, bounds, statistics, errors, cancel, and that nothing leaks (each item
 * is counted when made and when freed; the sanitizers see the rest). */
#define _POSIX_C_SOURCE 200809L
#include "base/clock.h"
#include "engine/pipeline.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static atomic_int alive;   /* items made and not yet freed */
static atomic_int highest; /* most of them at once */

static int *make(int value)
{
    int *item = malloc(sizeof *item);
    assert_non_null(item);
    *item = value;
    int now = atomic_fetch_add(&alive, 1) + 1;
    if (now > atomic_load(&highest))
        atomic_store(&highest, now);
    return item;
}

static void drop(void *item)
{
    atomic_fetch_sub(&alive, 1);
    free(item);
}

/* ---- stages ---- */

struct source {
    int count, made; /* count < 0: until stopped */
    double delay;
};

static enum fc_code source_run(struct fc_stage *stage, void *context, struct fc_error *err)
{
    (void)err;
    struct source *s = context;
    for (s->made = 0; s->count < 0 || s->made < s->count; s->made++) {
        fc_sleep(s->delay);
        enum fc_code code = fc_stage_put(stage, make(s->made), 10);
        if (code != FC_OK)
            return code;
    }
    return FC_OK;
}

/* One item in, two out: 2v and 2v + 1; at the end one more, -1. */
static enum fc_code split(struct fc_stage *stage, void *context, void *item, struct fc_error *err)
{
    (void)context;
    (void)err;
    int v = *(int *)item;
    drop(item);
    enum fc_code code = fc_stage_put(stage, make(2 * v), 4);
    return code != FC_OK ? code : fc_stage_put(stage, make(2 * v + 1), 4);
}

static enum fc_code split_end(struct fc_stage *stage, void *context, struct fc_error *err)
{
    (void)context;
    (void)err;
    return fc_stage_put(stage, make(-1), 4);
}

static enum fc_code pass(struct fc_stage *stage, void *context, void *item, struct fc_error *err)
{
    (void)context;
    (void)err;
    return fc_stage_put(stage, item, 10);
}

struct sink {
    int seen[4096];
    int n;
    int limit; /* ends itself after so many items; 0: never */
    int fail_at;
    double delay;
};

static enum fc_code sink_process(struct fc_stage *stage, void *context, void *item,
                                 struct fc_error *err)
{
    (void)stage;
    struct sink *s = context;
    if (s->n < 4096)
        s->seen[s->n] = *(int *)item;
    s->n++;
    drop(item);
    fc_sleep(s->delay);
    if (s->fail_at && s->n == s->fail_at)
        return fc_fail(err, FC_ERR_INPUT, "item %d is bad", s->n);
    return FC_OK;
}

static enum fc_code sink_run(struct fc_stage *stage, void *context, struct fc_error *err)
{
    struct sink *s = context;
    void *item;
    while (s->n < s->limit && fc_stage_take(stage, -1, &item) == FC_TAKE_ITEM)
        if (sink_process(stage, s, item, err) != FC_OK)
            return err->code;
    return FC_OK;
}

static struct fc_pipeline *start(const struct fc_stage_spec *stages, size_t n,
                                 const atomic_int *stop)
{
    struct fc_error err = {0};
    struct fc_pipeline *p = NULL;
    atomic_store(&highest, 0);
    assert_int_equal(fc_pipeline_start(&p, stages, n, stop, &err), FC_OK);
    return p;
}

/* ---- behaviour ---- */

static void test_order_and_counts(void **state)
{
    (void)state;
    struct source source = {.count = 1000};
    struct sink sink = {0};
    const struct fc_stage_spec stages[] = {
        {.name = "source", .run = source_run, .context = &source, .capacity = 3, .destroy = drop},
        {.name = "split", .process = split, .finish = split_end, .capacity = 5, .destroy = drop},
        {.name = "sink", .process = sink_process, .context = &sink},
    };
    struct fc_pipeline *p = start(stages, 3, NULL);
    struct fc_error err = {0};
    assert_int_equal(fc_pipeline_join(p, &err), FC_OK);
    assert_int_equal(err.code, FC_OK);
    assert_int_equal(sink.n, 2001);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(sink.seen[i], i);
    assert_int_equal(sink.seen[2000], -1);

    struct fc_stage_stats stats;
    assert_int_equal(fc_pipeline_stages(p), 3);
    fc_pipeline_stats(p, 1, &stats);
    assert_string_equal(stats.name, "split");
    assert_int_equal(stats.items_in, 1000);
    assert_int_equal(stats.bytes_in, 10000);
    assert_int_equal(stats.items_out, 2001);
    assert_int_equal(stats.bytes_out, 8004);
    assert_true(stats.ended && stats.queued == 0);
    fc_pipeline_stats(p, 2, &stats);
    assert_int_equal(stats.items_in, 2001);
    fc_pipeline_free(p);
    assert_int_equal(atomic_load(&alive), 0);
}

/* A slow last stage holds the first back: at no time are there more items than fit in the queues
 * and hands, and the time shows up as `blocked` before the slow stage and `busy` in it. */
static void test_back_pressure(void **state)
{
    (void)state;
    struct source source = {.count = 60};
    struct sink sink = {.delay = 0.005};
    const struct fc_stage_spec stages[] = {
        {.name = "source", .run = source_run, .context = &source, .capacity = 2, .destroy = drop},
        {.name = "pass", .process = pass, .capacity = 2, .destroy = drop},
        {.name = "sink", .process = sink_process, .context = &sink},
    };
    struct fc_pipeline *p = start(stages, 3, NULL);
    assert_int_equal(fc_pipeline_join(p, NULL), FC_OK);
    assert_int_equal(sink.n, 60);
    assert_true(atomic_load(&highest) <= 2 + 2 + 3); /* two queues, one in each stage's hands */
    struct fc_stage_stats first, last;
    fc_pipeline_stats(p, 0, &first);
    fc_pipeline_stats(p, 2, &last);
    assert_true(first.blocked > 0.2);
    assert_true(last.busy > 0.29);
    assert_true(last.busy > last.starved);
    fc_pipeline_free(p);
    assert_int_equal(atomic_load(&alive), 0);
}

static void test_first_error_wins(void **state)
{
    (void)state;
    struct source source = {.count = -1};
    struct sink sink = {.fail_at = 7};
    const struct fc_stage_spec stages[] = {
        {.name = "source", .run = source_run, .context = &source, .capacity = 4, .destroy = drop},
        {.name = "pass", .process = pass, .capacity = 4, .destroy = drop},
        {.name = "sink", .process = sink_process, .context = &sink},
    };
    struct fc_pipeline *p = start(stages, 3, NULL);
    struct fc_error err = {0};
    assert_int_equal(fc_pipeline_join(p, &err), FC_ERR_INPUT);
    assert_string_equal(err.text, "sink: item 7 is bad");
    assert_int_equal(sink.n, 7);
    err = (struct fc_error){0};
    assert_int_equal(fc_pipeline_join(p, &err), FC_ERR_INPUT); /* the same again */
    fc_pipeline_free(p);
    assert_int_equal(atomic_load(&alive), 0);
}

static void test_reader_that_has_enough(void **state)
{
    (void)state;
    struct source source = {.count = -1};
    struct sink sink = {.limit = 25};
    const struct fc_stage_spec stages[] = {
        {.name = "source", .run = source_run, .context = &source, .capacity = 4, .destroy = drop},
        {.name = "pass", .process = pass, .capacity = 4, .destroy = drop},
        {.name = "sink", .run = sink_run, .context = &sink},
    };
    struct fc_pipeline *p = start(stages, 3, NULL);
    struct fc_error err = {0};
    assert_int_equal(fc_pipeline_join(p, &err), FC_OK); /* an early end is not an error */
    assert_int_equal(sink.n, 25);
    fc_pipeline_free(p);
    assert_int_equal(atomic_load(&alive), 0);
}

static void test_cancel_from_thread(void **state)
{
    (void)state;
    struct source source = {.count = -1, .delay = 0.001};
    struct sink sink = {0};
    const struct fc_stage_spec stages[] = {
        {.name = "source", .run = source_run, .context = &source, .capacity = 4, .destroy = drop},
        {.name = "sink", .process = sink_process, .context = &sink},
    };
    struct fc_pipeline *p = start(stages, 2, NULL);
    fc_sleep(0.03);
    double begin = fc_now();
    fc_pipeline_cancel(p);
    assert_int_equal(fc_pipeline_join(p, NULL), FC_ERR_CANCELLED);
    assert_true(fc_now() - begin < 1);
    fc_pipeline_free(p);
    assert_int_equal(atomic_load(&alive), 0);
}

static atomic_int stop_flag;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop_flag, 1);
}

static enum fc_code idle_run(struct fc_stage *stage, void *context, struct fc_error *err)
{
    (void)context;
    (void)err;
    while (!fc_stage_stopped(stage)) /* a stage that waits for something of its own */
        fc_sleep(0.005);
    return FC_ERR_CANCELLED;
}

/* The middle stage waits in take, the last in take, the first in a wait of its own: a signal
 * frees all of them. */
static void test_cancel_from_signal(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, &before);
    atomic_store(&stop_flag, 0);
    struct sink sink = {0};
    const struct fc_stage_spec stages[] = {
        {.name = "idle", .run = idle_run, .capacity = 1, .destroy = drop},
        {.name = "pass", .process = pass, .capacity = 1, .destroy = drop},
        {.name = "sink", .process = sink_process, .context = &sink},
    };
    struct fc_pipeline *p = start(stages, 3, &stop_flag);
    fc_sleep(0.02);
    double begin = fc_now();
    raise(SIGTERM);
    struct fc_error err = {0};
    assert_int_equal(fc_pipeline_join(p, &err), FC_ERR_CANCELLED);
    assert_string_equal(err.text, "cancelled");
    assert_true(fc_now() - begin < 1);
    fc_pipeline_free(p);
    sigaction(SIGTERM, &before, NULL);
    assert_int_equal(atomic_load(&alive), 0);
}

/* take with a timeout: a stage may look after other things while no input comes. */
struct patient {
    int nones, items;
};

static enum fc_code patient_run(struct fc_stage *stage, void *context, struct fc_error *err)
{
    (void)err;
    struct patient *s = context;
    for (;;) {
        void *item;
        switch (fc_stage_take(stage, 0.005, &item)) {
        case FC_TAKE_ITEM:
            drop(item);
            s->items++;
            break;
        case FC_TAKE_NONE:
            s->nones++;
            break;
        case FC_TAKE_END:
            return FC_OK;
        case FC_TAKE_STOPPED:
            return FC_ERR_CANCELLED;
        }
    }
}

static void test_take_with_timeout(void **state)
{
    (void)state;
    struct source source = {.count = 4, .delay = 0.03};
    struct patient patient = {0};
    const struct fc_stage_spec stages[] = {
        {.name = "source", .run = source_run, .context = &source, .capacity = 1, .destroy = drop},
        {.name = "patient", .run = patient_run, .context = &patient},
    };
    struct fc_pipeline *p = start(stages, 2, NULL);
    assert_int_equal(fc_pipeline_join(p, NULL), FC_OK);
    assert_int_equal(patient.items, 4);
    assert_true(patient.nones >= 4);
    fc_pipeline_free(p);
    assert_int_equal(atomic_load(&alive), 0);
}

/* Freed while everything is full and running. */
static void test_free_while_running(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct source source = {.count = -1};
        struct sink sink = {.delay = 0.001};
        const struct fc_stage_spec stages[] = {
            {.name = "a", .run = source_run, .context = &source, .capacity = 1, .destroy = drop},
            {.name = "b", .process = pass, .capacity = 7, .destroy = drop},
            {.name = "c", .process = pass, .capacity = 2, .destroy = drop},
            {.name = "d", .process = sink_process, .context = &sink},
        };
        struct fc_pipeline *p = start(stages, 4, NULL);
        fc_sleep(0.001 * round);
        fc_pipeline_free(p);
        assert_int_equal(atomic_load(&alive), 0);
    }
    fc_pipeline_free(NULL);
}

static void test_wrong_tables(void **state)
{
    (void)state;
    struct sink sink = {0};
    const struct fc_stage_spec no_capacity[] = {
        {.name = "a", .run = idle_run, .destroy = drop},
        {.name = "sink", .process = sink_process, .context = &sink},
    };
    const struct fc_stage_spec no_function[] = {{.name = "a", .capacity = 1}};
    struct fc_pipeline *p;
    struct fc_error err = {0};
    assert_int_equal(fc_pipeline_start(&p, no_capacity, 2, NULL, &err), FC_ERR_INTERNAL);
    assert_null(p);
    assert_non_null(strstr(err.text, "capacity"));
    err = (struct fc_error){0};
    assert_int_equal(fc_pipeline_start(&p, no_function, 1, NULL, &err), FC_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "no function"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_counts),   cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_first_error_wins),   cmocka_unit_test(test_reader_that_has_enough),
        cmocka_unit_test(test_cancel_from_thread), cmocka_unit_test(test_cancel_from_signal),
        cmocka_unit_test(test_take_with_timeout),  cmocka_unit_test(test_free_while_running),
        cmocka_unit_test(test_wrong_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
