/* Added tokens are cut out of the text before anything else sees it: at each place the longest,
 * from left to right. */
#include "models/tokenizer_private.h"

#include <string.h>

static int by_first_byte(const void *a, const void *b)
{
    const struct fc_added *x = *(struct fc_added *const *)a, *y = *(struct fc_added *const *)b;
    if (x->text[0] != y->text[0])
        return (unsigned char)x->text[0] < (unsigned char)y->text[0] ? -1 : 1;
    if (x->len != y->len)
        return x->len > y->len ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

enum fc_code fc_matcher_build(struct fc_matcher *m, struct fc_added *tokens, size_t n,
                              bool normalized, struct fc_error *err)
{
    size_t count = 0;
    m->tokens = fc_alloc(n, sizeof *m->tokens, "added tokens", err);
    if (!m->tokens)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        if (tokens[i].normalized == normalized && tokens[i].len)
            m->tokens[count++] = &tokens[i];
    if (count)
        qsort(m->tokens, count, sizeof(struct fc_added *), by_first_byte);
    size_t at = 0;
    for (size_t b = 0; b < 256; b++) {
        m->first[b] = at;
        while (at < count && (unsigned char)m->tokens[at]->text[0] == b)
            at++;
    }
    m->first[256] = at;
    return FC_OK;
}

void fc_matcher_free(struct fc_matcher *m)
{
    free(m->tokens);
    *m = (struct fc_matcher){0};
}

static const struct fc_added *longest_at(const struct fc_matcher *m, const char *text, size_t len)
{
    unsigned char b = (unsigned char)text[0];
    for (size_t i = m->first[b]; i < m->first[b + 1]; i++) {
        const struct fc_added *t = m->tokens[i];
        if (t->len <= len && memcmp(t->text, text, t->len) == 0)
            return t;
    }
    return NULL;
}

/* The mark that the span reaches into, NULL if none. */
static const struct fc_span *mark_at(const struct fc_marks *marks, struct fc_span s)
{
    for (size_t i = 0; i < marks->n; i++)
        if (marks->spans[i].begin < s.end && s.begin < marks->spans[i].end)
            return &marks->spans[i];
    return NULL;
}

static size_t blanks_before(const char *text, size_t end, size_t begin)
{
    while (end > begin) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)text[at] & 0xC0) == 0x80)
            at--;
        uint32_t cp;
        fc_utf8_decode(text + at, end - at, &cp);
        if (!fc_is_white(cp))
            break;
        end = at;
    }
    return end;
}

static size_t blanks_after(const char *text, size_t begin, size_t len)
{
    while (begin < len) {
        uint32_t cp;
        size_t n = fc_utf8_decode(text + begin, len - begin, &cp);
        if (!fc_is_white(cp))
            break;
        begin += n;
    }
    return begin;
}

bool fc_matcher_next(const struct fc_matcher *m, const char *text, size_t len,
                     const struct fc_marks *marks, size_t done, size_t *pos, struct fc_hit *hit)
{
    for (size_t at = *pos; m->first[256] && at < len; at++) {
        const struct fc_added *t = longest_at(m, text + at, len - at);
        if (!t)
            continue;
        struct fc_span s = {at, at + t->len};
        const struct fc_span *mark = t->special ? mark_at(marks, s) : NULL;
        if (mark) {
            /* A user's text that spells a special token is text, and is passed over whole, as
             * `tokenizers` does. One that lies across the border hides nothing of ours. */
            if (mark->begin <= s.begin && s.end <= mark->end)
                at = s.end - 1;
            continue;
        }
        *pos = s.end;
        if (t->lstrip)
            s.begin = done < at ? blanks_before(text, at, done) : at;
        if (t->rstrip)
            s.end = blanks_after(text, s.end, len);
        *hit = (struct fc_hit){s, t->id};
        return true;
    }
    *pos = len;
    return false;
}
