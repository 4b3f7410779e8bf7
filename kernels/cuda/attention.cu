/* The entries of attention over packed sequences: they check the shape, cut the batch into launches
 * and choose the kernel. Tensor cores serve bf16 and fp16 with the usual head sizes
 * (attention_forward.cu, attention_backward.cu); the rest is attention_plain.cu's.
 */
#include "kernels/cuda/attention.cuh"

enum { DELTA_WARPS = 4, DELTA_THREADS = 32 * DELTA_WARPS };

/* delta[t, head] = sum over channels of dout * out: what softmax's derivative subtracts. */
template <typename T>
__global__ void __launch_bounds__(DELTA_THREADS)
    attention_delta(float *delta, const T *dout, const T *out, size_t first, size_t rows, int hs)
{
    const size_t row = (size_t)blockIdx.x * DELTA_WARPS + threadIdx.x / 32;
    if (row >= rows)
        return;
    const size_t base = (first + row) * hs;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < hs; c += 32)
        sum = fmaf(fc_to_float(dout[base + c]), fc_to_float(out[base + c]), sum);
    sum = fc_warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        delta[first + row] = sum;
}

static void launch_delta(struct fc_stream *s, const struct fc_attention_call *c, int32_t first,
                         int32_t end, enum fc_dtype dt)
{
    size_t nh = (size_t)c->shape.nh, rows = (size_t)(end - first) * nh;
    fc_cuda_by_type(dt, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        FC_LAUNCH(s, attention_delta<T>, (unsigned)fc_cuda_blocks(rows, DELTA_WARPS), DELTA_THREADS,
                  0, c->delta, static_cast<const T *>(c->dout), static_cast<const T *>(c->out),
                  (size_t)first * nh, rows, c->shape.hs);
    });
}

bool fc_cuda_attention_shape(struct fc_stream *s, struct fc_attention_shape *x,
                             const struct fc_heads *h)
{
    if (h->hs == 0 || h->hs > FC_ATTENTION_MAX_HS || h->nh > 65535) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "attention: head size %zu with %zu heads is beyond the CUDA kernels (head size 1 "
                "to %d, 65535 heads at most)",
                h->hs, h->nh, (int)FC_ATTENTION_MAX_HS);
        return false;
    }
    *x = {};
    x->nh = (int)h->nh;
    x->nkv = (int)h->nkv;
    x->group = (int)(h->nh / h->nkv);
    x->hs = (int)h->hs;
    x->scale = h->scale;
    x->scale_log2 = h->scale * FC_LOG2E;
    x->width = (h->nh + 2 * h->nkv) * h->hs;
    x->out = h->nh * h->hs;
    return true;
}

/* Rows of the head sizes that tensor cores take are whole units, so their pointers decide. */
static bool is_aligned(const void *p)
{
    return fc_cuda_aligned(p, FC_ATTENTION_ALIGNMENT);
}

/* Sequences b .. of the call that fit one launch; returns the first that does not. */
static size_t next_launch(struct fc_sequences *seqs, const int32_t *starts, size_t b, size_t B)
{
    size_t n = B - b < FC_SEQUENCES ? B - b : (size_t)FC_SEQUENCES;
    seqs->n = (int32_t)n;
    for (size_t i = 0; i <= n; i++)
        seqs->starts[i] = starts[b + i];
    return b + n;
}

void fc_cuda_attention_forward(struct fc_stream *s, void *out, float *lse, const void *qkv,
                               const int32_t *starts, size_t B, const struct fc_heads *h,
                               enum fc_dtype dt)
{
    struct fc_attention_call c = {};
    struct fc_sequences seqs;
    if (!fc_cuda_ok(s) || B == 0 || starts[B] == starts[0] ||
        !fc_cuda_attention_shape(s, &c.shape, h))
        return;
    c.qkv = qkv;
    c.out = out;
    c.lse = lse;
    bool aligned = is_aligned(qkv) && is_aligned(out);
    for (size_t b = 0; b < B;) {
        b = next_launch(&seqs, starts, b, B);
        if (!aligned || !fc_cuda_attention_forward_mma(s, &c, &seqs, dt))
            fc_cuda_attention_forward_plain(s, &c, &seqs, dt);
    }
}

void fc_cuda_attention_backward(struct fc_stream *s, void *dqkv, const void *dout, const void *out,
                                const float *lse, const void *qkv, float *scratch,
                                const int32_t *starts, size_t B, const struct fc_heads *h,
                                enum fc_dtype dt)
{
    struct fc_attention_call c = {};
    struct fc_sequences seqs;
    if (!fc_cuda_ok(s) || B == 0 || starts[B] == starts[0] ||
        !fc_cuda_attention_shape(s, &c.shape, h))
        return;
    c.qkv = qkv;
    c.dout = dout;
    c.out = const_cast<void *>(out);
    c.dqkv = dqkv;
    c.lse = const_cast<float *>(lse);
    c.delta = scratch;
    bool aligned = is_aligned(qkv) && is_aligned(dout) && is_aligned(dqkv);
    launch_delta(s, &c, starts[0], starts[B], dt);
    for (size_t b = 0; b < B;) {
        b = next_launch(&seqs, starts, b, B);
        if (!aligned || !fc_cuda_attention_backward_mma(s, &c, &seqs, dt))
            fc_cuda_attention_backward_plain(s, &c, &seqs, dt);
    }
}
