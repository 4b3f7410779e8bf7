/* From examples to tokens: where loss begins, the end token, BOS, and what is cut of long ones. */
#define _GNU_SOURCE
#include "base/file.h"
#include "engine/samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Texts whose tokens are easy to tell: the question alone. */
static const char templates_json[] = "{\"predict\": \"{{question}} Answer:\", "
                                     "\"explain\": \"{{question}} Because\"}";

struct fixture {
    struct fc_tokenizer *tok;
    struct fc_task_templates templates;
    struct fc_sample_maker maker;
};

static void open_fixture(struct fixture *f, const char *tokenizer, size_t max_length)
{
    struct fc_error err = {0};
    char path[512], file[] = "/tmp/fedcot-samples-XXXXXX";
    *f = (struct fixture){0};
    snprintf(path, sizeof path, "%s/%s", FC_GOLDEN_DIR, tokenizer);
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(fc_file_write(file, templates_json, strlen(templates_json), &err), FC_OK);
    if (fc_tokenizer_open_json(&f->tok, path, &err) != FC_OK ||
        fc_task_templates_open(&f->templates, true, file, &err) != FC_OK)
        fail_msg("%s", err.text);
    unlink(file);
    f->maker = (struct fc_sample_maker){f->tok, &f->templates, max_length};
}

static void close_fixture(struct fixture *f)
{
    fc_task_templates_free(&f->templates);
    fc_tokenizer_close(f->tok);
}

static struct fc_example example(const char *question, const char *answer)
{
    return (struct fc_example){.id = (char *)(uintptr_t) "id",
                               .question = (char *)(uintptr_t)question,
                               .answer = (char *)(uintptr_t)answer};
}

static struct fc_train_item make(const struct fixture *f, const struct fc_example *e,
                                 const char *rationale)
{
    struct fc_train_item item;
    struct fc_error err = {0};
    if (fc_train_item_make(&f->maker, e, rationale, &item, &err) != FC_OK)
        fail_msg("%s", err.text);
    return item;
}

static struct fc_tokens encode(const struct fixture *f, const char *text)
{
    struct fc_tokens t = {0};
    assert_int_equal(fc_tokenizer_encode(f->tok, text, strlen(text), FC_TEXT, &t, NULL), FC_OK);
    return t;
}

/* BOS where the model wants it, the prompt's own tokens, then those of " answer" and the end. */
static void test_both_tasks(void **state)
{
    (void)state;
    static const char *const tokenizers[] = {"tokenizer_gpt2.json", "tokenizer_llama2.json"};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        open_fixture(&f, tokenizers[i], 512);
        size_t bos = fc_tokenizer_adds_bos(f.tok);
        assert_int_equal(bos, i);
        const struct fc_example e = example("return the value", "the file");
        struct fc_train_item item = make(&f, &e, "  because of it");
        static const char *const prompts[] = {"return the value Answer:",
                                              "return the value Because"};
        static const char *const targets[] = {" the file", " because of it"};
        assert_false(item.cut);
        for (int task = 0; task < FC_TASKS; task++) {
            const struct fc_sample *s = &item.samples[task];
            struct fc_tokens p = encode(&f, prompts[task]), t = encode(&f, targets[task]);
            int32_t eos = fc_tokenizer_eos(f.tok);
            assert_int_equal(s->task, task);
            assert_int_equal(s->first_target, bos + p.n);
            assert_int_equal(s->n, bos + p.n + t.n + (eos >= 0));
            if (bos)
                assert_int_equal(s->ids[0], fc_tokenizer_bos(f.tok));
            assert_memory_equal(s->ids + bos, p.ids, p.n * sizeof *p.ids);
            assert_memory_equal(s->ids + s->first_target, t.ids, t.n * sizeof *t.ids);
            if (eos >= 0)
                assert_int_equal(s->ids[s->n - 1], eos);
            fc_tokens_free(&p);
            fc_tokens_free(&t);
        }
        fc_train_item_free(&item);
        close_fixture(&f);
    }
}

static void test_missing_parts(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "tokenizer_llama2.json", 512);
    const struct fc_example whole = example("return", "value"), no_answer = example("return", NULL);
    static const char *const blank[] = {NULL, "", " \n\t"};
    for (size_t i = 0; i < 3; i++) {
        struct fc_train_item item = make(&f, &whole, blank[i]);
        assert_true(item.samples[FC_TASK_PREDICT].n > 0);
        assert_int_equal(item.samples[FC_TASK_EXPLAIN].n, 0);
        fc_train_item_free(&item);
    }
    struct fc_train_item item = make(&f, &no_answer, "because");
    assert_int_equal(item.samples[FC_TASK_PREDICT].n, 0);
    assert_true(item.samples[FC_TASK_EXPLAIN].n > 0);
    fc_train_item_free(&item);
    close_fixture(&f);
}

/* A text of n times "file ". */
static char *repeat(size_t n)
{
    struct fc_text text = {0};
    for (size_t i = 0; i < n; i++)
        fc_text_puts(&text, "file ");
    assert_int_equal(fc_text_check(&text, NULL), FC_OK);
    return text.data;
}

/* Whatever is long, a sample is max_length tokens, begins with BOS, and has prompt and target. */
static void test_cuts(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 3, 12, 40}, limits[] = {2, 3, 8, 31, 32};
    size_t n_cut = 0;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        for (size_t p = 0; p < 4; p++)
            for (size_t t = 0; t < 4; t++) {
                struct fixture f;
                open_fixture(&f, "tokenizer_llama2.json", 4096);
                char *question = repeat(lengths[p]), *answer = repeat(lengths[t]);
                const struct fc_example e = example(question, answer);
                struct fc_train_item whole = make(&f, &e, NULL);
                f.maker.max_length = limits[i];
                struct fc_train_item cut = make(&f, &e, NULL);
                const struct fc_sample *w = &whole.samples[0], *c = &cut.samples[0];
                size_t limit = limits[i], n_target = c->n - c->first_target;
                assert_int_equal(cut.cut, w->n > limit);
                assert_int_equal(c->n, w->n < limit ? w->n : limit);
                assert_true(c->first_target >= 1 && n_target >= 1);
                assert_int_equal(c->ids[0], fc_tokenizer_bos(f.tok));
                /* the prompt's end and the target's beginning are kept */
                assert_memory_equal(c->ids + 1, w->ids + w->first_target - (c->first_target - 1),
                                    (c->first_target - 1) * sizeof *c->ids);
                assert_memory_equal(c->ids + c->first_target, w->ids + w->first_target,
                                    n_target * sizeof *c->ids);
                if (n_target < w->n - w->first_target) /* a target is cut to half at most */
                    assert_true(n_target >= limit / 2);
                n_cut += cut.cut;
                fc_train_item_free(&whole);
                fc_train_item_free(&cut);
                free(question);
                free(answer);
                close_fixture(&f);
            }
    assert_true(n_cut > 20);
}

static void test_no_room(void **state)
{
    (void)state;
    struct fixture f;
    struct fc_train_item item;
    struct fc_error err = {0};
    open_fixture(&f, "tokenizer_llama2.json", 1);
    const struct fc_example e = example("return the value", "SECRET");
    assert_int_equal(fc_train_item_make(&f.maker, &e, NULL, &item, &err), FC_ERR_USAGE);
    assert_null(strstr(err.text, "SECRET"));
    assert_null(item.samples[0].ids);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_tasks),
        cmocka_unit_test(test_missing_parts),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests_name("engine/samples", tests, NULL, NULL);
}
