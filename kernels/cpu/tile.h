/* Register-blocked pieces that both attentions are made of: small fp32 matrix products, the
 * transposition that feeds them, and one step of the online softmax. Private to kernels/cpu.
 *
 * Everything works on fp32 copies of blocks in a thread's own scratch (L1 and L2), head size padded
 * with zeros to a multiple of 16 lanes. One product shape serves all seven products of attention:
 *
 *     c[m, n] (+)= a[m, k] b[k, n]     a read one float at a time with any two strides (so a
 *                                      transposed `a` costs nothing), b and c in rows of 16 lanes
 *
 * Every element of c is one chain of fused multiply-adds in the order of k, whatever m and n are
 * and wherever the element lies in a block: so a row computed alone and among others has the same
 * bits, which paged_attention.c promises.
 *
 * Floor: one 512-bit FMA per cycle on Zen 4. Eight rows by 32 lanes are 16 accumulators, 16 FMAs
 * for 2 loads and 8 broadcasts, so the FMA unit is the limit; four rows and fewer take 64 lanes, to
 * have enough independent chains to cover the latency of four cycles. */
#ifndef FC_KERNELS_CPU_TILE_H
#define FC_KERNELS_CPU_TILE_H

#include "kernels/cpu/cpu.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

enum {
    FC_TILE_LANES = 16,
    FC_TILE_ROWS = 8,  /* rows of one register block */
    FC_TILE_KEYS = 64, /* keys of one block of attention */
    FC_TILE_MAX_HS = 256
};

#define FC_TILE_INLINE static inline __attribute__((always_inline))

typedef float fc_lanes __attribute__((vector_size(64)));
typedef uint32_t fc_words __attribute__((vector_size(64)));

static inline size_t fc_tile_pad(size_t n)
{
    return (n + FC_TILE_LANES - 1) / FC_TILE_LANES * FC_TILE_LANES;
}

/* acc += a * b in all lanes. By pointer: a vector wider than the machine's has no stable ABI. */
FC_TILE_INLINE void fc_lanes_fma(fc_lanes *acc, float a, const fc_lanes *b)
{
#ifdef __AVX512F__
    *acc = (fc_lanes)_mm512_fmadd_ps(_mm512_set1_ps(a), (__m512)*b, (__m512)*acc);
#else
    for (int i = 0; i < FC_TILE_LANES; i++)
        (*acc)[i] = fc_cpu_fma(a, (*b)[i], (*acc)[i]);
#endif
}

/* The sixteen lanes folded in halves: a fixed order. */
FC_TILE_INLINE float fc_lanes_sum(const fc_lanes *x)
{
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)*x);
#else
    fc_lanes v = *x;
    for (int half = FC_TILE_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            v[i] += v[i + half];
    return v[0];
#endif
}

/* The largest of n floats, n a multiple of 16. */
FC_TILE_INLINE float fc_lanes_max(const float *x, size_t n)
{
#ifdef __AVX512F__
    __m512 top = _mm512_loadu_ps(x);
    for (size_t j = FC_TILE_LANES; j < n; j += FC_TILE_LANES)
        top = _mm512_max_ps(top, _mm512_loadu_ps(x + j));
    return _mm512_reduce_max_ps(top);
#else
    float top = x[0];
    for (size_t j = 1; j < n; j++)
        top = x[j] > top ? x[j] : top;
    return top;
#endif
}

/* ---- products ------------------------------------------------------------------------------- */

/* A product c[m, n] (+)= a[m, k] b[k, n]; n a multiple of 16, b and c of row length ldb and ldc. */
struct fc_tile {
    float *c;
    const float *a, *b;
    size_t m, n, k;
    size_t ldc, ldb;
    size_t a_row, a_k; /* a's element (i, l) is a[i * a_row + l * a_k] */
    bool add;          /* c += instead of c = */
};

/* `rows` (1 to 8) by 16 `width` lanes at column `at`; both constants after inlining. */
FC_TILE_INLINE void fc_tile_block(const struct fc_tile *t, size_t at, int rows, int width)
{
    const float *a = t->a, *b = t->b + at;
    float *c = t->c + at;
    fc_lanes acc[FC_TILE_ROWS][4];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int w = 0; w < width; w++) {
            if (t->add)
                memcpy(&acc[r][w], c + (size_t)r * t->ldc + (size_t)w * FC_TILE_LANES, 64);
            else
                acc[r][w] = (fc_lanes){0};
        }
    for (size_t l = 0; l < t->k; l++, a += t->a_k, b += t->ldb) {
        fc_lanes line[4];
#pragma GCC unroll 4
        for (int w = 0; w < width; w++)
            memcpy(&line[w], b + (size_t)w * FC_TILE_LANES, 64);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int w = 0; w < width; w++)
                fc_lanes_fma(&acc[r][w], a[(size_t)r * t->a_row], &line[w]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int w = 0; w < width; w++)
            memcpy(c + (size_t)r * t->ldc + (size_t)w * FC_TILE_LANES, &acc[r][w], 64);
}

FC_TILE_INLINE void fc_tile_rows(const struct fc_tile *t, int rows)
{
    size_t at = 0;
    if (rows <= 4)
        for (; at + 64 <= t->n; at += 64)
            fc_tile_block(t, at, rows, 4);
    for (; at + 32 <= t->n; at += 32)
        fc_tile_block(t, at, rows, 2);
    if (at < t->n)
        fc_tile_block(t, at, rows, 1);
}

static inline void fc_tile_multiply(const struct fc_tile *product)
{
    struct fc_tile t = *product;
    for (; t.m >= FC_TILE_ROWS; t.m -= FC_TILE_ROWS) {
        fc_tile_rows(&t, FC_TILE_ROWS);
        t.a += FC_TILE_ROWS * t.a_row;
        t.c += FC_TILE_ROWS * t.ldc;
    }
    switch (t.m) {
    case 1:
        fc_tile_rows(&t, 1);
        break;
    case 2:
        fc_tile_rows(&t, 2);
        break;
    case 3:
        fc_tile_rows(&t, 3);
        break;
    case 4:
        fc_tile_rows(&t, 4);
        break;
    case 5:
        fc_tile_rows(&t, 5);
        break;
    case 6:
        fc_tile_rows(&t, 6);
        break;
    case 7:
        fc_tile_rows(&t, 7);
        break;
    default:
        break;
    }
}

/* ---- packing -------------------------------------------------------------------------------- */

/* Channels at .. at + 16 of a head of hs channels, as fp32, zeros behind hs. */
FC_TILE_INLINE void fc_lanes_load(fc_lanes *x, const void *head, size_t at, size_t hs,
                                  enum fc_dtype dt)
{
    size_t left = hs - at;
#ifdef __AVX512BW__
    __mmask16 mask = _cvtu32_mask16(left < FC_TILE_LANES ? (1u << left) - 1u : 0xffffu);
    if (dt == FC_F32) {
        *x = (fc_lanes)_mm512_maskz_loadu_ps(mask, (const float *)head + at);
    } else {
        __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)head + at);
        *x = (fc_lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
    }
#else
    float v[FC_TILE_LANES] = {0};
    fc_cpu_load(v, head, at, left < FC_TILE_LANES ? left : FC_TILE_LANES, dt);
    memcpy(x, v, sizeof v);
#endif
}

/* Bf16 channels at .. at + 32 of a head, two to a lane (the first in the low half), zeros behind.
 */
FC_TILE_INLINE void fc_lanes_load_pairs(fc_lanes *x, const void *head, size_t at, size_t hs)
{
    size_t left = hs - at;
#ifdef __AVX512BW__
    __mmask32 mask = left < 32 ? (1u << left) - 1u : 0xffffffffu;
    *x = (fc_lanes)_mm512_maskz_loadu_epi16(mask, (const uint16_t *)head + at);
#else
    uint16_t v[2 * FC_TILE_LANES] = {0};
    memcpy(v, (const uint16_t *)head + at, fc_cpu_min(left, 32) * sizeof *v);
    memcpy(x, v, sizeof v);
#endif
}

/* dst[0..pad(hs)) = one head of one token times `scale`, zeros behind hs. */
static inline void fc_tile_load(float *restrict dst, const void *head, size_t hs, float scale,
                                enum fc_dtype dt)
{
    for (size_t c = 0; c < hs; c += FC_TILE_LANES) {
        fc_lanes x;
        fc_lanes_load(&x, head, c, hs, dt);
        x *= scale;
        memcpy(dst + c, &x, sizeof x);
    }
}

/* Sixteen rows of sixteen lanes change place with their columns. */
FC_TILE_INLINE void fc_lanes_transpose(fc_lanes *x)
{
#ifdef __AVX512F__
    /* Pairs, quads, then 128-bit blocks change places: 64 shuffles for 256 floats. */
    __m512 r[16], t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps((__m512)x[i], (__m512)x[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps((__m512)x[i], (__m512)x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        __m512d t0 = _mm512_castps_pd(t[i]), t1 = _mm512_castps_pd(t[i + 1]);
        __m512d t2 = _mm512_castps_pd(t[i + 2]), t3 = _mm512_castps_pd(t[i + 3]);
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(t0, t2));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(t0, t2));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(t1, t3));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(t1, t3));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        x[i] = (fc_lanes)_mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        x[i + 8] = (fc_lanes)_mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    }
#else
    for (int i = 0; i < FC_TILE_LANES; i++)
        for (int j = 0; j < i; j++) {
            float swap = x[i][j];
            x[i][j] = x[j][i];
            x[j][i] = swap;
        }
#endif
}

/* One head of a block of keys or values as it lies in memory: that of token i < n is the hs
 * elements `offset` behind token[i]. */
struct fc_tile_heads {
    const void *token[FC_TILE_KEYS];
    size_t n, offset, hs;
    enum fc_dtype dt;
};

FC_TILE_INLINE const void *fc_tile_head(const struct fc_tile_heads *h, size_t i)
{
    return fc_cpu_at(h->token[i], h->offset, h->dt);
}

/* dst[n][pad(hs)] = the heads. */
static inline void fc_tile_copy(float *restrict dst, const struct fc_tile_heads *h)
{
    for (size_t i = 0; i < h->n; i++)
        fc_tile_load(dst + i * fc_tile_pad(h->hs), fc_tile_head(h, i), h->hs, 1.0f, h->dt);
}

/* Up to sixteen heads from token i, channels from c: dst's rows from c, columns from i. */
FC_TILE_INLINE void fc_tile_turn_f32(float *restrict dst, const struct fc_tile_heads *h, size_t i,
                                     size_t c)
{
    fc_lanes x[FC_TILE_LANES] = {{0}};
    for (size_t r = 0; r < FC_TILE_LANES && i + r < h->n; r++)
        fc_lanes_load(&x[r], fc_tile_head(h, i + r), c, h->hs, FC_F32);
    fc_lanes_transpose(x);
    for (size_t r = 0; r < FC_TILE_LANES; r++)
        memcpy(dst + (c + r) * FC_TILE_KEYS + i, &x[r], sizeof x[r]);
}

/* The same for bf16 and 32 channels: two neighbours travel as one word, for half the shuffles, and
 * part behind the transposition. */
FC_TILE_INLINE void fc_tile_turn_bf16(float *restrict dst, const struct fc_tile_heads *h, size_t i,
                                      size_t c)
{
    fc_lanes x[FC_TILE_LANES] = {{0}};
    for (size_t r = 0; r < FC_TILE_LANES && i + r < h->n; r++)
        fc_lanes_load_pairs(&x[r], fc_tile_head(h, i + r), c, h->hs);
    fc_lanes_transpose(x);
    for (size_t r = 0; r < FC_TILE_LANES && c + 2 * r < fc_tile_pad(h->hs); r++) {
        fc_words even = (fc_words)x[r] << 16, odd = (fc_words)x[r] & 0xffff0000u;
        memcpy(dst + (c + 2 * r) * FC_TILE_KEYS + i, &even, sizeof even);
        memcpy(dst + (c + 2 * r + 1) * FC_TILE_KEYS + i, &odd, sizeof odd);
    }
}

/* dst[pad(hs)][FC_TILE_KEYS] = the heads transposed, zeros behind n up to pad(n). */
static inline void fc_tile_transpose(float *restrict dst, const struct fc_tile_heads *h)
{
    for (size_t i = 0; i < h->n; i += FC_TILE_LANES)
        if (h->dt == FC_F32)
            for (size_t c = 0; c < h->hs; c += FC_TILE_LANES)
                fc_tile_turn_f32(dst, h, i, c);
        else
            for (size_t c = 0; c < h->hs; c += 2 * FC_TILE_LANES)
                fc_tile_turn_bf16(dst, h, i, c);
}

/* ---- online softmax ------------------------------------------------------------------------- */

/* Brings one query row into its next block of keys (Milakov and Gimelshein 2018): `s` holds n
 * scores (n a multiple of 16) of which the first `valid` count; they become exp(s - max), zero
 * behind `valid`. *max, *sum and o[hsp] are the row's running state. valid == 0 changes nothing. */
static inline void fc_tile_softmax(float *restrict s, size_t valid, size_t n, float *restrict max,
                                   float *restrict sum, float *restrict o, size_t hsp)
{
    if (valid == 0) {
        memset(s, 0, n * sizeof *s);
        return;
    }
    for (size_t j = valid; j < n; j++)
        s[j] = -INFINITY;
    float peak = fc_lanes_max(s, n);
    peak = peak > *max ? peak : *max;
    fc_lanes part = {0}, x;
    for (size_t j = 0; j < n; j += FC_TILE_LANES) {
        fc_cpu_exp_row(s + j, FC_TILE_LANES, peak);
        memcpy(&x, s + j, sizeof x);
        part += x;
    }
    if (peak > *max) {
        float shrink = fc_cpu_exp(*max - peak);
        *sum *= shrink;
        for (size_t c = 0; c < hsp; c++)
            o[c] *= shrink;
    }
    *sum += fc_lanes_sum(&part);
    *max = peak;
}

#endif
