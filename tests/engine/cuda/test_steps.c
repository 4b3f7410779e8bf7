/* Ten training steps on CUDA beside the CPU: fp32 follows the CPU's to rounding, bf16 and fp16 stay
 * as near as the CPU's own bf16 does, every run has the same bits, with an update that was recorded
 * and one that was not, and fp16 finds its loss scale, which a resume keeps. */
#define _POSIX_C_SOURCE 200809L
#include "engine/trainer_private.h"
#include "tests/engine/tiny.h"

#include <math.h>
#include <unistd.h>

enum { STEPS = 10 };

struct course {
    double losses[STEPS], norms[STEPS];
    size_t overflows;
    size_t recorded, launched; /* recordings of the update made and launched, since a resume */
    float scale;               /* of the last step */
    unsigned char *weights;
    size_t bytes;
};

/* How a run differs from the usual one. */
struct how {
    float loss_scale;        /* 0: the default */
    size_t loss_scale_steps; /* likewise */
    size_t tokens_per_batch; /* likewise: two micro-batches */
    int stop;                /* save and load into a new trainer before this step; 0: never */
    bool stochastic;
    bool falling; /* another learning rate in every step */
    bool eager;   /* the update is not recorded */
};

static void open_trainer(struct tiny *t, struct fc_trainer **trainer, const char *device,
                         enum fc_dtype dtype, const struct how *how)
{
    test_device = device;
    tiny_open(t, "tiny-llama", dtype);
    struct fc_trainer_options o = tiny_options(t);
    if (how->loss_scale > 0)
        o.loss_scale = how->loss_scale;
    if (how->loss_scale_steps)
        o.loss_scale_steps = how->loss_scale_steps;
    o.stochastic = how->stochastic;
    o.seed = 5;
    if (how->falling)
        o.schedule = FC_SCHEDULE_COSINE;
    if (how->tokens_per_batch)
        o.tokens_per_batch = how->tokens_per_batch;
    must(fc_trainer_create(trainer, &t->model, &o, why));
    if (how->eager)
        (*trainer)->graphs.records = false;
}

static void resume(struct tiny *t, struct fc_trainer **trainer, const char *device,
                   enum fc_dtype dtype, const struct how *how)
{
    char path[] = "/tmp/fedcot-steps-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    must(fc_trainer_save(*trainer, path, "tag", NULL, why));
    fc_trainer_free(*trainer);
    tiny_close(t);
    open_trainer(t, trainer, device, dtype, how);
    must(fc_trainer_load(*trainer, path, "tag", NULL, 0, why));
    unlink(path);
}

static struct course train(const char *device, enum fc_dtype dtype, const struct how *how)
{
    struct course c = {0};
    struct tiny t;
    struct fc_trainer *trainer;
    open_trainer(&t, &trainer, device, dtype, how);
    for (int step = 0; step < STEPS; step++) {
        struct fc_step_metrics m;
        if (step > 0 && step == how->stop)
            resume(&t, &trainer, device, dtype, how);
        must(fc_trainer_step(trainer, t.list, t.n_samples, (double)step / STEPS, &m, why));
        c.losses[step] = m.loss;
        c.norms[step] = m.gradient_norm;
        c.overflows += m.overflows;
        c.scale = m.loss_scale;
    }
    c.recorded = trainer->graphs.recorded;
    c.launched = trainer->graphs.launched;
    c.bytes = t.model.params.total * fc_dtype_size(dtype);
    c.weights = malloc(c.bytes);
    assert_non_null(c.weights);
    t.dev.k->download(t.dev.stream, c.weights, t.model.weights, c.bytes);
    must(t.dev.k->sync(t.dev.stream, why));
    fc_trainer_free(trainer);
    tiny_close(&t);
    return c;
}

/* The largest relative difference of the losses. */
static double distance(const struct course *a, const struct course *b)
{
    double worst = 0;
    for (int i = 0; i < STEPS; i++)
        worst = fmax(worst, fabs(a->losses[i] / b->losses[i] - 1));
    return worst;
}

static void check_same_bits(struct course *a, struct course *b)
{
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->weights, b->weights, a->bytes);
    assert_memory_equal(a->losses, b->losses, sizeof a->losses);
    assert_memory_equal(a->norms, b->norms, sizeof a->norms);
    assert_true(a->scale == b->scale);
}

static const struct how usual = {0};

static void follows_the_cpu(void **state)
{
    (void)state;
    struct course cuda[3], cpu[2]; /* by dtype */
    for (int dt = 0; dt < 3; dt++)
        cuda[dt] = train("cuda", (enum fc_dtype)dt, &usual);
    for (int dt = 0; dt < 2; dt++)
        cpu[dt] = train("cpu", (enum fc_dtype)dt, &usual);
    double noise = distance(&cpu[FC_BF16], &cpu[FC_F32]);
    double fp32 = distance(&cuda[FC_F32], &cpu[FC_F32]);
    double bf16 = distance(&cuda[FC_BF16], &cpu[FC_F32]);
    double fp16 = distance(&cuda[FC_F16], &cpu[FC_F32]);
    print_message("from the CPU's fp32: CPU bf16 %.2e; CUDA fp32 %.2e, bf16 %.2e, fp16 %.2e\n",
                  noise, fp32, bf16, fp16);
    assert_true(noise > 0 && cpu[0].losses[STEPS - 1] < cpu[0].losses[0]);
    assert_true(fp32 <= 1e-5);
    assert_true(bf16 <= 2 * noise);
    assert_true(fp16 <= noise); /* three bits more */
    assert_int_equal(cuda[FC_F16].overflows, 0);
    assert_true(cuda[FC_F16].scale == 65536.0f && cuda[FC_BF16].scale == 1.0f);
    for (int dt = 0; dt < 3; dt++)
        free(cuda[dt].weights);
    free(cpu[0].weights);
    free(cpu[1].weights);
}

/* Also with more micro-batches than may be in flight. */
static void same_bits_every_run(void **state)
{
    (void)state;
    const struct how many = {.tokens_per_batch = 22},
                     many_resumed = {.tokens_per_batch = 22, .stop = 4};
    struct course a = train("cuda", FC_BF16, &many), b = train("cuda", FC_BF16, &many);
    struct course c = train("cuda", FC_BF16, &many_resumed);
    check_same_bits(&a, &b);
    check_same_bits(&a, &c);
    free(a.weights);
    free(b.weights);
    free(c.weights);
}

/* The update runs as it is once, is recorded once and launched from then on; learning rate, bias
 * correction, clipping, loss scale and draws are those of the step and not of the recording. */
static void recorded_update(void **state)
{
    (void)state;
    const struct how recorded = {.falling = true, .stochastic = true, .loss_scale_steps = 3};
    struct how eager = recorded;
    eager.eager = true;
    for (int dt = FC_F32; dt <= FC_F16; dt++) {
        struct course a = train("cuda", (enum fc_dtype)dt, &recorded);
        struct course b = train("cuda", (enum fc_dtype)dt, &eager);
        check_same_bits(&a, &b);
        assert_int_equal(a.recorded, 1);
        assert_int_equal(a.launched, STEPS - 1);
        assert_int_equal(b.recorded, 0);
        assert_int_equal(b.launched, 0);
        free(a.weights);
        free(b.weights);
    }
}

/* A scale far too large is halved until gradients fit, and doubled again every three good steps;
 * the losses are those of a run that began with a good one; a resume goes on with scale and count.
 */
static void loss_scale(void **state)
{
    (void)state;
    const struct how large = {.loss_scale = 0x1p40f, .loss_scale_steps = 3};
    const struct how resumed = {.loss_scale = 0x1p40f, .loss_scale_steps = 3, .stop = 5};
    struct course plain = train("cuda", FC_F16, &usual), a = train("cuda", FC_F16, &large);
    struct course b = train("cuda", FC_F16, &resumed);
    print_message("scale 2^40: %zu overflows in ten steps, in the end %g\n", a.overflows,
                  (double)a.scale);
    assert_true(a.overflows >= 10 && a.scale > 1.0f && a.scale < 0x1p36f);
    assert_true(distance(&a, &plain) <= 1e-2);
    check_same_bits(&a, &b);
    free(plain.weights);
    free(a.weights);
    free(b.weights);
}

/* Weights rounded at random: other bits than to nearest, the same in every run and after a resume,
 * and on the CPU, whose fp32 weights they follow. */
static void stochastic_rounding(void **state)
{
    (void)state;
    const struct how random = {.stochastic = true}, resumed = {.stochastic = true, .stop = 6};
    const char *const devices[] = {"cuda", "cpu"};
    struct course exact = train("cpu", FC_F32, &usual);
    for (int i = 0; i < 2; i++) {
        struct course nearest = train(devices[i], FC_BF16, &usual);
        struct course a = train(devices[i], FC_BF16, &random);
        struct course b = train(devices[i], FC_BF16, &resumed);
        check_same_bits(&a, &b);
        assert_memory_not_equal(a.weights, nearest.weights, a.bytes);
        assert_true(distance(&a, &exact) <= 2e-2);
        free(nearest.weights);
        free(a.weights);
        free(b.weights);
    }
    free(exact.weights);
}

/* Weights that overflow without any scale: an error, and the weights are as before. */
static void broken_weights(void **state)
{
    (void)state;
    struct tiny t;
    struct fc_trainer *trainer;
    struct fc_step_metrics m;
    struct fc_error err = {0};
    open_trainer(&t, &trainer, "cuda", FC_F16, &usual);
    const struct fc_param *norm = fc_params_find(&t.model.params, FC_P_NORM_FINAL, 0);
    uint16_t *w = malloc(norm->count * sizeof *w), infinite = 0x7c00, now;
    assert_non_null(w);
    for (size_t i = 0; i < norm->count; i++)
        w[i] = infinite;
    char *at = (char *)t.model.weights + norm->offset * sizeof *w;
    t.dev.k->upload(t.dev.stream, at, w, norm->count * sizeof *w);
    must(t.dev.k->sync(t.dev.stream, why));
    assert_int_equal(fc_trainer_step(trainer, t.list, t.n_samples, 0, &m, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "not finite"));
    t.dev.k->download(t.dev.stream, &now, at, sizeof now);
    must(t.dev.k->sync(t.dev.stream, why));
    assert_int_equal(now, infinite);
    assert_int_equal(fc_trainer_steps_done(trainer), 0);
    free(w);
    fc_trainer_free(trainer);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_cpu),     cmocka_unit_test(same_bits_every_run),
        cmocka_unit_test(recorded_update),     cmocka_unit_test(loss_scale),
        cmocka_unit_test(stochastic_rounding), cmocka_unit_test(broken_weights),
    };
    return cmocka_run_group_tests_name("engine_cuda/steps", tests, NULL, NULL);
}
