/* Attention in fp64, written as its definition reads: the truth for the tests of both attentions.
 */
#ifndef FC_TESTS_KERNELS_ATTENTION_REFERENCE_H
#define FC_TESTS_KERNELS_ATTENTION_REFERENCE_H

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Row of the fused q|k|v matrix. */
static inline size_t ref_width(const struct fc_heads *h)
{
    return (h->nh + 2 * h->nkv) * h->hs;
}

/* One query head of n keys: p[n] the probabilities, out[hs]; returns log(sum(exp(scores))). Key j
 * is at k + j * stride, its value at v + j * stride. */
static inline double ref_head(double *p, double *out, const double *q, const double *k,
                              const double *v, size_t stride, size_t n, size_t hs, double scale)
{
    double top = -INFINITY, sum = 0.0;
    for (size_t j = 0; j < n; j++) {
        p[j] = 0.0;
        for (size_t c = 0; c < hs; c++)
            p[j] += scale * q[c] * k[j * stride + c];
        top = fmax(top, p[j]);
    }
    for (size_t j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - top);
    for (size_t c = 0; c < hs; c++)
        out[c] = 0.0;
    for (size_t j = 0; j < n; j++) {
        p[j] /= sum;
        for (size_t c = 0; c < hs; c++)
            out[c] += p[j] * v[j * stride + c];
    }
    return top + log(sum);
}

/* out[T, nh hs] and lse[T, nh] of packed sequences. `scratch`: the longest sequence. */
static inline void ref_forward(double *out, double *lse, const double *qkv, const int32_t *starts,
                               size_t B, const struct fc_heads *h, double *scratch)
{
    size_t w = ref_width(h), hs = h->hs;
    for (size_t b = 0; b < B; b++)
        for (size_t first = (size_t)starts[b], t = first; t < (size_t)starts[b + 1]; t++)
            for (size_t i = 0; i < h->nh; i++) {
                const double *k = qkv + first * w + (h->nh + i / (h->nh / h->nkv)) * hs;
                lse[t * h->nh + i] =
                    ref_head(scratch, out + (t * h->nh + i) * hs, qkv + t * w + i * hs, k,
                             k + h->nkv * hs, w, t + 1 - first, hs, (double)h->scale);
            }
}

/* dqkv[T, w] from dout[T, nh hs]; scratch: twice the longest sequence plus hs. */
static inline void ref_backward(double *dqkv, const double *dout, const double *qkv,
                                const int32_t *starts, size_t B, const struct fc_heads *h,
                                double *scratch)
{
    size_t w = ref_width(h), hs = h->hs, kv = h->nkv * hs;
    memset(dqkv, 0, (size_t)starts[B] * w * sizeof *dqkv);
    for (size_t b = 0; b < B; b++)
        for (size_t first = (size_t)starts[b], t = first; t < (size_t)starts[b + 1]; t++)
            for (size_t i = 0; i < h->nh; i++) {
                size_t n = t + 1 - first, head = (h->nh + i / (h->nh / h->nkv)) * hs;
                double *p = scratch, *dp = p + n, *out = dp + n, mean = 0.0;
                const double *q = qkv + t * w + i * hs, *k = qkv + first * w + head;
                const double *go = dout + (t * h->nh + i) * hs;
                double *dq = dqkv + t * w + i * hs, *dk = dqkv + first * w + head;
                ref_head(p, out, q, k, k + kv, w, n, hs, (double)h->scale);
                for (size_t j = 0; j < n; j++) {
                    dp[j] = 0.0;
                    for (size_t c = 0; c < hs; c++)
                        dp[j] += go[c] * k[kv + j * w + c];
                    mean += p[j] * dp[j];
                }
                for (size_t j = 0; j < n; j++)
                    for (size_t c = 0; c < hs; c++) {
                        double ds = p[j] * (dp[j] - mean) * (double)h->scale;
                        dq[c] += ds * k[j * w + c];
                        dk[j * w + c] += ds * q[c];
                        dk[kv + j * w + c] += p[j] * go[c];
                    }
            }
}

/* limit[T, w]: how far a gradient can be off, to first order, where the output (weights and
 * result), the weights, and the gradients of the scores are each rounded, by `u` at most; scratch
 * as above. */
static inline void ref_backward_limits(double *limit, const double *dout, const double *qkv,
                                       const int32_t *starts, size_t B, const struct fc_heads *h,
                                       double u, double *scratch)
{
    size_t w = ref_width(h), hs = h->hs, kv = h->nkv * hs;
    memset(limit, 0, (size_t)starts[B] * w * sizeof *limit);
    for (size_t b = 0; b < B; b++)
        for (size_t first = (size_t)starts[b], t = first; t < (size_t)starts[b + 1]; t++)
            for (size_t i = 0; i < h->nh; i++) {
                size_t n = t + 1 - first, head = (h->nh + i / (h->nh / h->nkv)) * hs;
                double *p = scratch, *dp = p + n, *out = dp + n, mean = 0.0, off = 0.0;
                const double *q = qkv + t * w + i * hs, *k = qkv + first * w + head;
                const double *go = dout + (t * h->nh + i) * hs;
                double *dq = limit + t * w + i * hs, *dk = limit + first * w + head;
                ref_head(p, out, q, k, k + kv, w, n, hs, (double)h->scale);
                for (size_t j = 0; j < n; j++) {
                    dp[j] = 0.0;
                    for (size_t c = 0; c < hs; c++) {
                        dp[j] += go[c] * k[kv + j * w + c];
                        off += u * p[j] * fabs(go[c] * k[kv + j * w + c]);
                    }
                    mean += p[j] * dp[j];
                }
                for (size_t c = 0; c < hs; c++)
                    off += u * fabs(go[c] * out[c]);
                for (size_t j = 0; j < n; j++)
                    for (size_t c = 0; c < hs; c++) {
                        double ds = p[j] * (off + u * fabs(dp[j] - mean)) * (double)h->scale;
                        dq[c] += ds * fabs(k[j * w + c]);
                        dk[j * w + c] += ds * fabs(q[c]);
                        dk[kv + j * w + c] += u * p[j] * fabs(go[c]);
                    }
            }
}

#endif
