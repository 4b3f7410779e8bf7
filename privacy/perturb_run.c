#include "base/clock.h"
#include "privacy/perturb_private.h"
#include "privacy/perturbed_private.h"

#define BATCH_TEXTS 4096               /* texts in one batch, so in one line of the ledger */
#define BATCH_BYTES ((size_t)64 << 20) /* of rankings kept for a batch */
#define QUERY_BLOCK 256                /* positions ranked at once */

/* A batch of new texts on their way. */
struct batch {
    size_t n;
    size_t *index;                 /* [n] in the caller's texts */
    struct fc_document *documents; /* [n] */
    size_t *positions;             /* [n] outputs of each */
    uint64_t *draws;               /* [n] of them drawn, the others are public */
    size_t *starts;                /* [n] of its outputs in drawn */
    int32_t *drawn;                /* outputs end to end; -1 - i is public word i */
    size_t drawn_capacity, n_drawn;
    struct fc_query *queries; /* [QUERY_BLOCK] */
    int32_t **results;        /* [QUERY_BLOCK] where the draw goes */
    int32_t *top;             /* [QUERY_BLOCK, depth] */
};

/* ---- plan ---------------------------------------------------------------------------------------
 */

/* How many outputs a text of n units gets. */
static size_t positions_of(const struct fc_perturber *p, size_t n)
{
    if (p->pad || !p->ranking->type->aligned)
        return p->max_units;
    return p->max_units && n > p->max_units ? p->max_units : n;
}

/* The public word at a position of a document, n_public if it is to be drawn. */
static size_t public_at(const struct fc_perturber *p, const struct fc_document *d, size_t position)
{
    if (!p->n_public || position >= d->units.n)
        return p->n_public;
    struct fc_unit u = d->units.items[position];
    return fc_perturber_public(p, d->text + u.start, u.len);
}

static uint64_t count_draws(const struct fc_perturber *p, const struct fc_document *d)
{
    uint64_t draws = 0;
    for (size_t i = 0, n = positions_of(p, d->units.n); i < n; i++)
        draws += public_at(p, d, i) == p->n_public;
    return draws;
}

static const struct fc_ledger_entry *stored(const struct fc_perturber *p,
                                            const struct fc_ledger *ledger,
                                            const struct fc_private_text *text, struct fc_tag *tag)
{
    if (!ledger)
        return NULL;
    fc_ledger_tag(ledger, text->id, text->text, text->len, p->hash, tag);
    return fc_ledger_find(ledger, tag);
}

enum fc_code fc_perturber_plan(struct fc_perturber *p, const struct fc_ledger *ledger,
                               const struct fc_private_text *texts, size_t n,
                               struct fc_run_report *report, struct fc_error *err)
{
    struct fc_document d = {0};
    *report = (struct fc_run_report){.texts = n};
    enum fc_code code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < n; i++) {
        struct fc_tag tag;
        const struct fc_ledger_entry *entry = stored(p, ledger, &texts[i], &tag);
        uint64_t draws;
        if (entry) {
            draws = entry->draws;
            report->resent++;
        } else {
            d.text = texts[i].text;
            d.len = texts[i].len;
            code = fc_units_cut(p->cutter, d.text, d.len, &d.units, err);
            draws = code == FC_OK ? count_draws(p, &d) : 0;
            size_t outputs = positions_of(p, d.units.n);
            report->draws += draws;
            report->public_units += outputs - draws;
            report->cut_units +=
                p->ranking->type->aligned && d.units.n > outputs ? d.units.n - outputs : 0;
        }
        report->longest = draws > report->longest ? (size_t)draws : report->longest;
    }
    fc_units_free(&d.units);
    fc_perturber_cost(p, report->longest, &report->document);
    fc_perturber_cost(p, report->draws, &report->run);
    report->client = report->run;
    if (ledger)
        fc_ledger_spent(ledger, &report->client);
    if (code == FC_OK && ledger)
        code = fc_ledger_afford(ledger, &p->profile, report->draws, err);
    return code;
}

/* ---- one batch ----------------------------------------------------------------------------------
 */

static void batch_free(struct batch *b)
{
    for (size_t i = 0; b->documents && i < BATCH_TEXTS; i++)
        fc_units_free(&b->documents[i].units);
    free(b->index);
    free(b->documents);
    free(b->positions);
    free(b->draws);
    free(b->starts);
    free(b->drawn);
    free(b->queries);
    free(b->results);
    free(b->top);
}

static enum fc_code batch_open(struct batch *b, size_t depth, struct fc_error *err)
{
    *b = (struct batch){0};
    b->index = fc_alloc(BATCH_TEXTS, sizeof *b->index, "batch", err);
    b->documents = fc_alloc(BATCH_TEXTS, sizeof *b->documents, "batch", err);
    b->positions = fc_alloc(BATCH_TEXTS, sizeof *b->positions, "batch", err);
    b->draws = fc_alloc(BATCH_TEXTS, sizeof *b->draws, "batch", err);
    b->starts = fc_alloc(BATCH_TEXTS, sizeof *b->starts, "batch", err);
    b->queries = fc_alloc(QUERY_BLOCK, sizeof *b->queries, "batch", err);
    b->results = fc_alloc(QUERY_BLOCK, sizeof *b->results, "batch", err);
    b->top = fc_alloc(QUERY_BLOCK, depth * sizeof *b->top, "batch", err);
    return b->index && b->documents && b->positions && b->draws && b->starts && b->queries &&
                   b->results && b->top
               ? FC_OK
               : FC_ERR_MEMORY;
}

/* Takes texts from *next on that the ledger does not have, until the batch is full; what it has
 * becomes its object at once. */
static enum fc_code gather(struct fc_perturber *p, const struct fc_ledger *ledger,
                           const struct fc_private_text *texts, size_t n, size_t *next,
                           struct batch *b, struct fc_perturbed **out, struct fc_error *err)
{
    size_t room = BATCH_BYTES / (p->profile.depth * sizeof(int32_t)), units = 0;
    enum fc_code code = FC_OK;
    b->n = b->n_drawn = 0;
    for (; code == FC_OK && *next < n && b->n < BATCH_TEXTS && units < room; (*next)++) {
        struct fc_tag tag;
        const struct fc_ledger_entry *entry = stored(p, ledger, &texts[*next], &tag);
        if (entry) {
            code = fc_perturbed_make(&out[*next], entry->text, entry->len, err);
            if (code == FC_OK) {
                struct fc_spent cost;
                fc_perturber_cost(p, entry->draws, &cost);
                out[*next]->draws = entry->draws;
                out[*next]->epsilon = cost.pure;
                out[*next]->resent = out[*next]->is_protected = out[*next]->charged = true;
            }
            continue;
        }
        struct fc_document *d = &b->documents[b->n];
        d->text = texts[*next].text;
        d->len = texts[*next].len;
        code = fc_units_cut(p->cutter, d->text, d->len, &d->units, err);
        if (code != FC_OK)
            break;
        b->index[b->n] = *next;
        b->positions[b->n] = positions_of(p, d->units.n);
        b->draws[b->n] = count_draws(p, d);
        b->starts[b->n] = b->n_drawn;
        b->n_drawn += b->positions[b->n];
        units += d->units.n;
        b->n++;
    }
    void *drawn = b->drawn;
    if (code == FC_OK)
        code = fc_grow(&drawn, &b->drawn_capacity, b->n_drawn, sizeof *b->drawn, "outputs", err);
    b->drawn = drawn;
    return code;
}

static enum fc_code draw_block(struct fc_perturber *p, struct batch *b, size_t n,
                               struct fc_error *err)
{
    size_t depth = p->profile.depth;
    enum fc_code code = p->ranking->type->rank(p->ranking, b->queries, n, depth, b->top, err);
    for (size_t i = 0; code == FC_OK && i < n; i++)
        code = fc_sampler_draw(&p->sampler, &p->random, b->top + i * depth, b->results[i], err);
    return code;
}

/* Position by position over all documents, as a ranking that looks at earlier outputs needs. */
static enum fc_code draw_batch(struct fc_perturber *p, struct batch *b, struct fc_error *err)
{
    size_t longest = 0, waiting = 0;
    for (size_t i = 0; i < b->n; i++)
        longest = b->positions[i] > longest ? b->positions[i] : longest;
    enum fc_code code =
        p->ranking->type->prepare(p->ranking, b->documents, b->n, p->profile.depth, err);
    for (size_t at = 0; code == FC_OK && at < longest; at++) {
        for (size_t i = 0; code == FC_OK && i < b->n; i++) {
            if (at >= b->positions[i])
                continue;
            int32_t *drawn = b->drawn + b->starts[i];
            size_t word = public_at(p, &b->documents[i], at);
            if (word < p->n_public) {
                drawn[at] = -1 - (int32_t)word;
                continue;
            }
            b->queries[waiting] = (struct fc_query){&b->documents[i], at, drawn};
            b->results[waiting] = drawn + at;
            if (++waiting == QUERY_BLOCK) {
                code = draw_block(p, b, waiting, err);
                waiting = 0;
            }
        }
        if (code == FC_OK && waiting)
            code = draw_block(p, b, waiting, err);
        waiting = 0;
    }
    return code;
}

/* The object of one drawn text. */
static enum fc_code spell(struct fc_perturber *p, const struct batch *b, size_t i,
                          const char **words, struct fc_text *text, struct fc_perturbed **out,
                          struct fc_error *err)
{
    for (size_t j = 0; j < b->positions[i]; j++) {
        int32_t at = b->drawn[b->starts[i] + j];
        words[j] =
            at < 0 ? p->public_words[-1 - at] : fc_vocabulary_entry(p->vocabulary, (size_t)at);
    }
    fc_text_clear(text);
    fc_units_join(words, b->positions[i], text);
    enum fc_code code = fc_text_check(text, err);
    if (code == FC_OK)
        code = fc_perturbed_make(out, text->data ? text->data : "", text->len, err);
    if (code != FC_OK)
        return code;
    struct fc_spent cost;
    fc_perturber_cost(p, b->draws[i], &cost);
    (*out)->draws = b->draws[i];
    (*out)->epsilon = cost.pure;
    (*out)->is_protected = true;
    return FC_OK;
}

/* Spells the batch and charges it: only what is in the ledger may leave. */
static enum fc_code finish_batch(struct fc_perturber *p, struct fc_ledger *ledger,
                                 const struct fc_private_text *texts, const struct batch *b,
                                 struct fc_perturbed **out, struct fc_error *err)
{
    struct fc_text text = {0};
    enum fc_code code = FC_ERR_MEMORY;
    const char **words = fc_alloc(b->n_drawn, sizeof *words, "outputs", err);
    struct fc_ledger_entry *entries = fc_alloc(b->n, sizeof *entries, "charges", err);
    if (!words || !entries)
        goto cleanup;
    code = FC_OK;
    for (size_t i = 0; code == FC_OK && i < b->n; i++) {
        const struct fc_private_text *t = &texts[b->index[i]];
        struct fc_perturbed **o = &out[b->index[i]];
        code = spell(p, b, i, words, &text, o, err);
        if (code != FC_OK || !ledger)
            continue;
        entries[i] =
            (struct fc_ledger_entry){.draws = b->draws[i], .text = (*o)->text, .len = (*o)->len};
        fc_ledger_tag(ledger, t->id, t->text, t->len, p->hash, &entries[i].tag);
    }
    if (code == FC_OK && ledger)
        code = fc_ledger_charge(ledger, &p->profile, p->hash, entries, b->n, err);
    for (size_t i = 0; code == FC_OK && ledger && i < b->n; i++)
        out[b->index[i]]->charged = true;
cleanup:
    free(words);
    free(entries);
    fc_text_free(&text);
    return code;
}

enum fc_code fc_perturber_run(struct fc_perturber *p, struct fc_ledger *ledger,
                              const struct fc_private_text *texts, size_t n,
                              struct fc_perturbed **out, struct fc_run_report *report,
                              struct fc_error *err)
{
    double begin = fc_now();
    struct batch b = {0};
    struct fc_run_report r;
    for (size_t i = 0; i < n; i++)
        out[i] = NULL;
    enum fc_code code = fc_perturber_plan(p, ledger, texts, n, &r, err);
    if (code == FC_OK)
        code = batch_open(&b, p->profile.depth, err);
    for (size_t next = 0; code == FC_OK && next < n;) {
        code = gather(p, ledger, texts, n, &next, &b, out, err);
        if (code == FC_OK && b.n)
            code = draw_batch(p, &b, err);
        if (code == FC_OK && b.n)
            code = finish_batch(p, ledger, texts, &b, out, err);
    }
    batch_free(&b);
    for (size_t i = 0; code != FC_OK && i < n; i++) {
        fc_perturbed_free(out[i]);
        out[i] = NULL;
    }
    if (ledger)
        fc_ledger_spent(ledger, &r.client);
    r.seconds = fc_now() - begin;
    if (report)
        *report = r;
    return code;
}
