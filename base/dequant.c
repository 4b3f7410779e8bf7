#include "base/dequant.h"

#include "base/dtype.h"

#include <string.h>

/* One rounding after each product and each sum, as the reference does: a fused multiply-add would
 * change last bits. (GCC does not contract in ISO mode and ignores the pragma; clang obeys it.) */
#pragma STDC FP_CONTRACT OFF

static uint16_t load16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static float half(const unsigned char *p)
{
    return fc_f16_to_f32(load16(p));
}

static void expand_f32(float *out, const unsigned char *in, size_t n)
{
    memcpy(out, in, n * sizeof *out);
}

static void expand_f16(float *out, const unsigned char *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = half(in + 2 * i);
}

static void expand_bf16(float *out, const unsigned char *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = fc_bf16_to_f32(load16(in + 2 * i));
}

/* ---- blocks of 32: a scale, perhaps a minimum, and 4, 5 or 8 bits each ----------------------
 *
 * The low nibbles of the 16 bytes are elements 0..15, the high ones 16..31; the fifth bit of
 * element i is bit i of a 32-bit word. */

static void expand_q8_0(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 34, out += 32) {
        float d = half(in);
        for (size_t i = 0; i < 32; i++)
            out[i] = (float)(int8_t)in[2 + i] * d;
    }
}

static void expand_q4_0(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 18, out += 32) {
        float d = half(in);
        for (size_t i = 0; i < 16; i++) {
            out[i] = d * (float)((in[2 + i] & 15) - 8);
            out[i + 16] = d * (float)((in[2 + i] >> 4) - 8);
        }
    }
}

static void expand_q4_1(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 20, out += 32) {
        float d = half(in), m = half(in + 2);
        for (size_t i = 0; i < 16; i++) {
            out[i] = d * (float)(in[4 + i] & 15) + m;
            out[i + 16] = d * (float)(in[4 + i] >> 4) + m;
        }
    }
}

static int fifth_bit(const unsigned char *bits, size_t i)
{
    return (bits[i / 8] >> (i % 8) & 1) << 4;
}

static void expand_q5_0(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 22, out += 32) {
        float d = half(in);
        for (size_t i = 0; i < 16; i++) {
            out[i] = d * (float)(((in[6 + i] & 15) | fifth_bit(in + 2, i)) - 16);
            out[i + 16] = d * (float)(((in[6 + i] >> 4) | fifth_bit(in + 2, i + 16)) - 16);
        }
    }
}

static void expand_q5_1(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 24, out += 32) {
        float d = half(in), m = half(in + 2);
        for (size_t i = 0; i < 16; i++) {
            out[i] = d * (float)((in[8 + i] & 15) | fifth_bit(in + 4, i)) + m;
            out[i + 16] = d * (float)((in[8 + i] >> 4) | fifth_bit(in + 4, i + 16)) + m;
        }
    }
}

/* ---- super-blocks of 256: half-precision scales of small integer scales ---------------------- */

/* The 2-bit fields of Q2_K and Q3_K: element i of 256 in 64 bytes. */
static int two_bits(const unsigned char *qs, size_t i)
{
    return qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3;
}

static void expand_q2_k(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 84, out += 256) {
        const unsigned char *scales = in, *qs = in + 16;
        float d = half(in + 80), dmin = half(in + 82);
        for (size_t g = 0; g < 16; g++) {
            float scale = d * (float)(scales[g] & 15), min = dmin * (float)(scales[g] >> 4);
            for (size_t i = g * 16; i < g * 16 + 16; i++)
                out[i] = scale * (float)two_bits(qs, i) - min;
        }
    }
}

static void expand_q3_k(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 110, out += 256) {
        const unsigned char *mask = in, *qs = in + 32, *scales = in + 96;
        float d = half(in + 108);
        for (size_t g = 0; g < 16; g++) {
            int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
            int high = scales[8 + g % 4] >> (2 * (g / 4)) & 3;
            float scale = d * (float)((low | high << 4) - 32);
            for (size_t i = g * 16; i < g * 16 + 16; i++) {
                int offset = mask[i % 32] >> (i / 32) & 1 ? 0 : 4; /* a set bit means no offset */
                out[i] = scale * (float)(two_bits(qs, i) - offset);
            }
        }
    }
}

/* Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into 12 bytes. */
static void six_bits(const unsigned char *s, size_t g, int *scale, int *min)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        *min = s[g + 4] >> 4 | s[g] >> 6 << 4;
    }
}

/* Q4_K without fifth bits (high == NULL), Q5_K with them. */
static void expand_k_block(float *out, const unsigned char *head, const unsigned char *high,
                           const unsigned char *qs)
{
    float d = half(head), dmin = half(head + 2);
    for (size_t g = 0; g < 8; g++) {
        int scale, min;
        six_bits(head + 4, g, &scale, &min);
        float ds = d * (float)scale, dm = dmin * (float)min;
        for (size_t i = 0; i < 32; i++) {
            int q = qs[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
            if (high)
                q |= (high[i] >> g & 1) << 4;
            out[g * 32 + i] = ds * (float)q - dm;
        }
    }
}

static void expand_q4_k(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 144, out += 256)
        expand_k_block(out, in, NULL, in + 16);
}

static void expand_q5_k(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 176, out += 256)
        expand_k_block(out, in, in + 16, in + 48);
}

static void expand_q6_k(float *out, const unsigned char *in, size_t n)
{
    for (size_t b = 0; b < n; b++, in += 210, out += 256) {
        const unsigned char *low = in, *high = in + 128, *scales = in + 192;
        float d = half(in + 208);
        for (size_t i = 0; i < 256; i++) {
            size_t part = i / 128, quarter = i % 128 / 32, lane = i % 32;
            int q = low[part * 64 + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 15;
            q |= (high[part * 32 + lane] >> (2 * quarter) & 3) << 4;
            out[i] = d * (float)(int8_t)scales[i / 16] * (float)(q - 32);
        }
    }
}

static const struct fc_weight_format formats[] = {
    {FC_GGML_F32, "F32", 1, 4, expand_f32},        {FC_GGML_F16, "F16", 1, 2, expand_f16},
    {FC_GGML_BF16, "BF16", 1, 2, expand_bf16},     {FC_GGML_Q8_0, "Q8_0", 32, 34, expand_q8_0},
    {FC_GGML_Q4_0, "Q4_0", 32, 18, expand_q4_0},   {FC_GGML_Q4_1, "Q4_1", 32, 20, expand_q4_1},
    {FC_GGML_Q5_0, "Q5_0", 32, 22, expand_q5_0},   {FC_GGML_Q5_1, "Q5_1", 32, 24, expand_q5_1},
    {FC_GGML_Q2_K, "Q2_K", 256, 84, expand_q2_k},  {FC_GGML_Q3_K, "Q3_K", 256, 110, expand_q3_k},
    {FC_GGML_Q4_K, "Q4_K", 256, 144, expand_q4_k}, {FC_GGML_Q5_K, "Q5_K", 256, 176, expand_q5_k},
    {FC_GGML_Q6_K, "Q6_K", 256, 210, expand_q6_k},
};

const struct fc_weight_format *fc_weight_format_at(size_t i)
{
    return i < sizeof formats / sizeof *formats ? &formats[i] : NULL;
}

const struct fc_weight_format *fc_weight_format(uint32_t type)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].type == type)
            return &formats[i];
    return NULL;
}

const struct fc_weight_format *fc_weight_format_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}
