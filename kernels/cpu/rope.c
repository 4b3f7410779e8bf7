/* Rotary positions: the pair (i, i + HS/2) of every q and k head turns by the angle of its
 * position.
 *
 * Floor per element of q and k: one read, one write, 3 FLOPs; v is not touched. The table's row
 * (HS floats) is shared by all heads of a token and stays in L1. */
#include "kernels/cpu/cpu.h"

/* Turns channels [c, c+n) and [c+half, c+half+n) of the head at `offset`. */
static void turn(void *qkv, size_t offset, size_t half, const float *restrict cosine,
                 const float *restrict sine, float sign, size_t n, enum fc_dtype dt)
{
    float lo[FC_CPU_CHUNK], hi[FC_CPU_CHUNK];
    fc_cpu_load(lo, qkv, offset, n, dt);
    fc_cpu_load(hi, qkv, offset + half, n, dt);
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float x = lo[i], y = hi[i], sn = sign * sine[i];
        lo[i] = x * cosine[i] - y * sn;
        hi[i] = y * cosine[i] + x * sn;
    }
    fc_cpu_store(qkv, offset, lo, n, dt);
    fc_cpu_store(qkv, offset + half, hi, n, dt);
}

void fc_cpu_rope(struct fc_stream *s, void *qkv, const int32_t *positions, const float *table,
                 size_t T, const struct fc_heads *h, bool backward, enum fc_dtype dt)
{
    if (!fc_cpu_ok(s))
        return;
    size_t heads = h->nh + h->nkv, half = h->hs / 2, width = (h->nh + 2 * h->nkv) * h->hs;
    float sign = backward ? -1.0f : 1.0f;
#pragma omp parallel for num_threads(fc_cpu_threads(s, T *heads * h->hs))
    for (size_t t = 0; t < T; t++) {
        const float *row = table + (size_t)positions[t] * h->hs;
        for (size_t head = 0; head < heads; head++)
            for (size_t c = 0; c < half; c += FC_CPU_CHUNK)
                turn(qkv, t * width + head * h->hs + c, half, row + c, row + half + c, sign,
                     fc_cpu_min(FC_CPU_CHUNK, half - c), dt);
    }
}
