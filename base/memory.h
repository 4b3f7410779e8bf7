/* Checked allocation and a growable byte string. */
#ifndef FC_BASE_MEMORY_H
#define FC_BASE_MEMORY_H

#include "base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

/* Zeroed memory for count elements of `size` bytes; the product is checked. NULL with *err filled
 * (FC_ERR_MEMORY, naming `what`) if it does not fit. count 0 gives a valid one-byte block. Owner:
 * the caller, freed with free(). */
void *fc_alloc(size_t count, size_t size, const char *what, struct fc_error *err);

/* Makes room for at least `need` elements in *array (capacity *capacity, element size `size`),
 * growing by half; new room is not zeroed. The array is untouched on failure. */
enum fc_code fc_grow(void **array, size_t *capacity, size_t need, size_t size, const char *what,
                     struct fc_error *err);

/* A copy of len bytes with a terminating NUL, owned by the caller. */
char *fc_strndup(const char *text, size_t len, struct fc_error *err);

/* A growable byte string, always NUL-terminated once non-empty. Zero-initialise; release with
 * fc_text_free. A failed append is remembered in `failed`, so a chain of appends is checked once,
 * by fc_text_check. */
struct fc_text {
    char *data;
    size_t len, capacity;
    int failed;
};
void fc_text_add(struct fc_text *t, const char *bytes, size_t len);
void fc_text_puts(struct fc_text *t, const char *s);
void fc_text_printf(struct fc_text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void fc_text_clear(struct fc_text *t); /* length 0, memory kept */
void fc_text_free(struct fc_text *t);
enum fc_code fc_text_check(const struct fc_text *t, struct fc_error *err);

#endif
