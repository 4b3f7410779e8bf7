/* Reading: one pass over a file of a few kilobytes. Finding: a linear search, once per new shape.
 */
#define _GNU_SOURCE
#include "kernels/cuda/algorithm_file.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FILE = 8 << 20, MAX_ENTRIES = 1 << 15, LOCK_TRIES = 1000, LOCK_WAIT_MS = 10 };

struct entry {
    char key[FC_ALGORITHM_KEY];
    uint64_t words[FC_ALGORITHM_WORDS];
};

struct fc_algorithms {
    char *path;   /* NULL: nothing is kept */
    char *header; /* the first three lines */
    struct entry *entries;
    size_t count, room;
    int lock; /* a file descriptor while held, else -1 */
    bool changed;
};

/* ---- where ------------------------------------------------------------------------------------
 */

/* "NVIDIA H100, cublasLt 13" as a file name. */
static void name_of(char *name, size_t size, const char *device, const char *library)
{
    snprintf(name, size, "%s-%s.algorithms", device, library);
    for (char *c = name; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
              *c == '-' || *c == '.'))
            *c = '_';
}

/* The file's path, its folder made; NULL for none. */
static char *default_path(const char *device, const char *library)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[4096], name[256];
    int n;
    if (cache && cache[0] == '/')
        n = snprintf(folder, sizeof folder, "%s/fedcot", cache);
    else if (home && home[0] == '/')
        n = snprintf(folder, sizeof folder, "%s/.cache/fedcot", home);
    else
        return NULL;
    if (n < 0 || (size_t)n >= sizeof folder)
        return NULL;
    (void)fc_make_folder(folder, NULL); /* if it fails, so will the lock: nothing is kept then */
    name_of(name, sizeof name, device, library);
    return fc_path_join(folder, name, NULL);
}

static char *path_of(const char *device, const char *library)
{
    const char *wish = getenv("FEDCOT_ALGO_CACHE");
    if (wish && strcmp(wish, "off") == 0)
        return NULL;
    return wish && wish[0] ? strdup(wish) : default_path(device, library);
}

/* ---- the text ---------------------------------------------------------------------------------
 */

static uint64_t checksum(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a: against damage, not against malice */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return h;
}

static struct entry *find(const struct fc_algorithms *a, const char *key)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->entries[i].key, key) == 0)
            return &a->entries[i];
    return NULL;
}

static bool put(struct fc_algorithms *a, const char *key, const uint64_t *words)
{
    struct entry *e = find(a, key);
    if (!e && a->count == a->room) {
        size_t room = a->room ? 2 * a->room : 64;
        struct entry *more = room > MAX_ENTRIES ? NULL : realloc(a->entries, room * sizeof *more);
        if (!more)
            return false;
        a->entries = more;
        a->room = room;
    }
    if (!e) {
        e = &a->entries[a->count++];
        snprintf(e->key, sizeof e->key, "%s", key);
    }
    memcpy(e->words, words, sizeof e->words);
    return true;
}

/* One line "KEY hex ... hex". */
static bool read_entry(struct fc_algorithms *a, const char *line, const char *end)
{
    const char *space = memchr(line, ' ', (size_t)(end - line));
    size_t len = space ? (size_t)(space - line) : 0;
    char key[FC_ALGORITHM_KEY];
    uint64_t words[FC_ALGORITHM_WORDS];
    if (len == 0 || len >= sizeof key || end - space != FC_ALGORITHM_WORDS * 17)
        return false;
    memcpy(key, line, len);
    key[len] = '\0';
    for (size_t i = 0; i < FC_ALGORITHM_WORDS; i++) {
        const char *digits = space + 17 * i;
        if (digits[0] != ' ' || strspn(digits + 1, "0123456789abcdef") < 16)
            return false;
        words[i] = strtoull(digits + 1, NULL, 16);
    }
    return put(a, key, words);
}

/* The entries of a whole file; none of one that is damaged or somebody else's. */
static void parse(struct fc_algorithms *a, const char *text, size_t len)
{
    size_t head = strlen(a->header), count = 0;
    uint64_t sum = 0;
    const char *last = memrchr(text, '\n', len ? len - 1 : 0);
    a->count = 0;
    if (len <= head || strlen(text) != len || memcmp(text, a->header, head) != 0 || !last)
        return;
    int used = 0;
    if (sscanf(last + 1, "end %zu %16" SCNx64 "%n", &count, &sum, &used) != 2 ||
        strcmp(last + 1 + used, "\n") != 0 || sum != checksum(text, (size_t)(last + 1 - text)))
        return;
    for (const char *line = text + head; line < last + 1;) {
        const char *end = strchr(line, '\n'); /* there is one: `last` */
        if (!read_entry(a, line, end)) {
            a->count = 0;
            return;
        }
        line = end + 1;
    }
    if (a->count != count)
        a->count = 0;
}

static void read_file(struct fc_algorithms *a)
{
    char *text = NULL;
    size_t len = 0;
    a->count = 0;
    if (a->path && fc_file_read(a->path, MAX_FILE, &text, &len, NULL) == FC_OK)
        parse(a, text, len);
    free(text);
}

static enum fc_code write_file(const struct fc_algorithms *a)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return FC_ERR_MEMORY;
    fputs(a->header, out);
    for (size_t i = 0; i < a->count; i++) {
        fputs(a->entries[i].key, out);
        for (size_t j = 0; j < FC_ALGORITHM_WORDS; j++)
            fprintf(out, " %016" PRIx64, a->entries[i].words[j]);
        fputc('\n', out);
    }
    fflush(out);
    fprintf(out, "end %zu %016" PRIx64 "\n", a->count, checksum(text, len));
    enum fc_code code = fclose(out) == 0 ? fc_file_write(a->path, text, len, NULL) : FC_ERR_MEMORY;
    free(text);
    return code;
}

/* ---- the interface ----------------------------------------------------------------------------
 */

struct fc_algorithms *fc_algorithms_open(const char *device, const char *library,
                                         struct fc_error *err)
{
    struct fc_algorithms *a = calloc(1, sizeof *a);
    char *header = NULL;
    if (!a ||
        asprintf(&header, "fedcot algorithms 1\ndevice %s\nlibrary %s\n", device, library) < 0) {
        free(a);
        fc_fail(err, FC_ERR_MEMORY, "out of memory: GEMM algorithms");
        return NULL;
    }
    a->header = header;
    a->lock = -1;
    a->path = path_of(device, library);
    read_file(a);
    return a;
}

void fc_algorithms_close(struct fc_algorithms *a)
{
    if (!a)
        return;
    fc_algorithms_end(a);
    free(a->path);
    free(a->header);
    free(a->entries);
    free(a);
}

bool fc_algorithms_find(const struct fc_algorithms *a, const char *key,
                        uint64_t words[FC_ALGORITHM_WORDS])
{
    const struct entry *e = find(a, key);
    if (e)
        memcpy(words, e->words, sizeof e->words);
    return e != NULL;
}

static void give_up(struct fc_algorithms *a)
{
    free(a->path);
    a->path = NULL;
}

/* The lock is a file of its own: the data file is replaced, and a lock on it would be lost. */
static bool take_lock(struct fc_algorithms *a)
{
    char *name = NULL;
    if (asprintf(&name, "%s.lock", a->path) < 0)
        return false;
    a->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    free(name);
    const struct timespec pause = {.tv_nsec = LOCK_WAIT_MS * 1000000L};
    for (int i = 0; a->lock >= 0 && i < LOCK_TRIES; i++) {
        if (flock(a->lock, LOCK_EX | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR)
            break; /* a file system without locks */
        nanosleep(&pause, NULL);
    }
    if (a->lock >= 0)
        close(a->lock);
    a->lock = -1;
    return false;
}

bool fc_algorithms_begin(struct fc_algorithms *a)
{
    if (!a->path)
        return false;
    if (!take_lock(a)) {
        give_up(a);
        return false;
    }
    read_file(a);
    return true;
}

void fc_algorithms_add(struct fc_algorithms *a, const char *key,
                       const uint64_t words[FC_ALGORITHM_WORDS])
{
    if (a->lock >= 0 && put(a, key, words))
        a->changed = true;
}

void fc_algorithms_end(struct fc_algorithms *a)
{
    if (a->lock < 0)
        return;
    if (a->changed && write_file(a) != FC_OK)
        give_up(a);
    a->changed = false;
    close(a->lock);
    a->lock = -1;
}
