/* The parameter table of a model: for each tensor of the engine its name, shape, place in one flat
 * buffer, split over ranks, and the tensors of a Hugging Face file that it is made of. Loading,
 * saving, the optimizer and (later) every kind of parallelism read this one table. */
#ifndef FC_MODELS_PARAMS_H
#define FC_MODELS_PARAMS_H

#include "models/config.h"

/* What the tensor is, per layer or for the whole model. */
enum fc_param_kind {
    FC_P_EMBED,    /* [V, C]; also the output projection when tied */
    FC_P_NORM1,    /* [C] before attention */
    FC_P_QKV,      /* [Q, C]: q, k and v stacked by rows */
    FC_P_QKV_BIAS, /* [Q] */
    FC_P_OUT,      /* [C, NH HS] */
    FC_P_OUT_BIAS, /* [C] */
    FC_P_NORM2,    /* [C] before the feed-forward block */
    FC_P_GATE_UP,  /* [2F, C]: gate and up stacked by rows ([F, C] when not gated) */
    FC_P_GATE_UP_BIAS,
    FC_P_DOWN, /* [C, F] */
    FC_P_DOWN_BIAS,
    FC_P_NORM_FINAL, /* [C] */
    FC_P_HEAD,       /* [V, C], absent when tied */
    FC_P_KINDS
};

/* How tensor parallelism cuts it. */
enum fc_split { FC_SPLIT_NONE, FC_SPLIT_ROWS, FC_SPLIT_COLUMNS, FC_SPLIT_HEADS };

/* One source tensor: `rows` rows of the engine's tensor come from it. */
struct fc_param_part {
    char name[96];      /* in a Hugging Face file, "model.layers.3.self_attn.q_proj.weight" */
    char gguf_name[48]; /* in a GGUF file, "blk.3.attn_q.weight" */
    size_t rows;
};

struct fc_param {
    enum fc_param_kind kind;
    size_t layer;      /* 0 for tensors of the whole model */
    size_t rows, cols; /* vectors are [1, n]... rows = 1, cols = n, is_vector = true */
    bool is_vector;
    bool decay; /* weight decay applies: matrices yes, norms and biases no */
    enum fc_split split;
    size_t offset, count; /* elements in the flat buffer; offsets are multiples of 64, or
                           * FC_NOT_IN_BUFFER */
    struct fc_param_part parts[3];
    size_t n_parts; /* parts of a vector split its cols: part.rows counts elements then */
};

#define FC_NOT_IN_BUFFER SIZE_MAX

struct fc_params {
    struct fc_param *items; /* decayed tensors first, so that they are one flat range */
    size_t n;
    size_t total;     /* elements of the flat buffer, padding included */
    size_t n_decay;   /* elements of the leading range with decay */
    size_t n_weights; /* elements without padding: the "135M" of a model's name */
    size_t n_layer;
    int32_t *lookup; /* [kind * n_layer + layer]: index in items, -1 if there is none */
};

/* Builds the table; `config` has passed fc_config_check. Release with fc_params_free. */
enum fc_code fc_params_build(struct fc_params *p, const struct fc_model_config *config,
                             struct fc_error *err);
void fc_params_free(struct fc_params *p);

/* Takes the tensors i with out[i] from the flat buffer; the others move up. For weights that lie
 * elsewhere: such a table serves inference only. */
void fc_params_leave_out(struct fc_params *p, const bool *out);

/* The tensor of this kind (and layer), NULL if the model has none. */
const struct fc_param *fc_params_find(const struct fc_params *p, enum fc_param_kind kind,
                                      size_t layer);

#endif
