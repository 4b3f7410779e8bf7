#include "engine/device.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const purpose_names[FC_MEM_PURPOSES] = {
    [FC_MEM_WEIGHTS] = "weights",
    [FC_MEM_PACKED] = "packed weights",
    [FC_MEM_QUANTISED] = "quantised weights",
    [FC_MEM_MASTER] = "master weights",
    [FC_MEM_GRADIENTS] = "gradients",
    [FC_MEM_MOMENTS] = "Adam moments",
    [FC_MEM_ACTIVATIONS] = "activations",
    [FC_MEM_CACHE] = "KV cache",
    [FC_MEM_STAGING] = "staging",
};

const char *fc_purpose_name(enum fc_purpose purpose)
{
    return purpose < FC_MEM_PURPOSES ? purpose_names[purpose] : "unknown";
}

/* ---- which device ---------------------------------------------------------------------------- */

#ifdef FEDCOT_CUDA
static const struct fc_kernels *const cuda = &fc_kernels_cuda;
#else
static const struct fc_kernels *const cuda = NULL;
#endif
static const char no_cuda[] =
    "this build has no CUDA back end (nvcc was not found when it was made)";

static enum fc_code open_on(struct fc_device *dev, const struct fc_kernels *k, int index,
                            int threads, struct fc_error *err)
{
    struct fc_error why = {0};
    dev->k = k;
    dev->index = index;
    dev->stream = k->stream_open(index, threads, &why);
    if (!dev->stream)
        return fc_fail(err, why.code ? why.code : FC_ERR_INTERNAL, "%s%s", why.text,
                       why.code == FC_ERR_MEMORY && k != &fc_kernels_cpu
                           ? "; the device is full: nvidia-smi shows who holds its "
                             "memory, or take another --device"
                           : "");
    if (k == &fc_kernels_cpu)
        strcpy(dev->name, k->name);
    else
        snprintf(dev->name, sizeof dev->name, "%s:%d", k->name, index);
    return FC_OK;
}

/* The N of "cuda:N", 0 of "cuda"; -1 for any other name. */
static int cuda_index(const char *name)
{
    if (strcmp(name, "cuda") == 0)
        return 0;
    if (strncmp(name, "cuda:", 5) != 0 || name[5] < '0' || name[5] > '9')
        return -1;
    char *end;
    long n = strtol(name + 5, &end, 10);
    return *end || n > 1023 ? -1 : (int)n;
}

static enum fc_code open_best(struct fc_device *dev, int threads, struct fc_error *err)
{
    struct fc_error why = {0};
    if (!cuda)
        fc_fail(&why, FC_ERR_UNSUPPORTED, "%s", no_cuda);
    else if (open_on(dev, cuda, 0, threads, &why) == FC_OK)
        return FC_OK;
    enum fc_code code = open_on(dev, &fc_kernels_cpu, 0, threads, err);
    if (code == FC_OK)
        strcpy(dev->note, why.text);
    return code;
}

enum fc_code fc_device_open(struct fc_device *dev, const char *name, int threads,
                            struct fc_error *err)
{
    *dev = (struct fc_device){0};
    enum fc_code code;
    if (strcmp(name, "auto") == 0)
        code = open_best(dev, threads, err);
    else if (strcmp(name, "cpu") == 0)
        code = open_on(dev, &fc_kernels_cpu, 0, threads, err);
    else if (cuda_index(name) < 0)
        code = fc_fail(err, FC_ERR_USAGE,
                       "device \"%s\": expected cpu, cuda, cuda:N with N from 0, or auto", name);
    else if (!cuda)
        code =
            fc_fail(err, FC_ERR_UNSUPPORTED, "device \"%s\": %s; take --device cpu", name, no_cuda);
    else
        code = open_on(dev, cuda, cuda_index(name), threads, err);
    if (code != FC_OK)
        *dev = (struct fc_device){0};
    return code;
}

void fc_device_close(struct fc_device *dev)
{
    if (dev->stream)
        dev->k->stream_close(dev->stream);
    *dev = (struct fc_device){0};
}

void fc_device_describe(const struct fc_device *dev, char *text, size_t size)
{
    if (!dev->k->describe(dev->index, text, size))
        snprintf(text, size, "unknown");
}

size_t fc_device_list(struct fc_device_entry *entries, size_t most, struct fc_error *why_no_cuda)
{
    int n = 0;
    if (cuda)
        n = cuda->device_count(why_no_cuda);
    else
        fc_fail(why_no_cuda, FC_ERR_UNSUPPORTED, "%s", no_cuda);
    size_t used = 0;
    for (int i = 0; i < n && used + 1 < most; i++, used++) {
        snprintf(entries[used].name, sizeof entries[used].name, "%s:%d", cuda->name, i);
        if (!cuda->describe(i, entries[used].text, sizeof entries[used].text))
            strcpy(entries[used].text, "unknown");
    }
    if (used < most) {
        strcpy(entries[used].name, fc_kernels_cpu.name);
        if (!fc_kernels_cpu.describe(0, entries[used].text, sizeof entries[used].text))
            strcpy(entries[used].text, "unknown");
        used++;
    }
    return used;
}

void fc_device_range(const struct fc_device *dev, const char *name, size_t number)
{
    char text[48];
    snprintf(text, sizeof text, "%s %zu", name, number);
    dev->k->range_push(text);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static size_t total_used(const struct fc_device *dev)
{
    size_t sum = 0;
    for (int i = 0; i < FC_MEM_PURPOSES; i++)
        sum += dev->used[i];
    return sum;
}

/* "weights 257 MiB, KV cache 90 MiB": what out-of-memory errors say. */
static void describe_memory(const struct fc_device *dev, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < FC_MEM_PURPOSES; i++) {
        if (dev->used[i] < 1 << 20)
            continue;
        int n = snprintf(text + at, size - at, "%s%s %zu MiB", at ? ", " : "", purpose_names[i],
                         dev->used[i] >> 20);
        if (n < 0 || (size_t)n >= size - at)
            return;
        at += (size_t)n;
    }
}

enum fc_code fc_device_explain(const struct fc_device *dev, enum fc_purpose purpose,
                               const struct fc_error *why, struct fc_error *err)
{
    static const char *const lower[FC_MEM_PURPOSES] = {
        [FC_MEM_WEIGHTS] = "--dtype bf16 halves the weights",
        [FC_MEM_PACKED] = "--dtype bf16 halves the packed weights",
        [FC_MEM_QUANTISED] = "a smaller model needs less",
        [FC_MEM_MASTER] = "a smaller model needs less",
        [FC_MEM_GRADIENTS] = "a smaller model needs less",
        [FC_MEM_MOMENTS] = "a smaller model needs less",
        [FC_MEM_ACTIVATIONS] = "lower --tokens-per-batch",
        [FC_MEM_CACHE] = "lower --cache-tokens or --max-batch",
        [FC_MEM_STAGING] = "lower --max-batch",
    };
    char text[256];
    if (why->code != FC_ERR_MEMORY)
        return fc_fail(err, why->code, "%s", why->text);
    describe_memory(dev, text, sizeof text);
    return fc_fail(err, why->code, "%s: %s (in use: %s); %s", purpose_names[purpose], why->text,
                   text[0] ? text : "nothing yet", lower[purpose]);
}

void *fc_device_alloc(struct fc_device *dev, size_t bytes, enum fc_purpose purpose,
                      struct fc_error *err)
{
    struct fc_error why = {0};
    void *p = dev->k->alloc(dev->stream, bytes, &why);
    if (!p) {
        fc_device_explain(dev, purpose, &why, err);
        return NULL;
    }
    fc_device_count(dev, (long long)bytes, purpose);
    return p;
}

void fc_device_free(struct fc_device *dev, void *p, size_t bytes, enum fc_purpose purpose)
{
    if (!p)
        return;
    dev->k->free(dev->stream, p);
    fc_device_count(dev, -(long long)bytes, purpose);
}

void fc_device_count(struct fc_device *dev, long long bytes, enum fc_purpose purpose)
{
    dev->used[purpose] = (size_t)((long long)dev->used[purpose] + bytes);
    size_t sum = total_used(dev);
    if (sum > dev->peak)
        dev->peak = sum;
}

void fc_device_print_memory(const struct fc_device *dev, FILE *out)
{
    for (int i = 0; i < FC_MEM_PURPOSES; i++)
        if (dev->used[i])
            fprintf(out, "memory %-15s %8.1f MiB\n", purpose_names[i],
                    (double)dev->used[i] / 1048576.0);
    fprintf(out, "memory %-15s %8.1f MiB\n", "peak", (double)dev->peak / 1048576.0);
}

void *fc_arena_take(struct fc_arena *a, size_t count, size_t size)
{
    size_t at = a->used;
    a->used = (at + count * size + 63) & ~(size_t)63;
    if (!a->base)
        return NULL;
    assert(a->used <= a->size);
    return a->base + at;
}
