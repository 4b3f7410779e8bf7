/* Our own product, for what oneDNN cannot compute in a fixed order.
 *
 * oneDNN's brgemm kernels (AVX-512 in v2, also AVX2 in later v3) sum every element of y along k in
 * one fixed order. Its older gemm does not: the order depends on the place of a row in its tile and
 * on the number of threads, seen with oneDNN 2.6.3 limited to AVX2 (row 5 of 7 alone differs from
 * row 62 of 100). And bf16 without bf16 instructions is emulated or missing. Both come here.
 *
 * Operands of any dtype and transposition are widened into fp32 panels, so that the inner loop
 * reads two streams in order: MR values of a and NR of b for every step of k. A tile of y is
 * MR x NR sums in registers: 6 x 16 floats fill 12 of the 16 registers of AVX2. Every element is
 * one chain of fused multiply-adds over ascending k, whatever m, n, its place and the threads: the
 * order of kernels.h's promise by construction.
 *
 * Floor: 2 m n k FLOPs; each operand is widened again for every block of the other, 5-10 % extra.
 * Measured on one Zen 4 core at 3072 x 576 x 4096: 84 GFLOP/s in fp32 (oneDNN's AVX-512: 104). */
#include "kernels/cpu/cpu.h"

enum {
    MR = 6,
    NR = 16,
    /* A block of y; its panels (0.4 and 0.5 MiB) and sums (0.75 MiB) stay in L2 and L3. */
    BLOCK_M = 64 * MR,
    BLOCK_N = 32 * NR,
    BLOCK_K = 256
};
_Static_assert((int)BLOCK_N <= (int)FC_CPU_CHUNK && (int)BLOCK_M <= (int)FC_CPU_CHUNK,
               "a row of a block is widened in one chunk");

/* One operand of one block. */
struct panel_source {
    const void *p;
    size_t ld;
    bool along_k; /* consecutive elements are consecutive in k */
    enum fc_dtype type;
    size_t width;           /* MR or NR */
    size_t first, count, k; /* rows (of a) or columns (of b) of the block, and the first k */
};

/* to[panel][step of k][width] = the block as fp32, zero beyond `count`. Inside a parallel region:
 * the iterations are shared, and all threads wait at the end. */
static void widen(float *restrict to, const struct panel_source *s, size_t steps)
{
    size_t panels = (s->count + s->width - 1) / s->width, size = s->width * steps;
    if (s->count % s->width) {
#pragma omp single
        memset(to + (panels - 1) * size, 0, size * sizeof *to);
    }
    if (s->along_k) {
#pragma omp for
        for (size_t i = 0; i < s->count; i++) {
            float buffer[FC_CPU_CHUNK];
            const float *v =
                fc_cpu_view(buffer, s->p, (s->first + i) * s->ld + s->k, steps, s->type);
            float *column = to + i / s->width * size + i % s->width;
            for (size_t p = 0; p < steps; p++)
                column[p * s->width] = v[p];
        }
    } else {
#pragma omp for
        for (size_t p = 0; p < steps; p++) {
            float buffer[FC_CPU_CHUNK];
            const float *v =
                fc_cpu_view(buffer, s->p, (s->k + p) * s->ld + s->first, s->count, s->type);
            for (size_t i = 0; i < s->count; i += s->width)
                memcpy(to + i / s->width * size + p * s->width, v + i,
                       fc_cpu_min(s->width, s->count - i) * sizeof *v);
        }
    }
}

/* sum[MR][NR] += a panel times a panel. */
static void tile(float *restrict sum, const float *restrict a, const float *restrict b,
                 size_t steps)
{
    float acc[MR][NR];
    memcpy(acc, sum, sizeof acc);
    for (size_t p = 0; p < steps; p++, a += MR, b += NR)
        for (size_t r = 0; r < MR; r++) {
#pragma omp simd
            for (size_t j = 0; j < NR; j++)
                acc[r][j] = fc_cpu_fma(a[r], b[j], acc[r][j]);
        }
    memcpy(sum, acc, sizeof acc);
}

/* Row i of a block of sums to y, with its part of the bias. */
static void put_row(const struct fc_gemm *g, const float *sums, size_t panels, size_t i, size_t row,
                    size_t column, size_t n)
{
    for (size_t c = 0; c < n; c += NR) {
        const float *from = sums + ((i / MR * panels + c / NR) * MR + i % MR) * NR;
        size_t m = fc_cpu_min(NR, n - c), at = row * g->ldy + column + c;
        if (g->accumulate)
            for (size_t j = 0; j < m; j++)
                ((float *)g->y)[at + j] += from[j];
        else if (!g->bias)
            fc_cpu_store(g->y, at, from, m, g->y_type);
        else {
            float with_bias[NR];
            fc_cpu_load(with_bias, g->bias, column + c, m, g->type);
            for (size_t j = 0; j < m; j++)
                with_bias[j] += from[j];
            fc_cpu_store(g->y, at, with_bias, m, g->y_type);
        }
    }
}

/* Rows i..i+m and columns j..j+n of y. */
static void block(struct fc_stream *s, const struct fc_gemm *g, size_t i, size_t m, size_t j,
                  size_t n, float *scratch)
{
    size_t tiles = (m + MR - 1) / MR, panels = (n + NR - 1) / NR;
    float *pa = scratch, *pb = pa + BLOCK_M * BLOCK_K, *sums = pb + BLOCK_K * BLOCK_N;
#pragma omp parallel num_threads(fc_cpu_threads(s, m *n))
    {
        struct panel_source a = {g->a, g->lda, !g->trans_a, g->type, MR, i, m, 0};
        struct panel_source b = {g->b, g->ldb, g->trans_b, g->type, NR, j, n, 0};
#pragma omp for
        for (size_t t = 0; t < tiles * panels; t++)
            memset(sums + t * MR * NR, 0, MR * NR * sizeof *sums);
        for (size_t p = 0; p < g->k; p += BLOCK_K) {
            size_t steps = fc_cpu_min(BLOCK_K, g->k - p);
            a.k = b.k = p;
            widen(pa, &a, steps);
            widen(pb, &b, steps);
#pragma omp for collapse(2)
            for (size_t t = 0; t < tiles; t++)
                for (size_t q = 0; q < panels; q++)
                    tile(sums + (t * panels + q) * MR * NR, pa + t * MR * steps,
                         pb + q * NR * steps, steps);
        }
#pragma omp for
        for (size_t r = 0; r < m; r++)
            put_row(g, sums, panels, r, i + r, j, n);
    }
}

void fc_cpu_gemm_blocks(struct fc_stream *s, const struct fc_gemm *g)
{
    size_t floats =
        (size_t)BLOCK_M * BLOCK_K + (size_t)BLOCK_K * BLOCK_N + (size_t)BLOCK_M * BLOCK_N;
    float *scratch = fc_cpu_product_scratch(s, floats * sizeof(float));
    if (!scratch)
        return;
    for (size_t i = 0; i < g->m; i += BLOCK_M)
        for (size_t j = 0; j < g->n; j += BLOCK_N)
            block(s, g, i, fc_cpu_min(BLOCK_M, g->m - i), j, fc_cpu_min(BLOCK_N, g->n - j),
                  scratch);
}
