#include "cli/identity.h"

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT 65536

static enum fc_code compare(const char *path, const struct fc_identity_part *parts, size_t n,
                            struct fc_error *err)
{
    cJSON *found = fc_json_read_file(path, FILE_LIMIT, err);
    if (!found)
        return err && err->code != FC_OK ? err->code : FC_ERR_INPUT;
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < n && code == FC_OK; i++) {
        const char *value = NULL;
        code = fc_json_string(found, parts[i].name, true, &value, path, err);
        if (code == FC_OK && strcmp(value, parts[i].value) != 0)
            code = fc_fail(err, FC_ERR_INPUT,
                           "%s: the folder holds the texts of a job with another %s: choose "
                           "another --output, or go on with what that job was given",
                           path, parts[i].name);
    }
    cJSON_Delete(found);
    return code;
}

static enum fc_code write_parts(const char *path, const struct fc_identity_part *parts, size_t n,
                                struct fc_error *err)
{
    cJSON *o = cJSON_CreateObject();
    bool whole = o != NULL;
    for (size_t i = 0; i < n && whole; i++)
        whole = cJSON_AddStringToObject(o, parts[i].name, parts[i].value) != NULL;
    char *text = whole ? fc_json_print(o, err) : NULL;
    enum fc_code code = text ? fc_file_write(path, text, strlen(text), err)
                             : fc_fail(err, FC_ERR_MEMORY, "%s: out of memory", path);
    free(text);
    cJSON_Delete(o);
    return code;
}

enum fc_code fc_identity_claim(const char *folder, const char *name,
                               const struct fc_identity_part *parts, size_t n, bool create,
                               struct fc_error *err)
{
    char *path = fc_path_join(folder, name, err);
    if (!path)
        return FC_ERR_MEMORY;
    enum fc_code code = fc_is_file(path) ? compare(path, parts, n, err)
                        : create         ? write_parts(path, parts, n, err)
                                         : fc_fail(err, FC_ERR_INPUT,
                                                   "%s is missing: the folder holds texts, nobody "
                                                           "knows of which job; choose another --output",
                                                   path);
    free(path);
    return code;
}

void fc_identity_hash_begin(struct fc_identity_hash *h)
{
    crypto_generichash_init(&h->state, NULL, 0, (FC_IDENTITY_SIZE - 1) / 2);
}

void fc_identity_hash_add(struct fc_identity_hash *h, const char *text)
{
    const char *s = text ? text : "";
    crypto_generichash_update(&h->state, (const unsigned char *)s, strlen(s) + 1);
}

void fc_identity_hash_end(struct fc_identity_hash *h, char value[FC_IDENTITY_SIZE])
{
    unsigned char digest[(FC_IDENTITY_SIZE - 1) / 2];
    crypto_generichash_final(&h->state, digest, sizeof digest);
    sodium_bin2hex(value, FC_IDENTITY_SIZE, digest, sizeof digest);
}
