/* The public word list that output vocabularies are chosen from (privacy/vocabulary.h). */
#ifndef FC_PRIVACY_WORDS_H
#define FC_PRIVACY_WORDS_H

#include <stddef.h>

/* English words and names, frequent ones first, distinct. */
extern const char *const fc_words[];
extern const size_t fc_n_words;

#endif
