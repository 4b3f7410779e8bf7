#include "engine/device.h"

#include <assert.h>
#include <string.h>

static const char *const purpose_names[FC_MEM_PURPOSES] = {
    [FC_MEM_WEIGHTS] = "weights",       [FC_MEM_PACKED] = "packed weights",
    [FC_MEM_MASTER] = "master weights", [FC_MEM_GRADIENTS] = "gradients",
    [FC_MEM_MOMENTS] = "Adam moments",  [FC_MEM_ACTIVATIONS] = "activations",
    [FC_MEM_CACHE] = "KV cache",        [FC_MEM_STAGING] = "staging",
};

const char *fc_purpose_name(enum fc_purpose purpose)
{
    return purpose < FC_MEM_PURPOSES ? purpose_names[purpose] : "unknown";
}

enum fc_code fc_device_open(struct fc_device *dev, const char *name, int threads,
                            struct fc_error *err)
{
    *dev = (struct fc_device){0};
    if (strcmp(name, "cpu") != 0 && strcmp(name, "auto") != 0)
        return fc_fail(err, strncmp(name, "cuda", 4) == 0 ? FC_ERR_UNSUPPORTED : FC_ERR_USAGE,
                       "device \"%s\": this build has the devices: cpu, auto", name);
    dev->k = &fc_kernels_cpu;
    dev->stream = dev->k->stream_open(0, threads, err);
    if (!dev->stream)
        return err ? err->code : FC_ERR_INTERNAL;
    strcpy(dev->name, "cpu");
    return FC_OK;
}

void fc_device_close(struct fc_device *dev)
{
    if (dev->stream)
        dev->k->stream_close(dev->stream);
    *dev = (struct fc_device){0};
}

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

void *fc_device_alloc(struct fc_device *dev, size_t bytes, enum fc_purpose purpose,
                      struct fc_error *err)
{
    static const char *const lower[FC_MEM_PURPOSES] = {
        [FC_MEM_WEIGHTS] = "--dtype bf16 halves the weights",
        [FC_MEM_PACKED] = "--dtype bf16 halves the packed weights",
        [FC_MEM_MASTER] = "a smaller model needs less",
        [FC_MEM_GRADIENTS] = "a smaller model needs less",
        [FC_MEM_MOMENTS] = "a smaller model needs less",
        [FC_MEM_ACTIVATIONS] = "lower --tokens-per-batch",
        [FC_MEM_CACHE] = "lower --cache-tokens or --max-batch",
        [FC_MEM_STAGING] = "lower --max-batch",
    };
    struct fc_error why = {0};
    void *p = dev->k->alloc(dev->stream, bytes, &why);
    if (!p) {
        char text[256];
        describe_memory(dev, text, sizeof text);
        fc_fail(err, why.code, "%s: %s (in use: %s); %s", purpose_names[purpose], why.text,
                text[0] ? text : "nothing yet", lower[purpose]);
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
