/* Byte-pair encoding: the pair with the lowest rank is merged, the leftmost of equal ones first,
 * until no pair has a merge (Sennrich et al., "Neural machine translation of rare words with
 * subword units", ACL 2016).
 *
 * Words of up to SHORT symbols look at every pair in each round: quadratic, but in registers and
 * first-level cache. Longer ones keep the candidates in a heap: O(n log n), so a megabyte without a
 * space is no trap. Most words of a text are one token, which the index of whole words finds
 * without any merge. */
#include "models/tokenizer_private.h"

#include <string.h>

#define SHORT 24
#define NONE UINT32_MAX

static size_t hash_pair(int32_t left, int32_t right)
{
    uint64_t h = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return (size_t)(h ^ h >> 31);
}

static struct fc_merge *slot_of(const struct fc_bpe *bpe, int32_t left, int32_t right)
{
    size_t i = hash_pair(left, right) & bpe->mask;
    while (bpe->slots[i].left >= 0 && (bpe->slots[i].left != left || bpe->slots[i].right != right))
        i = (i + 1) & bpe->mask;
    return &bpe->slots[i];
}

const struct fc_merge *fc_bpe_find(const struct fc_bpe *bpe, int32_t left, int32_t right)
{
    if (!bpe->slots)
        return NULL;
    const struct fc_merge *m = slot_of(bpe, left, right);
    return m->left < 0 ? NULL : m;
}

enum fc_code fc_bpe_add(struct fc_bpe *bpe, struct fc_merge merge, struct fc_error *err)
{
    if (!bpe->slots || (bpe->n + 1) * 2 > bpe->mask + 1) {
        size_t size = bpe->slots ? (bpe->mask + 1) * 2 : 1024;
        struct fc_bpe bigger = *bpe;
        bigger.slots = fc_alloc(size, sizeof *bigger.slots, "merges", err);
        bigger.mask = size - 1;
        if (!bigger.slots)
            return FC_ERR_MEMORY;
        for (size_t i = 0; i < size; i++)
            bigger.slots[i].left = -1;
        for (size_t i = 0; bpe->slots && i <= bpe->mask; i++)
            if (bpe->slots[i].left >= 0)
                *slot_of(&bigger, bpe->slots[i].left, bpe->slots[i].right) = bpe->slots[i];
        free(bpe->slots);
        *bpe = bigger;
    }
    struct fc_merge *slot = slot_of(bpe, merge.left, merge.right);
    bpe->n += slot->left < 0;
    *slot = merge;
    return FC_OK;
}

static enum fc_code merge_short(const struct fc_bpe *bpe, struct fc_tokens *ids,
                                struct fc_tokens *out, struct fc_error *err)
{
    const struct fc_merge *pair[SHORT];
    int32_t *id = ids->ids;
    size_t n = ids->n;
    for (size_t i = 0; i + 1 < n; i++)
        pair[i] = fc_bpe_find(bpe, id[i], id[i + 1]);
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (pair[i] && (best == n || pair[i]->rank < pair[best]->rank))
                best = i;
        if (best == n)
            break;
        id[best] = pair[best]->result;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            pair[i] = i + 1 < n ? pair[i + 1] : NULL;
        }
        if (best > 0)
            pair[best - 1] = fc_bpe_find(bpe, id[best - 1], id[best]);
        if (best + 1 < n)
            pair[best] = fc_bpe_find(bpe, id[best], id[best + 1]);
    }
    enum fc_code code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < n; i++)
        code = fc_tokens_add(out, id[i], err);
    return code;
}

/* Adds the pair that begins at `at`, if it has a merge. */
static enum fc_code push(const struct fc_bpe *bpe, struct fc_bpe_work *w, uint32_t at,
                         struct fc_error *err)
{
    uint32_t next = w->symbols[at].next;
    if (next == NONE)
        return FC_OK;
    const struct fc_merge *m = fc_bpe_find(bpe, w->symbols[at].id, w->symbols[next].id);
    if (!m)
        return FC_OK;
    void *heap = w->heap;
    enum fc_code code =
        fc_grow(&heap, &w->heap_capacity, w->n_heap + 1, sizeof *w->heap, "merges", err);
    w->heap = heap;
    if (code != FC_OK)
        return code;
    struct fc_candidate c = {(uint64_t)m->rank << 32 | at, m->left, m->right, m->result};
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2].key > c.key; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
    return FC_OK;
}

static struct fc_candidate pop(struct fc_bpe_work *w)
{
    struct fc_candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && w->heap[child + 1].key < w->heap[child].key)
            child++;
        if (last.key <= w->heap[child].key)
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* Symbols form a list; a candidate is stale when its two symbols are not there any more. A pair
 * that changed spells a longer text than before, so equal ids mean the same pair. */
static enum fc_code merge_long(const struct fc_bpe *bpe, struct fc_bpe_work *w,
                               struct fc_tokens *out, struct fc_error *err)
{
    uint32_t n = (uint32_t)w->ids.n;
    void *symbols = w->symbols;
    enum fc_code code = fc_grow(&symbols, &w->capacity, n, sizeof *w->symbols, "symbols", err);
    w->symbols = symbols;
    if (code != FC_OK)
        return code;
    for (uint32_t i = 0; i < n; i++)
        w->symbols[i] =
            (struct fc_symbol){w->ids.ids[i], i ? i - 1 : NONE, i + 1 < n ? i + 1 : NONE};
    w->n_heap = 0;
    for (uint32_t i = 0; code == FC_OK && i < n; i++)
        code = push(bpe, w, i, err);
    while (code == FC_OK && w->n_heap) {
        struct fc_candidate c = pop(w);
        uint32_t at = (uint32_t)c.key;
        struct fc_symbol *left = &w->symbols[at];
        if (left->id != c.left || left->next == NONE || w->symbols[left->next].id != c.right)
            continue;
        struct fc_symbol *right = &w->symbols[left->next];
        left->id = c.result;
        left->next = right->next;
        right->id = -1;
        if (left->next != NONE)
            w->symbols[left->next].previous = at;
        code = push(bpe, w, at, err);
        if (code == FC_OK && left->previous != NONE)
            code = push(bpe, w, left->previous, err);
    }
    for (uint32_t i = 0; code == FC_OK && i != NONE; i = w->symbols[i].next)
        code = fc_tokens_add(out, w->symbols[i].id, err);
    return code;
}

/* The id of one character's text, -1 if the model has none (a special token is none). */
static int32_t symbol(const struct fc_tokenizer *tok, const char *text, size_t len)
{
    int32_t id = fc_vocab_find(&tok->vocab, text, len);
    unsigned flags = id < 0 ? 0 : tok->vocab.flags[id];
    return flags & FC_TOKEN_MODEL && !(flags & FC_TOKEN_SPECIAL) ? id : -1;
}

/* All bytes of a character as tokens; false if one has none. */
static bool bytes_known(const struct fc_bpe *bpe, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bpe->byte_id[(unsigned char)text[i]] < 0)
            return false;
    return bpe->byte_fallback;
}

/* The word as its first symbols, into work->ids. Unknown characters become the unknown token, a
 * run of them one if fuse_unk, or nothing if there is no such token. */
static enum fc_code first_symbols(const struct fc_tokenizer *tok, struct fc_bpe_work *w,
                                  const char *word, size_t len, struct fc_error *err)
{
    const struct fc_bpe *bpe = &tok->bpe;
    enum fc_code code = FC_OK;
    bool unknown = false;
    w->ids.n = 0;
    for (size_t i = 0, n; code == FC_OK && i < len; i += n) {
        uint32_t cp;
        n = bpe->byte_level ? 1 : fc_utf8_decode(word + i, len - i, &cp);
        int32_t id =
            bpe->byte_level ? bpe->byte_id[(unsigned char)word[i]] : symbol(tok, word + i, n);
        if (id < 0 && !bpe->byte_level && bytes_known(bpe, word + i, n)) {
            for (size_t k = 0; code == FC_OK && k < n; k++)
                code = fc_tokens_add(&w->ids, bpe->byte_id[(unsigned char)word[i + k]], err);
            unknown = false;
            continue;
        }
        if (id < 0 && (bpe->unk < 0 || (unknown && bpe->fuse_unk)))
            continue;
        unknown = id < 0;
        code = fc_tokens_add(&w->ids, unknown ? bpe->unk : id, err);
    }
    return code;
}

enum fc_code fc_bpe_encode(const struct fc_tokenizer *tok, struct fc_bpe_work *work,
                           const char *word, size_t len, struct fc_tokens *out,
                           struct fc_error *err)
{
    int32_t whole = fc_vocab_find_word(&tok->vocab, word, len);
    if (whole >= 0)
        return fc_tokens_add(out, whole, err);
    enum fc_code code = first_symbols(tok, work, word, len, err);
    if (code != FC_OK)
        return code;
    return work->ids.n <= SHORT ? merge_short(&tok->bpe, &work->ids, out, err)
                                : merge_long(&tok->bpe, work, out, err);
}

void fc_bpe_work_free(struct fc_bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    fc_tokens_free(&work->ids);
    *work = (struct fc_bpe_work){0};
}
