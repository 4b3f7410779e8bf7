/* The mechanism's randomness: libsodium's CSPRNG, never the training seed.
 *
 * A struct fc_random made by fc_random_open always draws from the operating system through
 * libsodium; there is no seed and no state, so nothing repeats after a fork or a restored
 * snapshot. (Tests inject a source through privacy/random_testing.h, which no program includes.) */
#ifndef FC_PRIVACY_RANDOM_H
#define FC_PRIVACY_RANDOM_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* 128-bit integers: sums of level weights do not fit in 64 bits. */
__extension__ typedef unsigned __int128 fc_u128;

/* Fields are private. */
struct fc_random {
    void (*fill)(void *context, unsigned char *bytes, size_t n);
    void *context;
};

/* FC_ERR_INTERNAL if libsodium cannot start. Nothing to close. */
enum fc_code fc_random_open(struct fc_random *r, struct fc_error *err);

/* An unbiased integer in [0, bound), bound >= 1: the low bits of fresh words, drawn again while
 * they are >= bound (under two draws on average). No value is more likely than another, unlike
 * with a remainder or a float. */
fc_u128 fc_random_below(const struct fc_random *r, fc_u128 bound);

#endif
