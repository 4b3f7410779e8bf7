/* Private to the CPU back end: the stream, rows as fp32, and the declaration of every entry.
 *
 * All kernels compute in fp32 and read and write fp32 or bf16. They do it one chunk of a row at a
 * time: fc_cpu_view or fc_cpu_load gives FC_CPU_CHUNK floats (2 KiB, they stay in the L1 cache),
 * the arithmetic is written once, fc_cpu_store rounds. So there is one loop for all dtypes and the
 * compiler vectorises all three steps.
 *
 * Threads: every loop is `omp parallel for num_threads(s->threads)` over rows or blocks whose size
 * does not depend on the number of threads, and no two iterations write the same place. Sums across
 * rows go over a fixed number of slices (FC_CPU_SLICES). Hence the same bits for any thread count.
 */
#ifndef FC_KERNELS_CPU_CPU_H
#define FC_KERNELS_CPU_CPU_H

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

struct fc_weight_format;
struct fc_cpu_products; /* oneDNN engine, cached primitives and their scratch: private to onednn.c
                         */

/* One host thread uses a stream at a time; different streams may run at the same time. */
struct fc_stream {
    int threads;           /* of every parallel region started for this stream */
    struct fc_error error; /* sticky: first error since the last sync */
    struct fc_cpu_products *products;
};

enum {
    FC_CPU_CHUNK = 512,     /* floats converted at a time */
    FC_CPU_SLICES = 64,     /* partitions of T in reductions over rows; FC_ROW_SLICES at most */
    FC_CPU_GRAIN = 1 << 14, /* elements below which a second thread costs more than it saves */
    FC_CPU_MAX_THREADS = 1024
};

/* Whether the stream may still work. Every entry starts with it. */
static inline bool fc_cpu_ok(const struct fc_stream *s)
{
    return s->error.code == FC_OK;
}

/* Threads for work on n elements: for the num_threads clause. */
static inline int fc_cpu_threads(const struct fc_stream *s, size_t n)
{
    return n < FC_CPU_GRAIN ? 1 : s->threads;
}

static inline size_t fc_cpu_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Address of element `offset` of an array of dtype dt. */
static inline const void *fc_cpu_at(const void *p, size_t offset, enum fc_dtype dt)
{
    return (const char *)p + offset * fc_dtype_size(dt);
}

/* dst[0..n) = src[offset..offset+n) as fp32. */
static inline void fc_cpu_load(float *restrict dst, const void *restrict src, size_t offset,
                               size_t n, enum fc_dtype dt)
{
    if (dt == FC_F32) {
        memcpy(dst, (const float *)src + offset, n * sizeof(float));
        return;
    }
    const uint16_t *restrict from = (const uint16_t *)src + offset;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        dst[i] = fc_bf16_to_f32(from[i]);
}

/* dst[offset..offset+n) = src[0..n), rounded to nearest even. */
static inline void fc_cpu_store(void *restrict dst, size_t offset, const float *restrict src,
                                size_t n, enum fc_dtype dt)
{
    if (dt == FC_F32) {
        memcpy((float *)dst + offset, src, n * sizeof(float));
        return;
    }
    uint16_t *restrict to = (uint16_t *)dst + offset;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &src[i], sizeof u);
        uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
        uint32_t quiet = (u >> 16) | 0x40u; /* a NaN must not be carried into an infinity */
        to[i] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

/* src[offset..offset+n) as fp32 without a copy where it already is: the array itself for FC_F32,
 * otherwise `buffer` filled. */
static inline const float *fc_cpu_view(float *restrict buffer, const void *restrict src,
                                       size_t offset, size_t n, enum fc_dtype dt)
{
    if (dt == FC_F32)
        return (const float *)src + offset;
    fc_cpu_load(buffer, src, offset, n, dt);
    return buffer;
}

/* to[0..n) += src[offset..offset+n). */
static inline void fc_cpu_add_row(float *restrict to, const void *restrict src, size_t offset,
                                  size_t n, enum fc_dtype dt)
{
    float buffer[FC_CPU_CHUNK];
    for (size_t c = 0; c < n; c += FC_CPU_CHUNK) {
        size_t m = fc_cpu_min(FC_CPU_CHUNK, n - c);
        const float *x = fc_cpu_view(buffer, src, offset + c, m, dt);
#pragma omp simd
        for (size_t i = 0; i < m; i++)
            to[c + i] += x[i];
    }
}

/* a * b + c, fused where the machine does it in one instruction (C11 mode never fuses by itself,
 * and fmaf without hardware is a slow library call). */
static inline float fc_cpu_fma(float a, float b, float c)
{
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* exp(x) within 2 ulp, without branches, so that a loop over it vectorises. exp(-inf) = 0,
 * results below 2^-126 are 0, above the largest float inf, NaN stays NaN. Cody and Waite's
 * reduction x = n ln 2 + r, |r| <= ln2 / 2, and the polynomial of Moshier's Cephes. */
static inline float fc_cpu_exp(float x)
{
    const float low = -87.33654f, high = 88.72283f, magic = 12582912.0f; /* 1.5 * 2^23 */
    float y = x < low ? low : x;
    y = y > high ? high : y;
    float t = fc_cpu_fma(y, 1.44269504f, magic); /* the low bits of t are n */
    float n = t - magic;
    float r = fc_cpu_fma(n, -0.693359375f, y);
    r = fc_cpu_fma(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fc_cpu_fma(p, r, 1.3981999507e-3f);
    p = fc_cpu_fma(p, r, 8.3334519073e-3f);
    p = fc_cpu_fma(p, r, 4.1665795894e-2f);
    p = fc_cpu_fma(p, r, 1.6666665459e-1f);
    p = fc_cpu_fma(p, r, 5.0000001201e-1f);
    p = fc_cpu_fma(p, r * r, r) + 1.0f;
    /* 2^n in two factors: n = 128 has no float of its own. */
    uint32_t bits, a, b;
    memcpy(&bits, &t, sizeof bits);
    int32_t e = (int32_t)(bits - 0x4b400000u);
    int32_t half = e >> 1;
    a = (uint32_t)(half + 127) << 23;
    b = (uint32_t)(e - half + 127) << 23;
    float fa, fb;
    memcpy(&fa, &a, sizeof fa);
    memcpy(&fb, &b, sizeof fb);
    p = p * fa * fb;
    p = x < low ? 0.0f : p;
    return x > high ? INFINITY : p;
}

/* x[0..n) = exp(x[i] - shift); returns nothing: the caller sums in the order it promises. */
static inline void fc_cpu_exp_row(float *x, size_t n, float shift)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] = fc_cpu_exp(x[i] - shift);
}

/* ---- private seams between the files -------------------------------------------------------- */

/* onednn.c: the products state of a stream; close takes NULL. */
struct fc_cpu_products *fc_cpu_products_open(int threads, struct fc_error *err);
void fc_cpu_products_close(struct fc_cpu_products *p);

/* onednn.c: at least `bytes` of scratch that live until the next call; grown when needed and then
 * kept. NULL: error in the stream. */
void *fc_cpu_product_scratch(struct fc_stream *s, size_t bytes);

/* gemm_blocks.c: g by our own loops. m, n, k > 0. */
void fc_cpu_gemm_blocks(struct fc_stream *s, const struct fc_gemm *g);

/* rows.c: to[n] += slices[n_slices, n] summed over the slices in order. */
void fc_cpu_add_slices(struct fc_stream *s, float *to, const float *slices, size_t n_slices,
                       size_t n);

/* dequant.c: the format of this type; NULL with an error in the stream. */
const struct fc_weight_format *fc_cpu_format(struct fc_stream *s, uint32_t type);

/* memory.c: 64-byte aligned memory, NULL with *err; freed with fc_cpu_release. */
void *fc_cpu_acquire(size_t bytes, const char *what, struct fc_error *err);
void fc_cpu_release(void *p);

/* ---- the entries; see kernels.h ---------------------------------------------------------------
 */

struct fc_stream *fc_cpu_stream_open(int index, int threads, struct fc_error *err);
void fc_cpu_stream_close(struct fc_stream *s);
void *fc_cpu_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err);
void fc_cpu_free(struct fc_stream *s, void *p);
void fc_cpu_upload(struct fc_stream *s, void *device, const void *host, size_t bytes);
void fc_cpu_download(struct fc_stream *s, void *host, const void *device, size_t bytes);
void fc_cpu_copy(struct fc_stream *s, void *to, const void *from, size_t bytes);
void fc_cpu_zero(struct fc_stream *s, void *p, size_t bytes);
enum fc_code fc_cpu_sync(struct fc_stream *s, struct fc_error *err);

int fc_cpu_device_count(struct fc_error *why);
bool fc_cpu_describe(int index, char *text, size_t size);
void *fc_cpu_host_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err);
void fc_cpu_host_free(struct fc_stream *s, void *p);
struct fc_stream *fc_cpu_copy_stream_open(struct fc_stream *s, struct fc_error *err);
struct fc_event *fc_cpu_event_open(struct fc_stream *s, struct fc_error *err);
void fc_cpu_event_close(struct fc_stream *s, struct fc_event *e);
void fc_cpu_event_record(struct fc_stream *s, struct fc_event *e);
void fc_cpu_event_wait(struct fc_stream *s, struct fc_event *e);
void fc_cpu_event_sync(struct fc_stream *s, struct fc_event *e);
void fc_cpu_graph_begin(struct fc_stream *s);
struct fc_graph *fc_cpu_graph_end(struct fc_stream *s);
void fc_cpu_graph_launch(struct fc_stream *s, struct fc_graph *g);
void fc_cpu_graph_free(struct fc_stream *s, struct fc_graph *g);
void fc_cpu_range_push(const char *name);
void fc_cpu_range_pop(void);

bool fc_cpu_has_fast(struct fc_stream *s, enum fc_dtype dt);
void fc_cpu_gemm(struct fc_stream *s, const struct fc_gemm *g);
struct fc_packed *fc_cpu_pack(struct fc_stream *s, const void *w, size_t n, size_t k,
                              enum fc_dtype dt);
void fc_cpu_unpack(struct fc_stream *s, struct fc_packed *w);
void fc_cpu_gemm_packed(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                        const struct fc_packed *w, size_t m);

bool fc_cpu_has_fp8(struct fc_stream *s);
void fc_cpu_gemm_fp8(struct fc_stream *s, const struct fc_gemm *g, void *scratch);

void fc_cpu_dequantise(struct fc_stream *s, void *out, enum fc_dtype dt, const void *blocks,
                       uint32_t type, size_t n);
struct fc_quantised *fc_cpu_quantised_open(struct fc_stream *s, const void *blocks, uint32_t type,
                                           size_t n, size_t k, size_t *bytes);
void fc_cpu_quantised_close(struct fc_stream *s, struct fc_quantised *w);
void fc_cpu_gemm_quantised(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                           enum fc_dtype x_type, const struct fc_quantised *w, size_t m);
void fc_cpu_embed_quantised(struct fc_stream *s, void *out, const struct fc_quantised *w,
                            const int32_t *ids, size_t T, enum fc_dtype dt);

void fc_cpu_embed_forward(struct fc_stream *s, void *out, const void *table, const int32_t *ids,
                          size_t T, size_t C, enum fc_dtype dt);
void fc_cpu_embed_backward(struct fc_stream *s, float *dtable, const void *dout, const int32_t *ids,
                           int32_t *scratch, size_t T, size_t C, size_t V, enum fc_dtype dt);

void fc_cpu_rmsnorm_forward(struct fc_stream *s, void *y, void *x, const void *delta, float *rstd,
                            const void *weight, float eps, size_t T, size_t C, enum fc_dtype dt);
void fc_cpu_rmsnorm_backward(struct fc_stream *s, void *dx, float *dweight, const void *dy,
                             const void *x, const float *rstd, const void *weight, float *scratch,
                             size_t T, size_t C, enum fc_dtype dt);

void fc_cpu_layernorm_forward(struct fc_stream *s, void *y, void *x, const void *delta, float *mean,
                              float *rstd, const void *weight, const void *bias, float eps,
                              size_t T, size_t C, enum fc_dtype dt);
void fc_cpu_layernorm_backward(struct fc_stream *s, void *dx, float *dweight, float *dbias,
                               const void *dy, const void *x, const float *mean, const float *rstd,
                               const void *weight, float *scratch, size_t T, size_t C,
                               enum fc_dtype dt);

void fc_cpu_rope(struct fc_stream *s, void *qkv, const int32_t *positions, const float *table,
                 size_t T, const struct fc_heads *h, bool backward, enum fc_dtype dt);

void fc_cpu_attention_forward(struct fc_stream *s, void *out, float *lse, const void *qkv,
                              const int32_t *starts, size_t B, const struct fc_heads *h,
                              enum fc_dtype dt);
void fc_cpu_attention_backward(struct fc_stream *s, void *dqkv, const void *dout, const void *out,
                               const float *lse, const void *qkv, float *scratch,
                               const int32_t *starts, size_t B, const struct fc_heads *h,
                               enum fc_dtype dt);

void fc_cpu_cache_write(struct fc_stream *s, const struct fc_pages *pages, const void *qkv,
                        const int32_t *slots, size_t T, const struct fc_heads *h, enum fc_dtype dt);
void fc_cpu_paged_attention(struct fc_stream *s, void *out, const void *qkv,
                            const struct fc_pages *pages, const int32_t *tables, size_t table_width,
                            const int32_t *lengths, size_t T, const struct fc_heads *h,
                            enum fc_dtype dt);

void fc_cpu_swiglu_forward(struct fc_stream *s, void *out, const void *gate_up, size_t T, size_t F,
                           enum fc_dtype dt);
void fc_cpu_swiglu_backward(struct fc_stream *s, void *dgate_up, const void *dout,
                            const void *gate_up, size_t T, size_t F, enum fc_dtype dt);

void fc_cpu_ungated_forward(struct fc_stream *s, void *out, const void *in, enum fc_ungated f,
                            size_t n, enum fc_dtype dt);
void fc_cpu_ungated_backward(struct fc_stream *s, void *din, const void *dout, const void *in,
                             enum fc_ungated f, size_t n, enum fc_dtype dt);

void fc_cpu_bias_forward(struct fc_stream *s, void *y, const void *bias, size_t T, size_t N,
                         enum fc_dtype dt);
void fc_cpu_bias_backward(struct fc_stream *s, float *dbias, const void *dy, float *scratch,
                          size_t T, size_t N, enum fc_dtype dt);
void fc_cpu_gather_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                        size_t n, size_t C, enum fc_dtype dt);
void fc_cpu_scatter_rows(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                         size_t n, size_t C, enum fc_dtype dt);
void fc_cpu_cast(struct fc_stream *s, void *to, enum fc_dtype to_type, const void *from,
                 enum fc_dtype from_type, size_t n);

void fc_cpu_cross_entropy(struct fc_stream *s, float *losses, void *logits, const int32_t *targets,
                          const float *weights, size_t n, size_t V, enum fc_dtype lt);

void fc_cpu_sample(struct fc_stream *s, int32_t *ids, const float *logits,
                   const struct fc_sampling *how, size_t n, size_t V);
void fc_cpu_select_smallest(struct fc_stream *s, int32_t *idx, const float *scores, size_t n,
                            size_t V, size_t m);

void fc_cpu_draw(struct fc_stream *s, int32_t *out, const int32_t *top, const uint64_t *u,
                 int32_t *scratch, const struct fc_draw *how, size_t n);

void fc_cpu_sum_squares(struct fc_stream *s, double *out, const float *g, double *scratch,
                        size_t n);
void fc_cpu_all_finite(struct fc_stream *s, int32_t *out, const float *g, size_t n);
void fc_cpu_adamw(struct fc_stream *s, void *weights, float *master, float *m, float *v,
                  const float *grad, size_t n, uint64_t first, const struct fc_adamw_step *how,
                  enum fc_dtype dt);

#endif
