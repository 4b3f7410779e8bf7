/* The counters of the CUDA kernels: private to bench/case_counters.c and bench/counter_rows.c. */
#ifndef FC_BENCH_COUNTERS_H
#define FC_BENCH_COUNTERS_H

#include "engine/device.h"

/* One call of one entry, in a process of its own, so that all kernels counted there are its own. */
struct fc_counter_job {
    const struct fc_kernels *k; /* NULL: only the floor is wanted */
    struct fc_stream *s;
    double floor;        /* out: bytes that must move */
    struct fc_error err; /* out */
};

struct fc_counter_row {
    const char *name, *shape;
    double limit; /* most times the floor; 0: not bound by memory, or argued in the kernel's file */
    /* Makes inputs, calls the entry once, states the floor. Memory is left to the end of the
     * process. */
    void (*run)(struct fc_counter_job *job);
    const char *only; /* counts the kernels with this in their name alone, where `run` must prepare
                       * by others; NULL: all */
};

/* Ends with a row without a name. */
extern const struct fc_counter_row fc_counter_rows[];

#endif
