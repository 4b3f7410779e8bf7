/* UTF-8, white space and canonical composition (NFC): the Unicode that tokenizers need.
 *
 * Private to models/. */
#ifndef FC_MODELS_UNICODE_H
#define FC_MODELS_UNICODE_H

#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FC_UTF8_BAD UINT32_MAX       /* bytes that begin no character */
#define FC_UTF8_CUT (UINT32_MAX - 1) /* the text ends within a character */
#define FC_REPLACEMENT "\xEF\xBF\xBD"

/* Decodes the first character of n >= 1 bytes and returns its length. What is not UTF-8 (overlong
 * forms, surrogates and values above U+10FFFF included) gives FC_UTF8_BAD or FC_UTF8_CUT and the
 * length of the longest part that could begin a character, at least 1: one U+FFFD each, as Python,
 * Rust and the Unicode standard (section 3.9, "maximal subpart") replace it. */
size_t fc_utf8_decode(const char *s, size_t n, uint32_t *cp);
/* Writes a valid code point; returns 1 to 4. */
size_t fc_utf8_encode(uint32_t cp, char out[4]);
bool fc_utf8_valid(const char *s, size_t n);
/* Appends the text with U+FFFD in place of what is not UTF-8. */
void fc_utf8_repair(const char *s, size_t n, struct fc_text *out);

/* Unicode's White_Space property. */
bool fc_is_white(uint32_t cp);

/* Appends the NFC of n bytes of valid UTF-8. O(n log n) also for endless combining marks. */
enum fc_code fc_nfc(const char *s, size_t n, struct fc_text *out, struct fc_error *err);

/* The tables (models/unicode_tables.c), each sorted by its first member(s). */
struct fc_unicode_range {
    uint32_t first, last;
    uint8_t value;
};
struct fc_unicode_map {
    uint32_t from, a, b;
};
struct fc_unicode_pair {
    uint32_t a, b, to;
};
extern const struct fc_unicode_range fc_unicode_watch[], fc_unicode_ccc[];
extern const struct fc_unicode_map fc_unicode_decompose[];
extern const struct fc_unicode_pair fc_unicode_compose[];
extern const size_t fc_unicode_watch_n, fc_unicode_ccc_n, fc_unicode_decompose_n,
    fc_unicode_compose_n;

#endif
