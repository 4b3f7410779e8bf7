/* What every fuzz target shares. A target is tests/fuzz/fuzz_NAME.c with one function,
 * LLVMFuzzerTestOneInput; tests/fuzz/seeds/NAME holds its first inputs and every finding.
 *
 * Built by clang with libFuzzer it searches (scripts/fuzz.sh); everywhere else replay.c runs it
 * over the seeds and simple mutations of them, as the test fuzz/NAME. */
#ifndef FC_TESTS_FUZZ_H
#define FC_TESTS_FUZZ_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* 0 always; anything wrong is found by the sanitizers, an abort or a time-out. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stops the target: what it checks itself. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* An error has a code and a text, success has neither. */
#define FUZZ_CHECK_ERROR(code, err)                                                                \
    FUZZ_CHECK((code) == (err).code && ((code) == FC_OK) == ((err).text[0] == '\0'))

/* A file of these bytes in memory; the path is valid until the next call with the same slot (0 or
 * 1). Never fails: a machine without memfd_create cannot run the targets. */
const char *fuzz_file(int slot, const void *data, size_t size);

/* A private folder in memory (TMPDIR, or /dev/shm), made at the first call and removed at exit with
 * the files that fuzz_put wrote. */
const char *fuzz_folder(void);
/* Writes FOLDER/name and returns its path, valid until the next call. */
const char *fuzz_put(const char *name, const void *data, size_t size);

/* Reads every byte, so that a view outside its file is found. */
void fuzz_touch(const void *data, size_t size);

#endif
