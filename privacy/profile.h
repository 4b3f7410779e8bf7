/* A profile: how probable each rank is. Public, and all that privacy depends on.
 *
 * A profile splits the n_outputs elements of the output vocabulary V by rank into levels: the
 * first levels[0].n ranks have the integer weight W_0, the next levels[1].n the weight W_1, and so
 * on, W_0 >= W_1 >= ... . With S = sum n_l W_l, the output at a rank of level l has probability
 * W_l / S exactly (privacy/sampler.h). S is the same whatever is ranked, so for every output y and
 * every two inputs x, x'
 *
 *     Pr[y|x] / Pr[y|x'] = W_a / W_b <= W_0 / W_last
 *
 * which is local differential privacy with eps = ln(W_0 / W_last), for any ranking at all. (With
 * scores instead of ranks the normaliser would depend on x and cost another factor e^eps.) */
#ifndef FC_PRIVACY_PROFILE_H
#define FC_PRIVACY_PROFILE_H

#include "privacy/random.h"

#define FC_MAX_LEVELS 8
#define FC_MAX_WEIGHT ((uint64_t)1 << 56)
#define FC_MAX_OUTPUTS ((size_t)1 << 24)
#define FC_MAX_EPSILON 38.0 /* e^38 < 2^56 */

struct fc_level {
    uint64_t n;      /* ranks in this level, >= 1 */
    uint64_t weight; /* of each, 1 .. FC_MAX_WEIGHT */
};

/* Read-only for callers; filled by the functions below. */
struct fc_profile {
    struct fc_level levels[FC_MAX_LEVELS];
    size_t n_levels;
    size_t n_outputs; /* |V| = sum of n */
    size_t depth;     /* ranks above the last level: all that a ranking has to sort out */
    fc_u128 total;    /* S */
    double epsilon;   /* of one draw, rounded up */
    double stay;      /* chance that a draw is not from the last level, rounded to nearest */
};

/* From explicit levels. FC_ERR_USAGE for empty levels, rising weights or too many outputs. */
enum fc_code fc_profile_make(struct fc_profile *p, const struct fc_level *levels, size_t n_levels,
                             struct fc_error *err);

/* The usual profile: the m nearest against the rest, with the largest integer weights such that
 * p->epsilon <= epsilon. 1 <= m < n_outputs, 0 < epsilon <= FC_MAX_EPSILON, else FC_ERR_USAGE. */
enum fc_code fc_profile_two_level(struct fc_profile *p, size_t n_outputs, size_t m, double epsilon,
                                  struct fc_error *err);

/* The public rule for m: the smallest m with which a draw stays within the m nearest with
 * probability >= stay (0 < stay < 1), but at least 1 and at most n_outputs - 1. For
 * stay = 1/2 this is |V| / (1 + e^eps), the subset size that keeps the most information at this
 * epsilon (Ye and Barg, "Optimal schemes for discrete distribution estimation under locally
 * differential privacy", IEEE Trans. Inf. Theory 2018). */
size_t fc_profile_choose(size_t n_outputs, double epsilon, double stay);

/* An upper bound of ln(w0 / w1), w0 >= w1 >= 1: the quotient and its logarithm are rounded outward
 * by more than the error of the conversions, the division and any libm. 0 when w0 == w1. */
double fc_epsilon_upper(uint64_t w0, uint64_t w1);

/* BLAKE2b-256 of the levels. */
void fc_profile_hash(const struct fc_profile *p, unsigned char hash[32]);

/* Prints x with `digits` decimals (0 .. 9), rounded up: how an epsilon is to be shown. Infinity
 * is "inf". Returns text. */
char *fc_format_up(char text[40], double x, int digits);

#endif
