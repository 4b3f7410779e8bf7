/* Safetensors files, read through memory maps: an 8-byte little-endian header length, a JSON header
 * (name -> dtype, shape, data_offsets), then the tensors' data without gaps.
 * Source: https://github.com/huggingface/safetensors (README, "Format"). */
#ifndef FC_MODELS_SAFETENSORS_H
#define FC_MODELS_SAFETENSORS_H

#include "base/error.h"

#include <stddef.h>

#define FC_SAFETENSOR_DIMS 8

struct fc_safetensor {
    const char *name;
    char dtype[16];                  /* as in the file: "F32", "BF16", "I32", ... */
    size_t n_dims;                   /* 0 for a scalar */
    size_t dims[FC_SAFETENSOR_DIMS]; /* outermost first; unused ones are 1 */
    const unsigned char *data;       /* little-endian, of any alignment; valid until close */
    size_t bytes;                    /* checked against shape and dtype */
};

struct fc_safetensors;

/* Opens one file. Everything is checked here: the header (at most 100 MB), every shape, dtype and
 * offset, overlaps and gaps. Errors: FC_ERR_IO, FC_ERR_INPUT naming file and tensor. */
enum fc_code fc_safetensors_open(struct fc_safetensors **st, const char *path,
                                 struct fc_error *err);
/* Opens a model's folder: model.safetensors, or every shard that model.safetensors.index.json
 * names. A tensor that the index places in a shard which lacks it is an error. */
enum fc_code fc_safetensors_open_folder(struct fc_safetensors **st, const char *folder,
                                        struct fc_error *err);
void fc_safetensors_close(struct fc_safetensors *st); /* NULL is fine */

/* All tensors of all files, sorted by name. */
size_t fc_safetensors_list(const struct fc_safetensors *st, const struct fc_safetensor **tensors);
/* NULL if there is none of this name. */
const struct fc_safetensor *fc_safetensors_find(const struct fc_safetensors *st, const char *name);

#endif
