/* Pre-tokenization: a text is cut into words, over which no token reaches. */
#include "models/tokenizer_private.h"

#include <string.h>

/* PCRE2 counts its steps; a pattern that backtracks without end is an error, not a hang. The known
 * patterns take a few steps for each character. */
#define MATCH_LIMIT 200000000u

/* Collects the pieces of one span as the behaviours of `tokenizers` join them. */
struct cutter {
    enum fc_cut cut;
    bool invert;
    struct fc_spans *out;
    size_t first;   /* where this span's pieces begin in out */
    bool was_match; /* the kind of the piece before */
    bool waits;     /* FC_CUT_NEXT: a match waits for what follows */
    struct fc_span held;
};

static enum fc_code emit(struct cutter *c, size_t begin, size_t end, bool match,
                         struct fc_error *err)
{
    if (begin == end)
        return FC_OK;
    match = match != c->invert;
    bool join = false, was = c->was_match;
    c->was_match = match;
    switch (c->cut) {
    case FC_CUT_REMOVED:
        return match ? FC_OK : fc_spans_add(c->out, begin, end, err);
    case FC_CUT_ISOLATED:
        break;
    case FC_CUT_CONTIGUOUS:
        join = match == was;
        break;
    case FC_CUT_PREVIOUS:
        join = match && !was;
        break;
    case FC_CUT_NEXT:
        if (c->waits && match) {
            enum fc_code code = fc_spans_add(c->out, c->held.begin, c->held.end, err);
            if (code != FC_OK)
                return code;
        } else if (c->waits) {
            begin = c->held.begin;
        }
        c->waits = match;
        c->held = (struct fc_span){begin, end};
        if (match)
            return FC_OK;
        break;
    }
    if (join && c->out->n > c->first) {
        c->out->at[c->out->n - 1].end = end;
        return FC_OK;
    }
    return fc_spans_add(c->out, begin, end, err);
}

static int match_at(const pcre2_code *code, const char *text, size_t len, size_t at,
                    struct fc_words *w)
{
    int rc = pcre2_match(code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, w->match, w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         w->match, w->context);
    return rc;
}

/* Each span is a subject of its own: a pattern does not look beyond it. */
static enum fc_code cut_span(const struct fc_pre_step *step, struct fc_words *w,
                             struct fc_span span, struct fc_error *err)
{
    struct cutter c = {.cut = step->cut, .invert = step->invert, .out = &w->other};
    const char *text = w->text + span.begin;
    size_t len = span.end - span.begin, kept = 0, at = 0;
    enum fc_code code = FC_OK;
    c.first = w->other.n;
    while (code == FC_OK && at < len) {
        int rc = match_at(step->code, text, len, at, w);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return fc_fail(err, FC_ERR_UNSUPPORTED,
                           "pre_tokenizer: a pattern takes too many steps on this text (PCRE2 "
                           "error %d)",
                           rc);
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(w->match);
        size_t begin = found[0], end = found[1];
        if (end <= begin) { /* nothing matched: one character on */
            uint32_t cp;
            at = begin < len ? begin + fc_utf8_decode(text + begin, len - begin, &cp) : len;
            continue;
        }
        code = emit(&c, span.begin + kept, span.begin + begin, false, err);
        if (code == FC_OK)
            code = emit(&c, span.begin + begin, span.begin + end, true, err);
        at = kept = end;
    }
    if (code == FC_OK)
        code = emit(&c, span.begin + kept, span.end, false, err);
    if (code == FC_OK && c.waits)
        code = fc_spans_add(&w->other, c.held.begin, c.held.end, err);
    return code;
}

/* Steps that change the text write it anew, span after span, into the other buffer. */
static enum fc_code rewrite_span(const struct fc_pre_step *step, struct fc_words *w,
                                 struct fc_span span, bool at_start, struct fc_text *out,
                                 struct fc_error *err)
{
    const char *text = w->text + span.begin;
    size_t len = span.end - span.begin, begin = out->len;
    if (step->kind == FC_PRE_PREFIX_SPACE) {
        if (len && text[0] != ' ')
            fc_text_puts(out, " ");
        fc_text_add(out, text, len);
    } else {
        size_t n = strlen(step->mark), kept = 0;
        bool marked = len && (text[0] == ' ' || (len >= n && memcmp(text, step->mark, n) == 0));
        bool wanted =
            step->prepend == FC_PREPEND_ALWAYS || (step->prepend == FC_PREPEND_FIRST && at_start);
        if (len && wanted && !marked)
            fc_text_puts(out, step->mark);
        for (size_t i = 0; i < len; i++) {
            if (text[i] != ' ')
                continue;
            fc_text_add(out, text + kept, i - kept);
            fc_text_puts(out, step->mark);
            kept = i + 1;
        }
        fc_text_add(out, text + kept, len - kept);
    }
    enum fc_code code = fc_text_check(out, err);
    return code == FC_OK ? fc_spans_add(&w->other, begin, out->len, err) : code;
}

static enum fc_code words_prepare(struct fc_words *w, struct fc_error *err)
{
    if (!w->match)
        w->match = pcre2_match_data_create(1, NULL);
    if (!w->context) {
        w->context = pcre2_match_context_create(NULL);
        if (w->context)
            pcre2_set_match_limit(w->context, MATCH_LIMIT);
    }
    return w->match && w->context ? FC_OK
                                  : fc_fail(err, FC_ERR_MEMORY, "pre_tokenizer: out of memory");
}

enum fc_code fc_pretokenize(const struct fc_pretokenizer *pre, const char *text, size_t len,
                            bool at_start, struct fc_words *w, struct fc_error *err)
{
    w->text = text;
    w->spans.n = 0;
    enum fc_code code = words_prepare(w, err);
    if (code == FC_OK)
        code = fc_spans_add(&w->spans, 0, len, err);
    for (size_t s = 0; code == FC_OK && s < pre->n; s++) {
        const struct fc_pre_step *step = &pre->steps[s];
        bool rewrites = step->kind != FC_PRE_CUT;
        struct fc_text *out = &w->buffer[!w->which];
        w->other.n = 0;
        if (rewrites)
            fc_text_clear(out);
        for (size_t i = 0; code == FC_OK && i < w->spans.n; i++)
            code = rewrites ? rewrite_span(step, w, w->spans.at[i], at_start && i == 0, out, err)
                            : cut_span(step, w, w->spans.at[i], err);
        if (rewrites) {
            w->text = out->data;
            w->which = !w->which;
        }
        struct fc_spans swap = w->spans;
        w->spans = w->other;
        w->other = swap;
    }
    return code;
}

void fc_words_free(struct fc_words *w)
{
    free(w->spans.at);
    free(w->other.at);
    fc_text_free(&w->buffer[0]);
    fc_text_free(&w->buffer[1]);
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->context);
    *w = (struct fc_words){0};
}
