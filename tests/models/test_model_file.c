/* A model behind one reader: directories and GGUF give the same weights, and say what is wrong. */
#define _GNU_SOURCE
#include "tests/models/files.h"

#include "models/safetensors.h"

#include <math.h>

static struct fc_model_file *open_model(const char *path)
{
    struct fc_error err = {0};
    struct fc_model_file *file = NULL;
    if (fc_model_file_open(&file, path, &err) != FC_OK)
        fail_msg("%s", err.text);
    return file;
}

static float *read_f32(const struct fc_model_file *file, const struct fc_param *p)
{
    struct fc_error err = {0};
    float *w = fc_alloc(p->count, sizeof *w, "weights", &err);
    if (fc_model_file_read(file, p, FC_F32, w, &err) != FC_OK)
        fail_msg("%s", err.text);
    return w;
}

/* Fused tensors hold the parts that the file has apart; bf16 is fp32 rounded to nearest even. */
static void directory(void **state)
{
    (void)state;
    const char *const names[] = {"tiny-llama", "tiny-llama-untied", "tiny-qwen2"};
    for (size_t m = 0; m < 3; m++) {
        struct fc_error err = {0};
        char path[600];
        struct fc_safetensors *st;
        struct fc_model_file *file = open_model(golden_path(names[m]));
        snprintf(path, sizeof path, "%s/model.safetensors", golden_path(names[m]));
        assert_int_equal(fc_safetensors_open(&st, path, &err), FC_OK);
        assert_string_equal(fc_model_file_format(file), "safetensors F32");
        assert_string_equal(fc_model_file_path(file), golden_path(names[m]));
        assert_null(fc_model_file_gguf(file));
        const struct fc_params *params = fc_model_file_params(file);
        const struct fc_safetensor *all;
        size_t parts = 0;
        for (size_t i = 0; i < params->n; i++) {
            const struct fc_param *p = &params->items[i];
            float *w = read_f32(file, p), *at = w;
            uint16_t *half = fc_alloc(p->count, sizeof *half, "weights", &err);
            assert_int_equal(fc_model_file_read(file, p, FC_BF16, half, &err), FC_OK);
            for (size_t k = 0; k < p->count; k++)
                assert_int_equal(half[k], fc_f32_to_bf16(w[k]));
            for (size_t k = 0; k < p->n_parts; k++, parts++) {
                const struct fc_safetensor *t = fc_safetensors_find(st, p->parts[k].name);
                assert_non_null(t);
                assert_memory_equal(at, t->data, t->bytes);
                at += t->bytes / sizeof *at;
            }
            assert_ptr_equal(at, w + p->count);
            free(half);
            free(w);
        }
        assert_int_equal(parts, fc_safetensors_list(st, &all)); /* none left over */
        fc_safetensors_close(st);
        fc_model_file_close(file);
    }
}

/* tiny-llama.gguf is tiny-llama in Q8_0 with llama.cpp's order of q and k rows: were the order not
 * undone, values would be wrong by far more than the quantisation (half a step of max/127, and the
 * scale's own rounding). */
static void gguf_equals_directory(void **state)
{
    (void)state;
    const struct {
        const char *gguf, *folder, *format;
        float relative;
    } models[] = {{"tiny-llama.gguf", "tiny-llama", "gguf Q8_0", 0.5f / 127 + 1.01f / 2048},
                  {"tiny-qwen2.gguf", "tiny-qwen2", "gguf BF16", 1.0f / 256}};
    for (size_t m = 0; m < 2; m++) {
        struct fc_model_file *a = open_model(golden_path(models[m].gguf));
        struct fc_model_file *b = open_model(golden_path(models[m].folder));
        assert_string_equal(fc_model_file_format(a), models[m].format);
        assert_non_null(fc_model_file_gguf(a));
        assert_same_config(fc_model_file_config(a), fc_model_file_config(b));
        const struct fc_params *params = fc_model_file_params(a);
        assert_int_equal(params->n, fc_model_file_params(b)->n);
        for (size_t i = 0; i < params->n; i++) {
            const struct fc_param *p = &params->items[i];
            float *x = read_f32(a, p), *y = read_f32(b, p);
            size_t block = p->is_vector ? p->count : 32;
            for (size_t k = 0; k < p->count; k += block) {
                float most = 0;
                for (size_t j = k; j < k + block; j++)
                    most = fmaxf(most, fabsf(y[j]));
                for (size_t j = k; j < k + block; j++)
                    if (fabsf(x[j] - y[j]) > (p->is_vector ? 0 : most * models[m].relative))
                        fail_msg("%s: kind %d, element %zu: %g and %g", models[m].gguf, p->kind, j,
                                 (double)x[j], (double)y[j]);
            }
            free(x);
            free(y);
        }
        fc_model_file_close(a);
        fc_model_file_close(b);
    }
}

/* ---- directories that lack or twist something ------------------------------------------------ */

/* A Llama of one layer, as in files.h, one tensor of which can be twisted. */
struct twist {
    const char *name;   /* this tensor ... */
    const char *dtype;  /* ... has another dtype, */
    size_t rows, cols;  /* or another shape; or is left out (rows == 0, no dtype) */
    const char *config; /* more of config.json, after a comma */
    bool lm_head;       /* the file has an output projection */
    enum fc_code code;
    const char *words;
};

static void add_tensor(struct fc_text *header, size_t *at, const struct twist *twist,
                       const char *name, size_t rows, size_t cols)
{
    const char *dtype = "F32";
    size_t bytes = 4;
    if (twist->name && strcmp(twist->name, name) == 0) {
        if (!twist->rows && !twist->dtype)
            return;
        if (twist->rows) {
            rows = twist->rows;
            cols = twist->cols;
        }
        if (twist->dtype) {
            dtype = twist->dtype;
            bytes = strcmp(dtype, "I64") ? 2 : 8;
        }
    }
    size_t end = *at + rows * (cols ? cols : 1) * bytes;
    fc_text_printf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", header->len > 1 ? "," : "",
                   name, dtype, rows);
    if (cols)
        fc_text_printf(header, ",%zu", cols);
    fc_text_printf(header, "],\"data_offsets\":[%zu,%zu]}", *at, end);
    *at = end;
}

static void write_folder(const struct twist *twist)
{
    static const struct {
        const char *name;
        size_t rows, cols;
    } tensors[] = {{"model.embed_tokens.weight", 12, 8},
                   {"model.norm.weight", 8, 0},
                   {"model.layers.0.input_layernorm.weight", 8, 0},
                   {"model.layers.0.post_attention_layernorm.weight", 8, 0},
                   {"model.layers.0.self_attn.q_proj.weight", 8, 8},
                   {"model.layers.0.self_attn.k_proj.weight", 4, 8},
                   {"model.layers.0.self_attn.v_proj.weight", 4, 8},
                   {"model.layers.0.self_attn.o_proj.weight", 8, 8},
                   {"model.layers.0.mlp.gate_proj.weight", 16, 8},
                   {"model.layers.0.mlp.up_proj.weight", 16, 8},
                   {"model.layers.0.mlp.down_proj.weight", 8, 16},
                   {"lm_head.weight", 12, 8}};
    size_t n = sizeof tensors / sizeof *tensors - !twist->lm_head, at = 0;
    struct fc_text header = {0}, bytes = {0}, config = {0};
    fc_text_puts(&header, "{");
    for (size_t i = 0; i < n; i++)
        add_tensor(&header, &at, twist, tensors[i].name, tensors[i].rows, tensors[i].cols);
    fc_text_puts(&header, "}");
    add_u64(&bytes, header.len);
    fc_text_add(&bytes, header.data, header.len);
    for (size_t i = 0; i < at; i++)
        fc_text_add(&bytes, "", 1);
    put_file("model.safetensors", bytes.data, bytes.len);
    fc_text_printf(&config,
                   "{\"model_type\":\"llama\",\"vocab_size\":12,\"hidden_size\":8,"
                   "\"intermediate_size\":16,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
                   "\"num_key_value_heads\":1,\"max_position_embeddings\":64%s}",
                   twist->config ? twist->config : "");
    put_file("config.json", config.data, config.len);
    fc_text_free(&header);
    fc_text_free(&bytes);
    fc_text_free(&config);
}

#define TIED ",\"tie_word_embeddings\":true"

static void twisted_directories(void **state)
{
    (void)state;
    const struct twist cases[] = {
        {.lm_head = true},
        {.config = TIED},
        {.config = TIED, .lm_head = true}, /* ignored */
        {.config = TIED, .name = "model.norm.weight", .dtype = "F16"},
        {.code = FC_ERR_INPUT, .words = "tensor \"lm_head.weight\" is missing"},
        {.config = TIED,
         .name = "model.layers.0.mlp.up_proj.weight",
         .code = FC_ERR_INPUT,
         .words = "tensor \"model.layers.0.mlp.up_proj.weight\" is missing"},
        {.config = TIED,
         .name = "model.layers.0.self_attn.k_proj.weight",
         .rows = 8,
         .cols = 8,
         .code = FC_ERR_INPUT,
         .words = "k_proj.weight\": expected shape [4, 8], found [8, 8]"},
        {.config = TIED,
         .name = "model.embed_tokens.weight",
         .rows = 8,
         .cols = 12,
         .code = FC_ERR_INPUT,
         .words = "expected shape [12, 8], found [8, 12]"},
        {.config = TIED,
         .name = "model.norm.weight",
         .rows = 8,
         .cols = 1,
         .code = FC_ERR_INPUT,
         .words = "expected shape [8], found [8, 1]"},
        {.config = TIED,
         .name = "model.norm.weight",
         .dtype = "I64",
         .code = FC_ERR_UNSUPPORTED,
         .words = "stored as I64"},
        {.config = TIED ",\"attention_bias\":true",
         .code = FC_ERR_INPUT,
         .words = "q_proj.bias\" is missing"},
        {.config = TIED ",\"num_hidden_layers_\":",
         .code = FC_ERR_INPUT,
         .words = "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fc_error err = {0};
        struct fc_model_file *file = NULL;
        write_folder(&cases[i]);
        enum fc_code code = fc_model_file_open(&file, test_folder, &err);
        if (cases[i].code == FC_OK && code != FC_OK)
            fail_msg("case %zu: %s", i, err.text);
        assert_refused(code, &err, cases[i].code, cases[i].words ? cases[i].words : "");
        assert_true((file != NULL) == (code == FC_OK));
        fc_model_file_close(file);
    }
}

static void generation_config(void **state)
{
    (void)state;
    struct twist plain = {.config = TIED};
    struct fc_error err = {0};
    struct fc_model_file *file;
    write_folder(&plain);
    put_file("generation_config.json", "{\"eos_token_id\":[5,2]}", 22);
    file = open_model(test_folder);
    const struct fc_model_config *c = fc_model_file_config(file);
    assert_true(c->n_eos == 2 && c->eos[0] == 5 && c->eos[1] == 2);
    fc_model_file_close(file);
    put_file("generation_config.json", "{", 1);
    assert_refused(fc_model_file_open(&file, test_folder, &err), &err, FC_ERR_INPUT,
                   "generation_config.json");
    unlink(test_path("generation_config.json"));
}

/* ---- no model -------------------------------------------------------------------------------- */

static void no_model(void **state)
{
    (void)state;
    struct fc_model_file *file;
    struct fc_error err = {0}, missing = {0}, text = {0};
    unlink(test_path("config.json"));
    assert_refused(fc_model_file_open(&file, test_folder, &err), &err, FC_ERR_INPUT,
                   "no config.json");
    assert_refused(fc_model_file_open(&file, test_path("absent"), &missing), &missing, FC_ERR_IO,
                   "absent");
    assert_refused(fc_model_file_open(&file, put_file("text", "hello, world", 12), &text), &text,
                   FC_ERR_INPUT, "not a GGUF file");
    fc_model_file_close(NULL);
}

static void gguf_shapes(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    struct fc_text bytes = {0};
    struct fc_error err = {0};
    struct fc_model_file *file;
    gguf_llama_values(&w);
    gguf_u32(&w, "llama.vocab_size", 13);
    gguf_llama_tensors(&w);
    gguf_join(&w, &bytes);
    assert_refused(fc_model_file_open(&file, put_file("m.gguf", bytes.data, bytes.len), &err), &err,
                   FC_ERR_INPUT, "\"token_embd.weight\": expected shape [13, 8], found [12, 8]");
    gguf_free(&w);
    fc_text_free(&bytes);
}

/* What a caller can ask wrongly. */
static void wrong_requests(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_model_file *file = open_model(golden_path("tiny-qwen2"));
    struct fc_param none = {.kind = FC_P_HEAD, .count = 1};
    float out[64];
    assert_refused(fc_model_file_read(file, &none, FC_F32, out, &err), &err, FC_ERR_USAGE,
                   "does not have");
    fc_model_file_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory),
        cmocka_unit_test(gguf_equals_directory),
        cmocka_unit_test(twisted_directories),
        cmocka_unit_test(generation_config),
        cmocka_unit_test(no_model),
        cmocka_unit_test(gguf_shapes),
        cmocka_unit_test(wrong_requests),
    };
    limit_memory();
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
