/* Shared by ledger.c (meaning) and ledger_file.c (bytes on disk). */
#ifndef FC_PRIVACY_LEDGER_PRIVATE_H
#define FC_PRIVACY_LEDGER_PRIVATE_H

#include "base/json.h"
#include "base/memory.h"
#include "privacy/ledger.h"

#include <sys/types.h>

#define FC_LEDGER_KEY 32

/* Draws by mechanism: sums of integers, so that many small charges lose nothing to rounding. */
struct ledger_mechanism {
    unsigned char hash[32];
    struct fc_profile profile;
    uint64_t draws;
};

struct fc_ledger {
    char *path;
    int fd;
    pid_t owner; /* a forked child shares the lock but must not write */
    bool broken; /* a write failed: what is on disk is uncertain */
    off_t end;   /* of the last whole line */
    unsigned char key[FC_LEDGER_KEY];
    struct fc_budget budget;

    struct ledger_mechanism *mechanisms;
    size_t n_mechanisms, mechanisms_capacity;
    struct fc_ledger_entry *entries;
    size_t n_entries, entries_capacity;
    size_t *slots; /* hash table of entry index + 1, by tag; a power of two, at most half full */
    size_t n_slots;
};

/* Opens (creating) and locks the file and reads or makes the key. *fresh: nothing was ever
 * recorded. */
enum fc_code fc_ledger_file_open(struct fc_ledger *l, bool *fresh, struct fc_error *err);

/* Calls record for every whole line's JSON in order, and cuts an unfinished last line off. */
enum fc_code fc_ledger_file_read(struct fc_ledger *l,
                                 enum fc_code (*record)(struct fc_ledger *, const cJSON *,
                                                        const char *where, struct fc_error *),
                                 struct fc_error *err);

/* Appends one record and fsyncs. */
enum fc_code fc_ledger_file_append(struct fc_ledger *l, const cJSON *record, struct fc_error *err);

#endif
