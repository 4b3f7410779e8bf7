/* tokenizer.json, the file of Hugging Face's `tokenizers`. Its truncation and padding are not for
 * us; of its post_processor only whether it begins with a special token is used. */
#include "base/file.h"
#include "base/json.h"
#include "models/tokenizer_private.h"

#include <math.h>
#include <string.h>

/* Options of the BPE model that change tokens and that no model of our families sets. */
static enum fc_code refuse_options(const struct fc_tokenizer *tok, const cJSON *model,
                                   struct fc_error *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    double dropout = 0;
    enum fc_code code = fc_json_double(model, "dropout", false, &dropout, tok->where, err);
    if (code == FC_OK && fpclassify(dropout) != FP_ZERO)
        code = fc_fail(err, FC_ERR_UNSUPPORTED, "%s: model: dropout is not supported", tok->where);
    for (size_t i = 0; code == FC_OK && i < 2; i++) {
        const char *affix = "";
        code = fc_json_string(model, affixes[i], false, &affix, tok->where, err);
        if (code == FC_OK && *affix)
            code = fc_fail(err, FC_ERR_UNSUPPORTED, "%s: model: %s is not supported", tok->where,
                           affixes[i]);
    }
    return code;
}

static enum fc_code read_options(struct fc_tokenizer *tok, const cJSON *model,
                                 const char **unk_token, struct fc_error *err)
{
    const char *type = "BPE"; /* older files leave it out */
    enum fc_code code = fc_json_string(model, "type", false, &type, tok->where, err);
    if (code == FC_OK && strcmp(type, "BPE") != 0)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: model \"%.40s\" is not supported, expected \"BPE\"", tok->where, type);
    if (code == FC_OK)
        code = refuse_options(tok, model, err);
    if (code == FC_OK)
        code = fc_json_string(model, "unk_token", false, unk_token, tok->where, err);
    if (code == FC_OK)
        code =
            fc_json_bool(model, "byte_fallback", false, &tok->bpe.byte_fallback, tok->where, err);
    if (code == FC_OK)
        code = fc_json_bool(model, "fuse_unk", false, &tok->bpe.fuse_unk, tok->where, err);
    if (code == FC_OK)
        code =
            fc_json_bool(model, "ignore_merges", false, &tok->bpe.ignore_merges, tok->where, err);
    return code;
}

static enum fc_code read_vocab(struct fc_tokenizer *tok, const cJSON *model, struct fc_error *err)
{
    const cJSON *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab"), *item;
    enum fc_code code = FC_OK;
    if (!cJSON_IsObject(vocab))
        return fc_fail(err, FC_ERR_INPUT, "%s: model: field \"vocab\": expected an object",
                       tok->where);
    cJSON_ArrayForEach(item, vocab)
    {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(id >= 0 && id < (double)FC_TOK_MAX_IDS) || floor(id) < id)
            return fc_fail(err, FC_ERR_INPUT,
                           "%s: vocab: the id of \"%.40s\": expected a whole number below %zu",
                           tok->where, item->string, FC_TOK_MAX_IDS);
        code = fc_vocab_add(&tok->vocab, item->string, strlen(item->string), (size_t)id,
                            FC_TOKEN_MODEL, tok->where, err);
        if (code != FC_OK)
            return code;
    }
    return code;
}

static enum fc_code read_added_one(struct fc_tokenizer *tok, const cJSON *item,
                                   struct fc_error *err)
{
    const char *content = NULL, *where = tok->where;
    bool single_word = false;
    size_t id = 0;
    struct fc_added kind = {0};
    enum fc_code code = fc_json_string(item, "content", true, &content, where, err);
    kind.normalized = true;
    if (code == FC_OK)
        code = fc_json_size(item, "id", true, &id, where, err);
    if (code == FC_OK)
        code = fc_json_bool(item, "special", false, &kind.special, where, err);
    if (code == FC_OK)
        code = fc_json_bool(item, "normalized", false, &kind.normalized, where, err);
    if (code == FC_OK)
        code = fc_json_bool(item, "lstrip", false, &kind.lstrip, where, err);
    if (code == FC_OK)
        code = fc_json_bool(item, "rstrip", false, &kind.rstrip, where, err);
    if (code == FC_OK)
        code = fc_json_bool(item, "single_word", false, &single_word, where, err);
    if (code == FC_OK && single_word)
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: added token \"%.60s\": single_word is not supported", where, content);
    return code == FC_OK ? fc_tok_add_added(tok, content, strlen(content), id, kind, err) : code;
}

static enum fc_code read_added(struct fc_tokenizer *tok, const cJSON *root, struct fc_error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "added_tokens"), *item;
    if (!list || cJSON_IsNull(list))
        return FC_OK;
    if (!cJSON_IsArray(list))
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"added_tokens\": expected an array",
                       tok->where);
    enum fc_code code = FC_OK;
    cJSON_ArrayForEach(item, list)
    {
        code = read_added_one(tok, item, err);
        if (code != FC_OK)
            return code;
    }
    return code;
}

/* Merges are strings "a b" or, since 2024, pairs ["a", "b"]. */
static enum fc_code read_merges(struct fc_tokenizer *tok, const cJSON *model, struct fc_error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(model, "merges"), *item;
    enum fc_code code = FC_OK;
    size_t rank = 0;
    if (!cJSON_IsArray(list))
        return fc_fail(err, FC_ERR_INPUT, "%s: model: field \"merges\": expected an array",
                       tok->where);
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *a = cJSON_IsArray(item) ? item->child : NULL, *b = a ? a->next : NULL;
        if (cJSON_IsString(item))
            code =
                fc_tok_add_merge_line(tok, item->valuestring, strlen(item->valuestring), rank, err);
        else if (cJSON_IsString(a) && cJSON_IsString(b) && !b->next)
            code = fc_tok_add_merge(tok, a->valuestring, strlen(a->valuestring), b->valuestring,
                                    strlen(b->valuestring), rank, err);
        else
            code = fc_fail(err, FC_ERR_INPUT, "%s: merge %zu: expected \"a b\" or [\"a\", \"b\"]",
                           tok->where, rank);
        if (code != FC_OK)
            return code;
        rank++;
    }
    return code;
}

/* The name of the special token that a TemplateProcessing puts in front, NULL if none. */
static const char *leading_token(const cJSON *post)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(post, "type"), *item;
    if (!cJSON_IsString(type))
        return NULL;
    if (strcmp(type->valuestring, "Sequence") == 0) {
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(post, "processors"))
        {
            const cJSON *inner = cJSON_GetObjectItemCaseSensitive(item, "type");
            if (cJSON_IsString(inner) && strcmp(inner->valuestring, "TemplateProcessing") == 0)
                return leading_token(item);
        }
        return NULL;
    }
    if (strcmp(type->valuestring, "TemplateProcessing") != 0)
        return NULL;
    const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(post, "single"), 0);
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(first, "SpecialToken"), "id");
    return cJSON_IsString(id) ? id->valuestring : NULL;
}

static enum fc_code read_root(struct fc_tokenizer *tok, const cJSON *root, struct fc_error *err)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model");
    const char *unk_token = NULL;
    if (!cJSON_IsObject(model))
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"model\": expected an object", tok->where);
    enum fc_code code = read_options(tok, model, &unk_token, err);
    if (code == FC_OK)
        code = read_vocab(tok, model, err);
    if (code == FC_OK)
        code = read_added(tok, root, err);
    if (code == FC_OK)
        code = fc_tok_pipeline(tok, root, err);
    if (code == FC_OK)
        code = fc_tok_seal(tok, err);
    if (code == FC_OK && unk_token) {
        tok->unk = tok->bpe.unk = fc_tokenizer_id(tok, unk_token);
        if (tok->unk < 0)
            code = fc_fail(err, FC_ERR_INPUT, "%s: unk_token \"%.40s\" is not in the vocabulary",
                           tok->where, unk_token);
    }
    if (code == FC_OK)
        code = read_merges(tok, model, err);
    if (code == FC_OK)
        code = fc_tok_finish(tok, err);
    const char *bos = leading_token(cJSON_GetObjectItemCaseSensitive(root, "post_processor"));
    if (code == FC_OK && bos) {
        tok->bos = fc_tokenizer_id(tok, bos);
        tok->adds_bos = tok->bos >= 0;
    }
    return code;
}

/* A NUL would end a C string early and go unseen: cJSON keeps no lengths. No vocabulary has one. */
static bool holds_nul(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\0' ||
            (text[i] == '\\' && len - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0))
            return true;
        i += text[i] == '\\'; /* the escaped character is no backslash that begins an escape */
    }
    return false;
}

static enum fc_code read_tree(const char *path, cJSON **root, struct fc_error *err)
{
    char *text = NULL;
    size_t len;
    enum fc_code code = fc_file_read(path, FC_TOK_MAX_FILE, &text, &len, err);
    if (code == FC_OK && holds_nul(text, len))
        code = fc_fail(err, FC_ERR_UNSUPPORTED, "%s: a text with a NUL is not supported", path);
    if (code == FC_OK) {
        *root = fc_json_parse(text, len, path, err);
        code = *root ? FC_OK : FC_ERR_INPUT;
    }
    free(text);
    return code;
}

enum fc_code fc_tokenizer_open_json(struct fc_tokenizer **tok, const char *path,
                                    struct fc_error *err)
{
    cJSON *root = NULL;
    *tok = NULL;
    enum fc_code code = read_tree(path, &root, err);
    if (code != FC_OK)
        return code;
    struct fc_tokenizer *t = fc_tok_begin(path, err);
    code = FC_ERR_MEMORY;
    if (t)
        t->source = fc_strndup(path, strlen(path), err);
    if (t && t->source)
        code = read_root(t, root, err);
    cJSON_Delete(root);
    if (code == FC_OK)
        *tok = t;
    else
        fc_tokenizer_close(t);
    return code;
}
