/* Items to the handler, in the order of net/admission.h, and answers back from it. */
#include "net/server_private.h"

#include "base/clock.h"

#include <string.h>

#define NO_MEMORY_PAUSE 1.0 /* seconds until a handler that had none is asked again */

static enum fc_code hand_out(struct fc_server *s, struct fc_item *item, struct fc_error *err)
{
    struct fc_error why = {0};
    uint64_t id = item->id;
    size_t n_prompt = item->n_text;
    struct fc_ask ask = {id, item->text, n_prompt, item->seed, &item->batch->sampling};
    /* Running from here on, and submit may complete it at once: hold what the call needs. */
    struct fc_submission *batch = item->batch;
    batch->references++;
    fc_admission_give(item);
    char *prompt = fc_item_run(&s->table, item);
    enum fc_code code = s->handler.submit(s->handler.context, &ask, &why);
    if (code == FC_ERR_MEMORY) {
        fc_item_unrun(&s->table, item, prompt, n_prompt);
        s->hold = fc_now() + NO_MEMORY_PAUSE;
        code = FC_OK;
    } else {
        free(prompt);
        s->stats.submitted++;
        if (code != FC_OK)
            code = fc_server_complete(s, id, why.text, strlen(why.text), 0, FC_ANSWER_REFUSED, err);
    }
    fc_submission_release(batch);
    return code;
}

enum fc_code fc_server_hand_out(struct fc_server *s, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    while (code == FC_OK && !s->drained && s->table.count[FC_ITEM_RUNNING] < s->options.window &&
           (s->hold == 0 || fc_now() >= s->hold)) {
        s->hold = 0;
        struct fc_item *item = fc_admission_next(&s->admission, &s->table);
        if (!item)
            break;
        code = hand_out(s, item, err);
    }
    return code;
}

void fc_server_lose(struct fc_server *s, struct fc_item *item)
{
    item->job->orphan = true; /* unknown until it says hello: it submits again then */
    fc_admission_settle(item, false, 0);
    fc_item_remove(&s->table, item);
}

enum fc_code fc_server_complete(struct fc_server *s, uint64_t id, const char *text, size_t n_text,
                                size_t n_tokens, enum fc_answer_finish finish, struct fc_error *err)
{
    struct fc_item *item = fc_item_by_id(&s->table, id);
    (void)err; /* trouble with one answer is not the server's */
    if (!item || item->state != FC_ITEM_RUNNING)
        return FC_OK;
    struct fc_text clean = {0};
    fc_utf8_clean(&clean, text, n_text, FC_MAX_TEXT);
    if (clean.failed) {
        fc_text_free(&clean);
        fc_server_lose(s, item);
        return FC_OK;
    }
    if (n_text > FC_MAX_TEXT && finish == FC_ANSWER_STOP)
        finish = FC_ANSWER_LENGTH;
    fc_admission_settle(item, true, n_tokens);
    fc_item_finish(&s->table, item, clean.data, clean.len, n_tokens, finish);
    fc_results_add(&s->results, item);
    s->window.items++;
    s->window.tokens += n_tokens;
    s->stats.tokens += n_tokens;
    return FC_OK;
}
