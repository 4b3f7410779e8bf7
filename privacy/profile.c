#include "privacy/profile.h"

#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

double fc_epsilon_upper(uint64_t w0, uint64_t w1)
{
    if (w0 <= w1)
        return 0;
    /* Two conversions and a division err by at most a factor (1 + 2^-53)^3 / (1 - 2^-53). */
    double ratio = (double)w0 / (double)w1 * (1 + 0x1p-50);
    /* libm's log is within 1 ulp (4 in the worst documented one): allow 8, relative. */
    double up = log(ratio) * (1 + 0x1p-49);
    return nextafter(up, INFINITY);
}

enum fc_code fc_profile_make(struct fc_profile *p, const struct fc_level *levels, size_t n_levels,
                             struct fc_error *err)
{
    if (n_levels < 1 || n_levels > FC_MAX_LEVELS)
        return fc_fail(err, FC_ERR_USAGE, "profile: expected 1 to %d levels, found %zu",
                       FC_MAX_LEVELS, n_levels);
    struct fc_profile q = {.n_levels = n_levels};
    fc_u128 near = 0;
    for (size_t l = 0; l < n_levels; l++) {
        uint64_t n = levels[l].n, w = levels[l].weight;
        if (n < 1 || n > FC_MAX_OUTPUTS - q.n_outputs)
            return fc_fail(err, FC_ERR_USAGE,
                           "profile: level %zu: expected 1 to %zu outputs, found %llu", l,
                           FC_MAX_OUTPUTS - q.n_outputs, (unsigned long long)n);
        if (w < 1 || w > FC_MAX_WEIGHT || (l > 0 && w > levels[l - 1].weight))
            return fc_fail(err, FC_ERR_USAGE,
                           "profile: level %zu: expected a weight from 1 to 2^56 and not above the "
                           "level before, found %llu",
                           l, (unsigned long long)w);
        q.levels[l] = levels[l];
        q.depth = q.n_outputs;
        near = q.total;
        q.n_outputs += (size_t)n;
        q.total += (fc_u128)n * w;
    }
    q.epsilon = fc_epsilon_upper(levels[0].weight, levels[n_levels - 1].weight);
    q.stay = (double)near / (double)q.total;
    *p = q;
    return FC_OK;
}

enum fc_code fc_profile_two_level(struct fc_profile *p, size_t n_outputs, size_t m, double epsilon,
                                  struct fc_error *err)
{
    if (!(epsilon > 0) || epsilon > FC_MAX_EPSILON)
        return fc_fail(err, FC_ERR_USAGE, "epsilon: expected more than 0 and at most %g, found %g",
                       FC_MAX_EPSILON, epsilon);
    if (m < 1 || m >= n_outputs)
        return fc_fail(err, FC_ERR_USAGE,
                       "nearest outputs: expected 1 to %zu (the vocabulary less one), found %zu",
                       n_outputs ? n_outputs - 1 : 0, m);
    /* The margins keep the floats of this choice below the true values (and sums of many draws
     * below n epsilon); what counts is the check on the integers after it. */
    double w1 = floor(0x1p56 * exp(-epsilon) * (1 - 0x1p-40));
    double w0 = floor(w1 * exp(epsilon) * (1 - 0x1p-40));
    struct fc_level levels[2] = {{m, (uint64_t)w0}, {n_outputs - m, (uint64_t)w1}};
    if (levels[0].weight < levels[1].weight)
        levels[0].weight = levels[1].weight;
    while (fc_epsilon_upper(levels[0].weight, levels[1].weight) > epsilon)
        levels[0].weight -= levels[0].weight >> 44 ? levels[0].weight >> 44 : 1;
    return fc_profile_make(p, levels, 2, err);
}

size_t fc_profile_choose(size_t n_outputs, double epsilon, double stay)
{
    /* m e^eps / (m e^eps + n - m) >= stay  <=>  m >= n stay / (stay + (1 - stay) e^eps) */
    double m = ceil((double)n_outputs * stay / (stay + (1 - stay) * exp(epsilon)));
    if (!(m > 1))
        return 1;
    return m < (double)n_outputs ? (size_t)m : n_outputs - 1;
}

void fc_profile_hash(const struct fc_profile *p, unsigned char hash[32])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, 32);
    char text[64];
    for (size_t l = 0; l < p->n_levels; l++) {
        int len = snprintf(text, sizeof text, "%llu x %llu\n", (unsigned long long)p->levels[l].n,
                           (unsigned long long)p->levels[l].weight);
        crypto_generichash_update(&state, (const unsigned char *)text,
                                  (unsigned long long)len);
    }
    crypto_generichash_final(&state, hash, 32);
}

char *fc_format_up(char text[40], double x, int digits)
{
    double scale = pow(10, digits);
    if (!isfinite(x) || x > 1e15) {
        snprintf(text, 40, "%g", isfinite(x) ? nextafter(x, INFINITY) * (1 + 1e-5) : x);
        return text;
    }
    /* A decimal is rarely a double: go up until the printed number is not below x. */
    double up = ceil(x * scale);
    snprintf(text, 40, "%.*f", digits, up / scale);
    while (up / scale < x)
        snprintf(text, 40, "%.*f", digits, ++up / scale);
    return text;
}
