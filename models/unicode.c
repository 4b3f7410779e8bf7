/* UTF-8 and white space; canonical composition is in models/nfc.c. */
#include "models/unicode.h"

/* The second byte carries the exclusions: overlong forms, surrogates, above U+10FFFF. */
static size_t sequence(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0)
            *low = 0xA0;
        if (lead == 0xED)
            *high = 0x9F;
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0)
            *low = 0x90;
        if (lead == 0xF4)
            *high = 0x8F;
        return 4;
    }
    return 0;
}

size_t fc_utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    unsigned char low, high;
    size_t len = sequence(p[0], &low, &high), i = 1;
    *cp = FC_UTF8_BAD;
    if (!len)
        return 1;
    uint32_t value = p[0] & (0x7Fu >> len);
    for (; i < len && i < n && p[i] >= low && p[i] <= high; i++) {
        value = value << 6 | (p[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    if (i == len)
        *cp = value;
    else if (i == n)
        *cp = FC_UTF8_CUT;
    return i;
}

size_t fc_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = len - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80u | (cp & 0x3Fu));
    out[0] = (char)(lead[len] | cp);
    return len;
}

bool fc_utf8_valid(const char *s, size_t n)
{
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        i += fc_utf8_decode(s + i, n - i, &cp);
        if (cp >= FC_UTF8_CUT)
            return false;
    }
    return true;
}

void fc_utf8_repair(const char *s, size_t n, struct fc_text *out)
{
    size_t good = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t len = fc_utf8_decode(s + i, n - i, &cp);
        if (cp >= FC_UTF8_CUT) {
            fc_text_add(out, s + good, i - good);
            fc_text_puts(out, FC_REPLACEMENT);
            good = i + len;
        }
        i += len;
    }
    fc_text_add(out, s + good, n - good);
}

bool fc_is_white(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}
