/* Hugging Face's config.json <-> struct fc_model_config. */
#include "base/json.h"
#include "models/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the families differ in. Defaults are those of transformers' config classes, which apply
 * when a key is absent. */
struct family {
    const char *name, *architecture;
    bool qkv_bias;             /* always there, without a key for it */
    bool bias_keys;            /* attention_bias and mlp_bias are read */
    int32_t bos, eos;          /* -1: none */
    const char *window_switch; /* key that turns sliding_window on; NULL: its presence does */
};

static const struct family families[] = {
    {"llama", "LlamaForCausalLM", false, true, 1, 2, NULL},
    {"mistral", "MistralForCausalLM", false, false, 1, 2, NULL},
    {"qwen2", "Qwen2ForCausalLM", true, false, -1, -1, "use_sliding_window"},
};
#define N_FAMILIES (sizeof families / sizeof *families)

static const struct family *find_family(const char *name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

static enum fc_code unknown_family(const char *name, const char *where, struct fc_error *err)
{
    char known[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < N_FAMILIES && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 families[i].name);
    return fc_fail(err, FC_ERR_UNSUPPORTED,
                   "%s: model_type \"%.40s\" is not supported; known ones: %s", where, name, known);
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum fc_code read_sizes(struct fc_model_config *c, const cJSON *json, const char *where,
                               struct fc_error *err)
{
    const struct {
        const char *name;
        size_t *out;
        bool required;
    } fields[] = {
        {"vocab_size", &c->n_vocab, true},
        {"hidden_size", &c->n_embd, true},
        {"intermediate_size", &c->n_ff, true},
        {"num_hidden_layers", &c->n_layer, true},
        {"num_attention_heads", &c->n_head, true},
        {"num_key_value_heads", &c->n_kv_head, strcmp(c->family, "llama") != 0},
        {"max_position_embeddings", &c->n_ctx, true},
        {"head_dim", &c->head_size, false},
    };
    enum fc_code code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < sizeof fields / sizeof *fields; i++)
        code = fc_json_size(json, fields[i].name, fields[i].required, fields[i].out, where, err);
    if (code != FC_OK)
        return code;
    if (c->n_kv_head == 0) /* absent or null: as many as query heads */
        c->n_kv_head = c->n_head;
    if (c->head_size == 0 && c->n_head) {
        if (c->n_embd % c->n_head)
            return fc_fail(err, FC_ERR_INPUT,
                           "%s: hidden_size %zu is not a multiple of num_attention_heads %zu, and "
                           "there is no head_dim",
                           where, c->n_embd, c->n_head);
        c->head_size = c->n_embd / c->n_head;
    }
    return FC_OK;
}

/* "rope_parameters" of transformers 5, or "rope_scaling" and "rope_theta" of earlier ones. */
static enum fc_code read_rope(struct fc_model_config *c, const cJSON *json, const char *where,
                              struct fc_error *err)
{
    const cJSON *rope = cJSON_GetObjectItemCaseSensitive(json, "rope_parameters");
    const char *name = "rope_parameters";
    if (!cJSON_IsObject(rope)) {
        rope = cJSON_GetObjectItemCaseSensitive(json, "rope_scaling");
        name = "rope_scaling";
    }
    double partial = 1;
    enum fc_code code = fc_json_double(json, "rope_theta", false, &c->rope_theta, where, err);
    if (code == FC_OK)
        code = fc_json_double(json, "partial_rotary_factor", false, &partial, where, err);
    if (code == FC_OK && rope && !cJSON_IsNull(rope) && !cJSON_IsObject(rope))
        code = fc_fail(err, FC_ERR_INPUT, "%s: field \"%s\": expected an object", where, name);
    const char *type = "default";
    if (code == FC_OK && cJSON_IsObject(rope)) {
        if ((code = fc_json_double(rope, "rope_theta", false, &c->rope_theta, where, err)) ||
            (code = fc_json_double(rope, "partial_rotary_factor", false, &partial, where, err)) ||
            (code = fc_json_string(rope, "type", false, &type, where, err)) ||
            (code = fc_json_string(rope, "rope_type", false, &type, where, err)))
            return code;
        if (cJSON_GetObjectItemCaseSensitive(rope, "full_attention"))
            type = "(per layer type)";
    }
    if (code != FC_OK)
        return code;
    if (partial < 1 || partial > 1)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: partial_rotary_factor %g is not supported, only 1", where, partial);
    if (strcmp(type, "default") == 0)
        return FC_OK;
    if (strcmp(type, "linear") == 0) {
        c->rope_scaling = FC_ROPE_LINEAR;
        return fc_json_double(rope, "factor", true, &c->rope_factor, where, err);
    }
    if (strcmp(type, "llama3") == 0) {
        c->rope_scaling = FC_ROPE_LLAMA3;
        c->rope_original_ctx = c->n_ctx;
        if ((code = fc_json_double(rope, "factor", true, &c->rope_factor, where, err)) ||
            (code = fc_json_double(rope, "low_freq_factor", true, &c->rope_low_freq, where, err)) ||
            (code = fc_json_double(rope, "high_freq_factor", true, &c->rope_high_freq, where, err)))
            return code;
        return fc_json_size(rope, "original_max_position_embeddings", false, &c->rope_original_ctx,
                            where, err);
    }
    return fc_fail(err, FC_ERR_UNSUPPORTED,
                   "%s: rope scaling \"%.40s\" is not supported; known ones: default, linear, "
                   "llama3",
                   where, type);
}

static enum fc_code read_activation(struct fc_model_config *c, const cJSON *json, const char *where,
                                    struct fc_error *err)
{
    static const struct {
        const char *name;
        enum fc_activation activation;
    } names[] = {{"silu", FC_ACT_SILU},
                 {"swish", FC_ACT_SILU},
                 {"gelu", FC_ACT_GELU},
                 {"gelu_new", FC_ACT_GELU_TANH},
                 {"gelu_fast", FC_ACT_GELU_TANH},
                 {"gelu_pytorch_tanh", FC_ACT_GELU_TANH},
                 {"relu", FC_ACT_RELU}};
    const char *name = "silu";
    enum fc_code code = fc_json_string(json, "hidden_act", false, &name, where, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, name) == 0) {
            c->activation = names[i].activation;
            return FC_OK;
        }
    return fc_fail(err, FC_ERR_UNSUPPORTED, "%s: hidden_act \"%.40s\" is not supported", where,
                   name);
}

static enum fc_code read_biases(struct fc_model_config *c, const struct family *family,
                                const cJSON *json, const char *where, struct fc_error *err)
{
    c->qkv_bias = family->qkv_bias;
    if (!family->bias_keys)
        return FC_OK;
    enum fc_code code = fc_json_bool(json, "attention_bias", false, &c->qkv_bias, where, err);
    c->out_bias = c->qkv_bias; /* attention_bias means all four projections */
    return code == FC_OK ? fc_json_bool(json, "mlp_bias", false, &c->mlp_bias, where, err) : code;
}

/* Attention to the last `sliding_window` tokens only is full attention while no sequence is
 * longer: so the window becomes the context's limit. */
static enum fc_code read_window(struct fc_model_config *c, const struct family *family,
                                const cJSON *json, const char *where, struct fc_error *err)
{
    size_t window = 0;
    bool on = family->window_switch == NULL;
    enum fc_code code = FC_OK;
    if (family->window_switch)
        code = fc_json_bool(json, family->window_switch, false, &on, where, err);
    if (code == FC_OK)
        code = fc_json_size(json, "sliding_window", false, &window, where, err);
    if (code == FC_OK && on && window && window < c->n_ctx)
        c->n_ctx = window;
    return code;
}

/* Adds a token id or a list of them. Absent and null say nothing. */
static enum fc_code add_eos(struct fc_model_config *c, const cJSON *ids, const char *where,
                            struct fc_error *err)
{
    if (!ids || cJSON_IsNull(ids))
        return FC_OK;
    const cJSON *id = cJSON_IsArray(ids) ? ids->child : ids;
    enum fc_code code = FC_OK;
    for (; code == FC_OK && id; id = cJSON_IsArray(ids) ? id->next : NULL) {
        double v = cJSON_IsNumber(id) ? id->valuedouble : -1;
        if (!(v >= 0 && v <= INT32_MAX) || v > (double)(int32_t)v)
            return fc_fail(err, FC_ERR_INPUT,
                           "%s: field \"eos_token_id\": expected a token id or a list of them",
                           where);
        code = fc_config_add_eos(c, (int64_t)v, where, err);
    }
    return code;
}

/* -1 where the field is null, negative or beyond the vocabulary, as old files mark "none". */
static enum fc_code read_token(const struct fc_model_config *c, const cJSON *json, const char *name,
                               int32_t otherwise, int32_t *out, const char *where,
                               struct fc_error *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    double id = -1;
    *out = -1;
    if (!item && otherwise >= 0 && (size_t)otherwise < c->n_vocab)
        *out = otherwise;
    if (cJSON_IsArray(item)) /* some families list several; the first is the usual one */
        item = item->child;
    if (!item || cJSON_IsNull(item))
        return FC_OK;
    if (!cJSON_IsNumber(item))
        return fc_fail(err, FC_ERR_INPUT, "%s: field \"%s\": expected a token id", where, name);
    id = item->valuedouble;
    if (id >= 0 && id < (double)c->n_vocab && id <= INT32_MAX)
        *out = (int32_t)id;
    return FC_OK;
}

static enum fc_code read_tokens(struct fc_model_config *c, const struct family *family,
                                const cJSON *json, const cJSON *generation, const char *where,
                                struct fc_error *err)
{
    const cJSON *eos = cJSON_GetObjectItemCaseSensitive(json, "eos_token_id");
    enum fc_code code =
        add_eos(c, cJSON_GetObjectItemCaseSensitive(generation, "eos_token_id"), where, err);
    if (code == FC_OK)
        code = add_eos(c, eos, where, err);
    if (code == FC_OK && !eos && c->n_eos == 0 && family->eos >= 0 &&
        (size_t)family->eos < c->n_vocab)
        code = fc_config_add_eos(c, family->eos, where, err);
    if (code == FC_OK)
        code = read_token(c, json, "bos_token_id", family->bos, &c->bos, where, err);
    if (code == FC_OK)
        code = read_token(c, json, "pad_token_id", -1, &c->pad, where, err);
    return code;
}

enum fc_code fc_config_from_hf(struct fc_model_config *c, const cJSON *json,
                               const cJSON *generation, const char *where, struct fc_error *err)
{
    const char *name = NULL;
    *c = (struct fc_model_config){.norm = FC_NORM_RMS,
                                  .norm_eps = 1e-6,
                                  .position = FC_POSITION_ROPE,
                                  .rope_theta = 10000,
                                  .activation = FC_ACT_SILU,
                                  .gated = true,
                                  .bos = -1,
                                  .pad = -1};
    if (!cJSON_IsObject(json))
        return fc_fail(err, FC_ERR_INPUT, "%s: expected a JSON object", where);
    enum fc_code code = fc_json_string(json, "model_type", true, &name, where, err);
    if (code != FC_OK)
        return code;
    const struct family *family = find_family(name);
    if (!family)
        return unknown_family(name, where, err);
    if (cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(json, "quantization_config")))
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: quantized weights (quantization_config) are not supported in "
                       "safetensors; use the unquantized model or a GGUF file",
                       where);
    snprintf(c->family, sizeof c->family, "%s", family->name);
    if ((code = read_sizes(c, json, where, err)) || (code = read_rope(c, json, where, err)) ||
        (code = read_activation(c, json, where, err)) ||
        (code = fc_json_double(json, "rms_norm_eps", false, &c->norm_eps, where, err)) ||
        (code = fc_json_bool(json, "tie_word_embeddings", false, &c->tied, where, err)) ||
        (code = read_biases(c, family, json, where, err)) ||
        (code = read_window(c, family, json, where, err)) ||
        (code = read_tokens(c, family, json, generation, where, err)))
        return code;
    return fc_config_check(c, where, err);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* A number that Python reads as a float: 8.0, not 8, which transformers warns of or refuses. */
static bool add_float(cJSON *json, const char *name, double value)
{
    char text[40];
    int used = snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) < value || strtod(text, NULL) > value)
        used = snprintf(text, sizeof text, "%.17g", value);
    if (!strpbrk(text, ".e"))
        snprintf(text + used, sizeof text - (size_t)used, ".0");
    return cJSON_AddRawToObject(json, name, text) != NULL;
}

/* One object of rope settings; `old`: as transformers 4 has it, where theta stands beside it. */
static bool write_rope_object(const struct fc_model_config *c, cJSON *json, bool old)
{
    cJSON *rope = cJSON_AddObjectToObject(json, old ? "rope_scaling" : "rope_parameters");
    const char *type = c->rope_scaling == FC_ROPE_LINEAR   ? "linear"
                       : c->rope_scaling == FC_ROPE_LLAMA3 ? "llama3"
                                                           : "default";
    bool ok = rope && cJSON_AddStringToObject(rope, "rope_type", type) &&
              (old || add_float(rope, "rope_theta", c->rope_theta));
    if (ok && c->rope_scaling != FC_ROPE_PLAIN)
        ok = add_float(rope, "factor", c->rope_factor);
    if (ok && c->rope_scaling == FC_ROPE_LLAMA3)
        ok = add_float(rope, "low_freq_factor", c->rope_low_freq) &&
             add_float(rope, "high_freq_factor", c->rope_high_freq) &&
             cJSON_AddNumberToObject(rope, "original_max_position_embeddings",
                                     (double)c->rope_original_ctx);
    return ok;
}

/* For transformers 5 and, beside it, for transformers 4. */
static bool write_rope(const struct fc_model_config *c, cJSON *json)
{
    return write_rope_object(c, json, false) && add_float(json, "rope_theta", c->rope_theta) &&
           (c->rope_scaling == FC_ROPE_PLAIN ? cJSON_AddNullToObject(json, "rope_scaling") != NULL
                                             : write_rope_object(c, json, true));
}

static bool write_token(cJSON *json, const char *name, const int32_t *ids, size_t n)
{
    if (n == 0)
        return cJSON_AddNullToObject(json, name) != NULL;
    if (n == 1)
        return cJSON_AddNumberToObject(json, name, (double)ids[0]) != NULL;
    cJSON *list = cJSON_CreateIntArray(ids, (int)n);
    return list && cJSON_AddItemToObject(json, name, list);
}

bool fc_config_write_tokens(const struct fc_model_config *c, cJSON *json)
{
    return write_token(json, "bos_token_id", &c->bos, c->bos >= 0) &&
           write_token(json, "eos_token_id", c->eos, c->n_eos) &&
           write_token(json, "pad_token_id", &c->pad, c->pad >= 0);
}

static bool write_all(const struct fc_model_config *c, const struct family *family,
                      const char *torch_dtype, cJSON *json)
{
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {
        {"vocab_size", c->n_vocab},         {"hidden_size", c->n_embd},
        {"intermediate_size", c->n_ff},     {"num_hidden_layers", c->n_layer},
        {"num_attention_heads", c->n_head}, {"num_key_value_heads", c->n_kv_head},
        {"head_dim", c->head_size},         {"max_position_embeddings", c->n_ctx},
    };
    const char *architectures[] = {family->architecture};
    cJSON *list = cJSON_CreateStringArray(architectures, 1);
    bool ok = list && cJSON_AddItemToObject(json, "architectures", list) &&
              cJSON_AddStringToObject(json, "model_type", family->name);
    for (size_t i = 0; ok && i < sizeof sizes / sizeof *sizes; i++)
        ok = cJSON_AddNumberToObject(json, sizes[i].name, (double)sizes[i].value) != NULL;
    ok = ok && cJSON_AddStringToObject(json, "hidden_act", "silu") &&
         add_float(json, "rms_norm_eps", c->norm_eps) && write_rope(c, json) &&
         cJSON_AddBoolToObject(json, "tie_word_embeddings", c->tied) &&
         cJSON_AddStringToObject(json, "torch_dtype", torch_dtype) &&
         cJSON_AddBoolToObject(json, "use_cache", true) && fc_config_write_tokens(c, json);
    if (ok && family->bias_keys)
        ok = cJSON_AddBoolToObject(json, "attention_bias", c->qkv_bias) &&
             cJSON_AddBoolToObject(json, "mlp_bias", c->mlp_bias);
    if (ok && family->window_switch)
        ok = cJSON_AddBoolToObject(json, family->window_switch, false) != NULL;
    if (ok && !family->bias_keys) /* absent means a window for some */
        ok = cJSON_AddNullToObject(json, "sliding_window") != NULL;
    return ok;
}

cJSON *fc_config_to_hf(const struct fc_model_config *c, const char *torch_dtype,
                       struct fc_error *err)
{
    const struct family *family = find_family(c->family);
    if (!family) {
        unknown_family(c->family, "config.json", err);
        return NULL;
    }
    bool says_biases = family->bias_keys
                           ? c->qkv_bias == c->out_bias
                           : c->qkv_bias == family->qkv_bias && !c->out_bias && !c->mlp_bias;
    if (!says_biases) {
        fc_fail(err, FC_ERR_UNSUPPORTED,
                "config.json: model_type \"%s\" cannot express this model's biases", family->name);
        return NULL;
    }
    cJSON *json = cJSON_CreateObject();
    if (json && write_all(c, family, torch_dtype, json))
        return json;
    cJSON_Delete(json);
    fc_fail(err, FC_ERR_MEMORY, "config.json: out of memory");
    return NULL;
}
