/* The ledger: what a client has spent, and what it bought for it, on disk before it leaves.
 *
 * An append-only file of lines "CHECKSUM JSON". Perturbed texts are charged in batches; a batch is
 * one line, written and fsynced before fc_ledger_charge returns, and only then may its texts be
 * sent. So:
 *  - what was sent is always charged, whenever the process or the machine dies;
 *  - what was charged is always stored: a resend or a restarted client finds the stored text by
 *    its tag, sends the same bytes, and pays nothing;
 *  - an unfinished last line (no line end) was never acknowledged and never sent: it is dropped.
 *    Anything else that is wrong is refused, never skipped: a charge is not forgotten.
 *
 * No raw text is in the file. A document is known by its tag, a BLAKE2b hash under a random key
 * that lies beside the ledger in "PATH.key" (mode 0600): keep that as private as the data.
 * One process at a time: the file is locked while open. */
#ifndef FC_PRIVACY_LEDGER_H
#define FC_PRIVACY_LEDGER_H

#include "privacy/accountant.h"

#define FC_LEDGER_VERSION 1

struct fc_ledger;

struct fc_budget {
    double epsilon; /* 0: no limit */
    double delta;   /* 0: epsilon is a pure one; else the smallest figure at this delta counts */
};

/* Opens or creates. The budget in force is this one; every change is recorded. FC_ERR_IO if another
 * process holds it, FC_ERR_INPUT if the file is damaged or its key is missing, FC_ERR_UNSUPPORTED
 * if a later version wrote it. */
enum fc_code fc_ledger_open(struct fc_ledger **ledger, const char *path, struct fc_budget budget,
                            struct fc_error *err);
void fc_ledger_close(struct fc_ledger *ledger); /* NULL is fine */

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

#endif
