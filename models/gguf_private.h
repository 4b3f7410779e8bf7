/* What gguf.c (the file) and gguf_values.c (its metadata) share; private to the two. */
#ifndef FC_MODELS_GGUF_PRIVATE_H
#define FC_MODELS_GGUF_PRIVATE_H

#include "base/file.h"
#include "models/gguf.h"

/* Types of metadata values, by their number in the file. */
enum gguf_type { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, N_TYPES };

struct gguf_type_info {
    const char *name;
    size_t bytes; /* 0: of variable size */
};
extern const struct gguf_type_info fc_gguf_types[N_TYPES];

struct gguf_value {
    struct fc_gguf_string key;
    enum gguf_type type; /* of the elements, for an array */
    bool is_array;
    size_t n;                  /* 1 for a scalar */
    const unsigned char *data; /* first byte; a string starts with its length */
};

struct fc_gguf {
    char *path;
    struct fc_map map;
    struct gguf_value *values; /* sorted by key */
    size_t n_values;
    struct fc_gguf_tensor *tensors; /* sorted by name */
    size_t n_tensors;
};

/* A little-endian number of 1 to 8 bytes. */
static inline uint64_t gguf_load(const unsigned char *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* Order of bytes, shorter first. */
int fc_gguf_compare(struct fc_gguf_string a, struct fc_gguf_string b);
/* Order by key, for qsort and bsearch. */
int fc_gguf_by_key(const void *a, const void *b);

/* Arguments of "%.*s": as much of a string as an error message should hold. */
#define SHOWN(string) (int)((string).len < 100 ? (string).len : 100), (string).data

#endif
