/* The inference pass: a set of rows goes through the model once, reading and writing a paged KV
 * cache. A row is one token of some sequence: the newest token of one that decodes, or one of many
 * tokens of a prompt; the pass does not know the difference, which is what makes continuous
 * batching and chunked prefill one thing.
 *
 * Use: begin, add rows, keep those whose logits are wanted, run, take the logits in slices, sync.
 *
 *     fc_decoder_begin(d);
 *     size_t row = fc_decoder_add(d, token, position, table);
 *     fc_decoder_keep(d, row);
 *     fc_decoder_run(d);
 *     const float *logits = fc_decoder_logits(d, 0, 1);
 *
 * Every row's result depends on its own sequence only, to the bit: gemm_packed, paged_attention and
 * the row-wise kernels promise it. Nothing is allocated after creation. */
#ifndef FC_ENGINE_DECODER_H
#define FC_ENGINE_DECODER_H

#include "engine/kv_cache.h"

/* Rows per block of gemm_packed: a pass costs what its rows rounded up to this cost. */
#define FC_ROW_BLOCK 32

#define FC_NO_ROW ((size_t)-1)

struct fc_decoder;

struct fc_decoder_limits {
    size_t rows;          /* of a pass */
    size_t logits;        /* rows of logits at once (rows * vocabulary floats of memory) */
    size_t table_entries; /* rows times the widest page table of a pass; 0: enough for every pass */
};

/* Model (packed, fc_model_pack) and cache outlive the decoder. Its memory is counted as
 * FC_MEM_ACTIVATIONS and FC_MEM_STAGING. */
enum fc_code fc_decoder_create(struct fc_decoder **d, struct fc_model *model,
                               struct fc_kv_cache *cache, const struct fc_decoder_limits *limits,
                               struct fc_error *err);
void fc_decoder_free(struct fc_decoder *d); /* NULL is fine */

/* Forgets the rows of the last pass, whose inputs the device may still read: they are staged. */
void fc_decoder_begin(struct fc_decoder *d);
size_t fc_decoder_rows(const struct fc_decoder *d);
/* Adds a row; its key and value go to the cache at `position` of the pages of `table` (host memory,
 * page ids, valid until run), and it sees positions 0 .. position, which are in the cache or in
 * this pass. token < n_vocab and position < n_ctx are the caller's to check. Returns the row's
 * index; FC_NO_ROW when the pass is full. */
size_t fc_decoder_add(struct fc_decoder *d, int32_t token, size_t position, const int32_t *table);
/* Asks for the logits of a row, at most once a row; returns its index among the kept. */
size_t fc_decoder_keep(struct fc_decoder *d, size_t row);
size_t fc_decoder_kept(const struct fc_decoder *d);
/* Puts the whole pass on the model's stream (a decode step as one recording, where the back end
 * records). Errors stay in the stream (sync). */
void fc_decoder_run(struct fc_decoder *d);
/* Logits [n, V] fp32 of the kept rows first .. first+n-1, n <= limits.logits. Device memory, valid
 * until the next call. */
float *fc_decoder_logits(struct fc_decoder *d, size_t first, size_t n);
/* Passes so far that were launched as recordings (engine/graphs.h): those of which every row was
 * kept, in order, where the back end records. Their rows are filled up to one of a few shapes. */
size_t fc_decoder_recorded(const struct fc_decoder *d);

#endif
