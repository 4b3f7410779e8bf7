/* One request on its way through a generator: its tokens, its text, and when it ends. Private to
 * engine/generate.c. */
#ifndef FC_ENGINE_SEQUENCE_H
#define FC_ENGINE_SEQUENCE_H

#include "engine/generate.h"

/* A place in the batch, with the memory that its sequence needs; used again by the next one. */
struct fc_slot {
    int32_t *table; /* page ids, room for the longest sequence */
    struct fc_text text;
};

struct fc_sequence {
    struct fc_sequence *next; /* in the queue */
    uint64_t id;
    int32_t *ids; /* prompt, then what was generated; room for all of it */
    size_t n_prompt, n_ids, max_tokens;
    struct fc_sampling how; /* position: the index of the next generated token */
    char **stops;
    size_t n_stops, longest_stop;
    bool ignore_eos, cancelled;

    bool finished;
    enum fc_finish finish;

    /* While it has a slot. */
    struct fc_slot *slot;
    size_t n_pages;  /* in slot->table */
    size_t n_shared; /* the first pages, in the prefix tree */
    size_t n_done;   /* tokens in the cache, or in the pass being put together */
    struct fc_decode_state decoding;
};

/* A copy of the request, not yet running. NULL with FC_ERR_MEMORY. */
struct fc_sequence *fc_sequence_create(const struct fc_request *request, struct fc_error *err);
void fc_sequence_free(struct fc_sequence *q); /* NULL is fine; the slot is not its own */

/* Takes the next token: appends it and its text, looks for stop texts, and sets finished and finish
 * when this was the last one. `is_end`: it is one of the end tokens, which is not appended. */
void fc_sequence_accept(struct fc_sequence *q, const struct fc_tokenizer *tok, int32_t token,
                        bool is_end);

/* Ends it from outside; text that is still uncertain is flushed (tok NULL: dropped). */
void fc_sequence_finish(struct fc_sequence *q, const struct fc_tokenizer *tok,
                        enum fc_finish finish);

#endif
