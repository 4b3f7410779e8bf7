/* SUBMIT: prompts come in. Everything is checked before anything is taken. */
#include "net/server_private.h"

#include "base/clock.h"

#include <sodium.h>
#include <string.h>
#include <time.h>

/* An item of the frame, checked. */
struct asked {
    uint64_t index, seed;
    const char *text;
    size_t n_text;
    unsigned char digest[FC_DIGEST_SIZE];
};

static enum fc_code read_asked(struct fc_server_request *r, const cJSON *element, size_t *at,
                               struct asked *a, struct fc_error *err)
{
    size_t n = 0;
    enum fc_code code =
        fc_index_read(cJSON_GetObjectItemCaseSensitive(element, "index"), &a->index, err);
    if (code == FC_OK)
        code = fc_hex64_read(element, "seed", &a->seed, err);
    if (code == FC_OK)
        code = fc_json_size(element, "bytes", true, &n, "item", err);
    if (code != FC_OK)
        return code;
    if (n < 1 || n > r->server->options.limits.prompt_bytes || n > r->frame.n_body - *at)
        return fc_fail(err, FC_ERR_INPUT,
                       "submit: a prompt of %zu bytes, expected 1 to %zu, and %zu are left in the "
                       "body",
                       n, r->server->options.limits.prompt_bytes, r->frame.n_body - *at);
    a->text = r->frame.body + *at;
    a->n_text = n;
    *at += n;
    if (fc_utf8_prefix(a->text, n) != n || memchr(a->text, 0, n))
        return fc_fail(err, FC_ERR_INPUT, "submit: a prompt is not UTF-8 text");
    return FC_OK;
}

/* What decides an answer: the same (job, index) must always ask the same. */
static void digest_asked(struct asked *a, const char *sampling)
{
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, FC_DIGEST_SIZE);
    crypto_generichash_update(&hash, (const unsigned char *)&a->seed, sizeof a->seed);
    crypto_generichash_update(&hash, (const unsigned char *)sampling, strlen(sampling) + 1);
    crypto_generichash_update(&hash, (const unsigned char *)a->text, a->n_text);
    crypto_generichash_final(&hash, a->digest, FC_DIGEST_SIZE);
}

/* Everything is checked before anything is taken. *list is the caller's. */
static enum fc_code read_submit(struct fc_server_request *r, struct fc_submission *batch,
                                struct asked **list, size_t *n, struct fc_error *err)
{
    const struct fc_limits *limits = &r->server->options.limits;
    const cJSON *items, *element;
    size_t at = 0;
    char *text = NULL;
    enum fc_code code = fc_array_read(r->frame.header, "items", limits->frame_items, &items, err);
    if (code != FC_OK)
        return code;
    batch->tree = cJSON_DetachItemFromObjectCaseSensitive(r->frame.header, "sampling");
    code = fc_wire_sampling_read(&batch->sampling, batch->tree, limits->max_tokens, err);
    if (code != FC_OK)
        return code;
    *list = fc_alloc((size_t)cJSON_GetArraySize(items), sizeof **list, "submit", err);
    text = fc_json_print(batch->tree, err);
    if (!*list || !text)
        code = FC_ERR_MEMORY;
    for (element = items->child; element && code == FC_OK; element = element->next) {
        struct asked *a = &(*list)[*n];
        code = read_asked(r, element, &at, a, err);
        if (code == FC_OK)
            digest_asked(a, text);
        ++*n;
    }
    if (code == FC_OK && at != r->frame.n_body)
        code = fc_fail(err, FC_ERR_INPUT, "submit: %zu bytes of body, but the items make %zu",
                       r->frame.n_body, at);
    cJSON_free(text);
    return code;
}

/* Room in the job, in the client's share, in the server, and in the client's budgets; they are
 * charged if there is. */
static bool admit(struct fc_server_request *r, size_t bytes, size_t max_tokens)
{
    struct fc_server *s = r->server;
    r->retry_after = s->drained ? fc_server_drain_wait(s) : fc_server_item_wait(s);
    if (s->drained || r->job->n_items >= s->options.limits.job_items ||
        !fc_party_has_item_room(&s->admission, &s->table, r->job->party, bytes))
        return false;
    while (!s->table.count[FC_ITEM_FREE] || s->table.bytes + bytes > s->options.max_bytes)
        if (!fc_server_make_room(s)) /* never this job: its client has just spoken */
            return false;
    return fc_party_spend(r->job->party, r->identity, max_tokens, fc_now(), (int64_t)time(NULL),
                          &r->retry_after);
}

/* Takes one item; *taken says whether there was room. */
static enum fc_code take_asked(struct fc_server_request *r, const struct asked *a,
                               struct fc_submission *batch, bool *taken, struct fc_error *err)
{
    struct fc_server *s = r->server;
    struct fc_item *item = fc_item_find(&s->table, r->job, a->index);
    *taken = true;
    if (item) {
        if (memcmp(item->digest, a->digest, FC_DIGEST_SIZE) != 0)
            return fc_fail(err, FC_ERR_INPUT,
                           "submit: item %llu of this job was submitted before with another "
                           "prompt, seed or sampling",
                           (unsigned long long)a->index);
        fc_item_claim(item);
        s->stats.duplicates++;
        return FC_OK;
    }
    size_t max_tokens = batch->sampling.max_tokens;
    *taken = admit(r, a->n_text, max_tokens);
    if (!*taken)
        return FC_OK;
    fc_admission_arrive(&s->admission, &s->table, r->job);
    item = fc_item_add(&s->table, r->job, a->index, a->text, a->n_text, batch, err);
    if (!item)
        return FC_ERR_MEMORY;
    item->reserved = max_tokens;
    item->day = r->job->party->day;
    item->seed = a->seed;
    memcpy(item->digest, a->digest, FC_DIGEST_SIZE);
    return FC_OK;
}

enum fc_code fc_serve_submit(struct fc_server_request *r, struct fc_error *err)
{
    struct asked *list = NULL;
    size_t n = 0, accepted = 0;
    bool taken = true;
    cJSON *header = NULL;
    struct fc_submission *batch = fc_alloc(1, sizeof *batch, "submit", err);
    if (!batch)
        return FC_ERR_MEMORY;
    batch->references = 1;
    enum fc_code code = read_submit(r, batch, &list, &n, err);
    if (code == FC_OK && r->identity->tokens_per_day &&
        batch->sampling.max_tokens > r->identity->tokens_per_day)
        code = fc_fail(err, FC_ERR_INPUT,
                       "submit: %zu tokens an answer, but this client's budget is %llu a day",
                       batch->sampling.max_tokens, (unsigned long long)r->identity->tokens_per_day);
    while (code == FC_OK && accepted < n) {
        code = take_asked(r, &list[accepted], batch, &taken, err);
        if (!taken)
            break;
        accepted++;
    }
    if (code != FC_OK)
        goto cleanup;
    header = cJSON_CreateObject();
    code = fc_number_write(header, "accepted", (double)accepted, err);
    if (code == FC_OK && !taken) {
        r->server->stats.busy++;
        code = fc_number_write(header, "retry_after", r->retry_after, err);
    }
    if (code == FC_OK)
        code = fc_server_answer_to(r, header, err);
cleanup:
    cJSON_Delete(header);
    fc_submission_release(batch);
    free(list);
    return code;
}
