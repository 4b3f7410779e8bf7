/* The paged KV cache: who holds which page, and which pages hold a known prefix.
 *
 * One page id stands for page_size tokens in every layer. A sequence holds a list of pages, its
 * page table. Pages whose tokens are known when a sequence is admitted (whole blocks of its prompt)
 * enter a prefix tree: the node below `parent` with these very tokens. A later sequence that starts
 * with the same blocks gets the same pages and computes nothing for them. Identity is exact: the
 * hash only finds candidates, tokens and parent are compared.
 *
 * A page enters the tree before it is computed, so that sequences admitted together share it too.
 * Whoever comes to a page that is not filled computes it. Sequences that are served in the order of
 * their admission come to a filled one unless they are the first; should two fill one page, they
 * write the same bits.
 *
 * Pages that nobody holds stay in the tree, least recently used first out. Whoever holds a page
 * holds its parent too and releases children first, so the oldest such page never has a child that
 * is still cached: eviction cannot leave a child whose parent id means other tokens.
 *
 * The paged cache is that of Kwon et al., "Efficient Memory Management for Large Language Model
 * Serving with PagedAttention", SOSP 2023; the prefix tree is that of Zheng et al., "SGLang:
 * Efficient Execution of Structured Language Model Programs", 2024. */
#ifndef FC_ENGINE_KV_CACHE_H
#define FC_ENGINE_KV_CACHE_H

#include "engine/model.h"

struct fc_kv_cache;

/* Device memory for n_pages pages (and a spare one) of page_size tokens in every layer of the
 * model, counted as FC_MEM_CACHE. The model is borrowed. FC_ERR_USAGE for sizes of zero or beyond
 * 31 bits of tokens. */
enum fc_code fc_kv_cache_create(struct fc_kv_cache **cache, const struct fc_model *model,
                                size_t page_size, size_t n_pages, struct fc_error *err);
void fc_kv_cache_free(struct fc_kv_cache *cache); /* NULL is fine */

/* The keys and values of one layer, as kernels take them. */
const struct fc_pages *fc_kv_cache_layer(const struct fc_kv_cache *cache, size_t layer);
size_t fc_kv_cache_page_size(const struct fc_kv_cache *cache);
size_t fc_kv_cache_pages(const struct fc_kv_cache *cache);
/* A page that no sequence ever holds: rows that only fill up a pass write and read it. */
int32_t fc_kv_cache_spare(const struct fc_kv_cache *cache);
/* Pages that nobody holds: never used, or kept for their prefix only. */
size_t fc_kv_cache_available(const struct fc_kv_cache *cache);

/* Takes n pages for one sequence into table[n]. The first n_shared pages stand for whole blocks of
 * tokens[n_shared * page_size] and are shared with every sequence that starts alike; the others are
 * its own. False, with nothing taken, when the pages that nobody holds do not suffice. */
bool fc_kv_cache_take(struct fc_kv_cache *cache, const int32_t *tokens, size_t n_shared, size_t n,
                      int32_t *table);
/* Gives a table back. */
void fc_kv_cache_give(struct fc_kv_cache *cache, const int32_t *table, size_t n);

/* Whether a shared page is computed. Its holder calls fill once all its tokens are in the cache or
 * in the pass that is being put together: every layer writes the keys of all rows before any row
 * reads them, so rows of one pass may share pages. */
bool fc_kv_cache_filled(const struct fc_kv_cache *cache, int32_t page);
void fc_kv_cache_fill(struct fc_kv_cache *cache, int32_t page);

/* Empties the prefix tree: after the weights changed, or when a pass failed and left pages that
 * were announced as filled. Pages in use stay with their holders. */
void fc_kv_cache_forget(struct fc_kv_cache *cache);

#endif
