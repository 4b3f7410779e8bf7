/* The device that a run computes on: a back end, its stream, and its memory counted by purpose. */
#ifndef FC_ENGINE_DEVICE_H
#define FC_ENGINE_DEVICE_H

#include "kernels/kernels.h"

#include <stdio.h>

/* What device memory is for: the table that is printed at start-up and when memory runs out. */
enum fc_purpose {
    FC_MEM_WEIGHTS,
    FC_MEM_PACKED,    /* weights in GEMM layout, for generation */
    FC_MEM_QUANTISED, /* weights in the blocks of their file, for generation */
    FC_MEM_MASTER,    /* fp32 master weights */
    FC_MEM_GRADIENTS,
    FC_MEM_MOMENTS,     /* Adam's m and v */
    FC_MEM_ACTIVATIONS, /* kept for backward, and scratch of a pass */
    FC_MEM_CACHE,       /* KV cache */
    FC_MEM_STAGING,     /* host <-> device */
    FC_MEM_PURPOSES
};

struct fc_device {
    const struct fc_kernels *k;
    struct fc_stream *stream;
    int index;                    /* of the device in its back end */
    char name[32];                /* "cpu", "cuda:0": opens the same device again */
    char note[FC_ERROR_SIZE];     /* "auto": why a better device was not taken; else empty */
    size_t used[FC_MEM_PURPOSES]; /* bytes now */
    size_t peak;                  /* most bytes in use at once, all purposes together */
};

/* name: "cpu", "cuda:N" ("cuda" is the first), or "auto": CUDA's first device where there is one
 * that can be used, else the CPU, with dev->note saying why. threads (of the CPU) 0: all cores.
 * Opening one name twice gives two streams of one device, whose memory both may use.
 * FC_ERR_USAGE for an unknown name, FC_ERR_UNSUPPORTED for one that this build or machine lacks. */
enum fc_code fc_device_open(struct fc_device *dev, const char *name, int threads,
                            struct fc_error *err);
void fc_device_close(struct fc_device *dev); /* a zeroed struct is fine */

/* Device memory for a purpose, not initialised. NULL with *err, whose text says what every purpose
 * holds and which flag lowers it. Free with the same purpose and size. */
void *fc_device_alloc(struct fc_device *dev, size_t bytes, enum fc_purpose purpose,
                      struct fc_error *err);
void fc_device_free(struct fc_device *dev, void *p, size_t bytes, enum fc_purpose purpose);
/* Hands on an error of a call that takes device memory for itself (packing weights): one of memory
 * with the same words about purposes and flags. Returns its code. */
enum fc_code fc_device_explain(const struct fc_device *dev, enum fc_purpose purpose,
                               const struct fc_error *why, struct fc_error *err);
/* Counts memory that someone else allocated for us (packed weights): may be negative. */
void fc_device_count(struct fc_device *dev, long long bytes, enum fc_purpose purpose);

/* What the device is, for messages and records: "NVIDIA H100, 132 SMs, 79 GiB". */
void fc_device_describe(const struct fc_device *dev, char *text, size_t size);

/* What --device can name on this machine: the CPU last, every CUDA device before it. Fills at most
 * `most` entries and returns how many; *why_no_cuda (may be NULL) says why there is no CUDA device,
 * where there is none. */
struct fc_device_entry {
    char name[32], text[256];
};
size_t fc_device_list(struct fc_device_entry *entries, size_t most, struct fc_error *why_no_cuda);

/* Names "NAME NUMBER" for a profiler until dev->k->range_pop. */
void fc_device_range(const struct fc_device *dev, const char *name, size_t number);

const char *fc_purpose_name(enum fc_purpose purpose);
/* One line a purpose in use: name and MiB. */
void fc_device_print_memory(const struct fc_device *dev, FILE *out);

/* A bump allocator over one block, sized up front: no allocation in a training or decode step.
 * Take everything in a dry run with base == NULL to learn `used`, then again with memory. */
struct fc_arena {
    unsigned char *base;
    size_t used, size;
};
/* count elements of size bytes, 64-byte aligned; NULL in a dry run. Overflow of the block is a
 * bug of the caller and aborts in debug builds. */
void *fc_arena_take(struct fc_arena *a, size_t count, size_t size);

#endif
