/* Which of many byte strings are in the standard input.
 *
 *     tool_scan NEEDLES < DATA
 *
 * NEEDLES: one string a line, in hexadecimal, of at least 6 bytes, ASCII capitals made small.
 * Capitals of the data count as small too. Prints the number of each line that was found, from 0,
 * once. One pass whatever the number of strings: a hash of six bytes says where to compare. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 6
#define SLOTS ((size_t)1 << 16)

struct needle {
    unsigned char *bytes;
    size_t len, next; /* next: index + 1 of another with the same hash */
    bool found;
};

struct set {
    struct needle *items;
    size_t n, capacity, slots[SLOTS];
};

static unsigned char small(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

static size_t hash(const unsigned char *p)
{
    uint64_t v = 0;
    memcpy(&v, p, WINDOW);
    return (size_t)((v * UINT64_C(0x9E3779B97F4A7C15)) >> 48);
}

static bool read_needles(struct set *s, const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t n = 0;
    while (f && (n = getline(&line, &room, f)) > 0) {
        size_t len = strspn(line, "0123456789abcdef") / 2;
        if (s->n == s->capacity) {
            s->capacity = 2 * s->capacity + 64;
            s->items = realloc(s->items, s->capacity * sizeof *s->items);
        }
        unsigned char *bytes = malloc(len + 1);
        if (len < WINDOW || !s->items || !bytes)
            return false;
        for (size_t i = 0; i < len; i++) {
            unsigned value;
            if (sscanf(line + 2 * i, "%2x", &value) != 1)
                return false;
            bytes[i] = (unsigned char)value;
        }
        size_t *slot = &s->slots[hash(bytes)];
        s->items[s->n] = (struct needle){bytes, len, *slot, false};
        *slot = ++s->n;
    }
    free(line);
    return f && fclose(f) == 0 && s->n;
}

static void search(struct set *s, const unsigned char *data, size_t len)
{
    for (size_t at = 0; at + WINDOW <= len; at++)
        for (size_t i = s->slots[hash(data + at)]; i; i = s->items[i - 1].next) {
            struct needle *x = &s->items[i - 1];
            if (x->len <= len - at && memcmp(data + at, x->bytes, x->len) == 0)
                x->found = true;
        }
}

int main(int argc, char **argv)
{
    static struct set s;
    if (argc != 2 || !read_needles(&s, argv[1])) {
        fprintf(stderr, "usage: tool_scan NEEDLES < DATA\n");
        return 2;
    }
    unsigned char *data = NULL;
    size_t len = 0, room = 0;
    for (;;) {
        if (len == room) {
            room = 2 * room + 65536;
            data = realloc(data, room);
            if (!data)
                return 2;
        }
        size_t n = fread(data + len, 1, room - len, stdin);
        if (n == 0)
            break;
        for (size_t i = 0; i < n; i++)
            data[len + i] = small(data[len + i]);
        len += n;
    }
    search(&s, data, len);
    for (size_t i = 0; i < s.n; i++) {
        if (s.items[i].found)
            printf("%zu\n", i);
        free(s.items[i].bytes);
    }
    free(s.items);
    free(data);
    return ferror(stdin) ? 2 : 0;
}
