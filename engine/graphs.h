/* Recorded work by shape. A decode step of a small model is hundreds of kernels of a few
 * microseconds each, and launching them one by one takes longer than running them; a recording is
 * launched as one; so is the update of a training step. What is recorded are addresses and sizes,
 * so one recording serves every step of one shape, and data that changes (ids, positions, page
 * tables, the learning rate) is uploaded before.
 *
 * The first call of a shape runs the work as it is, which tunes products and makes scratch; the
 * second records it; from then on it is launched. Where the back end records nothing, the caller
 * keeps to exact shapes (see `records`). */
#ifndef FC_ENGINE_GRAPHS_H
#define FC_ENGINE_GRAPHS_H

#include "engine/device.h"

enum { FC_GRAPHS = 48 }; /* shapes kept; beyond that, the one that was not used for longest goes */

struct fc_recording {
    size_t rows, width;
    uint64_t used; /* 0: the entry is empty */
    struct fc_graph *graph;
};

struct fc_graphs {
    struct fc_device *dev;
    bool records; /* whether the back end does; else every call runs its work */
    uint64_t clock;
    size_t recorded, launched; /* counts, for tests */
    struct fc_recording items[FC_GRAPHS];
};

/* Puts the work on the stream; it reads and writes the same addresses whenever it is called for the
 * same shape, allocates nothing and does not wait. */
typedef void fc_graph_work(void *context);

void fc_graphs_open(struct fc_graphs *g, struct fc_device *dev);
void fc_graphs_run(struct fc_graphs *g, size_t rows, size_t width, fc_graph_work *work,
                   void *context);
/* Forgets all recordings: an address in them has changed. */
void fc_graphs_clear(struct fc_graphs *g);

#endif
