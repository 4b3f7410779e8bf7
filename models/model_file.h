/* Model files: a Hugging Face directory (config.json, tokenizer.json, model.safetensors or shards
 * with an index) or one GGUF file, behind one reader. */
#ifndef FC_MODELS_MODEL_FILE_H
#define FC_MODELS_MODEL_FILE_H

#include "base/dtype.h"
#include "models/params.h"

struct fc_model_file;
struct fc_gguf;
struct fc_weight_format;

/* Opens and checks everything but the weights' values: headers, shapes against the config, offsets
 * against the file's length. Maps the files, reads no weights yet. path: a folder with config.json
 * and safetensors, or a GGUF file. FC_ERR_IO, FC_ERR_INPUT naming file, tensor, expected and found
 * shape, FC_ERR_UNSUPPORTED for a family, feature or number format that this build lacks. */
enum fc_code fc_model_file_open(struct fc_model_file **file, const char *path,
                                struct fc_error *err);
void fc_model_file_close(struct fc_model_file *file); /* NULL is fine */

const char *fc_model_file_path(const struct fc_model_file *file);
const struct fc_model_config *fc_model_file_config(const struct fc_model_file *file);
const struct fc_params *fc_model_file_params(const struct fc_model_file *file);
/* "safetensors BF16", "gguf Q4_1": what most of the weights are stored as. */
const char *fc_model_file_format(const struct fc_model_file *file);
/* The open GGUF, for the tokenizer in its metadata; NULL for a directory. */
const struct fc_gguf *fc_model_file_gguf(const struct fc_model_file *file);

/* Reads one tensor of the engine into host memory: parts joined, dequantised, GGUF's row
 * permutation of Llama q and k undone, converted to dtype (nearest even). dst: p->count elements.
 * FC_ERR_INPUT for weights that fp16 cannot hold. */
enum fc_code fc_model_file_read(const struct fc_model_file *file, const struct fc_param *p,
                                enum fc_dtype dtype, void *dst, struct fc_error *err);

/* The format (base/dequant.h) in which all parts of the tensor are stored; NULL if they differ. */
const struct fc_weight_format *fc_model_file_stored(const struct fc_model_file *file,
                                                    const struct fc_param *p);
/* Reads a matrix as it is stored: its parts' rows of blocks joined, GGUF's row permutation undone.
 * dst: p->rows rows of p->cols / block * bytes of its fc_model_file_stored, which there must be. */
enum fc_code fc_model_file_read_blocks(const struct fc_model_file *file, const struct fc_param *p,
                                       void *dst, struct fc_error *err);

/* Writes config.json, generation_config.json and model.safetensors into an existing folder, from a
 * flat buffer in the table's layout (host memory; its dtype is also the one in the file). Every
 * file appears whole or not at all. The tokenizer is written by fc_tokenizer_save. */
enum fc_code fc_model_save(const char *folder, const struct fc_model_config *config,
                           const struct fc_params *params, enum fc_dtype dtype, const void *weights,
                           struct fc_error *err);

#endif
