/* The ledger's records: JSON objects told apart by "kind". A kind or version that is not known is
 * refused, because skipping it might forget a charge. */
#include "privacy/ledger_private.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* ---- records: JSON to state -------------------------------------------------------------------
 */

static enum fc_code read_hex(const cJSON *json, const char *name, unsigned char bytes[32],
                             const char *where, struct fc_error *err)
{
    const char *hex = NULL;
    enum fc_code code = fc_json_string(json, name, true, &hex, where, err);
    size_t len = 0;
    if (code == FC_OK && (strlen(hex) != 64 ||
                          sodium_hex2bin(bytes, 32, hex, 64, NULL, &len, NULL) != 0 || len != 32))
        code = fc_fail(err, FC_ERR_INPUT, "%s: field \"%s\": expected 64 hexadecimal digits", where,
                       name);
    return code;
}

static enum fc_code read_budget(struct fc_ledger *l, const cJSON *json, const char *where,
                                struct fc_error *err)
{
    struct fc_budget b = {0};
    enum fc_code code = fc_json_double(json, "epsilon", true, &b.epsilon, where, err);
    if (code == FC_OK)
        code = fc_json_double(json, "delta", true, &b.delta, where, err);
    l->budget = b;
    return code;
}

/* Weights exceed 2^53, so they are strings in the file. */
static enum fc_code read_mechanism(struct fc_ledger *l, const cJSON *json, const char *where,
                                   struct fc_error *err)
{
    unsigned char hash[32];
    enum fc_code code = read_hex(json, "mechanism", hash, where, err);
    const cJSON *levels = cJSON_GetObjectItemCaseSensitive(json, "levels");
    struct fc_level read[FC_MAX_LEVELS] = {{0, 0}};
    size_t n = 0;
    const cJSON *level;
    cJSON_ArrayForEach(level, levels)
    {
        char end;
        unsigned long long count, weight;
        if (n >= FC_MAX_LEVELS || !cJSON_IsString(level) ||
            sscanf(level->valuestring, "%llu x %llu%c", &count, &weight, &end) != 2)
            return fc_fail(err, FC_ERR_INPUT, "%s: field \"levels\": expected strings \"N x W\"",
                           where);
        read[n++] = (struct fc_level){count, weight};
    }
    struct fc_profile profile;
    if (code == FC_OK)
        code = fc_profile_make(&profile, read, n, err);
    if (code == FC_OK && fc_ledger_find_mechanism(l, hash))
        code = fc_fail(err, FC_ERR_INPUT, "%s: this mechanism is there twice", where);
    return code == FC_OK ? fc_ledger_add_mechanism(l, hash, &profile, err) : code;
}

static enum fc_code read_item(struct fc_ledger *l, struct ledger_mechanism *m, const cJSON *item,
                              const char *where, struct fc_error *err)
{
    struct fc_ledger_entry entry = {0};
    size_t draws = 0;
    const char *text = NULL;
    enum fc_code code = read_hex(item, "tag", entry.tag.bytes, where, err);
    if (code == FC_OK)
        code = fc_json_size(item, "draws", true, &draws, where, err);
    if (code == FC_OK)
        code = fc_json_string(item, "text", true, &text, where, err);
    if (code == FC_OK)
        code = fc_ledger_reserve(l, 1, err);
    if (code != FC_OK)
        return code;
    entry.draws = draws;
    entry.len = strlen(text);
    entry.text = fc_strndup(text, entry.len, err);
    if (!entry.text)
        return FC_ERR_MEMORY;
    fc_ledger_add_entry(l, &entry);
    m->draws += draws;
    m->documents++;
    return FC_OK;
}

static enum fc_code read_charge(struct fc_ledger *l, const cJSON *json, const char *where,
                                struct fc_error *err)
{
    unsigned char hash[32];
    enum fc_code code = read_hex(json, "mechanism", hash, where, err);
    struct ledger_mechanism *m = code == FC_OK ? fc_ledger_find_mechanism(l, hash) : NULL;
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(json, "items"), *item;
    if (code == FC_OK && (!m || !cJSON_IsArray(items)))
        code = fc_fail(err, FC_ERR_INPUT, "%s: expected a known mechanism and an array \"items\"",
                       where);
    if (code == FC_OK)
        cJSON_ArrayForEach(item, items)
        {
            code = read_item(l, m, item, where, err);
            if (code != FC_OK)
                break;
        }
    return code;
}

/* Inode numbers may exceed 2^53, so they are strings in the file. */
static enum fc_code read_place(struct fc_ledger *l, const cJSON *json, const char *where,
                               struct fc_error *err)
{
    const char *place = NULL;
    char end;
    unsigned long long number = 0;
    enum fc_code code = fc_json_string(json, "place", true, &place, where, err);
    if (code == FC_OK && sscanf(place, "%llu%c", &number, &end) != 1)
        code = fc_fail(err, FC_ERR_INPUT, "%s: field \"place\": expected a number", where);
    l->place = number;
    return code;
}

static enum fc_code read_version(struct fc_ledger *l, const cJSON *json, const char *where,
                                 struct fc_error *err)
{
    enum fc_code code = fc_json_size(json, "version", true, &l->version, where, err);
    if (code == FC_OK && (l->version < 1 || l->version > FC_LEDGER_VERSION))
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: expected ledger version 1 to %d, found %zu: a later version wrote it",
                       where, FC_LEDGER_VERSION, l->version);
    return code == FC_OK && l->version > 1 ? read_place(l, json, where, err) : code;
}

static enum fc_code read_header(struct fc_ledger *l, const cJSON *json, const char *where,
                                struct fc_error *err)
{
    unsigned char id[32], own[32];
    if (l->version)
        return fc_fail(err, FC_ERR_INPUT, "%s: a second header: two ledgers in one file", where);
    enum fc_code code = read_version(l, json, where, err);
    if (code == FC_OK)
        code = read_hex(json, "key", id, where, err);
    fc_ledger_key_id(l, own);
    if (code == FC_OK && memcmp(id, own, sizeof own) != 0)
        code =
            fc_fail(err, FC_ERR_INPUT, "%s: %s.key is the key of another ledger", where, l->path);
    return code;
}

enum fc_code fc_ledger_read_record(struct fc_ledger *l, const cJSON *json, const char *where,
                                   struct fc_error *err)
{
    static const struct {
        const char *kind;
        enum fc_code (*read)(struct fc_ledger *, const cJSON *, const char *, struct fc_error *);
    } kinds[] = {{"ledger", read_header}, {"budget", read_budget},   {"mechanism", read_mechanism},
                 {"charge", read_charge}, {"upgrade", read_version}, {"place", read_place}};
    const char *kind = NULL;
    enum fc_code code = fc_json_string(json, "kind", true, &kind, where, err);
    if (code != FC_OK)
        return code;
    if (!l->version && strcmp(kind, "ledger") != 0)
        return fc_fail(err, FC_ERR_INPUT, "%s: expected a ledger's header", where);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kind, kinds[i].kind) == 0)
            return kinds[i].read(l, json, where, err);
    return fc_fail(err, FC_ERR_UNSUPPORTED, "%s: unknown kind of record: a later version wrote it",
                   where);
}

/* ---- records: state to JSON -------------------------------------------------------------------
 */

static bool add_hex(cJSON *json, const char *name, const unsigned char bytes[32])
{
    char hex[65];
    sodium_bin2hex(hex, sizeof hex, bytes, 32);
    return cJSON_AddStringToObject(json, name, hex) != NULL;
}

/* Writes and frees a record; `built` says whether all of it fitted in memory. */
static enum fc_code append(struct fc_ledger *l, cJSON *json, bool built, struct fc_error *err)
{
    enum fc_code code = built ? fc_ledger_file_append(l, json, err)
                              : fc_fail(err, FC_ERR_MEMORY, "ledger: out of memory");
    cJSON_Delete(json);
    return code;
}

static bool add_place(struct fc_ledger *l, cJSON *json)
{
    char place[32];
    snprintf(place, sizeof place, "%llu", (unsigned long long)l->found);
    return cJSON_AddStringToObject(json, "place", place) != NULL;
}

enum fc_code fc_ledger_append_header(struct fc_ledger *l, struct fc_error *err)
{
    unsigned char id[32];
    fc_ledger_key_id(l, id);
    cJSON *json = cJSON_CreateObject();
    bool built = json && cJSON_AddStringToObject(json, "kind", "ledger") &&
                 cJSON_AddNumberToObject(json, "version", FC_LEDGER_VERSION) &&
                 add_hex(json, "key", id) && add_place(l, json);
    enum fc_code code = append(l, json, built, err);
    if (code == FC_OK) {
        l->version = FC_LEDGER_VERSION;
        l->place = l->found;
    }
    return code;
}

enum fc_code fc_ledger_append_place(struct fc_ledger *l, const char *kind, struct fc_error *err)
{
    cJSON *json = cJSON_CreateObject();
    bool built = json && cJSON_AddStringToObject(json, "kind", kind) &&
                 cJSON_AddNumberToObject(json, "version", FC_LEDGER_VERSION) && add_place(l, json);
    enum fc_code code = append(l, json, built, err);
    if (code == FC_OK) {
        l->version = FC_LEDGER_VERSION;
        l->place = l->found;
    }
    return code;
}

enum fc_code fc_ledger_append_budget(struct fc_ledger *l, struct fc_budget b, struct fc_error *err)
{
    cJSON *json = cJSON_CreateObject();
    bool built = json && cJSON_AddStringToObject(json, "kind", "budget") &&
                 cJSON_AddNumberToObject(json, "epsilon", b.epsilon) &&
                 cJSON_AddNumberToObject(json, "delta", b.delta);
    return append(l, json, built, err);
}

enum fc_code fc_ledger_append_mechanism(struct fc_ledger *l, const unsigned char hash[32],
                                        const struct fc_profile *p, struct fc_error *err)
{
    cJSON *json = cJSON_CreateObject();
    bool built = json && cJSON_AddStringToObject(json, "kind", "mechanism") &&
                 add_hex(json, "mechanism", hash);
    cJSON *levels = built ? cJSON_AddArrayToObject(json, "levels") : NULL;
    built = built && levels;
    for (size_t i = 0; built && i < p->n_levels; i++) {
        char text[64];
        snprintf(text, sizeof text, "%llu x %llu", (unsigned long long)p->levels[i].n,
                 (unsigned long long)p->levels[i].weight);
        built = cJSON_AddItemToArray(levels, cJSON_CreateString(text));
    }
    return append(l, json, built, err);
}

enum fc_code fc_ledger_append_charge(struct fc_ledger *l, const unsigned char hash[32],
                                     const struct fc_ledger_entry *entries, size_t n,
                                     struct fc_error *err)
{
    cJSON *json = cJSON_CreateObject();
    bool built =
        json && cJSON_AddStringToObject(json, "kind", "charge") && add_hex(json, "mechanism", hash);
    cJSON *items = built ? cJSON_AddArrayToObject(json, "items") : NULL;
    built = built && items;
    for (size_t i = 0; built && i < n; i++) {
        cJSON *item = cJSON_CreateObject();
        built = item && add_hex(item, "tag", entries[i].tag.bytes) &&
                cJSON_AddNumberToObject(item, "draws", (double)entries[i].draws) &&
                cJSON_AddStringToObject(item, "text", entries[i].text);
        if (built)
            built = cJSON_AddItemToArray(items, item);
        else
            cJSON_Delete(item);
    }
    return append(l, json, built, err);
}
