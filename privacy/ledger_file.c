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

#define OLD_DIGITS 32               /* of a checksum of version 1 */
#define DIGITS (2 * FC_LEDGER_HASH) /* of a hash of the chain */
#define MAX_LEDGER ((off_t)4 << 30) /* bytes of a ledger that we are ready to read */

static enum fc_code failed(const char *path, const char *what, struct fc_error *err)
{
    return fc_fail(err, FC_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* The hash of a record that follows the records there are. */
static void chain(const struct fc_ledger *l, const char *json, size_t len,
                  unsigned char hash[FC_LEDGER_HASH])
{
    static const unsigned char start[FC_LEDGER_HASH];
    crypto_generichash_state state;
    crypto_generichash_init(&state, l->key, sizeof l->key, FC_LEDGER_HASH);
    crypto_generichash_update(&state, l->n_records ? l->chain[l->n_records - 1] : start,
                              FC_LEDGER_HASH);
    crypto_generichash_update(&state, (const unsigned char *)json, len);
    crypto_generichash_final(&state, hash, FC_LEDGER_HASH);
    sodium_memzero(&state, sizeof state);
}

static enum fc_code chain_reserve(struct fc_ledger *l, struct fc_error *err)
{
    void *array = l->chain;
    enum fc_code code =
        fc_grow(&array, &l->chain_capacity, l->n_records + 1, sizeof *l->chain, "ledger", err);
    l->chain = array;
    return code;
}

/* In reserved room. */
static void chain_add(struct fc_ledger *l, const unsigned char hash[FC_LEDGER_HASH])
{
    memcpy(l->chain[l->n_records++], hash, FC_LEDGER_HASH);
}

/* Whether any whole line was ever written. */
static enum fc_code has_line(const struct fc_ledger *l, bool *found, struct fc_error *err)
{
    char bytes[4096];
    off_t at = 0;
    *found = false;
    for (;;) {
        ssize_t n = pread(l->fd, bytes, sizeof bytes, at);
        if (n < 0 && errno == EINTR)
            continue;
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

/* One process at a time. The file must still be the one of its name: whoever replaced it meanwhile
 * holds another lock. */
static enum fc_code lock(struct fc_ledger *l, const struct stat *opened, struct fc_error *err)
{
    struct stat named;
    if (flock(l->fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK
                   ? fc_fail(err, FC_ERR_IO,
                             "%s: another process holds this ledger; wait for it to end", l->path)
                   : failed(l->path, "lock", err);
    if (stat(l->path, &named) != 0 || named.st_ino != opened->st_ino ||
        named.st_dev != opened->st_dev)
        return fc_fail(err, FC_ERR_IO, "%s: replaced while it was opened; try again", l->path);
    return FC_OK;
}

enum fc_code fc_ledger_file_open(struct fc_ledger *l, struct fc_error *err)
{
    const int flags[] = {
        [LEDGER_WRITE] = O_RDWR | O_CREAT, [LEDGER_MOVED] = O_RDWR, [LEDGER_LOOK] = O_RDONLY};
    l->fd = open(l->path, flags[l->mode] | O_CLOEXEC, 0600);
    if (l->fd < 0)
        return failed(l->path, "open the ledger", err);
    struct stat st;
    if (fstat(l->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return fc_fail(err, FC_ERR_INPUT, "%s: a ledger must be a regular file", l->path);
    enum fc_code code = l->mode == LEDGER_LOOK ? FC_OK : lock(l, &st, err);
    if (code != FC_OK)
        return code;
    l->owner = getpid();
    l->found = (uint64_t)st.st_ino;
    bool any;
    code = has_line(l, &any, err);
    if (code == FC_OK && !any && l->mode != LEDGER_WRITE)
        code = fc_fail(err, FC_ERR_INPUT, "%s: nothing was ever recorded in it", l->path);
    return code == FC_OK ? fc_ledger_key_open(l, !any, err) : code;
}

/* Whether the digits before the JSON are right. Version 1 had a checksum of the line alone; once
 * the chain has begun, only its hashes count. */
static bool is_sound(const struct fc_ledger *l, const char *line, size_t digits, size_t len,
                     const unsigned char next[FC_LEDGER_HASH])
{
    char hex[DIGITS + 1];
    unsigned char old[OLD_DIGITS / 2];
    if (digits == DIGITS) {
        sodium_bin2hex(hex, sizeof hex, next, FC_LEDGER_HASH);
    } else {
        if (l->version > 1)
            return false;
        crypto_generichash(old, sizeof old, (const unsigned char *)line + digits + 1,
                           len - digits - 1, NULL, 0);
        sodium_bin2hex(hex, sizeof hex, old, sizeof old);
    }
    return memcmp(hex, line, digits) == 0;
}

static enum fc_code read_line(struct fc_ledger *l, const char *line, size_t len, size_t number,
                              enum fc_code (*record)(struct fc_ledger *, const cJSON *,
                                                     const char *, struct fc_error *),
                              struct fc_error *err)
{
    unsigned char next[FC_LEDGER_HASH];
    struct fc_text where = {0};
    fc_text_printf(&where, "%s: line %zu", l->path, number);
    enum fc_code code = fc_text_check(&where, err);
    if (code == FC_OK)
        code = chain_reserve(l, err);
    const char *blank = memchr(line, ' ', len);
    size_t digits = blank ? (size_t)(blank - line) : 0;
    cJSON *json = NULL;
    if (code != FC_OK)
        goto cleanup;
    bool known = digits == DIGITS || digits == OLD_DIGITS;
    if (known)
        chain(l, line + digits + 1, len - digits - 1, next);
    if (!known || !is_sound(l, line, digits, len, next)) {
        code =
            fc_fail(err, FC_ERR_INPUT,
                    "%s: the checksum does not fit: the ledger is damaged or was changed here or "
                    "before, and what was charged is unknown; restore the file, or start "
                    "another with a smaller budget",
                    where.data);
        goto cleanup;
    }
    json = fc_json_parse(line + digits + 1, len - digits - 1, where.data, err);
    code = json ? record(l, json, where.data, err) : FC_ERR_INPUT;
    if (code == FC_OK && digits == OLD_DIGITS && l->version > 1)
        code =
            fc_fail(err, FC_ERR_INPUT, "%s: version %zu without its hash", where.data, l->version);
    if (code == FC_OK)
        chain_add(l, next);
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
        if (start + line + 1 == len && memchr(bytes + start, 0, line))
            break; /* blocks of the last line were never written: it was never acknowledged */
        code = read_line(l, bytes + start, line, number, record, err);
        if (code != FC_OK)
            goto cleanup;
        start += line + 1;
    }
    l->end = (off_t)start;
    l->torn = len - start;
    if (l->torn && l->mode != LEDGER_LOOK &&
        (ftruncate(l->fd, l->end) != 0 || fc_sync_file(l->fd) != 0))
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
    if (l->mode == LEDGER_LOOK)
        return fc_fail(err, FC_ERR_INTERNAL, "%s: opened to look only", l->path);
    char hex[DIGITS + 1];
    unsigned char next[FC_LEDGER_HASH];
    struct fc_text line = {0};
    char *json = fc_json_print(record, err);
    if (!json || chain_reserve(l, err) != FC_OK) {
        free(json);
        return FC_ERR_MEMORY;
    }
    chain(l, json, strlen(json), next);
    sodium_bin2hex(hex, sizeof hex, next, sizeof next);
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
    if (fc_write_all(l->fd, line.data, line.len) != 0)
        code = failed(l->path, "write", err);
    else if (fc_sync_file(l->fd) != 0)
        code = failed(l->path, "sync", err);
    if (code != FC_OK) {
        if (ftruncate(l->fd, l->end) == 0)
            fc_sync_file(l->fd);
        goto cleanup;
    }
    l->broken = false;
    chain_add(l, next);
    l->end += (off_t)line.len;
cleanup:
    free(json);
    fc_text_free(&line);
    return code;
}
