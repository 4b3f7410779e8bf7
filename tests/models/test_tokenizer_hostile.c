/* Files that lie, and texts made to be slow. */
#define _GNU_SOURCE
#include "tests/models/lines.h"
#include "tests/models/tokenizer_files.h"

#include <fcntl.h>

/* ---- tokenizer.json ----------------------------------------------------------------------------
 */

#define BYTE_LEVEL                                                                                 \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"                       \
    "\"decoder\":{\"type\":\"ByteLevel\"},"
#define MODEL(vocab, merges)                                                                       \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}"
#define ADDED(token) "\"added_tokens\":[" token "],"
#define GOOD MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a b\"")

static enum fc_code open_text(const char *text, size_t len, struct fc_tokenizer **tok,
                              struct fc_error *err)
{
    char path[] = "/tmp/fc-hostile-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
    *tok = NULL;
    enum fc_code code = fc_tokenizer_open_json(tok, path, err);
    assert_true((code == FC_OK) == (*tok != NULL));
    if (code != FC_OK) {
        assert_int_equal(err->code, code);
        assert_non_null(strstr(err->text, path)); /* every error names the file */
    }
    unlink(path);
    return code;
}

static void json_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        enum fc_code code;
    } cases[] = {
        {"{" BYTE_LEVEL GOOD "}", NULL, FC_OK},
        {"{" BYTE_LEVEL MODEL("\"a\":0,\"b\":1,\"ab\":2", "[\"a\",\"b\"]") "}", NULL, FC_OK},
        {"", "not valid JSON", FC_ERR_INPUT},
        {"[]", "model", FC_ERR_INPUT},
        {"{}", "model", FC_ERR_INPUT},
        {"{" BYTE_LEVEL "\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram",
         FC_ERR_UNSUPPORTED},
        {"{" BYTE_LEVEL "\"model\":{\"merges\":[]}}", "vocab", FC_ERR_INPUT},
        {"{" BYTE_LEVEL "\"model\":{\"vocab\":{\"a\":0}}}", "merges", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("", "") "}", "empty", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":-1", "") "}", "whole number", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":1.5", "") "}", "whole number", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":1e300", "") "}", "whole number", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":4294967295", "") "}", "whole number", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":\"0\"", "") "}", "whole number", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0,\"b\":0", "") "}", "token id 0", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0,\"a\":1", "") "}", "\"a\" is token", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\\u0000b\":0", "") "}", "NUL", FC_ERR_UNSUPPORTED},
        {"{" BYTE_LEVEL MODEL("\"a\\\\u0000\":0", "") "}", NULL, FC_OK},
        {"{" BYTE_LEVEL MODEL("\"\xC3\":0", "") "}", "UTF-8", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0,\"b\":1", "\"a b\"") "}", "what they make", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0,\"ab\":1", "\"a b\"") "}", "the second", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0", "\"ab\"") "}", "merge 0", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0", "\"a \"") "}", "merge 0", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0", "\"\"") "}", "merge 0", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0", "[\"a\"]") "}", "merge 0", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0", "[\"a\",1]") "}", "merge 0", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0", "[\"a\",\"a\",\"a\"]") "}", "merge 0", FC_ERR_INPUT},
        {"{" BYTE_LEVEL MODEL("\"a\":0", "7") "}", "merge 0", FC_ERR_INPUT},
        {"{" ADDED("7") BYTE_LEVEL GOOD "}", "content", FC_ERR_INPUT},
        {"{" ADDED("{\"content\":\"x\"}") BYTE_LEVEL GOOD "}", "\"id\"", FC_ERR_INPUT},
        {"{" ADDED("{\"content\":\"x\",\"id\":1}") BYTE_LEVEL GOOD "}", "token id 1", FC_ERR_INPUT},
        {"{" ADDED("{\"content\":\"a\",\"id\":9}") BYTE_LEVEL GOOD "}", "\"a\" is token",
         FC_ERR_INPUT},
        {"{" ADDED("{\"content\":\"x\",\"id\":9999999}") BYTE_LEVEL GOOD "}", "9999999",
         FC_ERR_INPUT},
        {"{" ADDED("{\"content\":\"x\",\"id\":1e99}") BYTE_LEVEL GOOD "}", "id", FC_ERR_INPUT},
        {"{" ADDED("{\"content\":\"x\",\"id\":3,\"single_word\":true}") BYTE_LEVEL GOOD "}",
         "single_word", FC_ERR_UNSUPPORTED},
        {"{" ADDED("{\"content\":\"\",\"id\":3}") BYTE_LEVEL GOOD "}", NULL, FC_OK},
        {"{" GOOD "}", "decoder", FC_ERR_UNSUPPORTED},
        {"{\"decoder\":{\"type\":\"ByteLevel\"}," GOOD "}", "ByteLevel", FC_ERR_UNSUPPORTED},
        {"{\"decoder\":{\"type\":\"WordPiece\"}," GOOD "}", "WordPiece", FC_ERR_UNSUPPORTED},
        {"{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
         "{\"type\":\"ByteFallback\"}]}," GOOD "}",
         "ByteFallback", FC_ERR_UNSUPPORTED},
        {"{\"normalizer\":{\"type\":\"Lowercase\"}," BYTE_LEVEL GOOD "}", "Lowercase",
         FC_ERR_UNSUPPORTED},
        {"{\"normalizer\":{\"type\":\"Sequence\"}," BYTE_LEVEL GOOD "}", "normalizers",
         FC_ERR_INPUT},
        {"{\"normalizer\":7," BYTE_LEVEL GOOD "}", "normalizer", FC_ERR_INPUT},
        {"{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}," GOOD "}", "BertPreTokenizer",
         FC_ERR_UNSUPPORTED},
        {"{\"pre_tokenizer\":{\"type\":\"Split\"}," GOOD "}", "pattern", FC_ERR_INPUT},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":"
         "\"Isolated\"}," GOOD "}",
         "PCRE2", FC_ERR_UNSUPPORTED},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w+\"},\"behavior\":"
         "\"Isolated\"}," GOOD "}",
         "\\w", FC_ERR_UNSUPPORTED},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\\\\\"},\"behavior\":"
         "\"Isolated\"}," GOOD "}",
         "pattern", FC_ERR_UNSUPPORTED},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":"
         "\"Sideways\"}," GOOD "}",
         "Sideways", FC_ERR_INPUT},
        {"{" BYTE_LEVEL "\"model\":{\"unk_token\":\"<unk>\",\"vocab\":{\"a\":0},\"merges\":[]}}",
         "unk_token", FC_ERR_INPUT},
        {"{" BYTE_LEVEL "\"model\":{\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", "dropout",
         FC_ERR_UNSUPPORTED},
        {"{" BYTE_LEVEL "\"model\":{\"end_of_word_suffix\":\"x\",\"vocab\":{\"a\":0},"
         "\"merges\":[]}}",
         "end_of_word_suffix", FC_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fc_error err = {0};
        struct fc_tokenizer *tok;
        enum fc_code code = open_text(cases[i].text, strlen(cases[i].text), &tok, &err);
        if (code != cases[i].code || (cases[i].says && !strstr(err.text, cases[i].says)))
            fail_msg("%s: code %d, \"%s\"; expected %d, \"%s\"", cases[i].text, (int)code, err.text,
                     (int)cases[i].code, cases[i].says ? cases[i].says : "");
        fc_tokenizer_close(tok);
    }
}

/* Cut anywhere, a file is refused: no prefix of JSON is JSON. */
static void truncated(void **state)
{
    (void)state;
    char *text;
    size_t len;
    assert_int_equal(
        fc_file_read(FC_GOLDEN_DIR "/tokenizer_llama2.json", (size_t)1 << 20, &text, &len, NULL),
        FC_OK);
    while (text[len - 1] != '}')
        len--;
    for (size_t cut = 0; cut < len; cut += 1 + cut / 8) {
        struct fc_error err = {0};
        struct fc_tokenizer *tok;
        assert_int_equal(open_text(text, cut, &tok, &err), FC_ERR_INPUT);
    }
    free(text);
}

/* A byte changed anywhere gives a tokenizer or an error, and no tokenizer misbehaves. */
static void mutated(void **state)
{
    (void)state;
    static const char *const files[] = {FC_GOLDEN_DIR "/tokenizer_llama2.json",
                                        FC_GOLDEN_DIR "/tokenizer_qwen2.json"};
    uint64_t r = 1;
    for (size_t f = 0; f < 2; f++) {
        char *text;
        size_t len;
        assert_int_equal(fc_file_read(files[f], (size_t)1 << 20, &text, &len, NULL), FC_OK);
        for (int i = 0; i < 150; i++) {
            /* Half of the changes in the first 3000 bytes, where the structure is. */
            size_t at = (size_t)draw(&r, i % 2 ? 3000 : len);
            char was = text[at];
            struct fc_error err = {0};
            struct fc_tokenizer *tok;
            struct fc_tokens ids = {0};
            struct fc_text out = {0};
            static const char structure[] = "\"{}[],:0919\\x";
            text[at] = i % 4 ? structure[draw(&r, sizeof structure - 1)] : (char)draw(&r, 256);
            if (open_text(text, len, &tok, &err) == FC_OK) {
                fc_tokenizer_encode(tok, text, 4000, FC_MARKUP, &ids, &err);
                fc_tokenizer_decode(tok, ids.ids, ids.n, true, &out, &err);
            }
            text[at] = was;
            fc_tokenizer_close(tok);
            fc_tokens_free(&ids);
            fc_text_free(&out);
        }
        free(text);
    }
}

/* 100 MB are refused by their size, before they are read. */
static void too_large(void **state)
{
    (void)state;
    char path[] = "/tmp/fc-hostile-XXXXXX";
    int fd = mkstemp(path);
    struct fc_error err = {0};
    struct fc_tokenizer *tok = NULL;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 100 << 20), 0);
    close(fd);
    assert_int_equal(fc_tokenizer_open_json(&tok, path, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "at most"));
    assert_int_equal(fc_tokenizer_open_json(&tok, "/nonexistent/tokenizer.json", NULL), FC_ERR_IO);
    unlink(path);
}

/* ---- GGUF --------------------------------------------------------------------------------------
 */

/* Bytes changed in the metadata: the GGUF reader or the tokenizer refuses, or all is well. */
static void mutated_gguf(void **state)
{
    (void)state;
    static const char *const files[] = {FC_GOLDEN_DIR "/tokenizer_spm.gguf",
                                        FC_GOLDEN_DIR "/tokenizer_llama3.gguf"};
    uint64_t r = 2;
    for (size_t f = 0; f < 2; f++) {
        char *text, path[] = "/tmp/fc-hostile-XXXXXX";
        size_t len;
        close(mkstemp(path));
        assert_int_equal(fc_file_read(files[f], (size_t)1 << 20, &text, &len, NULL), FC_OK);
        for (int i = 0; i < 150; i++) {
            size_t at = (size_t)draw(&r, i % 2 ? 600 : len);
            char was = text[at];
            struct fc_error err = {0};
            struct fc_gguf *gguf = NULL;
            struct fc_tokenizer *tok = NULL;
            struct fc_tokens ids = {0};
            text[at] = (char)draw(&r, 256);
            FILE *out = fopen(path, "wb");
            fwrite(text, 1, len, out);
            fclose(out);
            if (fc_gguf_open(&gguf, path, &err) == FC_OK &&
                fc_tok_open_gguf(&tok, gguf, &err) == FC_OK)
                fc_tokenizer_encode(tok, text, 4000, FC_MARKUP, &ids, &err);
            else
                assert_true(err.code != FC_OK && err.text[0]);
            text[at] = was;
            fc_tokenizer_close(tok);
            fc_gguf_close(gguf);
            fc_tokens_free(&ids);
        }
        unlink(path);
        free(text);
    }
}

/* ---- long texts --------------------------------------------------------------------------------
 *
 * A megabyte of what has no border: quadratic steps would not end within the test's time limit. */

static void check_long(const struct fc_tokenizer *tok, const char *unit, enum fc_text_kind kind,
                       bool round_trip)
{
    struct fc_text text = {0}, back = {0};
    struct fc_tokens ids = {0};
    struct fc_error err = {0};
    fc_text_puts(&text, "x");
    while (text.len < 1 << 20)
        fc_text_puts(&text, unit);
    if (fc_tokenizer_encode(tok, text.data, text.len, kind, &ids, &err) != FC_OK)
        fail_msg("%s", err.text);
    assert_int_equal(fc_tokenizer_decode(tok, ids.ids, ids.n, true, &back, NULL), FC_OK);
    if (round_trip) {
        assert_int_equal(back.len, text.len);
        assert_memory_equal(back.data, text.data, text.len);
    }
    fc_text_free(&text);
    fc_text_free(&back);
    fc_tokens_free(&ids);
}

static void long_texts(void **state)
{
    (void)state;
    static const char *const files[] = {"tokenizer_gpt2.json", "tokenizer_llama3.json",
                                        "tokenizer_qwen2.json", "tokenizer_llama2.json",
                                        "tokenizer_mistral.json"};
    static const char *const units[] = {"a",     "question",     " ",         "\n ",
                                        "<|",    "\xE4\xB8\x80", "7",         "!\n",
                                        "\t \n", "'s",           "<|im_end|", "\xF0\x9F\x98\x80"};
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        struct fc_tokenizer *tok = open_golden(files[f]);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++)
            check_long(tok, units[u], u % 2 ? FC_TEXT : FC_MARKUP, true);
        check_long(tok, "\xCC\x87\xCC\xA3", FC_TEXT, f != 2); /* NFC puts them in another order */
        check_long(tok, "\xFF", FC_MARKUP, false);
        fc_tokenizer_close(tok);
    }
}

/* Runs of byte-fallback tokens longer than the decoder holds back. */
static void long_byte_runs(void **state)
{
    (void)state;
    struct fc_tokenizer *tok = open_golden("tokenizer_llama2.json");
    struct fc_tokens ids = {0};
    struct fc_text out = {0};
    for (int i = 0; i < 1000; i++)
        for (int k = 0; k < 3; k++)
            fc_tokens_add(&ids, 3 + (unsigned char)"\xE4\xB8\x81"[k], NULL);
    assert_int_equal(fc_tokenizer_decode(tok, ids.ids, ids.n, false, &out, NULL), FC_OK);
    assert_int_equal(out.len, 3000);
    assert_true(fc_utf8_valid(out.data, out.len));
    /* One wrong byte at the end of a short run: each byte of the run is U+FFFD. */
    fc_text_clear(&out);
    ids.ids[30] = 3 + 0xFF;
    assert_int_equal(fc_tokenizer_decode(tok, ids.ids, 33, false, &out, NULL), FC_OK);
    assert_int_equal(out.len, 33 * 3);
    assert_memory_equal(out.data, FC_REPLACEMENT FC_REPLACEMENT, 6);
    /* Ids that are no token are passed over. */
    fc_text_clear(&out);
    assert_int_equal(
        fc_tokenizer_decode(tok, (int32_t[]){-1, INT32_MAX, 1 << 20}, 3, true, &out, NULL), FC_OK);
    assert_int_equal(out.len, 0);
    fc_text_free(&out);
    fc_tokens_free(&ids);
    fc_tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_checked), cmocka_unit_test(truncated),
        cmocka_unit_test(mutated),         cmocka_unit_test(too_large),
        cmocka_unit_test(mutated_gguf),    cmocka_unit_test(long_texts),
        cmocka_unit_test(long_byte_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
