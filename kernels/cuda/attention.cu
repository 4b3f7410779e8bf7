/* The entries of attention over packed sequences: they check the shape, cut the batch into launches
 * and choose the kernel. Tensor cores serve bf16 and fp16 with the usual head sizes
 * (attention_forward.cu, attention_backward.cu); the rest is attention_plain.cu's.
 */
#include "kernels/cuda/attention.cuh"

enum { DELTA_THREADS = 128, DELTA_LANES = 8, DELTA_ROWS = DELTA_THREADS / DELTA_LANES };

/* delta[row] = sum over its channels of dout * out, for `rows` (token, head) pairs: what softmax's
 * derivative subtracts. Floor: both are read once, 4 hs bytes of bf16 per row, for 2 hs FLOPs:
 * memory. Eight lanes take a row, in units of 16 bytes where rows are made of those (VECTOR). */
template <typename T, bool VECTOR>
__global__ void __launch_bounds__(DELTA_THREADS)
    attention_delta(float *delta, const T *dout, const T *out, size_t rows, int hs)
{
    constexpr int STEP = VECTOR ? fc_vec<T>::N : 1;
    const size_t row = (size_t)blockIdx.x * DELTA_ROWS + threadIdx.x / DELTA_LANES;
    const int lane = threadIdx.x % DELTA_LANES;
    float sum = 0.0f;
    if (row < rows)
        for (int c = lane * STEP; c < hs; c += DELTA_LANES * STEP)
            if constexpr (VECTOR) {
                const fc_vec<T> x = fc_load16(dout + row * hs + c),
                                y = fc_load16(out + row * hs + c);
#pragma unroll
                for (int i = 0; i < STEP; i++)
                    sum = fmaf(fc_to_float(x.v[i]), fc_to_float(y.v[i]), sum);
            } else {
                sum = fmaf(fc_to_float(dout[row * hs + c]), fc_to_float(out[row * hs + c]), sum);
            }
#pragma unroll
    for (int other = DELTA_LANES / 2; other > 0; other /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (row < rows && lane == 0)
        delta[row] = sum;
}

/* Rows of the head sizes that tensor cores take are whole units, so their pointers decide. */
static bool is_aligned(const void *p)
{
    return fc_cuda_aligned(p, FC_ATTENTION_ALIGNMENT);
}

/* Of the tokens first .. end-1. */
static void launch_delta(struct fc_stream *s, const struct fc_attention_call *c, int32_t first,
                         int32_t end, enum fc_dtype dt)
{
    size_t hs = (size_t)c->shape.hs, nh = (size_t)c->shape.nh;
    size_t before = (size_t)first * nh, rows = (size_t)(end - first) * nh;
    unsigned blocks = (unsigned)fc_cuda_blocks(rows, DELTA_ROWS);
    bool vector = hs * fc_dtype_size(dt) % FC_ATTENTION_ALIGNMENT == 0 && is_aligned(c->dout) &&
                  is_aligned(c->out);
    fc_cuda_by_type(dt, [&](auto *t) {
        using T = std::remove_pointer_t<decltype(t)>;
        auto delta = vector ? attention_delta<T, true> : attention_delta<T, false>;
        FC_LAUNCH(s, delta, blocks, DELTA_THREADS, 0, c->delta + before,
                  static_cast<const T *>(c->dout) + before * hs,
                  static_cast<const T *>(c->out) + before * hs, rows, c->shape.hs);
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
