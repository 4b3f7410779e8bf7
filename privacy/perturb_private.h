/* Shared by perturb.c (what the mechanism is) and perturb_run.c (running it). */
#ifndef FC_PRIVACY_PERTURB_PRIVATE_H
#define FC_PRIVACY_PERTURB_PRIVATE_H

#include "privacy/perturb.h"
#include "privacy/sampler.h"
#include "privacy/units.h"

struct fc_perturber {
    struct fc_ranking *ranking;
    struct fc_vocabulary *vocabulary;
    struct fc_profile profile;
    struct fc_sampler sampler;
    struct fc_random random;
    struct fc_cutter *cutter;
    double wanted, delta;
    size_t max_units;
    bool pad;
    char **public_words;
    size_t n_public;
    unsigned char hash[32];
};

/* The index of a unit in the public list, ASCII case ignored; n_public if it is not there. */
size_t fc_perturber_public(const struct fc_perturber *p, const char *unit, size_t len);

#endif
