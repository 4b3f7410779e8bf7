/* The exact sampler: one draw from a profile over one ranking.
 *
 * An integer u uniform in [0, S) falls on a rank, the rank on an output. Only integers decide, so
 * the probabilities are W_l / S exactly, and nothing about the ranking but its being a permutation
 * matters for privacy. A ranking is given by its first `depth` indices; the ranks after them hold
 * the indices that are left, in rising order, so that no full sort is needed.
 *
 * Work per draw: the rank depends on the random integer alone; turning it into an output passes
 * over all of the bitmap of V and all of `top` whatever they hold, so the number of steps does not
 * depend on the private input. (Memory addresses do; an adversary on the client's own machine is
 * not what this defends against.) */
#ifndef FC_PRIVACY_SAMPLER_H
#define FC_PRIVACY_SAMPLER_H

#include "privacy/profile.h"

/* Fields are private. One sampler, one thread. */
struct fc_sampler {
    const struct fc_profile *profile; /* borrowed */
    uint64_t *taken;                  /* bitmap of V, scratch of a draw */
    size_t n_taken;                   /* its words */
};

enum fc_code fc_sampler_open(struct fc_sampler *s, const struct fc_profile *profile,
                             struct fc_error *err);
void fc_sampler_close(struct fc_sampler *s); /* a zeroed struct is fine */

/* *output = a draw for the ranking that begins with top[profile->depth]. FC_ERR_INTERNAL if these
 * are not distinct indices below n_outputs: then the ranking is no permutation and nothing is
 * drawn. */
enum fc_code fc_sampler_draw(struct fc_sampler *s, const struct fc_random *random,
                             const int32_t *top, int32_t *output, struct fc_error *err);

/* The output on which the integer u < S falls; fc_sampler_draw is this of a random u. Public so
 * that an audit can go through every u. */
enum fc_code fc_sampler_map(struct fc_sampler *s, fc_u128 u, const int32_t *top, int32_t *output,
                            struct fc_error *err);

/* The rank on which u < S falls. */
size_t fc_profile_rank(const struct fc_profile *p, fc_u128 u);

#endif
