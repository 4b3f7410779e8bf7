/* Shared by ledger.c (state and interface), ledger_records.c (records as JSON), ledger_file.c
 * (lines on disk, their chain of hashes), ledger_key.c (the key) and ledger_head.c (the head kept
 * elsewhere). */
#ifndef FC_PRIVACY_LEDGER_PRIVATE_H
#define FC_PRIVACY_LEDGER_PRIVATE_H

#include "base/json.h"
#include "base/memory.h"
#include "privacy/ledger.h"

#include <sys/types.h>

#define FC_LEDGER_KEY 32
#define FC_LEDGER_HASH 32

enum ledger_mode {
    LEDGER_WRITE, /* locked; created when missing; must lie where it was */
    LEDGER_MOVED, /* locked; must exist, wherever it lies */
    LEDGER_LOOK   /* nothing is locked, made, cut or written */
};

/* Draws by mechanism: sums of integers, so that many small charges lose nothing to rounding. */
struct ledger_mechanism {
    unsigned char hash[32];
    struct fc_profile profile;
    uint64_t draws;
    size_t documents;
};

struct fc_ledger {
    char *path;
    int fd;
    pid_t owner; /* a forked child shares the lock but must not write */
    bool broken; /* a write failed: what is on disk is uncertain */
    off_t end;   /* of the last whole line */
    enum ledger_mode mode;
    size_t torn;                            /* bytes behind the last whole line, when it was read */
    size_t version;                         /* of the last header or upgrade; 0: none yet */
    uint64_t place;                         /* inode of the file when it was last in its place */
    uint64_t found;                         /* inode of the file that is open */
    char *head_path;                        /* NULL: no head is kept */
    unsigned char (*chain)[FC_LEDGER_HASH]; /* [n_records] the hash at each record */
    size_t n_records, chain_capacity;
    unsigned char key[FC_LEDGER_KEY];
    struct fc_budget budget;

    struct ledger_mechanism *mechanisms;
    size_t n_mechanisms, mechanisms_capacity;
    struct fc_ledger_entry *entries;
    size_t n_entries, entries_capacity;
    size_t *slots; /* hash table of entry index + 1, by tag; a power of two, at most half full */
    size_t n_slots;
};

/* ---- ledger.c ---- */

/* Room for n more entries; nothing seen from outside changes. */
enum fc_code fc_ledger_reserve(struct fc_ledger *l, size_t n, struct fc_error *err);
/* Adds an entry in reserved room and takes over its text. The first of equal tags is found. */
void fc_ledger_add_entry(struct fc_ledger *l, const struct fc_ledger_entry *entry);
struct ledger_mechanism *fc_ledger_find_mechanism(const struct fc_ledger *l,
                                                  const unsigned char hash[32]);
enum fc_code fc_ledger_add_mechanism(struct fc_ledger *l, const unsigned char hash[32],
                                     const struct fc_profile *profile, struct fc_error *err);

/* ---- ledger_records.c ---- */

/* Takes one record of the file into the state. */
enum fc_code fc_ledger_read_record(struct fc_ledger *l, const cJSON *json, const char *where,
                                   struct fc_error *err);
/* Each appends one record to the file; the state is the caller's business. */
enum fc_code fc_ledger_append_header(struct fc_ledger *l, struct fc_error *err);
/* `kind` is "upgrade" (from version 1) or "place": both say where the file lies now. */
enum fc_code fc_ledger_append_place(struct fc_ledger *l, const char *kind, struct fc_error *err);
enum fc_code fc_ledger_append_budget(struct fc_ledger *l, struct fc_budget b, struct fc_error *err);
enum fc_code fc_ledger_append_mechanism(struct fc_ledger *l, const unsigned char hash[32],
                                        const struct fc_profile *p, struct fc_error *err);
enum fc_code fc_ledger_append_charge(struct fc_ledger *l, const unsigned char hash[32],
                                     const struct fc_ledger_entry *entries, size_t n,
                                     struct fc_error *err);

/* ---- ledger_file.c ---- */

/* Opens the file as l->mode says, locks it, reads or makes the key. */
enum fc_code fc_ledger_file_open(struct fc_ledger *l, struct fc_error *err);

/* Calls record for every whole line's JSON in order, and cuts an unfinished last line off. */
enum fc_code fc_ledger_file_read(struct fc_ledger *l,
                                 enum fc_code (*record)(struct fc_ledger *, const cJSON *,
                                                        const char *where, struct fc_error *),
                                 struct fc_error *err);

/* Appends one record and fsyncs. */
enum fc_code fc_ledger_file_append(struct fc_ledger *l, const cJSON *record, struct fc_error *err);

/* ---- ledger_key.c ---- */

/* Reads PATH.key, or makes it (fresh: no record was ever written). */
enum fc_code fc_ledger_key_open(struct fc_ledger *l, bool fresh, struct fc_error *err);
/* What the header and the head know the key by: its hash. */
void fc_ledger_key_id(const struct fc_ledger *l, unsigned char id[FC_LEDGER_HASH]);

/* ---- ledger_head.c ---- */

/* Replaces the head by that of the last record; nothing without a head_path. */
enum fc_code fc_ledger_head_write(const struct fc_ledger *l, struct fc_error *err);
/* Whether the ledger contains the record that the head at a path is of. *found: a head is there. */
enum fc_code fc_ledger_head_check(const struct fc_ledger *l, const char *path, bool *found,
                                  struct fc_error *err);

#endif
