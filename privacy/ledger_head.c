/* The head of a ledger, kept outside of it: a file {"ledger", "records", "hash"}, replaced whole.
 */
#include "base/file.h"
#include "privacy/ledger_private.h"

#include <sodium.h>
#include <string.h>

#define HEAD_LIMIT 4096

struct head {
    unsigned char ledger[FC_LEDGER_HASH], hash[FC_LEDGER_HASH];
    size_t records;
};

static enum fc_code read_hash(const cJSON *json, const char *name,
                              unsigned char hash[FC_LEDGER_HASH], const char *path,
                              struct fc_error *err)
{
    const char *hex = NULL;
    size_t len = 0;
    enum fc_code code = fc_json_string(json, name, true, &hex, path, err);
    if (code == FC_OK &&
        (sodium_hex2bin(hash, FC_LEDGER_HASH, hex, strlen(hex), NULL, &len, NULL) != 0 ||
         len != FC_LEDGER_HASH))
        code = fc_fail(err, FC_ERR_INPUT, "%s: field \"%s\": expected %d hexadecimal digits", path,
                       name, 2 * FC_LEDGER_HASH);
    return code;
}

static enum fc_code read_head(struct head *h, const char *path, struct fc_error *err)
{
    cJSON *json = fc_json_read_file(path, HEAD_LIMIT, err);
    if (!json)
        return err && err->code != FC_OK ? err->code : FC_ERR_INPUT;
    enum fc_code code = read_hash(json, "ledger", h->ledger, path, err);
    if (code == FC_OK)
        code = read_hash(json, "hash", h->hash, path, err);
    if (code == FC_OK)
        code = fc_json_size(json, "records", true, &h->records, path, err);
    cJSON_Delete(json);
    return code;
}

enum fc_code fc_ledger_head_check(const struct fc_ledger *l, const char *path, bool *found,
                                  struct fc_error *err)
{
    static const char *const advice =
        "go on with the ledger that belongs here; or, if this one is meant, accept it with `fedcot "
        "ledger FILE --moved --head HEAD`";
    struct head h;
    unsigned char own[FC_LEDGER_HASH];
    *found = fc_is_file(path);
    if (!*found)
        return FC_OK;
    enum fc_code code = read_head(&h, path, err);
    if (code != FC_OK)
        return code;
    fc_ledger_key_id(l, own);
    if (memcmp(own, h.ledger, sizeof own) != 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: the head of another ledger than %s: what was spent here before is not "
                       "in it; %s",
                       path, l->path, advice);
    if (h.records > l->n_records)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: the ledger had %zu records, but %s has only %zu: an old copy was put "
                       "back, and what was spent since is missing; %s",
                       path, h.records, l->path, l->n_records, advice);
    if (h.records == 0 || memcmp(l->chain[h.records - 1], h.hash, sizeof h.hash) != 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: record %zu of %s is another one: two copies of the ledger were spent "
                       "from; %s",
                       path, h.records, l->path, advice);
    return FC_OK;
}

static bool add_hash(cJSON *json, const char *name, const unsigned char hash[FC_LEDGER_HASH])
{
    char hex[2 * FC_LEDGER_HASH + 1];
    sodium_bin2hex(hex, sizeof hex, hash, FC_LEDGER_HASH);
    return cJSON_AddStringToObject(json, name, hex) != NULL;
}

enum fc_code fc_ledger_head_write(const struct fc_ledger *l, struct fc_error *err)
{
    if (!l->head_path || l->n_records == 0)
        return FC_OK;
    unsigned char id[FC_LEDGER_HASH];
    fc_ledger_key_id(l, id);
    cJSON *json = cJSON_CreateObject();
    bool built = json && add_hash(json, "ledger", id) &&
                 cJSON_AddNumberToObject(json, "records", (double)l->n_records) &&
                 add_hash(json, "hash", l->chain[l->n_records - 1]);
    char *text = built ? fc_json_print(json, err) : NULL;
    enum fc_code code = text ? fc_file_write(l->head_path, text, strlen(text), err)
                             : fc_fail(err, FC_ERR_MEMORY, "%s: out of memory", l->head_path);
    free(text);
    cJSON_Delete(json);
    return code;
}
