/* Devices, events and recorded work of the CPU back end: everything is complete when a call
 * returns, so events have always passed, a second stream is a stream, and nothing is recorded. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

int fc_cpu_device_count(struct fc_error *why)
{
    (void)why;
    return 1;
}

bool fc_cpu_describe(int index, char *text, size_t size)
{
    if (index != 0)
        return false;
    int cores = omp_get_num_procs();
    snprintf(text, size, "CPU, %d core%s", cores, cores == 1 ? "" : "s");
    return true;
}

void *fc_cpu_host_alloc(struct fc_stream *s, size_t bytes, struct fc_error *err)
{
    (void)s;
    return fc_cpu_acquire(bytes, "staging", err);
}

void fc_cpu_host_free(struct fc_stream *s, void *p)
{
    (void)s;
    fc_cpu_release(p);
}

struct fc_stream *fc_cpu_copy_stream_open(struct fc_stream *s, struct fc_error *err)
{
    return fc_cpu_stream_open(0, s->threads, err);
}

struct fc_event {
    struct fc_error error; /* of the stream that it was recorded in */
};

struct fc_event *fc_cpu_event_open(struct fc_stream *s, struct fc_error *err)
{
    (void)s;
    struct fc_event *e = calloc(1, sizeof *e);
    if (!e)
        fc_fail(err, FC_ERR_MEMORY, "out of memory: an event");
    return e;
}

void fc_cpu_event_close(struct fc_stream *s, struct fc_event *e)
{
    (void)s;
    free(e);
}

void fc_cpu_event_record(struct fc_stream *s, struct fc_event *e)
{
    e->error = s->error;
}

void fc_cpu_event_wait(struct fc_stream *s, struct fc_event *e)
{
    if (e->error.code != FC_OK)
        fc_fail(&s->error, e->error.code, "%s", e->error.text);
}

void fc_cpu_event_sync(struct fc_stream *s, struct fc_event *e)
{
    (void)s;
    (void)e;
}

void fc_cpu_graph_begin(struct fc_stream *s)
{
    (void)s;
}

struct fc_graph *fc_cpu_graph_end(struct fc_stream *s)
{
    (void)s;
    return NULL;
}

void fc_cpu_graph_launch(struct fc_stream *s, struct fc_graph *g)
{
    (void)g;
    fc_fail(&s->error, FC_ERR_INTERNAL, "the CPU back end records no graphs, yet one is launched");
}

void fc_cpu_graph_free(struct fc_stream *s, struct fc_graph *g)
{
    (void)s;
    (void)g;
}

void fc_cpu_range_push(const char *name)
{
    (void)name;
}

void fc_cpu_range_pop(void)
{
}
