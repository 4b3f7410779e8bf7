/* Token embedding: rows of a table by id, and their gradient.
 *
 * Floor: forward reads and writes T C elements, no FLOPs. Backward reads T C elements and reads and
 * writes C floats per distinct id, 1 FLOP per element of dout.
 *
 * Backward sums all rows of one id in the order of t. The rows are sorted by (id, t), then every
 * run of equal ids belongs to one thread, so no atomic is needed and the bits do not depend on
 * threads. The sort is a serial bottom-up merge in the caller's scratch: measured 0.13 ms for 4,096
 * tokens, against 1.6 ms on one core for adding their gradients of 576 channels. A counting sort
 * would need scratch of size V. */
#include "kernels/cpu/cpu.h"

void fc_cpu_embed_forward(struct fc_stream *s, void *out, const void *table, const int32_t *ids,
                          size_t T, size_t C, enum fc_dtype dt)
{
    fc_cpu_gather_rows(s, out, table, ids, T, C, dt);
}

/* Merges the sorted runs [a, b) and [b, c) of `from` into `to`; equal ids keep their order. */
static void merge(int32_t *to, const int32_t *from, const int32_t *ids, size_t a, size_t b,
                  size_t c)
{
    size_t i = a, j = b;
    for (size_t o = a; o < c; o++) {
        bool left = i < b && (j == c || ids[from[i]] <= ids[from[j]]);
        to[o] = from[left ? i++ : j++];
    }
}

/* The numbers 0..T-1 sorted by (ids[t], t), somewhere in scratch[2 T]. */
static const int32_t *sort_by_id(const int32_t *ids, int32_t *scratch, size_t T)
{
    int32_t *from = scratch, *to = scratch + T;
    for (size_t t = 0; t < T; t++)
        from[t] = (int32_t)t;
    for (size_t width = 1; width < T; width *= 2) {
        for (size_t a = 0; a < T; a += 2 * width)
            merge(to, from, ids, a, fc_cpu_min(a + width, T), fc_cpu_min(a + 2 * width, T));
        int32_t *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

void fc_cpu_embed_backward(struct fc_stream *s, float *dtable, const void *dout, const int32_t *ids,
                           int32_t *scratch, size_t T, size_t C, size_t V, enum fc_dtype dt)
{
    (void)V;
    if (!fc_cpu_ok(s) || T == 0)
        return;
    const int32_t *order = sort_by_id(ids, scratch, T);
#pragma omp parallel for schedule(dynamic, 16) num_threads(fc_cpu_threads(s, T *C))
    for (size_t i = 0; i < T; i++) {
        int32_t id = ids[order[i]];
        if (i > 0 && ids[order[i - 1]] == id)
            continue; /* not the first of its run */
        for (size_t j = i; j < T && ids[order[j]] == id; j++)
            fc_cpu_add_row(dtable + (size_t)id * C, dout, (size_t)order[j] * C, C, dt);
    }
}
