/* The ledger: what a client has spent, and what it bought for it, on disk before it leaves.
 *
 * An append-only file of lines "HASH JSON". Perturbed texts are charged in batches; a batch is one
 * line, written and fsynced before fc_ledger_charge returns, and only then may its texts be sent.
 * So:
 *  - what was sent is always charged, whenever the process or the machine dies;
 *  - what was charged is always stored: a resend or a restarted client finds the stored text by
 *    its tag, sends the same bytes, and pays nothing;
 *  - an unfinished last line (no line end, or blocks that were never written) was never
 *    acknowledged and never sent: it is dropped. Anything else that is wrong is refused, never
 *    skipped: a charge is not forgotten.
 *
 * HASH is 64 hexadecimal digits of BLAKE2b, keyed with the ledger's key, of the HASH of the line
 * before (32 zero bytes before the first) and the JSON. A line cannot be changed, left out, put
 * elsewhere or made up without the key.
 *
 * What a chain cannot show is a ledger that is whole but old, or a second copy of it. Two things
 * show that where it can be seen:
 *  - the head, number and hash of the newest record, is kept outside of the ledger too
 *    (fc_ledger_keep_head): a ledger that lacks the record of the head was put back or is another;
 *  - the ledger knows the inode of its own file: a copy, and what comes back from a backup as a new
 *    file, is refused until fc_ledger_moved says that this was meant.
 * It cannot be seen when somebody puts back ledger and heads together, into the same files; when a
 * whole machine or disk is put back or cloned; or when the accepted copy is not the only one in
 * use.
 *
 * No raw text is in the file. A document is known by its tag, a BLAKE2b hash under the random key,
 * which lies beside the ledger in "PATH.key" (mode 0600, refused when others can read it): keep
 * that as private as the data. One process at a time: the file is locked while open.
 *
 * Version 1 (checksums without key and chain, 32 digits) is read, and upgraded by the first opening
 * that writes: its lines stay, and the chain goes over them. */
#ifndef FC_PRIVACY_LEDGER_H
#define FC_PRIVACY_LEDGER_H

#include "privacy/accountant.h"

#include <stdbool.h>

#define FC_LEDGER_VERSION 2

struct fc_ledger;

struct fc_budget {
    double epsilon; /* 0: no limit */
    double delta;   /* 0: epsilon is a pure one; else the smallest figure at this delta counts */
};

/* Opens or creates. The budget in force is this one; every change is recorded. FC_ERR_IO if another
 * process holds it; FC_ERR_INPUT if the file is damaged, is a copy, or its key is missing or open
 * to others; FC_ERR_UNSUPPORTED if a later version wrote it. */
enum fc_code fc_ledger_open(struct fc_ledger **ledger, const char *path, struct fc_budget budget,
                            struct fc_error *err);
void fc_ledger_close(struct fc_ledger *ledger); /* NULL is fine */

/* Compares the ledger with the head at `path`, if there is one, and replaces it now and before each
 * charge returns. Keep it where the ledger is not: with the results that its texts went into.
 * FC_ERR_INPUT if the ledger lacks the head's record. Costs two fsyncs a charge. */
enum fc_code fc_ledger_keep_head(struct fc_ledger *ledger, const char *path, struct fc_error *err);

/* Opens to look, beside a process that charges too; nothing is made or written, and neither place
 * nor head are asked. The chain is verified as ever. */
enum fc_code fc_ledger_look(struct fc_ledger **ledger, const char *path, struct fc_error *err);
/* Whether the record of a head is in the ledger: FC_ERR_INPUT if it is not, FC_ERR_IO without such
 * a file. */
enum fc_code fc_ledger_compare(const struct fc_ledger *ledger, const char *head,
                               struct fc_error *err);
/* Accepts the ledger where it lies now, on the record, and replaces a head (NULL: none) by its own.
 * Whoever calls it says that no other copy is in use. */
enum fc_code fc_ledger_moved(const char *path, const char *head, struct fc_error *err);

/* The identity of one perturbation: this document's text under this mechanism
 * (fc_perturber_hash). */
struct fc_tag {
    unsigned char bytes[32];
};
void fc_ledger_tag(const struct fc_ledger *ledger, const char *id, const char *text, size_t len,
                   const unsigned char mechanism[32], struct fc_tag *tag);

/* A stored perturbation. text is owned by the ledger, NUL-terminated. */
struct fc_ledger_entry {
    struct fc_tag tag;
    uint64_t draws;
    const char *text;
    size_t len;
};
/* The stored entry, NULL if this was never charged. Valid until the next charge. */
const struct fc_ledger_entry *fc_ledger_find(const struct fc_ledger *ledger,
                                             const struct fc_tag *tag);

/* FC_ERR_BUDGET if `draws` more of the profile would exceed the budget. Ask for a whole run before
 * it perturbs anything. */
enum fc_code fc_ledger_afford(const struct fc_ledger *ledger, const struct fc_profile *profile,
                              uint64_t draws, struct fc_error *err);

/* Charges n perturbed texts (UTF-8; copied) of one mechanism as one line. On FC_OK they are on disk
 * and may be sent; on an error nothing may be. FC_ERR_BUDGET as above; after FC_ERR_IO the ledger
 * takes no more charges until it is opened again. */
enum fc_code fc_ledger_charge(struct fc_ledger *ledger, const struct fc_profile *profile,
                              const unsigned char mechanism[32],
                              const struct fc_ledger_entry *entries, size_t n,
                              struct fc_error *err);

/* Everything charged so far, at the budget's delta, or FC_DEFAULT_DELTA if that is 0. */
void fc_ledger_spent(const struct fc_ledger *ledger, struct fc_spent *spent);
struct fc_budget fc_ledger_budget(const struct fc_ledger *ledger);
size_t fc_ledger_entries(const struct fc_ledger *ledger);

struct fc_ledger_facts {
    size_t version, records, documents, n_mechanisms;
    unsigned char head[32]; /* hash of the last record */
    bool in_place;          /* the file is the one that was charged */
    size_t torn;            /* bytes of an unfinished last line */
};
void fc_ledger_facts(const struct fc_ledger *ledger, struct fc_ledger_facts *facts);

/* One mechanism (0 .. n_mechanisms - 1): the hash of its definition, and what went through it. */
struct fc_ledger_share {
    unsigned char hash[32];
    double epsilon; /* of one draw */
    size_t documents;
    struct fc_spent spent; /* at the same delta as fc_ledger_spent */
};
void fc_ledger_share(const struct fc_ledger *ledger, size_t i, struct fc_ledger_share *share);

#endif
