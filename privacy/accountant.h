/* Composition: what many draws cost together.
 *
 * Two statements are kept for a set of draws, both true at once:
 *   pure      n eps: epsilon-LDP, no delta.
 *   at delta  (epsilon, delta)-LDP with a smaller epsilon once draws are many, from the Renyi
 *             divergences of the exact mechanism and from zCDP, whichever is smaller.
 * Every figure is rounded up. The reasons are proved in accountant.c. The set may be a unit, a
 * document or everything that a client ever sent; draws may depend on earlier outputs. */
#ifndef FC_PRIVACY_ACCOUNTANT_H
#define FC_PRIVACY_ACCOUNTANT_H

#include "privacy/profile.h"

#define FC_ORDERS 96
#define FC_DEFAULT_DELTA 1e-6

/* Zero-initialised: nothing spent. */
struct fc_account {
    uint64_t draws;
    double pure;             /* sum of n eps */
    double rho;              /* zCDP */
    double renyi[FC_ORDERS]; /* sums of Renyi divergences at fixed orders */
};

/* Adds n draws of a profile. */
void fc_account_add(struct fc_account *a, const struct fc_profile *p, uint64_t n);

/* What an account says; infinite where nothing is known. */
struct fc_spent {
    uint64_t draws;
    double pure;    /* pure epsilon */
    double rho;     /* zCDP rho */
    double delta;   /* of the next two; 0: they are infinite */
    double zcdp;    /* epsilon at delta by zCDP alone */
    double renyi;   /* epsilon at delta by the mechanism's own Renyi divergences */
    double epsilon; /* the smallest of pure, zcdp and renyi */
};
/* 0 <= delta < 1. */
void fc_account_spent(const struct fc_account *a, double delta, struct fc_spent *spent);

/* The Renyi divergence of order 1 + lambda, lambda > 0, between the outputs for the two inputs that
 * it separates best; an upper bound. */
double fc_profile_renyi(const struct fc_profile *p, double lambda);

/* rho such that one draw is rho-zCDP; an upper bound. */
double fc_profile_rho(const struct fc_profile *p);

#endif
