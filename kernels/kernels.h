/* Every numeric operation of the engine, declared once for all back ends.
 *
 * A back end is one table of functions, `struct fc_kernels`; kernels/cpu and kernels/cuda hold
 * twins of the same file and function names. Everything above (engine/, privacy/) calls through
 * the table and never learns which one it has.
 *
 * Conventions, true for every entry unless it says otherwise:
 *  - `s` is the stream. Work is ordered on it and may still run when the call returns. Pointers
 *    are device memory of the stream's back end: the host must not read or write them directly.
 *  - Matrices are row-major and dense. T rows (tokens), C channels (model width), NH query heads,
 *    NKV key/value heads (NH a multiple of NKV), HS head size, F feed-forward width, V vocabulary,
 *    B sequences. `Q = (NH + 2 NKV) HS` is the width of a fused row [q heads | k heads | v heads].
 *  - `dt` is the dtype of activations and weights (FC_F32 or FC_BF16; FC_F16 on CUDA). Statistics,
 *    gradients of weights and accumulators are fp32. Outputs are overwritten; "+=" marks those that
 *    are accumulated.
 *  - No operation allocates; scratch is passed in where one needs it.
 *  - Errors are sticky: the first one is kept in the stream, later operations do nothing, and
 *    `sync` returns it. So a forward pass is written without a test after every line.
 *  - Results are the same bits in every run, whatever the number of threads.
 */
#ifndef FC_KERNELS_KERNELS_H
#define FC_KERNELS_KERNELS_H

#include "base/dtype.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fc_stream;    /* private to the back end */
struct fc_packed;    /* a weight matrix in the layout that the back end's GEMM likes best */
struct fc_quantised; /* a weight matrix in the blocks of its file, laid out for the back end */
struct fc_event;     /* a point in a stream's work */
struct fc_graph;     /* work that was recorded once and is launched as a whole */

/* y[m,n] = op(a) op(b) (+ bias, or + y): GEMM with fp32 accumulation, rounded once. */
struct fc_gemm {
    const void *a, *b; /* a: [m,k], or [k,m] if trans_a; b: [k,n], or [n,k] if trans_b */
    void *y;           /* [m,n] */
    const void *bias;  /* [n] of `type`, added to every row; NULL: none; not with accumulate */
    size_t m, n, k;
    size_t lda, ldb, ldy; /* elements between rows as stored */
    bool trans_a, trans_b;
    bool accumulate;      /* y += instead of y = ; only with y_type FC_F32 */
    enum fc_dtype type;   /* of a and b */
    enum fc_dtype y_type; /* FC_F32, or `type` */
};

/* Bytes of scratch of gemm_fp8: both operands in one byte an element, the last 16 rows of y,
 * scales.
 */
static inline size_t fc_fp8_scratch(size_t m, size_t n, size_t k)
{
    return 4352 + ((m + 15) / 16 * 16 + n) * k + 64 * n;
}

/* Shape of attention. */
struct fc_heads {
    size_t nh, nkv, hs;
    float scale; /* of q.k before the softmax; 1/sqrt(hs) for the usual families */
};

/* A paged KV cache of one layer: page p, slot i, kv head h, channel c at
 * ((p * page_size + i) * nkv + h) * hs + c, for keys and for values. */
struct fc_pages {
    void *keys, *values; /* dtype dt */
    size_t page_size;    /* tokens in a page */
};

/* AdamW (Loshchilov and Hutter 2019), as torch.optim.AdamW orders it. */
struct fc_adamw {
    float lr, beta1, beta2, eps, weight_decay;
    float grad_scale; /* every gradient is multiplied by this first: 1/loss scale times clipping */
    uint64_t step;    /* 1 at the first call; enters the bias correction */
    /* How 16-bit weights are rounded: to nearest even, or (stochastic) up with the probability that
     * is what is cut off, so that steps smaller than half a unit are not lost on the average. The
     * draw of element i is word j % 4 of fc_philox(seed, step, j / 4), j = first + i: it depends on
     * nothing else, so a resumed run rounds identically. */
    bool stochastic;
    uint64_t seed;
};

/* What a step does with each parameter p and its gradient g, worked out of struct fc_adamw once and
 * not by every thread of a device: x = g grad_scale, m += gain1 (x - m), v = beta2 v + gain2 x^2,
 * p = decay p - size m / (inverse_root sqrt(v) + eps). */
struct fc_adamw_step {
    float decay, gain1, beta2, gain2, inverse_root, eps, size, grad_scale;
    uint64_t seed, number; /* of the draws */
    bool stochastic;
};

/* For every back end, so that they take the same numbers (kernels/adamw.c; host memory). */
struct fc_adamw_step fc_adamw_prepare(const struct fc_adamw *how);

/* How to choose one token. */
struct fc_sampling {
    float temperature;               /* 0: greedy (the highest logit, lowest id first on a tie) */
    uint32_t top_k;                  /* 0: no limit */
    float top_p;                     /* 1: no limit */
    uint64_t seed, stream, position; /* the draw is fc_philox_uniform(seed, stream, position) */
};

/* Activations of feed-forward layers without a gate, by Hugging Face's names. */
enum fc_ungated {
    FC_GELU,      /* "gelu": x/2 (1 + erf(x / sqrt 2)), Hendrycks and Gimpel 2016 */
    FC_GELU_TANH, /* "gelu_new", "gelu_pytorch_tanh": x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
                   */
    FC_RELU       /* "relu": max(x, 0), slope 0 at 0 */
};

/* Slices of rows over which sums over all rows are split; their scratch holds one each. */
enum { FC_ROW_SLICES = 128 };

/* A public distribution over ranks: levels[0].n ranks of the integer weight levels[0].weight come
 * first, then those of level 1, and so on; S = sum of n * weight. */
struct fc_draw_level {
    uint64_t n, weight; /* weight <= 2^56 */
};
enum { FC_DRAW_LEVELS = 8 }; /* at most */

/* A draw from a ranking of V outputs, given by the first `depth` of them: see `draw`. */
struct fc_draw {
    const struct fc_draw_level *levels; /* host memory */
    size_t n_levels;
    size_t V, depth; /* depth <= V < 2^24: the sum of all n is V */
};

struct fc_kernels {
    const char *name; /* "cpu", "cuda" */
    bool takes_f16;   /* whether dt may be FC_F16 */

    /* ---- memory and order (memory.c) ---------------------------------------------------- */

    /* Opens a stream on device `index`; `threads` 0 means all cores (CPU only). NULL with *err. */
    struct fc_stream *(*stream_open)(int index, int threads, struct fc_error *err);
    void (*stream_close)(struct fc_stream *s);
    /* Device memory, 64-byte aligned, not initialised. NULL with *err (FC_ERR_MEMORY). */
    void *(*alloc)(struct fc_stream *s, size_t bytes, struct fc_error *err);
    void (*free)(struct fc_stream *s, void *p);
    void (*upload)(struct fc_stream *s, void *device, const void *host, size_t bytes);
    void (*download)(struct fc_stream *s, void *host, const void *device, size_t bytes);
    void (*copy)(struct fc_stream *s, void *to, const void *from, size_t bytes);
    void (*zero)(struct fc_stream *s, void *p, size_t bytes);
    /* Waits for all work; returns the first error since the last sync and clears it. */
    enum fc_code (*sync)(struct fc_stream *s, struct fc_error *err);
    /* Whether GEMM in this dtype runs at the machine's own speed ("bf16 where the CPU has it"). */
    bool (*has_fast)(struct fc_stream *s, enum fc_dtype dt);

    /* ---- devices, overlap, recorded work (runtime.c) --------------------------------------- */

    /* Devices that stream_open takes, from 0. 0 with *why (FC_ERR_UNSUPPORTED) where there is none;
     * never a failure of the process, with or without a driver. */
    int (*device_count)(struct fc_error *why);
    /* "NVIDIA H100, 132 SMs, 79 GiB" of device `index`, cut at `size`. False where there is none.
     */
    bool (*describe)(int index, char *text, size_t size);
    /* Host memory that copies read and write beside the host's work (pinned on CUDA; plain memory
     * is staged by the driver, which waits for it), 64-byte aligned. At start-up only: it is slow
     * to get. NULL with *err (FC_ERR_MEMORY). */
    void *(*host_alloc)(struct fc_stream *s, size_t bytes, struct fc_error *err);
    void (*host_free)(struct fc_stream *s, void *p);
    /* A second stream on the device of s, for memory and copies only, that runs beside s; order
     * between the two is made by events. Close it with stream_close, before s. NULL with *err. */
    struct fc_stream *(*copy_stream_open)(struct fc_stream *s, struct fc_error *err);
    /* An event is passed until it is recorded. record: it becomes the end of what s has been given;
     * wait: later work of s (any stream of the device) starts after it, and an error of the stream
     * that it was recorded in is then s's too; sync: the host waits for it, errors stay in s. A pinned ring: sync the slot's event, fill the slot, upload, record. */
    struct fc_event *(*event_open)(struct fc_stream *s, struct fc_error *err);
    void (*event_close)(struct fc_stream *s, struct fc_event *e);
    void (*event_record)(struct fc_stream *s, struct fc_event *e);
    void (*event_wait)(struct fc_stream *s, struct fc_event *e);
    void (*event_sync)(struct fc_stream *s, struct fc_event *e);
    /* What s is given between begin and end is recorded, not run; launch runs it, reading the same
     * addresses (host memory too: keep it). For steps of fixed shape whose host-side arguments do
     * not change. end gives NULL where the back end records nothing (the CPU): the work has then
     * been done already, so `begin; step; g = end; if (g) launch` does a step anywhere. NULL also
     * with an error in the stream. Between begin and end: no sync, no alloc, and products only of
     * shapes that ran before (they would go untuned). The caller owns the graph. */
    void (*graph_begin)(struct fc_stream *s);
    struct fc_graph *(*graph_end)(struct fc_stream *s);
    void (*graph_launch)(struct fc_stream *s, struct fc_graph *g);
    void (*graph_free)(struct fc_stream *s, struct fc_graph *g);
    /* Names what this host thread does until pop, for a profiler (NVTX on CUDA). Nests. */
    void (*range_push)(const char *name);
    void (*range_pop)(void);

    /* ---- matrix products (gemm.c) ------------------------------------------------------- */

    void (*gemm)(struct fc_stream *s, const struct fc_gemm *g);
    /* A copy of w [n,k] in GEMM layout, for inference where weights do not change. Owner: the
     * caller, with unpack. The source is no longer needed after sync. NULL: error in the stream. */
    struct fc_packed *(*pack)(struct fc_stream *s, const void *w, size_t n, size_t k,
                              enum fc_dtype dt);
    void (*unpack)(struct fc_stream *s, struct fc_packed *w);
    /* y[m,n] = x[m,k] w[n,k]^T for a packed w; y_type FC_F32 or w's dtype. Rows go through the
     * product in blocks of fixed size, so a row's result has the same bits whatever m is and
     * wherever the row lies (batch invariance of generation). */
    void (*gemm_packed)(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                        const struct fc_packed *w, size_t m);

    /* ---- products in fp8 (fp8.c) ------------------------------------------------------------ */

    /* Whether gemm_fp8 is faster than gemm here: CUDA from Ada and Hopper (sm_89) on. The CPU
     * computes it for comparison only. */
    bool (*has_fp8)(struct fc_stream *s);
    /* y[m,n] = a[m,k] b[n,k]^T (+ bias) for forward passes, with a and b rounded to e4m3 (FP8
     * formats, Micikevicius et al. 2022) and summed in fp32. Each is divided by a scale of its own
     * before: the smallest power of two that brings its largest magnitude to 448 or less, found on
     * the device. So a row depends on all rows of a: no batch invariance. A NaN or infinity in a or
     * b makes all of y NaN. g as for gemm with trans_b, lda = ldb = k and no accumulate; k and n
     * multiples of 16, rows of y at multiples of 16 bytes. Costs one more pass over a and two over
     * b, 4 bytes an element of both. scratch: fc_fp8_scratch bytes. FC_ERR_UNSUPPORTED in the
     * stream where the shape is another or the device has no fp8. */
    void (*gemm_fp8)(struct fc_stream *s, const struct fc_gemm *g, void *scratch);

    /* ---- weights as files store them (dequant.c, quantised.c) ------------------------------ */

    /* out[n * block] (dt) from n blocks of a format of base/dequant.h, `type` its number: the bits
     * of the format's `expand`, rounded to dt. blocks: 2-byte aligned. FC_ERR_UNSUPPORTED for a
     * type that the table does not have. */
    void (*dequantise)(struct fc_stream *s, void *out, enum fc_dtype dt, const void *blocks,
                       uint32_t type, size_t n);
    /* A copy of w[n, k / 32], blocks of Q4_0, Q4_1 or Q8_0 as in a file (2-byte aligned), that
     * gemm_quantised reads; k a multiple of 32. *bytes: what it takes, about as many. Owner: the
     * caller, with quantised_close. The source is no longer needed after sync. NULL: error in the
     * stream. */
    struct fc_quantised *(*quantised_open)(struct fc_stream *s, const void *blocks, uint32_t type,
                                           size_t n, size_t k, size_t *bytes);
    void (*quantised_close)(struct fc_stream *s, struct fc_quantised *w); /* NULL is fine */
    /* y[m,n] = x[m,k] w[n,k]^T, weights expanded to fp32 on the way, fp32 accumulation. A row's
     * result has the same bits whatever m is and wherever the row lies. Made for small m, where
     * reading w is the cost: w is read once for each 8 (CUDA) or 32 (CPU) rows. */
    void (*gemm_quantised)(struct fc_stream *s, void *y, enum fc_dtype y_type, const void *x,
                           enum fc_dtype x_type, const struct fc_quantised *w, size_t m);
    /* out[T,k] (dt) = rows ids[t] of w, as `dequantise` gives them. ids < n. */
    void (*embed_quantised)(struct fc_stream *s, void *out, const struct fc_quantised *w,
                            const int32_t *ids, size_t T, enum fc_dtype dt);

    /* ---- embedding (embedding.c) --------------------------------------------------------- */

    /* out[T,C] = table[ids[t]]. ids < V, checked by the caller. */
    void (*embed_forward)(struct fc_stream *s, void *out, const void *table, const int32_t *ids,
                          size_t T, size_t C, enum fc_dtype dt);
    /* dtable[V,C] fp32 += dout[T,C] by ids, summed in the order of t for every id (deterministic).
     * scratch: 2 T int32. */
    void (*embed_backward)(struct fc_stream *s, float *dtable, const void *dout, const int32_t *ids,
                           int32_t *scratch, size_t T, size_t C, size_t V, enum fc_dtype dt);

    /* ---- norms (norm.c) ------------------------------------------------------------------ */

    /* x[T,C] += delta[T,C] (if delta is not NULL), then y = x * rstd * weight with
     * rstd[t] = 1/sqrt(mean(x^2) + eps). x is rounded to dt before it is squared, so that backward
     * sees the same x. rstd (may be NULL) is kept for backward. RMSNorm, Zhang and Sennrich 2019.
     */
    void (*rmsnorm_forward)(struct fc_stream *s, void *y, void *x, const void *delta, float *rstd,
                            const void *weight, float eps, size_t T, size_t C, enum fc_dtype dt);
    /* dx[T,C] += d loss/d x; dweight[C] fp32 += . scratch: FC_ROW_SLICES * C floats. */
    void (*rmsnorm_backward)(struct fc_stream *s, void *dx, float *dweight, const void *dy,
                             const void *x, const float *rstd, const void *weight, float *scratch,
                             size_t T, size_t C, enum fc_dtype dt);
    /* x[T,C] += delta[T,C] (if delta is not NULL) as above, then y = (x - mean) * rstd * weight +
     * bias with mean[t] = mean(x) and rstd[t] = 1/sqrt(mean((x - mean)^2) + eps). mean and rstd
     * (may be NULL) are kept for backward. LayerNorm, Ba et al. 2016. */
    void (*layernorm_forward)(struct fc_stream *s, void *y, void *x, const void *delta, float *mean,
                              float *rstd, const void *weight, const void *bias, float eps,
                              size_t T, size_t C, enum fc_dtype dt);
    /* dx[T,C] += d loss/d x; dweight[C], dbias[C] fp32 += . scratch: 2 * FC_ROW_SLICES * C floats.
     */
    void (*layernorm_backward)(struct fc_stream *s, void *dx, float *dweight, float *dbias,
                               const void *dy, const void *x, const float *mean, const float *rstd,
                               const void *weight, float *scratch, size_t T, size_t C,
                               enum fc_dtype dt);

    /* ---- rotary positions (rope.c) -------------------------------------------------------- */

    /* Rotates the q and k heads of qkv[T,Q] in place, halves convention (channel i with i+HS/2, as
     * Hugging Face stores Llama). table[max_pos, HS] fp32: HS/2 cosines, then HS/2 sines.
     * positions[T] < max_pos. `backward` rotates by the negative angle. Su et al. 2021. */
    void (*rope)(struct fc_stream *s, void *qkv, const int32_t *positions, const float *table,
                 size_t T, const struct fc_heads *h, bool backward, enum fc_dtype dt);

    /* ---- attention over packed sequences (attention.c) ------------------------------------ */

    /* Causal attention within each sequence b: rows starts[b] .. starts[b+1]-1; starts[B] = T;
     * `starts` is *host* memory (the shape of the work, not data). out[T, NH HS]; lse[T, NH] fp32,
     * log of the softmax's denominator, kept for backward. No T x T matrix is stored (Dao 2023). */
    void (*attention_forward)(struct fc_stream *s, void *out, float *lse, const void *qkv,
                              const int32_t *starts, size_t B, const struct fc_heads *h,
                              enum fc_dtype dt);
    /* dqkv[T,Q] overwritten. scratch: T NH floats. */
    void (*attention_backward)(struct fc_stream *s, void *dqkv, const void *dout, const void *out,
                               const float *lse, const void *qkv, float *scratch,
                               const int32_t *starts, size_t B, const struct fc_heads *h,
                               enum fc_dtype dt);

    /* ---- attention over a paged cache (paged_attention.c) ---------------------------------- */

    /* Stores k and v of qkv[T,Q] at cache slots[T] (page * page_size + index). */
    void (*cache_write)(struct fc_stream *s, const struct fc_pages *pages, const void *qkv,
                        const int32_t *slots, size_t T, const struct fc_heads *h, enum fc_dtype dt);
    /* out[T, NH HS]: row t attends to the first lengths[t] tokens of the cache whose pages are
     * tables[t * table_width ...] (its own token included, written before). Serves decode and
     * chunked prefill alike. The order of summation depends on lengths[t] only. */
    void (*paged_attention)(struct fc_stream *s, void *out, const void *qkv,
                            const struct fc_pages *pages, const int32_t *tables, size_t table_width,
                            const int32_t *lengths, size_t T, const struct fc_heads *h,
                            enum fc_dtype dt);

    /* ---- feed-forward activation (activation.c) --------------------------------------------- */

    /* gate_up[T,2F] = [gate | up]; out[T,F] = silu(gate) * up (SwiGLU, Shazeer 2020). */
    void (*swiglu_forward)(struct fc_stream *s, void *out, const void *gate_up, size_t T, size_t F,
                           enum fc_dtype dt);
    /* dgate_up[T,2F] from dout[T,F]. */
    void (*swiglu_backward)(struct fc_stream *s, void *dgate_up, const void *dout,
                            const void *gate_up, size_t T, size_t F, enum fc_dtype dt);
    /* out[n] = f(in[n]); out may be in. */
    void (*ungated_forward)(struct fc_stream *s, void *out, const void *in, enum fc_ungated f,
                            size_t n, enum fc_dtype dt);
    /* din[n] = dout[n] * f'(in[n]); din may be dout. */
    void (*ungated_backward)(struct fc_stream *s, void *din, const void *dout, const void *in,
                             enum fc_ungated f, size_t n, enum fc_dtype dt);

    /* ---- bias, rows, casts (rows.c) ---------------------------------------------------------- */

    /* y[T,N] += bias[N]. */
    void (*bias_forward)(struct fc_stream *s, void *y, const void *bias, size_t T, size_t N,
                         enum fc_dtype dt);
    /* dbias[N] fp32 += column sums of dy[T,N]. scratch: FC_ROW_SLICES * N floats. */
    void (*bias_backward)(struct fc_stream *s, float *dbias, const void *dy, float *scratch,
                          size_t T, size_t N, enum fc_dtype dt);
    /* out[n,C] = in[rows[i]]. */
    void (*gather_rows)(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                        size_t n, size_t C, enum fc_dtype dt);
    /* out[rows[i]] = in[i]; rows not named are left as they are. rows must be distinct. */
    void (*scatter_rows)(struct fc_stream *s, void *out, const void *in, const int32_t *rows,
                         size_t n, size_t C, enum fc_dtype dt);
    void (*cast)(struct fc_stream *s, void *to, enum fc_dtype to_type, const void *from,
                 enum fc_dtype from_type, size_t n);

    /* ---- classifier (classifier.c) ------------------------------------------------------------
     */

    /* Softmax cross-entropy of logits[n,V] (dtype lt) against targets[n]: losses[n] fp32 =
     * -log softmax(logits)[target], unweighted. If weights is not NULL, the gradient
     * weights[i] * (softmax - onehot) replaces the logits in place. Losses in fp32 from one
     * pass for maximum and sum. */
    void (*cross_entropy)(struct fc_stream *s, float *losses, void *logits, const int32_t *targets,
                          const float *weights, size_t n, size_t V, enum fc_dtype lt);

    /* ---- sampling (sampling.c) ------------------------------------------------------------------
     */

    /* ids[n] from logits[n,V] fp32; `how` (n entries) is host memory. Order: temperature; the
     * top_k largest (lowest ids on a tie); of these the shortest run in descending order of
     * probability (ties by id) whose mass reaches top_p of theirs, one at least; then one uniform
     * against the running sum over the tokens kept, in the order of their ids. NaN is never chosen;
     * a row of nothing but NaN and -inf is FC_ERR_INPUT in the stream, its id 0. */
    void (*sample)(struct fc_stream *s, int32_t *ids, const float *logits,
                   const struct fc_sampling *how, size_t n, size_t V);
    /* idx[n,m]: the m smallest of scores[n,V] in ascending order, ties and NaN (last) by index;
     * m <= V. For the rankings of privacy/. */
    void (*select_smallest)(struct fc_stream *s, int32_t *idx, const float *scores, size_t n,
                            size_t V, size_t m);

    /* ---- the exact draw (draw.c)
     * -----------------------------------------------------------------
     */

    /* out[n]: the output at the rank on which the integer u[i] < S falls, as privacy/sampler.h
     * defines it: rank r < depth is top[i, r], rank depth + r is the r-th of the indices below V
     * that are not in top[i, depth], in rising order. u[n, 2]: low and high 64 bits of integers
     * uniform in [0, S), drawn on the host from its CSPRNG. Integers alone decide. The steps taken
     * and the addresses touched depend on the shape only, not on top and not on u.
     * A row of top that holds an index twice, or one that is not below V, is no ranking:
     * FC_ERR_INTERNAL in the stream, its output -1. scratch: n * depth int32. */
    void (*draw)(struct fc_stream *s, int32_t *out, const int32_t *top, const uint64_t *u,
                 int32_t *scratch, const struct fc_draw *how, size_t n);

    /* ---- optimizer (optimizer.c) ----------------------------------------------------------------
     */

    /* out[0] (fp64) = sum of squares of g[n] fp32, in a fixed order. scratch: 1024 doubles. */
    void (*sum_squares)(struct fc_stream *s, double *out, const float *g, double *scratch,
                        size_t n);
    /* out[0] (int32) = 1 if all of g[n] fp32 are finite, 0 if one is infinite or NaN: whether the
     * loss scale of fp16 training held. 1 for n = 0. */
    void (*all_finite)(struct fc_stream *s, int32_t *out, const float *g, size_t n);
    /* One step over a flat range: master[n], m[n], v[n] fp32 updated from grad[n] fp32; weights[n]
     * (dt) = master rounded as `how` says. weights may equal master when dt is FC_F32. first: index
     * of element 0 among all parameters; a multiple of 4 is fastest. how: [1] device memory, read
     * when the work runs, so that a recording serves every step. */
    void (*adamw)(struct fc_stream *s, void *weights, float *master, float *m, float *v,
                  const float *grad, size_t n, uint64_t first, const struct fc_adamw_step *how,
                  enum fc_dtype dt);
};

/* The back ends of this build: the CPU's always, CUDA's where nvcc was found (FEDCOT_CUDA). */
extern const struct fc_kernels fc_kernels_cpu;
#ifdef FEDCOT_CUDA
extern const struct fc_kernels fc_kernels_cuda;
#endif

#ifdef __cplusplus
}
#endif

#endif
