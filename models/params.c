#include "models/params.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* Sizes that shapes are made of. */
enum size_kind { NONE, VOCAB, EMBD, HEADS, KV_HEADS, FF };

static size_t size_of(const struct fc_model_config *c, enum size_kind kind)
{
    switch (kind) {
    case VOCAB:
        return c->n_vocab;
    case EMBD:
        return c->n_embd;
    case HEADS:
        return c->n_head * c->head_size;
    case KV_HEADS:
        return c->n_kv_head * c->head_size;
    case FF:
        return c->n_ff;
    default:
        return 0;
    }
}

/* The tensors of the Llama-like families, in the order of the flat buffer within a layer. A layer's
 * names are prefixed with "model.layers.N." and "blk.N.". cols NONE: a vector. */
static const struct spec {
    enum fc_param_kind kind;
    bool per_layer;
    enum fc_split split;
    enum size_kind cols;
    struct {
        const char *name, *gguf_name;
        enum size_kind rows;
    } parts[3];
} specs[] = {
    {FC_P_EMBED,
     false,
     FC_SPLIT_ROWS,
     EMBD,
     {{"model.embed_tokens.weight", "token_embd.weight", VOCAB}}},
    {FC_P_HEAD, false, FC_SPLIT_ROWS, EMBD, {{"lm_head.weight", "output.weight", VOCAB}}},
    {FC_P_QKV,
     true,
     FC_SPLIT_HEADS,
     EMBD,
     {{"self_attn.q_proj.weight", "attn_q.weight", HEADS},
      {"self_attn.k_proj.weight", "attn_k.weight", KV_HEADS},
      {"self_attn.v_proj.weight", "attn_v.weight", KV_HEADS}}},
    {FC_P_OUT,
     true,
     FC_SPLIT_COLUMNS,
     HEADS,
     {{"self_attn.o_proj.weight", "attn_output.weight", EMBD}}},
    {FC_P_GATE_UP,
     true,
     FC_SPLIT_ROWS,
     EMBD,
     {{"mlp.gate_proj.weight", "ffn_gate.weight", FF},
      {"mlp.up_proj.weight", "ffn_up.weight", FF}}},
    {FC_P_DOWN, true, FC_SPLIT_COLUMNS, FF, {{"mlp.down_proj.weight", "ffn_down.weight", EMBD}}},
    {FC_P_NORM1, true, FC_SPLIT_NONE, NONE, {{"input_layernorm.weight", "attn_norm.weight", EMBD}}},
    {FC_P_QKV_BIAS,
     true,
     FC_SPLIT_HEADS,
     NONE,
     {{"self_attn.q_proj.bias", "attn_q.bias", HEADS},
      {"self_attn.k_proj.bias", "attn_k.bias", KV_HEADS},
      {"self_attn.v_proj.bias", "attn_v.bias", KV_HEADS}}},
    {FC_P_OUT_BIAS,
     true,
     FC_SPLIT_NONE,
     NONE,
     {{"self_attn.o_proj.bias", "attn_output.bias", EMBD}}},
    {FC_P_NORM2,
     true,
     FC_SPLIT_NONE,
     NONE,
     {{"post_attention_layernorm.weight", "ffn_norm.weight", EMBD}}},
    {FC_P_GATE_UP_BIAS,
     true,
     FC_SPLIT_ROWS,
     NONE,
     {{"mlp.gate_proj.bias", "ffn_gate.bias", FF}, {"mlp.up_proj.bias", "ffn_up.bias", FF}}},
    {FC_P_DOWN_BIAS, true, FC_SPLIT_NONE, NONE, {{"mlp.down_proj.bias", "ffn_down.bias", EMBD}}},
    {FC_P_NORM_FINAL,
     false,
     FC_SPLIT_NONE,
     NONE,
     {{"model.norm.weight", "output_norm.weight", EMBD}}},
};
#define N_SPECS (sizeof specs / sizeof *specs)

static bool present(const struct fc_model_config *c, enum fc_param_kind kind)
{
    switch (kind) {
    case FC_P_HEAD:
        return !c->tied;
    case FC_P_QKV_BIAS:
        return c->qkv_bias;
    case FC_P_OUT_BIAS:
        return c->out_bias;
    case FC_P_GATE_UP_BIAS:
    case FC_P_DOWN_BIAS:
        return c->mlp_bias;
    default:
        return true;
    }
}

/* The next place in the flat buffer. */
static void place(struct fc_params *p, struct fc_param *item)
{
    item->offset = p->total;
    p->total += (item->count + 63) / 64 * 64;
}

static void add(struct fc_params *p, const struct fc_model_config *c, const struct spec *spec,
                size_t layer)
{
    struct fc_param *item = &p->items[p->n];
    char prefix[32] = "", gguf_prefix[32] = "";
    if (spec->per_layer) {
        snprintf(prefix, sizeof prefix, "model.layers.%zu.", layer);
        snprintf(gguf_prefix, sizeof gguf_prefix, "blk.%zu.", layer);
    }
    item->kind = spec->kind;
    item->layer = layer;
    item->split = spec->split;
    item->is_vector = spec->cols == NONE;
    item->decay = !item->is_vector;
    size_t rows = 0;
    for (size_t i = 0; i < 3 && spec->parts[i].name; i++, item->n_parts++) {
        struct fc_param_part *part = &item->parts[i];
        snprintf(part->name, sizeof part->name, "%s%s", prefix, spec->parts[i].name);
        snprintf(part->gguf_name, sizeof part->gguf_name, "%s%s", gguf_prefix,
                 spec->parts[i].gguf_name);
        part->rows = size_of(c, spec->parts[i].rows);
        rows += part->rows;
    }
    item->rows = item->is_vector ? 1 : rows;
    item->cols = item->is_vector ? rows : size_of(c, spec->cols);
    item->count = item->rows * item->cols;
    place(p, item);
    p->n_weights += item->count;
    p->lookup[(size_t)spec->kind * p->n_layer + layer] = (int32_t)p->n;
    p->n++;
}

enum fc_code fc_params_build(struct fc_params *p, const struct fc_model_config *c,
                             struct fc_error *err)
{
    *p = (struct fc_params){.n_layer = c->n_layer};
    p->items = fc_alloc(N_SPECS * c->n_layer, sizeof *p->items, "parameter table", err);
    p->lookup = fc_alloc(FC_P_KINDS * c->n_layer, sizeof *p->lookup, "parameter table", err);
    if (!p->items || !p->lookup) {
        fc_params_free(p);
        return FC_ERR_MEMORY;
    }
    memset(p->lookup, 0xff, FC_P_KINDS * c->n_layer * sizeof *p->lookup); /* -1: none */
    /* First all that decays, then the rest; within each, the tensors of the whole model, then layer
     * after layer. */
    for (int decay = 1; decay >= 0; decay--) {
        for (size_t i = 0; i < N_SPECS; i++)
            if (!specs[i].per_layer && (specs[i].cols != NONE) == decay &&
                present(c, specs[i].kind))
                add(p, c, &specs[i], 0);
        for (size_t layer = 0; layer < c->n_layer; layer++)
            for (size_t i = 0; i < N_SPECS; i++)
                if (specs[i].per_layer && (specs[i].cols != NONE) == decay &&
                    present(c, specs[i].kind))
                    add(p, c, &specs[i], layer);
        if (decay)
            p->n_decay = p->total;
    }
    return FC_OK;
}

void fc_params_leave_out(struct fc_params *p, const bool *out)
{
    p->total = p->n_decay = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (out[i])
            p->items[i].offset = FC_NOT_IN_BUFFER;
        else
            place(p, &p->items[i]);
        if (p->items[i].decay) /* these come first */
            p->n_decay = p->total;
    }
}

void fc_params_free(struct fc_params *p)
{
    free(p->items);
    free(p->lookup);
    *p = (struct fc_params){0};
}

const struct fc_param *fc_params_find(const struct fc_params *p, enum fc_param_kind kind,
                                      size_t layer)
{
    if ((size_t)kind >= FC_P_KINDS || layer >= p->n_layer)
        return NULL;
    int32_t i = p->lookup[(size_t)kind * p->n_layer + layer];
    return i < 0 ? NULL : &p->items[i];
}
