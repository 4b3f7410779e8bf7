/* The test text of the tokenizers: 10,000 lines of words, code, scripts, emoji, control characters,
 * special tokens and broken UTF-8, the same as line() of tests/golden/make_tokenizers.py. */
#ifndef FC_TESTS_LINES_H
#define FC_TESTS_LINES_H

#include "base/json.h"
#include "base/memory.h"
#include "models/unicode.h"

#include <string.h>

#define N_LINES 10000
#define FNV_SEED 0xcbf29ce484222325u

/* splitmix64 */
static inline uint64_t draw(uint64_t *state, uint64_t n)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return ((z ^ z >> 31) >> 33) % n;
}

static inline void add_from(const cJSON *pool, const char *name, uint64_t *r, struct fc_text *out)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(pool, name);
    uint64_t n = (uint64_t)cJSON_GetArraySize(list);
    fc_text_puts(out, cJSON_GetArrayItem(list, (int)draw(r, n))->valuestring);
}

static inline void add_range(const cJSON *pool, uint64_t *r, struct fc_text *out)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(pool, "ranges");
    const cJSON *range = cJSON_GetArrayItem(list, (int)draw(r, (uint64_t)cJSON_GetArraySize(list)));
    uint32_t first = (uint32_t)cJSON_GetArrayItem(range, 0)->valueint;
    uint32_t last = (uint32_t)cJSON_GetArrayItem(range, 1)->valueint;
    for (uint64_t n = 1 + draw(r, 6); n--;) {
        char utf8[4];
        fc_text_add(out, utf8, fc_utf8_encode(first + (uint32_t)draw(r, last - first + 1), utf8));
    }
}

/* Line `index` into out, which is emptied first. */
static inline void make_line(const cJSON *pool, uint64_t index, struct fc_text *out)
{
    static const char *const lists[] = {"code", "spaces", "symbols"};
    uint64_t r = index * 0x2545F4914F6CDD1Du + 7;
    fc_text_clear(out);
    for (uint64_t n = 1 + draw(&r, 12); n--;) {
        uint64_t kind = draw(&r, 12);
        char byte;
        if (kind <= 2) {
            if (draw(&r, 4))
                fc_text_puts(out, " ");
            add_from(pool, "words", &r, out);
        } else if (kind <= 5) {
            add_from(pool, lists[kind - 3], &r, out);
        } else if (kind <= 7) {
            add_range(pool, &r, out);
        } else if (kind == 8) {
            for (uint64_t k = 1 + draw(&r, 7); k--;)
                fc_text_printf(out, "%d", (int)draw(&r, 10));
        } else if (kind == 9) {
            add_from(pool, "specials", &r, out);
        } else if (kind == 10) {
            byte = (char)draw(&r, 32);
            fc_text_add(out, &byte, 1);
        } else {
            for (uint64_t k = 1 + draw(&r, 4); k--;) {
                byte = (char)(0x80 + draw(&r, 128));
                fc_text_add(out, &byte, 1);
            }
        }
    }
}

static inline uint64_t fnv(const void *data, size_t n, uint64_t h)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

#endif
