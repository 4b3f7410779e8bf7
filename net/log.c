#define _GNU_SOURCE /* flock, fdatasync */
#include "net/log.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_OUT ((size_t)4 << 20) /* a rewrite writes whenever so much was appended */

static const char magic[FC_LOG_HEAD] = {'F', 'C', 'o', 'T', 'l', 'o', 'g', FC_LOG_FORMAT};

struct fc_log {
    char *folder, *path, *temporary;
    int lock, fd;           /* -1: closed */
    size_t size;            /* of the file: all of it whole records */
    struct fc_text waiting; /* records that follow it */
    bool rewriting;         /* written out when much waits, synced by fc_log_rewrite */
};

static void put(unsigned char *out, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (unsigned char)(v >> (8 * i));
}

static uint32_t length_at(const unsigned char *record)
{
    return record[0] | (uint32_t)record[1] << 8 | (uint32_t)record[2] << 16 |
           (uint32_t)record[3] << 24;
}

/* Also over the place, so that a record that a disk put elsewhere is none. */
static void digest(unsigned char out[16], uint64_t offset, const void *payload, uint32_t len)
{
    unsigned char place[12];
    crypto_generichash_state hash;
    put(place, offset, 8);
    put(place + 8, len, 4);
    crypto_generichash_init(&hash, NULL, 0, 16);
    crypto_generichash_update(&hash, place, sizeof place);
    crypto_generichash_update(&hash, payload, len);
    crypto_generichash_final(&hash, out, 16);
}

/* ---- reading ---- */

/* Bytes of the record at data[at], 0 if no whole one is there. */
static size_t whole_record(const unsigned char *data, size_t len, size_t at)
{
    unsigned char expected[16];
    if (len - at <= FC_LOG_RECORD_HEAD)
        return 0;
    uint32_t n = length_at(data + at);
    if (n < 1 || n > FC_LOG_MAX_RECORD || n > len - at - FC_LOG_RECORD_HEAD)
        return 0;
    digest(expected, at, data + at + FC_LOG_RECORD_HEAD, n);
    return memcmp(expected, data + at + 4, sizeof expected) == 0 ? FC_LOG_RECORD_HEAD + n : 0;
}

static enum fc_code visit_all(struct fc_log *log, const unsigned char *data, size_t len,
                              fc_log_visit *visit, void *context, struct fc_error *err)
{
    size_t n, compared = len < FC_LOG_HEAD ? len : FC_LOG_HEAD;
    if (compared && memcmp(data, magic, compared) != 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: expected a log of this program (format %d), found something else: move "
                       "it away, or choose another folder",
                       log->path, FC_LOG_FORMAT);
    if (len < FC_LOG_HEAD)
        return FC_OK; /* torn while it was created */
    for (log->size = FC_LOG_HEAD; (n = whole_record(data, len, log->size)); log->size += n) {
        enum fc_code code =
            visit(context, data + log->size + FC_LOG_RECORD_HEAD, n - FC_LOG_RECORD_HEAD, err);
        if (code != FC_OK) {
            fc_error_prefix(err, "%s: at byte %zu", log->path, log->size);
            return code;
        }
    }
    return FC_OK;
}

static enum fc_code read_log(struct fc_log *log, size_t max_bytes, fc_log_visit *visit,
                             void *context, size_t *dropped, struct fc_error *err)
{
    struct fc_map map;
    enum fc_code code = fc_map_open(&map, log->path, err);
    if (code != FC_OK)
        return code;
    if (map.len > max_bytes)
        code = fc_fail(err, FC_ERR_INPUT, "%s: %zu bytes, expected at most %zu: raise the bound",
                       log->path, map.len, max_bytes);
    if (code == FC_OK)
        code = visit_all(log, map.data, map.len, visit, context, err);
    *dropped = map.len - log->size;
    fc_map_close(&map);
    return code;
}

/* ---- writing ---- */

static enum fc_code write_at(const struct fc_log *log, size_t at, const char *data, size_t len,
                             struct fc_error *err)
{
    while (len) {
        ssize_t n = pwrite(log->fd, data, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", log->path,
                           n < 0 ? strerror(errno) : "nothing was taken");
        data += n;
        at += (size_t)n;
        len -= (size_t)n;
    }
    return FC_OK;
}

static int sync_data(int fd)
{
    int bad;
    do
        bad = fdatasync(fd);
    while (bad != 0 && errno == EINTR);
    return bad;
}

static enum fc_code cut(struct fc_log *log, struct fc_error *err)
{
    int bad;
    do
        bad = ftruncate(log->fd, (off_t)log->size);
    while (bad != 0 && errno == EINTR);
    return bad == 0 ? FC_OK
                    : fc_fail(err, FC_ERR_IO, "%s: cannot cut a torn tail: %s", log->path,
                              strerror(errno));
}

/* Writes what waits behind the whole records; after a failure the file ends with those. */
static enum fc_code write_out(struct fc_log *log, bool sync, struct fc_error *err)
{
    enum fc_code code = write_at(log, log->size, log->waiting.data, log->waiting.len, err);
    if (code == FC_OK && sync && sync_data(log->fd) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot sync: %s", log->path, strerror(errno));
    if (code == FC_OK)
        log->size += log->waiting.len;
    else
        cut(log, err);
    fc_text_clear(&log->waiting);
    return code;
}

enum fc_code fc_log_append(struct fc_log *log, const void *payload, size_t len,
                           struct fc_error *err)
{
    unsigned char head[FC_LOG_RECORD_HEAD];
    if (len < 1 || len > FC_LOG_MAX_RECORD)
        return fc_fail(err, FC_ERR_INTERNAL, "%s: a record of %zu bytes, expected 1 to %zu",
                       log->path, len, FC_LOG_MAX_RECORD);
    size_t before = log->waiting.len;
    put(head, len, 4);
    digest(head + 4, log->size + before, payload, (uint32_t)len);
    fc_text_add(&log->waiting, (const char *)head, sizeof head);
    fc_text_add(&log->waiting, payload, len);
    enum fc_code code = fc_text_check(&log->waiting, err);
    if (code != FC_OK) { /* the records before it are good */
        log->waiting.len = before;
        log->waiting.failed = 0;
    } else if (log->rewriting && log->waiting.len >= WRITE_OUT) {
        code = write_out(log, false, err);
    }
    return code;
}

enum fc_code fc_log_sync(struct fc_log *log, struct fc_error *err)
{
    return log->waiting.len ? write_out(log, true, err) : FC_OK;
}

size_t fc_log_bytes(const struct fc_log *log)
{
    return log->size + log->waiting.len;
}

/* ---- files ---- */

static int open_file(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static enum fc_code begin_file(struct fc_log *log, struct fc_error *err)
{
    enum fc_code code = write_at(log, 0, magic, sizeof magic, err);
    log->size = code == FC_OK ? sizeof magic : 0;
    return code;
}

enum fc_code fc_log_rewrite(struct fc_log *log,
                            enum fc_code (*write)(void *context, struct fc_log *log,
                                                  struct fc_error *err),
                            void *context, struct fc_error *err)
{
    struct fc_log fresh = {.path = log->temporary, .rewriting = true};
    fc_text_clear(&log->waiting);
    fresh.fd = open_file(log->temporary, O_TRUNC);
    if (fresh.fd < 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot create: %s", log->temporary, strerror(errno));
    enum fc_code code = begin_file(&fresh, err);
    if (code == FC_OK)
        code = write(context, &fresh, err);
    if (code == FC_OK)
        code = write_out(&fresh, true, err);
    if (code == FC_OK && rename(log->temporary, log->path) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot rename from %s: %s", log->path, log->temporary,
                       strerror(errno));
    fc_text_free(&fresh.waiting);
    if (code != FC_OK) {
        close(fresh.fd);
        unlink(log->temporary);
        return code;
    }
    close(log->fd);
    log->fd = fresh.fd;
    log->size = fresh.size;
    return fc_sync_folder(log->folder, err);
}

static enum fc_code lock(struct fc_log *log, const char *name, struct fc_error *err)
{
    int bad;
    struct fc_text file = {0};
    fc_text_printf(&file, "%s.lock", name);
    char *path =
        fc_text_check(&file, err) == FC_OK ? fc_path_join(log->folder, file.data, err) : NULL;
    fc_text_free(&file);
    if (!path)
        return FC_ERR_MEMORY;
    enum fc_code code = FC_OK;
    log->lock = open_file(path, 0);
    if (log->lock < 0) {
        code = fc_fail(err, FC_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    } else {
        do
            bad = flock(log->lock, LOCK_EX | LOCK_NB);
        while (bad != 0 && errno == EINTR);
        if (bad != 0)
            code = fc_fail(err, FC_ERR_IO, "%s: %s", path,
                           errno == EWOULDBLOCK
                               ? "another process keeps its state in this folder: choose another"
                               : strerror(errno));
    }
    free(path);
    return code;
}

static enum fc_code name_files(struct fc_log *log, const char *folder, const char *name,
                               struct fc_error *err)
{
    struct fc_text file = {0};
    fc_text_printf(&file, "%s.tmp", name);
    enum fc_code code = fc_text_check(&file, err);
    log->folder = fc_strndup(folder, strlen(folder), err);
    log->path = fc_path_join(folder, name, err);
    log->temporary = code == FC_OK ? fc_path_join(folder, file.data, err) : NULL;
    fc_text_free(&file);
    return log->folder && log->path && log->temporary ? FC_OK : FC_ERR_MEMORY;
}

/* After the lock: reads what is there, cuts the torn tail, and makes a new file durable. */
static enum fc_code open_locked(struct fc_log *log, size_t max_bytes, fc_log_visit *visit,
                                void *context, size_t *dropped, struct fc_error *err)
{
    unlink(log->temporary); /* of a rewrite that was killed */
    log->fd = open_file(log->path, 0);
    if (log->fd < 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot open: %s", log->path, strerror(errno));
    enum fc_code code = read_log(log, max_bytes, visit, context, dropped, err);
    if (code == FC_OK && *dropped)
        code = cut(log, err);
    if (code == FC_OK && log->size == 0)
        code = begin_file(log, err);
    if (code == FC_OK && sync_data(log->fd) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot sync: %s", log->path, strerror(errno));
    return code == FC_OK ? fc_sync_folder(log->folder, err) : code;
}

enum fc_code fc_log_open(struct fc_log **out, const char *folder, const char *name,
                         size_t max_bytes, fc_log_visit *visit, void *context, size_t *dropped,
                         struct fc_error *err)
{
    *out = NULL;
    *dropped = 0;
    if (sodium_init() < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "log: libsodium cannot start");
    struct fc_log *log = fc_alloc(1, sizeof *log, "log", err);
    if (!log)
        return FC_ERR_MEMORY;
    log->lock = log->fd = -1;
    enum fc_code code = name_files(log, folder, name, err);
    if (code == FC_OK)
        code = lock(log, name, err);
    if (code == FC_OK)
        code = open_locked(log, max_bytes, visit, context, dropped, err);
    if (code != FC_OK)
        fc_log_close(log);
    else
        *out = log;
    return code;
}

void fc_log_close(struct fc_log *log)
{
    if (!log)
        return;
    if (log->fd >= 0)
        close(log->fd);
    if (log->lock >= 0)
        close(log->lock);
    fc_text_free(&log->waiting);
    free(log->folder);
    free(log->path);
    free(log->temporary);
    free(log);
}
