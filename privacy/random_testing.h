/* For tests only: a random source of one's own. Programs and libraries must not include this; a
 * mechanism on a predictable source has no privacy. */
#ifndef FC_PRIVACY_RANDOM_TESTING_H
#define FC_PRIVACY_RANDOM_TESTING_H

#include "privacy/random.h"

static inline void fc_random_open_testing(struct fc_random *r,
                                          void (*fill)(void *, unsigned char *, size_t),
                                          void *context)
{
    r->fill = fill;
    r->context = context;
}

#endif
