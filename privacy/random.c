#include "privacy/random.h"

#include <sodium.h>

static void fill_from_sodium(void *context, unsigned char *bytes, size_t n)
{
    (void)context;
    randombytes_buf(bytes, n);
}

enum fc_code fc_random_open(struct fc_random *r, struct fc_error *err)
{
    if (sodium_init() < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "libsodium: cannot start the random generator");
    *r = (struct fc_random){.fill = fill_from_sodium};
    return FC_OK;
}

fc_u128 fc_random_below(const struct fc_random *r, fc_u128 bound)
{
    size_t bits = 0;
    while (bits < 128 && (bound - 1) >> bits)
        bits++;
    if (bits == 0)
        return 0;
    fc_u128 mask = ~(fc_u128)0 >> (128 - bits);
    for (;;) {
        unsigned char bytes[16];
        size_t n = (bits + 7) / 8;
        r->fill(r->context, bytes, n);
        fc_u128 u = 0;
        for (size_t i = 0; i < n; i++)
            u = u << 8 | bytes[i];
        sodium_memzero(bytes, sizeof bytes);
        u &= mask;
        if (u < bound)
            return u;
    }
}
