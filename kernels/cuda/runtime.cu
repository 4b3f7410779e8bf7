/* Devices, pinned memory, events, graphs and profiler ranges of the CUDA back end.
 *
 * Nothing here moves bytes or computes. A graph launch costs about 2.5 us on the host for the whole
 * step, where each kernel alone costs about as much: a decode step of a small model is bound by
 * that. Ranges cost some nanoseconds when no profiler listens. */
#include "kernels/cuda/launch.cuh"

#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>

int fc_cuda_device_count(struct fc_error *why)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaSuccess && count > 0)
        return count;
    (void)cudaGetLastError(); /* the process goes on, on the CPU perhaps */
    fc_cuda_no_device(why, code, 0, 0);
    return 0;
}

bool fc_cuda_describe(int index, char *text, size_t size)
{
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, index) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    double gib = (double)p.totalGlobalMem / (double)(1 << 30);
    snprintf(text, size, "%s, %d SMs, %.0f GiB", p.name, p.multiProcessorCount, gib);
    return true;
}

void *fc_cuda_host_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err)
{
    void *p = nullptr;
    cudaError_t code = cudaSetDevice(s->device);
    if (code == cudaSuccess)
        code = bytes > SIZE_MAX / 2 ? cudaErrorMemoryAllocation
                                    : cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocDefault);
    if (code == cudaSuccess)
        return p;
    (void)cudaGetLastError();
    fc_fail(err, code == cudaErrorMemoryAllocation ? FC_ERR_MEMORY : FC_ERR_INTERNAL,
            "CUDA device %d: %zu bytes of pinned host memory: %s", s->device, bytes,
            cudaGetErrorString(code));
    return nullptr;
}

void fc_cuda_host_free(struct fc_stream *s, void *p)
{
    if (p)
        FC_CUDA(s, cudaFreeHost(p));
}

struct fc_stream *fc_cuda_copy_stream_open(struct fc_stream *s, struct fc_error *err)
{
    return fc_cuda_stream_create(s->device, err);
}

/* ---- events -----------------------------------------------------------------------------------
 */

struct fc_event {
    cudaEvent_t event;
    struct fc_error error; /* of the stream that it was recorded in */
};

struct fc_event *fc_cuda_event_open(struct fc_stream *s, struct fc_error *err)
{
    auto *e = static_cast<struct fc_event *>(calloc(1, sizeof(struct fc_event)));
    if (!e) {
        fc_fail(err, FC_ERR_MEMORY, "out of memory: an event");
        return nullptr;
    }
    cudaError_t code = cudaSetDevice(s->device);
    if (code == cudaSuccess)
        code = cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming);
    if (code == cudaSuccess)
        return e;
    free(e);
    fc_fail(err, FC_ERR_INTERNAL, "CUDA device %d: an event: %s", s->device,
            cudaGetErrorString(code));
    return nullptr;
}

void fc_cuda_event_close(struct fc_stream *s, struct fc_event *e)
{
    if (!e)
        return;
    FC_CUDA(s, cudaEventDestroy(e->event));
    free(e);
}

void fc_cuda_event_record(struct fc_stream *s, struct fc_event *e)
{
    if (fc_cuda_ok(s))
        FC_CUDA(s, cudaEventRecord(e->event, s->stream));
    e->error = s->error;
}

void fc_cuda_event_wait(struct fc_stream *s, struct fc_event *e)
{
    if (e->error.code != FC_OK) /* what it waits for will never be there */
        fc_fail(&s->error, e->error.code, "%s", e->error.text);
    else if (fc_cuda_ok(s))
        FC_CUDA(s, cudaStreamWaitEvent(s->stream, e->event, 0));
}

void fc_cuda_event_sync(struct fc_stream *s, struct fc_event *e)
{
    if (fc_cuda_ok(s))
        FC_CUDA(s, cudaEventSynchronize(e->event));
}

/* ---- graphs -----------------------------------------------------------------------------------
 */

struct fc_graph {
    cudaGraphExec_t exec;
};

void fc_cuda_graph_begin(struct fc_stream *s)
{
    /* Thread-local: another thread may allocate meanwhile without breaking this recording. */
    if (fc_cuda_ok(s) &&
        FC_CUDA(s, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal)))
        s->recording = true;
}

struct fc_graph *fc_cuda_graph_end(struct fc_stream *s)
{
    if (!s->recording)
        return nullptr;
    cudaGraph_t recorded = nullptr;
    auto *g = static_cast<struct fc_graph *>(calloc(1, sizeof(struct fc_graph)));
    s->recording = false;
    if (!g)
        fc_fail(&s->error, FC_ERR_MEMORY, "out of memory: a graph");
    /* Ended whatever happened before: the stream must leave the recording. */
    bool ok = FC_CUDA(s, cudaStreamEndCapture(s->stream, &recorded)) && fc_cuda_ok(s) &&
              FC_CUDA(s, cudaGraphInstantiate(&g->exec, recorded, 0));
    if (recorded)
        (void)cudaGraphDestroy(recorded);
    if (ok)
        return g;
    (void)cudaGetLastError();
    free(g);
    return nullptr;
}

void fc_cuda_graph_launch(struct fc_stream *s, struct fc_graph *g)
{
    if (fc_cuda_ok(s))
        FC_CUDA(s, cudaGraphLaunch(g->exec, s->stream));
}

void fc_cuda_graph_free(struct fc_stream *s, struct fc_graph *g)
{
    if (!g)
        return;
    /* The last launch may still run. */
    if (FC_CUDA(s, cudaSetDevice(s->device)))
        (void)cudaStreamSynchronize(s->stream);
    (void)cudaGraphExecDestroy(g->exec);
    free(g);
}

/* ---- profiler ranges --------------------------------------------------------------------------
 */

void fc_cuda_range_push(const char *name)
{
    (void)nvtxRangePushA(name);
}

void fc_cuda_range_pop(void)
{
    (void)nvtxRangePop();
}
