/* normalizer, pre_tokenizer and decoder of a tokenizer.json. Each kind has its reader in a table;
 * what is in none of them is refused by its name. */
#include "base/json.h"
#include "models/tokenizer_private.h"

#include <string.h>

typedef enum fc_code reader(struct fc_tokenizer *tok, const cJSON *node, struct fc_error *err);

struct kind {
    const char *type;
    reader *read;
};

/* A sequence may hold sequences; no real file nests deeper. */
#define MAX_DEPTH 8

/* Reads a node, or the nodes of a Sequence in order. */
static enum fc_code read_stage(struct fc_tokenizer *tok, const cJSON *node, const char *stage,
                               const char *list, const struct kind *kinds, size_t n, int depth,
                               struct fc_error *err)
{
    const char *type = NULL;
    if (!node || cJSON_IsNull(node))
        return FC_OK;
    if (!cJSON_IsObject(node) || depth > MAX_DEPTH)
        return fc_fail(err, FC_ERR_INPUT, "%s: %s: expected an object, nested at most %d deep",
                       tok->where, stage, MAX_DEPTH);
    enum fc_code code = fc_json_string(node, "type", true, &type, tok->where, err);
    if (code != FC_OK)
        return code;
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *items = cJSON_GetObjectItemCaseSensitive(node, list), *item;
        if (!cJSON_IsArray(items))
            return fc_fail(err, FC_ERR_INPUT, "%s: %s: Sequence without \"%s\"", tok->where, stage,
                           list);
        cJSON_ArrayForEach(item, items)
        {
            code = read_stage(tok, item, stage, list, kinds, n, depth + 1, err);
            if (code != FC_OK)
                return code;
        }
        return FC_OK;
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(type, kinds[i].type) == 0)
            return kinds[i].read(tok, node, err);
    return fc_fail(err, FC_ERR_UNSUPPORTED, "%s: %s \"%.40s\" is not supported", tok->where, stage,
                   type);
}

/* {"pattern": {"String": ...}} or {"Regex": ...}. */
static enum fc_code read_pattern(const struct fc_tokenizer *tok, const cJSON *node,
                                 const char **pattern, bool *literal, struct fc_error *err)
{
    const cJSON *p = cJSON_GetObjectItemCaseSensitive(node, "pattern");
    const cJSON *string = cJSON_GetObjectItemCaseSensitive(p, "String");
    const cJSON *regex = cJSON_GetObjectItemCaseSensitive(p, "Regex");
    *literal = cJSON_IsString(string);
    if (!*literal && !cJSON_IsString(regex))
        return fc_fail(err, FC_ERR_INPUT, "%s: a pattern is neither a String nor a Regex",
                       tok->where);
    *pattern = *literal ? string->valuestring : regex->valuestring;
    return FC_OK;
}

static enum fc_code add_normal(struct fc_normalizer *norm, enum fc_normal_kind kind,
                               const char *from, const char *to, struct fc_error *err)
{
    void *steps = norm->steps;
    enum fc_code code =
        fc_grow(&steps, &norm->capacity, norm->n + 1, sizeof *norm->steps, "normalizer", err);
    norm->steps = steps;
    if (code != FC_OK)
        return code;
    struct fc_normal_step *step = &norm->steps[norm->n++];
    *step = (struct fc_normal_step){kind, fc_strndup(from, strlen(from), err),
                                    fc_strndup(to, strlen(to), err)};
    return step->from && step->to ? FC_OK : FC_ERR_MEMORY;
}

static enum fc_code read_replace(struct fc_tokenizer *tok, const cJSON *node,
                                 struct fc_normalizer *norm, struct fc_error *err)
{
    const char *from = NULL, *to = NULL;
    bool literal = true;
    enum fc_code code = read_pattern(tok, node, &from, &literal, err);
    if (code == FC_OK)
        code = fc_json_string(node, "content", true, &to, tok->where, err);
    if (code == FC_OK && !literal)
        code = fc_fail(err, FC_ERR_UNSUPPORTED, "%s: Replace with a Regex is not supported",
                       tok->where);
    if (code == FC_OK && (!fc_utf8_valid(to, strlen(to)) || !fc_utf8_valid(from, strlen(from))))
        code = fc_fail(err, FC_ERR_INPUT, "%s: Replace: a text is not UTF-8", tok->where);
    return code == FC_OK ? add_normal(norm, FC_NORMAL_REPLACE, from, to, err) : code;
}

/* ---- normalizer --------------------------------------------------------------------------------
 */

static enum fc_code normal_nfc(struct fc_tokenizer *tok, const cJSON *node, struct fc_error *err)
{
    (void)node;
    return add_normal(&tok->normalizer, FC_NORMAL_NFC, "", "", err);
}

static enum fc_code normal_prepend(struct fc_tokenizer *tok, const cJSON *node,
                                   struct fc_error *err)
{
    const char *text = NULL;
    enum fc_code code = fc_json_string(node, "prepend", true, &text, tok->where, err);
    if (code == FC_OK && !fc_utf8_valid(text, strlen(text)))
        code = fc_fail(err, FC_ERR_INPUT, "%s: Prepend: the text is not UTF-8", tok->where);
    return code == FC_OK ? add_normal(&tok->normalizer, FC_NORMAL_PREPEND, "", text, err) : code;
}

static enum fc_code normal_replace(struct fc_tokenizer *tok, const cJSON *node,
                                   struct fc_error *err)
{
    return read_replace(tok, node, &tok->normalizer, err);
}

/* ---- pre_tokenizer -----------------------------------------------------------------------------
 */

static enum fc_code add_pre(struct fc_tokenizer *tok, struct fc_pre_step step, struct fc_error *err)
{
    void *steps = tok->pre.steps;
    enum fc_code code = FC_OK;
    if (tok->bpe.byte_level)
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: pre_tokenizer: a step after ByteLevel is not "
                       "supported",
                       tok->where);
    if (code == FC_OK)
        code = fc_grow(&steps, &tok->pre.capacity, tok->pre.n + 1, sizeof *tok->pre.steps,
                       "pre_tokenizer", err);
    tok->pre.steps = steps;
    if (code == FC_OK)
        tok->pre.steps[tok->pre.n++] = step;
    else
        pcre2_code_free(step.code);
    return code;
}

static enum fc_code add_cut(struct fc_tokenizer *tok, const char *pattern, bool literal,
                            enum fc_cut cut, bool invert, struct fc_error *err)
{
    struct fc_pre_step step = {.kind = FC_PRE_CUT, .cut = cut, .invert = invert};
    enum fc_code code = fc_pattern_compile(&step.code, pattern, literal, tok->where, err);
    return code == FC_OK ? add_pre(tok, step, err) : code;
}

static enum fc_code pre_split(struct fc_tokenizer *tok, const cJSON *node, struct fc_error *err)
{
    static const char *const names[] = {[FC_CUT_REMOVED] = "Removed",
                                        [FC_CUT_ISOLATED] = "Isolated",
                                        [FC_CUT_PREVIOUS] = "MergedWithPrevious",
                                        [FC_CUT_NEXT] = "MergedWithNext",
                                        [FC_CUT_CONTIGUOUS] = "Contiguous"};
    const char *pattern = NULL, *behavior = NULL;
    bool literal = false, invert = false;
    enum fc_code code = read_pattern(tok, node, &pattern, &literal, err);
    if (code == FC_OK)
        code = fc_json_string(node, "behavior", true, &behavior, tok->where, err);
    if (code == FC_OK)
        code = fc_json_bool(node, "invert", false, &invert, tok->where, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(behavior, names[i]) == 0)
            return add_cut(tok, pattern, literal, (enum fc_cut)i, invert, err);
    return fc_fail(err, FC_ERR_INPUT, "%s: Split: unknown behavior \"%.40s\"", tok->where,
                   behavior);
}

static enum fc_code pre_digits(struct fc_tokenizer *tok, const cJSON *node, struct fc_error *err)
{
    bool individual = false;
    enum fc_code code =
        fc_json_bool(node, "individual_digits", false, &individual, tok->where, err);
    return code == FC_OK ? add_cut(tok, "\\p{N}", false,
                                   individual ? FC_CUT_ISOLATED : FC_CUT_CONTIGUOUS, false, err)
                         : code;
}

static enum fc_code pre_byte_level(struct fc_tokenizer *tok, const cJSON *node,
                                   struct fc_error *err)
{
    static const char gpt2[] = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
                               "|\\s+(?!\\S)|\\s+";
    bool prefix = true, regex = true;
    enum fc_code code = fc_json_bool(node, "add_prefix_space", false, &prefix, tok->where, err);
    if (code == FC_OK)
        code = fc_json_bool(node, "use_regex", false, &regex, tok->where, err);
    if (code == FC_OK && prefix)
        code = add_pre(tok, (struct fc_pre_step){.kind = FC_PRE_PREFIX_SPACE}, err);
    if (code == FC_OK && regex)
        code = add_cut(tok, gpt2, false, FC_CUT_ISOLATED, false, err);
    tok->bpe.byte_level = true;
    return code;
}

/* Older files have add_prefix_space in place of prepend_scheme. */
static enum fc_code read_prepend_scheme(const struct fc_tokenizer *tok, const cJSON *node,
                                        enum fc_prepend *prepend, struct fc_error *err)
{
    const char *scheme = NULL;
    bool prefix = true;
    enum fc_code code = fc_json_string(node, "prepend_scheme", false, &scheme, tok->where, err);
    if (code == FC_OK)
        code = fc_json_bool(node, "add_prefix_space", false, &prefix, tok->where, err);
    if (code != FC_OK)
        return code;
    if (!scheme)
        *prepend = prefix ? FC_PREPEND_ALWAYS : FC_PREPEND_NEVER;
    else if (strcmp(scheme, "always") == 0)
        *prepend = FC_PREPEND_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        *prepend = FC_PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        *prepend = FC_PREPEND_NEVER;
    else
        return fc_fail(err, FC_ERR_INPUT, "%s: Metaspace: unknown prepend_scheme \"%.40s\"",
                       tok->where, scheme);
    return FC_OK;
}

static enum fc_code read_replacement(const struct fc_tokenizer *tok, const cJSON *node, char **mark,
                                     struct fc_error *err)
{
    const char *text = "\xE2\x96\x81"; /* U+2581 */
    enum fc_code code = fc_json_string(node, "replacement", false, &text, tok->where, err);
    uint32_t cp = FC_UTF8_BAD;
    size_t len = strlen(text);
    if (code == FC_OK && (!len || fc_utf8_decode(text, len, &cp) != len || cp >= FC_UTF8_CUT))
        code = fc_fail(err, FC_ERR_INPUT, "%s: Metaspace: replacement is not one character",
                       tok->where);
    if (code != FC_OK)
        return code;
    *mark = fc_strndup(text, len, err);
    return *mark ? FC_OK : FC_ERR_MEMORY;
}

static enum fc_code pre_metaspace(struct fc_tokenizer *tok, const cJSON *node, struct fc_error *err)
{
    struct fc_pre_step step = {.kind = FC_PRE_METASPACE};
    bool split = true;
    enum fc_code code = fc_json_bool(node, "split", false, &split, tok->where, err);
    if (code == FC_OK)
        code = read_prepend_scheme(tok, node, &step.prepend, err);
    if (code == FC_OK)
        code = read_replacement(tok, node, &step.mark, err);
    if (code != FC_OK)
        return code;
    code = add_pre(tok, step, err);
    if (code != FC_OK)
        free(step.mark);
    else if (split)
        code = add_cut(tok, step.mark, true, FC_CUT_NEXT, false, err);
    return code;
}

/* ---- decoder -----------------------------------------------------------------------------------
 */

/* What every decoder does, in this order; a file whose order is another is refused. */
static enum fc_code out_of_order(const struct fc_tokenizer *tok, const char *what,
                                 struct fc_error *err)
{
    return fc_fail(err, FC_ERR_UNSUPPORTED,
                   "%s: decoder: %s at this place is not supported (expected: Replace, "
                   "ByteFallback, Fuse, Strip)",
                   tok->where, what);
}

static enum fc_code decode_byte_level(struct fc_tokenizer *tok, const cJSON *node,
                                      struct fc_error *err)
{
    (void)node;
    if (tok->decoder.replace.n || tok->decoder.byte_fallback || tok->decoder.fused)
        return out_of_order(tok, "ByteLevel", err);
    tok->decoder.byte_level = tok->decoder.fused = true;
    return FC_OK;
}

static enum fc_code decode_replace(struct fc_tokenizer *tok, const cJSON *node,
                                   struct fc_error *err)
{
    if (tok->decoder.byte_fallback || tok->decoder.fused)
        return out_of_order(tok, "Replace", err);
    return read_replace(tok, node, &tok->decoder.replace, err);
}

static enum fc_code decode_byte_fallback(struct fc_tokenizer *tok, const cJSON *node,
                                         struct fc_error *err)
{
    (void)node;
    if (tok->decoder.fused)
        return out_of_order(tok, "ByteFallback", err);
    tok->decoder.byte_fallback = true;
    return FC_OK;
}

static enum fc_code decode_fuse(struct fc_tokenizer *tok, const cJSON *node, struct fc_error *err)
{
    (void)node;
    (void)err;
    tok->decoder.fused = true;
    return FC_OK;
}

static enum fc_code decode_strip(struct fc_tokenizer *tok, const cJSON *node, struct fc_error *err)
{
    const char *content = "";
    size_t start = 0, stop = 0;
    enum fc_code code = fc_json_string(node, "content", true, &content, tok->where, err);
    if (code == FC_OK)
        code = fc_json_size(node, "start", true, &start, tok->where, err);
    if (code == FC_OK)
        code = fc_json_size(node, "stop", true, &stop, tok->where, err);
    if (code != FC_OK)
        return code;
    if (!tok->decoder.fused || tok->decoder.byte_level || tok->decoder.strip_left)
        return out_of_order(tok, "Strip", err);
    if (strcmp(content, " ") != 0 || stop != 0 || start > 16)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: decoder: Strip of anything but spaces in front is not supported",
                       tok->where);
    tok->decoder.strip_left = (unsigned)start;
    return FC_OK;
}

static enum fc_code decode_metaspace(struct fc_tokenizer *tok, const cJSON *node,
                                     struct fc_error *err)
{
    enum fc_prepend prepend = FC_PREPEND_NEVER;
    char *mark = NULL;
    if (tok->decoder.replace.n || tok->decoder.byte_fallback || tok->decoder.fused)
        return out_of_order(tok, "Metaspace", err);
    enum fc_code code = read_prepend_scheme(tok, node, &prepend, err);
    if (code == FC_OK)
        code = read_replacement(tok, node, &mark, err);
    if (code == FC_OK)
        code = add_normal(&tok->decoder.replace, FC_NORMAL_REPLACE, mark, " ", err);
    if (code == FC_OK && prepend != FC_PREPEND_NEVER)
        tok->decoder.first_drop = mark;
    else
        free(mark);
    return code;
}

enum fc_code fc_tok_pipeline(struct fc_tokenizer *tok, const cJSON *root, struct fc_error *err)
{
    static const struct kind normalizers[] = {
        {"NFC", normal_nfc}, {"Prepend", normal_prepend}, {"Replace", normal_replace}};
    static const struct kind pre_tokenizers[] = {{"Split", pre_split},
                                                 {"Digits", pre_digits},
                                                 {"ByteLevel", pre_byte_level},
                                                 {"Metaspace", pre_metaspace}};
    static const struct kind decoders[] = {{"ByteLevel", decode_byte_level},
                                           {"Replace", decode_replace},
                                           {"ByteFallback", decode_byte_fallback},
                                           {"Fuse", decode_fuse},
                                           {"Strip", decode_strip},
                                           {"Metaspace", decode_metaspace}};
    enum fc_code code = read_stage(tok, cJSON_GetObjectItemCaseSensitive(root, "normalizer"),
                                   "normalizer", "normalizers", normalizers, 3, 0, err);
    if (code == FC_OK)
        code = read_stage(tok, cJSON_GetObjectItemCaseSensitive(root, "pre_tokenizer"),
                          "pre_tokenizer", "pretokenizers", pre_tokenizers, 4, 0, err);
    const cJSON *decoder = cJSON_GetObjectItemCaseSensitive(root, "decoder");
    if (code == FC_OK && !cJSON_IsObject(decoder))
        code = fc_fail(err, FC_ERR_UNSUPPORTED, "%s: no decoder is not supported", tok->where);
    if (code == FC_OK)
        code = read_stage(tok, decoder, "decoder", "decoders", decoders, 6, 0, err);
    if (code == FC_OK && tok->bpe.byte_level != tok->decoder.byte_level)
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: ByteLevel in only one of pre_tokenizer and decoder is not supported",
                       tok->where);
    return code;
}
