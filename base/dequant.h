/* Number formats of weights in files, and their expansion to fp32.
 *
 * A format stores blocks: `block` elements in `bytes` bytes. The plain formats (F32, F16, BF16)
 * have blocks of one element, so one table serves GGUF and safetensors. Values are bit-identical to
 * gguf.quants.dequantize of the PyPI package `gguf`. */
#ifndef FC_BASE_DEQUANT_H
#define FC_BASE_DEQUANT_H

#include <stddef.h>
#include <stdint.h>

/* Type numbers as GGUF stores them. */
enum fc_ggml_type {
    FC_GGML_F32 = 0,
    FC_GGML_F16 = 1,
    FC_GGML_Q4_0 = 2,
    FC_GGML_Q4_1 = 3,
    FC_GGML_Q5_0 = 6,
    FC_GGML_Q5_1 = 7,
    FC_GGML_Q8_0 = 8,
    FC_GGML_Q2_K = 10,
    FC_GGML_Q3_K = 11,
    FC_GGML_Q4_K = 12,
    FC_GGML_Q5_K = 13,
    FC_GGML_Q6_K = 14,
    FC_GGML_BF16 = 30
};

struct fc_weight_format {
    uint32_t type;
    const char *name; /* "Q4_1" */
    size_t block, bytes;
    /* out[n * block] from n blocks at `in` (any alignment). */
    void (*expand)(float *out, const unsigned char *in, size_t n);
};

/* The most elements that a block of any format has. */
#define FC_MAX_BLOCK 256

/* NULL for a type that this build does not know. */
const struct fc_weight_format *fc_weight_format(uint32_t type);
/* By name ("F32", "BF16", "Q6_K"), NULL likewise. */
const struct fc_weight_format *fc_weight_format_by_name(const char *name);
/* The i-th of the table, NULL past its end: for messages and tests. */
const struct fc_weight_format *fc_weight_format_at(size_t i);

#endif
