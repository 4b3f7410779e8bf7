/* Opening a model's tokenizer, and the files that lie beside a tokenizer.json:
 * tokenizer_config.json, special_tokens_map.json (the same names in older models) and
 * chat_template.jinja. */
#include "base/file.h"
#include "base/json.h"
#include "models/config.h"
#include "models/tokenizer_private.h"

#include <string.h>

#define MAX_CONFIG ((size_t)16 << 20)

/* The file as a tree; NULL with FC_OK in *code if there is none. */
static cJSON *read_optional(const char *folder, const char *name, enum fc_code *code,
                            struct fc_error *err)
{
    cJSON *tree = NULL;
    char *path = fc_path_join(folder, name, err);
    *code = path ? FC_OK : FC_ERR_MEMORY;
    if (path && fc_is_file(path)) {
        tree = fc_json_read_file(path, MAX_CONFIG, err);
        if (!tree)
            *code = err ? err->code : FC_ERR_INPUT;
    }
    free(path);
    return tree;
}

/* "bos_token": "<s>" or {"content": "<s>", ...}. */
static void read_token(const struct fc_tokenizer *tok, const cJSON *tree, const char *name,
                       int32_t *id)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, name);
    if (cJSON_IsObject(item))
        item = cJSON_GetObjectItemCaseSensitive(item, "content");
    int32_t found = cJSON_IsString(item) ? fc_tokenizer_id(tok, item->valuestring) : -1;
    if (found >= 0)
        *id = found;
}

static void read_tokens(struct fc_tokenizer *tok, const cJSON *tree)
{
    read_token(tok, tree, "bos_token", &tok->bos);
    read_token(tok, tree, "eos_token", &tok->eos);
    read_token(tok, tree, "unk_token", &tok->unk);
    read_token(tok, tree, "pad_token", &tok->pad);
}

/* A string, or a list of named ones of which "default" is meant. */
static enum fc_code read_template(struct fc_tokenizer *tok, const cJSON *tree, struct fc_error *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, "chat_template"), *entry;
    const char *text = cJSON_IsString(item) ? item->valuestring : NULL;
    if (cJSON_IsArray(item)) {
        cJSON_ArrayForEach(entry, item)
        {
            const cJSON *name = cJSON_GetObjectItemCaseSensitive(entry, "name");
            const cJSON *body = cJSON_GetObjectItemCaseSensitive(entry, "template");
            if (cJSON_IsString(name) && strcmp(name->valuestring, "default") == 0 &&
                cJSON_IsString(body))
                text = body->valuestring;
        }
    }
    if (!text)
        return FC_OK;
    tok->chat_template = fc_strndup(text, strlen(text), err);
    return tok->chat_template ? FC_OK : FC_ERR_MEMORY;
}

/* chat_template.jinja goes before tokenizer_config.json, as in transformers. */
static enum fc_code read_jinja(struct fc_tokenizer *tok, const char *folder, struct fc_error *err)
{
    char *path = fc_path_join(folder, "chat_template.jinja", err), *text = NULL;
    size_t len;
    enum fc_code code = path ? FC_OK : FC_ERR_MEMORY;
    if (path && fc_is_file(path))
        code = fc_file_read(path, MAX_CONFIG, &text, &len, err);
    if (code == FC_OK && text) {
        free(tok->chat_template);
        tok->chat_template = text;
        text = NULL;
    }
    free(text);
    free(path);
    return code;
}

enum fc_code fc_tok_read_config(struct fc_tokenizer *tok, const char *folder, struct fc_error *err)
{
    enum fc_code code;
    cJSON *map = read_optional(folder, "special_tokens_map.json", &code, err), *config = NULL;
    if (code == FC_OK)
        config = read_optional(folder, "tokenizer_config.json", &code, err);
    if (code == FC_OK) {
        read_tokens(tok, map);
        read_tokens(tok, config);
        code = fc_json_bool(config, "add_bos_token", false, &tok->adds_bos, folder, err);
    }
    if (code == FC_OK)
        code = read_template(tok, config, err);
    if (code == FC_OK)
        code = read_jinja(tok, folder, err);
    cJSON_Delete(map);
    cJSON_Delete(config);
    return code;
}

enum fc_code fc_tok_open_folder(struct fc_tokenizer **tok, const char *folder, struct fc_error *err)
{
    char *path = fc_path_join(folder, "tokenizer.json", err);
    if (!path)
        return FC_ERR_MEMORY;
    enum fc_code code = fc_tokenizer_open_json(tok, path, err);
    free(path);
    if (code != FC_OK)
        return code;
    (*tok)->folder = fc_strndup(folder, strlen(folder), err);
    code = (*tok)->folder ? fc_tok_read_config(*tok, folder, err) : FC_ERR_MEMORY;
    if (code != FC_OK) {
        fc_tokenizer_close(*tok);
        *tok = NULL;
    }
    return code;
}

/* What the tokenizer's own files leave open. */
static void take_ids(struct fc_tokenizer *tok, const struct fc_model_config *config)
{
    if (tok->bos < 0 && config->bos >= 0 && (size_t)config->bos < tok->vocab.size)
        tok->bos = config->bos;
    if (tok->eos < 0 && config->n_eos && config->eos[0] >= 0 &&
        (size_t)config->eos[0] < tok->vocab.size)
        tok->eos = config->eos[0];
}

enum fc_code fc_tokenizer_open(struct fc_tokenizer **tok, const struct fc_model_file *file,
                               struct fc_error *err)
{
    const struct fc_gguf *gguf = fc_model_file_gguf(file);
    *tok = NULL;
    enum fc_code code = gguf ? fc_tok_open_gguf(tok, gguf, err)
                             : fc_tok_open_folder(tok, fc_model_file_path(file), err);
    if (code == FC_OK)
        take_ids(*tok, fc_model_file_config(file));
    return code;
}
