/* Ranking E against a plain reference, on a tokenizer whose tokens are single letters. */
#define _GNU_SOURCE
#include "privacy/ranking_embedding.h"

#include "base/file.h"
#include "base/philox.h"
#include "tests/privacy/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef FC_TEST_DEVICE
#define FC_TEST_DEVICE "cpu"
#endif

enum { LETTERS = 26, ROWS = LETTERS + 1, WIDTH = 24, OUTPUTS = 700 }; /* row 26 is the space */

static char folder[64], path[128];
static struct fc_device dev;
static struct fc_tokenizer *tok;
static struct fc_vocabulary *vocabulary;
static char words[OUTPUTS][8];
static float table[ROWS][WIDTH];

/* A byte-level tokenizer without merges over a to z and the space. */
static enum fc_code open_tokenizer(void)
{
    struct fc_text json = {0};
    fc_text_puts(&json, "{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":"
                        "\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                        "\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
                        "\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
                        "\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
                        "\"unk_token\":null,\"continuing_subword_prefix\":null,"
                        "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
                        "\"merges\":[],\"vocab\":{");
    for (int i = 0; i < LETTERS; i++)
        fc_text_printf(&json, "\"%c\":%d,", 'a' + i, i);
    fc_text_printf(&json, "\"\\u0120\":%d}}}", LETTERS);
    enum fc_code code = fc_file_write(path, json.data, json.len, NULL);
    fc_text_free(&json);
    struct fc_error err = {0};
    if (code == FC_OK)
        code = fc_tokenizer_open_json(&tok, path, &err);
    if (code != FC_OK)
        printf("tokenizer: %s\n", err.text);
    return code;
}

static void make_words(const char *pointers[OUTPUTS])
{
    for (uint32_t i = 0; i < OUTPUTS; i++) { /* distinct, of 3 to 6 letters */
        uint32_t w[4], v = i;
        fc_philox(3, i, 0, w);
        size_t len = 0;
        for (int j = 0; j < 3; j++, v /= 9)
            words[i][len++] = (char)('a' + v % 9);
        for (size_t more = w[0] % 4; more; more--)
            words[i][len++] = (char)('j' + w[1 + more % 3] % 10);
        words[i][len] = '\0';
        pointers[i] = words[i];
    }
}

static void unit_length(double x[WIDTH])
{
    double square = 0;
    for (size_t c = 0; c < WIDTH; c++)
        square += x[c] * x[c];
    for (size_t c = 0; c < WIDTH; c++)
        x[c] /= sqrt(square);
}

/* The direction of a word: its letters, summed (without the space: that form has fewer tokens). */
static void direction(const char *text, size_t len, double out[WIDTH])
{
    for (size_t c = 0; c < WIDTH; c++) {
        out[c] = 0;
        for (size_t i = 0; i < len; i++)
            out[c] += (double)table[text[i] - 'a'][c];
    }
    unit_length(out);
}

static double mean[WIDTH], first_axis[WIDTH];

/* What all of V has in common: the mean, and the first axis from the covariance matrix. */
static void find_common_of_v(void)
{
    static double covariance[WIDTH][WIDTH], all[OUTPUTS][WIDTH];
    for (size_t i = 0; i < OUTPUTS; i++) {
        direction(words[i], strlen(words[i]), all[i]);
        for (size_t c = 0; c < WIDTH; c++)
            mean[c] += all[i][c] / OUTPUTS;
    }
    for (size_t i = 0; i < OUTPUTS; i++)
        for (size_t c = 0; c < WIDTH; c++)
            for (size_t d = 0; d < WIDTH; d++)
                covariance[c][d] += (all[i][c] - mean[c]) * (all[i][d] - mean[d]);
    for (size_t c = 0; c < WIDTH; c++)
        first_axis[c] = 1;
    for (int round = 0; round < 1000; round++) {
        double next[WIDTH] = {0};
        for (size_t c = 0; c < WIDTH; c++)
            for (size_t d = 0; d < WIDTH; d++)
                next[c] += covariance[c][d] * first_axis[d];
        unit_length(next);
        memcpy(first_axis, next, sizeof next);
    }
}

/* The direction without it. */
static void reference(const char *text, size_t len, double out[WIDTH])
{
    double along = 0;
    direction(text, len, out);
    for (size_t c = 0; c < WIDTH; c++) {
        out[c] -= mean[c];
        along += out[c] * first_axis[c];
    }
    for (size_t c = 0; c < WIDTH; c++)
        out[c] -= along * first_axis[c];
    unit_length(out);
}

/* In *top (of the ranking's depth) must be nearest first, up to the error of fp32 and of an axis
 * found in few rounds: no output left out is clearly nearer than one that is in, and each is not
 * clearly nearer than the one before. */
static void check_top(const char *text, size_t len, const int32_t *top, size_t depth)
{
    static double distance[OUTPUTS];
    double x[WIDTH], y[WIDTH];
    bool in[OUTPUTS] = {false};
    reference(text, len, x);
    for (size_t i = 0; i < OUTPUTS; i++) {
        reference(words[i], strlen(words[i]), y);
        distance[i] = 0;
        for (size_t c = 0; c < WIDTH; c++)
            distance[i] -= x[c] * y[c];
    }
    for (size_t i = 0; i < depth; i++) {
        assert_in_range(top[i], 0, OUTPUTS - 1);
        assert_false(in[top[i]]);
        in[top[i]] = true;
        if (i > 0)
            assert_true(distance[top[i]] >= distance[top[i - 1]] - 2e-4);
    }
    for (size_t i = 0; i < OUTPUTS; i++)
        if (!in[i])
            assert_true(distance[i] >= distance[top[depth - 1]] - 2e-4);
}

static void rank_text(enum fc_dtype dtype, const char *text, size_t depth)
{
    struct fc_ranking *r = NULL;
    struct fc_error err = {0};
    static uint16_t half[ROWS][WIDTH];
    for (size_t i = 0; i < ROWS; i++)
        for (size_t c = 0; c < WIDTH; c++)
            half[i][c] = fc_f32_to_bf16(table[i][c]); /* exact: see fill */
    size_t bytes = ROWS * WIDTH * fc_dtype_size(dtype);
    void *device = fc_device_alloc(&dev, bytes, FC_MEM_WEIGHTS, &err);
    assert_non_null(device);
    dev.k->upload(dev.stream, device, dtype == FC_F32 ? (void *)table : (void *)half, bytes);
    assert_int_equal(dev.k->sync(dev.stream, &err), FC_OK);
    if (fc_ranking_embedding_open(&r, &dev, device, dtype, ROWS, WIDTH, tok, vocabulary, &err) !=
        FC_OK)
        fail_msg("%s", err.text);
    struct fc_cutter *cutter = NULL;
    struct fc_document d = {.text = text, .len = strlen(text)};
    assert_int_equal(fc_cutter_open(&cutter, NULL), FC_OK);
    assert_int_equal(fc_units_cut(cutter, text, d.len, &d.units, NULL), FC_OK);
    assert_int_equal(r->type->prepare(r, &d, 1, depth, &err), FC_OK);
    int32_t *top = calloc(depth, sizeof *top);
    assert_non_null(top);
    for (size_t i = 0; i <= d.units.n; i++) {
        struct fc_query q = {&d, i, NULL};
        assert_int_equal(r->type->rank(r, &q, 1, depth, top, &err), FC_OK);
        if (i < d.units.n)
            check_top(text + d.units.items[i].start, d.units.items[i].len, top, depth);
        else /* padding: index order */
            for (size_t j = 0; j < depth; j++)
                assert_int_equal(top[j], j);
    }
    free(top);
    fc_units_free(&d.units);
    fc_cutter_close(cutter);
    r->type->close(r);
    fc_device_free(&dev, device, bytes, FC_MEM_WEIGHTS);
}

/* Known words, unknown words, one met twice, and more distinct ones than a block holds. */
static void test_nearest_by_cosine(void **state)
{
    (void)state;
    struct fc_text text = {0};
    for (uint32_t i = 0; i < 600; i++) {
        uint32_t w[4];
        fc_philox(5, i, 0, w);
        if (i % 3 == 0)
            fc_text_puts(&text, words[w[0] % OUTPUTS]);
        else
            for (size_t j = 0; j < 1 + w[1] % 12; j++)
                fc_text_printf(&text, "%c", 'a' + (int)((w[(i + j) % 4] >> j) % 26));
        fc_text_puts(&text, " ");
    }
    rank_text(FC_F32, text.data, 9);
    rank_text(FC_BF16, text.data, 40);
    rank_text(FC_F32, "abc", OUTPUTS);
    rank_text(FC_F32, "", 5);
    fc_text_free(&text);
}

/* A unit of V ranks itself first: distance 0, ties by index aside. */
static void test_own_word_first(void **state)
{
    (void)state;
    struct fc_text text = {0};
    for (size_t i = 0; i < OUTPUTS; i++) {
        fc_text_puts(&text, words[i]);
        fc_text_puts(&text, " ");
    }
    rank_text(FC_F32, text.data, 1);
    fc_text_free(&text);
}

/* Values that are not finite tie everything: the order is that of the index, still a permutation.
 */
static void test_nan_is_index_order(void **state)
{
    (void)state;
    struct fc_ranking *r = NULL;
    float bad[ROWS][WIDTH];
    memcpy(bad, table, sizeof bad);
    bad['z' - 'a'][3] = NAN; /* no word of V has a z */
    bad['y' - 'a'][0] = INFINITY;
    void *device = fc_device_alloc(&dev, sizeof bad, FC_MEM_WEIGHTS, NULL);
    assert_non_null(device);
    dev.k->upload(dev.stream, device, bad, sizeof bad);
    assert_int_equal(dev.k->sync(dev.stream, NULL), FC_OK);
    assert_int_equal(
        fc_ranking_embedding_open(&r, &dev, device, FC_F32, ROWS, WIDTH, tok, vocabulary, NULL),
        FC_OK);
    struct fc_unit units[] = {{0, 3}, {4, 2}};
    struct fc_document d = {"zoo yo", 6, {units, 2, 2}};
    assert_int_equal(r->type->prepare(r, &d, 1, 30, NULL), FC_OK);
    for (size_t i = 0; i < 2; i++) {
        int32_t top[30];
        struct fc_query q = {&d, i, NULL};
        assert_int_equal(r->type->rank(r, &q, 1, 30, top, NULL), FC_OK);
        for (int32_t j = 0; j < 30; j++)
            assert_int_equal(top[j], j);
    }
    /* not prepared, or at another depth: refused */
    struct fc_document other = {"unseen", 6, {units, 1, 1}};
    struct fc_query q = {&other, 0, NULL};
    int32_t top[30];
    assert_int_equal(r->type->rank(r, &q, 1, 30, top, NULL), FC_ERR_INTERNAL);
    q.document = &d;
    assert_int_equal(r->type->rank(r, &q, 1, 29, top, NULL), FC_ERR_INTERNAL);
    r->type->close(r);
    /* a tokenizer with more ids than the model has rows */
    struct fc_error err = {0};
    assert_int_equal(
        fc_ranking_embedding_open(&r, &dev, device, FC_F32, 5, WIDTH, tok, vocabulary, &err),
        FC_ERR_INPUT);
    fc_device_free(&dev, device, sizeof bad, FC_MEM_WEIGHTS);
}

static enum fc_code open_device(void)
{
    struct fc_error err = {0};
    enum fc_code code = fc_device_open(&dev, FC_TEST_DEVICE, 2, &err);
    if (code == FC_ERR_UNSUPPORTED) { /* no such device here: skipped, not passed */
        printf("skipped: %s\n", err.text);
        scratch_remove(folder, (const char *const[]){"tokenizer.json"}, 1);
        exit(77);
    }
    return code;
}

static int set_up(void **state)
{
    (void)state;
    const char *pointers[OUTPUTS];
    if (!scratch_make(folder))
        return -1;
    scratch_path(path, folder, "tokenizer.json");
    make_words(pointers);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t c = 0; c < WIDTH; c++) { /* multiples of 1/16: the same in bf16 */
            float own = floorf(32 * fc_philox_uniform(1, i, c)) / 16 - 1;
            float common = floorf(8 * fc_philox_uniform(2, i, 0)) * (c % 3 ? 0.25F : -0.5F);
            table[i][c] = own + common;
        }
    find_common_of_v();
    return open_tokenizer() == FC_OK && open_device() == FC_OK &&
                   fc_vocabulary_make(&vocabulary, pointers, OUTPUTS, NULL) == FC_OK
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer.json"};
    bool clean = true;
    for (int i = 0; i < FC_MEM_PURPOSES; i++)
        clean = clean && dev.used[i] == 0;
    fc_vocabulary_close(vocabulary);
    fc_tokenizer_close(tok);
    fc_device_close(&dev);
    scratch_remove(folder, names, 1);
    return clean ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nearest_by_cosine),
        cmocka_unit_test(test_own_word_first),
        cmocka_unit_test(test_nan_is_index_order),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
