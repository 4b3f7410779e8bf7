/* The entries of attention over a paged cache: the cache's write, the choice of the kernel, and the
 * sum of a long row's parts.
 *
 * Floor: the write moves 4 nkv hs elements per row (k and v in and out). Attention: see the
 * kernels. The parts of a row of n keys are n / 256 times nh (hs + 2) floats, written and read
 * once: at groups of 8 heads 6 % of the keys and values.
 *
 * A row's keys are taken in runs of FC_PAGED_SPLIT from its first token; each run is one softmax,
 * by one block; the runs are merged in order. So a row's bits depend on its length alone, whatever
 * the rows beside it, the pages, and the device. The parts lie in a scratch of the stream, of fixed
 * size since it is opened: where they do not fit, rows go in several launches.
 */
#include "kernels/cuda/attention.cuh"

enum { WRITE_THREADS = 128, MERGE_WARPS = 4, MERGE_THREADS = 32 * MERGE_WARPS };

/* Unit: what one access moves; units: of a row's keys, and as many of its values behind them. */
template <typename Unit>
__global__ void __launch_bounds__(WRITE_THREADS)
    cache_write(Unit *keys, Unit *values, const Unit *qkv, const int32_t *slots, size_t width,
                size_t first, int units)
{
    const Unit *from = qkv + blockIdx.x * width + first;
    const size_t to = (size_t)slots[blockIdx.x] * units;
    for (int i = threadIdx.x; i < 2 * units; i += WRITE_THREADS) {
        const Unit x = from[i];
        if (i < units)
            keys[to + i] = x;
        else
            values[to + i - units] = x;
    }
}

template <typename Unit>
static void launch_write(struct fc_stream *s, const struct fc_pages *pages, const void *qkv,
                         const int32_t *slots, size_t T, const struct fc_heads *h, size_t element)
{
    size_t kv = h->nkv * h->hs * element / sizeof(Unit), q = h->nh * h->hs * element / sizeof(Unit);
    FC_LAUNCH(s, cache_write<Unit>, (unsigned)T, WRITE_THREADS, 0, static_cast<Unit *>(pages->keys),
              static_cast<Unit *>(pages->values), static_cast<const Unit *>(qkv), slots, q + 2 * kv,
              q, (int)kv);
}

void fc_cuda_cache_write(struct fc_stream *s, const struct fc_pages *pages, const void *qkv,
                         const int32_t *slots, size_t T, const struct fc_heads *h, enum fc_dtype dt)
{
    if (!fc_cuda_ok(s) || T == 0)
        return;
    size_t element = fc_dtype_size(dt), vector = FC_ATTENTION_ALIGNMENT;
    if (h->hs * element % vector == 0 && fc_cuda_aligned(pages->keys, vector) &&
        fc_cuda_aligned(pages->values, vector) && fc_cuda_aligned(qkv, vector))
        launch_write<uint4>(s, pages, qkv, slots, T, h, element);
    else if (element == sizeof(uint32_t))
        launch_write<uint32_t>(s, pages, qkv, slots, T, h, element);
    else
        launch_write<uint16_t>(s, pages, qkv, slots, T, h, element);
}

/* out of rows with more than one part: a warp takes one query head, a lane every 32nd channel. */
template <typename T>
__global__ void __launch_bounds__(MERGE_THREADS)
    merge_parts(const __grid_constant__ struct fc_paged_call c)
{
    const int head = blockIdx.y * MERGE_WARPS + threadIdx.x / 32;
    const size_t row = c.first_row + blockIdx.x;
    const int length = c.lengths[row];
    if (length <= FC_PAGED_SPLIT || head >= c.shape.nh)
        return;
    const int parts = (length + FC_PAGED_SPLIT - 1) / FC_PAGED_SPLIT;
    const size_t first = ((size_t)blockIdx.x * c.shape.nh + head) * c.splits;
    float top = -INFINITY, sum = 0.0f;
    for (int i = 0; i < parts; i++)
        top = fmaxf(top, c.part_sum[first + i].x);
    for (int i = 0; i < parts; i++) {
        const float2 part = c.part_sum[first + i];
        sum = fmaf(part.y, exp2f(part.x - top), sum);
    }
    T *out = static_cast<T *>(c.out) + row * c.shape.out + (size_t)head * c.shape.hs;
    for (int channel = threadIdx.x % 32; channel < c.shape.hs; channel += 32) {
        float o = 0.0f;
        for (int i = 0; i < parts; i++)
            o = fmaf(c.part_o[(first + i) * c.shape.hs + channel],
                     exp2f(c.part_sum[first + i].x - top), o);
        out[channel] = fc_from_float<T>(o / sum);
    }
}

static void run(struct fc_stream *s, const struct fc_paged_call *c, enum fc_dtype dt)
{
    bool aligned = fc_cuda_aligned(c->qkv, FC_ATTENTION_ALIGNMENT) &&
                   fc_cuda_aligned(c->out, FC_ATTENTION_ALIGNMENT) &&
                   fc_cuda_aligned(c->keys, FC_ATTENTION_ALIGNMENT) &&
                   fc_cuda_aligned(c->values, FC_ATTENTION_ALIGNMENT);
    if (!aligned || !fc_cuda_paged_mma(s, c, dt))
        fc_cuda_paged_plain(s, c, dt);
    if (c->splits == 1)
        return;
    dim3 grid((unsigned)c->rows, (unsigned)fc_cuda_blocks((size_t)c->shape.nh, MERGE_WARPS));
    fc_cuda_by_type(dt, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        FC_LAUNCH(s, merge_parts<T>, grid, MERGE_THREADS, 0, *c);
    });
}

void fc_cuda_paged_attention(struct fc_stream *s, void *out, const void *qkv,
                             const struct fc_pages *pages, const int32_t *tables,
                             size_t table_width, const int32_t *lengths, size_t T,
                             const struct fc_heads *h, enum fc_dtype dt)
{
    struct fc_paged_call c = {};
    if (!fc_cuda_ok(s) || T == 0 || table_width == 0 || !fc_cuda_attention_shape(s, &c.shape, h))
        return;
    size_t splits = fc_cuda_blocks(table_width * pages->page_size, FC_PAGED_SPLIT);
    size_t row_floats = h->nh * splits * (h->hs + 2), launch = T;
    if (splits > 1)
        launch = FC_PAGED_SCRATCH / sizeof(float) / row_floats;
    if (launch == 0 || splits > 65535) {
        fc_fail(
            &s->error, FC_ERR_UNSUPPORTED,
            "paged attention: rows of %zu tokens with %zu heads of %zu need %zu bytes for their "
            "parts, there are %zu",
            table_width * pages->page_size, h->nh, h->hs, row_floats * sizeof(float),
            (size_t)FC_PAGED_SCRATCH);
        return;
    }
    c.qkv = qkv;
    c.keys = pages->keys;
    c.values = pages->values;
    c.out = out;
    c.tables = tables;
    c.lengths = lengths;
    c.table_width = table_width;
    c.page_size = pages->page_size;
    c.splits = (int)splits;
    for (c.first_row = 0; c.first_row < T; c.first_row += launch) {
        c.rows = T - c.first_row < launch ? T - c.first_row : launch;
        c.part_o = s->parts;
        c.part_sum = reinterpret_cast<float2 *>(s->parts + launch * h->nh * splits * h->hs);
        run(s, &c, dt);
    }
}
