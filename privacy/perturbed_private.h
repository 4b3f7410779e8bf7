/* Inside privacy/ only: whoever can fill this struct decides what leaves. */
#ifndef FC_PRIVACY_PERTURBED_PRIVATE_H
#define FC_PRIVACY_PERTURBED_PRIVATE_H

#include "privacy/perturbed.h"

struct fc_perturbed {
    char *text;
    size_t len;
    uint64_t draws;
    double epsilon;
    bool resent, is_protected, charged;
};

/* An object with a copy of text and every other field zero. */
enum fc_code fc_perturbed_make(struct fc_perturbed **p, const char *text, size_t len,
                               struct fc_error *err);

#endif
