/* The rows of the counters' table: each kernel on aligned shapes, and the bytes that it cannot
 * avoid to move. Add a row for a new entry here. */
#include "bench/counters.h"

#include <stdlib.h>

enum {
    T = 4096, /* tokens */
    C = 1024, /* channels */
    F = 1536, /* feed-forward width */
    N = 1 << 22,
    LOGIT_ROWS = 32,
    E = 2 /* bytes of bf16 */
};

/* Zeroed device memory; NULL when only the floor is wanted, or after an error. */
static void *take(struct fc_counter_job *j, size_t bytes)
{
    if (!j->k || j->err.code != FC_OK)
        return NULL;
    void *p = j->k->alloc(j->s, bytes, &j->err);
    if (p)
        j->k->zero(j->s, p, bytes);
    return p;
}

/* n int32: first, first + step, ... modulo `modulus`. */
static int32_t *take_ints(struct fc_counter_job *j, size_t n, size_t first, size_t step,
                          size_t modulus)
{
    int32_t *p = take(j, n * sizeof *p), *host = malloc(n * sizeof *host);
    for (size_t i = 0; host && i < n; i++)
        host[i] = (int32_t)((first + i * step) % modulus);
    if (p && host) {
        j->k->upload(j->s, p, host, n * sizeof *host);
        (void)j->k->sync(j->s, &j->err);
    } else if (!host) {
        (void)fc_fail(&j->err, FC_ERR_MEMORY, "counters: out of memory");
    }
    free(host);
    return p;
}

/* Whether to make the call. */
static bool ready(const struct fc_counter_job *j)
{
    return j->k && j->err.code == FC_OK;
}

/* ---- embedding, norms, positions ------------------------------------------------------------- */

static void embed_forward(struct fc_counter_job *j)
{
    void *out = take(j, T * C * E), *table = take(j, 2 * T * C * E);
    int32_t *ids = take_ints(j, T, 5, 7, 2 * T);
    j->floor = 2.0 * T * C * E + 4.0 * T;
    if (ready(j))
        j->k->embed_forward(j->s, out, table, ids, T, C, FC_BF16);
}

static void embed_backward(struct fc_counter_job *j) /* no id twice: most of dtable moves */
{
    void *dtable = take(j, 2 * T * C * 4), *dout = take(j, T * C * E);
    int32_t *ids = take_ints(j, T, 5, 7, 2 * T), *scratch = take(j, 8 * T);
    j->floor = (double)T * C * (E + 8) + 4.0 * T;
    if (ready(j))
        j->k->embed_backward(j->s, dtable, dout, ids, scratch, T, C, 2 * T, FC_BF16);
}

static void rmsnorm_forward(struct fc_counter_job *j)
{
    void *y = take(j, T * C * E), *x = take(j, T * C * E), *delta = take(j, T * C * E);
    void *weight = take(j, C * E), *rstd = take(j, T * 4);
    j->floor = 4.0 * T * C * E + 4.0 * T + C * E;
    if (ready(j))
        j->k->rmsnorm_forward(j->s, y, x, delta, rstd, weight, 1e-5f, T, C, FC_BF16);
}

static void rmsnorm_backward(struct fc_counter_job *j)
{
    void *dx = take(j, T * C * E), *dy = take(j, T * C * E), *x = take(j, T * C * E);
    void *weight = take(j, C * E), *rstd = take(j, T * 4), *dweight = take(j, C * 4);
    float *scratch = take(j, (size_t)FC_ROW_SLICES * C * 4);
    j->floor = 4.0 * T * C * E + 4.0 * T + C * (E + 8);
    if (ready(j))
        j->k->rmsnorm_backward(j->s, dx, dweight, dy, x, rstd, weight, scratch, T, C, FC_BF16);
}

static void layernorm_forward(struct fc_counter_job *j)
{
    void *y = take(j, T * C * E), *x = take(j, T * C * E), *delta = take(j, T * C * E);
    void *weight = take(j, C * E), *bias = take(j, C * E);
    void *mean = take(j, T * 4), *rstd = take(j, T * 4);
    j->floor = 4.0 * T * C * E + 8.0 * T + 2 * C * E;
    if (ready(j))
        j->k->layernorm_forward(j->s, y, x, delta, mean, rstd, weight, bias, 1e-5f, T, C, FC_BF16);
}

static void layernorm_backward(struct fc_counter_job *j)
{
    void *dx = take(j, 2 * T * C * E), *dy = take(j, 2 * T * C * E), *x = take(j, 2 * T * C * E);
    void *weight = take(j, C * E), *mean = take(j, 2 * T * 4), *rstd = take(j, 2 * T * 4);
    void *dweight = take(j, C * 4), *dbias = take(j, C * 4);
    float *scratch = take(j, (size_t)2 * FC_ROW_SLICES * C * 4);
    j->floor = 8.0 * T * C * E + 16.0 * T + C * (E + 16);
    if (ready(j))
        j->k->layernorm_backward(j->s, dx, dweight, dbias, dy, x, mean, rstd, weight, scratch,
                                 2 * (size_t)T, C, FC_BF16);
}

static void rope(struct fc_counter_job *j)
{
    const struct fc_heads h = {.nh = 9, .nkv = 3, .hs = 64};
    void *qkv = take(j, T * 15 * 64 * E), *table = take(j, T * 64 * 4);
    int32_t *positions = take_ints(j, T, 0, 1, T);
    j->floor = (double)T * (2 * 12 * 64 * E + 64 * 4 + 4);
    if (ready(j))
        j->k->rope(j->s, qkv, positions, table, T, &h, false, FC_BF16);
}

/* ---- feed-forward, rows, casts --------------------------------------------------------------- */

static void swiglu_forward(struct fc_counter_job *j)
{
    void *out = take(j, T * F * E), *in = take(j, 2 * T * F * E);
    j->floor = 3.0 * T * F * E;
    if (ready(j))
        j->k->swiglu_forward(j->s, out, in, T, F, FC_BF16);
}

static void swiglu_backward(struct fc_counter_job *j)
{
    void *din = take(j, 2 * T * F * E), *dout = take(j, T * F * E), *in = take(j, 2 * T * F * E);
    j->floor = 5.0 * T * F * E;
    if (ready(j))
        j->k->swiglu_backward(j->s, din, dout, in, T, F, FC_BF16);
}

static void gelu_forward(struct fc_counter_job *j)
{
    void *out = take(j, T * C * E), *in = take(j, T * C * E);
    j->floor = 2.0 * T * C * E;
    if (ready(j))
        j->k->ungated_forward(j->s, out, in, FC_GELU, T * C, FC_BF16);
}

static void gelu_backward(struct fc_counter_job *j)
{
    void *din = take(j, T * C * E), *dout = take(j, T * C * E), *in = take(j, T * C * E);
    j->floor = 3.0 * T * C * E;
    if (ready(j))
        j->k->ungated_backward(j->s, din, dout, in, FC_GELU, T * C, FC_BF16);
}

static void bias_forward(struct fc_counter_job *j)
{
    void *y = take(j, T * C * E), *bias = take(j, C * E);
    j->floor = 2.0 * T * C * E + C * E;
    if (ready(j))
        j->k->bias_forward(j->s, y, bias, T, C, FC_BF16);
}

static void bias_backward(struct fc_counter_job *j)
{
    void *dbias = take(j, C * 4), *dy = take(j, T * C * E);
    float *scratch = take(j, (size_t)FC_ROW_SLICES * C * 4);
    j->floor = (double)T * C * E + 8.0 * C;
    if (ready(j))
        j->k->bias_backward(j->s, dbias, dy, scratch, T, C, FC_BF16);
}

static void gather_rows(struct fc_counter_job *j)
{
    void *out = take(j, T * C * E), *in = take(j, 2 * T * C * E);
    int32_t *rows = take_ints(j, T, 1, 2, 2 * T);
    j->floor = 2.0 * T * C * E + 4.0 * T;
    if (ready(j))
        j->k->gather_rows(j->s, out, in, rows, T, C, FC_BF16);
}

static void scatter_rows(struct fc_counter_job *j)
{
    void *out = take(j, 2 * T * C * E), *in = take(j, T * C * E);
    int32_t *rows = take_ints(j, T, 1, 2, 2 * T);
    j->floor = 2.0 * T * C * E + 4.0 * T;
    if (ready(j))
        j->k->scatter_rows(j->s, out, in, rows, T, C, FC_BF16);
}

static void cast_down(struct fc_counter_job *j)
{
    void *to = take(j, (size_t)N * E), *from = take(j, (size_t)N * 4);
    j->floor = 6.0 * N;
    if (ready(j))
        j->k->cast(j->s, to, FC_BF16, from, FC_F32, N);
}

static void cast_up(struct fc_counter_job *j)
{
    void *to = take(j, (size_t)N * 4), *from = take(j, (size_t)N * E);
    j->floor = 6.0 * N;
    if (ready(j))
        j->k->cast(j->s, to, FC_F32, from, FC_BF16, N);
}

/* ---- classifier, optimizer --------------------------------------------------------------------
 */

static void cross_entropy(struct fc_counter_job *j, size_t V, bool gradient, enum fc_dtype dt)
{
    size_t element = fc_dtype_size(dt);
    void *losses = take(j, LOGIT_ROWS * 4), *logits = take(j, LOGIT_ROWS * V * element);
    int32_t *targets = take_ints(j, LOGIT_ROWS, 3, 1001, V);
    float *weights = take(j, LOGIT_ROWS * 4);
    j->floor = LOGIT_ROWS * ((double)(V * element) * (gradient ? 2 : 1) + 12);
    if (ready(j))
        j->k->cross_entropy(j->s, losses, logits, targets, gradient ? weights : NULL, LOGIT_ROWS, V,
                            dt);
}

static void cross_entropy_loss(struct fc_counter_job *j)
{
    cross_entropy(j, 49152, false, FC_BF16);
}
static void cross_entropy_gradient(struct fc_counter_job *j)
{
    cross_entropy(j, 49152, true, FC_BF16);
}
static void cross_entropy_wide(struct fc_counter_job *j)
{
    cross_entropy(j, 49152, true, FC_F32);
}
static void cross_entropy_odd(struct fc_counter_job *j)
{
    cross_entropy(j, 32003, true, FC_BF16);
}

static void sum_squares(struct fc_counter_job *j)
{
    void *out = take(j, 8), *g = take(j, (size_t)N * 4), *scratch = take(j, 8192);
    j->floor = 4.0 * N;
    if (ready(j))
        j->k->sum_squares(j->s, out, g, scratch, N);
}

static void all_finite(struct fc_counter_job *j)
{
    void *out = take(j, 4), *g = take(j, (size_t)N * 4);
    j->floor = 4.0 * N;
    if (ready(j))
        j->k->all_finite(j->s, out, g, N);
}

/* The numbers of a first step. */
static struct fc_adamw_step *take_step(struct fc_counter_job *j, bool stochastic)
{
    const struct fc_adamw how = {.lr = 1e-3f,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.95f,
                                 .eps = 1e-8f,
                                 .grad_scale = 1,
                                 .step = 1,
                                 .stochastic = stochastic};
    const struct fc_adamw_step host = fc_adamw_prepare(&how);
    struct fc_adamw_step *p = take(j, sizeof *p);
    if (p) {
        j->k->upload(j->s, p, &host, sizeof host);
        (void)j->k->sync(j->s, &j->err);
    }
    return p;
}

static void adamw(struct fc_counter_job *j, bool stochastic)
{
    void *weights = take(j, (size_t)N * E), *master = take(j, (size_t)N * 4);
    void *m = take(j, (size_t)N * 4), *v = take(j, (size_t)N * 4), *grad = take(j, (size_t)N * 4);
    struct fc_adamw_step *how = take_step(j, stochastic);
    j->floor = (28.0 + E) * N;
    if (ready(j))
        j->k->adamw(j->s, weights, master, m, v, grad, N, 0, how, FC_BF16);
}

static void adamw_nearest(struct fc_counter_job *j)
{
    adamw(j, false);
}
static void adamw_stochastic(struct fc_counter_job *j)
{
    adamw(j, true);
}

/* ---- attention ---------------------------------------------------------------------------------
 */

enum { AT = 512, NH = 8, NKV = 2, HS = 64, Q = (NH + 2 * NKV) * HS };
static const struct fc_heads heads = {.nh = NH, .nkv = NKV, .hs = HS, .scale = 0.125f};

static void attention_forward(struct fc_counter_job *j)
{
    const int32_t starts[] = {0, AT};
    void *out = take(j, AT * NH * HS * E), *lse = take(j, AT * NH * 4), *qkv = take(j, AT * Q * E);
    j->floor = (double)AT * ((Q + NH * HS) * E + NH * 4);
    if (ready(j))
        j->k->attention_forward(j->s, out, lse, qkv, starts, 1, &heads, FC_BF16);
}

static void attention_backward(struct fc_counter_job *j)
{
    const int32_t starts[] = {0, AT};
    void *out = take(j, AT * NH * HS * E), *lse = take(j, AT * NH * 4), *qkv = take(j, AT * Q * E);
    void *dout = take(j, AT * NH * HS * E), *dqkv = take(j, AT * Q * E);
    void *scratch = take(j, AT * NH * 4);
    j->floor = (double)AT * ((2 * Q + 2 * NH * HS) * E + NH * 4);
    if (ready(j))
        j->k->attention_backward(j->s, dqkv, dout, out, lse, qkv, scratch, starts, 1, &heads,
                                 FC_BF16);
}

enum { PAGE = 16, ROWS = 16, LENGTH = 1024 };

static void cache_write(struct fc_counter_job *j)
{
    const struct fc_heads wide = {.nh = 32, .nkv = 8, .hs = 128};
    struct fc_pages pages = {.page_size = PAGE};
    size_t row = wide.nkv * wide.hs * E;
    pages.keys = take(j, AT * row);
    pages.values = take(j, AT * row);
    void *qkv = take(j, AT * 6 * row);
    int32_t *slots = take_ints(j, AT, 0, 1, AT);
    j->floor = AT * (4 * (double)row + 4);
    if (ready(j))
        j->k->cache_write(j->s, &pages, qkv, slots, AT, &wide, FC_BF16);
}

static void paged_attention(struct fc_counter_job *j)
{
    struct fc_pages pages = {.page_size = PAGE};
    pages.keys = take(j, (size_t)ROWS * LENGTH * NKV * HS * E);
    pages.values = take(j, (size_t)ROWS * LENGTH * NKV * HS * E);
    void *out = take(j, ROWS * NH * HS * E), *qkv = take(j, ROWS * Q * E);
    int32_t *tables = take_ints(j, ROWS * LENGTH / PAGE, 0, 1, ROWS * LENGTH / PAGE);
    int32_t *lengths = take_ints(j, ROWS, LENGTH, 0, LENGTH + 1);
    j->floor = (double)ROWS * (2.0 * LENGTH * NKV * HS * E + 2.0 * NH * HS * E);
    if (ready(j))
        j->k->paged_attention(j->s, out, qkv, &pages, tables, LENGTH / PAGE, lengths, ROWS, &heads,
                              FC_BF16);
}

/* ---- sampling, weights as files store them -----------------------------------------------------
 */

enum { DRAWS = 8, VOCABULARY = 49152 };

static void sample(struct fc_counter_job *j, float temperature, float top_p)
{
    struct fc_sampling how[DRAWS];
    void *ids = take(j, DRAWS * 4), *logits = take(j, (size_t)DRAWS * VOCABULARY * 4);
    for (size_t i = 0; i < DRAWS; i++)
        how[i] = (struct fc_sampling){
            .temperature = temperature, .top_k = 40, .top_p = top_p, .seed = 1, .position = i};
    j->floor = (double)DRAWS * (VOCABULARY * 4 + 4);
    if (ready(j))
        j->k->sample(j->s, ids, logits, how, DRAWS, VOCABULARY);
}

static void sample_greedy(struct fc_counter_job *j)
{
    sample(j, 0, 1);
}
static void sample_top(struct fc_counter_job *j)
{
    sample(j, 0.7f, 0.9f);
}

static void select_smallest(struct fc_counter_job *j)
{
    void *idx = take(j, DRAWS * 128 * 4), *scores = take(j, (size_t)DRAWS * VOCABULARY * 4);
    j->floor = (double)DRAWS * (VOCABULARY * 4 + 128 * 4);
    if (ready(j))
        j->k->select_smallest(j->s, idx, scores, DRAWS, VOCABULARY, 128);
}

enum { Q4_0 = 2, Q8_0 = 8, BLOCK = 32 }; /* numbers of base/dequant.h; weights in a block */

static void dequantise(struct fc_counter_job *j)
{
    void *out = take(j, (size_t)N * E), *blocks = take(j, (size_t)N / BLOCK * 18);
    j->floor = (double)N / BLOCK * 18 + (double)N * E;
    if (ready(j))
        j->k->dequantise(j->s, out, FC_BF16, blocks, Q4_0, N / BLOCK);
}

static void gemm_quantised(struct fc_counter_job *j, uint32_t type, size_t bytes)
{
    void *blocks = take(j, (size_t)C * C / BLOCK * bytes);
    void *x = take(j, C * E), *y = take(j, C * E);
    j->floor = (double)C * C / BLOCK * (double)bytes + 2.0 * C * E;
    size_t taken;
    if (!ready(j))
        return;
    struct fc_quantised *w = j->k->quantised_open(j->s, blocks, type, C, C, &taken);
    if (!w)
        return; /* the stream has the error */
    j->k->gemm_quantised(j->s, y, FC_BF16, x, FC_BF16, w, 1);
    j->k->quantised_close(j->s, w);
}

static void gemm_q4_0(struct fc_counter_job *j)
{
    gemm_quantised(j, Q4_0, 18);
}
static void gemm_q8_0(struct fc_counter_job *j)
{
    gemm_quantised(j, Q8_0, 34);
}

#define BOUND 1.05

const struct fc_counter_row fc_counter_rows[] = {
    {"embed_forward", "bf16 4096 x 1024", BOUND, embed_forward, NULL},
    {"embed_backward", "bf16 4096 x 1024, distinct ids", BOUND, embed_backward, NULL},
    {"rmsnorm_forward", "bf16 4096 x 1024 with delta", BOUND, rmsnorm_forward, NULL},
    {"rmsnorm_backward", "bf16 4096 x 1024", BOUND, rmsnorm_backward, NULL},
    {"layernorm_forward", "bf16 4096 x 1024 with delta", BOUND, layernorm_forward, NULL},
    {"layernorm_backward", "bf16 8192 x 1024", BOUND, layernorm_backward, NULL},
    {"rope", "bf16 4096 tokens, 9 + 3 heads of 64", BOUND, rope, NULL},
    {"swiglu_forward", "bf16 4096 x 1536", BOUND, swiglu_forward, NULL},
    {"swiglu_backward", "bf16 4096 x 1536", BOUND, swiglu_backward, NULL},
    {"gelu forward", "bf16 4096 x 1024", BOUND, gelu_forward, NULL},
    {"gelu backward", "bf16 4096 x 1024", BOUND, gelu_backward, NULL},
    {"bias_forward", "bf16 4096 x 1024", BOUND, bias_forward, NULL},
    {"bias_backward", "bf16 4096 x 1024", BOUND, bias_backward, NULL},
    {"gather_rows", "bf16 4096 x 1024", BOUND, gather_rows, NULL},
    {"scatter_rows", "bf16 4096 x 1024", BOUND, scatter_rows, NULL},
    {"cast", "fp32 to bf16, 4194304", BOUND, cast_down, NULL},
    {"cast", "bf16 to fp32, 4194304", BOUND, cast_up, NULL},
    {"cross_entropy", "bf16 32 x 49152, loss alone", BOUND, cross_entropy_loss, NULL},
    {"cross_entropy", "bf16 32 x 49152, gradient", BOUND, cross_entropy_gradient, NULL},
    {"cross_entropy", "fp32 32 x 49152, gradient", BOUND, cross_entropy_wide, NULL},
    {"cross_entropy", "bf16 32 x 32003 (not aligned)", 0, cross_entropy_odd, NULL},
    {"sum_squares", "4194304", BOUND, sum_squares, NULL},
    {"all_finite", "4194304", BOUND, all_finite, NULL},
    {"adamw", "bf16 4194304, to nearest", BOUND, adamw_nearest, NULL},
    {"adamw", "bf16 4194304, stochastic", BOUND, adamw_stochastic, NULL},
    {"attention_forward", "bf16 512 tokens, 8 / 2 heads of 64", 0, attention_forward, NULL},
    {"attention_backward", "bf16 512 tokens, 8 / 2 heads of 64", 0, attention_backward, NULL},
    {"cache_write", "bf16 512 tokens, 8 heads of 128", BOUND, cache_write, NULL},
    {"paged_attention", "bf16 16 rows of 1024, 8 / 2 heads", 0, paged_attention, NULL},
    {"sample", "8 x 49152, greedy", 0, sample_greedy, NULL},
    {"sample", "8 x 49152, top-k 40, top-p 0.9", 0, sample_top, NULL},
    {"select_smallest", "128 of 49152, 8 rows", 0, select_smallest, NULL},
    {"dequantise", "Q4_0 to bf16, 4194304", BOUND, dequantise, NULL},
    {"gemm_quantised", "Q4_0 1024 x 1024, 1 row", 0, gemm_q4_0, "multiply"},
    {"gemm_quantised", "Q8_0 1024 x 1024, 1 row", 0, gemm_q8_0, "multiply"},
    {0},
};
