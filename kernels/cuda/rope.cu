/* Rotary positions: the pair (i, i + HS/2) of every q and k head turns by the angle of its
 * position. In place.
 *
 * Floor per token: (NH + NKV) HS elements read and written, HS floats of the table read, 3 FLOPs an
 * element; v is not touched.
 *
 * A warp owns a token: a lane keeps four cosines and sines in registers and turns the same four
 * channels of one head after another. Four and not eight 16-bit channels, because the table's four
 * are 16 bytes: eight would fetch its sectors twice. */
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, W = 4, AHEAD = 3 /* heads of a lane in flight */ };

template <typename T>
__global__ void __launch_bounds__(THREADS)
    rope_kernel(T *qkv, const int32_t *positions, const float *table, size_t rows, size_t width,
                int heads, int hs, float sign)
{
    size_t t = (size_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int half = hs / 2, parts = half / W, lane = threadIdx.x % 32; /* parts <= 32 */
    int together = 32 / parts, first = lane / parts, c = lane % parts * W;
    if (t >= rows || first >= together)
        return;
    const float *row = table + (size_t)positions[t] * (size_t)hs;
    fc_vec<float, W> cosine = fc_load<W>(row + c), sine = fc_load<W>(row + half + c);
    T *at = qkv + t * width + c;
    for (int head = first; head < heads; head += AHEAD * together) {
        fc_vec<T, W> low[AHEAD], high[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (head + i * together < heads) {
                low[i] = fc_load<W>(at + (head + i * together) * hs);
                high[i] = fc_load<W>(at + (head + i * together) * hs + half);
            }
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (head + i * together < heads) {
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float x = fc_to_float(low[i].v[k]), y = fc_to_float(high[i].v[k]);
                    float sn = sign * sine.v[k];
                    low[i].v[k] = fc_from_float<T>(x * cosine.v[k] - y * sn);
                    high[i].v[k] = fc_from_float<T>(y * cosine.v[k] + x * sn);
                }
                fc_store<W>(at + (head + i * together) * hs, low[i]);
                fc_store<W>(at + (head + i * together) * hs + half, high[i]);
            }
    }
}

/* Any head size and alignment: a block owns a token. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    rope_scalar_kernel(T *qkv, const int32_t *positions, const float *table, size_t width,
                       int heads, int hs, float sign)
{
    size_t t = blockIdx.x;
    int half = hs / 2;
    const float *row = table + (size_t)positions[t] * (size_t)hs;
    for (int head = 0; head < heads; head++)
        for (int c = (int)threadIdx.x; c < half; c += THREADS) {
            T *low = qkv + t * width + (size_t)head * (size_t)hs + c, *high = low + half;
            float x = fc_to_float(*low), y = fc_to_float(*high), sn = sign * row[half + c];
            *low = fc_from_float<T>(x * row[c] - y * sn);
            *high = fc_from_float<T>(y * row[c] + x * sn);
        }
}

void fc_cuda_rope(struct fc_stream *s, void *qkv, const int32_t *positions, const float *table,
                  size_t T, const struct fc_heads *h, bool backward, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T == 0)
        return;
    size_t width = (h->nh + 2 * h->nkv) * h->hs;
    int heads = (int)(h->nh + h->nkv), hs = (int)h->hs;
    float sign = backward ? -1.0f : 1.0f;
    fc_cuda_by_type(dt, [&](auto *type) {
        using E = std::remove_pointer_t<decltype(type)>;
        auto *x = static_cast<E *>(qkv);
        if (h->hs <= 2 * 32 * W && fc_cuda_vectors<W, E>(h->hs / 2, qkv) &&
            fc_cuda_aligned(table, W * sizeof(float)))
            FC_LAUNCH(s, rope_kernel<E>, (unsigned)fc_cuda_blocks(T, WARPS), THREADS, 0, x,
                      positions, table, T, width, heads, hs, sign);
        else
            FC_LAUNCH(s, rope_scalar_kernel<E>, (unsigned)T, THREADS, 0, x, positions, table, width,
                      heads, hs, sign);
    });
}
