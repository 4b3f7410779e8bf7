/* The parameter table: names, shapes, order, offsets. */
#define _GNU_SOURCE
#include "tests/models/files.h"

#include "models/params.h"

static struct fc_model_config small_config(void)
{
    return (struct fc_model_config){.family = "llama",
                                    .n_layer = 3,
                                    .n_embd = 40,
                                    .n_head = 6,
                                    .n_kv_head = 2,
                                    .head_size = 10,
                                    .n_ff = 72,
                                    .n_vocab = 101,
                                    .n_ctx = 32,
                                    .norm_eps = 1e-5,
                                    .rope_theta = 10000,
                                    .gated = true,
                                    .bos = -1,
                                    .pad = -1};
}

static void shapes(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_model_config c = small_config();
    struct fc_params p;
    c.qkv_bias = c.out_bias = c.mlp_bias = true;
    assert_int_equal(fc_config_check(&c, "test", &err), FC_OK);
    assert_int_equal(fc_params_build(&p, &c, &err), FC_OK);
    assert_int_equal(p.n, 3 + 10 * 3);
    const struct {
        enum fc_param_kind kind;
        size_t layer, rows, cols;
        bool vector;
        enum fc_split split;
        size_t n_parts;
        const char *last_name, *last_gguf;
        size_t last_rows;
    } expected[] = {
        {FC_P_EMBED, 0, 101, 40, false, FC_SPLIT_ROWS, 1, "model.embed_tokens.weight",
         "token_embd.weight", 101},
        {FC_P_HEAD, 0, 101, 40, false, FC_SPLIT_ROWS, 1, "lm_head.weight", "output.weight", 101},
        {FC_P_QKV, 2, 100, 40, false, FC_SPLIT_HEADS, 3, "model.layers.2.self_attn.v_proj.weight",
         "blk.2.attn_v.weight", 20},
        {FC_P_OUT, 1, 40, 60, false, FC_SPLIT_COLUMNS, 1, "model.layers.1.self_attn.o_proj.weight",
         "blk.1.attn_output.weight", 40},
        {FC_P_GATE_UP, 0, 144, 40, false, FC_SPLIT_ROWS, 2, "model.layers.0.mlp.up_proj.weight",
         "blk.0.ffn_up.weight", 72},
        {FC_P_DOWN, 0, 40, 72, false, FC_SPLIT_COLUMNS, 1, "model.layers.0.mlp.down_proj.weight",
         "blk.0.ffn_down.weight", 40},
        {FC_P_NORM1, 2, 1, 40, true, FC_SPLIT_NONE, 1, "model.layers.2.input_layernorm.weight",
         "blk.2.attn_norm.weight", 40},
        {FC_P_QKV_BIAS, 1, 1, 100, true, FC_SPLIT_HEADS, 3, "model.layers.1.self_attn.v_proj.bias",
         "blk.1.attn_v.bias", 20},
        {FC_P_OUT_BIAS, 1, 1, 40, true, FC_SPLIT_NONE, 1, "model.layers.1.self_attn.o_proj.bias",
         "blk.1.attn_output.bias", 40},
        {FC_P_NORM2, 1, 1, 40, true, FC_SPLIT_NONE, 1,
         "model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight", 40},
        {FC_P_GATE_UP_BIAS, 1, 1, 144, true, FC_SPLIT_ROWS, 2, "model.layers.1.mlp.up_proj.bias",
         "blk.1.ffn_up.bias", 72},
        {FC_P_DOWN_BIAS, 1, 1, 40, true, FC_SPLIT_NONE, 1, "model.layers.1.mlp.down_proj.bias",
         "blk.1.ffn_down.bias", 40},
        {FC_P_NORM_FINAL, 0, 1, 40, true, FC_SPLIT_NONE, 1, "model.norm.weight",
         "output_norm.weight", 40},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct fc_param *q = fc_params_find(&p, expected[i].kind, expected[i].layer);
        assert_non_null(q);
        const struct fc_param_part *last = &q->parts[q->n_parts - 1];
        assert_true(q->kind == expected[i].kind && q->layer == expected[i].layer);
        assert_int_equal(q->rows, expected[i].rows);
        assert_int_equal(q->cols, expected[i].cols);
        assert_int_equal(q->count, q->rows * q->cols);
        assert_true(q->is_vector == expected[i].vector && q->decay == !q->is_vector);
        assert_int_equal(q->split, expected[i].split);
        assert_int_equal(q->n_parts, expected[i].n_parts);
        assert_string_equal(last->name, expected[i].last_name);
        assert_string_equal(last->gguf_name, expected[i].last_gguf);
        assert_int_equal(last->rows, expected[i].last_rows);
    }
    fc_params_free(&p);
}

/* One flat buffer: ascending, aligned, without overlap; what decays in front. */
static void layout(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_model_config c = small_config();
    struct fc_params p;
    assert_int_equal(fc_params_build(&p, &c, &err), FC_OK);
    size_t end = 0, weights = 0;
    for (size_t i = 0; i < p.n; i++) {
        const struct fc_param *q = &p.items[i];
        assert_int_equal(q->offset % 64, 0);
        assert_true(q->offset >= end && q->offset < end + 64);
        assert_true(q->decay ? q->offset + q->count <= p.n_decay : q->offset >= p.n_decay);
        size_t rows = 0;
        for (size_t k = 0; k < q->n_parts; k++)
            rows += q->parts[k].rows;
        assert_int_equal(rows, q->is_vector ? q->cols : q->rows);
        assert_ptr_equal(fc_params_find(&p, q->kind, q->layer), q);
        end = q->offset + q->count;
        weights += q->count;
    }
    assert_true(p.total >= end && p.total < end + 64 && p.total % 64 == 0);
    assert_int_equal(p.n_weights, weights);
    /* V C twice, then per layer q, k, v, o, gate, up, down and two norms, and the last norm. */
    assert_int_equal(weights, 2 * 101 * 40 + 3 * (100 * 40 + 60 * 40 + 3 * 72 * 40 + 80) + 40);
    fc_params_free(&p);
    fc_params_free(&p); /* twice is fine */
}

static void absent(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_model_config c = small_config();
    struct fc_params p;
    c.tied = true;
    assert_int_equal(fc_params_build(&p, &c, &err), FC_OK);
    assert_int_equal(p.n, 2 + 6 * 3);
    assert_null(fc_params_find(&p, FC_P_HEAD, 0));
    assert_null(fc_params_find(&p, FC_P_QKV_BIAS, 0));
    assert_null(fc_params_find(&p, FC_P_OUT_BIAS, 0));
    assert_null(fc_params_find(&p, FC_P_GATE_UP_BIAS, 2));
    assert_null(fc_params_find(&p, FC_P_QKV, 3));
    assert_null(fc_params_find(&p, FC_P_EMBED, 1));
    assert_null(fc_params_find(&p, FC_P_KINDS, 0));
    fc_params_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes), cmocka_unit_test(layout),
                                       cmocka_unit_test(absent)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
