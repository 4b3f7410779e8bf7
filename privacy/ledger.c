#define _GNU_SOURCE
#include "privacy/ledger_private.h"

#include <math.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

/* ---- what was read or charged, in memory ------------------------------------------------------
 */

static size_t slot_of(const struct fc_ledger *l, const struct fc_tag *tag)
{
    uint64_t hash;
    memcpy(&hash, tag->bytes, sizeof hash); /* a keyed hash: nobody can aim at one slot */
    size_t at = (size_t)hash & (l->n_slots - 1);
    while (l->slots[at] &&
           memcmp(l->entries[l->slots[at] - 1].tag.bytes, tag->bytes, sizeof tag->bytes) != 0)
        at = (at + 1) & (l->n_slots - 1);
    return at;
}

/* Room for n more entries. Nothing seen from outside changes. */
enum fc_code fc_ledger_reserve(struct fc_ledger *l, size_t n, struct fc_error *err)
{
    void *entries = l->entries;
    enum fc_code code = fc_grow(&entries, &l->entries_capacity, l->n_entries + n,
                                sizeof *l->entries, "ledger", err);
    l->entries = entries;
    if (code != FC_OK || 2 * (l->n_entries + n) <= l->n_slots)
        return code;
    size_t size = l->n_slots ? l->n_slots : 64;
    while (size < 2 * (l->n_entries + n))
        size *= 2;
    size_t *slots = fc_alloc(size, sizeof *slots, "ledger", err);
    if (!slots)
        return FC_ERR_MEMORY;
    free(l->slots);
    l->slots = slots;
    l->n_slots = size;
    for (size_t i = 0; i < l->n_entries; i++) {
        size_t at = slot_of(l, &l->entries[i].tag);
        if (!l->slots[at])
            l->slots[at] = i + 1;
    }
    return FC_OK;
}

/* Adds an entry in reserved room and takes over its text. The first of equal tags is found. */
void fc_ledger_add_entry(struct fc_ledger *l, const struct fc_ledger_entry *entry)
{
    size_t at = slot_of(l, &entry->tag);
    l->entries[l->n_entries++] = *entry;
    if (!l->slots[at])
        l->slots[at] = l->n_entries;
}

struct ledger_mechanism *fc_ledger_find_mechanism(const struct fc_ledger *l,
                                                  const unsigned char hash[32])
{
    for (size_t i = 0; i < l->n_mechanisms; i++)
        if (memcmp(l->mechanisms[i].hash, hash, 32) == 0)
            return &l->mechanisms[i];
    return NULL;
}

enum fc_code fc_ledger_add_mechanism(struct fc_ledger *l, const unsigned char hash[32],
                                     const struct fc_profile *profile, struct fc_error *err)
{
    void *mechanisms = l->mechanisms;
    enum fc_code code = fc_grow(&mechanisms, &l->mechanisms_capacity, l->n_mechanisms + 1,
                                sizeof *l->mechanisms, "ledger", err);
    l->mechanisms = mechanisms;
    if (code != FC_OK)
        return code;
    struct ledger_mechanism *m = &l->mechanisms[l->n_mechanisms++];
    *m = (struct ledger_mechanism){.profile = *profile};
    memcpy(m->hash, hash, sizeof m->hash);
    return FC_OK;
}

/* ---- interface ----------------------------------------------------------------------------------
 */

/* A ledger without its budget: opened as `mode` says and read. */
static enum fc_code open_as(struct fc_ledger **out, const char *path, enum ledger_mode mode,
                            struct fc_error *err)
{
    *out = NULL;
    if (sodium_init() < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "libsodium: cannot start");
    struct fc_ledger *l = fc_alloc(1, sizeof *l, "ledger", err);
    if (!l)
        return FC_ERR_MEMORY;
    l->fd = -1;
    l->mode = mode;
    l->path = fc_strndup(path, strlen(path), err);
    enum fc_code code = l->path ? fc_ledger_reserve(l, 1, err) : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_ledger_file_open(l, err);
    if (code == FC_OK)
        code = fc_ledger_file_read(l, fc_ledger_read_record, err);
    if (code == FC_OK)
        *out = l;
    else
        fc_ledger_close(l);
    return code;
}

static enum fc_code check_place(const struct fc_ledger *l, struct fc_error *err)
{
    if (l->version == 1 || l->place == l->found)
        return FC_OK;
    return fc_fail(
        err, FC_ERR_INPUT,
        "%s: this is a copy: not the file that was charged, but one put in its place. "
        "Two copies would spend the budget twice, and an old one forgets. Go on with the "
        "original; or, if it was moved and no other copy is in use, run `fedcot ledger "
        "%s --moved`",
        l->path, l->path);
}

static bool same(struct fc_budget a, struct fc_budget b)
{
    return a.epsilon <= b.epsilon && a.epsilon >= b.epsilon && a.delta <= b.delta &&
           a.delta >= b.delta;
}

/* Brings an opened ledger to this version and this budget. */
static enum fc_code settle(struct fc_ledger *l, struct fc_budget budget, struct fc_error *err)
{
    bool fresh = l->n_records == 0;
    enum fc_code code = fresh ? fc_ledger_append_header(l, err) : check_place(l, err);
    if (code == FC_OK && l->version == 1)
        code = fc_ledger_append_place(l, "upgrade", err);
    if (code == FC_OK && (fresh || !same(l->budget, budget)))
        code = fc_ledger_append_budget(l, budget, err);
    l->budget = budget;
    return code;
}

enum fc_code fc_ledger_open(struct fc_ledger **out, const char *path, struct fc_budget budget,
                            struct fc_error *err)
{
    if (!(budget.epsilon >= 0) || !isfinite(budget.epsilon) || !(budget.delta >= 0) ||
        budget.delta >= 1)
        return fc_fail(err, FC_ERR_USAGE,
                       "budget: expected epsilon >= 0 and 0 <= delta < 1, found %g and %g",
                       budget.epsilon, budget.delta);
    enum fc_code code = open_as(out, path, LEDGER_WRITE, err);
    if (code == FC_OK)
        code = settle(*out, budget, err);
    if (code != FC_OK) {
        fc_ledger_close(*out);
        *out = NULL;
    }
    return code;
}

enum fc_code fc_ledger_look(struct fc_ledger **out, const char *path, struct fc_error *err)
{
    return open_as(out, path, LEDGER_LOOK, err);
}

enum fc_code fc_ledger_moved(const char *path, const char *head, struct fc_error *err)
{
    struct fc_ledger *l;
    enum fc_code code = open_as(&l, path, LEDGER_MOVED, err);
    if (code == FC_OK)
        code = fc_ledger_append_place(l, l->version == 1 ? "upgrade" : "place", err);
    if (code == FC_OK && head) {
        l->head_path = fc_strndup(head, strlen(head), err);
        code = l->head_path ? fc_ledger_head_write(l, err) : FC_ERR_MEMORY;
    }
    fc_ledger_close(l);
    return code;
}

enum fc_code fc_ledger_keep_head(struct fc_ledger *l, const char *path, struct fc_error *err)
{
    bool found;
    enum fc_code code = fc_ledger_head_check(l, path, &found, err);
    if (code != FC_OK)
        return code;
    free(l->head_path);
    l->head_path = fc_strndup(path, strlen(path), err);
    return l->head_path ? fc_ledger_head_write(l, err) : FC_ERR_MEMORY;
}

enum fc_code fc_ledger_compare(const struct fc_ledger *l, const char *head, struct fc_error *err)
{
    bool found;
    enum fc_code code = fc_ledger_head_check(l, head, &found, err);
    return code == FC_OK && !found ? fc_fail(err, FC_ERR_IO, "%s: no such head", head) : code;
}

void fc_ledger_close(struct fc_ledger *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        close(l->fd); /* releases the lock */
    for (size_t i = 0; i < l->n_entries; i++)
        free((char *)(uintptr_t)l->entries[i].text);
    free(l->entries);
    free(l->slots);
    free(l->mechanisms);
    free(l->chain);
    free(l->head_path);
    free(l->path);
    sodium_memzero(l->key, sizeof l->key);
    free(l);
}

void fc_ledger_tag(const struct fc_ledger *l, const char *id, const char *text, size_t len,
                   const unsigned char mechanism[32], struct fc_tag *tag)
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, l->key, sizeof l->key, sizeof tag->bytes);
    crypto_generichash_update(&state, mechanism, 32);
    crypto_generichash_update(&state, (const unsigned char *)id, strlen(id) + 1);
    crypto_generichash_update(&state, (const unsigned char *)text, len);
    crypto_generichash_final(&state, tag->bytes, sizeof tag->bytes);
    sodium_memzero(&state, sizeof state);
}

const struct fc_ledger_entry *fc_ledger_find(const struct fc_ledger *l, const struct fc_tag *tag)
{
    size_t index = l->slots[slot_of(l, tag)];
    return index ? &l->entries[index - 1] : NULL;
}

static void account(const struct fc_ledger *l, struct fc_account *a)
{
    *a = (struct fc_account){0};
    for (size_t i = 0; i < l->n_mechanisms; i++)
        fc_account_add(a, &l->mechanisms[i].profile, l->mechanisms[i].draws);
}

enum fc_code fc_ledger_afford(const struct fc_ledger *l, const struct fc_profile *profile,
                              uint64_t draws, struct fc_error *err)
{
    if (!(l->budget.epsilon > 0) || draws == 0)
        return FC_OK;
    struct fc_account a;
    struct fc_spent before, after;
    account(l, &a);
    fc_account_spent(&a, l->budget.delta, &before);
    /* Of a profile used before, the integers are added first: no rounding for each charge. */
    a = (struct fc_account){0};
    bool merged = false;
    for (size_t i = 0; i < l->n_mechanisms; i++) {
        const struct ledger_mechanism *m = &l->mechanisms[i];
        bool same = !merged && m->profile.n_levels == profile->n_levels &&
                    memcmp(m->profile.levels, profile->levels,
                           profile->n_levels * sizeof profile->levels[0]) == 0;
        fc_account_add(&a, &m->profile, m->draws + (same ? draws : 0));
        merged = merged || same;
    }
    if (!merged)
        fc_account_add(&a, profile, draws);
    fc_account_spent(&a, l->budget.delta, &after);
    if (after.epsilon <= l->budget.epsilon)
        return FC_OK;
    char spent[40], each[40], total[40];
    return fc_fail(err, FC_ERR_BUDGET,
                   "privacy budget: %llu more units at epsilon %s each would bring the total from "
                   "%s to %s, above the budget of %g; use fewer or shorter prompts, a smaller "
                   "--epsilon, or a larger --budget",
                   (unsigned long long)draws, fc_format_up(each, profile->epsilon, 4),
                   fc_format_up(spent, before.epsilon, 2), fc_format_up(total, after.epsilon, 2),
                   l->budget.epsilon);
}

enum fc_code fc_ledger_charge(struct fc_ledger *l, const struct fc_profile *profile,
                              const unsigned char mechanism[32],
                              const struct fc_ledger_entry *entries, size_t n, struct fc_error *err)
{
    uint64_t draws = 0;
    for (size_t i = 0; i < n; i++)
        draws += entries[i].draws;
    size_t copied = 0;
    struct fc_ledger_entry *copies = fc_alloc(n, sizeof *copies, "ledger", err);
    enum fc_code code = copies ? fc_ledger_afford(l, profile, draws, err) : FC_ERR_MEMORY;
    if (code == FC_OK)
        code = fc_ledger_reserve(l, n, err);
    for (; code == FC_OK && copied < n; copied++) {
        copies[copied] = entries[copied];
        copies[copied].text = fc_strndup(entries[copied].text, entries[copied].len, err);
        if (!copies[copied].text)
            code = FC_ERR_MEMORY;
    }
    if (code == FC_OK && n && !fc_ledger_find_mechanism(l, mechanism)) {
        code = fc_ledger_add_mechanism(l, mechanism, profile, err);
        if (code == FC_OK) {
            code = fc_ledger_append_mechanism(l, mechanism, profile, err);
            if (code != FC_OK)
                l->n_mechanisms--;
        }
    }
    if (code == FC_OK && n)
        code = fc_ledger_append_charge(l, mechanism, copies, n, err);
    if (code == FC_OK && n) {
        code = fc_ledger_head_write(l, err);
        l->broken = code != FC_OK; /* charged, but not to be sent before it is opened again */
    }
    if (code == FC_OK && n) { /* on disk: now it counts, and cannot fail any more */
        for (size_t i = 0; i < n; i++)
            fc_ledger_add_entry(l, &copies[i]);
        struct ledger_mechanism *m = fc_ledger_find_mechanism(l, mechanism);
        m->draws += draws;
        m->documents += n;
        copied = 0;
    }
    for (size_t i = 0; i < copied; i++)
        free((char *)(uintptr_t)copies[i].text);
    free(copies);
    return code;
}

static double delta_of(const struct fc_ledger *l)
{
    return l->budget.delta > 0 ? l->budget.delta : FC_DEFAULT_DELTA;
}

void fc_ledger_spent(const struct fc_ledger *l, struct fc_spent *spent)
{
    struct fc_account a;
    account(l, &a);
    fc_account_spent(&a, delta_of(l), spent);
}

struct fc_budget fc_ledger_budget(const struct fc_ledger *l)
{
    return l->budget;
}

size_t fc_ledger_entries(const struct fc_ledger *l)
{
    return l->n_entries;
}

void fc_ledger_facts(const struct fc_ledger *l, struct fc_ledger_facts *facts)
{
    *facts = (struct fc_ledger_facts){.version = l->version,
                                      .records = l->n_records,
                                      .documents = l->n_entries,
                                      .n_mechanisms = l->n_mechanisms,
                                      .in_place = l->place == l->found,
                                      .torn = l->torn};
    if (l->n_records)
        memcpy(facts->head, l->chain[l->n_records - 1], sizeof facts->head);
}

void fc_ledger_share(const struct fc_ledger *l, size_t i, struct fc_ledger_share *share)
{
    const struct ledger_mechanism *m = &l->mechanisms[i];
    struct fc_account a = {0};
    fc_account_add(&a, &m->profile, m->draws);
    *share = (struct fc_ledger_share){.epsilon = m->profile.epsilon, .documents = m->documents};
    memcpy(share->hash, m->hash, sizeof share->hash);
    fc_account_spent(&a, delta_of(l), &share->spent);
}
