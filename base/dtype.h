/* Number formats of tensors in memory and in files. */
#ifndef FC_BASE_DTYPE_H
#define FC_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Formats that the engine computes in. File formats (Q4_0 and so on) are private to models/. */
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
static inline uint16_t fc_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    u += 0x7fffu + ((u >> 16) & 1u);
    return (uint16_t)(u >> 16);
}

#endif
