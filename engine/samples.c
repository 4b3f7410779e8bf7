#include "engine/samples.h"

#include <string.h>

void fc_train_item_free(struct fc_train_item *item)
{
    for (int task = 0; task < FC_TASKS; task++)
        free(item->samples[task].ids);
    *item = (struct fc_train_item){0};
}

enum fc_code fc_join_choices(const struct fc_example *e, struct fc_text *out, struct fc_error *err)
{
    fc_text_puts(out, "");
    for (size_t i = 0; i < e->n_choices; i++)
        fc_text_printf(out, "%s%s", i ? ", " : "", e->choices[i]);
    return fc_text_check(out, err);
}

static enum fc_code prompt(const struct fc_sample_maker *maker, const struct fc_template *template,
                           const struct fc_example *e, struct fc_tokens *tokens,
                           struct fc_text *text, struct fc_error *err)
{
    struct fc_text choices = {0};
    size_t start = text->len;
    enum fc_code code = fc_join_choices(e, &choices, err);
    const char *const values[] = {e->question, choices.data};
    if (code == FC_OK)
        code = fc_template_render(template, values, text, err);
    int32_t bos = fc_tokenizer_bos(maker->tok);
    if (code == FC_OK && fc_tokenizer_adds_bos(maker->tok) && bos >= 0)
        code = fc_tokens_add(tokens, bos, err);
    if (code == FC_OK)
        code = fc_tokenizer_encode(maker->tok, text->data + start, text->len - start, FC_TEXT,
                                   tokens, err);
    fc_text_free(&choices);
    return code;
}

enum fc_code fc_predict_prompt(const struct fc_sample_maker *maker, const struct fc_example *e,
                               struct fc_tokens *tokens, struct fc_text *text, struct fc_error *err)
{
    return prompt(maker, maker->templates->predict, e, tokens, text, err);
}

enum fc_code fc_explain_prompt(const struct fc_sample_maker *maker, const struct fc_example *e,
                               struct fc_tokens *tokens, struct fc_text *text, struct fc_error *err)
{
    return prompt(maker, maker->templates->explain, e, tokens, text, err);
}

enum fc_code fc_target_tokens(const struct fc_sample_maker *maker, const char *target,
                              struct fc_tokens *tokens, struct fc_error *err)
{
    struct fc_text text = {0};
    fc_text_printf(&text, " %s", target);
    enum fc_code code = fc_text_check(&text, err);
    if (code == FC_OK)
        code = fc_tokenizer_encode(maker->tok, text.data, text.len, FC_TEXT, tokens, err);
    fc_text_free(&text);
    return code;
}

/* Joins prompt and target into *sample, cut to max_length. */
static enum fc_code join(const struct fc_sample_maker *maker, struct fc_tokens *p,
                         struct fc_tokens *target, enum fc_task task, struct fc_train_item *item,
                         struct fc_error *err)
{
    size_t keep_prompt = p->n, keep_target = target->n, limit = maker->max_length;
    if (limit < 2)
        return fc_fail(err, FC_ERR_USAGE, "samples of %zu tokens: expected at least 2", limit);
    if (keep_prompt + keep_target > limit) {
        item->cut = true;
        size_t half = limit / 2;
        if (keep_target > half)
            keep_target = keep_prompt < limit - half ? limit - keep_prompt : half;
        if (keep_target > target->n)
            keep_target = target->n;
        if (keep_prompt > limit - keep_target)
            keep_prompt = limit - keep_target;
    }
    struct fc_sample *sample = &item->samples[task];
    sample->ids = fc_alloc(keep_prompt + keep_target, sizeof *sample->ids, "sample", err);
    if (!sample->ids)
        return FC_ERR_MEMORY;
    memcpy(sample->ids, p->ids + (p->n - keep_prompt), keep_prompt * sizeof *sample->ids);
    if (fc_tokenizer_adds_bos(maker->tok))
        sample->ids[0] = p->ids[0]; /* BOS stays where a prompt is cut */
    memcpy(sample->ids + keep_prompt, target->ids, keep_target * sizeof *sample->ids);
    sample->n = keep_prompt + keep_target;
    sample->first_target = keep_prompt;
    sample->task = task;
    return FC_OK;
}

static enum fc_code make_sample(const struct fc_sample_maker *maker, const struct fc_example *e,
                                const char *target, enum fc_task task, struct fc_train_item *item,
                                struct fc_error *err)
{
    struct fc_tokens p = {0}, t = {0};
    struct fc_text text = {0};
    int32_t eos = fc_tokenizer_eos(maker->tok);
    enum fc_code code = task == FC_TASK_PREDICT ? fc_predict_prompt(maker, e, &p, &text, err)
                                                : fc_explain_prompt(maker, e, &p, &text, err);
    if (code == FC_OK)
        code = fc_target_tokens(maker, target, &t, err);
    if (code == FC_OK && eos >= 0)
        code = fc_tokens_add(&t, eos, err);
    if (code == FC_OK && (p.n == 0 || t.n == 0))
        code = fc_fail(err, FC_ERR_INPUT, "an example has an empty prompt or target");
    if (code == FC_OK)
        code = join(maker, &p, &t, task, item, err);
    fc_tokens_free(&p);
    fc_tokens_free(&t);
    fc_text_free(&text);
    return code;
}

enum fc_code fc_train_item_make(const struct fc_sample_maker *maker, const struct fc_example *e,
                                const char *rationale, struct fc_train_item *item,
                                struct fc_error *err)
{
    *item = (struct fc_train_item){0};
    enum fc_code code = FC_OK;
    if (e->answer && e->answer[0])
        code = make_sample(maker, e, e->answer, FC_TASK_PREDICT, item, err);
    if (code == FC_OK && rationale && rationale[strspn(rationale, " \t\r\n")])
        code = make_sample(maker, e, rationale + strspn(rationale, " \t\r\n"), FC_TASK_EXPLAIN,
                           item, err);
    if (code != FC_OK)
        fc_train_item_free(item);
    return code;
}
