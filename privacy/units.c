#define PCRE2_CODE_UNIT_WIDTH 8
#include "privacy/units.h"

#include <pcre2.h>
#include <string.h>

struct fc_cutter {
    pcre2_code *code;
    pcre2_match_data *match;
};

/* Possessive throughout: no input makes it backtrack beyond one unit. Groups repeat a bounded
 * number of times, because each repetition takes some of the matcher's stack. */
#define PARTS "{0,31}+"
static const char pattern[] = "\\p{N}++(?:[.,]\\p{N}++)" PARTS "(?![\\p{L}\\p{M}])"
                              "|[\\p{L}\\p{N}][\\p{L}\\p{N}\\p{M}]*+"
                              "(?:['\\x{2019}-][\\p{L}\\p{N}][\\p{L}\\p{N}\\p{M}]*+)" PARTS
                              "|([^\\s\\p{C}])\\1" PARTS "|\\p{Cn}|\\p{Co}";

enum fc_code fc_cutter_open(struct fc_cutter **out, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    struct fc_cutter *c = fc_alloc(1, sizeof *c, "unit cutter", err);
    if (!c)
        return FC_ERR_MEMORY;
    int number;
    PCRE2_SIZE at;
    c->code = pcre2_compile((PCRE2_SPTR)pattern, sizeof pattern - 1,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &number, &at, NULL);
    if (!c->code) {
        code = fc_fail(err, FC_ERR_INTERNAL, "unit pattern: PCRE2 error %d at %zu", number, at);
        goto cleanup;
    }
    pcre2_jit_compile(c->code, PCRE2_JIT_COMPLETE); /* without it: slower, nothing else */
    c->match = pcre2_match_data_create_from_pattern(c->code, NULL);
    if (!c->match) {
        code = fc_fail(err, FC_ERR_MEMORY, "unit cutter: out of memory");
        goto cleanup;
    }
    *out = c;
    c = NULL;
cleanup:
    fc_cutter_close(c);
    return code;
}

void fc_cutter_close(struct fc_cutter *c)
{
    if (!c)
        return;
    pcre2_match_data_free(c->match);
    pcre2_code_free(c->code);
    free(c);
}

void fc_units_free(struct fc_units *units)
{
    free(units->items);
    *units = (struct fc_units){0};
}

enum fc_code fc_units_cut(const struct fc_cutter *cutter, const char *text, size_t len,
                          struct fc_units *units, struct fc_error *err)
{
    units->n = 0;
    if (len > FC_MAX_PRIVATE_TEXT)
        return fc_fail(err, FC_ERR_INPUT, "private text: expected at most %zu bytes, found %zu",
                       FC_MAX_PRIVATE_TEXT, len);
    size_t at = 0;
    while (at < len) {
        int found = pcre2_match(cutter->code, (PCRE2_SPTR)text, len, at, 0, cutter->match, NULL);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            return fc_fail(err, FC_ERR_INTERNAL, "private text: PCRE2 error %d while cutting",
                           found);
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(cutter->match);
        void *items = units->items;
        enum fc_code code =
            fc_grow(&items, &units->capacity, units->n + 1, sizeof *units->items, "units", err);
        units->items = items;
        if (code != FC_OK)
            return code;
        units->items[units->n++] = (struct fc_unit){bounds[0], bounds[1] - bounds[0]};
        at = bounds[1];
    }
    return FC_OK;
}

/* Whether word is exactly one of the marks in a space-separated list. */
static bool is_one_of(const char *word, const char *list)
{
    size_t len = strlen(word);
    for (const char *p = list; len && (p = strstr(p, word)); p += len)
        if ((p == list || p[-1] == ' ') && (p[len] == ' ' || p[len] == '\0'))
            return true;
    return false;
}

void fc_units_join(const char *const *words, size_t n, struct fc_text *out)
{
    bool open = false; /* inside straight double quotes */
    bool glue = true;  /* no space before the next word */
    for (size_t i = 0; i < n; i++) {
        bool quote = strcmp(words[i], "\"") == 0;
        bool closes = is_one_of(words[i], ". , ? ! : ; ) ] } % ...") || (quote && open);
        if (!glue && !closes)
            fc_text_add(out, " ", 1);
        fc_text_puts(out, words[i]);
        glue = is_one_of(words[i], "( [ { $ #") || (quote && !open);
        if (quote)
            open = !open;
    }
}
