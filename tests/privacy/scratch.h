/* A folder of one's own for a test's files. */
#ifndef FC_TESTS_PRIVACY_SCRATCH_H
#define FC_TESTS_PRIVACY_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Makes a new folder; remove it with scratch_remove. */
static inline const char *scratch_make(char folder[64])
{
    snprintf(folder, 64, "/tmp/fc_privacy_XXXXXX");
    return mkdtemp(folder);
}

/* "FOLDER/NAME" in `path`. */
static inline const char *scratch_path(char path[128], const char *folder, const char *name)
{
    snprintf(path, 128, "%s/%s", folder, name);
    return path;
}

static inline void scratch_remove(const char *folder, const char *const *names, size_t n)
{
    char path[128];
    for (size_t i = 0; i < n; i++)
        unlink(scratch_path(path, folder, names[i]));
    rmdir(folder);
}

#endif
