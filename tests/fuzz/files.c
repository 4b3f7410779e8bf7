#define _GNU_SOURCE
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *fuzz_file(int slot, const void *data, size_t size)
{
    static int files[2] = {-1, -1};
    static char paths[2][64];
    if (files[slot] >= 0)
        close(files[slot]);
    files[slot] = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(files[slot] >= 0);
    FUZZ_CHECK(write(files[slot], data, size) == (ssize_t)size);
    snprintf(paths[slot], sizeof paths[slot], "/proc/self/fd/%d", files[slot]);
    return paths[slot];
}

static char folder[256];

static void remove_folder(void)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(folder);
}

const char *fuzz_folder(void)
{
    if (folder[0])
        return folder;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/fedcot-fuzz-XXXXXX", base ? base : "/dev/shm");
    FUZZ_CHECK(mkdtemp(folder));
    atexit(remove_folder);
    return folder;
}

const char *fuzz_put(const char *name, const void *data, size_t size)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    FILE *f = fopen(path, "wb");
    FUZZ_CHECK(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    return path;
}

void fuzz_touch(const void *data, size_t size)
{
    const volatile unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        (void)bytes[i];
}
