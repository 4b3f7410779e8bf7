/* Philox4x32-10, the counter-based generator of training and token sampling (Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 *
 * A draw depends on nothing but (seed, stream, position): no state, no order, the same bits on the
 * CPU and on a GPU. Not for privacy: what leaves the client is drawn by privacy/ from libsodium. */
#ifndef FC_BASE_PHILOX_H
#define FC_BASE_PHILOX_H

#include "base/host_device.h"

#include <stdint.h>

/* Four 32-bit words for key `seed` and 128-bit counter (stream, position). */
FC_HOST_DEVICE static inline void fc_philox(uint64_t seed, uint64_t stream, uint64_t position,
                                            uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Uniform in [0, 1) with 24 bits, exact in fp32. */
FC_HOST_DEVICE static inline float fc_philox_uniform(uint64_t seed, uint64_t stream,
                                                     uint64_t position)
{
    uint32_t w[4];
    fc_philox(seed, stream, position, w);
    return (float)(w[0] >> 8) * 0x1p-24f;
}

#endif
