/* report.html: what a distillation did, as one file that needs nothing else: no network, no script,
 * no font; light or dark as the reader's system is; readable on paper.
 *
 * All strings are the caller's, in any bytes: they are escaped, and what is not UTF-8 becomes
 * U+FFFD. Absent parts (n == 0, NULL) are left out of the page. */
#ifndef FC_CLI_REPORT_H
#define FC_CLI_REPORT_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* A line of the table at the top: "Generation", "212 tokens/s". */
struct fc_report_fact {
    const char *name, *value;
};

/* One measured accuracy; the 95 % Wilson interval is made here. */
struct fc_report_accuracy {
    const char *name; /* "before", "label only", "FedCoT" */
    size_t correct, total;
    bool ours; /* the result, against which the others are baselines */
};

/* A curve; NaN points are left out. */
struct fc_report_series {
    const char *name; /* "label loss" */
    const double *x, *y;
    size_t n;
};

struct fc_report_stage {
    const char *name;
    double busy;    /* seconds at work */
    double waiting; /* seconds without input, or without room for output */
    double bytes;   /* handed on (and over the network, where it is that stage) */
    size_t items;
    double tokens_per_second; /* 0: no such figure */
};

struct fc_report_privacy {
    double epsilon_unit; /* of one replaced word, rounded up */
    double stay_near;    /* chance that a draw stays among the nearest, 0 .. 1; < 0: unknown */
    size_t nearest;      /* how many those are */
    size_t vocabulary;
    const double *documents; /* epsilon of each document sent */
    size_t n_documents;
    double spent, budget;  /* of this client so far, epsilon; budget 0: no limit */
    double delta;          /* of both; 0: pure */
    double rho;            /* zCDP, 0: not stated */
    const char *mechanism; /* "exponential mechanism, ranking E" */
    const char *in_clear;  /* what the guarantee leaves out, "nothing" */
};

struct fc_report_example {
    const char *question;                /* raw: private */
    const char *perturbed;               /* as it was sent */
    const char *received;                /* the server's rationale */
    const char *rationale;               /* as trained on, after decoding */
    const char *answer, *before, *after; /* the right answer, and predictions */
};

struct fc_report {
    const char *title, *subtitle;
    const char *date; /* as printed */
    const struct fc_report_fact *facts;
    size_t n_facts;
    const struct fc_report_accuracy *accuracies;
    size_t n_accuracies;
    double chance;                         /* accuracy of guessing, 0 .. 1; 0: unknown */
    const struct fc_report_series *losses; /* over optimizer steps, nats per token; at most 4 */
    size_t n_losses;
    const struct fc_report_stage *stages;
    size_t n_stages;
    double seconds; /* of the whole job: stages overlap */
    const struct fc_report_privacy *privacy;
    /* Raw private text: only where the user asked for it. Without show_examples none is written,
     * whatever n_examples says. */
    bool show_examples;
    const struct fc_report_example *examples;
    size_t n_examples;
    const char *const *notes; /* what a reader must know: "trained for 3 epochs on 300 examples" */
    size_t n_notes;
    const cJSON *config; /* the effective configuration (fc_options_to_json) */
};

/* Writes the page; it appears under its name only when it is whole. */
enum fc_code fc_report_write(const struct fc_report *r, const char *path, struct fc_error *err);

#endif
