/* What the texts in a folder depend on. A job that goes on in its folder finds its own texts there;
 * another job (other data, epsilon, model, ...) must not, so the folder says whose they are. */
#ifndef FC_CLI_IDENTITY_H
#define FC_CLI_IDENTITY_H

#include "base/error.h"

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>

struct fc_identity_part {
    const char *name;  /* as in the file, and in the error: "training data" */
    const char *value; /* a hash, a number */
};

/* Reads FOLDER/NAME and compares. If there is none, `create` writes it; without `create` that is an
 * error too (the folder holds texts of who knows whom). FC_ERR_INPUT names the first part that
 * differs and says to choose another --output. */
enum fc_code fc_identity_claim(const char *folder, const char *name,
                               const struct fc_identity_part *parts, size_t n, bool create,
                               struct fc_error *err);

/* A hash of strings as a value: begin, add each, end. "a", "b" and "ab" differ. */
struct fc_identity_hash {
    crypto_generichash_state state;
};
#define FC_IDENTITY_SIZE 33
void fc_identity_hash_begin(struct fc_identity_hash *h);
void fc_identity_hash_add(struct fc_identity_hash *h, const char *text); /* NULL is as "" */
void fc_identity_hash_end(struct fc_identity_hash *h, char value[FC_IDENTITY_SIZE]);

#endif
