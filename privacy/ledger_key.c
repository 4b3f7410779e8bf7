/* The key of a ledger: 32 random bytes beside it. It names documents without telling them, and it
 * is what nobody can continue or change the chain without. */
#define _GNU_SOURCE
#include "base/file.h"
#include "privacy/ledger_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Also over what is left of a start that was cut short: nothing refers to it. */
static enum fc_code make(struct fc_ledger *l, int fd, const char *path, struct fc_error *err)
{
    randombytes_buf(l->key, sizeof l->key);
    if (ftruncate(fd, 0) != 0 || fc_write_all(fd, l->key, sizeof l->key) != 0 ||
        fc_sync_file(fd) != 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    return fc_sync_parent(l->path, err);
}

static enum fc_code take(struct fc_ledger *l, int fd, const char *path, struct fc_error *err)
{
    size_t used = 0;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (st.st_mode & 077)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: mode %03o, others can read it: with it they can try which documents "
                       "were charged; chmod 600 it",
                       path, (unsigned)st.st_mode & 0777);
    while (used < sizeof l->key) {
        ssize_t n = read(fd, l->key + used, sizeof l->key - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fc_fail(err, FC_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (n == 0)
            return fc_fail(err, FC_ERR_INPUT, "%s: expected %zu bytes of key, found %zu", path,
                           sizeof l->key, used);
        used += (size_t)n;
    }
    return FC_OK;
}

enum fc_code fc_ledger_key_open(struct fc_ledger *l, bool fresh, struct fc_error *err)
{
    struct fc_text path = {0};
    int fd = -1;
    fc_text_printf(&path, "%s.key", l->path);
    enum fc_code code = fc_text_check(&path, err);
    if (code != FC_OK)
        goto cleanup;
    fd = open(path.data, (fresh ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ENOENT)
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: missing, and without it the ledger cannot tell which documents it has "
                       "charged; restore it beside the ledger",
                       path.data);
    else if (fd < 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot open: %s", path.data, strerror(errno));
    else
        code = fresh ? make(l, fd, path.data, err) : take(l, fd, path.data, err);
cleanup:
    if (fd >= 0)
        close(fd);
    fc_text_free(&path);
    return code;
}

void fc_ledger_key_id(const struct fc_ledger *l, unsigned char id[FC_LEDGER_HASH])
{
    crypto_generichash(id, FC_LEDGER_HASH, l->key, sizeof l->key, NULL, 0);
}
