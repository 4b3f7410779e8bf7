/* The output vocabulary V: the whole words, numbers and marks that may leave the client.
 *
 * Public, and fixed before any private data is read: a function of the tokenizer and of the word
 * list that ships (privacy/words.h). Its hash is part of the mechanism's identity. Immutable once
 * open: any number of threads may use it. */
#ifndef FC_PRIVACY_VOCABULARY_H
#define FC_PRIVACY_VOCABULARY_H

#include "models/tokenizer.h"

struct fc_vocabulary;

#define FC_DEFAULT_WORDS 8000

/* Marks, small and round numbers, contractions, and n_words words of the public list
 * (0: FC_DEFAULT_WORDS): first those that the tokenizer has as one token, most frequent first, then
 * the list's others. FC_ERR_USAGE when the list is shorter. tok may be NULL: list order alone. */
enum fc_code fc_vocabulary_open(struct fc_vocabulary **v, const struct fc_tokenizer *tok,
                                size_t n_words, struct fc_error *err);
/* From one's own entries, for other languages and tests; copied. Each must be 1 to 64 bytes, one
 * unit of privacy/units.h, and distinct, at least 2 in all: else FC_ERR_USAGE names it. */
enum fc_code fc_vocabulary_make(struct fc_vocabulary **v, const char *const *entries, size_t n,
                                struct fc_error *err);
void fc_vocabulary_close(struct fc_vocabulary *v); /* NULL is fine */

size_t fc_vocabulary_size(const struct fc_vocabulary *v);
const char *fc_vocabulary_entry(const struct fc_vocabulary *v, size_t index);

/* The entry that a unit is, spelled exactly or else in lower case with straight apostrophes; -1 if
 * none. */
int32_t fc_vocabulary_find(const struct fc_vocabulary *v, const char *unit, size_t len);

/* BLAKE2b-256 of the entries in order. */
void fc_vocabulary_hash(const struct fc_vocabulary *v, unsigned char hash[32]);

/* Appends the tokens of a unit as it stands inside a sentence: words with the space before them
 * that most tokenizers have as part of the token, numbers and marks without. */
enum fc_code fc_unit_tokens(const struct fc_tokenizer *tok, const char *unit, size_t len,
                            struct fc_tokens *out, struct fc_error *err);

#endif
