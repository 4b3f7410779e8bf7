/* Strict UTF-8. */
#ifndef FC_BASE_UTF8_H
#define FC_BASE_UTF8_H

#include <stddef.h>

/* Bytes of the longest valid prefix: len when all of it is valid (RFC 3629: no overlong forms, no
 * surrogates, nothing above U+10FFFF). */
size_t fc_utf8_prefix(const char *text, size_t len);

#endif
