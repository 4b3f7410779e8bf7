/* Streams, memory and copies of the CPU back end.
 *
 * Floor: a copy reads and writes every byte once, a fill writes once. One core does not saturate
 * the memory of a server, so both are cut into 1 MiB blocks over the stream's threads. Everything
 * is complete when a call returns; sync only hands over the error. */
#define _GNU_SOURCE
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { BLOCK = 1 << 20, HUGE = 2 << 20 };

void *fc_cpu_acquire(size_t bytes, const char *what, struct fc_error *err)
{
    /* Large blocks lie on huge pages where the system grants them: fewer TLB misses in GEMM. */
    size_t align = bytes >= 2 * (size_t)HUGE ? (size_t)HUGE : 64;
    size_t size = (bytes + align - 1) / align * align;
    void *p = size < bytes ? NULL : aligned_alloc(align, size ? size : align);
    if (!p) {
        fc_fail(err, FC_ERR_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (align == (size_t)HUGE)
        (void)madvise(p, size, MADV_HUGEPAGE); /* advice: a refusal changes nothing but speed */
#endif
    return p;
}

void fc_cpu_release(void *p)
{
    free(p);
}

struct fc_stream *fc_cpu_stream_open(int index, int threads, struct fc_error *err)
{
    if (index != 0 || threads < 0 || threads > FC_CPU_MAX_THREADS) {
        fc_fail(err, FC_ERR_USAGE,
                "cpu stream: expected device 0 and 0 to %d threads, found device %d and %d threads",
                FC_CPU_MAX_THREADS, index, threads);
        return NULL;
    }
    struct fc_stream *s = calloc(1, sizeof *s);
    if (!s) {
        fc_fail(err, FC_ERR_MEMORY, "out of memory: a stream");
        return NULL;
    }
    s->threads = threads ? threads : omp_get_max_threads();
    s->products = fc_cpu_products_open(s->threads, err);
    if (!s->products) {
        free(s);
        return NULL;
    }
    return s;
}

void fc_cpu_stream_close(struct fc_stream *s)
{
    if (!s)
        return;
    fc_cpu_products_close(s->products);
    free(s);
}

void *fc_cpu_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err)
{
    (void)s;
    return fc_cpu_acquire(bytes, "device memory", err);
}

void fc_cpu_free(struct fc_stream *s, void *p)
{
    (void)s;
    fc_cpu_release(p);
}

void fc_cpu_copy(struct fc_stream *s, void *to, const void *from, size_t bytes)
{
    if (!fc_cpu_ok(s) || bytes == 0)
        return;
#pragma omp parallel for num_threads(s->threads) if (bytes > BLOCK)
    for (size_t i = 0; i < bytes; i += BLOCK)
        memcpy((char *)to + i, (const char *)from + i, fc_cpu_min(BLOCK, bytes - i));
}

void fc_cpu_upload(struct fc_stream *s, void *device, const void *host, size_t bytes)
{
    fc_cpu_copy(s, device, host, bytes);
}

void fc_cpu_download(struct fc_stream *s, void *host, const void *device, size_t bytes)
{
    fc_cpu_copy(s, host, device, bytes);
}

void fc_cpu_zero(struct fc_stream *s, void *p, size_t bytes)
{
    if (!fc_cpu_ok(s) || bytes == 0)
        return;
#pragma omp parallel for num_threads(s->threads) if (bytes > BLOCK)
    for (size_t i = 0; i < bytes; i += BLOCK)
        memset((char *)p + i, 0, fc_cpu_min(BLOCK, bytes - i));
}

enum fc_code fc_cpu_sync(struct fc_stream *s, struct fc_error *err)
{
    enum fc_code code = s->error.code;
    if (code != FC_OK) {
        fc_fail(err, code, "%s", s->error.text);
        s->error = (struct fc_error){0};
    }
    return code;
}
