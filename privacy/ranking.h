/* Rankings: a mechanism is a ranking, drawn from by the one exact sampler.
 *
 * For every position of a document a ranking orders the output vocabulary, best first; it gives the
 * first `depth` indices of that order (what follows them needs none, see privacy/sampler.h). It may
 * look at anything private: whatever it does, privacy is the profile's, as long as the number of
 * positions is public or accounted for. Ties and NaN are resolved by index, so that the order is
 * always a permutation; the sampler refuses one that is not.
 *
 * A new mechanism is a new fc_ranking_type: ranking E (privacy/ranking_embedding.h) looks at the
 * unit in a position; ranking A will look at the whole document and at what was drawn so far. */
#ifndef FC_PRIVACY_RANKING_H
#define FC_PRIVACY_RANKING_H

#include "privacy/units.h"

/* One private text, cut. Borrowed by the ranking until the next prepare. */
struct fc_document {
    const char *text;
    size_t len;
    struct fc_units units;
};

/* A position to rank. */
struct fc_query {
    const struct fc_document *document;
    size_t position;
    const int32_t *drawn; /* the outputs at 0 .. position-1 */
};

struct fc_ranking; /* each type's own */

struct fc_ranking_type {
    const char *name; /* in reports, ledgers and hashes: "embedding" */
    /* Position i stands for unit i, and there are as many as units (before caps and padding). If
     * not, a document has max_units positions, and a public word list cannot be used. */
    bool aligned;
    /* Announces n documents, so that work on them can be batched; ends the previous batch. */
    enum fc_code (*prepare)(struct fc_ranking *r, const struct fc_document *documents, size_t n,
                            size_t depth, struct fc_error *err);
    /* top[n, depth] for n positions of prepared documents. A position beyond the units of an
     * aligned document is padding: any fixed order. */
    enum fc_code (*rank)(struct fc_ranking *r, const struct fc_query *queries, size_t n,
                         size_t depth, int32_t *top, struct fc_error *err);
    void (*close)(struct fc_ranking *r); /* NULL is fine */
};

/* A ranking is a struct that begins with this. */
struct fc_ranking {
    const struct fc_ranking_type *type;
};

#endif
