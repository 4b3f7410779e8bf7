/* Patterns of tokenizer.json are written for Oniguruma; this writes them for PCRE2.
 *
 * The two agree on the syntax that tokenizers use, but not on every class: PCRE2's \s holds U+180E,
 * which is no white space since Unicode 6.3, and \w, \h, \b and others differ more. So \s and \S
 * are spelled out, a short list of escapes passes, and any other is refused by name. What is left
 * are the versions of Unicode: letters assigned after PCRE2's tables (10.42: Unicode 14) are no
 * \p{L}. */
#include "models/tokenizer_private.h"

#include <ctype.h>
#include <string.h>

#define WHITE "\\t-\\r\\x{85}\\p{Z}"

static enum fc_code refuse(const char *what, const char *where, struct fc_error *err)
{
    return fc_fail(err, FC_ERR_UNSUPPORTED,
                   "%s: pre_tokenizer: \"%s\" in a pattern is not supported", where, what);
}

/* One escape, after the backslash at p; *used is its length without the backslash. */
static enum fc_code escape(const char *p, bool in_class, struct fc_text *out, size_t *used,
                           const char *where, struct fc_error *err)
{
    *used = 1;
    if (*p == 's') {
        fc_text_puts(out, in_class ? WHITE : "[" WHITE "]");
    } else if (*p == 'S' && !in_class) {
        fc_text_puts(out, "[^" WHITE "]");
    } else if (*p && (strchr("dDpPrntf", *p) || (!isalnum((unsigned char)*p) && *p > 0))) {
        fc_text_add(out, p - 1, 2);
    } else {
        char name[3] = {'\\', *p, '\0'};
        return refuse(name, where, err);
    }
    return FC_OK;
}

static enum fc_code translate(const char *pattern, struct fc_text *out, const char *where,
                              struct fc_error *err)
{
    bool in_class = false;
    enum fc_code code = FC_OK;
    for (const char *p = pattern; code == FC_OK && *p; p++) {
        size_t used;
        if (*p == '\\') {
            code = escape(p + 1, in_class, out, &used, where, err);
            p += used;
            continue;
        }
        if (in_class && *p == '[')
            code = refuse("[ within [...]", where, err);
        else if (in_class && p[0] == '&' && p[1] == '&')
            code = refuse("&& within [...]", where, err);
        else if (!in_class && (*p == '^' || *p == '$'))
            code = refuse(*p == '^' ? "^" : "$", where, err);
        if (*p == '[')
            in_class = true;
        else if (*p == ']')
            in_class = false;
        fc_text_add(out, p, 1);
    }
    return code == FC_OK ? fc_text_check(out, err) : code;
}

enum fc_code fc_pattern_compile(pcre2_code **code, const char *pattern, bool literal,
                                const char *where, struct fc_error *err)
{
    struct fc_text text = {0};
    enum fc_code result = FC_OK;
    if (!fc_utf8_valid(pattern, strlen(pattern)) || !*pattern)
        return fc_fail(err, FC_ERR_INPUT, "%s: pre_tokenizer: a pattern is empty or not UTF-8",
                       where);
    if (literal)
        fc_text_puts(&text, pattern);
    else
        result = translate(pattern, &text, where, err);
    if (result == FC_OK)
        result = fc_text_check(&text, err);
    if (result == FC_OK) {
        int why;
        PCRE2_SIZE at;
        /* With PCRE2_LITERAL, UCP is not allowed. */
        *code = pcre2_compile((PCRE2_SPTR)text.data, text.len,
                              PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP), &why, &at, NULL);
        if (!*code) {
            char message[120] = "";
            pcre2_get_error_message(why, (PCRE2_UCHAR *)message, sizeof message);
            result = fc_fail(err, FC_ERR_UNSUPPORTED,
                             "%s: pre_tokenizer: PCRE2 does not take the pattern: %s at %zu", where,
                             message, (size_t)at);
        } else {
            /* Where there is no just-in-time compiler, the interpreter does the same, slower. */
            pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
        }
    }
    fc_text_free(&text);
    return result;
}
