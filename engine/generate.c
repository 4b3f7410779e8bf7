#include "engine/generate.h"

#include "base/clock.h"
#include "base/memory.h"
#include "engine/decoder.h"
#include "engine/sequence.h"

#include <string.h>

struct fc_generator {
    struct fc_model *model;
    const struct fc_tokenizer *tok;
    struct fc_generator_options options;
    int32_t *end_tokens; /* the config's and the options' */
    size_t n_end_tokens;

    struct fc_kv_cache *cache;
    struct fc_decoder *decoder;
    int32_t *sampled_ids; /* [max_batch] on the device */

    struct fc_sequence *queue, **tail; /* waiting, in order of submission */
    struct fc_sequence **running;      /* [max_batch], in order of admission */
    size_t n_running;
    struct fc_slot *slots, **free_slots; /* [max_batch] */
    size_t n_free_slots;
    bool any_cancelled;

    /* The step's sequences that get a token, in the order of the pass's kept rows. [max_batch] */
    struct fc_sequence **sampled;
    struct fc_sampling *how;
    int32_t *ids; /* host memory of the device's copies; read after sync */

    struct fc_generator_stats stats;
};

const char *fc_finish_name(enum fc_finish finish)
{
    static const char *const names[] = {"stop", "length", "cancelled", "failed"};
    return names[finish];
}

/* ---- the queue ------------------------------------------------------------------------------- */

/* A sequence's last token is never read back, so it needs no place in the cache. */
static size_t pages_of(const struct fc_generator *g, size_t n_prompt, size_t max_tokens)
{
    return (n_prompt + max_tokens - 1 + g->options.page_size - 1) / g->options.page_size;
}

static enum fc_code check_request(const struct fc_generator *g, const struct fc_request *r,
                                  struct fc_error *err)
{
    size_t n_ctx = g->model->n_ctx;
    if (r->n_prompt == 0 || r->max_tokens == 0)
        return fc_fail(err, FC_ERR_USAGE, "request: needs a prompt and max_tokens of at least 1");
    if (r->n_prompt > n_ctx || r->max_tokens > n_ctx - r->n_prompt)
        return fc_fail(err, FC_ERR_USAGE,
                       "request: prompt of %zu tokens and max_tokens %zu: expected at most the "
                       "model's context of %zu together",
                       r->n_prompt, r->max_tokens, n_ctx);
    if (pages_of(g, r->n_prompt, r->max_tokens) > fc_kv_cache_pages(g->cache))
        return fc_fail(err, FC_ERR_USAGE,
                       "request: prompt of %zu tokens and max_tokens %zu: expected at most the KV "
                       "cache of %zu tokens together",
                       r->n_prompt, r->max_tokens,
                       fc_kv_cache_pages(g->cache) * g->options.page_size);
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || (size_t)r->prompt[i] >= g->model->config.n_vocab)
            return fc_fail(err, FC_ERR_USAGE, "request: prompt token %zu: expected an id below %zu",
                           i, g->model->config.n_vocab);
    if (!(r->temperature >= 0) || r->temperature > 1e6f || !(r->top_p >= 0) || r->top_p > 1)
        return fc_fail(err, FC_ERR_USAGE,
                       "request: temperature %g, top_p %g: expected at least 0, and 0 to 1",
                       (double)r->temperature, (double)r->top_p);
    if (r->n_stops && !g->tok)
        return fc_fail(err, FC_ERR_USAGE, "request: stop texts need a tokenizer");
    for (size_t i = 0; i < r->n_stops; i++)
        if (r->stops[i][0] == '\0')
            return fc_fail(err, FC_ERR_USAGE, "request: stop text %zu is empty", i);
    return FC_OK;
}

enum fc_code fc_generator_submit(struct fc_generator *g, const struct fc_request *request,
                                 struct fc_error *err)
{
    enum fc_code code = check_request(g, request, err);
    if (code != FC_OK)
        return code;
    struct fc_sequence *q = fc_sequence_create(request, err);
    if (!q)
        return FC_ERR_MEMORY;
    *g->tail = q;
    g->tail = &q->next;
    g->stats.waiting++;
    return FC_OK;
}

static struct fc_sequence *queue_pop(struct fc_generator *g)
{
    struct fc_sequence *q = g->queue;
    g->queue = q->next;
    if (!g->queue)
        g->tail = &g->queue;
    q->next = NULL;
    g->stats.waiting--;
    return q;
}

void fc_generator_cancel(struct fc_generator *g, uint64_t id)
{
    for (struct fc_sequence *q = g->queue; q; q = q->next)
        if (q->id == id)
            g->any_cancelled = q->cancelled = true;
    for (size_t i = 0; i < g->n_running; i++)
        if (g->running[i]->id == id)
            g->any_cancelled = g->running[i]->cancelled = true;
}

/* ---- leaving --------------------------------------------------------------------------------- */

/* Reports and frees. `done` may submit and cancel. */
static void report(struct fc_sequence *q, fc_result_fn *done, void *context)
{
    struct fc_result result = {
        .id = q->id,
        .tokens = q->ids + q->n_prompt,
        .n_tokens = q->n_ids - q->n_prompt,
        .text = q->slot && q->slot->text.data ? q->slot->text.data : "",
        .n_text = q->slot ? q->slot->text.len : 0,
        .finish = q->finish,
    };
    done(context, &result);
    fc_sequence_free(q);
}

static void report_finished(struct fc_generator *g, fc_result_fn *done, void *context)
{
    struct fc_sequence *finished = NULL, **end = &finished;
    size_t kept = 0;
    for (size_t i = 0; i < g->n_running; i++) {
        struct fc_sequence *q = g->running[i];
        if (!q->finished) {
            g->running[kept++] = q;
            continue;
        }
        *end = q;
        end = &q->next;
    }
    g->n_running = kept;
    while (finished) {
        struct fc_sequence *q = finished;
        struct fc_slot *slot = q->slot;
        finished = q->next;
        fc_kv_cache_give(g->cache, slot->table, q->n_pages);
        report(q, done, context);
        g->free_slots[g->n_free_slots++] = slot;
    }
}

static void drop_cancelled(struct fc_generator *g, fc_result_fn *done, void *context)
{
    if (!g->any_cancelled)
        return;
    g->any_cancelled = false;
    struct fc_sequence *dropped = NULL, **end = &dropped;
    g->tail = &g->queue;
    while (*g->tail) {
        struct fc_sequence *q = *g->tail;
        if (!q->cancelled) {
            g->tail = &q->next;
            continue;
        }
        *g->tail = q->next;
        q->next = NULL;
        *end = q;
        end = &q->next;
        g->stats.waiting--;
    }
    for (size_t i = 0; i < g->n_running; i++)
        if (g->running[i]->cancelled)
            fc_sequence_finish(g->running[i], g->tok, FC_FINISH_CANCELLED);
    report_finished(g, done, context);
    while (dropped) {
        struct fc_sequence *q = dropped;
        dropped = q->next;
        q->finish = FC_FINISH_CANCELLED;
        report(q, done, context);
    }
}

/* ---- joining --------------------------------------------------------------------------------- */

/* Gives the first of the queue a slot and all pages that it can ever need, so that a running
 * sequence never waits for memory. */
static bool admit_first(struct fc_generator *g)
{
    struct fc_sequence *q = g->queue;
    if (!q || g->n_free_slots == 0)
        return false;
    struct fc_slot *slot = g->free_slots[g->n_free_slots - 1];
    size_t page_size = g->options.page_size;
    q->n_pages = pages_of(g, q->n_prompt, q->max_tokens);
    q->n_shared = (q->n_prompt - 1) / page_size; /* the last token is always computed */
    if (!fc_kv_cache_take(g->cache, q->ids, q->n_shared, q->n_pages, slot->table))
        return false;
    g->n_free_slots--;
    g->running[g->n_running++] = queue_pop(g);
    q->slot = slot;
    slot->text.failed = 0;
    fc_text_clear(&slot->text);
    /* Room for the usual text, so that steps need not grow it: English has 4 bytes a token. The
     * slot keeps the buffer. If memory is out now, appending will say so. */
    void *data = slot->text.data;
    (void)fc_grow(&data, &slot->text.capacity, 8 * q->max_tokens + 64, 1, "text", NULL);
    slot->text.data = data;
    if (data)
        slot->text.data[slot->text.len] = '\0';
    return true;
}

/* ---- the step -------------------------------------------------------------------------------- */

/* Adds rows of one sequence while the pass has less than `limit`: all that is known of it and not
 * in the cache. Whole blocks of its prompt that others have computed are skipped. */
static void add_rows(struct fc_generator *g, struct fc_sequence *q, size_t limit)
{
    size_t page_size = g->options.page_size;
    const int32_t *table = q->slot->table;
    while (q->n_done < q->n_ids && fc_decoder_rows(g->decoder) < limit) {
        size_t page = q->n_done / page_size;
        if (page < q->n_shared && q->n_done % page_size == 0 &&
            fc_kv_cache_filled(g->cache, table[page])) {
            q->n_done += page_size;
            g->stats.cached_tokens += page_size;
            continue;
        }
        size_t row = fc_decoder_add(g->decoder, q->ids[q->n_done], q->n_done, table);
        if (row == FC_NO_ROW)
            return;
        if (q->n_done++ < q->n_prompt)
            g->stats.prompt_tokens++;
        if (page < q->n_shared && q->n_done % page_size == 0)
            fc_kv_cache_fill(g->cache, table[page]);
        if (q->n_done == q->n_ids) {
            size_t at = fc_decoder_keep(g->decoder, row);
            g->sampled[at] = q;
            g->how[at] = q->how;
        }
    }
}

static size_t round_up(size_t n, size_t block)
{
    return (n + block - 1) / block * block;
}

/* The rows of a step: first one for every sequence that decodes, then prompts, in the order of
 * admission, until the chunk is used up and the GEMM's last block is full. The order is what makes
 * a common prefix be computed once: the first sequence that needs a page fills it, or leaves no
 * rows for those behind it. */
static void plan(struct fc_generator *g)
{
    fc_decoder_begin(g->decoder);
    for (size_t i = 0; i < g->n_running; i++)
        if (g->running[i]->how.position > 0)
            add_rows(g, g->running[i], (size_t)-1);
    size_t limit = round_up(fc_decoder_rows(g->decoder) + g->options.chunk, FC_ROW_BLOCK);
    for (size_t i = 0; i < g->n_running; i++)
        if (g->running[i]->how.position == 0)
            add_rows(g, g->running[i], limit);
}

static enum fc_code compute(struct fc_generator *g, struct fc_error *err)
{
    const struct fc_kernels *k = g->model->dev->k;
    struct fc_stream *s = g->model->dev->stream;
    size_t n = fc_decoder_kept(g->decoder);
    k->range_push("generate: pass");
    fc_decoder_run(g->decoder);
    if (n) {
        const float *logits = fc_decoder_logits(g->decoder, 0, n);
        k->sample(s, g->sampled_ids, logits, g->how, n, g->model->config.n_vocab);
        k->download(s, g->ids, g->sampled_ids, n * sizeof *g->ids);
    }
    enum fc_code code = k->sync(s, err);
    k->range_pop();
    return code;
}

static bool is_end(const struct fc_generator *g, const struct fc_sequence *q, int32_t token)
{
    for (size_t i = 0; i < g->n_end_tokens && !q->ignore_eos; i++)
        if (g->end_tokens[i] == token)
            return true;
    return false;
}

/* The device failed: nobody knows what the cache holds. */
static void fail_running(struct fc_generator *g, fc_result_fn *done, void *context)
{
    for (size_t i = 0; i < g->n_running; i++)
        fc_sequence_finish(g->running[i], NULL, FC_FINISH_FAILED);
    report_finished(g, done, context);
    fc_kv_cache_forget(g->cache);
}

enum fc_code fc_generator_step(struct fc_generator *g, fc_result_fn *done, void *context,
                               bool *busy, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    drop_cancelled(g, done, context);
    double start = fc_now();
    while (admit_first(g))
        ;
    plan(g);
    if (fc_decoder_rows(g->decoder)) {
        code = compute(g, err);
        g->stats.steps++;
        g->stats.rows += fc_decoder_rows(g->decoder);
    }
    size_t n = fc_decoder_kept(g->decoder);
    for (size_t i = 0; i < n && code == FC_OK; i++)
        fc_sequence_accept(g->sampled[i], g->tok, g->ids[i], is_end(g, g->sampled[i], g->ids[i]));
    if (code == FC_OK)
        g->stats.decoded_tokens += n;
    g->stats.seconds += fc_now() - start; /* the caller's callback is its own time */
    if (code == FC_OK)
        report_finished(g, done, context);
    else
        fail_running(g, done, context);
    *busy = g->queue || g->n_running;
    return code;
}

/* ---- life ------------------------------------------------------------------------------------ */

static enum fc_code set_options(struct fc_generator *g, const struct fc_generator_options *options,
                                struct fc_error *err)
{
    struct fc_generator_options *o = &g->options;
    if (options)
        *o = *options;
    o->max_batch = o->max_batch ? o->max_batch : 32;
    o->chunk = o->chunk ? o->chunk : 256;
    o->page_size = o->page_size ? o->page_size : 16;
    const struct {
        const char *name;
        size_t value, limit;
    } checks[] = {{"max_batch", o->max_batch, 65536},
                  {"chunk", o->chunk, 65536},
                  {"page_size", o->page_size, 4096},
                  {"cache_tokens", o->cache_tokens, INT32_MAX}};
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
        if (checks[i].value > checks[i].limit)
            return fc_fail(err, FC_ERR_USAGE, "generator: %s is %zu, expected at most %zu",
                           checks[i].name, checks[i].value, checks[i].limit);
    if (o->cache_tokens == 0) {
        size_t most = o->max_batch * g->model->n_ctx;
        o->cache_tokens = 512 * o->max_batch > 8192 ? 512 * o->max_batch : 8192;
        if (o->cache_tokens > most)
            o->cache_tokens = most;
    }
    return FC_OK;
}

static enum fc_code collect_end_tokens(struct fc_generator *g, struct fc_error *err)
{
    const struct fc_model_config *c = &g->model->config;
    size_t more = g->options.n_end_tokens;
    g->end_tokens = fc_alloc(c->n_eos + more, sizeof *g->end_tokens, "end tokens", err);
    if (!g->end_tokens)
        return FC_ERR_MEMORY;
    memcpy(g->end_tokens, c->eos, c->n_eos * sizeof *g->end_tokens);
    if (more)
        memcpy(g->end_tokens + c->n_eos, g->options.end_tokens, more * sizeof *g->end_tokens);
    g->n_end_tokens = c->n_eos + more;
    g->options.end_tokens = NULL; /* the caller's memory */
    return FC_OK;
}

static enum fc_code create_slots(struct fc_generator *g, struct fc_error *err)
{
    size_t n = g->options.max_batch, page_size = g->options.page_size;
    g->running = fc_alloc(n, sizeof *g->running, "batch", err);
    g->sampled = fc_alloc(n, sizeof *g->sampled, "batch", err);
    g->how = fc_alloc(n, sizeof *g->how, "batch", err);
    g->ids = g->model->dev->k->host_alloc(g->model->dev->stream, n * sizeof *g->ids, err);
    g->slots = fc_alloc(n, sizeof *g->slots, "batch", err);
    g->free_slots = fc_alloc(n, sizeof *g->free_slots, "batch", err);
    if (!g->running || !g->sampled || !g->how || !g->ids || !g->slots || !g->free_slots)
        return FC_ERR_MEMORY;
    size_t widest = round_up(g->model->n_ctx, page_size) / page_size;
    for (size_t i = 0; i < n; i++) {
        struct fc_slot *slot = &g->slots[i];
        slot->table = fc_alloc(widest, sizeof *slot->table, "page table", err);
        if (!slot->table)
            return FC_ERR_MEMORY;
        g->free_slots[g->n_free_slots++] = slot;
    }
    return FC_OK;
}

static enum fc_code create_device_parts(struct fc_generator *g, struct fc_error *err)
{
    const struct fc_generator_options *o = &g->options;
    size_t n_pages = round_up(o->cache_tokens, o->page_size) / o->page_size;
    enum fc_code code = fc_kv_cache_create(&g->cache, g->model, o->page_size, n_pages, err);
    if (code != FC_OK)
        return code;
    struct fc_decoder_limits limits = {.rows = round_up(o->max_batch + o->chunk, FC_ROW_BLOCK),
                                       .logits = o->max_batch};
    code = fc_decoder_create(&g->decoder, g->model, g->cache, &limits, err);
    if (code != FC_OK)
        return code;
    g->sampled_ids =
        fc_device_alloc(g->model->dev, o->max_batch * sizeof *g->sampled_ids, FC_MEM_STAGING, err);
    return g->sampled_ids ? FC_OK : FC_ERR_MEMORY;
}

enum fc_code fc_generator_create(struct fc_generator **generator, struct fc_model *model,
                                 const struct fc_tokenizer *tok,
                                 const struct fc_generator_options *options, struct fc_error *err)
{
    *generator = NULL;
    struct fc_generator *g = fc_alloc(1, sizeof *g, "generator", err);
    if (!g)
        return FC_ERR_MEMORY;
    g->model = model;
    g->tok = tok;
    g->tail = &g->queue;
    enum fc_code code = set_options(g, options, err);
    if (code == FC_OK)
        code = collect_end_tokens(g, err);
    if (code == FC_OK)
        code = create_slots(g, err);
    if (code == FC_OK)
        code = create_device_parts(g, err);
    if (code != FC_OK) {
        fc_generator_free(g);
        return code;
    }
    *generator = g;
    return FC_OK;
}

void fc_generator_free(struct fc_generator *g)
{
    if (!g)
        return;
    while (g->queue)
        fc_sequence_free(queue_pop(g));
    for (size_t i = 0; i < g->n_running; i++)
        fc_sequence_free(g->running[i]);
    for (size_t i = 0; g->slots && i < g->options.max_batch; i++) {
        free(g->slots[i].table);
        fc_text_free(&g->slots[i].text);
    }
    fc_decoder_free(g->decoder);
    fc_kv_cache_free(g->cache);
    fc_device_free(g->model->dev, g->sampled_ids, g->options.max_batch * sizeof *g->sampled_ids,
                   FC_MEM_STAGING);
    free(g->end_tokens);
    free(g->running);
    free(g->sampled);
    free(g->how);
    g->model->dev->k->host_free(g->model->dev->stream, g->ids);
    free(g->slots);
    free(g->free_slots);
    free(g);
}

void fc_generator_reset_cache(struct fc_generator *g)
{
    fc_kv_cache_forget(g->cache);
}

void fc_generator_stats(const struct fc_generator *g, struct fc_generator_stats *stats)
{
    *stats = g->stats;
    stats->running = g->n_running;
    stats->recorded = fc_decoder_recorded(g->decoder);
}
