/* A model on a device: its weights in one flat buffer in the layout of the parameter table, and,
 * for inference, packed copies of its matrices. */
#ifndef FC_ENGINE_MODEL_H
#define FC_ENGINE_MODEL_H

#include "engine/device.h"
#include "models/model_file.h"

struct fc_model {
    struct fc_device *dev; /* borrowed; outlives the model */
    struct fc_model_config config;
    struct fc_params params;
    enum fc_dtype dtype;
    void *weights;             /* [params.total] dtype, on the device */
    float *rope;               /* [n_ctx_rope, HS]: HS/2 cosines, then HS/2 sines */
    size_t n_ctx;              /* positions that `rope` covers */
    struct fc_packed **packed; /* one per parameter, NULL for vectors; or NULL */
    size_t packed_bytes;
    struct fc_quantised **kept; /* one per parameter, NULL where the flat buffer holds it; or NULL */
    size_t kept_bytes;
    size_t packings; /* times packed: what was recorded with the weights of another one is stale */
    struct fc_heads heads;
};

/* Loads all weights, converted to dtype. max_ctx limits the positions (0: the config's own).
 * FC_ERR_UNSUPPORTED names a feature of the config that the engine lacks, or a dtype (fp16) that
 * the device lacks. */
enum fc_code fc_model_load(struct fc_model *m, struct fc_device *dev,
                           const struct fc_model_file *file, enum fc_dtype dtype, size_t max_ctx,
                           struct fc_error *err);
/* The same, but matrices that the file stores in Q4_0, Q4_1 or Q8_0 stay so, outside the flat
 * buffer: about a third or half of bf16's memory, weights as exact as the file's. Such a model
 * decodes and is neither trained nor saved; fc_model_pack packs the matrices that are left.
 * FC_ERR_UNSUPPORTED where the file has no such matrix. */
enum fc_code fc_model_load_quantised(struct fc_model *m, struct fc_device *dev,
                                     const struct fc_model_file *file, enum fc_dtype dtype,
                                     size_t max_ctx, struct fc_error *err);
/* The same model with all weights zero: for tests and for loading a checkpoint into. */
enum fc_code fc_model_create(struct fc_model *m, struct fc_device *dev,
                             const struct fc_model_config *config, enum fc_dtype dtype,
                             size_t max_ctx, struct fc_error *err);
void fc_model_free(struct fc_model *m);

/* Packs every matrix for gemm_packed (again, after training changed the weights). */
enum fc_code fc_model_pack(struct fc_model *m, struct fc_error *err);
void fc_model_unpack(struct fc_model *m);

/* The weights of one tensor on the device; NULL if the model has none of this kind, or keeps it
 * quantised. When tied, FC_P_HEAD gives the embedding. */
void *fc_model_weight(const struct fc_model *m, enum fc_param_kind kind, size_t layer);
struct fc_packed *fc_model_packed(const struct fc_model *m, enum fc_param_kind kind, size_t layer);

/* y[rows, ...] (y_type) = x W^T for a matrix of a packed model; x is of the model's dtype. */
void fc_model_multiply(const struct fc_model *m, void *y, enum fc_dtype y_type, const void *x,
                       enum fc_param_kind kind, size_t layer, size_t rows);
/* x[n, C] = the embeddings of ids[n] (device memory). */
void fc_model_embed(const struct fc_model *m, void *x, const int32_t *ids, size_t n);

#endif
