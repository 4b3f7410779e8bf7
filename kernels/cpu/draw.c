/* The exact draw of the privacy mechanisms: which output does a uniform integer fall on?
 *
 * Floor: 4 depth bytes read a row. No index is looked up: the r-th index that is not in top is
 * r + #{j : t_j - j <= r} for the sorted t_0 < t_1 < ... of top, the sort is a network, and the
 * quotient is found in 24 fixed steps. So branches and addresses depend on the shape alone, which
 * is more than privacy/sampler.c promises. The network costs depth log2(depth)^2 / 4 exchanges: 2
 * us a row for a depth of 100, where reading V scores for the ranking costs more. */
#include "kernels/cpu/cpu.h"

__extension__ typedef unsigned __int128 u128;

enum { QUOTIENT_BITS = 24 }; /* V < 2^24 */

/* The rank on which u falls; every level and every bit is gone through. */
static uint32_t rank_of(const struct fc_draw *how, u128 u)
{
    uint32_t rank = 0, first = 0;
    u128 start = 0;
    for (size_t l = 0; l < how->n_levels; l++) {
        u128 weight = how->levels[l].weight, end = start + weight * how->levels[l].n;
        u128 left = u - start; /* of no meaning in other levels, and then not taken */
        uint32_t quotient = 0;
        for (int bit = QUOTIENT_BITS - 1; bit >= 0; bit--) {
            uint32_t fits = left >= weight << bit;
            left -= (weight << bit) & (0 - (u128)fits);
            quotient |= fits << bit;
        }
        uint32_t here = (uint32_t)(u >= start) & (uint32_t)(u < end);
        rank |= (first + quotient) & (0 - here);
        first += (uint32_t)how->levels[l].n;
        start = end;
    }
    return rank;
}

/* Sorts by the network of the next power of two: every exchange moves the larger to the higher
 * index, so what would lie behind the end is never moved. */
static void sort_network(int32_t *t, size_t n)
{
    for (size_t size = 2; size / 2 < n; size *= 2)
        for (size_t half = size / 2; half > 0; half /= 2)
            for (size_t first = 0; first < n; first += 2 * half)
                for (size_t within = 0; within < half; within++) {
                    size_t i = first + within;
                    size_t j = half == size / 2 ? first + size - 1 - within : i + half;
                    if (j >= n)
                        continue;
                    int32_t a = t[i], b = t[j];
                    t[i] = a < b ? a : b;
                    t[j] = a < b ? b : a;
                }
}

/* -1 if top is not the beginning of a ranking. */
static int32_t draw_row(const int32_t *top, int32_t *sorted, const struct fc_draw *how, u128 u)
{
    uint32_t rank = rank_of(how, u), depth = (uint32_t)how->depth, bad = 0;
    int32_t named = 0, rest = (int32_t)(rank - depth);
    for (uint32_t i = 0; i < depth; i++) {
        bad |= (uint32_t)top[i] >= how->V;
        named |= i == rank ? top[i] : 0;
        sorted[i] = top[i];
    }
    sort_network(sorted, depth);
    int32_t skipped = 0;
    for (uint32_t i = 0; i < depth; i++) {
        bad |= i > 0 && sorted[i] == sorted[i - (i > 0)];
        skipped += (int64_t)sorted[i] - i <= rest;
    }
    return bad ? -1 : rank < depth ? named : rest + skipped;
}

void fc_cpu_draw(struct fc_stream *s, int32_t *out, const int32_t *top, const uint64_t *u,
                 int32_t *scratch, const struct fc_draw *how, size_t n)
{
    if (!fc_cpu_ok(s))
        return;
    size_t broken = n;
#pragma omp parallel for schedule(static) num_threads(fc_cpu_threads(s, n * how->depth))           \
    reduction(min                                                                                  \
              : broken)
    for (size_t i = 0; i < n; i++) {
        out[i] = draw_row(top + i * how->depth, scratch + i * how->depth, how,
                          (u128)u[2 * i + 1] << 64 | u[2 * i]);
        broken = out[i] < 0 ? fc_cpu_min(broken, i) : broken;
    }
    if (broken < n)
        fc_fail(&s->error, FC_ERR_INTERNAL,
                "draw: row %zu is no ranking: expected %zu distinct indices below %zu", broken,
                how->depth, how->V);
}
