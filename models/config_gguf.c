/* GGUF metadata -> struct fc_model_config. */
#include "base/dequant.h"
#include "models/config.h"
#include "models/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Architectures, with the Hugging Face family that computes the same. */
static const struct architecture {
    const char *name, *family;
    bool qkv_bias;
} architectures[] = {{"llama", "llama", false}, {"qwen2", "qwen2", true}};
#define N_ARCHITECTURES (sizeof architectures / sizeof *architectures)

/* What the readers below share: keys are "ARCHITECTURE.name". */
struct source {
    const struct fc_gguf *gguf;
    const char *architecture;
    char key[80];
};

static const char *key_of(struct source *s, const char *name)
{
    snprintf(s->key, sizeof s->key, "%s.%s", s->architecture, name);
    return s->key;
}

/* fp32 metadata began as a decimal in some config.json: the shortest decimal that gives the same
 * float is that number ("1e-05" rather than 9.99999975e-06), and its float is unchanged. */
static double shortest_decimal(double x)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        double y = strtod(text, NULL);
        if ((float)y >= (float)x && (float)y <= (float)x)
            return y;
    }
    return x;
}

static enum fc_code read_decimal(struct source *s, const char *name, bool required, double *out,
                                 struct fc_error *err)
{
    enum fc_code code = fc_gguf_double(s->gguf, key_of(s, name), required, out, err);
    if (code == FC_OK && fabs(*out) < 1e30)
        *out = shortest_decimal(*out);
    return code;
}

static enum fc_code find_architecture(const struct fc_gguf *gguf, const struct architecture **found,
                                      struct fc_error *err)
{
    struct fc_gguf_string name = {0};
    enum fc_code code = fc_gguf_text(gguf, "general.architecture", true, &name, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (fc_gguf_string_is(name, architectures[i].name)) {
            *found = &architectures[i];
            return FC_OK;
        }
    return fc_fail(err, FC_ERR_UNSUPPORTED,
                   "%s: general.architecture \"%.*s\" is not supported; known ones: llama, qwen2",
                   fc_gguf_path(gguf), (int)(name.len < 40 ? name.len : 40), name.data);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static enum fc_code read_sizes(struct fc_model_config *c, struct source *s, struct fc_error *err)
{
    const struct {
        const char *name;
        size_t *out;
        bool required;
    } fields[] = {
        {"block_count", &c->n_layer, true},
        {"embedding_length", &c->n_embd, true},
        {"feed_forward_length", &c->n_ff, true},
        {"attention.head_count", &c->n_head, true},
        {"attention.head_count_kv", &c->n_kv_head, false},
        {"attention.key_length", &c->head_size, false},
        {"context_length", &c->n_ctx, true},
        {"vocab_size", &c->n_vocab, false},
    };
    enum fc_code code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < sizeof fields / sizeof *fields; i++)
        code = fc_gguf_size(s->gguf, key_of(s, fields[i].name), fields[i].required, fields[i].out,
                            err);
    if (code != FC_OK)
        return code;
    if (c->n_kv_head == 0)
        c->n_kv_head = c->n_head;
    if (c->head_size == 0 && c->n_head) {
        if (c->n_embd % c->n_head)
            return fc_fail(err, FC_ERR_INPUT,
                           "%s: embedding_length %zu is not a multiple of head_count %zu",
                           fc_gguf_path(s->gguf), c->n_embd, c->n_head);
        c->head_size = c->n_embd / c->n_head;
    }
    const struct fc_gguf_tensor *embed = fc_gguf_tensor(s->gguf, "token_embd.weight");
    if (c->n_vocab == 0 && embed)
        c->n_vocab = embed->dims[1];
    return FC_OK;
}

/* Features that share the architecture's name but not its computation. */
static enum fc_code check_same(struct source *s, const struct fc_model_config *c,
                               struct fc_error *err)
{
    const struct {
        const char *name;
        size_t expected;
    } fields[] = {{"attention.value_length", c->head_size},
                  {"rope.dimension_count", c->head_size},
                  {"expert_count", 0}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        size_t found = fields[i].expected;
        enum fc_code code = fc_gguf_size(s->gguf, key_of(s, fields[i].name), false, &found, err);
        if (code != FC_OK)
            return code;
        if (found != fields[i].expected)
            return fc_fail(err, FC_ERR_UNSUPPORTED,
                           "%s: metadata \"%s\" is %zu; only %zu is supported",
                           fc_gguf_path(s->gguf), s->key, found, fields[i].expected);
    }
    return FC_OK;
}

/* ---- rotary positions ------------------------------------------------------------------------ */

static bool reproduces(const struct fc_model_config *c, const float *factors)
{
    double scaled[256], plain[256]; /* head_size <= 512 */
    struct fc_model_config unscaled = *c;
    unscaled.rope_scaling = FC_ROPE_PLAIN;
    fc_config_rope_frequencies(&unscaled, plain);
    fc_config_rope_frequencies(c, scaled);
    for (size_t i = 0; i < c->head_size / 2; i++)
        if (!(fabs(plain[i] / (double)factors[i] / scaled[i] - 1) < 1e-4))
            return false;
    return true;
}

/* llama.cpp stores llama3 scaling as the factors by which each frequency is divided. All published
 * models have low_freq_factor 1 and high_freq_factor 4; the largest factor is `factor` itself, and
 * the original context is a power of two: try them, and accept only what reproduces the factors. */
static enum fc_code read_rope_factors(struct fc_model_config *c, const struct fc_gguf *gguf,
                                      struct fc_error *err)
{
    const struct fc_gguf_tensor *t = fc_gguf_tensor(gguf, "rope_freqs.weight");
    if (!t)
        return FC_OK;
    if (t->type != FC_GGML_F32 || t->n_dims != 1 || t->dims[0] != c->head_size / 2)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: tensor \"rope_freqs.weight\": expected %zu values of type F32, found "
                       "%zu of type %u",
                       fc_gguf_path(gguf), c->head_size / 2, t->dims[0], (unsigned)t->type);
    float factors[256];
    memcpy(factors, t->data, c->head_size / 2 * sizeof *factors);
    float most = 0, least = INFINITY;
    for (size_t i = 0; i < c->head_size / 2; i++) {
        if (!(factors[i] > 0 && factors[i] < INFINITY))
            return fc_fail(err, FC_ERR_INPUT,
                           "%s: tensor \"rope_freqs.weight\": expected factors above 0, found %g",
                           fc_gguf_path(gguf), (double)factors[i]);
        most = factors[i] > most ? factors[i] : most;
        least = factors[i] < least ? factors[i] : least;
    }
    if (most <= 1 && least >= 1)
        return FC_OK;
    struct fc_model_config guess = *c;
    guess.rope_scaling = FC_ROPE_LLAMA3;
    guess.rope_factor = shortest_decimal((double)most);
    guess.rope_low_freq = 1;
    guess.rope_high_freq = 4;
    for (size_t original = 16; original <= (size_t)1 << 22; original *= 2) {
        guess.rope_original_ctx = original;
        if (reproduces(&guess, factors)) {
            *c = guess;
            return FC_OK;
        }
    }
    return fc_fail(err, FC_ERR_UNSUPPORTED,
                   "%s: tensor \"rope_freqs.weight\" holds frequency factors (up to %g) that are "
                   "not those of llama3 scaling",
                   fc_gguf_path(gguf), (double)most);
}

static enum fc_code read_rope(struct fc_model_config *c, struct source *s, struct fc_error *err)
{
    struct fc_gguf_string type = {"none", 4};
    enum fc_code code = read_decimal(s, "rope.freq_base", false, &c->rope_theta, err);
    if (code == FC_OK)
        code = fc_gguf_text(s->gguf, key_of(s, "rope.scaling.type"), false, &type, err);
    if (code != FC_OK)
        return code;
    if (fc_gguf_has(s->gguf, key_of(s, "rope.scale_linear"))) { /* before rope.scaling.* */
        c->rope_factor = 1;
        code = read_decimal(s, "rope.scale_linear", true, &c->rope_factor, err);
        if (code == FC_OK && (c->rope_factor > 1 || c->rope_factor < 1))
            c->rope_scaling = FC_ROPE_LINEAR;
    } else if (fc_gguf_string_is(type, "linear")) {
        c->rope_scaling = FC_ROPE_LINEAR;
        code = read_decimal(s, "rope.scaling.factor", true, &c->rope_factor, err);
    } else if (!fc_gguf_string_is(type, "none")) {
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: metadata \"%s\" is \"%.*s\"; supported are none and linear",
                       fc_gguf_path(s->gguf), key_of(s, "rope.scaling.type"),
                       (int)(type.len < 40 ? type.len : 40), type.data);
    }
    return code;
}

/* ---- biases, end tokens ---------------------------------------------------------------------- */

static void read_presence(struct fc_model_config *c, const struct architecture *architecture,
                          const struct fc_gguf *gguf)
{
    c->qkv_bias = architecture->qkv_bias || fc_gguf_tensor(gguf, "blk.0.attn_q.bias");
    c->out_bias = fc_gguf_tensor(gguf, "blk.0.attn_output.bias") != NULL;
    c->mlp_bias = fc_gguf_tensor(gguf, "blk.0.ffn_down.bias") != NULL;
    c->tied = !fc_gguf_tensor(gguf, "output.weight");
}

static bool contains(struct fc_gguf_string text, const char *part)
{
    size_t len = strlen(part);
    for (size_t i = 0; i + len <= text.len; i++)
        if (memcmp(text.data + i, part, len) == 0)
            return true;
    return false;
}

/* The end of a chat turn where the file has no eot_token_id: a known marker that is in the
 * vocabulary as a control token and in the chat template. */
static enum fc_code add_end_of_turn(struct fc_model_config *c, const struct fc_gguf *gguf,
                                    struct fc_error *err)
{
    static const char *const markers[] = {"<|im_end|>", "<|eot_id|>"};
    enum { CONTROL = 3 };
    struct fc_gguf_string template = {0}, *tokens = NULL;
    int64_t *types = NULL;
    size_t n_tokens = 0, n_types = 0;
    enum fc_code code = fc_gguf_text(gguf, "tokenizer.chat_template", false, &template, err);
    if (code != FC_OK || !template.data)
        return code;
    if ((code = fc_gguf_texts(gguf, "tokenizer.ggml.tokens", false, &tokens, &n_tokens, err)) ||
        (code = fc_gguf_ints(gguf, "tokenizer.ggml.token_type", false, &types, &n_types, err)))
        goto cleanup;
    for (size_t m = 0; m < sizeof markers / sizeof *markers; m++) {
        if (!contains(template, markers[m]))
            continue;
        for (size_t i = 0; code == FC_OK && i < n_tokens && i < n_types && i < c->n_vocab; i++)
            if (types[i] == CONTROL && fc_gguf_string_is(tokens[i], markers[m]))
                code = fc_config_add_eos(c, (int64_t)i, fc_gguf_path(gguf), err);
    }
cleanup:
    free(tokens);
    free(types);
    return code;
}

static enum fc_code read_tokens(struct fc_model_config *c, const struct fc_gguf *gguf,
                                struct fc_error *err)
{
    const char *where = fc_gguf_path(gguf);
    int64_t bos = -1, pad = -1, eos = -1, eot = -1;
    enum fc_code code;
    if ((code = fc_gguf_int(gguf, "tokenizer.ggml.bos_token_id", false, &bos, err)) ||
        (code = fc_gguf_int(gguf, "tokenizer.ggml.padding_token_id", false, &pad, err)) ||
        (code = fc_gguf_int(gguf, "tokenizer.ggml.eos_token_id", false, &eos, err)) ||
        (code = fc_gguf_int(gguf, "tokenizer.ggml.eot_token_id", false, &eot, err)))
        return code;
    /* Files mark "none" by an id beyond the vocabulary, often 2^32 - 1. */
    c->bos = bos >= 0 && (uint64_t)bos < c->n_vocab ? (int32_t)bos : -1;
    c->pad = pad >= 0 && (uint64_t)pad < c->n_vocab ? (int32_t)pad : -1;
    if (eos >= 0 && eos != UINT32_MAX)
        code = fc_config_add_eos(c, eos, where, err);
    if (code == FC_OK && eot >= 0 && eot != UINT32_MAX)
        code = fc_config_add_eos(c, eot, where, err);
    return code == FC_OK ? add_end_of_turn(c, gguf, err) : code;
}

enum fc_code fc_config_from_gguf(struct fc_model_config *c, const struct fc_gguf *gguf,
                                 struct fc_error *err)
{
    const struct architecture *architecture = NULL;
    *c = (struct fc_model_config){.norm = FC_NORM_RMS,
                                  .position = FC_POSITION_ROPE,
                                  .rope_theta = 10000,
                                  .activation = FC_ACT_SILU,
                                  .gated = true,
                                  .bos = -1,
                                  .pad = -1};
    enum fc_code code = find_architecture(gguf, &architecture, err);
    if (code != FC_OK)
        return code;
    struct source s = {gguf, architecture->name, ""};
    snprintf(c->family, sizeof c->family, "%s", architecture->family);
    size_t window = 0;
    if ((code = read_sizes(c, &s, err)) || (code = check_same(&s, c, err)) ||
        (code = read_decimal(&s, "attention.layer_norm_rms_epsilon", true, &c->norm_eps, err)) ||
        (code = read_rope(c, &s, err)) ||
        (code = fc_gguf_size(gguf, key_of(&s, "attention.sliding_window"), false, &window, err)) ||
        (code = read_tokens(c, gguf, err)))
        return code;
    read_presence(c, architecture, gguf);
    if (window && window < c->n_ctx)
        c->n_ctx = window; /* as in config_hf.c */
    code = fc_config_check(c, fc_gguf_path(gguf), err);
    return code == FC_OK ? read_rope_factors(c, gguf, err) : code;
}
