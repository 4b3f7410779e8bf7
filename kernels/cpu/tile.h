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

/* dst[0..pad(hs)) = one head of one token times `scale`, zeros behind hs. */
static inline void fc_tile_load_head(float *restrict dst, const void *restrict src, size_t offset,
                                     size_t hs, float scale, enum fc_dtype dt)
{
    fc_cpu_load(dst, src, offset, hs, dt);
    if (scale != 1.0f)
#pragma omp simd
        for (size_t c = 0; c < hs; c++)
            dst[c] *= scale;
    for (size_t c = hs; c < fc_tile_pad(hs); c++)
        dst[c] = 0.0f;
}

/* dst[c * ld + r] = src[r * lds + c], 16 by 16. */
static inline void fc_tile_transpose16(float *restrict dst, size_t ld, const float *restrict src,
                                       size_t lds)
{
#ifdef __AVX512F__
    /* Pairs, quads, then 128-bit blocks change places: 64 shuffles for 256 floats. */
    __m512 r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(src + (size_t)i * lds);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
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
        _mm512_storeu_ps(dst + (size_t)i * ld, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_ps(dst + (size_t)(i + 8) * ld, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
    }
#else
    for (size_t c = 0; c < 16; c++)
        for (size_t r = 0; r < 16; r++)
            dst[c * ld + r] = src[r * lds + c];
#endif
}

/* dst[c][FC_TILE_KEYS] = rows[FC_TILE_KEYS][hsp] transposed; rows n .. pad(n) are read as well. */
static inline void fc_tile_transpose(float *restrict dst, const float *restrict rows, size_t n,
                                     size_t hsp)
{
    for (size_t j = 0; j < n; j += FC_TILE_LANES)
        for (size_t c = 0; c < hsp; c += FC_TILE_LANES)
            fc_tile_transpose16(dst + c * FC_TILE_KEYS + j, FC_TILE_KEYS, rows + j * hsp + c, hsp);
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
    for (size_t j = valid / FC_TILE_LANES * FC_TILE_LANES; j < n; j++)
        s[j] = j < valid ? s[j] : -INFINITY;
    float peak = fc_lanes_max(s, n);
    peak = peak > *max ? peak : *max;
    fc_lanes part = {0}, x;
    for (size_t j = 0; j < n; j += FC_TILE_LANES) { /* sixteen at a time: no remainder loop */
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
