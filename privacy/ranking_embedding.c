#define _POSIX_C_SOURCE 200809L
#include "privacy/ranking_embedding.h"

#include <math.h>
#include <string.h>

#define TOKEN_BLOCK 1024
#define POWER_ROUNDS 20

/* A piece of private text: not NUL-terminated. */
struct key {
    const char *text;
    size_t len;
};

struct embedding_ranking {
    struct fc_ranking base;
    struct fc_device *dev;
    const void *table;
    enum fc_dtype dtype;
    size_t n_rows, width;
    const struct fc_tokenizer *tok;
    const struct fc_vocabulary *vocabulary;

    double *mean;          /* [width] of V's unit vectors */
    double *top_direction; /* [width] their first principal direction, of length 1 */

    /* on the device */
    int32_t *ids;      /* [TOKEN_BLOCK] */
    void *rows;        /* [TOKEN_BLOCK, width] dtype */
    float *rows32;     /* the same in fp32 */
    float *targets;    /* [|V|, width], unit length */
    float *queries;    /* [FC_RANK_BLOCK, width] */
    float *scores;     /* [FC_RANK_BLOCK, |V|] */
    int32_t *selected; /* [FC_RANK_BLOCK, depth] */
    size_t selected_depth;

    /* of the prepared batch: the distinct units in rising order, and the order of V for each */
    struct key *keys;
    size_t n_keys, keys_capacity;
    int32_t *order; /* [n_keys, depth] */
    size_t depth;
};

static size_t size_v(const struct embedding_ranking *r)
{
    return fc_vocabulary_size(r->vocabulary);
}

static void embedding_close(struct fc_ranking *base)
{
    struct embedding_ranking *r = (struct embedding_ranking *)base;
    if (!r)
        return;
    struct fc_device *dev = r->dev;
    size_t cell = sizeof(float), w = r->width;
    fc_device_free(dev, r->ids, TOKEN_BLOCK * sizeof *r->ids, FC_MEM_STAGING);
    fc_device_free(dev, r->rows, TOKEN_BLOCK * w * fc_dtype_size(r->dtype), FC_MEM_STAGING);
    fc_device_free(dev, r->rows32, TOKEN_BLOCK * w * cell, FC_MEM_STAGING);
    fc_device_free(dev, r->targets, size_v(r) * w * cell, FC_MEM_WEIGHTS);
    fc_device_free(dev, r->queries, FC_RANK_BLOCK * w * cell, FC_MEM_STAGING);
    fc_device_free(dev, r->scores, FC_RANK_BLOCK * size_v(r) * cell, FC_MEM_STAGING);
    fc_device_free(dev, r->selected, FC_RANK_BLOCK * r->selected_depth * sizeof *r->selected,
                   FC_MEM_STAGING);
    free(r->mean);
    free(r->top_direction);
    free(r->keys);
    free(r->order);
    free(r);
}

/* ---- embeddings of texts -------------------------------------------------------------------- */

/* Tokens of n texts end to end; those of text i are starts[i] .. starts[i+1]-1. */
static enum fc_code tokens_of(struct embedding_ranking *r, const struct key *texts, size_t n,
                              struct fc_tokens *tokens, size_t *starts, struct fc_error *err)
{
    for (size_t i = 0; i < n; i++) {
        starts[i] = tokens->n;
        /* The entry that the unit is, if there is one: "Where" stands where "where" does. */
        const char *text = texts[i].text;
        size_t len = texts[i].len;
        int32_t entry = fc_vocabulary_find(r->vocabulary, text, len);
        if (entry >= 0) {
            text = fc_vocabulary_entry(r->vocabulary, (size_t)entry);
            len = strlen(text);
        }
        enum fc_code code = fc_unit_tokens(r->tok, text, len, tokens, err);
        if (code != FC_OK)
            return code;
    }
    starts[n] = tokens->n;
    for (size_t i = 0; i < tokens->n; i++)
        if (tokens->ids[i] < 0 || (size_t)tokens->ids[i] >= r->n_rows)
            return fc_fail(err, FC_ERR_INPUT,
                           "tokenizer: expected ids below the model's %zu, found one that is not",
                           r->n_rows);
    return FC_OK;
}

/* sums[n, width] += the embeddings of each text's tokens. */
static enum fc_code add_embeddings(struct embedding_ranking *r, const struct fc_tokens *tokens,
                                   const size_t *starts, double *sums, float *host,
                                   struct fc_error *err)
{
    const struct fc_kernels *k = r->dev->k;
    struct fc_stream *s = r->dev->stream;
    size_t w = r->width, text = 0;
    for (size_t at = 0; at < tokens->n; at += TOKEN_BLOCK) {
        size_t n = tokens->n - at < TOKEN_BLOCK ? tokens->n - at : TOKEN_BLOCK;
        k->upload(s, r->ids, tokens->ids + at, n * sizeof *r->ids);
        k->embed_forward(s, r->rows, r->table, r->ids, n, w, r->dtype);
        k->cast(s, r->rows32, FC_F32, r->rows, r->dtype, n * w);
        k->download(s, host, r->rows32, n * w * sizeof *host);
        enum fc_code code = k->sync(s, err);
        if (code != FC_OK)
            return code;
        for (size_t t = 0; t < n; t++) {
            while (starts[text + 1] <= at + t)
                text++;
            for (size_t c = 0; c < w; c++)
                sums[text * w + c] += (double)host[t * w + c];
        }
    }
    return FC_OK;
}

/* x / |x|; zero if that is not a number. */
static void normalise(double *x, size_t width)
{
    double square = 0;
    for (size_t c = 0; c < width; c++)
        square += x[c] * x[c];
    double scale = square > 0 && isfinite(square) ? 1 / sqrt(square) : 0;
    for (size_t c = 0; c < width; c++)
        x[c] = scale == 0 ? 0 : x[c] * scale;
}

static double dot(const double *x, const double *y, size_t width)
{
    double sum = 0;
    for (size_t c = 0; c < width; c++)
        sum += x[c] * y[c];
    return sum;
}

/* vectors[n, width] = the directions of n texts' mean embeddings (those of their sums). A text
 * without tokens, or with values that are not finite, is 0. */
static enum fc_code embed(struct embedding_ranking *r, const struct key *texts, size_t n,
                          double *vectors, struct fc_error *err)
{
    size_t w = r->width;
    struct fc_tokens tokens = {0};
    enum fc_code code = FC_ERR_MEMORY;
    size_t *starts = fc_alloc(n + 1, sizeof *starts, "ranking", err);
    float *host = fc_alloc(TOKEN_BLOCK, w * sizeof *host, "ranking", err);
    if (!starts || !host)
        goto cleanup;
    memset(vectors, 0, n * w * sizeof *vectors);
    code = tokens_of(r, texts, n, &tokens, starts, err);
    if (code == FC_OK)
        code = add_embeddings(r, &tokens, starts, vectors, host, err);
    for (size_t i = 0; code == FC_OK && i < n; i++)
        normalise(vectors + i * w, w);
cleanup:
    fc_tokens_free(&tokens);
    free(starts);
    free(host);
    return code;
}

/* device[n, width] = sign times the vectors without what V has in common, of length 1. A vector of
 * 0 stays 0: all its distances tie, and the order is that of the index. */
static enum fc_code project(struct embedding_ranking *r, double *vectors, size_t n, float sign,
                            float *device, struct fc_error *err)
{
    size_t w = r->width;
    float *host = fc_alloc(n, w * sizeof *host, "ranking", err);
    if (!host)
        return FC_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        double *x = vectors + i * w;
        if (dot(x, x, w) > 0) {
            for (size_t c = 0; c < w; c++)
                x[c] -= r->mean[c];
            double along = dot(x, r->top_direction, w);
            for (size_t c = 0; c < w; c++)
                x[c] -= along * r->top_direction[c];
            normalise(x, w);
        }
        for (size_t c = 0; c < w; c++)
            host[i * w + c] = sign * (float)x[c];
    }
    r->dev->k->upload(r->dev->stream, device, host, n * w * sizeof *host);
    enum fc_code code = r->dev->k->sync(r->dev->stream, err);
    free(host);
    return code;
}

/* ---- the type's functions ---------------------------------------------------------------------
 */

static int compare_keys(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

/* The distinct units of the documents, and the empty unit, which stands for padding. */
static enum fc_code collect_keys(struct embedding_ranking *r, const struct fc_document *documents,
                                 size_t n, struct fc_error *err)
{
    size_t total = 1;
    for (size_t d = 0; d < n; d++)
        total += documents[d].units.n;
    void *keys = r->keys;
    enum fc_code code =
        fc_grow(&keys, &r->keys_capacity, total, sizeof *r->keys, "distinct units", err);
    r->keys = keys;
    if (code != FC_OK)
        return code;
    size_t used = 0;
    r->keys[used++] = (struct key){"", 0};
    for (size_t d = 0; d < n; d++)
        for (size_t i = 0; i < documents[d].units.n; i++) {
            struct fc_unit u = documents[d].units.items[i];
            r->keys[used++] = (struct key){documents[d].text + u.start, u.len};
        }
    qsort(r->keys, used, sizeof *r->keys, compare_keys);
    r->n_keys = 1;
    for (size_t i = 1; i < used; i++)
        if (compare_keys(&r->keys[i], &r->keys[r->n_keys - 1]) != 0)
            r->keys[r->n_keys++] = r->keys[i];
    return FC_OK;
}

/* Room for the selection of a block, and for all of the batch. */
static enum fc_code make_room(struct embedding_ranking *r, size_t depth, struct fc_error *err)
{
    if (r->selected_depth != depth) {
        size_t row = FC_RANK_BLOCK * sizeof *r->selected;
        fc_device_free(r->dev, r->selected, row * r->selected_depth, FC_MEM_STAGING);
        r->selected_depth = 0;
        r->selected = fc_device_alloc(r->dev, row * depth, FC_MEM_STAGING, err);
        if (!r->selected)
            return FC_ERR_MEMORY;
        r->selected_depth = depth;
    }
    free(r->order);
    r->order = fc_alloc(r->n_keys, depth * sizeof *r->order, "rankings of the distinct units", err);
    r->depth = depth;
    return r->order ? FC_OK : FC_ERR_MEMORY;
}

/* A unit that is an entry of V is nearest to itself, also where others have the same embedding
 * ("12" and "21", for a tokenizer of single digits) or rounding says otherwise. */
static void put_itself_first(struct embedding_ranking *r, size_t key)
{
    int32_t *order = r->order + key * r->depth;
    int32_t self = fc_vocabulary_find(r->vocabulary, r->keys[key].text, r->keys[key].len);
    if (self < 0)
        return;
    int32_t before = self; /* shift the others down, up to its old place or out of the last one */
    for (size_t i = 0; i < r->depth; i++) {
        int32_t here = order[i];
        order[i] = before;
        if (here == self)
            break;
        before = here;
    }
}

static enum fc_code embedding_prepare(struct fc_ranking *base, const struct fc_document *documents,
                                      size_t n, size_t depth, struct fc_error *err)
{
    struct embedding_ranking *r = (struct embedding_ranking *)base;
    const struct fc_kernels *k = r->dev->k;
    struct fc_stream *s = r->dev->stream;
    size_t v = size_v(r);
    if (depth < 1 || depth > v)
        return fc_fail(err, FC_ERR_INTERNAL, "ranking: depth %zu of %zu outputs", depth, v);
    enum fc_code code = collect_keys(r, documents, n, err);
    if (code == FC_OK)
        code = make_room(r, depth, err);
    double *vectors = fc_alloc(FC_RANK_BLOCK, r->width * sizeof *vectors, "ranking", err);
    if (!vectors)
        code = FC_ERR_MEMORY;
    k->range_push("rank");
    for (size_t at = 0; code == FC_OK && at < r->n_keys; at += FC_RANK_BLOCK) {
        size_t m = r->n_keys - at < FC_RANK_BLOCK ? r->n_keys - at : FC_RANK_BLOCK;
        /* Minus the cosine, so that the nearest is the smallest. */
        code = embed(r, r->keys + at, m, vectors, err);
        if (code == FC_OK)
            code = project(r, vectors, m, -1, r->queries, err);
        if (code != FC_OK)
            break;
        struct fc_gemm g = {.a = r->queries,
                            .b = r->targets,
                            .y = r->scores,
                            .m = m,
                            .n = v,
                            .k = r->width,
                            .lda = r->width,
                            .ldb = r->width,
                            .ldy = v,
                            .trans_b = true,
                            .type = FC_F32,
                            .y_type = FC_F32};
        k->gemm(s, &g);
        k->select_smallest(s, r->selected, r->scores, m, v, depth);
        k->download(s, r->order + at * depth, r->selected, m * depth * sizeof *r->order);
        code = k->sync(s, err);
        for (size_t i = at; code == FC_OK && i < at + m; i++)
            put_itself_first(r, i);
    }
    k->range_pop();
    free(vectors);
    return code;
}

static enum fc_code embedding_rank(struct fc_ranking *base, const struct fc_query *queries,
                                   size_t n, size_t depth, int32_t *top, struct fc_error *err)
{
    struct embedding_ranking *r = (struct embedding_ranking *)base;
    for (size_t i = 0; i < n; i++) {
        const struct fc_document *d = queries[i].document;
        struct key key = {"", 0};
        if (queries[i].position < d->units.n) {
            struct fc_unit u = d->units.items[queries[i].position];
            key = (struct key){d->text + u.start, u.len};
        }
        const struct key *found =
            r->keys ? bsearch(&key, r->keys, r->n_keys, sizeof key, compare_keys) : NULL;
        if (!found || depth != r->depth)
            return fc_fail(err, FC_ERR_INTERNAL, "ranking: a unit was not prepared");
        memcpy(top + i * depth, r->order + (size_t)(found - r->keys) * depth, depth * sizeof *top);
    }
    return FC_OK;
}

static const struct fc_ranking_type embedding_type = {
    .name = "embedding",
    .aligned = true,
    .prepare = embedding_prepare,
    .rank = embedding_rank,
    .close = embedding_close,
};

static enum fc_code take_memory(struct embedding_ranking *r, struct fc_error *err)
{
    size_t cell = sizeof(float), w = r->width, v = size_v(r);
    struct {
        void **p;
        size_t bytes;
        enum fc_purpose purpose;
    } wanted[] = {
        {(void **)&r->ids, TOKEN_BLOCK * sizeof *r->ids, FC_MEM_STAGING},
        {&r->rows, TOKEN_BLOCK * w * fc_dtype_size(r->dtype), FC_MEM_STAGING},
        {(void **)&r->rows32, TOKEN_BLOCK * w * cell, FC_MEM_STAGING},
        {(void **)&r->targets, v * w * cell, FC_MEM_WEIGHTS},
        {(void **)&r->queries, FC_RANK_BLOCK * w * cell, FC_MEM_STAGING},
        {(void **)&r->scores, FC_RANK_BLOCK * v * cell, FC_MEM_STAGING},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *p = fc_device_alloc(r->dev, wanted[i].bytes, wanted[i].purpose, err);
        if (!p)
            return FC_ERR_MEMORY;
        memcpy(wanted[i].p, &p, sizeof p);
    }
    return FC_OK;
}

/* The mean of vectors[n, width] and, by power iteration, the first principal direction about it.
 * It need not converge to the last digit: any direction gives a ranking. */
static enum fc_code find_common(struct embedding_ranking *r, const double *vectors, size_t n,
                                struct fc_error *err)
{
    size_t w = r->width;
    double *next = fc_alloc(w, sizeof *next, "ranking", err);
    r->mean = fc_alloc(w, sizeof *r->mean, "ranking", err);
    r->top_direction = fc_alloc(w, sizeof *r->top_direction, "ranking", err);
    if (!next || !r->mean || !r->top_direction) {
        free(next);
        return FC_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < w; c++)
            r->mean[c] += vectors[i * w + c] / (double)n;
    memcpy(r->top_direction, r->mean, w * sizeof *r->mean);
    r->top_direction[0] += 1e-3; /* never 0, nor the mean itself */
    normalise(r->top_direction, w);
    for (int round = 0; round < POWER_ROUNDS; round++) {
        double offset = dot(r->mean, r->top_direction, w);
        memset(next, 0, w * sizeof *next);
        for (size_t i = 0; i < n; i++) {
            const double *x = vectors + i * w;
            double along = dot(x, r->top_direction, w) - offset;
            for (size_t c = 0; c < w; c++)
                next[c] += along * (x[c] - r->mean[c]);
        }
        normalise(next, w);
        memcpy(r->top_direction, next, w * sizeof *next);
    }
    free(next);
    return FC_OK;
}

static enum fc_code embed_vocabulary(struct embedding_ranking *r, struct fc_error *err)
{
    size_t v = size_v(r);
    double *vectors = fc_alloc(v, r->width * sizeof *vectors, "vocabulary", err);
    struct key *entries = fc_alloc(v, sizeof *entries, "vocabulary", err);
    enum fc_code code = vectors && entries ? FC_OK : FC_ERR_MEMORY;
    for (size_t i = 0; code == FC_OK && i < v; i++) {
        const char *entry = fc_vocabulary_entry(r->vocabulary, i);
        entries[i] = (struct key){entry, strlen(entry)};
    }
    if (code == FC_OK)
        code = embed(r, entries, v, vectors, err);
    if (code == FC_OK)
        code = find_common(r, vectors, v, err);
    if (code == FC_OK)
        code = project(r, vectors, v, 1, r->targets, err);
    free(vectors);
    free(entries);
    return code;
}

enum fc_code fc_ranking_embedding_open(struct fc_ranking **out, struct fc_device *dev,
                                       const void *table, enum fc_dtype dtype, size_t n_rows,
                                       size_t width, const struct fc_tokenizer *tok,
                                       const struct fc_vocabulary *vocabulary, struct fc_error *err)
{
    struct embedding_ranking *r = fc_alloc(1, sizeof *r, "ranking", err);
    if (!r)
        return FC_ERR_MEMORY;
    *r = (struct embedding_ranking){.base.type = &embedding_type,
                                    .dev = dev,
                                    .table = table,
                                    .dtype = dtype,
                                    .n_rows = n_rows,
                                    .width = width,
                                    .tok = tok,
                                    .vocabulary = vocabulary};
    enum fc_code code = take_memory(r, err);
    if (code == FC_OK)
        code = embed_vocabulary(r, err);
    if (code == FC_OK)
        *out = &r->base;
    else
        embedding_close(&r->base);
    return code;
}
