/* config.json and GGUF metadata -> block description, and back. */
#define _GNU_SOURCE
#include "tests/models/files.h"

#include "base/json.h"
#include "models/config.h"
#include "models/gguf.h"

#include <math.h>

/* ---- Hugging Face ---------------------------------------------------------------------------- */

#define SIZES                                                                                      \
    "\"vocab_size\":1000,\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,"    \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":2048"

static enum fc_code from_text(struct fc_model_config *c, const char *config, const char *generation,
                              struct fc_error *err)
{
    cJSON *json = fc_json_parse(config, strlen(config), "config.json", err);
    cJSON *more = generation ? fc_json_parse(generation, strlen(generation), "g", err) : NULL;
    assert_non_null(json);
    enum fc_code code = fc_config_from_hf(c, json, more, "config.json", err);
    cJSON_Delete(json);
    cJSON_Delete(more);
    return code;
}

static struct fc_model_config read_config(const char *config, const char *generation)
{
    struct fc_error err = {0};
    struct fc_model_config c;
    if (from_text(&c, config, generation, &err) != FC_OK)
        fail_msg("%s", err.text);
    return c;
}

static void defaults(void **state)
{
    (void)state;
    struct fc_model_config c = read_config("{\"model_type\":\"llama\"," SIZES "}", NULL);
    assert_string_equal(c.family, "llama");
    assert_true(c.n_vocab == 1000 && c.n_embd == 64 && c.n_ff == 128 && c.n_layer == 2);
    assert_true(c.n_head == 4 && c.n_kv_head == 2 && c.head_size == 16 && c.n_ctx == 2048);
    assert_true(c.norm == FC_NORM_RMS && c.position == FC_POSITION_ROPE && c.gated);
    assert_true(c.norm_eps == 1e-6 && c.rope_theta == 10000 && c.rope_scaling == FC_ROPE_PLAIN);
    assert_true(!c.qkv_bias && !c.out_bias && !c.mlp_bias && !c.tied);
    assert_true(c.bos == 1 && c.pad == -1 && c.n_eos == 1 && c.eos[0] == 2);
}

static void keys(void **state)
{
    (void)state;
    struct fc_model_config c = read_config(
        "{\"model_type\":\"llama\"," SIZES ",\"head_dim\":24,\"rms_norm_eps\":1e-5,"
        "\"rope_theta\":500000.0,\"tie_word_embeddings\":true,\"attention_bias\":true,"
        "\"mlp_bias\":true,\"bos_token_id\":null,\"eos_token_id\":[7,9],\"pad_token_id\":-1,"
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}",
        "{\"eos_token_id\":[9,11]}");
    assert_true(c.head_size == 24 && c.norm_eps == 1e-5 && c.rope_theta == 500000);
    assert_true(c.tied && c.qkv_bias && c.out_bias && c.mlp_bias);
    assert_true(c.bos == -1 && c.pad == -1);
    assert_true(c.n_eos == 3 && c.eos[0] == 9 && c.eos[1] == 11 && c.eos[2] == 7);
    assert_true(c.rope_scaling == FC_ROPE_LLAMA3 && c.rope_factor == 8 && c.rope_low_freq == 1 &&
                c.rope_high_freq == 4 && c.rope_original_ctx == 8192);
    /* transformers 5 */
    c = read_config("{\"model_type\":\"llama\"," SIZES ",\"rope_parameters\":{\"rope_type\":"
                    "\"linear\",\"factor\":2.0,\"rope_theta\":5000.0}}",
                    NULL);
    assert_true(c.rope_scaling == FC_ROPE_LINEAR && c.rope_factor == 2 && c.rope_theta == 5000);
    c = read_config("{\"model_type\":\"llama\"," SIZES ",\"rope_parameters\":{\"rope_type\":"
                    "\"default\",\"rope_theta\":7.0},\"rope_scaling\":null}",
                    NULL);
    assert_true(c.rope_scaling == FC_ROPE_PLAIN && c.rope_theta == 7);
    /* before transformers 4.43 */
    c = read_config("{\"model_type\":\"llama\"," SIZES
                    ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}",
                    NULL);
    assert_true(c.rope_scaling == FC_ROPE_LINEAR && c.rope_factor == 4);
}

static void families(void **state)
{
    (void)state;
    struct fc_model_config c = read_config(
        "{\"model_type\":\"qwen2\"," SIZES
        ",\"use_sliding_window\":false,\"sliding_window\":128,\"attention_bias\":false}",
        NULL);
    assert_true(c.qkv_bias && !c.out_bias && !c.mlp_bias && c.n_ctx == 2048);
    assert_true(c.bos == -1 && c.n_eos == 0);
    c = read_config("{\"model_type\":\"qwen2\"," SIZES
                    ",\"use_sliding_window\":true,\"sliding_window\":128}",
                    NULL);
    assert_int_equal(c.n_ctx, 128);
    c = read_config("{\"model_type\":\"mistral\"," SIZES ",\"sliding_window\":512}", NULL);
    assert_true(c.n_ctx == 512 && !c.qkv_bias);
    c = read_config("{\"model_type\":\"mistral\"," SIZES ",\"sliding_window\":null}", NULL);
    assert_int_equal(c.n_ctx, 2048);
}

static void refused(void **state)
{
    (void)state;
    const struct {
        const char *config;
        enum fc_code code;
        const char *words;
    } cases[] = {
        {"[]", FC_ERR_INPUT, "expected a JSON object"},
        {"{}", FC_ERR_INPUT, "\"model_type\" is missing"},
        {"{\"model_type\":\"bert\"}", FC_ERR_UNSUPPORTED,
         "\"bert\" is not supported; known ones: llama, mistral, qwen2"},
        {"{\"model_type\":\"llama\"}", FC_ERR_INPUT, "\"vocab_size\" is missing"},
        {"{\"model_type\":\"mistral\",\"vocab_size\":8,\"hidden_size\":8,\"intermediate_size\":8,"
         "\"num_hidden_layers\":1,\"num_attention_heads\":2}",
         FC_ERR_INPUT, "\"num_key_value_heads\" is missing"},
        {"{\"model_type\":\"llama\"," SIZES ",\"head_dim\":0.5}", FC_ERR_INPUT, "\"head_dim\""},
        {"{\"model_type\":\"llama\"," SIZES ",\"head_dim\":15}", FC_ERR_INPUT, "15 is odd"},
        {"{\"model_type\":\"llama\"," SIZES ",\"head_dim\":1024}", FC_ERR_INPUT,
         "head size: expected 1 to 512, found 1024"},
        {"{\"model_type\":\"llama\"," SIZES ",\"hidden_act\":\"gelu\"}", FC_ERR_UNSUPPORTED,
         "activation other than SiLU"},
        {"{\"model_type\":\"llama\"," SIZES ",\"hidden_act\":\"sinus\"}", FC_ERR_UNSUPPORTED,
         "\"sinus\""},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_scaling\":{\"type\":\"dynamic\"}}",
         FC_ERR_UNSUPPORTED, "\"dynamic\" is not supported; known ones"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_scaling\":{\"type\":\"linear\"}}",
         FC_ERR_INPUT, "\"factor\" is missing"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}",
         FC_ERR_INPUT, "rope scaling factor: expected a number above 0"},
        {"{\"model_type\":\"llama\"," SIZES
         ",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
         "\"high_freq_factor\":4}}",
         FC_ERR_INPUT, "low_freq_factor < high_freq_factor"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_scaling\":\"linear\"}", FC_ERR_INPUT,
         "\"rope_scaling\": expected an object"},
        {"{\"model_type\":\"llama\"," SIZES ",\"partial_rotary_factor\":0.5}", FC_ERR_UNSUPPORTED,
         "partial_rotary_factor"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rms_norm_eps\":-1}", FC_ERR_INPUT, "norm epsilon"},
        {"{\"model_type\":\"llama\"," SIZES ",\"rope_theta\":1e999}", FC_ERR_INPUT, "rope_theta"},
        {"{\"model_type\":\"llama\"," SIZES ",\"eos_token_id\":1000}", FC_ERR_INPUT,
         "eos token id: expected 0 to 999 (the vocabulary), found 1000"},
        {"{\"model_type\":\"llama\"," SIZES ",\"eos_token_id\":\"x\"}", FC_ERR_INPUT,
         "eos_token_id"},
        {"{\"model_type\":\"llama\"," SIZES ",\"eos_token_id\":[1,[2]]}", FC_ERR_INPUT,
         "eos_token_id"},
        {"{\"model_type\":\"llama\"," SIZES ",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}",
         FC_ERR_UNSUPPORTED, "more than 8"},
        {"{\"model_type\":\"llama\"," SIZES ",\"quantization_config\":{}}", FC_ERR_UNSUPPORTED,
         "quantization_config"},
        {"{\"model_type\":\"llama\",\"vocab_size\":8,\"hidden_size\":10,\"intermediate_size\":8,"
         "\"num_hidden_layers\":1,\"num_attention_heads\":3,\"max_position_embeddings\":8}",
         FC_ERR_INPUT, "not a multiple of num_attention_heads 3"},
        {"{\"model_type\":\"llama\",\"vocab_size\":8,\"hidden_size\":12,\"intermediate_size\":8,"
         "\"num_hidden_layers\":1,\"num_attention_heads\":3,\"num_key_value_heads\":2,"
         "\"max_position_embeddings\":8}",
         FC_ERR_INPUT, "not a multiple of 2 key/value heads"},
        {"{\"model_type\":\"llama\",\"vocab_size\":9007199254740992,\"hidden_size\":12,"
         "\"intermediate_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":3,"
         "\"max_position_embeddings\":8}",
         FC_ERR_INPUT, "vocabulary size: expected 1 to"},
        {"{\"model_type\":\"llama\",\"vocab_size\":8,\"hidden_size\":12,\"intermediate_size\":8,"
         "\"num_hidden_layers\":0,\"num_attention_heads\":0,\"max_position_embeddings\":8}",
         FC_ERR_INPUT, "number of layers: expected 1 to"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fc_error err = {0};
        struct fc_model_config c;
        assert_refused(from_text(&c, cases[i].config, NULL, &err), &err, cases[i].code,
                       cases[i].words);
    }
}

/* Damaged text is refused or harmless, and what is accepted has passed fc_config_check. */
static void flipped_bytes(void **state)
{
    (void)state;
    static const char text[] =
        "{\"model_type\":\"llama\"," SIZES ",\"head_dim\":24,\"rms_norm_eps\":1e-5,"
        "\"tie_word_embeddings\":true,\"bos_token_id\":1,\"eos_token_id\":[7,9],"
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}";
    uint64_t random = 5;
    size_t accepted = 0;
    for (size_t round = 0; round < 5000; round++) {
        char copy[sizeof text];
        memcpy(copy, text, sizeof text);
        for (size_t i = 0; i < 1 + round % 4; i++)
            copy[next_random(&random) % (sizeof text - 1)] =
                "0123456789-e.,:[]{}\"nt"[next_random(&random) % 23];
        struct fc_error err = {0};
        struct fc_model_config c;
        cJSON *json = fc_json_parse(copy, sizeof text - 1, "config.json", &err);
        if (!json)
            continue;
        enum fc_code code = fc_config_from_hf(&c, json, json, "config.json", &err);
        assert_refused_or_fine(code, &err);
        if (code == FC_OK) {
            double frequencies[256];
            assert_int_equal(fc_config_check(&c, "again", &err), FC_OK);
            fc_config_rope_frequencies(&c, frequencies);
            accepted++;
        }
        cJSON_Delete(json);
    }
    assert_true(accepted > 100 && accepted < 5000);
}

static void round_trip(const char *config)
{
    struct fc_error err = {0};
    struct fc_model_config before = read_config(config, NULL), after;
    cJSON *written = fc_config_to_hf(&before, "bfloat16", &err);
    if (!written)
        fail_msg("%s", err.text);
    char *text = fc_json_print(written, &err);
    cJSON *json = fc_json_parse(text, strlen(text), "round trip", &err);
    assert_int_equal(fc_config_from_hf(&after, json, NULL, "round trip", &err), FC_OK);
    assert_same_config(&before, &after);
    /* transformers 4 looks at the old rope keys only. */
    cJSON_DeleteItemFromObject(json, "rope_parameters");
    assert_int_equal(fc_config_from_hf(&after, json, NULL, "round trip", &err), FC_OK);
    assert_same_config(&before, &after);
    assert_non_null(strstr(text, ".0,"));
    cJSON_Delete(json);
    cJSON_Delete(written);
    free(text);
}

static void round_trips(void **state)
{
    (void)state;
    round_trip("{\"model_type\":\"llama\"," SIZES ",\"attention_bias\":true,\"head_dim\":32,"
               "\"eos_token_id\":[7,9],\"bos_token_id\":null,\"pad_token_id\":3}");
    round_trip("{\"model_type\":\"llama\"," SIZES ",\"mlp_bias\":true,\"rope_scaling\":{"
               "\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"
               "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}");
    round_trip("{\"model_type\":\"mistral\"," SIZES ",\"sliding_window\":512}");
    round_trip("{\"model_type\":\"qwen2\"," SIZES ",\"tie_word_embeddings\":true,"
               "\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0}");
    struct fc_error err = {0};
    struct fc_model_config c = read_config("{\"model_type\":\"qwen2\"," SIZES "}", NULL);
    c.out_bias = true;
    assert_null(fc_config_to_hf(&c, "float32", &err));
    assert_refused(err.code, &err, FC_ERR_UNSUPPORTED, "biases");
}

/* ---- rotary frequencies ---------------------------------------------------------------------- */

/* Of the tiny models in tests/golden, by transformers' ROPE_INIT_FUNCTIONS (fp32). */
static void frequencies(void **state)
{
    (void)state;
    const struct {
        const char *path;
        double values[8];
    } expected[] = {
        {"tiny-llama/config.json",
         {1.0, 0.24438458681106567, 0.013042256236076355, 0.0039528473280370235,
          0.0012499999720603228, 0.00039528473280370235, 0.0001250000059371814,
          3.9528473280370235e-05}},
        {"tiny-llama-untied/config.json",
         {0.5, 0.17242442071437836, 0.0594603568315506, 0.02050483413040638, 0.0070710680447518826,
          0.002438449300825596, 0.0008408963913097978, 0.00028998212656006217}},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct fc_error err = {0};
        struct fc_model_config c;
        double found[8];
        cJSON *json = fc_json_read_file(golden_path(expected[i].path), 1 << 20, &err);
        assert_non_null(json);
        assert_int_equal(fc_config_from_hf(&c, json, NULL, "golden", &err), FC_OK);
        assert_int_equal(c.head_size, 16);
        fc_config_rope_frequencies(&c, found);
        for (size_t k = 0; k < 8; k++)
            if (fabs(found[k] / expected[i].values[k] - 1) > 1e-6)
                fail_msg("%s, frequency %zu: %.9g", expected[i].path, k, found[k]);
        cJSON_Delete(json);
    }
}

/* ---- GGUF ------------------------------------------------------------------------------------ */

/* Writes, opens and reads; `add` (may be NULL) adds to the metadata and tensors. */
static enum fc_code from_gguf(struct fc_model_config *c, void (*add)(struct gguf_writer *),
                              struct fc_error *err)
{
    struct gguf_writer w = {0};
    struct fc_text bytes = {0};
    struct fc_gguf *g = NULL;
    gguf_llama_values(&w);
    gguf_llama_tensors(&w);
    if (add)
        add(&w);
    gguf_join(&w, &bytes);
    enum fc_code code = fc_gguf_open(&g, put_file("c.gguf", bytes.data, bytes.len), err);
    if (code == FC_OK)
        code = fc_config_from_gguf(c, g, err);
    fc_gguf_close(g);
    fc_text_free(&bytes);
    gguf_free(&w);
    return code;
}

static struct fc_model_config good_gguf(void (*add)(struct gguf_writer *))
{
    struct fc_error err = {0};
    struct fc_model_config c;
    if (from_gguf(&c, add, &err) != FC_OK)
        fail_msg("%s", err.text);
    return c;
}

static void add_chat(struct gguf_writer *w)
{
    const char *const tokens[] = {"a", "<s>", "</s>", "<|im_end|>", "<|eot_id|>"};
    const int32_t types[] = {1, 3, 3, 3, 3};
    gguf_string(w, "tokenizer.chat_template", "{{ m }}<|im_end|>\n");
    gguf_key(w, "tokenizer.ggml.tokens", G_ARRAY);
    add_u32(&w->values, G_STRING);
    add_u64(&w->values, 5);
    for (size_t i = 0; i < 5; i++)
        add_string(&w->values, tokens[i]);
    gguf_key(w, "tokenizer.ggml.token_type", G_ARRAY);
    add_u32(&w->values, G_I32);
    add_u64(&w->values, 5);
    add_bytes(&w->values, types, sizeof types);
    gguf_u32(w, "tokenizer.ggml.eot_token_id", 9);
    gguf_u32(w, "tokenizer.ggml.padding_token_id", 4294967295u);
}

static void add_untied(struct gguf_writer *w)
{
    gguf_matrix(w, "output.weight", 12, 8, 12);
    gguf_matrix(w, "blk.0.attn_q.bias", 0, 8, 13);
    gguf_u32(w, "llama.attention.key_length", 6);
    gguf_u32(w, "llama.attention.sliding_window", 32);
    gguf_string(w, "llama.rope.scaling.type", "linear");
    gguf_f32(w, "llama.rope.scaling.factor", 2.5f);
}

static void reads_gguf(void **state)
{
    (void)state;
    struct fc_model_config c = good_gguf(NULL);
    assert_string_equal(c.family, "llama");
    assert_true(c.n_vocab == 12 && c.n_embd == 8 && c.n_ff == 16 && c.n_layer == 1);
    assert_true(c.n_head == 2 && c.n_kv_head == 1 && c.head_size == 4 && c.n_ctx == 64);
    assert_true(c.norm_eps == 1e-5); /* the decimal, not the float's double */
    assert_true(c.rope_theta == 10000 && c.rope_scaling == FC_ROPE_PLAIN && c.tied && !c.qkv_bias);
    assert_true(c.bos == 1 && c.pad == -1 && c.n_eos == 1 && c.eos[0] == 2);
    c = good_gguf(add_chat);
    assert_true(c.n_eos == 3 && c.eos[0] == 2 && c.eos[1] == 9 && c.eos[2] == 3 && c.pad == -1);
    c = good_gguf(add_untied);
    assert_true(!c.tied && c.qkv_bias && !c.out_bias && c.head_size == 6 && c.n_ctx == 32);
    assert_true(c.rope_scaling == FC_ROPE_LINEAR && c.rope_factor == 2.5);
}

static void add_experts(struct gguf_writer *w)
{
    gguf_u32(w, "llama.expert_count", 8);
}

static void add_partial(struct gguf_writer *w)
{
    gguf_u32(w, "llama.rope.dimension_count", 2);
}

static void add_yarn(struct gguf_writer *w)
{
    gguf_string(w, "llama.rope.scaling.type", "yarn");
}

static void add_factors(struct gguf_writer *w)
{
    gguf_matrix(w, "rope_freqs.weight", 0, 2, 3);
    const float factors[] = {1.5f, 3};
    memcpy(w->data.data + w->data.len - 32, factors, sizeof factors);
}

static void add_negative_factors(struct gguf_writer *w)
{
    gguf_matrix(w, "rope_freqs.weight", 0, 2, 3);
    const float factors[] = {-1, NAN};
    memcpy(w->data.data + w->data.len - 32, factors, sizeof factors);
}

static void add_many_factors(struct gguf_writer *w)
{
    gguf_matrix(w, "rope_freqs.weight", 0, 3, 3);
}

static void add_array(struct gguf_writer *w)
{
    gguf_key(w, "llama.vocab_size", G_ARRAY);
    add_u32(&w->values, G_U32);
    add_u64(&w->values, 0);
}

static void refuses_gguf(void **state)
{
    (void)state;
    const struct {
        void (*add)(struct gguf_writer *);
        enum fc_code code;
        const char *words;
    } cases[] = {
        {add_experts, FC_ERR_UNSUPPORTED, "\"llama.expert_count\" is 8"},
        {add_partial, FC_ERR_UNSUPPORTED, "\"llama.rope.dimension_count\" is 2"},
        {add_yarn, FC_ERR_UNSUPPORTED, "\"yarn\"; supported are"},
        {add_factors, FC_ERR_UNSUPPORTED, "not those of llama3 scaling"},
        {add_negative_factors, FC_ERR_INPUT, "expected factors above 0"},
        {add_many_factors, FC_ERR_INPUT, "expected 2 values of type F32, found 3"},
        {add_array, FC_ERR_INPUT, "expected an integer, found an array of uint32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fc_error err = {0};
        struct fc_model_config c;
        assert_refused(from_gguf(&c, cases[i].add, &err), &err, cases[i].code, cases[i].words);
    }
}

/* llama3 scaling comes back from the factors that llama.cpp's converter makes of it. */
static void llama3_from_factors(void **state)
{
    (void)state;
    const struct {
        double theta, factor;
        size_t original, head_size;
    } models[] = {{500000, 8, 8192, 128}, {500000, 32, 8192, 64}, {10000, 8, 64, 16}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct fc_model_config c = good_gguf(NULL);
        double plain[64], scaled[64];
        float factors[64];
        c.head_size = models[i].head_size;
        c.rope_theta = models[i].theta;
        fc_config_rope_frequencies(&c, plain);
        c.rope_scaling = FC_ROPE_LLAMA3;
        c.rope_factor = models[i].factor;
        c.rope_low_freq = 1;
        c.rope_high_freq = 4;
        c.rope_original_ctx = models[i].original;
        fc_config_rope_frequencies(&c, scaled);
        for (size_t k = 0; k < c.head_size / 2; k++)
            factors[k] = (float)(plain[k] / scaled[k]);

        struct gguf_writer w = {0};
        struct fc_text bytes = {0};
        struct fc_gguf *g = NULL;
        struct fc_error err = {0};
        struct fc_model_config found;
        gguf_string(&w, "general.architecture", "qwen2");
        const char *const sizes[] = {"qwen2.block_count",          "qwen2.context_length",
                                     "qwen2.embedding_length",     "qwen2.feed_forward_length",
                                     "qwen2.attention.head_count", "qwen2.vocab_size"};
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
            gguf_u32(&w, sizes[k], 2);
        gguf_u32(&w, "qwen2.attention.key_length", (uint32_t)c.head_size);
        gguf_f32(&w, "qwen2.attention.layer_norm_rms_epsilon", 1e-6f);
        gguf_f32(&w, "qwen2.rope.freq_base", (float)c.rope_theta);
        gguf_matrix(&w, "rope_freqs.weight", 0, c.head_size / 2, 1);
        memcpy(w.data.data, factors, c.head_size / 2 * sizeof *factors);
        gguf_join(&w, &bytes);
        if (fc_gguf_open(&g, put_file("f.gguf", bytes.data, bytes.len), &err) != FC_OK ||
            fc_config_from_gguf(&found, g, &err) != FC_OK)
            fail_msg("%s", err.text);
        assert_true(found.qkv_bias && found.n_vocab == 2 && found.norm_eps == 1e-6);
        assert_true(found.rope_scaling == FC_ROPE_LLAMA3 && found.rope_factor == c.rope_factor &&
                    found.rope_low_freq == 1 && found.rope_high_freq == 4 &&
                    found.rope_original_ctx == c.rope_original_ctx);
        fc_gguf_close(g);
        fc_text_free(&bytes);
        gguf_free(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),      cmocka_unit_test(keys),
        cmocka_unit_test(families),      cmocka_unit_test(refused),
        cmocka_unit_test(flipped_bytes), cmocka_unit_test(round_trips),
        cmocka_unit_test(frequencies),   cmocka_unit_test(reads_gguf),
        cmocka_unit_test(refuses_gguf),  cmocka_unit_test(llama3_from_factors),
    };
    limit_memory();
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
