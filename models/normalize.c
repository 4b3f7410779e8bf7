/* Normalisers: NFC, a prefix, replaced strings. */
#include "models/tokenizer_private.h"

#include <string.h>

enum fc_code fc_spans_add(struct fc_spans *s, size_t begin, size_t end, struct fc_error *err)
{
    void *at = s->at;
    enum fc_code code = fc_grow(&at, &s->capacity, s->n + 1, sizeof *s->at, "words", err);
    s->at = at;
    if (code == FC_OK)
        s->at[s->n++] = (struct fc_span){begin, end};
    return code;
}

static void replace(const char *text, size_t len, const char *from, const char *to,
                    struct fc_text *out)
{
    size_t n_from = strlen(from), n_to = strlen(to), kept = 0;
    for (size_t i = 0; n_from && i + n_from <= len;) {
        if (text[i] != from[0] || memcmp(text + i, from, n_from) != 0) {
            i++;
            continue;
        }
        fc_text_add(out, text + kept, i - kept);
        fc_text_add(out, to, n_to);
        kept = i += n_from;
    }
    fc_text_add(out, text + kept, len - kept);
}

/* All steps on one part of the text; only the first part takes a prefix. */
static enum fc_code run(const struct fc_normalizer *norm, const char *text, size_t len, bool first,
                        struct fc_text *out, struct fc_error *err)
{
    struct fc_text in = {0}, next = {0};
    enum fc_code code = FC_OK;
    fc_text_add(&in, text, len);
    for (size_t i = 0; code == FC_OK && i < norm->n; i++) {
        const struct fc_normal_step *step = &norm->steps[i];
        fc_text_clear(&next);
        if (step->kind == FC_NORMAL_PREPEND && first && in.len)
            fc_text_puts(&next, step->to);
        if (step->kind == FC_NORMAL_NFC)
            code = fc_nfc(in.data, in.len, &next, err);
        else if (step->kind == FC_NORMAL_REPLACE)
            replace(in.data, in.len, step->from, step->to, &next);
        else
            fc_text_add(&next, in.data, in.len);
        struct fc_text swap = in;
        in = next;
        next = swap;
    }
    if (code == FC_OK)
        fc_text_add(out, in.data, in.len);
    if (in.failed || next.failed)
        out->failed = 1;
    if (code == FC_OK)
        code = fc_text_check(out, err);
    fc_text_free(&in);
    fc_text_free(&next);
    return code;
}

enum fc_code fc_normalize(const struct fc_normalizer *norm, const char *text, struct fc_span span,
                          const struct fc_marks *marks, struct fc_text *out, struct fc_spans *moved,
                          struct fc_error *err)
{
    size_t at = span.begin;
    enum fc_code code = FC_OK;
    fc_text_clear(out);
    moved->n = 0;
    /* Part by part, so that the marks keep their place. The border is markup's ASCII, over which
     * nothing composes and no replaced string reaches. */
    for (size_t i = 0; code == FC_OK && i <= marks->n && at < span.end; i++) {
        struct fc_span mark = i < marks->n ? marks->spans[i] : (struct fc_span){span.end, span.end};
        size_t begin = mark.begin < at ? at : mark.begin < span.end ? mark.begin : span.end;
        size_t end = mark.end < span.end ? mark.end : span.end;
        if (at < begin)
            code = run(norm, text + at, begin - at, at == span.begin, out, err);
        size_t moved_begin = out->len;
        if (code == FC_OK && begin < end) {
            code = run(norm, text + begin, end - begin, begin == span.begin, out, err);
            if (code == FC_OK)
                code = fc_spans_add(moved, moved_begin, out->len, err);
        }
        if (end > at)
            at = end;
        else if (begin > at)
            at = begin;
    }
    return code;
}
