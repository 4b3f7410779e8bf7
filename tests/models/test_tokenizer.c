/* Encoding and decoding against Hugging Face's `tokenizers` on 10,000 lines, for each family. The
 * golden files hold one hash for every hundred lines, and the first lines in full. */
#define _GNU_SOURCE
#include "base/file.h"
#include "models/gguf.h"
#include "models/tokenizer_private.h"
#include "tests/models/lines.h"
#include "tests/models/tokenizer_files.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define BLOCK 100
enum { TEXT, MARKUP, DECODED, DECODED_SPECIAL, NOISE, N_HASHES };

static uint64_t hash_ids(const struct fc_tokens *t, uint64_t h)
{
    for (size_t i = 0; i < t->n; i++) {
        unsigned char le[4];
        for (int k = 0; k < 4; k++)
            le[k] = (unsigned char)((uint32_t)t->ids[i] >> 8 * k);
        h = fnv(le, 4, h);
    }
    return fnv("\xff\xff\xff\xff", 4, h);
}

static void encode(const struct fc_tokenizer *tok, const struct fc_text *line,
                   enum fc_text_kind kind, struct fc_tokens *out)
{
    struct fc_error err = {0};
    out->n = 0;
    if (fc_tokenizer_encode(tok, line->data, line->len, kind, out, &err) != FC_OK)
        fail_msg("%s", err.text);
}

/* Decodes in one go and token by token: the parts are whole characters, and sum up. */
static uint64_t hash_decoded(const struct fc_tokenizer *tok, const struct fc_tokens *t,
                             bool special, uint64_t h)
{
    struct fc_text whole = {0}, parts = {0};
    struct fc_decode_state state = {0};
    fc_text_puts(&whole, "");
    fc_text_puts(&parts, "");
    assert_int_equal(fc_tokenizer_decode(tok, t->ids, t->n, special, &whole, NULL), FC_OK);
    for (size_t i = 0; !special && i < t->n; i++) {
        size_t before = parts.len;
        assert_int_equal(fc_decode_next(tok, &state, t->ids[i], &parts, NULL), FC_OK);
        assert_true(fc_utf8_valid(parts.data + before, parts.len - before));
    }
    if (!special) {
        assert_int_equal(fc_decode_flush(&state, &parts, NULL), FC_OK);
        assert_int_equal(parts.len, whole.len);
        assert_memory_equal(parts.data, whole.data, whole.len);
    }
    h = fnv(whole.data, whole.len, h);
    fc_text_free(&whole);
    fc_text_free(&parts);
    return fnv("\xff", 1, h);
}

static void random_ids(uint64_t index, size_t size, struct fc_tokens *out)
{
    uint64_t r = index * 31 + 5;
    out->n = 0;
    for (uint64_t n = 1 + draw(&r, 20); n--;)
        assert_int_equal(fc_tokens_add(out, (int32_t)draw(&r, size), NULL), FC_OK);
}

static void check_ids(const cJSON *expected, const struct fc_tokens *t, const char *what,
                      size_t line)
{
    size_t n = (size_t)cJSON_GetArraySize(expected);
    for (size_t i = 0; i < n && i < t->n; i++) {
        int want = cJSON_GetArrayItem(expected, (int)i)->valueint;
        if (want != t->ids[i])
            fail_msg("line %zu, %s: token %zu is %d, expected %d", line, what, i, t->ids[i], want);
    }
    if (n != t->n)
        fail_msg("line %zu, %s: %zu tokens, expected %zu", line, what, t->n, n);
}

static void check_example(const cJSON *example, const struct fc_tokenizer *tok,
                          const struct fc_tokens *text, const struct fc_tokens *markup, size_t line)
{
    struct fc_text out = {0};
    check_ids(cJSON_GetObjectItem(example, "text"), text, "text", line);
    check_ids(cJSON_GetObjectItem(example, "markup"), markup, "markup", line);
    fc_text_puts(&out, "");
    assert_int_equal(fc_tokenizer_decode(tok, markup->ids, markup->n, false, &out, NULL), FC_OK);
    /* cJSON strings end at a NUL: the hashes check what is behind it. */
    assert_string_equal(out.data, cJSON_GetObjectItem(example, "decoded")->valuestring);
    fc_text_free(&out);
}

static void check_lines(const struct fc_tokenizer *tok, const char *golden)
{
    cJSON *pool = read_golden("tokenizer_pool.json"), *expected = read_golden(golden);
    const cJSON *blocks = cJSON_GetObjectItem(expected, "blocks"), *block = blocks->child;
    const cJSON *example = cJSON_GetObjectItem(expected, "examples")->child;
    size_t size = (size_t)cJSON_GetObjectItem(expected, "size")->valueint, wrong = 0;
    struct fc_text line = {0};
    struct fc_tokens text = {0}, markup = {0}, noise = {0};
    uint64_t h[N_HASHES];
    assert_int_equal(fc_tokenizer_size(tok), size);
    assert_int_equal(cJSON_GetArraySize(blocks), N_LINES / BLOCK);
    for (size_t i = 0; i < N_LINES; i++) {
        for (int k = 0; i % BLOCK == 0 && k < N_HASHES; k++)
            h[k] = FNV_SEED;
        make_line(pool, i, &line);
        encode(tok, &line, FC_TEXT, &text);
        for (size_t k = 0; k < text.n; k++)
            assert_true(!fc_tokenizer_is_special(tok, text.ids[k]) || text.ids[k] == tok->bpe.unk);
        encode(tok, &line, FC_MARKUP, &markup);
        random_ids(i, size, &noise);
        if (example) {
            check_example(example, tok, &text, &markup, i);
            example = example->next;
        }
        h[TEXT] = hash_ids(&text, h[TEXT]);
        h[MARKUP] = hash_ids(&markup, h[MARKUP]);
        h[DECODED] = hash_decoded(tok, &markup, false, h[DECODED]);
        h[DECODED_SPECIAL] = hash_decoded(tok, &markup, true, h[DECODED_SPECIAL]);
        h[NOISE] = hash_decoded(tok, &noise, true, h[NOISE]);
        if ((i + 1) % BLOCK)
            continue;
        for (int k = 0; k < N_HASHES; k++) {
            char hex[20];
            snprintf(hex, sizeof hex, "%016" PRIx64, h[k]);
            if (strcmp(hex, cJSON_GetArrayItem(block, k)->valuestring) != 0) {
                print_error("lines %zu to %zu: hash %d differs\n", i + 1 - BLOCK, i, k);
                wrong++;
            }
        }
        block = block->next;
    }
    assert_int_equal(wrong, 0);
    fc_text_free(&line);
    fc_tokens_free(&text);
    fc_tokens_free(&markup);
    fc_tokens_free(&noise);
    cJSON_Delete(pool);
    cJSON_Delete(expected);
}

/* A tokenizer.json; then what save makes of it. */
static void check_json(const char *name)
{
    char file[64], golden[64];
    snprintf(file, sizeof file, "tokenizer_%s.json", name);
    snprintf(golden, sizeof golden, "tokenizer_%s_ids.json", name);
    struct fc_tokenizer *tok = open_golden(file);
    check_lines(tok, golden);
    fc_tokenizer_close(tok);
}

static void gpt2(void **state)
{
    (void)state;
    check_json("gpt2");
}
static void llama3(void **state)
{
    (void)state;
    check_json("llama3");
}
static void qwen2(void **state)
{
    (void)state;
    check_json("qwen2");
}
static void llama2(void **state)
{
    (void)state;
    check_json("llama2");
}
static void mistral(void **state)
{
    (void)state;
    check_json("mistral");
}
static void metaspace(void **state)
{
    (void)state;
    check_json("metaspace");
}

/* A GGUF, then the files that save makes of it. */
static void check_gguf(const char *path, const char *golden, bool adds_bos)
{
    struct fc_tokenizer *tok = open_gguf(path), *again = NULL;
    struct fc_error err = {0};
    check_lines(tok, golden);
    assert_int_equal(fc_tokenizer_adds_bos(tok), adds_bos);

    char folder[] = "/tmp/fc-tokenizer-XXXXXX";
    assert_non_null(mkdtemp(folder));
    if (fc_tokenizer_save(tok, folder, &err) != FC_OK)
        fail_msg("%s", err.text);
    again = open_folder(folder);
    check_lines(again, golden);
    assert_int_equal(fc_tokenizer_bos(again), fc_tokenizer_bos(tok));
    assert_int_equal(fc_tokenizer_eos(again), fc_tokenizer_eos(tok));
    assert_int_equal(fc_tokenizer_adds_bos(again), adds_bos);
    if (fc_tokenizer_chat_template(tok))
        assert_string_equal(fc_tokenizer_chat_template(again), fc_tokenizer_chat_template(tok));
    else
        assert_null(fc_tokenizer_chat_template(again));

    /* What was read from a folder is copied byte for byte. */
    char copy[] = "/tmp/fc-tokenizer-XXXXXX";
    assert_non_null(mkdtemp(copy));
    assert_int_equal(fc_tokenizer_save(again, copy, &err), FC_OK);
    assert_same_file(folder, copy, "tokenizer.json");
    assert_same_file(folder, copy, "tokenizer_config.json");
    assert_same_file(folder, copy, "special_tokens_map.json");
    fc_tokenizer_close(again);
    fc_tokenizer_close(tok);
    remove_folder(folder);
    remove_folder(copy);
}

static void gguf_llama3(void **state)
{
    (void)state;
    check_gguf(FC_GOLDEN_DIR "/tokenizer_llama3.gguf", "tokenizer_llama3_ids.json", true);
}
static void gguf_qwen2(void **state)
{
    (void)state;
    check_gguf(FC_GOLDEN_DIR "/tokenizer_qwen2.gguf", "tokenizer_qwen2_ids.json", false);
}
static void gguf_sentencepiece(void **state)
{
    (void)state;
    check_gguf(FC_GOLDEN_DIR "/tokenizer_spm.gguf", "tokenizer_spm_ids.json", true);
}
static void gguf_smollm2(void **state)
{
    (void)state;
    char *path = model_path();
    if (!path) {
        print_message("skipped: no SmolLM2 model (FEDCOT_MODEL)\n");
        skip();
    }
    check_gguf(path, "tokenizer_smollm2_ids.json", false);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2),         cmocka_unit_test(llama3),
        cmocka_unit_test(qwen2),        cmocka_unit_test(llama2),
        cmocka_unit_test(mistral),      cmocka_unit_test(metaspace),
        cmocka_unit_test(gguf_llama3),  cmocka_unit_test(gguf_qwen2),
        cmocka_unit_test(gguf_smollm2), cmocka_unit_test(gguf_sentencepiece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
