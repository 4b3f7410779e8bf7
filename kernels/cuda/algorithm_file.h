/* The file of chosen GEMM algorithms. Knows no CUDA: an algorithm is 64 opaque bytes under a key.
 *
 * One file per device and library: $XDG_CACHE_HOME/fedcot (or ~/.cache/fedcot), named after both.
 * FEDCOT_ALGO_CACHE=FILE names another, FEDCOT_ALGO_CACHE=off none: nothing is found or kept.
 *
 *     fedcot algorithms 1
 *     device NVIDIA H100 80GB HBM3
 *     library cublasLt 130000
 *     KEY 16 hex digits eight times
 *     end COUNT CHECKSUM
 *
 * A file that is not whole, or of another device, library or format, counts as empty and is
 * replaced by the next change. Changes are written as a whole under a lock, so several processes
 * can share the file; each sees what the others kept before it chooses. */
#ifndef FC_KERNELS_CUDA_ALGORITHM_FILE_H
#define FC_KERNELS_CUDA_ALGORITHM_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FC_ALGORITHM_WORDS = 8, FC_ALGORITHM_KEY = 96 };

struct fc_algorithms;

/* Reads the file of `device` and `library` (one-line texts). NULL with *err only when out of
 * memory: a missing or damaged file is an empty one. */
struct fc_algorithms *fc_algorithms_open(const char *device, const char *library,
                                         struct fc_error *err);
void fc_algorithms_close(struct fc_algorithms *a); /* NULL is fine */

bool fc_algorithms_find(const struct fc_algorithms *a, const char *key,
                        uint64_t words[FC_ALGORITHM_WORDS]);

/* Takes the lock and reads the file again. False where nothing can be kept: no file, a folder that
 * cannot be written, or a lock that others hold for more than ten seconds. After true: add, end. */
bool fc_algorithms_begin(struct fc_algorithms *a);
/* `key`: printable, without spaces. */
void fc_algorithms_add(struct fc_algorithms *a, const char *key,
                       const uint64_t words[FC_ALGORITHM_WORDS]);
/* Writes the file if anything was added, and gives the lock back. A file that could not be written
 * is given up for the rest of the run. */
void fc_algorithms_end(struct fc_algorithms *a);

#ifdef __cplusplus
}
#endif

#endif
