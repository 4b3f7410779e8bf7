/* Runs a fuzz target without a fuzzer: over files and folders of seeds, then over cuts and changes
 * of each at fixed places, so that every build with sanitizers meets hostile input. */
#define _POSIX_C_SOURCE 200809L
#include "base/file.h"
#include "base/philox.h"
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

#define MUTATIONS 100 /* of each seed */

static size_t n_inputs;

/* From a block of its own of exactly that size: reading past the end is found. */
static void run(const char *data, size_t size)
{
    uint8_t *copy = calloc(1, size ? size : 1);
    FUZZ_CHECK(copy);
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    n_inputs++;
}

/* Mutation i of a seed: one byte changed, a stretch repeated over another, or the end cut off. */
static void mutate(char *data, size_t *size, uint64_t seed, uint64_t i)
{
    uint32_t r[4];
    fc_philox(20406, seed, i, r);
    size_t at = r[0] % *size, from = r[1] % *size, n = r[2] % 16 + 1;
    switch (i % 3) {
    case 0:
        data[at] = (char)(r[2] % 2 ? data[at] ^ (1 << r[3] % 8) : (char)r[3]);
        break;
    case 1:
        n = n > *size - at ? *size - at : n;
        n = n > *size - from ? *size - from : n;
        memmove(data + at, data + from, n);
        break;
    default:
        *size = at;
    }
}

static void run_mutations(const char *data, size_t size, uint64_t seed)
{
    char *copy = malloc(size);
    FUZZ_CHECK(copy);
    for (uint64_t i = 0; i < MUTATIONS; i++) {
        size_t n = size;
        memcpy(copy, data, size);
        mutate(copy, &n, seed, i);
        run(copy, n);
    }
    free(copy);
}

static void run_file(const char *path)
{
    static uint64_t n_seeds;
    struct fc_error err = {0};
    char *data = NULL;
    size_t size = 0;
    if (fc_file_read(path, (size_t)64 << 20, &data, &size, &err) != FC_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    run(data, size);
    if (size)
        run_mutations(data, size, n_seeds);
    n_seeds++;
    free(data);
}

static int is_seed(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static void run_folder(const char *folder)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, is_seed, alphasort);
    for (int i = 0; i < n; i++) {
        char *path = fc_path_join(folder, names[i]->d_name, NULL);
        FUZZ_CHECK(path);
        run_file(path);
        free(path);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    run("", 0);
    for (int i = 1; i < argc; i++)
        if (fc_is_folder(argv[i]))
            run_folder(argv[i]);
        else
            run_file(argv[i]);
    printf("%zu inputs\n", n_inputs);
    if (n_inputs < 2)
        fprintf(stderr, "usage: %s SEED..., files or folders of them\n", argv[0]);
    return n_inputs < 2;
}
