/* Products with weights that stay in blocks of 32: Q4_0, Q4_1, Q8_0.
 *
 * Floor: with few rows the weights must be read, 0.625 bytes each (0.5 and an fp32 scale for 32);
 * 2 m n k FLOPs. Four rows of weights at a time are expanded, FC_CPU_CHUNK elements of each, into 8
 * KB that stay in the L1 cache, and multiplied with up to 32 rows of x. What an expanded weight
 * costs, about 8 instructions for 16 of them, is shared by those rows.
 *
 * Every element of y has 16 partial sums, over the elements of x whose index is the same modulo 16,
 * in rising order, added in the end in a fixed order: the same bits whatever m and the threads. */
#include "base/dequant.h"
#include "kernels/cpu/cpu.h"

#include <stdlib.h>

enum { BLOCK = 32, LANES = 16, COLUMNS = 4, ROWS = 32 };

/* Planes: the file's quants by themselves, the scales (and minima of Q4_1) in fp32. */
struct fc_quantised {
    size_t n, k;
    uint32_t type;
    size_t quant_bytes; /* of a block */
    unsigned char *quants;
    float *scales, *minima; /* [n, k / 32]; minima NULL but for Q4_1 */
};

static float half_at(const unsigned char *p)
{
    return fc_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

struct fc_quantised *fc_cpu_quantised_open(struct fc_stream *s, const void *blocks, uint32_t type,
                                           size_t n, size_t k, size_t *bytes)
{
    const struct fc_weight_format *format = fc_cpu_ok(s) ? fc_cpu_format(s, type) : NULL;
    if (!format)
        return NULL;
    if ((type != FC_GGML_Q4_0 && type != FC_GGML_Q4_1 && type != FC_GGML_Q8_0) || k % BLOCK) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "quantised weights: expected rows of whole blocks in Q4_0, Q4_1 or Q8_0, found %s "
                "and rows of %zu",
                format->name, k);
        return NULL;
    }
    struct fc_quantised *w = calloc(1, sizeof *w);
    if (!w) {
        fc_fail(&s->error, FC_ERR_MEMORY, "out of memory: quantised weights");
        return NULL;
    }
    size_t count = n * (k / BLOCK), head = type == FC_GGML_Q4_1 ? 4 : 2;
    *w = (struct fc_quantised){.n = n, .k = k, .type = type, .quant_bytes = format->bytes - head};
    w->quants = fc_cpu_acquire(count * w->quant_bytes, "quantised weights", &s->error);
    w->scales = fc_cpu_acquire(count * sizeof(float), "scales of weights", &s->error);
    if (type == FC_GGML_Q4_1)
        w->minima = fc_cpu_acquire(count * sizeof(float), "minima of weights", &s->error);
    *bytes = count * (w->quant_bytes + (w->minima ? 2 : 1) * sizeof(float));
    if (!fc_cpu_ok(s)) {
        fc_cpu_quantised_close(s, w);
        return NULL;
    }
#pragma omp parallel for schedule(static) num_threads(fc_cpu_threads(s, n *k))
    for (size_t b = 0; b < count; b++) {
        const unsigned char *from = (const unsigned char *)blocks + b * format->bytes;
        w->scales[b] = half_at(from);
        if (w->minima)
            w->minima[b] = half_at(from + 2);
        memcpy(w->quants + b * w->quant_bytes, from + head, w->quant_bytes);
    }
    return w;
}

void fc_cpu_quantised_close(struct fc_stream *s, struct fc_quantised *w)
{
    (void)s;
    if (!w)
        return;
    fc_cpu_release(w->quants);
    fc_cpu_release(w->scales);
    fc_cpu_release(w->minima);
    free(w);
}

/* ---- expanding ------------------------------------------------------------------------------ */

static void expand_q8_0(float *restrict out, const unsigned char *restrict q, float d)
{
    for (size_t i = 0; i < BLOCK; i++)
        out[i] = (float)(int8_t)q[i] * d;
}

static void expand_q4_0(float *restrict out, const unsigned char *restrict q, float d)
{
    for (size_t i = 0; i < BLOCK / 2; i++)
        out[i] = d * (float)((q[i] & 15) - 8);
    for (size_t i = 0; i < BLOCK / 2; i++)
        out[BLOCK / 2 + i] = d * (float)((q[i] >> 4) - 8);
}

static void expand_q4_1(float *restrict out, const unsigned char *restrict q, float d, float m)
{
    for (size_t i = 0; i < BLOCK / 2; i++)
        out[i] = d * (float)(q[i] & 15) + m;
    for (size_t i = 0; i < BLOCK / 2; i++)
        out[BLOCK / 2 + i] = d * (float)(q[i] >> 4) + m;
}

/* out[count] = the weights of row `row` from column `first` on; both multiples of 32. */
static void expand(float *out, const struct fc_quantised *w, size_t row, size_t first, size_t count)
{
    size_t b = row * (w->k / BLOCK) + first / BLOCK;
    const unsigned char *q = w->quants + b * w->quant_bytes;
    for (size_t i = 0; i < count; i += BLOCK, b++, q += w->quant_bytes) {
        if (w->type == FC_GGML_Q8_0)
            expand_q8_0(out + i, q, w->scales[b]);
        else if (w->type == FC_GGML_Q4_0)
            expand_q4_0(out + i, q, w->scales[b]);
        else
            expand_q4_1(out + i, q, w->scales[b], w->minima[b]);
    }
}

void fc_cpu_embed_quantised(struct fc_stream *s, void *out, const struct fc_quantised *w,
                            const int32_t *ids, size_t T, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
#pragma omp parallel for schedule(static) num_threads(fc_cpu_threads(s, T * w->k))
    for (size_t t = 0; t < T; t++) {
        float values[FC_CPU_CHUNK];
        for (size_t c = 0; c < w->k; c += FC_CPU_CHUNK) {
            size_t now = fc_cpu_min(FC_CPU_CHUNK, w->k - c);
            expand(values, w, (size_t)ids[t], c, now);
            fc_cpu_store(out, t * w->k + c, values, now, dt);
        }
    }
}

/* ---- products ------------------------------------------------------------------------------- */

/* sums[c] += the products of x and row c of w, FC_CPU_CHUNK floats apart, by lanes. */
static void add_products(float (*restrict sums)[LANES], const float *restrict w,
                         const float *restrict x, size_t count)
{
    float a[LANES], b[LANES], c[LANES],
        d[LANES]; /* four registers, where the machine has AVX-512 */
    memcpy(a, sums[0], sizeof a);
    memcpy(b, sums[1], sizeof b);
    memcpy(c, sums[2], sizeof c);
    memcpy(d, sums[3], sizeof d);
    for (size_t i = 0; i < count; i += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            float v = x[i + l];
            a[l] = fc_cpu_fma(v, w[i + l], a[l]);
            b[l] = fc_cpu_fma(v, w[FC_CPU_CHUNK + i + l], b[l]);
            c[l] = fc_cpu_fma(v, w[2 * FC_CPU_CHUNK + i + l], c[l]);
            d[l] = fc_cpu_fma(v, w[3 * FC_CPU_CHUNK + i + l], d[l]);
        }
    }
    memcpy(sums[0], a, sizeof a);
    memcpy(sums[1], b, sizeof b);
    memcpy(sums[2], c, sizeof c);
    memcpy(sums[3], d, sizeof d);
}

static float add_lanes(const float *sums)
{
    float half[LANES / 2];
    for (size_t l = 0; l < LANES / 2; l++)
        half[l] = sums[l] + sums[l + LANES / 2];
    for (size_t n = LANES / 4; n > 0; n /= 2)
        for (size_t l = 0; l < n; l++)
            half[l] += half[l + n];
    return half[0];
}

/* COLUMNS columns of y from `first` on, for m <= ROWS rows of x, fp32 [m, k]. */
static void multiply(void *y, enum fc_dtype y_type, const float *x, const struct fc_quantised *w,
                     size_t m, size_t first)
{
    float sums[ROWS][COLUMNS][LANES], weights[COLUMNS][FC_CPU_CHUNK];
    size_t columns = fc_cpu_min(COLUMNS, w->n - first);
    memset(sums, 0, m * sizeof *sums);
    for (size_t at = 0; at < w->k; at += FC_CPU_CHUNK) {
        size_t now = fc_cpu_min(FC_CPU_CHUNK, w->k - at);
        for (size_t c = 0; c < COLUMNS; c++) /* beyond the last: again the last, not stored */
            expand(weights[c], w, first + fc_cpu_min(c, columns - 1), at, now);
        for (size_t r = 0; r < m; r++)
            add_products(sums[r], weights[0], x + r * w->k + at, now);
    }
    for (size_t r = 0; r < m; r++) {
        float values[COLUMNS];
        for (size_t c = 0; c < columns; c++)
            values[c] = add_lanes(sums[r][c]);
        fc_cpu_store(y, r * w->n + first, values, columns, y_type);
    }
}

void fc_cpu_gemm_quantised(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                           enum fc_dtype x_type, const struct fc_quantised *w, size_t m)
{
    float *rows = NULL;
    if (!fc_cpu_ok(s) || m == 0)
        return;
    if (x_type != FC_F32 &&
        !(rows = fc_cpu_product_scratch(s, fc_cpu_min(ROWS, m) * w->k * sizeof(float))))
        return;
    for (size_t at = 0; at < m; at += ROWS) {
        size_t now = fc_cpu_min(ROWS, m - at), groups = (w->n + COLUMNS - 1) / COLUMNS;
        const float *from = fc_cpu_view(rows, x, at * w->k, now * w->k, x_type);
        void *to = (char *)y + at * w->n * fc_dtype_size(y_type);
#pragma omp parallel for schedule(static) num_threads(fc_cpu_threads(s, w->n * w->k))
        for (size_t g = 0; g < groups; g++)
            multiply(to, y_type, from, w, now, g * COLUMNS);
    }
}
