#include "privacy/perturb_private.h"

#include "base/json.h"
#include "privacy/ranking_embedding.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static enum fc_code check_options(const struct fc_perturber_options *o,
                                  const struct fc_ranking_type *type, struct fc_error *err)
{
    if (!(o->stay >= 0 && o->stay < 1))
        return fc_fail(err, FC_ERR_USAGE, "stay: expected at least 0 and below 1, found %g",
                       o->stay);
    if (!(o->delta >= 0 && o->delta < 1))
        return fc_fail(err, FC_ERR_USAGE, "delta: expected at least 0 and below 1, found %g",
                       o->delta);
    if (o->pad && !o->max_units)
        return fc_fail(err, FC_ERR_USAGE, "padding needs a limit of units (max_units) to pad to");
    if (!type->aligned && (!o->max_units || o->n_public))
        return fc_fail(err, FC_ERR_USAGE,
                       "ranking %s: needs a limit of units (max_units) and no public words",
                       type->name);
    return FC_OK;
}

static enum fc_code copy_public(struct fc_perturber *p, const struct fc_perturber_options *o,
                                struct fc_error *err)
{
    struct fc_units units = {0};
    enum fc_code code = FC_OK;
    p->public_words = fc_alloc(o->n_public, sizeof *p->public_words, "public words", err);
    if (!p->public_words)
        return FC_ERR_MEMORY;
    for (size_t i = 0; code == FC_OK && i < o->n_public; i++) {
        const char *word = o->public_words[i];
        code = fc_units_cut(p->cutter, word, strlen(word), &units, err);
        if (code == FC_OK && (units.n != 1 || units.items[0].len != strlen(word)))
            code =
                fc_fail(err, FC_ERR_USAGE, "public words: \"%s\" is not one word, number or mark",
                        word ? word : "");
        if (code != FC_OK)
            break;
        p->public_words[i] = fc_strndup(word, strlen(word), err);
        if (!p->public_words[i])
            code = FC_ERR_MEMORY;
        else
            p->n_public++;
    }
    fc_units_free(&units);
    return code;
}

static unsigned char lower(unsigned char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

size_t fc_perturber_public(const struct fc_perturber *p, const char *unit, size_t len)
{
    for (size_t i = 0; i < p->n_public; i++) {
        const char *word = p->public_words[i];
        size_t at = 0;
        while (at < len && word[at] &&
               lower((unsigned char)word[at]) == lower((unsigned char)unit[at]))
            at++;
        if (at == len && !word[at])
            return i;
    }
    return p->n_public;
}

/* Everything public that decides the distribution of the outputs. Not the model's weights: they
 * only move the ranking, and a client that has trained since may still send what it has drawn. */
static void hash_mechanism(struct fc_perturber *p)
{
    static const char domain[] = "fedcot mechanism 1";
    unsigned char part[32], options[9];
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof p->hash);
    crypto_generichash_update(&state, (const unsigned char *)domain, sizeof domain);
    const char *name = p->ranking->type->name;
    crypto_generichash_update(&state, (const unsigned char *)name, strlen(name) + 1);
    fc_vocabulary_hash(p->vocabulary, part);
    crypto_generichash_update(&state, part, sizeof part);
    fc_profile_hash(&p->profile, part);
    crypto_generichash_update(&state, part, sizeof part);
    for (int i = 0; i < 8; i++)
        options[i] = (unsigned char)((uint64_t)p->max_units >> (8 * i));
    options[8] = p->pad;
    crypto_generichash_update(&state, options, sizeof options);
    for (size_t i = 0; i < p->n_public; i++)
        crypto_generichash_update(&state, (const unsigned char *)p->public_words[i],
                                  strlen(p->public_words[i]) + 1);
    crypto_generichash_final(&state, p->hash, sizeof p->hash);
}

enum fc_code fc_perturber_open_with(struct fc_perturber **out, struct fc_ranking *ranking,
                                    struct fc_vocabulary *vocabulary,
                                    const struct fc_perturber_options *o, struct fc_error *err)
{
    enum fc_code code = FC_ERR_MEMORY;
    struct fc_perturber *p = fc_alloc(1, sizeof *p, "perturber", err);
    if (!p) {
        ranking->type->close(ranking);
        fc_vocabulary_close(vocabulary);
        return code;
    }
    *p = (struct fc_perturber){.ranking = ranking,
                               .vocabulary = vocabulary,
                               .wanted = o->epsilon,
                               .delta = o->delta > 0 ? o->delta : FC_DEFAULT_DELTA,
                               .max_units = o->max_units,
                               .pad = o->pad};
    code = check_options(o, ranking->type, err);
    if (code == FC_OK)
        code = fc_random_open(&p->random, err);
    if (code == FC_OK)
        code = fc_cutter_open(&p->cutter, err);
    if (code == FC_OK)
        code = copy_public(p, o, err);
    size_t n = fc_vocabulary_size(vocabulary), m = o->nearest;
    if (m == 0)
        m = fc_profile_choose(n, o->epsilon, o->stay > 0 ? o->stay : 0.5);
    if (code == FC_OK)
        code = fc_profile_two_level(&p->profile, n, m, o->epsilon, err);
    if (code == FC_OK)
        code = fc_sampler_open(&p->sampler, &p->profile, err);
    if (code == FC_OK) {
        hash_mechanism(p);
        *out = p;
    } else {
        fc_perturber_close(p);
    }
    return code;
}

enum fc_code fc_perturber_open(struct fc_perturber **p, struct fc_model *model,
                               const struct fc_tokenizer *tok,
                               const struct fc_perturber_options *options, struct fc_error *err)
{
    struct fc_vocabulary *vocabulary = NULL;
    struct fc_ranking *ranking = NULL;
    if (!fc_model_weight(model, FC_P_EMBED, 0))
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "perturb: the ranking reads the model's embeddings, which are kept "
                       "quantised; load it without --keep-quantised");
    enum fc_code code = fc_vocabulary_open(&vocabulary, tok, options->n_words, err);
    if (code != FC_OK)
        return code;
    code = fc_ranking_embedding_open(&ranking, model->dev, fc_model_weight(model, FC_P_EMBED, 0),
                                     model->dtype, model->config.n_vocab, model->config.n_embd, tok,
                                     vocabulary, err);
    if (code != FC_OK) {
        fc_vocabulary_close(vocabulary);
        return code;
    }
    return fc_perturber_open_with(p, ranking, vocabulary, options, err);
}

void fc_perturber_close(struct fc_perturber *p)
{
    if (!p)
        return;
    if (p->ranking)
        p->ranking->type->close(p->ranking); /* before the vocabulary, which it borrows */
    fc_vocabulary_close(p->vocabulary);
    fc_sampler_close(&p->sampler);
    fc_cutter_close(p->cutter);
    for (size_t i = 0; i < p->n_public; i++)
        free(p->public_words[i]);
    free(p->public_words);
    free(p);
}

void fc_perturber_hash(const struct fc_perturber *p, unsigned char hash[32])
{
    memcpy(hash, p->hash, sizeof p->hash);
}

const struct fc_profile *fc_perturber_profile(const struct fc_perturber *p)
{
    return &p->profile;
}

const struct fc_vocabulary *fc_perturber_vocabulary(const struct fc_perturber *p)
{
    return p->vocabulary;
}

void fc_perturber_cost(const struct fc_perturber *p, uint64_t draws, struct fc_spent *cost)
{
    struct fc_account a = {0};
    fc_account_add(&a, &p->profile, draws);
    fc_account_spent(&a, p->delta, cost);
}

void fc_perturber_mechanism(const struct fc_perturber *p, struct fc_mechanism *m)
{
    unsigned char hash[32];
    *m = (struct fc_mechanism){.ranking = p->ranking->type->name,
                               .n_outputs = p->profile.n_outputs,
                               .nearest = p->profile.depth,
                               .weight_near = p->profile.levels[0].weight,
                               .weight_far = p->profile.levels[p->profile.n_levels - 1].weight,
                               .epsilon = p->profile.epsilon,
                               .wanted = p->wanted,
                               .stay = p->profile.stay,
                               .delta = p->delta,
                               .max_units = p->max_units,
                               .pad = p->pad,
                               .n_public = p->n_public};
    sodium_bin2hex(m->hash, sizeof m->hash, p->hash, sizeof p->hash);
    fc_vocabulary_hash(p->vocabulary, hash);
    sodium_bin2hex(m->vocabulary_hash, sizeof m->vocabulary_hash, hash, sizeof hash);
}

/* Weights are strings, because they exceed the 2^53 that a JSON number keeps exactly. */
static bool add_weight(cJSON *json, const char *name, uint64_t weight)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)weight);
    return cJSON_AddStringToObject(json, name, text) != NULL;
}

cJSON *fc_perturber_json(const struct fc_perturber *p, struct fc_error *err)
{
    struct fc_mechanism m;
    fc_perturber_mechanism(p, &m);
    cJSON *json = cJSON_CreateObject(), *words = NULL;
    bool built = json && cJSON_AddStringToObject(json, "ranking", m.ranking) &&
                 cJSON_AddNumberToObject(json, "outputs", (double)m.n_outputs) &&
                 cJSON_AddNumberToObject(json, "nearest", (double)m.nearest) &&
                 add_weight(json, "weight_near", m.weight_near) &&
                 add_weight(json, "weight_far", m.weight_far) &&
                 cJSON_AddNumberToObject(json, "epsilon", m.epsilon) &&
                 cJSON_AddNumberToObject(json, "epsilon_wanted", m.wanted) &&
                 cJSON_AddNumberToObject(json, "stay", m.stay) &&
                 cJSON_AddNumberToObject(json, "delta", m.delta) &&
                 cJSON_AddNumberToObject(json, "max_units", (double)m.max_units) &&
                 cJSON_AddBoolToObject(json, "pad", m.pad) &&
                 cJSON_AddStringToObject(json, "mechanism_hash", m.hash) &&
                 cJSON_AddStringToObject(json, "vocabulary_hash", m.vocabulary_hash) &&
                 (words = cJSON_AddArrayToObject(json, "public_words_outside_guarantee"));
    for (size_t i = 0; built && i < p->n_public; i++)
        built = cJSON_AddItemToArray(words, cJSON_CreateString(p->public_words[i]));
    if (built)
        return json;
    cJSON_Delete(json);
    fc_fail(err, FC_ERR_MEMORY, "report: out of memory");
    return NULL;
}
