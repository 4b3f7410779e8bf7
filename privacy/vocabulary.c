#include "privacy/vocabulary.h"

#include "privacy/units.h"
#include "privacy/words.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define ENTRY_SIZE 64

struct fc_vocabulary {
    char **entries;
    size_t n, capacity;
    int32_t *sorted; /* indices of entries in strcmp order */
};

static const char *const marks[] = {".", ",", "?", "!", ":", ";",  "'", "\"", "(", ")",  "[",
                                    "]", "{", "}", "-", "/", "%",  "$", "+",  "=", "*",  "&",
                                    "#", "@", "<", ">", "_", "\\", "|", "^",  "~", "..."};

static const char *const contractions[] = {
    "don't",   "can't",   "won't",   "isn't",  "aren't",   "wasn't",   "weren't",   "didn't",
    "doesn't", "hasn't",  "haven't", "hadn't", "couldn't", "wouldn't", "shouldn't", "it's",
    "that's",  "there's", "what's",  "who's",  "let's",    "he's",     "she's",     "I'm",
    "you're",  "we're",   "they're", "I've",   "you've",   "we've",    "they've",   "I'll",
    "you'll",  "he'll",   "she'll",  "it'll",  "we'll",    "they'll",  "I'd",       "you'd",
    "he'd",    "she'd",   "we'd",    "they'd"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

void fc_vocabulary_close(struct fc_vocabulary *v)
{
    if (!v)
        return;
    for (size_t i = 0; i < v->n; i++)
        free(v->entries[i]);
    free(v->entries);
    free(v->sorted);
    free(v);
}

size_t fc_vocabulary_size(const struct fc_vocabulary *v)
{
    return v->n;
}

const char *fc_vocabulary_entry(const struct fc_vocabulary *v, size_t index)
{
    return v->entries[index];
}

static enum fc_code add(struct fc_vocabulary *v, const char *entry, struct fc_error *err)
{
    void *entries = v->entries;
    enum fc_code code =
        fc_grow(&entries, &v->capacity, v->n + 1, sizeof *v->entries, "vocabulary", err);
    v->entries = entries;
    if (code != FC_OK)
        return code;
    v->entries[v->n] = fc_strndup(entry, strlen(entry), err);
    if (!v->entries[v->n])
        return FC_ERR_MEMORY;
    v->n++;
    return FC_OK;
}

static enum fc_code check_entry(const struct fc_cutter *cutter, const char *entry,
                                struct fc_units *units, struct fc_error *err)
{
    size_t len = strlen(entry);
    if (len < 1 || len > ENTRY_SIZE)
        return fc_fail(err, FC_ERR_USAGE, "vocabulary: entry of %zu bytes, expected 1 to %d", len,
                       ENTRY_SIZE);
    enum fc_code code = fc_units_cut(cutter, entry, len, units, err);
    if (code == FC_OK && (units->n != 1 || units->items[0].len != len))
        code =
            fc_fail(err, FC_ERR_USAGE, "vocabulary: \"%s\" is not one word, number or mark", entry);
    return code;
}

/* Merge sort of the indices by entry: no comparator of qsort can see v without a global. */
static void sort_indices(const struct fc_vocabulary *v, int32_t *a, int32_t *spare, size_t n)
{
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    sort_indices(v, a, spare, half);
    sort_indices(v, a + half, spare, n - half);
    while (i < half || j < n) {
        bool left = j == n || (i < half && strcmp(v->entries[a[i]], v->entries[a[j]]) <= 0);
        spare[k++] = left ? a[i++] : a[j++];
    }
    memcpy(a, spare, n * sizeof *a);
}

/* Checks the entries and builds the index; the last step of both constructors. */
static enum fc_code finish(struct fc_vocabulary *v, struct fc_error *err)
{
    struct fc_cutter *cutter = NULL;
    struct fc_units units = {0};
    int32_t *spare = fc_alloc(v->n, sizeof *spare, "vocabulary", err);
    v->sorted = fc_alloc(v->n, sizeof *v->sorted, "vocabulary", err);
    enum fc_code code = !spare || !v->sorted ? FC_ERR_MEMORY : fc_cutter_open(&cutter, err);
    if (code == FC_OK && v->n < 2)
        code =
            fc_fail(err, FC_ERR_USAGE, "vocabulary: expected 2 entries or more, found %zu", v->n);
    for (size_t i = 0; code == FC_OK && i < v->n; i++) {
        v->sorted[i] = (int32_t)i;
        code = check_entry(cutter, v->entries[i], &units, err);
    }
    if (code != FC_OK)
        goto cleanup;
    sort_indices(v, v->sorted, spare, v->n);
    for (size_t i = 1; code == FC_OK && i < v->n; i++)
        if (strcmp(v->entries[v->sorted[i - 1]], v->entries[v->sorted[i]]) == 0)
            code = fc_fail(err, FC_ERR_USAGE, "vocabulary: \"%s\" is there twice",
                           v->entries[v->sorted[i]]);
cleanup:
    free(spare);
    fc_units_free(&units);
    fc_cutter_close(cutter);
    return code;
}

enum fc_code fc_vocabulary_make(struct fc_vocabulary **out, const char *const *entries, size_t n,
                                struct fc_error *err)
{
    struct fc_vocabulary *v = fc_alloc(1, sizeof *v, "vocabulary", err);
    enum fc_code code = v ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK && n > ((size_t)1 << 24))
        code = fc_fail(err, FC_ERR_USAGE, "vocabulary: too many entries (%zu)", n);
    for (size_t i = 0; code == FC_OK && i < n; i++)
        code = add(v, entries[i], err);
    if (code == FC_OK)
        code = finish(v, err);
    if (code == FC_OK)
        *out = v;
    else
        fc_vocabulary_close(v);
    return code;
}

static enum fc_code add_numbers(struct fc_vocabulary *v, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    char text[24]; /* any long */
    for (long n = 0; code == FC_OK && n <= 1000000; n += n < 100 ? 1 : n < 1000 ? 100 : 9 * n) {
        snprintf(text, sizeof text, "%ld", n);
        code = add(v, text, err);
    }
    return code;
}

/* Words of the public list that are one token (or, in the second pass, those that are not). */
static enum fc_code add_words(struct fc_vocabulary *v, const struct fc_tokenizer *tok,
                              size_t n_words, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    struct fc_tokens tokens = {0};
    size_t room = n_words;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; code == FC_OK && room && i < fc_n_words; i++) {
            tokens.n = 0;
            if (tok)
                code = fc_unit_tokens(tok, fc_words[i], strlen(fc_words[i]), &tokens, err);
            if (code != FC_OK || (tokens.n > 1) != pass)
                continue;
            code = add(v, fc_words[i], err);
            room--;
        }
    }
    fc_tokens_free(&tokens);
    return code;
}

enum fc_code fc_vocabulary_open(struct fc_vocabulary **out, const struct fc_tokenizer *tok,
                                size_t n_words, struct fc_error *err)
{
    if (n_words == 0)
        n_words = FC_DEFAULT_WORDS;
    if (n_words > fc_n_words)
        return fc_fail(err, FC_ERR_USAGE, "vocabulary: expected at most %zu words, found %zu",
                       fc_n_words, n_words);
    struct fc_vocabulary *v = fc_alloc(1, sizeof *v, "vocabulary", err);
    enum fc_code code = v ? FC_OK : FC_ERR_MEMORY;
    for (size_t i = 0; code == FC_OK && i < COUNT(marks); i++)
        code = add(v, marks[i], err);
    if (code == FC_OK)
        code = add_numbers(v, err);
    for (size_t i = 0; code == FC_OK && i < COUNT(contractions); i++)
        code = add(v, contractions[i], err);
    if (code == FC_OK)
        code = add_words(v, tok, n_words, err);
    if (code == FC_OK)
        code = finish(v, err);
    if (code == FC_OK)
        *out = v;
    else
        fc_vocabulary_close(v);
    return code;
}

static int32_t find_exact(const struct fc_vocabulary *v, const char *word)
{
    size_t low = 0, high = v->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(v->entries[v->sorted[middle]], word);
        if (order == 0)
            return v->sorted[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

int32_t fc_vocabulary_find(const struct fc_vocabulary *v, const char *unit, size_t len)
{
    char word[ENTRY_SIZE + 1];
    if (len > ENTRY_SIZE || memchr(unit, 0, len))
        return -1;
    memcpy(word, unit, len);
    word[len] = '\0';
    int32_t found = find_exact(v, word);
    if (found >= 0)
        return found;
    size_t used = 0;
    for (size_t i = 0; i < len; i++) {
        if (len - i >= 3 && memcmp(unit + i, "\xE2\x80\x99", 3) == 0) { /* U+2019 */
            word[used++] = '\'';
            i += 2;
        } else {
            word[used++] = (char)(unit[i] >= 'A' && unit[i] <= 'Z' ? unit[i] + 32 : unit[i]);
        }
    }
    word[used] = '\0';
    return find_exact(v, word);
}

void fc_vocabulary_hash(const struct fc_vocabulary *v, unsigned char hash[32])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, 32);
    for (size_t i = 0; i < v->n; i++) /* the NUL ends an entry */
        crypto_generichash_update(&state, (const unsigned char *)v->entries[i],
                                  strlen(v->entries[i]) + 1);
    crypto_generichash_final(&state, hash, 32);
}

enum fc_code fc_unit_tokens(const struct fc_tokenizer *tok, const char *unit, size_t len,
                            struct fc_tokens *out, struct fc_error *err)
{
    unsigned char first = len ? (unsigned char)unit[0] : 0;
    bool letter = first >= 0x80 || (unsigned)(first | 32) - 'a' < 26u;
    size_t before = out->n;
    enum fc_code code = FC_OK;
    if (letter) {
        struct fc_text spaced = {0};
        fc_text_add(&spaced, " ", 1);
        fc_text_add(&spaced, unit, len);
        code = fc_text_check(&spaced, err);
        if (code == FC_OK)
            code = fc_tokenizer_encode(tok, spaced.data, spaced.len, FC_TEXT, out, err);
        fc_text_free(&spaced);
        if (code != FC_OK || out->n - before <= 1)
            return code;
    }
    /* SentencePiece puts the space itself: there the plain form is the shorter one. */
    size_t with = out->n - before;
    code = fc_tokenizer_encode(tok, unit, len, FC_TEXT, out, err);
    if (code != FC_OK || !letter)
        return code;
    size_t without = out->n - before - with;
    if (without < with)
        memmove(out->ids + before, out->ids + before + with, without * sizeof *out->ids);
    out->n = before + (without < with ? without : with);
    return FC_OK;
}
