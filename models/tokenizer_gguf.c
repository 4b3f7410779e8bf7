/* The tokenizer in a GGUF's metadata. A GGUF names the rules (tokenizer.ggml.pre) that a
 * tokenizer.json spells out, so the names are mapped to pieces of tokenizer.json, which go through
 * the same reader and, on save, into the file. */
#include "base/json.h"
#include "models/gguf.h"
#include "models/tokenizer_private.h"

#include <math.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

/* Values of tokenizer.ggml.token_type. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

#define BYTE_LEVEL(regex)                                                                          \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_"              \
    "regex\":" regex "}"
#define BYTE_LEVEL_DECODER                                                                         \
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"         \
    "\"use_regex\":true}"
#define SPLIT(digits)                                                                              \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"        \
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits               \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"     \
    "\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL("false") "]}"

static const char gpt2[] =
    "{\"normalizer\":null,\"pre_tokenizer\":" BYTE_LEVEL("true") "," BYTE_LEVEL_DECODER "}";
static const char smollm[] =
    "{\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Digits\",\"individual_digits\":true}," BYTE_LEVEL("true") "]}," BYTE_LEVEL_DECODER
                                                                           "}";
static const char llama3[] =
    "{\"normalizer\":null,\"pre_tokenizer\":" SPLIT("\\\\p{N}{1,3}") "," BYTE_LEVEL_DECODER "}";
static const char qwen2[] =
    "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":" SPLIT("\\\\p{N}") "," BYTE_LEVEL_DECODER
                                                                              "}";

#define MARK "\xE2\x96\x81" /* U+2581, SentencePiece's space */
#define TO_MARK "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}"
#define FROM_MARK                                                                                  \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" MARK "\"},\"content\":\" \"},"              \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}"

static const char spm_prefix[] =
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
    "\"" MARK "\"}," TO_MARK "]},\"pre_tokenizer\":null,\"decoder\":{\"type\":\"Sequence\","
    "\"decoders\":[" FROM_MARK ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}}";
static const char spm_plain[] =
    "{\"normalizer\":" TO_MARK ",\"pre_tokenizer\":null,\"decoder\":{\"type\":\"Sequence\","
    "\"decoders\":[" FROM_MARK "]}}";

/* The names of llama.cpp. "default" with byte-level BPE is what converters wrote before there were
 * names: GPT-2's rules. */
static const struct rules {
    const char *pre, *pipeline;
    bool ignore_merges, adds_bos;
} byte_level_rules[] = {
    {"gpt-2", gpt2, false, false},
    {"default", gpt2, false, false},
    {"smollm", smollm, false, false},
    {"starcoder", smollm, false, false},
    {"llama-bpe", llama3, true, true},
    {"llama3", llama3, true, true},
    {"llama-v3", llama3, true, true},
    {"qwen2", qwen2, false, false},
    {"deepseek-r1-qwen", qwen2, false, true},
};

/* Everything read from the file; freed together. */
struct source {
    const struct fc_gguf *gguf;
    struct fc_gguf_string model, pre, chat_template;
    struct fc_gguf_string *tokens, *merges;
    int64_t *types;
    float *scores;
    size_t n_tokens, n_merges, n_types, n_scores;
    bool add_bos, add_space_prefix;
};

static enum fc_code check_count(const struct source *s, const char *key, size_t n,
                                struct fc_error *err)
{
    return n == s->n_tokens ? FC_OK
                            : fc_fail(err, FC_ERR_INPUT, "%s: %s: %zu elements for %zu tokens",
                                      fc_gguf_path(s->gguf), key, n, s->n_tokens);
}

static enum fc_code read_arrays(struct source *s, struct fc_error *err)
{
    enum fc_code code = fc_gguf_texts(s->gguf, KEY("tokens"), true, &s->tokens, &s->n_tokens, err);
    if (code == FC_OK)
        code = fc_gguf_texts(s->gguf, KEY("merges"), false, &s->merges, &s->n_merges, err);
    if (code == FC_OK)
        code = fc_gguf_ints(s->gguf, KEY("token_type"), false, &s->types, &s->n_types, err);
    if (code == FC_OK)
        code = fc_gguf_floats(s->gguf, KEY("scores"), false, &s->scores, &s->n_scores, err);
    if (code == FC_OK && s->types)
        code = check_count(s, KEY("token_type"), s->n_types, err);
    if (code == FC_OK && s->scores)
        code = check_count(s, KEY("scores"), s->n_scores, err);
    return code;
}

static enum fc_code read_source(struct source *s, struct fc_error *err)
{
    s->pre = (struct fc_gguf_string){"default", 7};
    enum fc_code code = fc_gguf_text(s->gguf, KEY("model"), true, &s->model, err);
    if (code == FC_OK)
        code = fc_gguf_text(s->gguf, KEY("pre"), false, &s->pre, err);
    if (code == FC_OK)
        code = fc_gguf_text(s->gguf, "tokenizer.chat_template", false, &s->chat_template, err);
    if (code == FC_OK)
        code = read_arrays(s, err);
    return code;
}

/* *id as in the file, or as it is where the file has none. */
static enum fc_code read_id(const struct source *s, const char *key, int32_t *id,
                            struct fc_error *err)
{
    int64_t value = *id;
    enum fc_code code = fc_gguf_int(s->gguf, key, false, &value, err);
    if (code == FC_OK && (value < -1 || value >= (int64_t)s->n_tokens))
        code = fc_fail(err, FC_ERR_INPUT, "%s: %s: %lld is no token, expected less than %zu",
                       fc_gguf_path(s->gguf), key, (long long)value, s->n_tokens);
    if (code == FC_OK)
        *id = (int32_t)value;
    return code;
}

static enum fc_code read_ids(struct fc_tokenizer *tok, struct source *s, struct fc_error *err)
{
    enum fc_code code = read_id(s, KEY("bos_token_id"), &tok->bos, err);
    if (code == FC_OK)
        code = read_id(s, KEY("eos_token_id"), &tok->eos, err);
    if (code == FC_OK)
        code = read_id(s, KEY("unknown_token_id"), &tok->unk, err);
    if (code == FC_OK)
        code = read_id(s, KEY("padding_token_id"), &tok->pad, err);
    if (code == FC_OK)
        code = fc_gguf_bool(s->gguf, KEY("add_bos_token"), false, &s->add_bos, err);
    if (code == FC_OK)
        code = fc_gguf_bool(s->gguf, KEY("add_space_prefix"), false, &s->add_space_prefix, err);
    tok->adds_bos = s->add_bos;
    return code;
}

/* A named id that is a hole names nothing. */
static void drop_holes(struct fc_tokenizer *tok)
{
    int32_t *ids[] = {&tok->bos, &tok->eos, &tok->unk, &tok->pad};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (!fc_tokenizer_piece(tok, *ids[i]))
            *ids[i] = -1;
}

/* Unused ids stay holes. A special token is in the model's vocabulary too, so that it keeps its id
 * when the file is written. */
static enum fc_code read_tokens(struct fc_tokenizer *tok, const struct source *s,
                                struct fc_error *err)
{
    for (size_t i = 0; i < s->n_tokens; i++) {
        struct fc_gguf_string t = s->tokens[i];
        int64_t type = s->types ? s->types[i] : NORMAL;
        if (type == UNUSED)
            continue;
        if (t.len && memchr(t.data, 0, t.len))
            return fc_fail(err, FC_ERR_UNSUPPORTED, "%s: token %zu holds a NUL", tok->where, i);
        enum fc_code code =
            fc_vocab_add(&tok->vocab, t.data, t.len, i, FC_TOKEN_MODEL, tok->where, err);
        struct fc_added kind = {.special = type == CONTROL || type == UNKNOWN};
        if (code == FC_OK && (kind.special || type == USER_DEFINED))
            code = fc_tok_add_added(tok, t.data, t.len, i, kind, err);
        if (code != FC_OK)
            return code;
    }
    drop_holes(tok);
    return FC_OK;
}

static enum fc_code read_pipeline(struct fc_tokenizer *tok, const char *pipeline,
                                  struct fc_error *err)
{
    cJSON *root = fc_json_parse(pipeline, strlen(pipeline), tok->where, err);
    if (!root)
        return err ? err->code : FC_ERR_INTERNAL;
    enum fc_code code = fc_tok_pipeline(tok, root, err);
    cJSON_Delete(root);
    tok->pipeline = pipeline;
    return code == FC_OK ? fc_tok_seal(tok, err) : code;
}

static enum fc_code open_byte_level(struct fc_tokenizer *tok, struct source *s,
                                    struct fc_error *err)
{
    const struct rules *rules = NULL;
    for (size_t i = 0; i < sizeof byte_level_rules / sizeof *byte_level_rules; i++)
        if (fc_gguf_string_is(s->pre, byte_level_rules[i].pre))
            rules = &byte_level_rules[i];
    if (!rules)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.pre \"%.*s\" is not supported; a Hugging Face directory "
                       "of the same model may be",
                       tok->where, s->pre.len < 40 ? (int)s->pre.len : 40, s->pre.data);
    s->add_bos = rules->adds_bos;
    tok->bpe.ignore_merges = rules->ignore_merges;
    enum fc_code code = read_ids(tok, s, err);
    if (code == FC_OK)
        code = read_tokens(tok, s, err);
    if (code == FC_OK)
        code = read_pipeline(tok, rules->pipeline, err);
    for (size_t i = 0; code == FC_OK && i < s->n_merges; i++)
        code = fc_tok_add_merge_line(tok, s->merges[i].data, s->merges[i].len, i, err);
    return code;
}

/* ---- SentencePiece: merges by score -----------------------------------------------------------
 *
 * SentencePiece's BPE joins the pair that makes the token with the best score. As ranked merges:
 * every way to cut every token into two tokens, by score, then by the lengths of the parts. That is
 * the order of transformers' conversion, so what is saved tokenizes alike. */

struct cut {
    float score;
    int32_t left, right;
    uint32_t n_left, n_right; /* characters */
    uint32_t order;           /* of the token in the vocabulary */
};

static int by_score(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;
    if (x->score > y->score || x->score < y->score)
        return x->score > y->score ? -1 : 1;
    if (x->n_left != y->n_left)
        return x->n_left > y->n_left ? -1 : 1;
    if (x->n_right != y->n_right)
        return x->n_right > y->n_right ? -1 : 1;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static uint32_t characters(const char *text, size_t len)
{
    uint32_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

/* A hostile token of a megabyte would take a megabyte of cuts; real ones have 48 bytes at most. */
#define MAX_SPM_TOKEN 512

static enum fc_code cut_token(const struct fc_tokenizer *tok, const struct source *s, size_t id,
                              struct cut **cuts, size_t *n, size_t *capacity, struct fc_error *err)
{
    const struct fc_vocab *v = &tok->vocab;
    const char *text = fc_piece_text(&v->pieces, id);
    size_t len = v->pieces.of[id].len;
    for (size_t at = 1; at < len && len <= MAX_SPM_TOKEN; at++) {
        if (((unsigned char)text[at] & 0xC0) == 0x80)
            continue;
        int32_t left = fc_vocab_find(v, text, at), right = fc_vocab_find(v, text + at, len - at);
        if (left < 0 || right < 0 || (v->flags[left] | v->flags[right]) & FC_TOKEN_SPECIAL)
            continue;
        void *grown = *cuts;
        enum fc_code code = fc_grow(&grown, capacity, *n + 1, sizeof **cuts, "merges", err);
        *cuts = grown;
        if (code != FC_OK)
            return code;
        (*cuts)[(*n)++] = (struct cut){
            s->scores[id], left, right, characters(text, at), characters(text + at, len - at),
            (uint32_t)id};
    }
    return FC_OK;
}

static enum fc_code merges_by_score(struct fc_tokenizer *tok, const struct source *s,
                                    struct fc_error *err)
{
    struct cut *cuts = NULL;
    size_t n = 0, capacity = 0;
    enum fc_code code = FC_OK;
    for (size_t id = 0; code == FC_OK && id < tok->vocab.size; id++) {
        if (tok->vocab.flags[id] & FC_TOKEN_SPECIAL || !tok->vocab.flags[id])
            continue;
        if (!isfinite(s->scores[id]))
            code = fc_fail(err, FC_ERR_INPUT, "%s: %s: the score of token %zu is not finite",
                           tok->where, KEY("scores"), id);
        else
            code = cut_token(tok, s, id, &cuts, &n, &capacity, err);
    }
    if (code == FC_OK && n)
        qsort(cuts, n, sizeof *cuts, by_score);
    for (size_t i = 0; code == FC_OK && i < n; i++)
        code = fc_bpe_add(
            &tok->bpe,
            (struct fc_merge){cuts[i].left, cuts[i].right, (uint32_t)i, (int32_t)cuts[i].order},
            err);
    free(cuts);
    return code;
}

static enum fc_code open_sentencepiece(struct fc_tokenizer *tok, struct source *s,
                                       struct fc_error *err)
{
    s->add_bos = s->add_space_prefix = true;
    tok->unk = 0;
    enum fc_code code = read_ids(tok, s, err);
    if (code == FC_OK && !s->scores)
        code = fc_fail(err, FC_ERR_INPUT, "%s: %s is missing", tok->where, KEY("scores"));
    if (code == FC_OK)
        code = read_tokens(tok, s, err);
    if (code == FC_OK)
        code = read_pipeline(tok, s->add_space_prefix ? spm_prefix : spm_plain, err);
    if (code != FC_OK)
        return code;
    tok->bpe.unk = tok->unk;
    tok->bpe.fuse_unk = true;
    tok->bpe.byte_fallback = tok->bpe.byte_id[0] >= 0;
    return merges_by_score(tok, s, err);
}

static enum fc_code open_source(struct fc_tokenizer *tok, struct source *s, struct fc_error *err)
{
    enum fc_code code = read_source(s, err);
    if (code != FC_OK)
        return code;
    if (fc_gguf_string_is(s->model, "gpt2"))
        code = open_byte_level(tok, s, err);
    else if (fc_gguf_string_is(s->model, "llama"))
        code = open_sentencepiece(tok, s, err);
    else
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.model \"%.*s\" is not supported, expected \"gpt2\" or "
                       "\"llama\"",
                       tok->where, s->model.len < 40 ? (int)s->model.len : 40, s->model.data);
    if (code == FC_OK)
        code = fc_tok_finish(tok, err);
    if (code == FC_OK && s->chat_template.len) {
        tok->chat_template = fc_strndup(s->chat_template.data, s->chat_template.len, err);
        if (!tok->chat_template)
            code = FC_ERR_MEMORY;
    }
    return code;
}

enum fc_code fc_tok_open_gguf(struct fc_tokenizer **tok, const struct fc_gguf *gguf,
                              struct fc_error *err)
{
    struct source s = {.gguf = gguf};
    enum fc_code code = FC_ERR_MEMORY;
    *tok = NULL;
    struct fc_tokenizer *t = fc_tok_begin(fc_gguf_path(gguf), err);
    if (t)
        code = open_source(t, &s, err);
    free(s.tokens);
    free(s.merges);
    free(s.types);
    free(s.scores);
    if (code == FC_OK)
        *tok = t;
    else
        fc_tokenizer_close(t);
    return code;
}
