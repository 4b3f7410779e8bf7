#include "engine/graphs.h"

#include <string.h>

void fc_graphs_open(struct fc_graphs *g, struct fc_device *dev)
{
    *g = (struct fc_graphs){.dev = dev};
    dev->k->graph_begin(dev->stream); /* nothing: whether it comes back as a recording */
    struct fc_graph *empty = dev->k->graph_end(dev->stream);
    g->records = empty != NULL;
    dev->k->graph_free(dev->stream, empty);
}

/* The entry of a shape, or the one to be used for it. */
static struct fc_recording *find(struct fc_graphs *g, size_t rows, size_t width)
{
    struct fc_recording *oldest = &g->items[0];
    for (size_t i = 0; i < FC_GRAPHS; i++) {
        struct fc_recording *r = &g->items[i];
        if (r->used && r->rows == rows && r->width == width)
            return r;
        if (r->used < oldest->used)
            oldest = r;
    }
    return oldest;
}

void fc_graphs_run(struct fc_graphs *g, size_t rows, size_t width, fc_graph_work *work,
                   void *context)
{
    const struct fc_kernels *k = g->dev->k;
    struct fc_stream *s = g->dev->stream;
    struct fc_recording *r = find(g, rows, width);
    bool known = r->used && r->rows == rows && r->width == width;
    if (!g->records || !known) {
        if (g->records) {
            k->graph_free(s, r->graph);
            *r = (struct fc_recording){.rows = rows, .width = width, .used = ++g->clock};
        }
        work(context);
        return;
    }
    r->used = ++g->clock;
    if (!r->graph) {
        k->graph_begin(s);
        work(context);
        r->graph = k->graph_end(s);
        g->recorded += r->graph != NULL;
    }
    if (r->graph) /* else the error is in the stream */
        k->graph_launch(s, r->graph);
    g->launched += r->graph != NULL;
}

void fc_graphs_clear(struct fc_graphs *g)
{
    for (size_t i = 0; i < FC_GRAPHS; i++) {
        g->dev->k->graph_free(g->dev->stream, g->items[i].graph);
        g->items[i] = (struct fc_recording){0};
    }
}
