#include "engine/kv_cache.h"

#include "base/memory.h"

#include <assert.h>
#include <string.h>

enum { NONE = -1 };

/* A page is in one of three places: held (refs > 0), idle (refs 0, in the tree), or free. Idle and
 * free pages are chained through prev and next. */
struct page {
    int32_t refs;
    int32_t parent; /* in the tree: the page before it, NONE at the start of a prompt */
    int32_t chain;  /* next page of its bucket */
    int32_t prev, next;
    bool shared; /* is in the tree */
    bool filled; /* is computed */
};

struct fc_kv_cache {
    struct fc_device *dev;
    void *memory;
    size_t bytes;
    struct fc_pages *layers;
    size_t page_size, n_pages, available;
    struct page *pages;
    int32_t *tokens;  /* [n_pages, page_size]: what the pages of the tree stand for */
    int32_t *buckets; /* heads of the chains, by hash of (parent, tokens) */
    size_t n_buckets; /* a power of two */
    int32_t free_head;
    int32_t idle_first, idle_last; /* least and most recently held */
};

/* ---- lists ----------------------------------------------------------------------------------- */

static void free_push(struct fc_kv_cache *c, int32_t p)
{
    c->pages[p].next = c->free_head;
    c->free_head = p;
}

static void idle_append(struct fc_kv_cache *c, int32_t p)
{
    c->pages[p].prev = c->idle_last;
    c->pages[p].next = NONE;
    if (c->idle_last >= 0)
        c->pages[c->idle_last].next = p;
    else
        c->idle_first = p;
    c->idle_last = p;
}

static void idle_remove(struct fc_kv_cache *c, int32_t p)
{
    const struct page *page = &c->pages[p];
    if (page->prev >= 0)
        c->pages[page->prev].next = page->next;
    else
        c->idle_first = page->next;
    if (page->next >= 0)
        c->pages[page->next].prev = page->prev;
    else
        c->idle_last = page->prev;
}

/* ---- the prefix tree ------------------------------------------------------------------------- */

static int32_t *bucket(const struct fc_kv_cache *c, int32_t parent, const int32_t *tokens)
{
    uint64_t h = (uint64_t)(uint32_t)parent + 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < c->page_size; i++) {
        h = (h ^ (uint32_t)tokens[i]) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    return &c->buckets[h & (c->n_buckets - 1)];
}

static int32_t tree_find(const struct fc_kv_cache *c, int32_t parent, const int32_t *tokens)
{
    int32_t p = *bucket(c, parent, tokens);
    while (p >= 0 &&
           (c->pages[p].parent != parent || memcmp(c->tokens + (size_t)p * c->page_size, tokens,
                                                   c->page_size * sizeof *tokens) != 0))
        p = c->pages[p].chain;
    return p;
}

static void tree_add(struct fc_kv_cache *c, int32_t p, int32_t parent, const int32_t *tokens)
{
    struct page *page = &c->pages[p];
    int32_t *head = bucket(c, parent, tokens);
    memcpy(c->tokens + (size_t)p * c->page_size, tokens, c->page_size * sizeof *tokens);
    page->parent = parent;
    page->shared = true;
    page->chain = *head;
    *head = p;
}

static void tree_remove(struct fc_kv_cache *c, int32_t p)
{
    struct page *page = &c->pages[p];
    int32_t *at = bucket(c, page->parent, c->tokens + (size_t)p * c->page_size);
    while (*at != p)
        at = &c->pages[*at].chain;
    *at = page->chain;
    page->shared = false;
}

/* ---- holding pages --------------------------------------------------------------------------- */

static void hold(struct fc_kv_cache *c, int32_t p)
{
    if (c->pages[p].refs++ == 0) {
        idle_remove(c, p);
        c->available--;
    }
}

static void release(struct fc_kv_cache *c, int32_t p)
{
    struct page *page = &c->pages[p];
    assert(page->refs > 0);
    if (--page->refs > 0)
        return;
    c->available++;
    if (page->shared && page->filled) {
        idle_append(c, p);
        return;
    }
    if (page->shared)
        tree_remove(c, p);
    free_push(c, p);
}

/* A page for new content; the caller has checked that one is available. */
static int32_t fresh(struct fc_kv_cache *c)
{
    int32_t p = c->free_head;
    if (p >= 0) {
        c->free_head = c->pages[p].next;
    } else {
        p = c->idle_first;
        idle_remove(c, p);
        tree_remove(c, p);
    }
    c->pages[p].refs = 1;
    c->pages[p].filled = false;
    c->available--;
    return p;
}

bool fc_kv_cache_take(struct fc_kv_cache *c, const int32_t *tokens, size_t n_shared, size_t n,
                      int32_t *table)
{
    int32_t parent = NONE;
    size_t at = 0;
    for (; at < n_shared; at++) {
        int32_t p = tree_find(c, parent, tokens + at * c->page_size);
        if (p < 0)
            break;
        hold(c, p);
        table[at] = parent = p;
    }
    if (n - at > c->available) {
        fc_kv_cache_give(c, table, at);
        return false;
    }
    for (; at < n; at++) {
        table[at] = fresh(c);
        if (at < n_shared) {
            tree_add(c, table[at], parent, tokens + at * c->page_size);
            parent = table[at];
        }
    }
    return true;
}

void fc_kv_cache_give(struct fc_kv_cache *c, const int32_t *table, size_t n)
{
    while (n-- > 0) /* children before parents: see the header */
        release(c, table[n]);
}

bool fc_kv_cache_filled(const struct fc_kv_cache *c, int32_t p)
{
    return c->pages[p].filled;
}

void fc_kv_cache_fill(struct fc_kv_cache *c, int32_t p)
{
    c->pages[p].filled = true;
}

void fc_kv_cache_forget(struct fc_kv_cache *c)
{
    while (c->idle_first >= 0) {
        int32_t p = c->idle_first;
        idle_remove(c, p);
        free_push(c, p);
    }
    for (size_t i = 0; i < c->n_pages; i++)
        c->pages[i].shared = false;
    for (size_t i = 0; i < c->n_buckets; i++)
        c->buckets[i] = NONE;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static enum fc_code plan_memory(struct fc_kv_cache *c, const struct fc_model *model,
                                struct fc_error *err)
{
    size_t slot = model->heads.nkv * model->heads.hs * fc_dtype_size(model->dtype);
    if (c->page_size == 0 || c->n_pages == 0)
        return fc_fail(err, FC_ERR_USAGE, "KV cache: %zu pages of %zu tokens: expected at least 1",
                       c->n_pages, c->page_size);
    if (c->n_pages >= INT32_MAX / c->page_size)
        return fc_fail(err, FC_ERR_USAGE,
                       "KV cache: %zu pages of %zu tokens: expected at most %d tokens", c->n_pages,
                       c->page_size, INT32_MAX);
    if (__builtin_mul_overflow(slot, (c->n_pages + 1) * c->page_size, &c->bytes) ||
        __builtin_mul_overflow(c->bytes, 2 * model->config.n_layer, &c->bytes))
        return fc_fail(err, FC_ERR_MEMORY, "KV cache: %zu pages of %zu tokens: size overflows",
                       c->n_pages, c->page_size);
    return FC_OK;
}

static void set_layers(struct fc_kv_cache *c, size_t n_layer)
{
    size_t plane = c->bytes / (2 * n_layer);
    unsigned char *at = c->memory;
    for (size_t l = 0; l < n_layer; l++, at += 2 * plane)
        c->layers[l] =
            (struct fc_pages){.keys = at, .values = at + plane, .page_size = c->page_size};
}

enum fc_code fc_kv_cache_create(struct fc_kv_cache **cache, const struct fc_model *model,
                                size_t page_size, size_t n_pages, struct fc_error *err)
{
    enum fc_code code = FC_ERR_MEMORY;
    *cache = NULL;
    struct fc_kv_cache *c = fc_alloc(1, sizeof *c, "KV cache", err);
    if (!c)
        return code;
    c->dev = model->dev;
    c->page_size = page_size;
    c->n_pages = c->available = n_pages;
    code = plan_memory(c, model, err);
    if (code != FC_OK)
        goto cleanup;
    c->n_buckets = 16;
    while (c->n_buckets < 2 * n_pages)
        c->n_buckets *= 2;
    code = FC_ERR_MEMORY;
    c->layers = fc_alloc(model->config.n_layer, sizeof *c->layers, "KV cache layers", err);
    c->pages = fc_alloc(n_pages, sizeof *c->pages, "KV cache pages", err);
    c->tokens = fc_alloc(n_pages * page_size, sizeof *c->tokens, "KV cache tokens", err);
    c->buckets = fc_alloc(c->n_buckets, sizeof *c->buckets, "KV cache index", err);
    if (!c->layers || !c->pages || !c->tokens || !c->buckets)
        goto cleanup;
    c->memory = fc_device_alloc(c->dev, c->bytes, FC_MEM_CACHE, err);
    if (!c->memory)
        goto cleanup;
    set_layers(c, model->config.n_layer);
    c->free_head = c->idle_first = c->idle_last = NONE;
    for (size_t i = n_pages; i-- > 0;)
        free_push(c, (int32_t)i);
    fc_kv_cache_forget(c);
    *cache = c;
    return FC_OK;
cleanup:
    fc_kv_cache_free(c);
    return code;
}

void fc_kv_cache_free(struct fc_kv_cache *c)
{
    if (!c)
        return;
    fc_device_free(c->dev, c->memory, c->bytes, FC_MEM_CACHE);
    free(c->layers);
    free(c->pages);
    free(c->tokens);
    free(c->buckets);
    free(c);
}

const struct fc_pages *fc_kv_cache_layer(const struct fc_kv_cache *c, size_t layer)
{
    return &c->layers[layer];
}

size_t fc_kv_cache_page_size(const struct fc_kv_cache *c)
{
    return c->page_size;
}

size_t fc_kv_cache_pages(const struct fc_kv_cache *c)
{
    return c->n_pages;
}

int32_t fc_kv_cache_spare(const struct fc_kv_cache *c)
{
    return (int32_t)c->n_pages;
}

size_t fc_kv_cache_available(const struct fc_kv_cache *c)
{
    return c->available;
}
