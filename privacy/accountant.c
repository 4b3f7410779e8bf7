/* Why the figures hold. P and Q are the distributions of one draw for two private inputs, L the log
 * of P(y)/Q(y), D_a the Renyi divergence of order a; |L| <= eps for every profile.
 *
 * Pure. Draws are independent given what came before, so log ratios add: n eps.
 *
 * Two levels, exactly. Let m ranks have weight W_0 and n - m weight W_1, and let the top sets of
 * the two inputs share k outputs. Then L = eps on the m-k outputs that are in P's top set only,
 * -eps on the m-k in Q's only, and 0 elsewhere, so with t = (a-1) eps
 *     exp((a-1) D_a) = 1 + (m-k)/S (W_0 (e^t - 1) + W_1 (e^-t - 1)).
 * The bracket is not negative (W_0 >= W_1 and e^t + e^-t >= 2), so the worst pair shares as little
 * as can be: m - k = min(m, n - m). D_a(Q|P) is the same by symmetry. Renyi divergences add up over
 * adaptively chosen draws (Mironov 2017), and for any order a
 *     epsilon(delta) = D_a + ln((a-1)/a) - (ln delta + ln a)/(a-1)
 * (Canonne, Kamath and Steinke 2020, proposition 12); the smallest over the fixed orders is taken.
 *
 * Any levels. A pair with |L| <= eps is a post-processing of randomised response with
 * p = e^eps/(1+e^eps) against 1-p (Kairouz, Oh and Viswanath 2015), so its divergences are at most
 * those of that pair: the formula above with W_0 (m-k)/S = p and W_1 (m-k)/S = 1-p.
 *
 * zCDP. For randomised response L is eps or -eps, with mean mu = eps tanh(eps/2) under P. A
 * variable on two points u < v, the upper with probability p, has
 *     ln E exp(s (L - mu)) <= s^2 (v-u)^2 (2p-1) / (4 ln(p/(1-p)))
 * (Kearns and Saul 1998), here s^2 (2 eps)^2 tanh(eps/2) / (4 eps) = s^2 mu. With s = a-1:
 *     (a-1) D_a = ln E_P exp((a-1) L) <= (a-1) mu + (a-1)^2 mu = a (a-1) mu,
 * so one draw is rho-zCDP with rho = eps tanh(eps/2). That is below eps^2/2 (tanh x <= x), and far
 * below for the large eps of text; it cannot be improved for randomised response (a -> 1). The
 * eps^2/8 of bounded range does not apply: the loss takes both +eps and -eps for one pair, a range
 * of 2 eps.
 *
 * Floats: every formula here is a sum of positive terms or well away from cancelling, with a
 * relative error far below the 2^-40 by which results are raised. */
#include "privacy/accountant.h"

#include <math.h>

/* Far above the error of a result and far below what anyone reads. */
static double raise_up(double x)
{
    return x > 0 ? nextafter(x * (1 + 0x1p-40), INFINITY) : x;
}

/* a - 1 of the i-th order: 2^-10 to 2^13.75, four an octave. */
static double order(size_t i)
{
    return exp2((double)i / 4 - 10);
}

double fc_profile_renyi(const struct fc_profile *p, double lambda)
{
    double eps = p->epsilon, difference, low;
    if (eps == 0)
        return 0;
    if (p->n_levels == 2) {
        uint64_t n0 = p->levels[0].n, n1 = p->levels[1].n;
        double apart = (double)(n0 < n1 ? n0 : n1), total = (double)p->total;
        low = apart * (double)p->levels[1].weight / total;
        difference = apart * (double)(p->levels[0].weight - p->levels[1].weight) / total;
    } else {
        low = 1 / (1 + exp(eps));
        difference = tanh(eps / 2);
    }
    double t = lambda * eps, value;
    if (t < 30) {
        double sinus = sinh(t / 2);
        value = log1p(difference * expm1(t) + low * 4 * sinus * sinus);
    } else { /* the same divided by e^t, where e^t might overflow */
        double rest = 1 - difference - 2 * low;
        value = t + log(difference + low + low * exp(-2 * t) + (rest > 0 ? rest : 0) * exp(-t));
    }
    value = raise_up(value / lambda);
    return value < eps ? value : eps;
}

double fc_profile_rho(const struct fc_profile *p)
{
    return raise_up(p->epsilon * tanh(p->epsilon / 2));
}

void fc_account_add(struct fc_account *a, const struct fc_profile *p, uint64_t n)
{
    if (n == 0)
        return;
    double count = (double)n;
    if (n >> 53)
        count = nextafter(count, INFINITY);
    a->draws += n;
    /* Up by the last bit only, so that a budget of exactly n times the wanted epsilon suffices: a
     * profile's own epsilon lies a little more than that below it. */
    double more = nextafter(count * p->epsilon, INFINITY);
    a->pure = a->pure == 0 ? more : nextafter(a->pure + more, INFINITY);
    a->rho = raise_up(a->rho + count * fc_profile_rho(p));
    for (size_t i = 0; i < FC_ORDERS; i++)
        a->renyi[i] = raise_up(a->renyi[i] + count * fc_profile_renyi(p, order(i)));
}

/* Epsilon at delta of divergence d at order 1 + lambda. */
static double convert(double d, double lambda, double log_delta)
{
    double log_a = log1p(lambda);
    double epsilon = d + (log(lambda) - log_a) - (log_delta + log_a) / lambda;
    return raise_up(fmax(epsilon + 1e-11, 0)); /* the terms may cancel: an absolute margin too */
}

void fc_account_spent(const struct fc_account *a, double delta, struct fc_spent *spent)
{
    *spent = (struct fc_spent){.draws = a->draws,
                               .pure = a->pure,
                               .rho = a->rho,
                               .delta = delta,
                               .zcdp = INFINITY,
                               .renyi = INFINITY};
    if (a->draws == 0) {
        spent->zcdp = spent->renyi = 0;
    } else if (delta > 0) {
        double log_delta = log(delta);
        spent->zcdp = raise_up(a->rho + 2 * sqrt(a->rho * -log_delta)); /* Bun and Steinke 2016 */
        for (size_t i = 0; i < FC_ORDERS; i++) {
            double lambda = order(i);
            double own = convert(a->renyi[i], lambda, log_delta);
            double general = convert(a->rho * (1 + lambda), lambda, log_delta);
            spent->renyi = fmin(spent->renyi, own);
            spent->zcdp = fmin(spent->zcdp, general);
        }
    }
    spent->epsilon = fmin(spent->pure, fmin(spent->zcdp, spent->renyi));
}
