/* Streams, device memory and copies of the CUDA back end.
 *
 * Floor: a copy reads and writes every byte once. Host memory that is not pinned is staged by the
 * driver, which waits; host_alloc gives pinned memory, whose copies run beside the host. */
#include "kernels/cuda/attention.cuh"

#include <climits>
#include <cstdlib>
#include <cstring>

/* The oldest architecture that the build makes code for (FEDCOT_CUDA_ARCHS). */
enum { LEAST_CAPABILITY = 80 };

bool fc_cuda_check(struct fc_stream *s, cudaError_t code, const char *what, const char *file,
                   int line)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* or the next launch would be blamed for it */
    const char *base = strrchr(file, '/');
    fc_fail(&s->error, code == cudaErrorMemoryAllocation ? FC_ERR_MEMORY : FC_ERR_INTERNAL,
            "CUDA device %d: %s failed at %s:%d: %s (%s)", s->device, what, base ? base + 1 : file,
            line, cudaGetErrorString(code), cudaGetErrorName(code));
    return false;
}

bool fc_cuda_ok(struct fc_stream *s)
{
    return s->error.code == FC_OK && FC_CUDA(s, cudaSetDevice(s->device));
}

void fc_cuda_no_device(struct fc_error *err, cudaError_t code, int index, int count)
{
    if (code != cudaSuccess)
        fc_fail(err, FC_ERR_UNSUPPORTED,
                "no CUDA device can be used: %s (%s); check nvidia-smi, or take --device cpu",
                cudaGetErrorString(code), cudaGetErrorName(code));
    else
        fc_fail(err, FC_ERR_UNSUPPORTED,
                "CUDA device %d: this machine has %d, counted from 0; take --device cuda:N or cpu",
                index, count);
}

static const size_t broken_bytes = FC_BROKEN_KINDS * sizeof(unsigned long long);

struct fc_stream *fc_cuda_stream_create(int index, struct fc_error *err)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || index < 0 || index >= count) {
        (void)cudaGetLastError(); /* clears it: the process goes on, on the CPU perhaps */
        fc_cuda_no_device(err, code, index, count);
        return nullptr;
    }
    auto *s = static_cast<struct fc_stream *>(calloc(1, sizeof(struct fc_stream)));
    if (!s) {
        fc_fail(err, FC_ERR_MEMORY, "out of memory: a stream");
        return nullptr;
    }
    s->device = index;
    int major = 0, minor = 0, shared = 0;
    bool ok =
        FC_CUDA(s, cudaSetDevice(index)) &&
        FC_CUDA(s, cudaDeviceGetAttribute(&s->sms, cudaDevAttrMultiProcessorCount, index)) &&
        FC_CUDA(s, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index)) &&
        FC_CUDA(s, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index)) &&
        FC_CUDA(s,
                cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index)) &&
        FC_CUDA(s, cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking)) &&
        FC_CUDA(s, cudaMalloc(&s->broken_rows, broken_bytes)) &&
        FC_CUDA(s, cudaMemsetAsync(s->broken_rows, 0xff, broken_bytes, s->stream));
    s->capability = 10 * major + minor;
    if (ok && s->capability < LEAST_CAPABILITY) {
        fc_fail(&s->error, FC_ERR_UNSUPPORTED,
                "CUDA device %d has compute capability %d.%d, and this program needs %d.%d (Ampere "
                "or newer); take another --device cuda:N, or cpu",
                index, major, minor, LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10);
        ok = false;
    }
    if (!ok) {
        fc_fail(err, s->error.code, "%s", s->error.text);
        fc_cuda_stream_close(s);
        return nullptr;
    }
    s->shared_per_block = (size_t)shared;
    return s;
}

struct fc_stream *fc_cuda_stream_open(int index, int threads, struct fc_error *err)
{
    if (threads < 0) {
        fc_fail(err, FC_ERR_USAGE, "cuda stream: expected 0 or more threads, found %d", threads);
        return nullptr;
    }
    struct fc_stream *s = fc_cuda_stream_create(index, err);
    if (!s)
        return nullptr;
    if (!FC_CUDA(s, cudaMalloc(&s->parts, FC_PAGED_SCRATCH)))
        fc_fail(err, s->error.code, "%s", s->error.text);
    else if ((s->products = fc_cuda_products_open(s, err)))
        return s;
    fc_cuda_stream_close(s);
    return nullptr;
}

void fc_cuda_stream_close(struct fc_stream *s)
{
    if (!s)
        return;
    (void)cudaSetDevice(s->device);
    if (s->stream)
        (void)cudaStreamSynchronize(s->stream);
    fc_cuda_products_close(s, s->products);
    (void)cudaFree(s->broken_rows);
    (void)cudaFree(s->parts);
    if (s->stream)
        (void)cudaStreamDestroy(s->stream);
    free(s);
}

void *fc_cuda_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err)
{
    void *p = nullptr;
    cudaError_t code = cudaSetDevice(s->device);
    if (code == cudaSuccess)
        code = bytes > SIZE_MAX / 2 ? cudaErrorMemoryAllocation : cudaMalloc(&p, bytes ? bytes : 1);
    if (code != cudaSuccess) {
        (void)cudaGetLastError(); /* the caller's error, not the next launch's */
        size_t available = 0, total = 0;
        if (cudaMemGetInfo(&available, &total) != cudaSuccess)
            (void)cudaGetLastError();
        fc_fail(err, code == cudaErrorMemoryAllocation ? FC_ERR_MEMORY : FC_ERR_INTERNAL,
                "CUDA device %d: %zu bytes of device memory: %s; %zu of its %zu MiB are free, what "
                "other streams and programs hold counted",
                s->device, bytes, cudaGetErrorString(code), available >> 20, total >> 20);
        return nullptr;
    }
    return p;
}

void fc_cuda_free(struct fc_stream *s, void *p)
{
    if (p && FC_CUDA(s, cudaSetDevice(s->device)))
        FC_CUDA(s, cudaFree(p));
}

void fc_cuda_upload(struct fc_stream *s, void *device, const void *host, size_t bytes)
{
    if (fc_cuda_ok(s) && bytes)
        FC_CUDA(s, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s->stream));
}

void fc_cuda_download(struct fc_stream *s, void *host, const void *device, size_t bytes)
{
    if (fc_cuda_ok(s) && bytes)
        FC_CUDA(s, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s->stream));
}

void fc_cuda_copy(struct fc_stream *s, void *to, const void *from, size_t bytes)
{
    if (fc_cuda_ok(s) && bytes)
        FC_CUDA(s, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s->stream));
}

void fc_cuda_zero(struct fc_stream *s, void *p, size_t bytes)
{
    if (fc_cuda_ok(s) && bytes)
        FC_CUDA(s, cudaMemsetAsync(p, 0, bytes, s->stream));
}

/* Waits for all work; a row that was no use to a kernel becomes the stream's error. */
static void wait_for_all(struct fc_stream *s)
{
    unsigned long long row[FC_BROKEN_KINDS];
    memset(row, 0xff, sizeof row);
    if (!FC_CUDA(s, cudaSetDevice(s->device)))
        return;
    if (s->row_calls)
        FC_CUDA(
            s, cudaMemcpyAsync(row, s->broken_rows, sizeof row, cudaMemcpyDeviceToHost, s->stream));
    if (!FC_CUDA(s, cudaStreamSynchronize(s->stream)))
        return;
    bool logits = row[FC_BROKEN_LOGITS] < row[FC_BROKEN_RANKING];
    if (logits)
        fc_fail(&s->error, FC_ERR_INPUT,
                "sample: every logit of row %u is NaN or -inf: the model's weights are broken",
                (unsigned)row[FC_BROKEN_LOGITS]);
    else if (row[FC_BROKEN_RANKING] != ULLONG_MAX)
        fc_fail(&s->error, FC_ERR_INTERNAL,
                "draw: row %u is no ranking: expected distinct indices below V",
                (unsigned)row[FC_BROKEN_RANKING]);
    else
        return;
    FC_CUDA(s, cudaMemsetAsync(s->broken_rows, 0xff, broken_bytes, s->stream));
}

enum fc_code fc_cuda_sync(struct fc_stream *s, struct fc_error *err)
{
    if (s->recording) {
        fc_fail(&s->error, FC_ERR_INTERNAL, "sync between graph_begin and graph_end");
        fc_cuda_graph_free(s, fc_cuda_graph_end(s));
    }
    wait_for_all(s);
    enum fc_code code = s->error.code;
    if (code != FC_OK) {
        fc_fail(err, code, "%s", s->error.text);
        s->error = {};
    }
    return code;
}
