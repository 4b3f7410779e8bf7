#define _GNU_SOURCE
#include "base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

void *fc_alloc(size_t count, size_t size, const char *what, struct fc_error *err)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX) {
        fc_fail(err, FC_ERR_MEMORY, "%s: %zu elements of %zu bytes do not fit in memory", what,
                count, size);
        return NULL;
    }
    void *p = calloc(bytes ? bytes : 1, 1);
    if (!p)
        fc_fail(err, FC_ERR_MEMORY, "%s: out of memory (%zu bytes)", what, bytes);
    return p;
}

enum fc_code fc_grow(void **array, size_t *capacity, size_t need, size_t size, const char *what,
                     struct fc_error *err)
{
    if (need <= *capacity)
        return FC_OK;
    size_t bigger = *capacity + *capacity / 2;
    if (bigger < need)
        bigger = need < 16 ? 16 : need;
    size_t bytes;
    if (__builtin_mul_overflow(bigger, size, &bytes) || bytes > PTRDIFF_MAX)
        return fc_fail(err, FC_ERR_MEMORY, "%s: %zu elements do not fit in memory", what, bigger);
    void *p = realloc(*array, bytes);
    if (!p)
        return fc_fail(err, FC_ERR_MEMORY, "%s: out of memory (%zu bytes)", what, bytes);
    *array = p;
    *capacity = bigger;
    return FC_OK;
}

char *fc_strndup(const char *text, size_t len, struct fc_error *err)
{
    char *copy = fc_alloc(len + 1, 1, "string", err);
    if (copy && len)
        memcpy(copy, text, len);
    return copy;
}

static int text_reserve(struct fc_text *t, size_t more)
{
    if (t->failed || more > PTRDIFF_MAX - t->len - 1) {
        t->failed = 1;
        return 0;
    }
    void *data = t->data;
    if (fc_grow(&data, &t->capacity, t->len + more + 1, 1, "text", NULL) != FC_OK)
        t->failed = 1;
    t->data = data;
    return !t->failed;
}

void fc_text_add(struct fc_text *t, const char *bytes, size_t len)
{
    if (!text_reserve(t, len))
        return;
    if (len)
        memcpy(t->data + t->len, bytes, len);
    t->len += len;
    t->data[t->len] = '\0';
}

void fc_text_puts(struct fc_text *t, const char *s)
{
    fc_text_add(t, s, strlen(s));
}

void fc_text_printf(struct fc_text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0)
        t->failed = 1;
    else if (text_reserve(t, (size_t)len)) {
        vsnprintf(t->data + t->len, (size_t)len + 1, format, again);
        t->len += (size_t)len;
    }
    va_end(again);
}

void fc_text_clear(struct fc_text *t)
{
    t->len = 0;
    if (t->data)
        t->data[0] = '\0';
}

void fc_text_free(struct fc_text *t)
{
    free(t->data);
    *t = (struct fc_text){0};
}

enum fc_code fc_text_check(const struct fc_text *t, struct fc_error *err)
{
    return t->failed ? fc_fail(err, FC_ERR_MEMORY, "text: out of memory") : FC_OK;
}
