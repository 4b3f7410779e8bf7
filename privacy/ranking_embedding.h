/* Ranking E (FedCoT-E): outputs by cosine distance to the private unit, in the input embeddings of
 * the client's small model. A unit outside V, or one of several tokens, is the mean of its sub-word
 * embeddings, and so is an entry of V.
 *
 * Input embeddings share a mean and a first direction that mostly tell frequency; with them in, a
 * few rare words are near everything (SmolLM2: one is among the 21 nearest of 2,551 of 8,000 words;
 * without them no word is of more than 95). So both, as found on V, are taken out first: "all but
 * the top" with one direction (Mu and Viswanath, ICLR 2018).
 *
 * Each distinct unit of a batch of documents is ranked once: blocks of FC_RANK_BLOCK units go
 * through one GEMM with the embeddings of V and one selection, on the device. Memory is
 * (|V| + FC_RANK_BLOCK) C + FC_RANK_BLOCK |V| floats on the device and depth indices for each
 * distinct unit of the batch on the host; there is no |V| x |V| table. */
#ifndef FC_PRIVACY_RANKING_EMBEDDING_H
#define FC_PRIVACY_RANKING_EMBEDDING_H

#include "engine/device.h"
#include "privacy/ranking.h"
#include "privacy/vocabulary.h"

#define FC_RANK_BLOCK 256

/* table: [n_rows, width] of dtype on dev, row t the embedding of token t; the tokenizer's ids are
 * checked against n_rows. Everything is borrowed and outlives the ranking, except table, which is
 * read by open and by prepare: it may change in between. Close with (*r)->type->close(*r). */
enum fc_code fc_ranking_embedding_open(struct fc_ranking **r, struct fc_device *dev,
                                       const void *table, enum fc_dtype dtype, size_t n_rows,
                                       size_t width, const struct fc_tokenizer *tok,
                                       const struct fc_vocabulary *vocabulary,
                                       struct fc_error *err);

#endif
