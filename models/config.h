/* What a model is: the block description that one forward and backward pass serves all
 * decoder-only families from. A new family is a new mapping into this struct (models/config_hf.c,
 * models/config_gguf.c), not new compute code. */
#ifndef FC_MODELS_CONFIG_H
#define FC_MODELS_CONFIG_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fc_norm_kind { FC_NORM_RMS, FC_NORM_LAYER };
enum fc_position_kind { FC_POSITION_ROPE, FC_POSITION_LEARNED };
enum fc_rope_scaling { FC_ROPE_PLAIN, FC_ROPE_LINEAR, FC_ROPE_LLAMA3 };
enum fc_activation { FC_ACT_SILU, FC_ACT_GELU, FC_ACT_GELU_TANH, FC_ACT_RELU };

#define FC_MAX_EOS 8

struct fc_model_config {
    char family[24]; /* Hugging Face's model_type: "llama", "mistral", "qwen2" */

    size_t n_layer, n_embd, n_head, n_kv_head, head_size, n_ff, n_vocab, n_ctx;

    enum fc_norm_kind norm;
    double norm_eps;
    enum fc_position_kind position;
    double rope_theta;
    enum fc_rope_scaling rope_scaling;
    double rope_factor, rope_low_freq, rope_high_freq; /* linear: factor; llama3: all */
    size_t rope_original_ctx;                          /* llama3 */
    enum fc_activation activation;
    bool gated; /* act(gate(x)) * up(x) rather than act(up(x)) */
    bool qkv_bias, out_bias, mlp_bias;
    bool tied;              /* the output projection is the embedding */
    bool parallel_residual; /* x + attention(norm(x)) + mlp(norm(x)) */
    bool qk_norm;           /* RMSNorm over each q and k head */

    int32_t bos, pad; /* -1: none */
    int32_t eos[FC_MAX_EOS];
    size_t n_eos;
};

/* Checks every size for sanity (nothing zero, heads divide, products fit in 63 bits, limits such
 * as n_layer <= 1024 and head_size <= 512): called by both readers below, so that whoever holds a
 * config may multiply its fields. FC_ERR_INPUT names the field; FC_ERR_UNSUPPORTED a family or
 * feature that the engine does not have. */
enum fc_code fc_config_check(const struct fc_model_config *c, const char *where,
                             struct fc_error *err);

/* From a parsed config.json (and generation_config.json, may be NULL, for eos ids). Known
 * model_types: llama, mistral, qwen2. A sliding attention window is met by limiting n_ctx to it:
 * within the window it changes nothing. */
enum fc_code fc_config_from_hf(struct fc_model_config *c, const cJSON *config,
                               const cJSON *generation_config, const char *where,
                               struct fc_error *err);

/* A config.json that transformers (4 and 5) reads back as the same model; torch_dtype "bfloat16" or
 * "float32". FC_ERR_UNSUPPORTED for a set of biases that the family has no key for.
 * Made to be printed: some numbers are raw text. Owner: the caller, cJSON_Delete. */
cJSON *fc_config_to_hf(const struct fc_model_config *c, const char *torch_dtype,
                       struct fc_error *err);

/* Adds bos_token_id, eos_token_id and pad_token_id to a JSON object; false: out of memory. */
bool fc_config_write_tokens(const struct fc_model_config *c, cJSON *json);

/* From GGUF metadata (and its rope_freqs.weight, in which llama.cpp stores llama3 scaling). Token
 * ids come from tokenizer.ggml.*; a chat model's end of turn is added to its end tokens. */
struct fc_gguf;
enum fc_code fc_config_from_gguf(struct fc_model_config *c, const struct fc_gguf *gguf,
                                 struct fc_error *err);

/* Adds an end token unless it is there already. FC_ERR_INPUT for an id that cannot be one,
 * FC_ERR_UNSUPPORTED when all FC_MAX_EOS places are taken. */
enum fc_code fc_config_add_eos(struct fc_model_config *c, int64_t id, const char *where,
                               struct fc_error *err);

/* Inverse frequencies after scaling, head_size/2 values (double): angle = position * inv_freq[i].
 * As transformers' ROPE_INIT_FUNCTIONS "default", "linear" and "llama3". */
void fc_config_rope_frequencies(const struct fc_model_config *c, double *inv_freq);

#endif
