/* The privacy stage on 256 texts of 24 words: ranking, exact draws; no ledger, whose cost is an
 * fsync for each batch and not this machine's arithmetic. */
#include "base/memory.h"
#include "base/philox.h"
#include "bench/bench.h"
#include "privacy/perturb.h"

#define TEXTS 256
#define WORDS 24

struct perturb_state {
    struct fc_perturber *perturber;
    struct fc_private_text texts[TEXTS];
    struct fc_text rendered[TEXTS];
};

static enum fc_code run_texts(void *state, struct fc_error *err)
{
    struct perturb_state *s = state;
    struct fc_perturbed *out[TEXTS];
    enum fc_code code = fc_perturber_run(s->perturber, NULL, s->texts, TEXTS, out, NULL, err);
    for (size_t i = 0; i < TEXTS; i++)
        fc_perturbed_free(out[i]);
    return code;
}

/* Words of the public vocabulary, at random. */
static enum fc_code make_texts(struct perturb_state *s, struct fc_error *err)
{
    const struct fc_vocabulary *v = fc_perturber_vocabulary(s->perturber);
    enum fc_code code = FC_OK;
    for (uint64_t i = 0; i < TEXTS && code == FC_OK; i++) {
        for (uint64_t j = 0; j < WORDS; j++) {
            float u = fc_philox_uniform(4, i, j);
            size_t word = (size_t)(u * (float)fc_vocabulary_size(v));
            fc_text_printf(&s->rendered[i], "%s ", fc_vocabulary_entry(v, word));
        }
        code = fc_text_check(&s->rendered[i], err);
        s->texts[i] = (struct fc_private_text){"bench", s->rendered[i].data, s->rendered[i].len};
    }
    return code;
}

enum fc_code fc_case_perturb(struct fc_bench_context *c, struct fc_error *err)
{
    if (!c->model_path) {
        printf("skipped: the ranking needs a tokenizer; name a model with --model\n");
        return FC_OK;
    }
    struct fc_model_file *file = NULL;
    struct fc_tokenizer *tok = NULL;
    struct fc_model model = {0};
    struct perturb_state s = {0};
    struct fc_perturber_options options = {.epsilon = 6};
    enum fc_code code = fc_model_file_open(&file, c->model_path, err);
    if (code == FC_OK)
        code = fc_tokenizer_open(&tok, file, err);
    if (code == FC_OK)
        code = fc_bench_model(c, &model, err);
    if (code == FC_OK)
        code = fc_perturber_open(&s.perturber, &model, tok, &options, err);
    if (code == FC_OK)
        code = make_texts(&s, err);
    if (code == FC_OK) {
        struct fc_measurement m = {"perturb, epsilon 6", "words/s", TEXTS * WORDS, 0};
        code = fc_bench_measure(c, &m, run_texts, &s, err);
    }
    for (size_t i = 0; i < TEXTS; i++)
        fc_text_free(&s.rendered[i]);
    fc_perturber_close(s.perturber);
    fc_model_free(&model);
    fc_tokenizer_close(tok);
    fc_model_file_close(file);
    return code;
}
