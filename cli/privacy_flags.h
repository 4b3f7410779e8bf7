/* The flags of privacy, shared by `perturb` and `distill`, and what they build. */
#ifndef FC_CLI_PRIVACY_FLAGS_H
#define FC_CLI_PRIVACY_FLAGS_H

#include "cli/options.h"
#include "models/template.h"
#include "privacy/perturb.h"

struct fc_privacy_flags {
    double epsilon, budget, delta, stay;
    const char *ledger;
    size_t nearest, vocabulary, max_words;
    struct fc_strings public_words;
    bool pad;
};
extern const struct fc_option fc_privacy_options[];

/* What the table cannot say: --epsilon is needed, and --pad needs --max-words. */
enum fc_code fc_privacy_flags_check(const struct fc_privacy_flags *f, struct fc_error *err);
/* Borrows the public words. */
struct fc_perturber_options fc_privacy_flags_apply(const struct fc_privacy_flags *f);
/* Opens --ledger, or `fallback` without it, and keeps its head beside the results (`head`). */
enum fc_code fc_privacy_flags_ledger(struct fc_ledger **ledger, const struct fc_privacy_flags *f,
                                     const char *fallback, const char *head, struct fc_error *err);

/* The texts of examples that are perturbed: items[n] point into rendered[n] and to the ids. */
struct fc_private_texts {
    struct fc_text *rendered;
    struct fc_private_text *items;
    size_t n;
};
/* Renders the template `perturb` for the examples order[0 .. n-1], or 0 .. n-1 if order is NULL.
 * Release with fc_private_texts_free, also after an error. */
enum fc_code fc_private_texts_render(struct fc_private_texts *t, const struct fc_dataset *data,
                                     const struct fc_task_templates *templates, const size_t *order,
                                     size_t n, struct fc_error *err);
void fc_private_texts_free(struct fc_private_texts *t); /* a zeroed struct is fine */

#endif
