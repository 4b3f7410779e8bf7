/* The vocabulary: texts by id in an arena, ids by text in an open-addressed index. */
#include "models/tokenizer_private.h"

#include <string.h>

/* FNV-1a, 64 bits, folded: pieces are a few bytes long. */
static size_t hash(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/* The slot that holds the text's id, or the free one where it belongs. */
static size_t slot_of(const struct fc_index *index, const struct fc_pieces *pieces,
                      const char *text, size_t len)
{
    size_t i = hash(text, len) & index->mask;
    for (; index->slots[i]; i = (i + 1) & index->mask) {
        size_t id = index->slots[i] - 1;
        if (pieces->of[id].len == len && memcmp(fc_piece_text(pieces, id), text, len) == 0)
            break;
    }
    return i;
}

/* At most half full, so that a search ends soon. */
static enum fc_code index_reserve(struct fc_index *index, const struct fc_pieces *pieces,
                                  struct fc_error *err)
{
    if (index->slots && (index->n + 1) * 2 <= index->mask + 1)
        return FC_OK;
    size_t size = index->slots ? (index->mask + 1) * 2 : 1024;
    struct fc_index bigger = {.slots = fc_alloc(size, sizeof *bigger.slots, "vocabulary", err),
                              .mask = size - 1,
                              .n = index->n};
    if (!bigger.slots)
        return FC_ERR_MEMORY;
    for (size_t i = 0; index->slots && i <= index->mask; i++) {
        if (!index->slots[i])
            continue;
        size_t id = index->slots[i] - 1;
        bigger.slots[slot_of(&bigger, pieces, fc_piece_text(pieces, id), pieces->of[id].len)] =
            index->slots[i];
    }
    free(index->slots);
    *index = bigger;
    return FC_OK;
}

static int32_t find(const struct fc_index *index, const struct fc_pieces *pieces, const char *text,
                    size_t len)
{
    return index->slots ? (int32_t)index->slots[slot_of(index, pieces, text, len)] - 1 : -1;
}

int32_t fc_vocab_find(const struct fc_vocab *v, const char *text, size_t len)
{
    return find(&v->by_piece, &v->pieces, text, len);
}

int32_t fc_vocab_find_word(const struct fc_vocab *v, const char *bytes, size_t len)
{
    return len > v->longest_word ? -1 : find(&v->words, &v->bytes, bytes, len);
}

enum fc_code fc_vocab_add_word(struct fc_vocab *v, size_t id, struct fc_error *err)
{
    enum fc_code code = index_reserve(&v->words, &v->bytes, err);
    if (code != FC_OK)
        return code;
    size_t len = v->bytes.of[id].len;
    uint32_t *slot =
        &v->words.slots[slot_of(&v->words, &v->bytes, fc_piece_text(&v->bytes, id), len)];
    if (!*slot) {
        *slot = (uint32_t)id + 1;
        v->words.n++;
        v->flags[id] |= FC_TOKEN_WHOLE;
        if (len > v->longest_word)
            v->longest_word = len;
    }
    return FC_OK;
}

enum fc_code fc_pieces_set(struct fc_pieces *p, size_t id, const char *text, size_t len,
                           struct fc_error *err)
{
    if (p->arena.len + len >= UINT32_MAX)
        return fc_fail(err, FC_ERR_INPUT, "vocabulary: texts of 4 GiB and more");
    p->of[id] = (struct fc_piece){(uint32_t)p->arena.len, (uint32_t)len};
    fc_text_add(&p->arena, text, len);
    fc_text_add(&p->arena, "", 1);
    return fc_text_check(&p->arena, err);
}

/* Room for ids 0 .. size-1 in the three arrays. */
static enum fc_code reserve(struct fc_vocab *v, size_t size, struct fc_error *err)
{
    if (size <= v->capacity)
        return FC_OK;
    size_t capacity = size + size / 2;
    struct fc_piece *pieces = realloc(v->pieces.of, capacity * sizeof *pieces);
    if (pieces)
        v->pieces.of = pieces;
    struct fc_piece *bytes = realloc(v->bytes.of, capacity * sizeof *bytes);
    if (bytes)
        v->bytes.of = bytes;
    uint8_t *flags = realloc(v->flags, capacity);
    if (flags)
        v->flags = flags;
    if (!pieces || !bytes || !flags)
        return fc_fail(err, FC_ERR_MEMORY, "vocabulary: out of memory (%zu tokens)", capacity);
    memset(pieces + v->capacity, 0, (capacity - v->capacity) * sizeof *pieces);
    memset(bytes + v->capacity, 0, (capacity - v->capacity) * sizeof *bytes);
    memset(flags + v->capacity, 0, capacity - v->capacity);
    v->capacity = capacity;
    return FC_OK;
}

enum fc_code fc_vocab_add(struct fc_vocab *v, const char *text, size_t len, size_t id,
                          unsigned flags, const char *where, struct fc_error *err)
{
    int shown = len < 60 ? (int)len : 60; /* a GGUF's strings have no NUL */
    if (id >= FC_TOK_MAX_IDS)
        return fc_fail(err, FC_ERR_INPUT, "%s: token id %zu, expected less than %zu", where, id,
                       FC_TOK_MAX_IDS);
    if (!fc_utf8_valid(text, len))
        return fc_fail(err, FC_ERR_INPUT, "%s: the text of token %zu is not UTF-8", where, id);
    enum fc_code code = reserve(v, id + 1, err);
    if (code == FC_OK)
        code = index_reserve(&v->by_piece, &v->pieces, err);
    if (code != FC_OK)
        return code;
    uint32_t *slot = &v->by_piece.slots[slot_of(&v->by_piece, &v->pieces, text, len)];
    if (*slot && *slot != id + 1)
        return fc_fail(err, FC_ERR_INPUT, "%s: \"%.*s\" is token %u and token %zu", where, shown,
                       text, (unsigned)*slot - 1, id);
    if (!*slot && v->flags[id])
        return fc_fail(err, FC_ERR_INPUT, "%s: token id %zu is \"%.60s\" and \"%.*s\"", where, id,
                       fc_piece_text(&v->pieces, id), shown, text);
    if (!*slot) {
        code = fc_pieces_set(&v->pieces, id, text, len, err);
        if (code != FC_OK)
            return code;
        *slot = (uint32_t)id + 1;
        v->by_piece.n++;
    }
    v->flags[id] |= (uint8_t)(flags | FC_TOKEN_USED);
    if (id >= v->size)
        v->size = id + 1;
    return FC_OK;
}

void fc_vocab_free(struct fc_vocab *v)
{
    fc_text_free(&v->pieces.arena);
    fc_text_free(&v->bytes.arena);
    free(v->pieces.of);
    free(v->bytes.of);
    free(v->flags);
    free(v->by_piece.slots);
    free(v->words.slots);
    *v = (struct fc_vocab){0};
}
