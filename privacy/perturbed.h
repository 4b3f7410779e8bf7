/* struct fc_perturbed: the only kind of text that may leave the client.
 *
 * Opaque, and made in two ways only: by a perturber (privacy/perturb.h), or by
 * fc_perturbed_unprotected, which says in its name what it gives up. The network's choke point
 * takes this type and asks fc_perturbed_may_leave; so raw text cannot be sent by mistake.
 * Immutable. */
#ifndef FC_PRIVACY_PERTURBED_H
#define FC_PRIVACY_PERTURBED_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fc_perturbed;

/* The perturbed text, NUL-terminated UTF-8, owned by the object; len may be NULL. */
const char *fc_perturbed_text(const struct fc_perturbed *p, size_t *len);
/* Draws that it took: units replaced, padding included, words of the public list not. */
uint64_t fc_perturbed_draws(const struct fc_perturbed *p);
/* Its pure epsilon, rounded up; infinite for unprotected text. The same number whether it was drawn
 * now or before: what this run paid is in struct fc_run_report. */
double fc_perturbed_epsilon(const struct fc_perturbed *p);
/* Whether it came from the ledger, at no new cost. */
bool fc_perturbed_resent(const struct fc_perturbed *p);
/* False for unprotected text. */
bool fc_perturbed_protected(const struct fc_perturbed *p);
/* Whether it may be sent: it is charged in a ledger on disk, or explicitly unprotected. A
 * perturbation made without a ledger (a preview) may not. */
bool fc_perturbed_may_leave(const struct fc_perturbed *p);
void fc_perturbed_free(struct fc_perturbed *p); /* NULL is fine */

/* Raw text that is to leave in clear: the "unprotected" baseline on public data, nothing else.
 * Epsilon infinite; every report must say so. */
enum fc_code fc_perturbed_unprotected(struct fc_perturbed **p, const char *text, size_t len,
                                      struct fc_error *err);

#endif
