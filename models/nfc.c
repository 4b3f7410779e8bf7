/* Canonical composition (NFC), Unicode Standard Annex 15: decompose, order the combining marks,
 * compose. Text without a character of the watch table is copied: nearly all text is. */
#include "models/unicode.h"

#include <string.h>

/* Hangul syllables are arithmetic: leading, vowel and optional trailing jamo. */
enum { S0 = 0xAC00, L0 = 0x1100, V0 = 0x1161, T0 = 0x11A7, NL = 19, NV = 21, NT = 28 };

struct mark {
    uint32_t cp;
    uint32_t order; /* combining class << 24 | position in its run: sorting by it is stable */
};

struct marks {
    struct mark *m;
    size_t n, capacity;
};

static const struct fc_unicode_range *in_ranges(const struct fc_unicode_range *table, size_t n,
                                                uint32_t cp)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (table[mid].last < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && table[low].first <= cp ? &table[low] : NULL;
}

static uint32_t combining_class(uint32_t cp)
{
    const struct fc_unicode_range *r =
        cp < 0x300 ? NULL : in_ranges(fc_unicode_ccc, fc_unicode_ccc_n, cp);
    return r ? r->value : 0;
}

static bool is_settled(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += fc_utf8_decode(s + i, n - i, &cp);
        if (cp >= 0x300 && in_ranges(fc_unicode_watch, fc_unicode_watch_n, cp))
            return false;
    }
    return true;
}

static enum fc_code push(struct marks *out, uint32_t cp, struct fc_error *err)
{
    void *m = out->m;
    enum fc_code code = fc_grow(&m, &out->capacity, out->n + 1, sizeof *out->m, "NFC", err);
    out->m = m;
    if (code == FC_OK)
        out->m[out->n++] = (struct mark){cp, combining_class(cp)};
    return code;
}

static const struct fc_unicode_map *find_map(uint32_t cp)
{
    size_t low = 0, high = fc_unicode_decompose_n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (fc_unicode_decompose[mid].from < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < fc_unicode_decompose_n && fc_unicode_decompose[low].from == cp
               ? &fc_unicode_decompose[low]
               : NULL;
}

/* The depth of the recursion is that of the table: at most 4. */
static enum fc_code decompose(struct marks *out, uint32_t cp, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    if (cp >= S0 && cp < S0 + NL * NV * NT) {
        uint32_t s = cp - S0;
        code = push(out, L0 + s / (NV * NT), err);
        if (code == FC_OK)
            code = push(out, V0 + s % (NV * NT) / NT, err);
        return code == FC_OK && s % NT ? push(out, T0 + s % NT, err) : code;
    }
    const struct fc_unicode_map *map = cp < 0xC0 ? NULL : find_map(cp);
    if (!map)
        return push(out, cp, err);
    code = decompose(out, map->a, err);
    return code == FC_OK && map->b ? decompose(out, map->b, err) : code;
}

static int by_order(const void *a, const void *b)
{
    uint32_t x = ((const struct mark *)a)->order, y = ((const struct mark *)b)->order;
    return (x > y) - (x < y);
}

/* Sorts every run of marks by combining class, equal classes in the order of the text. Positions
 * wrap after 2^24 marks on one letter; such a run is cut there. */
static void order_marks(struct marks *t)
{
    for (size_t i = 0; i < t->n; i++) {
        size_t begin = i;
        for (; i < t->n && t->m[i].order && i - begin < (1u << 24); i++)
            t->m[i].order = t->m[i].order << 24 | (uint32_t)(i - begin);
        if (i - begin > 1)
            qsort(t->m + begin, i - begin, sizeof *t->m, by_order);
        for (size_t k = begin; k < i; k++)
            t->m[k].order >>= 24;
    }
}

/* The character that a and b make together, 0 if none. */
static uint32_t composite(uint32_t a, uint32_t b)
{
    if (a >= L0 && a < L0 + NL && b >= V0 && b < V0 + NV)
        return S0 + ((a - L0) * NV + (b - V0)) * NT;
    if (a >= S0 && a < S0 + NL * NV * NT && (a - S0) % NT == 0 && b > T0 && b < T0 + NT)
        return a + (b - T0);
    size_t low = 0, high = fc_unicode_compose_n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct fc_unicode_pair *p = &fc_unicode_compose[mid];
        if (p->a < a || (p->a == a && p->b < b))
            low = mid + 1;
        else
            high = mid;
    }
    const struct fc_unicode_pair *p = &fc_unicode_compose[low];
    return low < fc_unicode_compose_n && p->a == a && p->b == b ? p->to : 0;
}

/* Joins each character with the last starter unless something of the same or a higher class stands
 * between them. */
static void compose(struct marks *t)
{
    size_t n = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < t->n; i++) {
        struct mark c = t->m[i];
        if (starter != SIZE_MAX && (n == starter + 1 || t->m[n - 1].order < c.order)) {
            uint32_t joined = composite(t->m[starter].cp, c.cp);
            if (joined) {
                t->m[starter].cp = joined;
                continue;
            }
        }
        if (c.order == 0)
            starter = n;
        t->m[n++] = c;
    }
    t->n = n;
}

enum fc_code fc_nfc(const char *s, size_t n, struct fc_text *out, struct fc_error *err)
{
    if (is_settled(s, n)) {
        fc_text_add(out, s, n);
        return fc_text_check(out, err);
    }
    struct marks t = {0};
    enum fc_code code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < n;) {
        uint32_t cp;
        i += fc_utf8_decode(s + i, n - i, &cp);
        code = decompose(&t, cp, err);
    }
    if (code == FC_OK) {
        order_marks(&t);
        compose(&t);
        for (size_t i = 0; i < t.n; i++) {
            char utf8[4];
            fc_text_add(out, utf8, fc_utf8_encode(t.m[i].cp, utf8));
        }
        code = fc_text_check(out, err);
    }
    free(t.m);
    return code;
}
