/* Progress of a long stage: on a terminal one line that is rewritten at most five times a second,
 * otherwise a plain line every ten seconds and one at the end.
 *
 *     train  42 %  210/500 steps  3.1 steps/s  1:33 left  loss 1.234
 *
 * It goes to standard error, so that results on standard output stay clean. One thread owns a
 * struct fc_progress. Notes hold figures, never private text. */
#ifndef FC_CLI_PROGRESS_H
#define FC_CLI_PROGRESS_H

#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct fc_progress {
    FILE *out;
    const char *name, *unit; /* "train", "steps" */
    size_t total;            /* 0: unknown, so no share and no time left */
    bool terminal;
    double interval; /* seconds between two lines */

    size_t done;
    char note[120];
    double start, shown; /* times of begin and of the last line */
    size_t shown_done;
    double rate, rate_weight; /* exponential mean of the recent rate, and the sum of its weights */
};

/* name and unit stay the caller's and outlive *p. out is stderr but in tests. */
void fc_progress_begin(struct fc_progress *p, FILE *out, const char *name, const char *unit,
                       size_t total);
/* `done` units so far; the note (may be NULL) replaces the last one. Cheap when nothing is due. */
void fc_progress_update(struct fc_progress *p, size_t done, const char *note, ...)
    __attribute__((format(printf, 3, 4)));
/* Prints a message on a line of its own without spoiling the progress line. */
void fc_progress_message(struct fc_progress *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The last line: units done, mean rate, time taken. */
void fc_progress_end(struct fc_progress *p);

/* "0.8 s", "42 s", "3:07", "2:03:07". */
void fc_duration(double seconds, char text[static 24]);
/* "512 B", "1.5 KiB", "3.0 GiB". */
void fc_bytes(double bytes, char text[static 24]);

#endif
