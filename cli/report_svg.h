/* The pictures of the report, as inline SVG whose colours come from the page's style. Private to
 * cli/report.c. */
#ifndef FC_CLI_REPORT_SVG_H
#define FC_CLI_REPORT_SVG_H

#include "base/memory.h"
#include "cli/report.h"

/* Appends text with the characters of markup escaped. Control characters and bytes that are not
 * UTF-8 become U+FFFD; line ends and tabs stay. */
void fc_html_escape(const char *text, struct fc_text *out);

/* Round steps for an axis from low to high: *step is 1, 2 or 5 times a power of ten and gives about
 * `wanted` intervals; *low and *high move outwards to multiples of it. */
void fc_nice_axis(double *low, double *high, int wanted, double *step);

/* Curves with axes and legend; noisy ones are drawn pale, with a moving mean over them. */
void fc_svg_lines(const struct fc_report_series *series, size_t n, const char *x_label,
                  const char *y_label, struct fc_text *out);

/* Horizontal bars of accuracy with their 95 % intervals, and a line at `chance` unless 0. */
void fc_svg_accuracy(const struct fc_report_accuracy *a, size_t n, double chance,
                     struct fc_text *out);

/* Horizontal bars in two parts (second may be 0), each with the text of its value. */
struct fc_svg_bar {
    const char *name;
    double first, second;
    char value[48];
};
void fc_svg_bars(const struct fc_svg_bar *bars, size_t n, const char *x_label, const char *first,
                 const char *second, struct fc_text *out);

/* How many of the values fall into each of about twenty equal ranges. */
void fc_svg_histogram(const double *values, size_t n, const char *x_label, const char *y_label,
                      struct fc_text *out);

/* A meter: `value` of `limit`. */
void fc_svg_meter(double value, double limit, const char *label, struct fc_text *out);

#endif
