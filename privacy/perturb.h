/* The perturber: private texts in, perturbed texts out, paid for.
 *
 *     struct fc_perturber_options o = {.epsilon = 6};
 *     fc_perturber_open(&perturber, &model, tok, &o, &err);       // public things only
 *     fc_ledger_open(&ledger, "client.ledger", budget, &err);
 *     fc_perturber_run(perturber, ledger, texts, n, out, &report, &err);
 *     ... send out[i] ...
 *
 * Guarantee: each unit of a text (privacy/units.h) is replaced by one exact draw from the public
 * vocabulary V, which is epsilon-LDP for that unit; a text of n units is (n epsilon)-LDP among
 * texts of n units, and smaller figures at a delta are in the reports. Outside the guarantee: the
 * number of units, unless padded; words of the public list; and, as always, what the server
 * already knows. One thread at a time. */
#ifndef FC_PRIVACY_PERTURB_H
#define FC_PRIVACY_PERTURB_H

#include "engine/model.h"
#include "privacy/ledger.h"
#include "privacy/perturbed.h"
#include "privacy/ranking.h"
#include "privacy/vocabulary.h"

#include <cjson/cJSON.h>

struct fc_perturber;

/* All public. Zero means the default, except epsilon, which has none. */
struct fc_perturber_options {
    double epsilon;   /* of one unit, 0 < epsilon <= FC_MAX_EPSILON */
    size_t n_words;   /* words in V; default FC_DEFAULT_WORDS */
    size_t nearest;   /* m of the two-level profile; default by fc_profile_choose */
    double stay;      /* chance to stay among the m nearest that it aims at; default 0.5 */
    size_t max_units; /* positions of a text at most: the rest is cut off; default no limit */
    bool pad;         /* every text gets exactly max_units positions: lengths do not show, and
                         each costs max_units draws */
    double delta;     /* of the reports; default FC_DEFAULT_DELTA */
    const char *const *public_words; /* pass in clear, compared without case and sent as spelled
                                        here; each one unit; copied */
    size_t n_public;
};

/* Ranking E from the model's input embeddings. model and tok are borrowed and outlive the
 * perturber; between runs the model may be trained. */
enum fc_code fc_perturber_open(struct fc_perturber **p, struct fc_model *model,
                               const struct fc_tokenizer *tok,
                               const struct fc_perturber_options *options, struct fc_error *err);
/* Any ranking over any vocabulary; takes over both, also on failure. A ranking that is not aligned
 * needs max_units and takes no public words. */
enum fc_code fc_perturber_open_with(struct fc_perturber **p, struct fc_ranking *ranking,
                                    struct fc_vocabulary *vocabulary,
                                    const struct fc_perturber_options *options,
                                    struct fc_error *err);
void fc_perturber_close(struct fc_perturber *p); /* NULL is fine */

/* What the mechanism is: print it beside every result. */
struct fc_mechanism {
    const char *ranking; /* "embedding" */
    size_t n_outputs, nearest;
    uint64_t weight_near, weight_far;
    double epsilon; /* of one unit, from the integers, rounded up; <= the wanted one */
    double wanted;
    double stay; /* chance that a unit is replaced by one of its m nearest */
    double delta;
    size_t max_units; /* 0: none */
    bool pad;
    size_t n_public; /* words outside the guarantee */
    char hash[65];   /* of V, profile, ranking and the other options, hexadecimal */
    char vocabulary_hash[65];
};
void fc_perturber_mechanism(const struct fc_perturber *p, struct fc_mechanism *m);
/* The same as a JSON object, public words spelled out; the caller's (cJSON_Delete). */
cJSON *fc_perturber_json(const struct fc_perturber *p, struct fc_error *err);
void fc_perturber_hash(const struct fc_perturber *p, unsigned char hash[32]);
const struct fc_profile *fc_perturber_profile(const struct fc_perturber *p);
const struct fc_vocabulary *fc_perturber_vocabulary(const struct fc_perturber *p);
/* What n draws of it cost together at the options' delta. */
void fc_perturber_cost(const struct fc_perturber *p, uint64_t draws, struct fc_spent *cost);

/* A private text; id names it in the ledger (hashed): the same id and text, perturbed again, gives
 * the stored bytes. Ids should be unique. Any bytes. */
struct fc_private_text {
    const char *id;
    const char *text;
    size_t len;
};

struct fc_run_report {
    size_t texts, resent;     /* all; those that the ledger already had */
    uint64_t draws;           /* new ones */
    size_t longest;           /* most draws of one text, new or resent */
    struct fc_spent document; /* the most that one text costs */
    struct fc_spent run;      /* what this run added */
    struct fc_spent client;   /* all of the ledger; equal to run without one */
    uint64_t public_units;    /* that passed in clear, new texts only */
    uint64_t cut_units;       /* dropped by max_units, new texts only */
    double seconds;
};

/* Perturbs n texts at once into out[n], each then owned by the caller (fc_perturbed_free); on an
 * error out holds only NULL. Texts are worked on in batches of bounded memory; each batch is on
 * disk in the ledger before the next begins, so a run that was killed goes on where it stopped.
 * FC_ERR_BUDGET comes before anything is perturbed or charged. ledger NULL: a preview, charged
 * nowhere, which may not leave. report may be NULL. */
enum fc_code fc_perturber_run(struct fc_perturber *p, struct fc_ledger *ledger,
                              const struct fc_private_text *texts, size_t n,
                              struct fc_perturbed **out, struct fc_run_report *report,
                              struct fc_error *err);

/* What a run would cost, drawing nothing: fills the report (client: as it is before the run), and
 * says FC_ERR_BUDGET where the run would. */
enum fc_code fc_perturber_plan(struct fc_perturber *p, const struct fc_ledger *ledger,
                               const struct fc_private_text *texts, size_t n,
                               struct fc_run_report *report, struct fc_error *err);

#endif
