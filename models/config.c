#include "models/config.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* Limits far above any model there is, low enough that products of a few fields fit in 63 bits:
 * the largest, n_layer * 3 * n_ff * n_embd * 4 bytes, stays below 2^60. */
static enum fc_code check_sizes(const struct fc_model_config *c, const char *where,
                                struct fc_error *err)
{
    const struct {
        const char *name;
        size_t value, most;
    } sizes[] = {
        {"number of layers", c->n_layer, 1024},
        {"embedding width", c->n_embd, (size_t)1 << 20},
        {"number of attention heads", c->n_head, 4096},
        {"number of key/value heads", c->n_kv_head, 4096},
        {"head size", c->head_size, 512},
        {"feed-forward width", c->n_ff, (size_t)1 << 24},
        {"vocabulary size", c->n_vocab, (size_t)1 << 24},
        {"context length", c->n_ctx, (size_t)1 << 30},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value == 0 || sizes[i].value > sizes[i].most)
            return fc_fail(err, FC_ERR_INPUT, "%s: %s: expected 1 to %zu, found %zu", where,
                           sizes[i].name, sizes[i].most, sizes[i].value);
    if (c->n_head % c->n_kv_head)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: %zu attention heads are not a multiple of %zu key/value heads", where,
                       c->n_head, c->n_kv_head);
    if (c->head_size % 2)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: head size %zu is odd; rotary positions need pairs of channels", where,
                       c->head_size);
    return FC_OK;
}

static enum fc_code check_numbers(const struct fc_model_config *c, const char *where,
                                  struct fc_error *err)
{
    bool scaled = c->rope_scaling != FC_ROPE_PLAIN;
    const struct {
        const char *name;
        bool used;
        double value;
    } numbers[] = {
        {"norm epsilon", true, c->norm_eps},
        {"rope theta", true, c->rope_theta},
        {"rope scaling factor", scaled, c->rope_factor},
        {"rope low_freq_factor", c->rope_scaling == FC_ROPE_LLAMA3, c->rope_low_freq},
        {"rope high_freq_factor", c->rope_scaling == FC_ROPE_LLAMA3, c->rope_high_freq},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].used && !(numbers[i].value > 0 && numbers[i].value < 1e30))
            return fc_fail(err, FC_ERR_INPUT, "%s: %s: expected a number above 0, found %g", where,
                           numbers[i].name, numbers[i].value);
    if (c->rope_scaling == FC_ROPE_LLAMA3 &&
        (c->rope_high_freq <= c->rope_low_freq || c->rope_original_ctx == 0))
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: llama3 rope scaling needs low_freq_factor < high_freq_factor and an "
                       "original context length, found %g, %g and %zu",
                       where, c->rope_low_freq, c->rope_high_freq, c->rope_original_ctx);
    return FC_OK;
}

static enum fc_code check_token(const struct fc_model_config *c, int32_t id, const char *name,
                                const char *where, struct fc_error *err)
{
    if (id < -1 || (id >= 0 && (size_t)id >= c->n_vocab))
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: %s token id: expected 0 to %zu (the vocabulary), found %ld", where,
                       name, c->n_vocab - 1, (long)id);
    return FC_OK;
}

static enum fc_code check_tokens(const struct fc_model_config *c, const char *where,
                                 struct fc_error *err)
{
    enum fc_code code = check_token(c, c->bos, "bos", where, err);
    if (code == FC_OK)
        code = check_token(c, c->pad, "pad", where, err);
    if (c->n_eos > FC_MAX_EOS)
        return fc_fail(err, FC_ERR_INPUT, "%s: expected at most %d end tokens, found %zu", where,
                       FC_MAX_EOS, c->n_eos);
    for (size_t i = 0; code == FC_OK && i < c->n_eos; i++)
        code = check_token(c, c->eos[i] < 0 ? INT32_MIN : c->eos[i], "eos", where, err);
    return code;
}

/* What no kernel exists for yet. */
static enum fc_code check_features(const struct fc_model_config *c, const char *where,
                                   struct fc_error *err)
{
    const char *feature = c->norm != FC_NORM_RMS            ? "LayerNorm"
                          : c->position != FC_POSITION_ROPE ? "learned positions"
                          : c->activation != FC_ACT_SILU    ? "an activation other than SiLU"
                          : !c->gated                       ? "a feed-forward block without gate"
                          : c->parallel_residual            ? "parallel residuals"
                          : c->qk_norm                      ? "norms of queries and keys"
                                                            : NULL;
    if (feature)
        return fc_fail(err, FC_ERR_UNSUPPORTED, "%s: the model uses %s, which is not supported",
                       where, feature);
    return FC_OK;
}

enum fc_code fc_config_check(const struct fc_model_config *c, const char *where,
                             struct fc_error *err)
{
    enum fc_code code = check_features(c, where, err);
    if (code == FC_OK)
        code = check_sizes(c, where, err);
    if (code == FC_OK)
        code = check_numbers(c, where, err);
    if (code == FC_OK)
        code = check_tokens(c, where, err);
    return code;
}

/* Low frequencies (wavelengths beyond the original context / low_freq) are divided by the factor,
 * high ones are kept, those between blend ("The Llama 3 Herd of Models", 2024, and its code). */
static double scale_llama3(const struct fc_model_config *c, double f)
{
    double original = (double)c->rope_original_ctx, wavelength = 2 * pi / f;
    if (wavelength < original / c->rope_high_freq)
        return f;
    if (wavelength > original / c->rope_low_freq)
        return f / c->rope_factor;
    double smooth =
        (original / wavelength - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return (1 - smooth) * f / c->rope_factor + smooth * f;
}

void fc_config_rope_frequencies(const struct fc_model_config *c, double *inv_freq)
{
    for (size_t i = 0; i < c->head_size / 2; i++) {
        double f = pow(c->rope_theta, -2.0 * (double)i / (double)c->head_size);
        inv_freq[i] = c->rope_scaling == FC_ROPE_LINEAR   ? f / c->rope_factor
                      : c->rope_scaling == FC_ROPE_LLAMA3 ? scale_llama3(c, f)
                                                          : f;
    }
}

enum fc_code fc_config_add_eos(struct fc_model_config *c, int64_t id, const char *where,
                               struct fc_error *err)
{
    if (id < 0 || id > INT32_MAX)
        return fc_fail(err, FC_ERR_INPUT, "%s: eos token id: expected 0 to 2^31-1, found %lld",
                       where, (long long)id);
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return FC_OK;
    if (c->n_eos == FC_MAX_EOS)
        return fc_fail(err, FC_ERR_UNSUPPORTED, "%s: more than %d end tokens", where, FC_MAX_EOS);
    c->eos[c->n_eos++] = (int32_t)id;
    return FC_OK;
}
