#define _GNU_SOURCE
#include "base/file.h"
#include "privacy/ledger_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECKSUM 16                 /* bytes; twice as many hexadecimal digits in the file */
#define PREFIX (2 * CHECKSUM + 1)   /* digits and a space */
#define MAX_LEDGER ((off_t)4 << 30) /* bytes of a ledger that we are ready to read */

static enum fc_code failed(const char *path, const char *what, struct fc_error *err)
{
    return fc_fail(err, FC_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static void checksum(const char *json, size_t len, char hex[PREFIX])
{
    unsigned char hash[CHECKSUM];
    crypto_generichash(hash, sizeof hash, (const unsigned char *)json, len, NULL, 0);
    sodium_bin2hex(hex, PREFIX, hash, sizeof hash);
}

static enum fc_code write_all(int fd, const char *bytes, size_t len, const char *path,
                              struct fc_error *err)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return failed(path, "write", err);
        bytes += n;
        len -= (size_t)n;
    }
    return FC_OK;
}

static enum fc_code sync_parent(const char *path, struct fc_error *err)
{
    const char *slash = strrchr(path, '/');
    size_t len = !slash ? 1 : slash == path ? 1 : (size_t)(slash - path);
    char *folder = fc_strndup(slash ? path : ".", len, err);
    enum fc_code code = folder ? fc_sync_folder(folder, err) : FC_ERR_MEMORY;
    free(folder);
    return code;
}

/* The key beside the ledger: read, or made while the ledger is still empty. */
static enum fc_code open_key(struct fc_ledger *l, bool fresh, struct fc_error *err)
{
    struct fc_text path = {0};
    int fd = -1;
    fc_text_printf(&path, "%s.key", l->path);
    enum fc_code code = fc_text_check(&path, err);
    if (code != FC_OK)
        goto cleanup;
    fd = open(path.data, (fresh ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600);
    if (fd < 0) {
        code = errno == ENOENT
                   ? fc_fail(err, FC_ERR_INPUT,
                             "%s: missing, and without it the ledger cannot tell which documents "
                             "it has charged; restore it beside the ledger",
                             path.data)
                   : failed(path.data, "open", err);
        goto cleanup;
    }
    if (fresh) { /* also what is left of a start that was cut short: nothing refers to it */
        randombytes_buf(l->key, sizeof l->key);
        if (ftruncate(fd, 0) != 0)
            code = failed(path.data, "truncate", err);
        if (code == FC_OK)
            code = write_all(fd, (const char *)l->key, sizeof l->key, path.data, err);
        if (code == FC_OK && fsync(fd) != 0)
            code = failed(path.data, "sync", err);
        if (code == FC_OK)
            code = sync_parent(l->path, err);
    } else if (read(fd, l->key, sizeof l->key) != (ssize_t)sizeof l->key) {
        code = fc_fail(err, FC_ERR_INPUT, "%s: expected %zu bytes of key, found fewer", path.data,
                       sizeof l->key);
    }
cleanup:
    if (fd >= 0)
        close(fd);
    fc_text_free(&path);
    return code;
}

/* Whether any whole line was ever written. */
static enum fc_code has_line(const struct fc_ledger *l, bool *found, struct fc_error *err)
{
    char bytes[4096];
    off_t at = 0;
    *found = false;
    for (;;) {
        ssize_t n = pread(l->fd, bytes, sizeof bytes, at);
        if (n < 0)
            return failed(l->path, "read", err);
        if (n == 0)
            return FC_OK;
        if (memchr(bytes, '\n', (size_t)n)) {
            *found = true;
            return FC_OK;
        }
        at += n;
    }
}

enum fc_code fc_ledger_file_open(struct fc_ledger *l, bool *fresh, struct fc_error *err)
{
    l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (l->fd < 0)
        return failed(l->path, "open the ledger", err);
    struct stat st;
    if (fstat(l->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return fc_fail(err, FC_ERR_INPUT, "%s: a ledger must be a regular file", l->path);
    if (flock(l->fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK
                   ? fc_fail(err, FC_ERR_IO,
                             "%s: another process holds this ledger; wait for it to end", l->path)
                   : failed(l->path, "lock", err);
    l->owner = getpid();
    bool found;
    enum fc_code code = has_line(l, &found, err);
    *fresh = !found;
    return code == FC_OK ? open_key(l, *fresh, err) : code;
}

static enum fc_code read_line(struct fc_ledger *l, const char *line, size_t len, size_t number,
                              enum fc_code (*record)(struct fc_ledger *, const cJSON *,
                                                     const char *, struct fc_error *),
                              struct fc_error *err)
{
    char hex[PREFIX];
    struct fc_text where = {0};
    fc_text_printf(&where, "%s: line %zu", l->path, number);
    enum fc_code code = fc_text_check(&where, err);
    cJSON *json = NULL;
    if (code != FC_OK)
        goto cleanup;
    if (len > PREFIX)
        checksum(line + PREFIX, len - PREFIX, hex);
    if (len <= PREFIX || memcmp(hex, line, PREFIX - 1) != 0 || line[PREFIX - 1] != ' ') {
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: the checksum does not fit: the ledger is damaged, and what was charged "
                       "here is unknown; restore the file, or start another with a smaller budget",
                       where.data);
        goto cleanup;
    }
    json = fc_json_parse(line + PREFIX, len - PREFIX, where.data, err);
    code = json ? record(l, json, where.data, err) : FC_ERR_INPUT;
cleanup:
    cJSON_Delete(json);
    fc_text_free(&where);
    return code;
}

enum fc_code fc_ledger_file_read(struct fc_ledger *l,
                                 enum fc_code (*record)(struct fc_ledger *, const cJSON *,
                                                        const char *, struct fc_error *),
                                 struct fc_error *err)
{
    struct stat st;
    if (fstat(l->fd, &st) != 0)
        return failed(l->path, "stat", err);
    if (st.st_size > MAX_LEDGER)
        return fc_fail(err, FC_ERR_INPUT, "%s: expected at most %lld bytes, found %lld", l->path,
                       (long long)MAX_LEDGER, (long long)st.st_size);
    size_t len = (size_t)st.st_size, used = 0, start = 0;
    enum fc_code code = FC_OK;
    char *bytes = fc_alloc(len, 1, "ledger", err);
    if (!bytes)
        return FC_ERR_MEMORY;
    while (used < len) {
        ssize_t n = pread(l->fd, bytes + used, len - used, (off_t)used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            code = failed(l->path, "read", err);
            goto cleanup;
        }
        used += (size_t)n;
    }
    for (size_t number = 1; start < len; number++) {
        const char *end = memchr(bytes + start, '\n', len - start);
        if (!end)
            break;
        size_t line = (size_t)(end - (bytes + start));
        code = read_line(l, bytes + start, line, number, record, err);
        if (code != FC_OK)
            goto cleanup;
        start += line + 1;
    }
    l->end = (off_t)start;
    if (start < len && (ftruncate(l->fd, l->end) != 0 || fsync(l->fd) != 0))
        code = failed(l->path, "cut the unfinished last line", err);
cleanup:
    free(bytes);
    return code;
}

enum fc_code fc_ledger_file_append(struct fc_ledger *l, const cJSON *record, struct fc_error *err)
{
    if (l->broken)
        return fc_fail(err, FC_ERR_IO, "%s: an earlier write failed; open the ledger again",
                       l->path);
    if (getpid() != l->owner)
        return fc_fail(err, FC_ERR_INTERNAL, "%s: only the process that opened it may write",
                       l->path);
    char hex[PREFIX];
    struct fc_text line = {0};
    char *json = fc_json_print(record, err);
    if (!json)
        return FC_ERR_MEMORY;
    checksum(json, strlen(json), hex);
    fc_text_printf(&line, "%s ", hex);
    fc_text_puts(&line, json);
    fc_text_add(&line, "\n", 1);
    enum fc_code code = fc_text_check(&line, err);
    if (code == FC_OK && lseek(l->fd, l->end, SEEK_SET) < 0)
        code = failed(l->path, "seek", err);
    if (code != FC_OK)
        goto cleanup;
    /* From here on a failure leaves it unknown what the disk holds. Try to take the line back (it
     * was not sent), and take no further charge: the next open reads what is really there. */
    l->broken = true;
    code = write_all(l->fd, line.data, line.len, l->path, err);
    if (code == FC_OK && fsync(l->fd) != 0)
        code = failed(l->path, "sync", err);
    if (code != FC_OK) {
        if (ftruncate(l->fd, l->end) == 0)
            fsync(l->fd);
        goto cleanup;
    }
    l->broken = false;
    l->end += (off_t)line.len;
cleanup:
    free(json);
    fc_text_free(&line);
    return code;
}
