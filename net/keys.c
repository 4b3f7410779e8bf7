#define _POSIX_C_SOURCE 200809L
#include "net/keys.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TITLE "fedcot secret key 1\n"
#define SECRET "secret "
#define PUBLIC "public "
#define DIGITS ((size_t)2 * FC_KEY_SIZE)

/* Offsets of the digits in a secret file. */
#define SECRET_AT (sizeof TITLE - 1 + sizeof SECRET - 1)
#define PUBLIC_AT (SECRET_AT + DIGITS + 1 + sizeof PUBLIC - 1)
#define FILE_SIZE (PUBLIC_AT + DIGITS + 1)

_Static_assert(FC_KEY_SIZE == crypto_scalarmult_BYTES, "X25519");

static void *guarded(size_t size, struct fc_error *err)
{
    void *memory = sodium_init() < 0 ? NULL : sodium_malloc(size);
    if (memory)
        sodium_memzero(memory, size);
    else
        fc_fail(err, FC_ERR_MEMORY, "keys: no guarded memory");
    return memory;
}

void fc_key_pair_free(struct fc_key_pair *pair)
{
    sodium_free(pair);
}

/* ---- text ---- */

void fc_key_text(char text[FC_KEY_TEXT_SIZE], const unsigned char key[FC_KEY_SIZE])
{
    sodium_bin2hex(text, FC_KEY_TEXT_SIZE, key, FC_KEY_SIZE);
}

int fc_public_key_parse(unsigned char key[FC_KEY_SIZE], const char *text, size_t len)
{
    size_t bytes = 0;
    return len == DIGITS && sodium_hex2bin(key, FC_KEY_SIZE, text, len, NULL, &bytes, NULL) == 0 &&
           bytes == FC_KEY_SIZE;
}

/* Whether text[FILE_SIZE] is a secret file whose halves belong together; fills the pair. */
static int parse(struct fc_key_pair *pair, const char *text)
{
    unsigned char written[FC_KEY_SIZE];
    return memcmp(text, TITLE SECRET, SECRET_AT) == 0 &&
           fc_public_key_parse(pair->secret, text + SECRET_AT, DIGITS) &&
           memcmp(text + SECRET_AT + DIGITS, "\n" PUBLIC, sizeof PUBLIC) == 0 &&
           fc_public_key_parse(written, text + PUBLIC_AT, DIGITS) && text[FILE_SIZE - 1] == '\n' &&
           crypto_scalarmult_base(pair->public_key, pair->secret) == 0 &&
           memcmp(written, pair->public_key, FC_KEY_SIZE) == 0;
}

static void print(char text[FILE_SIZE + 1], const struct fc_key_pair *pair)
{
    memcpy(text, TITLE SECRET, SECRET_AT);
    fc_key_text(text + SECRET_AT, pair->secret);
    memcpy(text + SECRET_AT + DIGITS, "\n" PUBLIC, sizeof PUBLIC);
    fc_key_text(text + PUBLIC_AT, pair->public_key);
    memcpy(text + PUBLIC_AT + DIGITS, "\n", 2);
}

/* ---- reading ---- */

static enum fc_code check_access(int fd, const char *path, struct fc_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot look at it: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fc_fail(err, FC_ERR_INPUT, "%s: expected a regular file with a key", path);
    if (st.st_mode & 077)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: others can get at this secret key (mode %03o, expected 600): "
                       "run chmod 600 on it, and make a new key if somebody may have read it",
                       path, (unsigned)st.st_mode & 0777);
    if (st.st_uid != geteuid())
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: this secret key belongs to another user (%lu, expected %lu)", path,
                       (unsigned long)st.st_uid, (unsigned long)geteuid());
    return FC_OK;
}

/* Reads up to `size` bytes; *n tells how many there were. */
static enum fc_code read_all(int fd, const char *path, char *text, size_t size, size_t *n,
                             struct fc_error *err)
{
    for (*n = 0; *n < size;) {
        ssize_t got = read(fd, text + *n, size - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fc_fail(err, FC_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (got == 0)
            break;
        *n += (size_t)got;
    }
    return FC_OK;
}

enum fc_code fc_key_pair_read(struct fc_key_pair **out, const char *path, struct fc_error *err)
{
    size_t n = 0;
    enum fc_code code = FC_ERR_MEMORY;
    struct fc_key_pair *pair = NULL;
    char *text = NULL;
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused, not waited for */
    if (fd < 0)
        return fc_fail(err, FC_ERR_IO,
                       "%s: cannot open: %s; `fedcot keygen --out %s` makes a key there", path,
                       strerror(errno), path);
    pair = guarded(sizeof *pair, err);
    text = guarded(FILE_SIZE + 1, err);
    if (!pair || !text)
        goto cleanup;
    code = check_access(fd, path, err);
    if (code == FC_OK)
        code = read_all(fd, path, text, FILE_SIZE + 1, &n, err);
    if (code == FC_OK && (n != FILE_SIZE || !parse(pair, text)))
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: expected the three lines that `fedcot keygen` writes, found something "
                       "else or a damaged key",
                       path);
    if (code == FC_OK) {
        sodium_mprotect_readonly(pair);
        *out = pair;
        pair = NULL;
    }
cleanup:
    close(fd);
    sodium_free(text);
    fc_key_pair_free(pair);
    return code;
}

enum fc_code fc_public_key_read(unsigned char key[FC_KEY_SIZE], const char *text_or_path,
                                struct fc_error *err)
{
    size_t len = 0;
    char *text = NULL;
    if (fc_public_key_parse(key, text_or_path, strlen(text_or_path)))
        return FC_OK;
    enum fc_code code = fc_file_read(text_or_path, 4096, &text, &len, err);
    if (code != FC_OK) {
        fc_error_prefix(err, "a public key is 64 hexadecimal digits or a file with them");
        return code;
    }
    if (len == FILE_SIZE && memcmp(text, TITLE, sizeof TITLE - 1) == 0)
        code = fc_fail(err, FC_ERR_USAGE,
                       "%s: this is a secret key: keep it where it is, and give the file %s.pub",
                       text_or_path, text_or_path);
    else if (!fc_public_key_parse(key, text, len && text[len - 1] == '\n' ? len - 1 : len))
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: expected a public key, which is one line of 64 hexadecimal digits",
                       text_or_path);
    sodium_memzero(text, len);
    free(text);
    return code;
}

/* ---- making and writing ---- */

enum fc_code fc_key_pair_make(struct fc_key_pair **out, struct fc_error *err)
{
    *out = NULL;
    struct fc_key_pair *pair = guarded(sizeof *pair, err);
    if (!pair)
        return FC_ERR_MEMORY;
    randombytes_buf(pair->secret, sizeof pair->secret);
    crypto_scalarmult_base(pair->public_key, pair->secret);
    sodium_mprotect_readonly(pair);
    *out = pair;
    return FC_OK;
}

/* A new file of mode 0600 with these bytes on disk, or none. */
static enum fc_code write_new(const char *path, const char *text, size_t len, struct fc_error *err)
{
    unlink(path); /* what a crashed program of our process number left */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fc_fail(err, FC_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    ssize_t n;
    do
        n = write(fd, text, len);
    while (n < 0 && errno == EINTR);
    bool bad = n != (ssize_t)len || fchmod(fd, 0600) != 0 || fsync(fd) != 0;
    int why = n >= 0 && n < (ssize_t)len ? ENOSPC : errno;
    if (close(fd) != 0 && !bad) {
        bad = true;
        why = errno;
    }
    if (!bad)
        return FC_OK;
    unlink(path);
    return fc_fail(err, FC_ERR_IO, "%s: cannot write: %s", path, strerror(why));
}

/* link() and not rename(): it never takes the place of a key that is there. */
static enum fc_code publish(const char *temporary, const char *path, struct fc_error *err)
{
    int bad = link(temporary, path), why = errno;
    unlink(temporary);
    if (bad && why == EEXIST)
        return fc_fail(err, FC_ERR_USAGE,
                       "%s: there is a file already, and a key is never overwritten: give another "
                       "name, or remove it",
                       path);
    return bad ? fc_fail(err, FC_ERR_IO, "%s: cannot create: %s", path, strerror(why)) : FC_OK;
}

enum fc_code fc_key_pair_write(const struct fc_key_pair *pair, const char *path,
                               struct fc_error *err)
{
    struct fc_text temporary = {0}, public_path = {0};
    char public_text[FC_KEY_TEXT_SIZE + 1];
    char *text = guarded(FILE_SIZE + 1, err);
    fc_text_printf(&temporary, "%s.tmp.%ld", path, (long)getpid());
    fc_text_printf(&public_path, "%s.pub", path);
    enum fc_code code = text ? fc_text_check(&temporary, err) : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_text_check(&public_path, err);
    if (code != FC_OK)
        goto cleanup;
    print(text, pair);
    code = write_new(temporary.data, text, FILE_SIZE, err);
    if (code == FC_OK)
        code = publish(temporary.data, path, err);
    fc_key_text(public_text, pair->public_key);
    memcpy(public_text + DIGITS, "\n", 2);
    if (code == FC_OK) /* syncs the folder for both */
        code = fc_file_write(public_path.data, public_text, DIGITS + 1, err);
cleanup:
    sodium_free(text);
    fc_text_free(&temporary);
    fc_text_free(&public_path);
    return code;
}
