/* GGUF files (versions 2 and 3, little-endian), read through a memory map.
 *
 * The format: magic "GGUF", version, counts, then metadata (typed key-value pairs), then tensor
 * descriptions, then the tensors' data, aligned. Everything is checked when the file is opened:
 * after that every pointer handed out lies inside the map and stays valid until fc_gguf_close.
 * Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef FC_MODELS_GGUF_H
#define FC_MODELS_GGUF_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fc_gguf;

/* Bytes in the mapped file: not NUL-terminated, and may hold any byte, NUL included. */
struct fc_gguf_string {
    const char *data;
    size_t len;
};

/* A tensor as stored. The innermost dimension comes first: a matrix of `rows` rows of `cols`
 * columns has dims {cols, rows}. */
struct fc_gguf_tensor {
    struct fc_gguf_string name;
    uint32_t type;  /* enum fc_ggml_type of base/dequant.h */
    size_t n_dims;  /* 1 to 4 */
    size_t dims[4]; /* unused ones are 1; the product fits in 63 bits */
    const unsigned char *data;
    size_t bytes; /* 0 where this build does not know the type */
};

/* Opens and checks a file. Errors: FC_ERR_IO, FC_ERR_INPUT (says what is wrong and where),
 * FC_ERR_UNSUPPORTED (version 1, big-endian). Release with fc_gguf_close. */
enum fc_code fc_gguf_open(struct fc_gguf **gguf, const char *path, struct fc_error *err);
void fc_gguf_close(struct fc_gguf *gguf); /* NULL is fine */

const char *fc_gguf_path(const struct fc_gguf *gguf);

/* ---- metadata --------------------------------------------------------------------------------
 *
 * A reader leaves *out (and *n) as they are when the key is absent, so put the default there first;
 * with `required` an absent key is FC_ERR_INPUT. A value of another type or out of range is
 * FC_ERR_INPUT naming file, key, what was expected and what was found. */

bool fc_gguf_has(const struct fc_gguf *gguf, const char *key);

/* Any integer type of the file that fits. */
enum fc_code fc_gguf_size(const struct fc_gguf *gguf, const char *key, bool required, size_t *out,
                          struct fc_error *err);
enum fc_code fc_gguf_int(const struct fc_gguf *gguf, const char *key, bool required, int64_t *out,
                         struct fc_error *err);
/* A finite float32 or float64, or any integer. */
enum fc_code fc_gguf_double(const struct fc_gguf *gguf, const char *key, bool required, double *out,
                            struct fc_error *err);
enum fc_code fc_gguf_bool(const struct fc_gguf *gguf, const char *key, bool required, bool *out,
                          struct fc_error *err);
enum fc_code fc_gguf_text(const struct fc_gguf *gguf, const char *key, bool required,
                          struct fc_gguf_string *out, struct fc_error *err);

/* Arrays: *out becomes a new block of *n elements that the caller frees (a one-byte block where
 * the array is empty). Strings still point into the map. Integers of any width, and bools, come as
 * int64_t; floats of either width as float. */
enum fc_code fc_gguf_texts(const struct fc_gguf *gguf, const char *key, bool required,
                           struct fc_gguf_string **out, size_t *n, struct fc_error *err);
enum fc_code fc_gguf_ints(const struct fc_gguf *gguf, const char *key, bool required, int64_t **out,
                          size_t *n, struct fc_error *err);
enum fc_code fc_gguf_floats(const struct fc_gguf *gguf, const char *key, bool required, float **out,
                            size_t *n, struct fc_error *err);

/* Whether the string's bytes equal the C string. */
bool fc_gguf_string_is(struct fc_gguf_string string, const char *text);

/* ---- tensors --------------------------------------------------------------------------------- */

/* All of them, sorted by name. */
size_t fc_gguf_tensors(const struct fc_gguf *gguf, const struct fc_gguf_tensor **tensors);
/* NULL if there is none of this name. */
const struct fc_gguf_tensor *fc_gguf_tensor(const struct fc_gguf *gguf, const char *name);

#endif
