#define _GNU_SOURCE /* memmem */

#include "engine/sequence.h"

#include "base/memory.h"

#include <string.h>

static bool copy_stops(struct fc_sequence *q, const struct fc_request *r, struct fc_error *err)
{
    q->stops = fc_alloc(r->n_stops, sizeof *q->stops, "stop texts", err);
    if (!q->stops)
        return false;
    for (; q->n_stops < r->n_stops; q->n_stops++) {
        size_t len = strlen(r->stops[q->n_stops]);
        q->stops[q->n_stops] = fc_strndup(r->stops[q->n_stops], len, err);
        if (!q->stops[q->n_stops])
            return false;
        if (len > q->longest_stop)
            q->longest_stop = len;
    }
    return true;
}

struct fc_sequence *fc_sequence_create(const struct fc_request *r, struct fc_error *err)
{
    struct fc_sequence *q = fc_alloc(1, sizeof *q, "request", err);
    if (!q)
        return NULL;
    q->id = r->id;
    q->n_prompt = q->n_ids = r->n_prompt;
    q->max_tokens = r->max_tokens;
    q->ignore_eos = r->ignore_eos;
    q->how = (struct fc_sampling){.temperature = r->temperature,
                                  .top_k = r->top_k,
                                  .top_p = r->top_p > 0 ? r->top_p : 1,
                                  .seed = r->seed};
    q->ids = fc_alloc(r->n_prompt + r->max_tokens, sizeof *q->ids, "tokens of a request", err);
    if (!q->ids || !copy_stops(q, r, err)) {
        fc_sequence_free(q);
        return NULL;
    }
    memcpy(q->ids, r->prompt, r->n_prompt * sizeof *q->ids);
    return q;
}

void fc_sequence_free(struct fc_sequence *q)
{
    if (!q)
        return;
    for (size_t i = 0; i < q->n_stops; i++)
        free(q->stops[i]);
    free(q->stops);
    free(q->ids);
    free(q);
}

static void finish(struct fc_sequence *q, enum fc_finish how)
{
    q->finished = true;
    q->finish = how;
}

void fc_sequence_finish(struct fc_sequence *q, const struct fc_tokenizer *tok, enum fc_finish how)
{
    finish(q, how);
    if (tok && fc_decode_flush(&q->decoding, &q->slot->text, NULL) != FC_OK)
        finish(q, FC_FINISH_FAILED);
}

/* Cuts the text before the first stop text that ends in its part from `from` on. */
static void look_for_stops(struct fc_sequence *q, size_t from)
{
    struct fc_text *text = &q->slot->text;
    size_t cut = text->len;
    if (from >= text->len)
        return; /* this token added nothing */
    from = from > q->longest_stop ? from - q->longest_stop : 0;
    for (size_t i = 0; i < q->n_stops; i++) {
        const char *at =
            memmem(text->data + from, text->len - from, q->stops[i], strlen(q->stops[i]));
        if (at && (size_t)(at - text->data) < cut)
            cut = (size_t)(at - text->data);
    }
    if (cut == text->len)
        return;
    text->len = cut;
    text->data[cut] = '\0';
    finish(q, FC_FINISH_STOP);
}

void fc_sequence_accept(struct fc_sequence *q, const struct fc_tokenizer *tok, int32_t token,
                        bool is_end)
{
    struct fc_text *text = &q->slot->text;
    size_t before = text->len;
    enum fc_code code = FC_OK;
    if (is_end) {
        finish(q, FC_FINISH_STOP);
    } else {
        q->ids[q->n_ids++] = token;
        if (++q->how.position == q->max_tokens)
            finish(q, FC_FINISH_LENGTH);
        /* A vocabulary padded beyond the tokenizer's has ids without text. */
        if (tok && (size_t)token < fc_tokenizer_size(tok))
            code = fc_decode_next(tok, &q->decoding, token, text, NULL);
    }
    if (code == FC_OK && tok && q->finished)
        code = fc_decode_flush(&q->decoding, text, NULL);
    if (code != FC_OK || fc_text_check(text, NULL) != FC_OK)
        finish(q, FC_FINISH_FAILED);
    else if (q->n_stops)
        look_for_stops(q, before);
}
