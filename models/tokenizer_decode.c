/* Decoding: each token has its bytes, made when the tokenizer is opened; what is left to do is to
 * keep UTF-8 characters whole. The streaming steps are the only way to decode: the whole text is
 * their concatenation. */
#include "models/tokenizer_private.h"

#include <string.h>

/* ---- the bytes of a token ---------------------------------------------------------------------
 */

/* GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 onwards. */
static bool is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

uint32_t fc_byte_to_char(unsigned char byte)
{
    if (is_printable(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xAD ? 0x143 : 0x121u + (byte - 0x7Fu);
}

int fc_char_to_byte(uint32_t cp)
{
    if (cp < 0x100)
        return is_printable(cp) ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp <= 0x142)
        return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

/* A token with a character outside the alphabet (an added one with a space) is its own bytes. */
static void alphabet_to_bytes(const char *text, size_t len, struct fc_text *out)
{
    size_t before = out->len;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        i += fc_utf8_decode(text + i, len - i, &cp);
        int byte = fc_char_to_byte(cp);
        if (byte < 0) {
            out->len = before;
            fc_text_add(out, text, len);
            return;
        }
        char c = (char)byte;
        fc_text_add(out, &c, 1);
    }
}

/* The value of "<0x0A>", -1 for any other text. */
static int byte_token(const char *text, size_t len)
{
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        const char *digits = "0123456789ABCDEFabcdef";
        const char *d = text[i] ? strchr(digits, text[i]) : NULL;
        if (!d)
            return -1;
        int v = (int)(d - digits);
        value = value * 16 + (v < 16 ? v : v - 6);
    }
    return value;
}

static enum fc_code prepare_one(struct fc_tokenizer *tok, size_t id, const char *piece, size_t len,
                                struct fc_text *text, struct fc_error *err)
{
    const struct fc_token_decoder *d = &tok->decoder;
    struct fc_spans moved = {0};
    fc_text_clear(text);
    if (d->byte_level) {
        alphabet_to_bytes(piece, len, text);
    } else {
        enum fc_code code = fc_normalize(&d->replace, piece, (struct fc_span){0, len},
                                         &(struct fc_marks){0}, text, &moved, err);
        if (code != FC_OK)
            return code;
    }
    if (fc_text_check(text, err) != FC_OK)
        return FC_ERR_MEMORY;
    return fc_pieces_set(&tok->vocab.bytes, id, text->data ? text->data : "", text->len, err);
}

enum fc_code fc_decoder_prepare(struct fc_tokenizer *tok, struct fc_error *err)
{
    struct fc_text text = {0};
    enum fc_code code = FC_OK;
    const struct fc_pieces *pieces = &tok->vocab.pieces;
    for (size_t id = 0; code == FC_OK && id < tok->vocab.size; id++)
        if (tok->vocab.flags[id])
            code = prepare_one(tok, id, fc_piece_text(pieces, id), pieces->of[id].len, &text, err);
    /* An added token that is looked for in normal form decodes to it: so does `tokenizers` 0.23,
     * where it matters only for a normalizer that puts a prefix in front. */
    for (size_t i = 0; code == FC_OK && i < tok->n_added; i++) {
        const struct fc_added *a = &tok->added[i];
        if (a->normalized && a->len)
            code = prepare_one(tok, (size_t)a->id, a->text, a->len, &text, err);
    }
    fc_text_free(&text);
    return code;
}

/* ---- streaming ---------------------------------------------------------------------------------
 */

static void emit(struct fc_decode_state *s, const char *bytes, size_t n, struct fc_text *out)
{
    for (; n && s->left && *bytes == ' '; s->left--, bytes++)
        n--;
    if (n) {
        s->left = 0;
        fc_text_add(out, bytes, n);
    }
}

static void emit_replacements(struct fc_decode_state *s, size_t n, struct fc_text *out)
{
    while (n--)
        emit(s, FC_REPLACEMENT, 3, out);
}

/* Bytes of a byte-level token: at most three of a begun character wait in pending. */
static void take_bytes(struct fc_decode_state *s, const char *bytes, size_t n, struct fc_text *out)
{
    while (n) {
        /* Whole characters of the token itself go at once. */
        size_t good = 0, len = 0;
        uint32_t cp = 0;
        while (!s->n_pending && good < n) {
            len = fc_utf8_decode(bytes + good, n - good, &cp);
            if (cp >= FC_UTF8_CUT)
                break;
            good += len;
        }
        emit(s, bytes, good, out);
        bytes += good;
        n -= good;
        if (!n)
            break;
        s->pending[s->n_pending++] = *bytes;
        len = fc_utf8_decode(s->pending, s->n_pending, &cp);
        if (cp == FC_UTF8_CUT) {
            bytes++;
            n--;
            continue;
        }
        if (cp == FC_UTF8_BAD) {
            /* The last byte did not fit: it may begin a character itself, unless it is alone. */
            emit_replacements(s, 1, out);
            if (len == s->n_pending) {
                bytes++;
                n--;
            }
        } else {
            emit(s, s->pending, len, out);
            bytes++;
            n--;
        }
        s->n_pending = 0;
    }
}

/* What the run's bytes are: whole characters, or cut within the last, or no UTF-8. *whole: bytes
 * of whole characters. */
static uint32_t run_state(const struct fc_decode_state *s, size_t *whole)
{
    uint32_t cp = 0;
    for (*whole = 0; *whole < s->n_pending;) {
        size_t n = fc_utf8_decode(s->pending + *whole, s->n_pending - *whole, &cp);
        if (cp >= FC_UTF8_CUT)
            return cp;
        *whole += n;
    }
    return 0;
}

static void take_run_byte(struct fc_decode_state *s, char byte, struct fc_text *out)
{
    size_t whole;
    s->is_run = true;
    if (s->bad_run) {
        emit_replacements(s, 1, out);
        return;
    }
    s->pending[s->n_pending++] = byte;
    if (run_state(s, &whole) == FC_UTF8_BAD) {
        emit_replacements(s, s->n_pending, out);
        s->n_pending = 0;
        s->bad_run = true;
    } else if (s->n_pending == sizeof s->pending) {
        emit(s, s->pending, whole, out);
        memmove(s->pending, s->pending + whole, s->n_pending - whole);
        s->n_pending -= whole;
    }
}

static void end_run(struct fc_decode_state *s, struct fc_text *out)
{
    size_t whole;
    if (run_state(s, &whole) == 0)
        emit(s, s->pending, whole, out);
    else
        emit_replacements(s, s->n_pending, out);
    s->n_pending = 0;
    s->is_run = s->bad_run = false;
}

/* The first token without Metaspace's character. */
static void take_first(const struct fc_tokenizer *tok, struct fc_decode_state *s, size_t id,
                       struct fc_text *out)
{
    const char *piece = fc_piece_text(&tok->vocab.pieces, id), *found;
    size_t n = strlen(tok->decoder.first_drop);
    while ((found = strstr(piece, tok->decoder.first_drop))) {
        emit(s, piece, (size_t)(found - piece), out);
        piece = found + n;
    }
    emit(s, piece, strlen(piece), out);
}

static enum fc_code next(const struct fc_tokenizer *tok, struct fc_decode_state *s, int32_t id,
                         bool special, struct fc_text *out, struct fc_error *err)
{
    const struct fc_vocab *v = &tok->vocab;
    if (id < 0 || (size_t)id >= v->size || !v->flags[id] ||
        (!special && v->flags[id] & FC_TOKEN_SPECIAL))
        return FC_OK;
    size_t i = (size_t)id;
    bool first = !s->started;
    if (first) {
        s->started = true;
        s->left = tok->decoder.strip_left;
    }
    const char *bytes = fc_piece_text(&v->bytes, i);
    size_t len = v->bytes.of[i].len;
    int byte = tok->decoder.byte_fallback ? byte_token(bytes, len) : -1;
    if (byte >= 0) {
        take_run_byte(s, (char)byte, out);
        return fc_text_check(out, err);
    }
    if (s->is_run)
        end_run(s, out);
    if (tok->decoder.byte_level)
        take_bytes(s, bytes, len, out);
    else if (first && tok->decoder.first_drop)
        take_first(tok, s, i, out);
    else
        emit(s, bytes, len, out);
    return fc_text_check(out, err);
}

enum fc_code fc_decode_next(const struct fc_tokenizer *tok, struct fc_decode_state *state,
                            int32_t id, struct fc_text *out, struct fc_error *err)
{
    return next(tok, state, id, false, out, err);
}

enum fc_code fc_decode_flush(struct fc_decode_state *state, struct fc_text *out,
                             struct fc_error *err)
{
    if (state->is_run)
        end_run(state, out);
    else if (state->n_pending)
        emit_replacements(state, 1, out);
    *state = (struct fc_decode_state){0};
    return fc_text_check(out, err);
}

enum fc_code fc_tokenizer_decode(const struct fc_tokenizer *tok, const int32_t *ids, size_t n,
                                 bool special, struct fc_text *out, struct fc_error *err)
{
    struct fc_decode_state state = {0};
    enum fc_code code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < n; i++)
        code = next(tok, &state, ids[i], special, out, err);
    return code == FC_OK ? fc_decode_flush(&state, out, err) : code;
}
