/* The parts of a tokenizer. Private to models/tokenizer*.c, models/chat.c and their neighbours.
 *
 * Encoding is a line of stages, as in Hugging Face's `tokenizers`:
 *
 *   text -> added tokens cut out (fc_matcher `raw`)
 *        -> each rest normalised (fc_normalizer), added tokens again (`normalized`)
 *        -> each rest cut into words (fc_pretokenizer)
 *        -> each word into tokens (fc_bpe)
 *
 * A tokenizer.json and the metadata of a GGUF fill the same structures: fc_tok_begin, then the
 * vocabulary, added tokens and fc_tok_pipeline in any order, then fc_tok_seal, then the merges,
 * then fc_tok_finish. */
#ifndef FC_MODELS_TOKENIZER_PRIVATE_H
#define FC_MODELS_TOKENIZER_PRIVATE_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include "models/tokenizer.h"
#include "models/unicode.h"

#include <cjson/cJSON.h>
#include <pcre2.h>

/* No model comes near: 262,144 tokens is the largest vocabulary of today. */
#define FC_TOK_MAX_IDS ((size_t)1 << 20)
#define FC_TOK_MAX_FILE ((size_t)64 << 20)
#define FC_TOK_MAX_TEXT ((size_t)1 << 30)

struct fc_span {
    size_t begin, end;
};

struct fc_spans {
    struct fc_span *at;
    size_t n, capacity;
};

/* ---- vocabulary (models/vocab.c) --------------------------------------------------------------
 */

enum {
    FC_TOKEN_USED = 1,
    FC_TOKEN_MODEL = 2,   /* in the BPE model's own vocabulary: merges and characters find it */
    FC_TOKEN_ADDED = 4,   /* an added token */
    FC_TOKEN_SPECIAL = 8, /* skipped by decode, never made from FC_TEXT */
    FC_TOKEN_WHOLE = 16   /* BPE makes of this token's bytes just this token */
};

/* A piece of an arena; a NUL follows it. */
struct fc_piece {
    uint32_t at, len;
};

/* Texts by id, in one arena. */
struct fc_pieces {
    struct fc_text arena;
    struct fc_piece *of;
};

/* Open-addressed set of ids, by the text that `pieces` gives each: slot 0 is free, else id + 1. */
struct fc_index {
    uint32_t *slots;
    size_t mask, n;
};

struct fc_vocab {
    struct fc_pieces pieces; /* as written in the file */
    struct fc_pieces bytes;  /* what decoding gives: filled by fc_tok_seal */
    uint8_t *flags;
    size_t size, capacity; /* ids are 0 .. size-1; holes have no flags */
    struct fc_index by_piece;
    struct fc_index words; /* by bytes: tokens with FC_TOKEN_WHOLE */
    size_t longest_word;
};

enum fc_code fc_vocab_add(struct fc_vocab *v, const char *text, size_t len, size_t id,
                          unsigned flags, const char *where, struct fc_error *err);
/* The id of a piece, -1 if there is none. */
int32_t fc_vocab_find(const struct fc_vocab *v, const char *text, size_t len);
/* As find, among the words. */
int32_t fc_vocab_find_word(const struct fc_vocab *v, const char *bytes, size_t len);
enum fc_code fc_vocab_add_word(struct fc_vocab *v, size_t id, struct fc_error *err);
enum fc_code fc_pieces_set(struct fc_pieces *p, size_t id, const char *text, size_t len,
                           struct fc_error *err);
void fc_vocab_free(struct fc_vocab *v);

static inline const char *fc_piece_text(const struct fc_pieces *p, size_t id)
{
    return p->arena.data + p->of[id].at;
}

/* ---- added tokens (models/added_tokens.c) -----------------------------------------------------
 */

struct fc_added {
    int32_t id;
    bool special, normalized, lstrip, rstrip;
    char *text; /* what is looked for: the content, normalised if `normalized` */
    size_t len;
};

/* Added tokens by their first byte, longest first: first[b] .. first[b + 1]. */
struct fc_matcher {
    struct fc_added **tokens;
    size_t first[257];
};

/* Byte ranges of a text that come from a user: no special token is seen in them. */
struct fc_marks {
    const struct fc_span *spans; /* in order, apart */
    size_t n;
};

struct fc_hit {
    struct fc_span span; /* with the blanks that lstrip and rstrip take */
    int32_t id;
};

enum fc_code fc_matcher_build(struct fc_matcher *m, struct fc_added *tokens, size_t n,
                              bool normalized, struct fc_error *err);
void fc_matcher_free(struct fc_matcher *m);
/* The next match that begins at *pos or later; moves *pos behind it. done: where the last hit
 * ended. */
bool fc_matcher_next(const struct fc_matcher *m, const char *text, size_t len,
                     const struct fc_marks *marks, size_t done, size_t *pos, struct fc_hit *hit);

/* ---- normaliser (models/normalize.c) ----------------------------------------------------------
 */

enum fc_normal_kind { FC_NORMAL_NFC, FC_NORMAL_PREPEND, FC_NORMAL_REPLACE };

struct fc_normal_step {
    enum fc_normal_kind kind;
    char *from, *to; /* REPLACE: both; PREPEND: to */
};

struct fc_normalizer {
    struct fc_normal_step *steps;
    size_t n, capacity;
};

/* The normal form of text[span] in *out (emptied first); the marks within it move with it into
 * *moved. An empty text stays empty. */
enum fc_code fc_normalize(const struct fc_normalizer *norm, const char *text, struct fc_span span,
                          const struct fc_marks *marks, struct fc_text *out, struct fc_spans *moved,
                          struct fc_error *err);
enum fc_code fc_spans_add(struct fc_spans *s, size_t begin, size_t end, struct fc_error *err);

/* ---- pre-tokenizer (models/pretokenize.c) -----------------------------------------------------
 */

enum fc_pre_kind {
    FC_PRE_CUT,          /* by a pattern */
    FC_PRE_PREFIX_SPACE, /* ByteLevel's add_prefix_space */
    FC_PRE_METASPACE     /* blanks become `mark`, one is put in front */
};
enum fc_cut {
    FC_CUT_REMOVED,
    FC_CUT_ISOLATED,
    FC_CUT_PREVIOUS, /* the match goes with what stands before it */
    FC_CUT_NEXT,
    FC_CUT_CONTIGUOUS
};
enum fc_prepend { FC_PREPEND_NEVER, FC_PREPEND_FIRST, FC_PREPEND_ALWAYS };

struct fc_pre_step {
    enum fc_pre_kind kind;
    pcre2_code *code;
    enum fc_cut cut;
    bool invert; /* what lies between the matches is the match */
    enum fc_prepend prepend;
    char *mark;
};

struct fc_pretokenizer {
    struct fc_pre_step *steps;
    size_t n, capacity;
};

/* Compiles a pattern written for Oniguruma (a literal one if `literal`) so that PCRE2 takes it the
 * same way; FC_ERR_UNSUPPORTED where it cannot. */
enum fc_code fc_pattern_compile(pcre2_code **code, const char *pattern, bool literal,
                                const char *where, struct fc_error *err);

/* Scratch of one call: words are spans of *text. */
struct fc_words {
    const char *text;
    struct fc_spans spans, other;
    struct fc_text buffer[2];
    int which; /* the buffer that text is in */
    pcre2_match_data *match;
    pcre2_match_context *context;
};

/* Cuts len bytes into words. at_start: the text begins the whole input (Metaspace "first"). */
enum fc_code fc_pretokenize(const struct fc_pretokenizer *pre, const char *text, size_t len,
                            bool at_start, struct fc_words *words, struct fc_error *err);
void fc_words_free(struct fc_words *words);

/* ---- byte-pair encoding (models/bpe.c) --------------------------------------------------------
 */

struct fc_merge {
    int32_t left, right; /* left -1: a free slot */
    uint32_t rank;
    int32_t result;
};

struct fc_bpe {
    struct fc_merge *slots; /* open-addressed by (left, right) */
    size_t mask, n;
    bool byte_level;    /* symbols begin as bytes; otherwise as characters */
    bool byte_fallback; /* a character that is no token becomes its bytes' tokens */
    bool fuse_unk, ignore_merges;
    int32_t unk;          /* -1: characters that are no token are dropped */
    int32_t byte_id[256]; /* the token of a byte, -1 if there is none */
};

/* The merge of a pair, NULL if there is none. */
const struct fc_merge *fc_bpe_find(const struct fc_bpe *bpe, int32_t left, int32_t right);
/* Adds a merge; the last of equal pairs counts. */
enum fc_code fc_bpe_add(struct fc_bpe *bpe, struct fc_merge merge, struct fc_error *err);

struct fc_symbol {
    int32_t id; /* -1: merged away */
    uint32_t previous, next;
};

struct fc_candidate {
    uint64_t key; /* rank << 32 | position: the smallest goes first */
    int32_t left, right, result;
};

/* Scratch of one call. */
struct fc_bpe_work {
    struct fc_symbol *symbols;
    size_t capacity;
    struct fc_candidate *heap;
    size_t n_heap, heap_capacity;
    struct fc_tokens ids;
};

/* Appends the tokens of one word. */
enum fc_code fc_bpe_encode(const struct fc_tokenizer *tok, struct fc_bpe_work *work,
                           const char *word, size_t len, struct fc_tokens *out,
                           struct fc_error *err);
void fc_bpe_work_free(struct fc_bpe_work *work);

/* ---- decoder (models/tokenizer_decode.c) ------------------------------------------------------
 */

struct fc_token_decoder {
    struct fc_normalizer replace; /* in every token's text, when the tokenizer is opened */
    bool byte_level;
    bool byte_fallback;
    bool fused;          /* Fuse was read: what follows sees the whole text */
    unsigned strip_left; /* spaces taken from the front of the whole text */
    char *first_drop;    /* Metaspace: this character is dropped from the first token, or NULL */
};

/* Fills vocab.bytes. */
enum fc_code fc_decoder_prepare(struct fc_tokenizer *tok, struct fc_error *err);
/* GPT-2's alphabet: each byte has a printable character. */
uint32_t fc_byte_to_char(unsigned char byte);
/* The byte of a character of the alphabet, -1 if it is none. */
int fc_char_to_byte(uint32_t cp);

/* ---- the whole ---------------------------------------------------------------------------------
 */

struct fc_tokenizer {
    char *where;  /* file, for messages */
    char *source; /* the tokenizer.json to copy on save, NULL: write our own */
    char *folder; /* of the files beside it to copy too, NULL: none */
    struct fc_vocab vocab;
    struct fc_added *added;
    size_t n_added, added_capacity;
    struct fc_matcher raw, normalized;
    struct fc_normalizer normalizer;
    struct fc_pretokenizer pre;
    struct fc_bpe bpe;
    struct fc_token_decoder decoder;
    int32_t bos, eos, unk, pad;
    bool adds_bos;
    char *chat_template;
    const char *pipeline; /* GGUF: the JSON of normalizer, pre_tokenizer and decoder */
};

struct fc_tokenizer *fc_tok_begin(const char *where, struct fc_error *err);
/* An added token; the content is copied. */
enum fc_code fc_tok_add_added(struct fc_tokenizer *tok, const char *content, size_t len, size_t id,
                              struct fc_added kind, struct fc_error *err);
/* normalizer, pre_tokenizer and decoder of a tokenizer.json (models/tokenizer_pipeline.c). */
enum fc_code fc_tok_pipeline(struct fc_tokenizer *tok, const cJSON *root, struct fc_error *err);
/* After the vocabulary and the pipeline: matchers, decoding table, bytes. */
enum fc_code fc_tok_seal(struct fc_tokenizer *tok, struct fc_error *err);
/* "a b", split at the first space after the first byte. */
enum fc_code fc_tok_add_merge_line(struct fc_tokenizer *tok, const char *line, size_t len,
                                   size_t rank, struct fc_error *err);
enum fc_code fc_tok_add_merge(struct fc_tokenizer *tok, const char *left, size_t n_left,
                              const char *right, size_t n_right, size_t rank, struct fc_error *err);
/* After the merges: finds the tokens that are whole words. */
enum fc_code fc_tok_finish(struct fc_tokenizer *tok, struct fc_error *err);

/* From GGUF metadata (models/tokenizer_gguf.c). */
enum fc_code fc_tok_open_gguf(struct fc_tokenizer **tok, const struct fc_gguf *gguf,
                              struct fc_error *err);
/* tokenizer.json of a folder and the files beside it (models/tokenizer_config.c). */
enum fc_code fc_tok_open_folder(struct fc_tokenizer **tok, const char *folder,
                                struct fc_error *err);
/* Adds what tokenizer_config.json, special_tokens_map.json and chat_template.jinja beside the
 * tokenizer.json say (models/tokenizer_config.c). */
enum fc_code fc_tok_read_config(struct fc_tokenizer *tok, const char *folder, struct fc_error *err);

/* As fc_tokenizer_encode for valid UTF-8 in which only the marked ranges are a user's: what chat
 * templates need, since words and prefixes reach across the border. */
enum fc_code fc_tok_encode_marked(const struct fc_tokenizer *tok, const char *text, size_t len,
                                  const struct fc_marks *marks, struct fc_tokens *out,
                                  struct fc_error *err);

#endif
