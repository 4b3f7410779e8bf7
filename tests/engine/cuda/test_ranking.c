/* Ranking E on CUDA is the CPU's: the nearest outputs of every unit, for a model with its own
 * tokenizer and the public vocabulary, in the same order. Rankings decide what is useful, not what
 * is private, so a last bit may swap two neighbours: one place in two hundred, no more. */
#include "privacy/ranking_embedding.h"

#include "tests/engine/toy.h"

enum { WORDS = 600, DEPTH = 40, MOST_UNITS = 64 };

static const char text[] =
    "Boris owns 30 stamps. Jonas owns 32 stamps; Elena's sister owns 26.5 of them, and nobody "
    "knows "
    "why the old post-office keeps unquestionably rare ones. Who has the most stamps?";

static size_t rank(const char *device, enum fc_dtype dtype, int32_t *top)
{
    char path[512];
    struct fc_device dev;
    struct fc_model_file *file;
    struct fc_model model;
    struct fc_tokenizer *tok;
    struct fc_vocabulary *vocabulary;
    struct fc_cutter *cutter;
    struct fc_ranking *r;
    struct fc_document d = {text, sizeof text - 1, {0}};
    snprintf(path, sizeof path, "%s/tiny-chat", FC_GOLDEN_DIR);
    test_device = device;
    open_test_device(&dev);
    must(fc_model_file_open(&file, path, why));
    must(fc_model_load(&model, &dev, file, dtype, 64, why));
    must(fc_tokenizer_open(&tok, file, why));
    must(fc_vocabulary_open(&vocabulary, tok, WORDS, why));
    must(fc_cutter_open(&cutter, why));
    must(fc_units_cut(cutter, d.text, d.len, &d.units, why));
    must(fc_ranking_embedding_open(&r, &dev, fc_model_weight(&model, FC_P_EMBED, 0), dtype,
                                   model.config.n_vocab, model.config.n_embd, tok, vocabulary,
                                   why));
    must(r->type->prepare(r, &d, 1, DEPTH, why));
    size_t n = d.units.n;
    assert_in_range(n, 20, MOST_UNITS);
    for (size_t i = 0; i < n; i++) {
        const struct fc_query q = {&d, i, NULL};
        must(r->type->rank(r, &q, 1, DEPTH, top + i * DEPTH, why));
    }
    r->type->close(r);
    fc_units_free(&d.units);
    fc_cutter_close(cutter);
    fc_vocabulary_close(vocabulary);
    fc_tokenizer_close(tok);
    fc_model_free(&model);
    fc_model_file_close(file);
    fc_device_close(&dev);
    return n;
}

static void same_order(void **state)
{
    (void)state;
    static int32_t cuda[MOST_UNITS * DEPTH], cpu[MOST_UNITS * DEPTH];
    for (int dt = FC_F32; dt <= FC_BF16; dt++) {
        size_t n = rank("cuda", (enum fc_dtype)dt, cuda), others = 0;
        assert_int_equal(rank("cpu", (enum fc_dtype)dt, cpu), n);
        for (size_t i = 0; i < n * DEPTH; i++)
            others += cuda[i] != cpu[i];
        print_message("%s: %zu of %zu places differ\n", fc_dtype_name((enum fc_dtype)dt), others,
                      n * DEPTH);
        assert_true(others * 200 <= n * DEPTH);
        assert_int_not_equal(cpu[0], cpu[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_order)};
    return cmocka_run_group_tests_name("engine_cuda/ranking", tests, NULL, NULL);
}
