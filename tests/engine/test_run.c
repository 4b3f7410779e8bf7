/* A training run: order, epochs and steps, and that neither a stop in the middle of an epoch nor
 * examples that arrive late from another thread change a bit of the result. */
#define _GNU_SOURCE
#include "engine/training.h"
#include "tiny.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define N_ITEMS 7

static void test_order(void **state)
{
    (void)state;
    size_t order[1000], other[1000];
    bool seen[1000] = {false}, moved = false, differs = false;
    fc_training_order(order, 1000, 5, 0);
    for (size_t i = 0; i < 1000; i++) {
        assert_true(order[i] < 1000);
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
        moved = moved || order[i] != i;
    }
    assert_true(moved);
    fc_training_order(other, 1000, 5, 0);
    assert_memory_equal(order, other, sizeof order);
    fc_training_order(other, 1000, 5, 1);
    differs = memcmp(order, other, sizeof order) != 0;
    fc_training_order(other, 1000, 6, 0);
    assert_true(differs && memcmp(order, other, sizeof order) != 0);
    fc_training_order(order, 1, 5, 0);
    assert_int_equal(order[0], 0);
}

/* The golden's samples as examples, of one task or of both; what was asked for, in order. */
struct set {
    struct tiny tiny;
    struct fc_train_item items[N_ITEMS];
    size_t asked[256], n_asked, fail_at; /* fail_at: this question is answered with an error */
    /* of late examples */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t n_there; /* of the first epoch's order; N_ITEMS: all */
    size_t order[N_ITEMS];
};

static void set_open(struct set *s)
{
    *s = (struct set){.fail_at = SIZE_MAX, .n_there = N_ITEMS};
    tiny_open(&s->tiny, "tiny-llama", FC_F32);
    for (size_t i = 0; i < N_ITEMS; i++) {
        for (int task = 0; task < FC_TASKS; task++)
            if (i % 3 != (size_t)task + 1) { /* both, the second only, the first only */
                s->items[i].samples[task] = s->tiny.samples[(i + (size_t)task) % TINY_SAMPLES];
                s->items[i].samples[task].task = (enum fc_task)task;
            }
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
}

static void set_close(struct set *s)
{
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    tiny_close(&s->tiny); /* owns the tokens of the items */
}

static enum fc_code get_item(void *context, size_t index, const struct fc_train_item **item,
                             struct fc_error *err)
{
    struct set *s = context;
    if (s->n_asked == s->fail_at)
        return fc_fail(err, FC_ERR_CANCELLED, "stopped");
    assert_true(s->n_asked < 256);
    s->asked[s->n_asked++] = index;
    pthread_mutex_lock(&s->lock);
    for (bool there = s->n_there == N_ITEMS; !there;) {
        for (size_t i = 0; i < s->n_there; i++)
            there = there || s->order[i] == index;
        if (!there)
            pthread_cond_wait(&s->changed, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    *item = &s->items[index];
    return FC_OK;
}

/* Gives the examples free one by one, in the order in which they will be wanted. */
static void *arrive(void *context)
{
    struct set *s = context;
    for (size_t i = 0; i < N_ITEMS; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        pthread_mutex_lock(&s->lock);
        s->n_there++;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

struct stop {
    size_t at; /* step after which to stop; 0: never */
    double progress;
};

static enum fc_code on_step(void *context, const struct fc_step_metrics *m, double progress,
                            struct fc_error *err)
{
    struct stop *stop = context;
    assert_true(progress > stop->progress && progress <= 1);
    stop->progress = progress;
    return m->step == stop->at ? fc_fail(err, FC_ERR_CANCELLED, "stopped") : FC_OK;
}

static struct fc_training_options options(const struct set *s)
{
    struct fc_training_options o = {.trainer = tiny_options(&s->tiny),
                                    .tokens_per_step = 24,
                                    .epochs = 2,
                                    .seed = 3,
                                    .tag = "test"};
    o.trainer.schedule = FC_SCHEDULE_COSINE;
    o.trainer.warmup = 2;
    return o;
}

static size_t run(struct set *s, const struct fc_training_options *o, size_t stop_at,
                  enum fc_code expected)
{
    struct fc_error err = {0};
    struct stop stop = {.at = stop_at};
    size_t steps = 0;
    enum fc_code code =
        fc_training_run(&s->tiny.model, o, N_ITEMS, get_item, s, on_step, &stop, &steps, &err);
    if (code != expected)
        fail_msg("ended with %d, expected %d: %s", code, expected, err.text);
    if (code == FC_OK && !(stop.progress > 1 - 1e-12))
        fail_msg("ended at progress %g", stop.progress);
    return steps;
}

/* Whether the set's model now holds just these weights, copied by keep. */
static float *keep(const struct set *s)
{
    const struct fc_model *m = &s->tiny.model;
    float *copy = malloc(m->params.total * sizeof *copy);
    assert_non_null(copy);
    m->dev->k->download(m->dev->stream, copy, m->weights, m->params.total * sizeof *copy);
    must(m->dev->k->sync(m->dev->stream, why));
    return copy;
}

static void assert_same_weights(const struct set *s, const float *expected)
{
    float *now = keep(s);
    assert_memory_equal(now, expected, s->tiny.model.params.total * sizeof *now);
    free(now);
}

static void test_epochs_and_steps(void **state)
{
    (void)state;
    struct set s;
    set_open(&s);
    struct fc_training_options o = options(&s);
    size_t steps = run(&s, &o, 0, FC_OK);
    assert_int_equal(s.n_asked, 2 * N_ITEMS);
    size_t order[N_ITEMS];
    for (size_t epoch = 0; epoch < 2; epoch++) {
        fc_training_order(order, N_ITEMS, o.seed, epoch);
        assert_memory_equal(order, s.asked + epoch * N_ITEMS, sizeof order);
    }
    assert_true(steps > 4); /* several in an epoch */
    set_close(&s);

    set_open(&s); /* more steps than an epoch has examples */
    o = options(&s);
    o.steps = 20;
    assert_int_equal(run(&s, &o, 0, FC_OK), 20);
    assert_true(s.n_asked > 2 * N_ITEMS);
    set_close(&s);

    set_open(&s); /* one step that takes the whole epoch, and more tokens than there are */
    o = options(&s);
    o.tokens_per_step = 1000000;
    o.epochs = 1;
    assert_int_equal(run(&s, &o, 0, FC_OK), 1);
    set_close(&s);
}

/* Stops after step `at` by the callback, or when the source fails before question `fail_at`, and
 * goes on: the weights are `straight` to the bit. */
static void stop_and_resume(const char *path, size_t at, size_t fail_at, const float *straight)
{
    struct set s;
    unlink(path);
    set_open(&s);
    struct fc_training_options o = options(&s);
    o.checkpoint = path;
    o.resume = true;
    s.fail_at = fail_at;
    size_t before = run(&s, &o, at, FC_ERR_CANCELLED);
    assert_true(before > 0);
    set_close(&s);
    set_open(&s);
    run(&s, &o, 0, FC_OK);
    assert_same_weights(&s, straight);
    set_close(&s);
}

static void test_resume_in_the_middle(void **state)
{
    (void)state;
    char path[] = "/tmp/fedcot-run-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct set s;
    set_open(&s);
    struct fc_training_options o = options(&s);
    size_t steps = run(&s, &o, 0, FC_OK);
    float *straight = keep(&s);
    set_close(&s);
    for (size_t at = 1; at < steps; at++)
        stop_and_resume(path, at, SIZE_MAX, straight);
    /* A source that fails: examples it had given for a step that never was are not skipped. */
    for (size_t fail_at = 4; fail_at < 2 * N_ITEMS; fail_at++)
        stop_and_resume(path, 0, fail_at, straight);
    free(straight);
    unlink(path);
}

static void test_late_items(void **state)
{
    (void)state;
    struct set s;
    set_open(&s);
    struct fc_training_options o = options(&s);
    run(&s, &o, 0, FC_OK);
    float *straight = keep(&s);
    set_close(&s);

    set_open(&s);
    s.n_there = 0;
    fc_training_order(s.order, N_ITEMS, o.seed, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, arrive, &s), 0);
    run(&s, &o, 0, FC_OK);
    pthread_join(thread, NULL);
    assert_same_weights(&s, straight);
    free(straight);
    set_close(&s);
}

/* What cannot be trained on ends with an error, and at all. */
static void test_nothing_to_learn(void **state)
{
    (void)state;
    struct set s;
    set_open(&s);
    struct fc_training_options o = options(&s);
    struct fc_error err = {0};
    size_t steps;
    assert_int_equal(fc_training_run(&s.tiny.model, &o, 0, get_item, &s, NULL, NULL, &steps, &err),
                     FC_ERR_INPUT);
    struct fc_train_item none = {0}, kept = s.items[0];
    for (size_t i = 0; i < N_ITEMS; i++)
        s.items[i] = none;
    run(&s, &o, 0, FC_ERR_INPUT);
    o.steps = 3;
    run(&s, &o, 0, FC_ERR_INPUT);
    s.items[N_ITEMS - 1] = kept; /* one is enough */
    s.n_asked = 0;
    assert_int_equal(run(&s, &o, 0, FC_OK), 3);
    set_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_epochs_and_steps),
        cmocka_unit_test(test_resume_in_the_middle),
        cmocka_unit_test(test_late_items),
        cmocka_unit_test(test_nothing_to_learn),
    };
    return cmocka_run_group_tests_name("engine/run", tests, NULL, NULL);
}
