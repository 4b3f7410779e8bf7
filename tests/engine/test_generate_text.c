/* Where generation ends and what text comes out: end tokens, stop texts within and across tokens,
 * characters of several tokens, lengths. The model says a known chain of bytes; the tokenizer has
 * one token for every byte. */
#define _GNU_SOURCE /* mkstemp, fdopen */
#include "engine/generate.h"

#include "tests/engine/toy.h"

#include <stdio.h>
#include <unistd.h>

enum { EOS = 256, VOCAB = 257, PADDED = 260 }; /* ids 257.. have no text */

/* After 'a' the model says the rest of this, all bytes distinct, then EOS, then 'a' again. */
static const unsigned char chain[] = "a\xc3\xa9\xe2\x86\x92 bcdefgh";

static struct toy toy;
static struct fc_tokenizer *tok;

/* GPT-2's printable stand-in of a byte, as UTF-8 in JSON. */
static void put_byte_symbol(FILE *f, int byte)
{
    bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    int symbol = byte, others = 0;
    if (!printable) {
        for (int b = 0; b < byte; b++)
            others += !((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae);
        symbol = 256 + others;
    }
    fprintf(f, "\"\\u%04x\"", (unsigned)symbol);
}

static void open_tokenizer(void)
{
    char path[] = "/tmp/fedcot_test_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{\"id\":256,"
          "\"content\":\"<end>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
          "\"normalized\":false,\"special\":true}],\"normalizer\":null,\"pre_tokenizer\":{\"type\":"
          "\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},"
          "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
          "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
          "\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
          "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\"vocab\":{",
          f);
    for (int b = 0; b < 256; b++) {
        put_byte_symbol(f, b);
        fprintf(f, ":%d%s", b, b < 255 ? "," : "");
    }
    fputs("},\"merges\":[]}}", f);
    assert_int_equal(fclose(f), 0);
    must(fc_tokenizer_open_json(&tok, path, why));
    unlink(path);
    assert_int_equal(fc_tokenizer_size(tok), VOCAB);
}

static int open_all(void **state)
{
    (void)state;
    int32_t next[PADDED];
    for (int32_t i = 0; i < PADDED; i++)
        next[i] = i;
    for (size_t i = 0; i + 1 < sizeof chain; i++)
        next[chain[i]] = chain[i + 1] ? (int32_t)chain[i + 1] : EOS;
    next[EOS] = 'a';
    next['X'] = VOCAB; /* a padding id, then text */
    next[VOCAB] = 'g';
    toy_counting(&toy, next, PADDED);
    toy.model.config.eos[0] = EOS;
    toy.model.config.n_eos = 1;
    open_tokenizer();
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    fc_tokenizer_close(tok);
    toy_close(&toy);
    return 0;
}

struct outcome {
    char text[256];
    int32_t tokens[64];
    size_t n_text, n_tokens;
    enum fc_finish finish;
    int reports;
};

static void collect(void *context, const struct fc_result *r)
{
    struct outcome *o = context;
    assert_true(r->n_text < sizeof o->text && r->n_tokens <= 64);
    assert_int_equal(strlen(r->text), r->n_text);
    memcpy(o->text, r->text, r->n_text + 1);
    memcpy(o->tokens, r->tokens, r->n_tokens * sizeof *o->tokens);
    o->n_text = r->n_text;
    o->n_tokens = r->n_tokens;
    o->finish = r->finish;
    o->reports++;
}

static const int32_t start = 'a';

static struct outcome run(struct fc_request r, const struct fc_generator_options *options)
{
    struct outcome o = {.finish = FC_FINISH_FAILED};
    struct fc_generator *g = NULL;
    bool busy = true;
    r.n_prompt = 1;
    r.prompt = r.prompt ? r.prompt : &start;
    r.max_tokens = r.max_tokens ? r.max_tokens : 64;
    must(fc_generator_create(&g, &toy.model, tok, options, why));
    must(fc_generator_submit(g, &r, why));
    while (busy)
        must(fc_generator_step(g, collect, &o, &busy, why));
    assert_int_equal(o.reports, 1);
    fc_generator_free(g);
    return o;
}

/* A request of id 9; run adds the prompt "a" and 64 tokens where they are not given. */
#define REQUEST(...)                                                                               \
    (struct fc_request)                                                                            \
    {                                                                                              \
        .id = 9, __VA_ARGS__                                                                       \
    }
#define STOPS(...)                                                                                 \
    .stops = (const char *const[]){__VA_ARGS__},                                                   \
    .n_stops = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

static void check(struct outcome o, const char *text, size_t n_tokens, enum fc_finish finish)
{
    assert_string_equal(o.text, text);
    assert_int_equal(o.n_tokens, n_tokens);
    assert_int_equal(o.finish, finish);
    for (size_t i = 0; i < n_tokens && i + 2 < sizeof chain; i++)
        assert_int_equal(o.tokens[i], chain[i + 1]);
}

static void ends_at_the_end_token(void **state)
{
    (void)state;
    check(run(REQUEST(), NULL), "\u00e9\u2192 bcdefgh", 13, FC_FINISH_STOP);
    const int32_t ends[2] = {'z', 'd'};
    const struct fc_generator_options options = {.end_tokens = ends, .n_end_tokens = 2};
    check(run(REQUEST(), &options), "\u00e9\u2192 bc", 8, FC_FINISH_STOP);
}

static void ignores_end_tokens_when_told(void **state)
{
    (void)state;
    struct outcome o = run(REQUEST(.ignore_eos = true, .max_tokens = 16), NULL);
    check(o, "\u00e9\u2192 bcdefgha\uFFFD", 16, FC_FINISH_LENGTH); /* EOS has no text */
    assert_int_equal(o.tokens[13], EOS);
}

static void ends_at_max_tokens(void **state)
{
    (void)state;
    check(run(REQUEST(.max_tokens = 5), NULL), "\u00e9\u2192", 5, FC_FINISH_LENGTH);
    check(run(REQUEST(.max_tokens = 4), NULL), "\u00e9\uFFFD", 4, FC_FINISH_LENGTH);
    check(run(REQUEST(.max_tokens = 1), NULL), "\uFFFD", 1, FC_FINISH_LENGTH);
    /* The last token allowed is the end token. */
    check(run(REQUEST(.max_tokens = 14), NULL), "\u00e9\u2192 bcdefgh", 13, FC_FINISH_STOP);
    check(run(REQUEST(.max_tokens = 13), NULL), "\u00e9\u2192 bcdefgh", 13, FC_FINISH_LENGTH);
}

static void stops_before_a_stop_text(void **state)
{
    (void)state;
    check(run(REQUEST(STOPS("c")), NULL), "\u00e9\u2192 b", 8, FC_FINISH_STOP);
    check(run(REQUEST(STOPS("bcd")), NULL), "\u00e9\u2192 ", 9, FC_FINISH_STOP);
    check(run(REQUEST(STOPS("\u2192 b")), NULL), "\u00e9", 7, FC_FINISH_STOP);
    check(run(REQUEST(STOPS("\u00e9")), NULL), "", 2, FC_FINISH_STOP);
    check(run(REQUEST(STOPS("efgh", "zz", "gh", "bd")), NULL), "\u00e9\u2192 bcd", 13,
          FC_FINISH_STOP);
    check(run(REQUEST(STOPS("de", "cde")), NULL), "\u00e9\u2192 b", 10, FC_FINISH_STOP);
    check(run(REQUEST(STOPS("nothing")), NULL), "\u00e9\u2192 bcdefgh", 13, FC_FINISH_STOP);
    /* Reached with the last token: it is the text that ended it. */
    check(run(REQUEST(STOPS("de"), .max_tokens = 10), NULL), "\u00e9\u2192 bc", 10, FC_FINISH_STOP);
    /* The character cut by max_tokens counts as text. */
    check(run(REQUEST(STOPS("\uFFFD"), .max_tokens = 4), NULL), "\u00e9", 4, FC_FINISH_STOP);
}

static void ids_without_text_add_none(void **state)
{
    (void)state;
    const int32_t x = 'X';
    struct outcome o = run(REQUEST(.prompt = &x, .max_tokens = 3), NULL);
    assert_string_equal(o.text, "gh");
    assert_int_equal(o.tokens[0], VOCAB);
    assert_int_equal(o.n_tokens, 3);
}

static void cancelled_requests_keep_their_text(void **state)
{
    (void)state;
    struct outcome o = {0};
    struct fc_generator *g = NULL;
    struct fc_request r = REQUEST(.prompt = &start, .n_prompt = 1, .max_tokens = 64);
    bool busy = true;
    must(fc_generator_create(&g, &toy.model, tok, NULL, why));
    must(fc_generator_submit(g, &r, why));
    for (int i = 0; i < 3; i++)
        must(fc_generator_step(g, collect, &o, &busy, why));
    fc_generator_cancel(g, 9);
    must(fc_generator_step(g, collect, &o, &busy, why));
    assert_false(busy);
    assert_int_equal(o.reports, 1);
    check(o, "\u00e9\uFFFD", 3, FC_FINISH_CANCELLED);
    fc_generator_free(g);
}

static void refuses_an_empty_stop_text(void **state)
{
    (void)state;
    struct fc_generator *g = NULL;
    struct fc_error err = {0};
    struct fc_request r =
        REQUEST(STOPS("x", ""), .prompt = &start, .n_prompt = 1, .max_tokens = 64);
    must(fc_generator_create(&g, &toy.model, tok, NULL, why));
    assert_int_equal(fc_generator_submit(g, &r, &err), FC_ERR_USAGE);
    assert_non_null(strstr(err.text, "stop text 1"));
    fc_generator_free(g);
}

static void finishes_have_names(void **state)
{
    (void)state;
    assert_string_equal(fc_finish_name(FC_FINISH_STOP), "stop");
    assert_string_equal(fc_finish_name(FC_FINISH_LENGTH), "length");
    assert_string_equal(fc_finish_name(FC_FINISH_CANCELLED), "cancelled");
    assert_string_equal(fc_finish_name(FC_FINISH_FAILED), "failed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_at_the_end_token),
        cmocka_unit_test(ignores_end_tokens_when_told),
        cmocka_unit_test(ends_at_max_tokens),
        cmocka_unit_test(stops_before_a_stop_text),
        cmocka_unit_test(ids_without_text_add_none),
        cmocka_unit_test(cancelled_requests_keep_their_text),
        cmocka_unit_test(refuses_an_empty_stop_text),
        cmocka_unit_test(finishes_have_names),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
