#include "privacy/sampler.h"

#include "base/memory.h"

#include <string.h>

enum fc_code fc_sampler_open(struct fc_sampler *s, const struct fc_profile *profile,
                             struct fc_error *err)
{
    *s = (struct fc_sampler){.profile = profile, .n_taken = (profile->n_outputs + 63) / 64};
    s->taken = fc_alloc(s->n_taken, sizeof *s->taken, "sampler", err);
    return s->taken ? FC_OK : FC_ERR_MEMORY;
}

void fc_sampler_close(struct fc_sampler *s)
{
    free(s->taken);
    *s = (struct fc_sampler){0};
}

size_t fc_profile_rank(const struct fc_profile *p, fc_u128 u)
{
    size_t rank = 0, first = 0;
    fc_u128 start = 0;
    for (size_t l = 0; l < p->n_levels; l++) {
        fc_u128 end = start + (fc_u128)p->levels[l].n * p->levels[l].weight;
        if (u >= start && u < end)
            rank = first + (size_t)((u - start) / p->levels[l].weight);
        first += (size_t)p->levels[l].n;
        start = end;
    }
    return rank;
}

/* Marks top[] in the bitmap, and the bits beyond V, which can never be drawn. */
static enum fc_code mark_taken(struct fc_sampler *s, const int32_t *top, struct fc_error *err)
{
    size_t n = s->profile->n_outputs, depth = s->profile->depth, marked = 0;
    memset(s->taken, 0, s->n_taken * sizeof *s->taken);
    if (n % 64)
        s->taken[s->n_taken - 1] = ~(uint64_t)0 << (n % 64);
    for (size_t i = 0; i < depth; i++) {
        if (top[i] < 0 || (size_t)top[i] >= n)
            return fc_fail(err, FC_ERR_INTERNAL,
                           "ranking: expected indices below %zu, found one that is not", n);
        size_t at = (size_t)top[i];
        uint64_t bit = (uint64_t)1 << (at % 64);
        marked += !(s->taken[at / 64] & bit);
        s->taken[at / 64] |= bit;
    }
    if (marked != depth)
        return fc_fail(err, FC_ERR_INTERNAL,
                       "ranking: expected %zu distinct indices, found %zu: not a permutation",
                       depth, marked);
    return FC_OK;
}

/* The index of the r-th clear bit, r counted from 0. Every word and every bit of one word is
 * looked at, whatever is set. */
static size_t clear_bit(const uint64_t *taken, size_t n_words, size_t r)
{
    size_t seen = 0, word = 0, within = 0;
    for (size_t w = 0; w < n_words; w++) {
        size_t clear = 64 - (size_t)__builtin_popcountll(taken[w]);
        size_t hit = (size_t)(r - seen < clear); /* unsigned: false when r < seen */
        word = hit ? w : word;
        within = hit ? r - seen : within;
        seen += clear;
    }
    size_t bit = 0, count = 0;
    for (size_t b = 0; b < 64; b++) {
        size_t clear = (size_t)(~taken[word] >> b & 1);
        bit = (clear & (size_t)(count == within)) ? b : bit;
        count += clear;
    }
    return word * 64 + bit;
}

enum fc_code fc_sampler_map(struct fc_sampler *s, fc_u128 u, const int32_t *top, int32_t *output,
                            struct fc_error *err)
{
    enum fc_code code = mark_taken(s, top, err);
    if (code != FC_OK)
        return code;
    size_t rank = fc_profile_rank(s->profile, u), depth = s->profile->depth;
    size_t rest = clear_bit(s->taken, s->n_taken, rank < depth ? 0 : rank - depth);
    *output = rank < depth ? top[rank] : (int32_t)rest;
    return FC_OK;
}

enum fc_code fc_sampler_draw(struct fc_sampler *s, const struct fc_random *random,
                             const int32_t *top, int32_t *output, struct fc_error *err)
{
    return fc_sampler_map(s, fc_random_below(random, s->profile->total), top, output, err);
}
