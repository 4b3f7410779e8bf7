/* The files between the stages: prompts (P.jsonl) and rationales (R.jsonl). */
#ifndef FC_MODELS_RECORDS_H
#define FC_MODELS_RECORDS_H

#include "base/error.h"
#include "models/chat.h"

#include <stddef.h>

/* A prompt: {"id", "prompt"} is one user message, {"id", "messages": [{"role", "content"}]} a
 * conversation whose reply is wanted. */
struct fc_prompt {
    char *id;
    struct fc_message *messages; /* contents owned by the record */
    size_t n_messages;
};

struct fc_prompts {
    struct fc_prompt *items;
    size_t n, capacity;
};

/* Ids must be unique; a record without one gets "line-N". */
enum fc_code fc_prompts_read(struct fc_prompts *p, const char *path, struct fc_error *err);
void fc_prompts_free(struct fc_prompts *p);

/* A text for an id: {"id", "text"}; other fields are passed over. */
struct fc_id_text {
    char *id, *text;
};

struct fc_id_texts {
    struct fc_id_text *items; /* sorted by id */
    size_t n, capacity;
};

enum fc_code fc_id_texts_read(struct fc_id_texts *t, const char *path, struct fc_error *err);
/* The text of an id, NULL if there is none. */
const char *fc_id_texts_find(const struct fc_id_texts *t, const char *id);
void fc_id_texts_free(struct fc_id_texts *t);

#endif
