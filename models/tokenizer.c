/* The tokenizer as a whole: life, queries and the stages of encoding. */
#include "models/tokenizer_private.h"

#include <string.h>

enum fc_code fc_tokens_add(struct fc_tokens *t, int32_t id, struct fc_error *err)
{
    void *ids = t->ids;
    enum fc_code code = fc_grow(&ids, &t->capacity, t->n + 1, sizeof *t->ids, "tokens", err);
    t->ids = ids;
    if (code == FC_OK)
        t->ids[t->n++] = id;
    return code;
}

void fc_tokens_free(struct fc_tokens *t)
{
    free(t->ids);
    *t = (struct fc_tokens){0};
}

/* ---- life --------------------------------------------------------------------------------------
 */

struct fc_tokenizer *fc_tok_begin(const char *where, struct fc_error *err)
{
    struct fc_tokenizer *tok = fc_alloc(1, sizeof *tok, "tokenizer", err);
    if (!tok)
        return NULL;
    tok->bos = tok->eos = tok->unk = tok->pad = tok->bpe.unk = -1;
    tok->where = fc_strndup(where, strlen(where), err);
    if (!tok->where) {
        fc_tokenizer_close(tok);
        return NULL;
    }
    return tok;
}

static void free_normalizer(struct fc_normalizer *norm)
{
    for (size_t i = 0; i < norm->n; i++) {
        free(norm->steps[i].from);
        free(norm->steps[i].to);
    }
    free(norm->steps);
}

void fc_tokenizer_close(struct fc_tokenizer *tok)
{
    if (!tok)
        return;
    fc_vocab_free(&tok->vocab);
    for (size_t i = 0; i < tok->n_added; i++)
        free(tok->added[i].text);
    free(tok->added);
    fc_matcher_free(&tok->raw);
    fc_matcher_free(&tok->normalized);
    free_normalizer(&tok->normalizer);
    free_normalizer(&tok->decoder.replace);
    for (size_t i = 0; i < tok->pre.n; i++) {
        pcre2_code_free(tok->pre.steps[i].code);
        free(tok->pre.steps[i].mark);
    }
    free(tok->pre.steps);
    free(tok->bpe.slots);
    free(tok->decoder.first_drop);
    free(tok->chat_template);
    free(tok->source);
    free(tok->folder);
    free(tok->where);
    free(tok);
}

enum fc_code fc_tok_add_added(struct fc_tokenizer *tok, const char *content, size_t len, size_t id,
                              struct fc_added kind, struct fc_error *err)
{
    unsigned flags = FC_TOKEN_ADDED | (kind.special ? FC_TOKEN_SPECIAL : 0u);
    void *added = tok->added;
    enum fc_code code = fc_vocab_add(&tok->vocab, content, len, id, flags, tok->where, err);
    if (code == FC_OK)
        code = fc_grow(&added, &tok->added_capacity, tok->n_added + 1, sizeof *tok->added,
                       "added tokens", err);
    tok->added = added;
    if (code != FC_OK)
        return code;
    kind.id = (int32_t)id;
    kind.len = len;
    kind.text = fc_strndup(content, len, err);
    if (!kind.text)
        return FC_ERR_MEMORY;
    tok->added[tok->n_added++] = kind;
    return FC_OK;
}

/* Added tokens that are looked for in normalised text are looked for in normal form. */
static enum fc_code normalize_added(struct fc_tokenizer *tok, struct fc_error *err)
{
    struct fc_text normal = {0};
    struct fc_spans moved = {0};
    enum fc_code code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < tok->n_added; i++) {
        struct fc_added *a = &tok->added[i];
        if (!a->normalized || !a->len)
            continue;
        code = fc_normalize(&tok->normalizer, a->text, (struct fc_span){0, a->len},
                            &(struct fc_marks){0}, &normal, &moved, err);
        if (code != FC_OK)
            break;
        char *text = fc_strndup(normal.data, normal.len, err);
        if (!text) {
            code = FC_ERR_MEMORY;
            break;
        }
        free(a->text);
        a->text = text;
        a->len = normal.len;
    }
    fc_text_free(&normal);
    free(moved.at);
    return code;
}

/* Where a byte's token is: "<0x0A>" with byte fallback, a character of GPT-2's alphabet with byte
 * level. */
static int32_t find_byte(const struct fc_tokenizer *tok, unsigned char byte)
{
    char text[8];
    size_t len;
    if (tok->bpe.byte_level) {
        len = fc_utf8_encode(fc_byte_to_char(byte), text);
    } else {
        static const char digits[] = "0123456789ABCDEF";
        memcpy(text, "<0x00>", 7);
        text[3] = digits[byte >> 4];
        text[4] = digits[byte & 15];
        len = 6;
    }
    int32_t id = fc_vocab_find(&tok->vocab, text, len);
    unsigned flags = id < 0 ? 0 : tok->vocab.flags[id];
    return flags & FC_TOKEN_MODEL && !(flags & FC_TOKEN_SPECIAL) ? id : -1;
}

enum fc_code fc_tok_seal(struct fc_tokenizer *tok, struct fc_error *err)
{
    if (tok->vocab.size == 0)
        return fc_fail(err, FC_ERR_INPUT, "%s: the vocabulary is empty", tok->where);
    enum fc_code code = normalize_added(tok, err);
    if (code == FC_OK)
        code = fc_matcher_build(&tok->raw, tok->added, tok->n_added, false, err);
    if (code == FC_OK)
        code = fc_matcher_build(&tok->normalized, tok->added, tok->n_added, true, err);
    if (code == FC_OK)
        code = fc_decoder_prepare(tok, err);
    for (unsigned b = 0; code == FC_OK && b < 256; b++)
        tok->bpe.byte_id[b] = find_byte(tok, (unsigned char)b);
    return code;
}

/* ---- merges ------------------------------------------------------------------------------------
 */

enum fc_code fc_tok_add_merge(struct fc_tokenizer *tok, const char *left, size_t n_left,
                              const char *right, size_t n_right, size_t rank, struct fc_error *err)
{
    struct fc_text joined = {0};
    fc_text_add(&joined, left, n_left);
    fc_text_add(&joined, right, n_right);
    enum fc_code code = fc_text_check(&joined, err);
    if (code == FC_OK && rank >= UINT32_MAX)
        code = fc_fail(err, FC_ERR_INPUT, "%s: more than 2^32 merges", tok->where);
    if (code != FC_OK)
        goto cleanup;
    int32_t a = fc_vocab_find(&tok->vocab, left, n_left);
    int32_t b = fc_vocab_find(&tok->vocab, right, n_right);
    int32_t ab = fc_vocab_find(&tok->vocab, joined.data, joined.len);
    const uint8_t *flags = tok->vocab.flags;
    if (a < 0 || b < 0 || ab < 0 || !(flags[a] & flags[b] & flags[ab] & FC_TOKEN_MODEL)) {
        code =
            fc_fail(err, FC_ERR_INPUT, "%s: merge %zu joins \"%.*s\" and \"%.*s\": %s is no token",
                    tok->where, rank, n_left > 40 ? 40 : (int)n_left, left,
                    n_right > 40 ? 40 : (int)n_right, right,
                    a < 0   ? "the first"
                    : b < 0 ? "the second"
                            : "what they make");
        goto cleanup;
    }
    /* No merge makes a special token: FC_TEXT promises it, and FC_MARKUP cut them out before. */
    if (!(flags[ab] & FC_TOKEN_SPECIAL))
        code = fc_bpe_add(&tok->bpe, (struct fc_merge){a, b, (uint32_t)rank, ab}, err);
cleanup:
    fc_text_free(&joined);
    return code;
}

enum fc_code fc_tok_add_merge_line(struct fc_tokenizer *tok, const char *line, size_t len,
                                   size_t rank, struct fc_error *err)
{
    const char *space = len > 1 ? memchr(line + 1, ' ', len - 1) : NULL;
    if (!space || space + 1 == line + len)
        return fc_fail(err, FC_ERR_INPUT, "%s: merge %zu: expected two tokens with a space between",
                       tok->where, rank);
    return fc_tok_add_merge(tok, line, (size_t)(space - line), space + 1,
                            (size_t)(line + len - space - 1), rank, err);
}

/* Whether text can spell the piece at all: each of its characters stands for a byte. */
static bool in_alphabet(const char *piece, size_t len)
{
    uint32_t cp;
    for (size_t i = 0; i < len;) {
        i += fc_utf8_decode(piece + i, len - i, &cp);
        if (fc_char_to_byte(cp) < 0)
            return false;
    }
    return true;
}

enum fc_code fc_tok_finish(struct fc_tokenizer *tok, struct fc_error *err)
{
    struct fc_bpe_work work = {0};
    struct fc_tokens ids = {0};
    struct fc_vocab *v = &tok->vocab;
    enum fc_code code = FC_OK;
    /* Which tokens are whole words is known only when all merges are; none is looked up before. */
    for (size_t id = 0; code == FC_OK && tok->bpe.byte_level && id < v->size; id++) {
        if (!(v->flags[id] & FC_TOKEN_MODEL) || v->flags[id] & FC_TOKEN_SPECIAL ||
            !in_alphabet(fc_piece_text(&v->pieces, id), v->pieces.of[id].len))
            continue;
        bool whole = tok->bpe.ignore_merges;
        if (!whole) {
            ids.n = 0;
            code = fc_bpe_encode(tok, &work, fc_piece_text(&v->bytes, id), v->bytes.of[id].len,
                                 &ids, err);
            whole = ids.n == 1 && ids.ids[0] == (int32_t)id;
        }
        if (code == FC_OK && whole)
            code = fc_vocab_add_word(v, id, err);
    }
    fc_bpe_work_free(&work);
    fc_tokens_free(&ids);
    return code;
}

/* ---- encoding ----------------------------------------------------------------------------------
 */

/* One call's scratch memory. */
struct encoder {
    const struct fc_tokenizer *tok;
    struct fc_text normal;
    struct fc_spans moved;
    struct fc_words words;
    struct fc_bpe_work bpe;
    struct fc_tokens *out;
    struct fc_error *err;
};

/* Text without added tokens, in normal form, to words to tokens. */
static enum fc_code encode_plain(struct encoder *e, const char *text, size_t len, bool at_start)
{
    struct fc_words *w = &e->words;
    enum fc_code code = fc_pretokenize(&e->tok->pre, text, len, at_start, w, e->err);
    for (size_t i = 0; code == FC_OK && i < w->spans.n; i++)
        code = fc_bpe_encode(e->tok, &e->bpe, w->text + w->spans.at[i].begin,
                             w->spans.at[i].end - w->spans.at[i].begin, e->out, e->err);
    return code;
}

/* A part of the text without raw added tokens: normalised, then searched once more. */
static enum fc_code encode_part(struct encoder *e, const char *text, struct fc_span part,
                                const struct fc_marks *marks)
{
    const char *normal = text + part.begin;
    size_t len = part.end - part.begin, done = 0, pos = 0;
    struct fc_marks moved = {0};
    enum fc_code code = FC_OK;
    if (e->tok->normalizer.n) {
        code = fc_normalize(&e->tok->normalizer, text, part, marks, &e->normal, &e->moved, e->err);
        if (code != FC_OK)
            return code;
        normal = e->normal.data;
        len = e->normal.len;
        moved = (struct fc_marks){e->moved.at, e->moved.n};
    } else if (e->tok->normalized.first[256]) {
        /* The same marks, counted from the part's beginning. */
        e->moved.n = 0;
        for (size_t i = 0; code == FC_OK && i < marks->n; i++) {
            struct fc_span m = marks->spans[i];
            if (m.end > part.begin && m.begin < part.end)
                code = fc_spans_add(&e->moved, m.begin < part.begin ? 0 : m.begin - part.begin,
                                    m.end - part.begin, e->err);
        }
        moved = (struct fc_marks){e->moved.at, e->moved.n};
    }
    struct fc_hit hit;
    while (code == FC_OK &&
           fc_matcher_next(&e->tok->normalized, normal, len, &moved, done, &pos, &hit)) {
        if (done < hit.span.begin)
            code =
                encode_plain(e, normal + done, hit.span.begin - done, part.begin == 0 && done == 0);
        if (code == FC_OK)
            code = fc_tokens_add(e->out, hit.id, e->err);
        done = hit.span.end;
    }
    if (code == FC_OK && done < len)
        code = encode_plain(e, normal + done, len - done, part.begin == 0 && done == 0);
    return code;
}

enum fc_code fc_tok_encode_marked(const struct fc_tokenizer *tok, const char *text, size_t len,
                                  const struct fc_marks *marks, struct fc_tokens *out,
                                  struct fc_error *err)
{
    struct encoder e = {.tok = tok, .out = out, .err = err};
    struct fc_hit hit;
    size_t done = 0, pos = 0;
    enum fc_code code = FC_OK;
    if (len > FC_TOK_MAX_TEXT)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "tokenizer: %zu bytes of text, expected at most %zu", len, FC_TOK_MAX_TEXT);
    while (code == FC_OK && fc_matcher_next(&tok->raw, text, len, marks, done, &pos, &hit)) {
        if (done < hit.span.begin)
            code = encode_part(&e, text, (struct fc_span){done, hit.span.begin}, marks);
        if (code == FC_OK)
            code = fc_tokens_add(out, hit.id, err);
        done = hit.span.end;
    }
    if (code == FC_OK && done < len)
        code = encode_part(&e, text, (struct fc_span){done, len}, marks);
    fc_text_free(&e.normal);
    free(e.moved.at);
    fc_words_free(&e.words);
    fc_bpe_work_free(&e.bpe);
    return code;
}

enum fc_code fc_tokenizer_encode(const struct fc_tokenizer *tok, const char *text, size_t len,
                                 enum fc_text_kind kind, struct fc_tokens *out,
                                 struct fc_error *err)
{
    struct fc_text repaired = {0};
    enum fc_code code = FC_OK;
    if (!fc_utf8_valid(text, len)) {
        fc_utf8_repair(text, len, &repaired);
        code = fc_text_check(&repaired, err);
        text = repaired.data;
        len = repaired.len;
    }
    if (code == FC_OK) {
        struct fc_span all = {0, len};
        struct fc_marks marks = {&all, kind == FC_TEXT ? 1 : 0};
        code = fc_tok_encode_marked(tok, text, len, &marks, out, err);
    }
    fc_text_free(&repaired);
    return code;
}

/* ---- queries -----------------------------------------------------------------------------------
 */

size_t fc_tokenizer_size(const struct fc_tokenizer *tok)
{
    return tok->vocab.size;
}

int32_t fc_tokenizer_id(const struct fc_tokenizer *tok, const char *text)
{
    return fc_vocab_find(&tok->vocab, text, strlen(text));
}

static unsigned flags_of(const struct fc_tokenizer *tok, int32_t id)
{
    return id >= 0 && (size_t)id < tok->vocab.size ? tok->vocab.flags[id] : 0;
}

const char *fc_tokenizer_piece(const struct fc_tokenizer *tok, int32_t id)
{
    return flags_of(tok, id) ? fc_piece_text(&tok->vocab.pieces, (size_t)id) : NULL;
}

bool fc_tokenizer_is_special(const struct fc_tokenizer *tok, int32_t id)
{
    return flags_of(tok, id) & FC_TOKEN_SPECIAL;
}

int32_t fc_tokenizer_bos(const struct fc_tokenizer *tok)
{
    return tok->bos;
}

int32_t fc_tokenizer_eos(const struct fc_tokenizer *tok)
{
    return tok->eos;
}

bool fc_tokenizer_adds_bos(const struct fc_tokenizer *tok)
{
    return tok->adds_bos && tok->bos >= 0;
}

const char *fc_tokenizer_chat_template(const struct fc_tokenizer *tok)
{
    return tok->chat_template;
}
