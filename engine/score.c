#include "engine/score.h"

#include "base/clock.h"
#include "base/memory.h"
#include "engine/decoder.h"

#include <string.h>

#define NO_TARGET ((size_t)-1)

/* One log-probability to find: of `token`, predicted by a row of the pass. */
struct target {
    int32_t token;
    size_t next;  /* of the same row, NO_TARGET at the end */
    size_t place; /* in the order of the classifier's calls */
    double *sum;  /* of its choice */
};

/* A row of the pass that predicts something. */
struct wanted {
    size_t row, count; /* count: its targets */
    size_t next, last; /* its first target not yet placed, and its last */
};

struct fc_scorer {
    struct fc_model *model;
    struct fc_scorer_options options;
    struct fc_kv_cache *cache; /* pages of one token: a page is a cache slot */
    struct fc_decoder *decoder;

    int32_t *ids;                /* [n_ctx] the sequence being added */
    int32_t *tables;             /* page tables of the pass, one after the other */
    size_t n_held, max_held;     /* entries of sequences that are complete; room for all */
    struct fc_score_row *row_of; /* by page: its row in which pass */
    size_t pass;

    struct wanted *wanted; /* [rows] */
    size_t n_wanted;
    struct target *targets; /* [4 rows], in the order of items, choices and tokens */
    size_t n_targets, max_targets;
    int32_t *tokens; /* [max_targets] targets by place, host and device; what the host holds of the
                        two is left alone from the upload to sync */
    int32_t *device_tokens;
    float *losses;
    float *device_losses;

    struct fc_scorer_stats stats;
};

struct fc_score_row {
    size_t pass, row, wanted; /* wanted: index, NO_TARGET if it predicts nothing yet */
};

/* ---- the classifier of one pass -------------------------------------------------------------- */

static int by_count_descending(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return x->row < y->row ? -1 : 1;
}

/* A row may have several targets: the first tokens of all choices of a question. With the rows in
 * descending order of their number of targets, the rows that have an r-th target are the first
 * ones, so that one call serves them all and every row's logits are computed once. */
static void classify(struct fc_scorer *s)
{
    const struct fc_kernels *k = s->model->dev->k;
    struct fc_stream *stream = s->model->dev->stream;
    size_t V = s->model->config.n_vocab, place = 0;
    for (size_t first = 0; first < s->n_wanted; first += s->options.logits) {
        size_t n =
            s->n_wanted - first < s->options.logits ? s->n_wanted - first : s->options.logits;
        struct wanted *w = s->wanted + first;
        float *logits = fc_decoder_logits(s->decoder, first, n);
        for (size_t round = 0;; round++) {
            while (n > 0 && w[n - 1].count <= round)
                n--;
            if (n == 0)
                break;
            k->cross_entropy(stream, s->device_losses + place, logits, s->device_tokens + place,
                             NULL, n, V, FC_F32);
            place += n;
        }
    }
}

/* Where each target stands in the order of the calls above. */
static void place_targets(struct fc_scorer *s)
{
    size_t place = 0;
    for (size_t first = 0; first < s->n_wanted; first += s->options.logits) {
        size_t end = first + s->options.logits;
        end = end < s->n_wanted ? end : s->n_wanted;
        for (size_t before = NO_TARGET; before != place;) {
            before = place;
            for (size_t i = first; i < end && s->wanted[i].next != NO_TARGET; i++) {
                struct target *t = &s->targets[s->wanted[i].next];
                s->wanted[i].next = t->next;
                s->tokens[place] = t->token;
                t->place = place++;
            }
        }
    }
}

/* Runs the pass, adds its log-probabilities to their choices, and starts the next one. Pages of
 * complete sequences are given back; the entries behind them (of a sequence that is being added)
 * move to the front. */
static enum fc_code flush(struct fc_scorer *s, size_t n_current, struct fc_error *err)
{
    const struct fc_kernels *k = s->model->dev->k;
    struct fc_stream *stream = s->model->dev->stream;
    qsort(s->wanted, s->n_wanted, sizeof *s->wanted, by_count_descending);
    place_targets(s);
    for (size_t i = 0; i < s->n_wanted; i++)
        fc_decoder_keep(s->decoder, s->wanted[i].row);
    k->range_push("score: pass");
    fc_decoder_run(s->decoder);
    if (s->n_targets) {
        k->upload(stream, s->device_tokens, s->tokens, s->n_targets * sizeof *s->tokens);
        classify(s);
        k->download(stream, s->losses, s->device_losses, s->n_targets * sizeof *s->losses);
    }
    enum fc_code code = k->sync(stream, err);
    k->range_pop();
    for (size_t i = 0; i < s->n_targets && code == FC_OK; i++)
        *s->targets[i].sum -= (double)s->losses[s->targets[i].place];
    s->stats.rows += fc_decoder_rows(s->decoder);
    s->stats.targets += s->n_targets;
    fc_kv_cache_give(s->cache, s->tables, s->n_held);
    memmove(s->tables, s->tables + s->n_held, n_current * sizeof *s->tables);
    s->n_held = s->n_wanted = s->n_targets = 0;
    s->pass++;
    fc_decoder_begin(s->decoder);
    return code;
}

/* ---- putting a pass together ----------------------------------------------------------------- */

static void add_target(struct fc_scorer *s, struct fc_score_row *at, int32_t token, double *sum)
{
    size_t i = s->n_targets++;
    s->targets[i] = (struct target){.token = token, .next = NO_TARGET, .sum = sum};
    if (at->wanted == NO_TARGET) {
        at->wanted = s->n_wanted++;
        s->wanted[at->wanted] = (struct wanted){.row = at->row, .next = i, .last = i};
    } else {
        s->targets[s->wanted[at->wanted].last].next = i;
        s->wanted[at->wanted].last = i;
    }
    s->wanted[at->wanted].count++;
}

/* One position of a sequence: computed unless it is in the cache and, if it predicts a token, in
 * this pass too. (A cached position that predicts is computed again, to the same bits.) False when
 * the pass is full. */
static bool add_position(struct fc_scorer *s, const int32_t *table, size_t t, bool predicts)
{
    struct fc_score_row *at = &s->row_of[table[t]];
    bool ready = fc_kv_cache_filled(s->cache, table[t]);
    if (ready && (!predicts || at->pass == s->pass)) {
        s->stats.shared++;
        return !predicts || s->n_targets < s->max_targets;
    }
    if (predicts && s->n_targets == s->max_targets)
        return false;
    size_t row = fc_decoder_add(s->decoder, s->ids[t], t, table);
    if (row == FC_NO_ROW)
        return false;
    fc_kv_cache_fill(s->cache, table[t]);
    *at = (struct fc_score_row){.pass = s->pass, .row = row, .wanted = NO_TARGET};
    return true;
}

static enum fc_code add_choice(struct fc_scorer *s, const struct fc_score_item *item,
                               struct fc_score_choice *choice, struct fc_error *err)
{
    choice->log_prob = 0;
    if (choice->n == 0)
        return FC_OK;
    /* The choice's last token predicts nothing, so it is no row. */
    size_t n = item->n_prompt + choice->n - 1, first = item->n_prompt - 1;
    memcpy(s->ids, item->prompt, item->n_prompt * sizeof *s->ids);
    memcpy(s->ids + item->n_prompt, choice->tokens, (choice->n - 1) * sizeof *s->ids);
    enum fc_code code = FC_OK;
    if (s->max_held - s->n_held < n ||
        !fc_kv_cache_take(s->cache, s->ids, n, n, s->tables + s->n_held)) {
        code = flush(s, 0, err);
        if (code == FC_OK && !fc_kv_cache_take(s->cache, s->ids, n, n, s->tables))
            code = fc_fail(err, FC_ERR_INTERNAL, "score: no pages for %zu tokens", n);
        if (code != FC_OK)
            return code;
    }
    for (size_t t = 0; t < n; t++) {
        const int32_t *table = s->tables + s->n_held;
        if (!add_position(s, table, t, t >= first)) {
            code = flush(s, n, err);
            table = s->tables;
            if (code == FC_OK && !add_position(s, table, t, t >= first))
                code = fc_fail(err, FC_ERR_INTERNAL, "score: a pass has no room for one row");
            if (code != FC_OK)
                break;
        }
        if (t >= first)
            add_target(s, &s->row_of[table[t]], choice->tokens[t - first], &choice->log_prob);
    }
    s->n_held += n;
    return code;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static bool ids_fit(const struct fc_scorer *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= s->model->config.n_vocab)
            return false;
    return true;
}

static enum fc_code check_item(const struct fc_scorer *s, const struct fc_score_item *item,
                               size_t index, struct fc_error *err)
{
    size_t most = s->model->n_ctx < fc_kv_cache_pages(s->cache) ? s->model->n_ctx
                                                                : fc_kv_cache_pages(s->cache);
    if (item->n_prompt == 0)
        return fc_fail(err, FC_ERR_INPUT, "item %zu: the prompt is empty", index);
    bool fits = ids_fit(s, item->prompt, item->n_prompt);
    for (size_t c = 0; c < item->n_choices; c++) {
        const struct fc_score_choice *choice = &item->choices[c];
        if (item->n_prompt > most || choice->n > most - item->n_prompt)
            return fc_fail(err, FC_ERR_INPUT,
                           "item %zu: prompt of %zu tokens and choice %zu of %zu tokens: expected "
                           "at most %zu together (the model's context is %zu, the cache holds %zu)",
                           index, item->n_prompt, c, choice->n, most, s->model->n_ctx,
                           fc_kv_cache_pages(s->cache));
        fits = fits && ids_fit(s, choice->tokens, choice->n);
    }
    if (!fits)
        return fc_fail(err, FC_ERR_INPUT, "item %zu: token id outside the vocabulary of %zu", index,
                       s->model->config.n_vocab);
    return FC_OK;
}

enum fc_code fc_score(struct fc_scorer *s, const struct fc_score_item *items, size_t n,
                      struct fc_error *err)
{
    double start = fc_now();
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < n && code == FC_OK; i++)
        code = check_item(s, &items[i], i, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < n && code == FC_OK; i++)
        for (size_t c = 0; c < items[i].n_choices && code == FC_OK; c++)
            code = add_choice(s, &items[i], &items[i].choices[c], err);
    if (code == FC_OK)
        code = flush(s, 0, err);
    if (code != FC_OK) { /* nobody knows what the cache holds */
        fc_kv_cache_give(s->cache, s->tables, s->n_held);
        fc_kv_cache_forget(s->cache);
        s->n_held = s->n_wanted = s->n_targets = 0;
        s->pass++;
        fc_decoder_begin(s->decoder);
    }
    s->stats.seconds += fc_now() - start;
    return code;
}

void fc_scorer_reset_cache(struct fc_scorer *s)
{
    fc_kv_cache_forget(s->cache);
}

void fc_scorer_stats(const struct fc_scorer *s, struct fc_scorer_stats *stats)
{
    *stats = s->stats;
}

/* ---- life ------------------------------------------------------------------------------------ */

static size_t or_default(size_t value, size_t fallback)
{
    return value ? value : fallback;
}

static enum fc_code allocate(struct fc_scorer *s, struct fc_error *err)
{
    struct fc_device *dev = s->model->dev;
    size_t rows = s->options.rows, n_ctx = s->model->n_ctx, pages = s->options.cache_tokens;
    s->max_targets = 4 * rows;
    s->max_held = 64 * rows > n_ctx ? 64 * rows : n_ctx;
    s->ids = fc_alloc(n_ctx, sizeof *s->ids, "scorer", err);
    s->tables = fc_alloc(s->max_held, sizeof *s->tables, "scorer", err);
    s->row_of = fc_alloc(pages, sizeof *s->row_of, "scorer", err);
    s->wanted = fc_alloc(rows, sizeof *s->wanted, "scorer", err);
    s->targets = fc_alloc(s->max_targets, sizeof *s->targets, "scorer", err);
    s->tokens = dev->k->host_alloc(dev->stream, s->max_targets * sizeof *s->tokens, err);
    s->losses = dev->k->host_alloc(dev->stream, s->max_targets * sizeof *s->losses, err);
    if (!s->ids || !s->tables || !s->row_of || !s->wanted || !s->targets || !s->tokens ||
        !s->losses)
        return FC_ERR_MEMORY;
    s->device_tokens =
        fc_device_alloc(dev, s->max_targets * sizeof *s->device_tokens, FC_MEM_STAGING, err);
    s->device_losses =
        fc_device_alloc(dev, s->max_targets * sizeof *s->device_losses, FC_MEM_STAGING, err);
    return s->device_tokens && s->device_losses ? FC_OK : FC_ERR_MEMORY;
}

static enum fc_code create_parts(struct fc_scorer *s, struct fc_error *err)
{
    struct fc_scorer_options *o = &s->options;
    size_t n_ctx = s->model->n_ctx;
    o->rows = or_default(o->rows, 1024);
    o->logits = or_default(o->logits, 128);
    if (o->rows > 65536 || o->logits > 65536)
        return fc_fail(err, FC_ERR_USAGE,
                       "scorer: %zu rows, %zu rows of logits: expected at most "
                       "65536",
                       o->rows, o->logits);
    size_t context = n_ctx < 8192 ? n_ctx : 8192;
    o->cache_tokens = or_default(o->cache_tokens, 4 * o->rows > context ? 4 * o->rows : context);
    /* Page tables of one-token pages are as long as the sequence: the pass ends early where
     * sequences are so long that the tables, not the rows, fill it. */
    struct fc_decoder_limits limits = {
        .rows = o->rows, .logits = o->logits, .table_entries = 512 * o->rows};
    enum fc_code code = fc_kv_cache_create(&s->cache, s->model, 1, o->cache_tokens, err);
    if (code == FC_OK)
        code = fc_decoder_create(&s->decoder, s->model, s->cache, &limits, err);
    if (code == FC_OK)
        code = allocate(s, err);
    return code;
}

enum fc_code fc_scorer_create(struct fc_scorer **scorer, struct fc_model *model,
                              const struct fc_scorer_options *options, struct fc_error *err)
{
    *scorer = NULL;
    struct fc_scorer *s = fc_alloc(1, sizeof *s, "scorer", err);
    if (!s)
        return FC_ERR_MEMORY;
    s->model = model;
    if (options)
        s->options = *options;
    s->pass = 1; /* row_of is zeroed: of no pass */
    enum fc_code code = create_parts(s, err);
    if (code != FC_OK) {
        fc_scorer_free(s);
        return code;
    }
    fc_decoder_begin(s->decoder);
    *scorer = s;
    return FC_OK;
}

void fc_scorer_free(struct fc_scorer *s)
{
    if (!s)
        return;
    struct fc_device *dev = s->model->dev;
    fc_device_free(dev, s->device_tokens, s->max_targets * sizeof *s->device_tokens,
                   FC_MEM_STAGING);
    fc_device_free(dev, s->device_losses, s->max_targets * sizeof *s->device_losses,
                   FC_MEM_STAGING);
    fc_decoder_free(s->decoder);
    fc_kv_cache_free(s->cache);
    free(s->ids);
    free(s->tables);
    free(s->row_of);
    free(s->wanted);
    free(s->targets);
    dev->k->host_free(dev->stream, s->tokens);
    dev->k->host_free(dev->stream, s->losses);
    free(s);
}
