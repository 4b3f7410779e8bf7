/* Number formats of tensors in memory and in files. */
#ifndef FC_BASE_DTYPE_H
#define FC_BASE_DTYPE_H

#include "base/host_device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Formats that the engine computes in. File formats (Q4_0 and so on): base/dequant.h. */
enum fc_dtype { FC_F32 = 0, FC_BF16 = 1, FC_F16 = 2 };

/* Bytes of one element. */
static inline size_t fc_dtype_size(enum fc_dtype t)
{
    return t == FC_F32 ? 4 : 2;
}

/* "fp32", "bf16", "fp16": the names that --dtype takes and that reports print. */
static inline const char *fc_dtype_name(enum fc_dtype t)
{
    return t == FC_F32 ? "fp32" : t == FC_BF16 ? "bf16" : "fp16";
}

static inline float fc_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Round to nearest even; NaN stays a (quiet) NaN. */
FC_HOST_DEVICE static inline uint16_t fc_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    u += 0x7fffu + ((u >> 16) & 1u);
    return (uint16_t)(u >> 16);
}

/* IEEE binary16, subnormals included. */
static inline float fc_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, m = h & 0x3ffu;
    uint32_t u = sign | (exponent + 112u) << 23 | m << 13;
    if (exponent == 31) /* infinity or NaN */
        u = sign | 0x7f800000u | m << 13;
    float f;
    if (exponent == 0) { /* m * 2^-24, exact in fp32 */
        f = (float)m * 0x1p-24f;
        return sign ? -f : f;
    }
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Round to nearest even; too large becomes infinity; NaN stays a (quiet) NaN. */
FC_HOST_DEVICE static inline uint16_t fc_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* below 2^-14: subnormal, the sum of fp32 does the rounding */
        float magic = 0.5f, x;
        uint32_t bits;
        memcpy(&x, &a, sizeof x);
        x += magic; /* one unit in the last place of 0.5 is 2^-24 */
        memcpy(&bits, &x, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    a += 0xfffu + ((a >> 13) & 1u);
    return (uint16_t)(sign | ((a - 0x38000000u) >> 13));
}

/* Stochastic rounding: up with the probability that is what is cut off, so that the mean of many
 * draws is f itself. `random` is 32 uniform bits. Infinity and NaN stay; what nearest rounding
 * could carry past the largest number may become infinity here too. */
FC_HOST_DEVICE static inline uint16_t fc_f32_to_bf16_random(float f, uint32_t random)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7f800000u) == 0x7f800000u)
        return fc_f32_to_bf16(f);
    return (uint16_t)((u + (random >> 16)) >> 16);
}

FC_HOST_DEVICE static inline uint16_t fc_f32_to_f16_random(float f, uint32_t random)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a >= 0x7f800000u)
        return fc_f32_to_f16(f);
    if (a >= 0x38800000u) { /* 2^-14 and more: 13 bits are cut off */
        uint32_t h = (a + (random >> 19) - 0x38000000u) >> 13;
        return (uint16_t)(sign | (h < 0x7c00u ? h : 0x7c00u));
    }
    float units = (sign ? -f : f) * 0x1p24f; /* exact */
    uint32_t whole = (uint32_t)units;
    bool up = (float)(random >> 8) * 0x1p-24f < units - (float)whole;
    return (uint16_t)(sign | (whole + (up ? 1u : 0u)));
}

#endif
