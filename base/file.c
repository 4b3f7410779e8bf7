#define _GNU_SOURCE
#include "base/file.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum fc_code open_regular(const char *path, int *fd, size_t *len, struct fc_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    enum fc_code code = FC_OK;
    if (fstat(*fd, &st) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        code = fc_fail(err, FC_ERR_INPUT, "%s: expected a regular file", path);
    else
        *len = (size_t)st.st_size;
    if (code != FC_OK)
        close(*fd);
    return code;
}

enum fc_code fc_file_read(const char *path, size_t max_len, char **data, size_t *len,
                          struct fc_error *err)
{
    int fd;
    size_t size = 0, used = 0;
    *data = NULL;
    if (open_regular(path, &fd, &size, err) != FC_OK)
        return err ? err->code : FC_ERR_IO;
    enum fc_code code = FC_OK;
    char *buffer = NULL;
    if (size > max_len) {
        code =
            fc_fail(err, FC_ERR_INPUT, "%s: %zu bytes, expected at most %zu", path, size, max_len);
        goto cleanup;
    }
    buffer = fc_alloc(size + 1, 1, path, err);
    if (!buffer) {
        code = FC_ERR_MEMORY;
        goto cleanup;
    }
    while (used < size) {
        ssize_t n = read(fd, buffer + used, size - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            code = fc_fail(err, FC_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
            goto cleanup;
        }
        if (n == 0)
            break; /* shrank while we read: take what is there */
        used += (size_t)n;
    }
    buffer[used] = '\0';
    *data = buffer;
    *len = used;
    buffer = NULL;
cleanup:
    free(buffer);
    close(fd);
    return code;
}

enum fc_code fc_map_open(struct fc_map *map, const char *path, struct fc_error *err)
{
    int fd;
    *map = (struct fc_map){0};
    enum fc_code code = open_regular(path, &fd, &map->len, err);
    if (code != FC_OK)
        return code;
    if (map->len) {
        void *p = mmap(NULL, map->len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            code = fc_fail(err, FC_ERR_IO, "%s: cannot map: %s", path, strerror(errno));
            map->len = 0;
        } else {
            map->data = p;
        }
    }
    close(fd);
    return code;
}

void fc_map_close(struct fc_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->len);
    *map = (struct fc_map){0};
}

int fc_write_all(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO; /* write says nothing and does nothing: do not try for ever */
        if (n <= 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int fc_sync_file(int fd)
{
    int failed;
    do
        failed = fsync(fd);
    while (failed && errno == EINTR);
    return failed;
}

/* The folder of a path, in a new string. */
static char *parent_of(const char *path, struct fc_error *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return fc_strndup(".", 1, err);
    return fc_strndup(path, slash == path ? 1 : (size_t)(slash - path), err);
}

/* Whether `name` is "BASE.tmp.DIGITS". */
static bool is_temporary(const char *name, const char *base)
{
    size_t len = strlen(base);
    if (strncmp(name, base, len) != 0 || strncmp(name + len, ".tmp.", 5) != 0)
        return false;
    const char *digits = name + len + 5;
    return *digits && digits[strspn(digits, "0123456789")] == '\0';
}

/* Removes what killed processes left of earlier versions of PATH. It may hold what the file itself
 * holds, and nobody else would ever look for it. No error: at worst it stays. */
static void sweep(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *folder = parent_of(path, NULL);
    DIR *dir = folder ? opendir(folder) : NULL;
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (!is_temporary(e->d_name, base))
            continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) /* its writer is gone */
            unlinkat(dirfd(dir), e->d_name, 0);
        close(fd);
    }
    if (dir)
        closedir(dir);
    free(folder);
}

enum fc_code fc_atomic_open(struct fc_atomic_file *f, const char *path, struct fc_error *err)
{
    *f = (struct fc_atomic_file){0};
    struct fc_text temporary = {0};
    fc_text_printf(&temporary, "%s.tmp.%ld", path, (long)getpid());
    f->path = fc_strndup(path, strlen(path), err);
    f->temporary = temporary.data;
    if (!f->path || fc_text_check(&temporary, err) != FC_OK) {
        fc_atomic_abort(f);
        return FC_ERR_MEMORY;
    }
    sweep(path);
    f->stream = fopen(f->temporary, "wbe");
    if (!f->stream) {
        enum fc_code code =
            fc_fail(err, FC_ERR_IO, "%s: cannot create: %s", f->temporary, strerror(errno));
        fc_atomic_abort(f);
        return code;
    }
    flock(fileno(f->stream), LOCK_EX | LOCK_NB); /* only says that its writer lives */
    return FC_OK;
}

enum fc_code fc_sync_parent(const char *path, struct fc_error *err)
{
    char *folder = parent_of(path, err);
    enum fc_code code = folder ? fc_sync_folder(folder, err) : FC_ERR_MEMORY;
    free(folder);
    return code;
}

enum fc_code fc_atomic_commit(struct fc_atomic_file *f, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    int bad = ferror(f->stream) || fflush(f->stream) != 0 || fc_sync_file(fileno(f->stream)) != 0;
    int why = errno;
    if (fclose(f->stream) != 0 && !bad) {
        bad = 1;
        why = errno;
    }
    f->stream = NULL;
    if (bad)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", f->path, strerror(why));
    else if (rename(f->temporary, f->path) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot rename from %s: %s", f->path, f->temporary,
                       strerror(errno));
    else
        code = fc_sync_parent(f->path, err);
    if (code == FC_OK) {
        free(f->temporary); /* renamed: there is nothing left to remove */
        f->temporary = NULL;
    }
    fc_atomic_abort(f);
    return code;
}

void fc_atomic_abort(struct fc_atomic_file *f)
{
    if (f->stream)
        fclose(f->stream);
    if (f->temporary)
        unlink(f->temporary);
    free(f->temporary);
    free(f->path);
    *f = (struct fc_atomic_file){0};
}

enum fc_code fc_file_write(const char *path, const void *data, size_t len, struct fc_error *err)
{
    struct fc_atomic_file f;
    enum fc_code code = fc_atomic_open(&f, path, err);
    if (code != FC_OK)
        return code;
    if (len)
        fwrite(data, 1, len, f.stream);
    return fc_atomic_commit(&f, err);
}

enum fc_code fc_make_folder(const char *path, struct fc_error *err)
{
    char *copy = fc_strndup(path, strlen(path), err);
    if (!copy)
        return FC_ERR_MEMORY;
    enum fc_code code = FC_OK;
    for (char *p = copy + (*copy == '/'); code == FC_OK; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        bool made = *copy && mkdir(copy, 0777) == 0;
        if (made)
            code = fc_sync_parent(copy, err);
        else if (*copy && errno != EEXIST)
            code = fc_fail(err, FC_ERR_IO, "%s: cannot create folder: %s", copy, strerror(errno));
        *p = end;
        if (end == '\0')
            break;
    }
    if (code == FC_OK && !fc_is_folder(path))
        code = fc_fail(err, FC_ERR_IO, "%s: expected a folder, found another kind of file", path);
    free(copy);
    return code;
}

enum fc_code fc_sync_folder(const char *path, struct fc_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot open folder: %s", path, strerror(errno));
    /* Some file systems cannot fsync a folder and say EINVAL: nothing more can be done there. */
    enum fc_code code = FC_OK;
    if (fc_sync_file(fd) != 0 && errno != EINVAL)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot sync folder: %s", path, strerror(errno));
    close(fd);
    return code;
}

int fc_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int fc_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

char *fc_path_join(const char *folder, const char *name, struct fc_error *err)
{
    struct fc_text t = {0};
    size_t len = strlen(folder);
    fc_text_printf(&t, "%s%s%s", folder, len && folder[len - 1] == '/' ? "" : "/", name);
    if (fc_text_check(&t, err) != FC_OK) {
        fc_text_free(&t);
        return NULL;
    }
    return t.data;
}
