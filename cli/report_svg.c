#include "cli/report_svg.h"

#include "base/utf8.h"
#include "cli/evaluate.h"

#include <math.h>
#include <string.h>

/* Pictures are WIDTH units wide, or WIDE where they have the page's whole width: about a CSS pixel
 * each, so that their text has the size of the page's. */
enum { WIDTH = 520, WIDE = 1040, RIGHT = 14, LABELS = 164, ROW = 34, MAX_POINTS = 500 };

/* --- text ---------------------------------------------------------------------------------- */

void fc_html_escape(const char *text, struct fc_text *out)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        size_t valid = fc_utf8_prefix(text + i, len - i), n = 0;
        for (; n < valid; n++) {
            unsigned char c = (unsigned char)text[i + n];
            const char *entity = c == '&'                                         ? "&amp;"
                                 : c == '<'                                       ? "&lt;"
                                 : c == '>'                                       ? "&gt;"
                                 : c == '"'                                       ? "&quot;"
                                 : c == '\''                                      ? "&#39;"
                                 : (c < 32 && c != '\n' && c != '\t') || c == 127 ? "\xEF\xBF\xBD"
                                                                                  : NULL;
            if (entity)
                fc_text_puts(out, entity);
            else
                fc_text_add(out, text + i + n, 1);
        }
        i += valid;
        if (i < len) {
            fc_text_puts(out, "\xEF\xBF\xBD");
            i++;
        }
    }
}

static void label(struct fc_text *out, double x, double y, const char *anchor, const char *class,
                  const char *text)
{
    fc_text_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y,
                   anchor, class);
    fc_html_escape(text, out);
    fc_text_puts(out, "</text>\n");
}

static void line(struct fc_text *out, double x1, double y1, double x2, double y2, const char *class)
{
    fc_text_printf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n",
                   x1, y1, x2, y2, class);
}

static void begin(struct fc_text *out, int width, double height, const char *title)
{
    fc_text_printf(out, "<svg class=\"%s\" viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"",
                   width == WIDE ? "wide" : "column", width, height);
    fc_html_escape(title, out);
    fc_text_puts(out, "\">\n");
}

/* --- axes ---------------------------------------------------------------------------------- */

void fc_nice_axis(double *low, double *high, int wanted, double *step)
{
    if (!isfinite(*low) || !isfinite(*high))
        *low = *high = 0;
    if (!(*high > *low)) {
        double room = *low > 0 || *low < 0 ? fabs(*low) / 2 : 1;
        *low -= *low > 0 || *low < 0 ? room : 0;
        *high += room;
    }
    double rough = (*high - *low) / wanted, power = pow(10, floor(log10(rough)));
    double lead = rough / power;
    *step = power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
    *low = floor(*low / *step + 1e-9) * *step;
    *high = ceil(*high / *step - 1e-9) * *step;
}

/* A value on an axis whose steps have this size: no more digits than the step needs. */
static void tick_text(double value, double step, char text[static 32])
{
    int digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    if (fabs(value) >= 1e6)
        snprintf(text, 32, "%.3g", value);
    else
        snprintf(text, 32, "%.*f", digits > 9 ? 9 : digits, fabs(value) < step / 2 ? 0 : value);
}

struct axis {
    double low, high, step;
    double from, to; /* places of low and high in the picture */
};

static double place(const struct axis *a, double value)
{
    return a->from + (value - a->low) / (a->high - a->low) * (a->to - a->from);
}

static size_t ticks(const struct axis *a)
{
    return (size_t)((a->high - a->low) / a->step + 1.5);
}

/* Vertical grid lines from top to bottom with their values below, and the axis' name. */
static void x_axis(const struct axis *a, double top, double bottom, const char *name,
                   const char *suffix, struct fc_text *out)
{
    for (size_t i = 0; i < ticks(a); i++) {
        char text[32], whole[48];
        double value = a->low + (double)i * a->step, x = place(a, value);
        tick_text(value, a->step, text);
        snprintf(whole, sizeof whole, "%s%s", text, suffix);
        line(out, x, top, x, bottom, "gridline");
        label(out, x, bottom + 16, "middle", "tick", whole);
    }
    label(out, (a->from + a->to) / 2, bottom + 34, "middle", "axis", name);
}

static void y_axis(const struct axis *a, double left, double right, const char *name,
                   struct fc_text *out)
{
    for (size_t i = 0; i < ticks(a); i++) {
        char text[32];
        double value = a->low + (double)i * a->step, y = place(a, value);
        tick_text(value, a->step, text);
        line(out, left, y, right, y, "gridline");
        label(out, left - 7, y + 4, "end", "tick", text);
    }
    fc_text_printf(out,
                   "<text transform=\"translate(13 %.1f) rotate(-90)\" text-anchor=\"middle\" "
                   "class=\"axis\">",
                   (a->from + a->to) / 2);
    fc_html_escape(name, out);
    fc_text_puts(out, "</text>\n");
}

/* --- curves -------------------------------------------------------------------------------- */

/* Draws y averaged over a window of points around each, as a path of at most MAX_POINTS. */
static void curve(const struct fc_report_series *s, const struct axis *x, const struct axis *y,
                  size_t window, const char *class, size_t number, struct fc_text *out)
{
    size_t stride = s->n / MAX_POINTS + 1;
    bool drawn = false;
    fc_text_printf(out, "<path class=\"%s s%zu\" d=\"", class, number);
    for (size_t i = 0; i < s->n; i += stride) {
        size_t from = i > window / 2 ? i - window / 2 : 0;
        size_t to = i + (window > stride ? window / 2 : stride - 1), counted = 0;
        double sum = 0;
        for (size_t j = from; j <= to && j < s->n; j++)
            if (isfinite(s->y[j])) {
                sum += s->y[j];
                counted++;
            }
        if (!counted || !isfinite(s->x[i]))
            continue;
        fc_text_printf(out, "%c%.1f %.1f", drawn ? 'L' : 'M', place(x, s->x[i]),
                       place(y, sum / (double)counted));
        drawn = true;
    }
    fc_text_puts(out, "\"/>\n");
}

static void stretch(double value, double *low, double *high)
{
    if (!isfinite(value))
        return;
    if (!(value >= *low))
        *low = value;
    if (!(value <= *high))
        *high = value;
}

static void legend(const char *const *names, const char *const *classes, size_t n,
                   struct fc_text *out)
{
    fc_text_puts(out, "<p class=\"legend\">");
    for (size_t i = 0; i < n; i++) {
        fc_text_printf(out, "<span><i class=\"%s\"></i>", classes[i]);
        fc_html_escape(names[i], out);
        fc_text_puts(out, "</span> ");
    }
    fc_text_puts(out, "</p>\n");
}

void fc_svg_lines(const struct fc_report_series *series, size_t n, const char *x_label,
                  const char *y_label, struct fc_text *out)
{
    static const char *const classes[] = {"s0", "s1", "s2", "s3"};
    const char *names[4];
    struct axis x = {.low = INFINITY, .high = -INFINITY, .from = 58, .to = WIDE - RIGHT};
    struct axis y = {.low = 0, .high = -INFINITY, .from = 276, .to = 10};
    n = n < 4 ? n : 4;
    for (size_t i = 0; i < n; i++) {
        names[i] = series[i].name;
        for (size_t j = 0; j < series[i].n; j++) {
            stretch(series[i].x[j], &x.low, &x.high);
            stretch(series[i].y[j], &y.low, &y.high);
        }
    }
    fc_nice_axis(&x.low, &x.high, 10, &x.step);
    fc_nice_axis(&y.low, &y.high, 5, &y.step);
    legend(names, classes, n, out);
    fc_text_puts(out, "<div class=\"scroll\">");
    begin(out, WIDE, 316, y_label);
    x_axis(&x, y.to, y.from, x_label, "", out);
    y_axis(&y, x.from, x.to, y_label, out);
    for (size_t i = 0; i < n; i++) {
        size_t window = series[i].n / 20;
        if (window > 1)
            curve(&series[i], &x, &y, 1, "pale", i, out);
        curve(&series[i], &x, &y, window, "curve", i, out);
    }
    fc_text_puts(out, "</svg></div>\n");
}

/* --- bars ---------------------------------------------------------------------------------- */

/* A name that does not fit is cut; the whole is in its tooltip. */
static void row_name(double y, const char *name, struct fc_text *out)
{
    char cut[32 * 4 + 4];
    size_t bytes = 0, characters = 0;
    while (name[bytes] && characters < 22 && bytes + 8 < sizeof cut) {
        bytes++;
        while (((unsigned char)name[bytes] & 0xC0) == 0x80 && bytes + 8 < sizeof cut)
            bytes++;
        characters++;
    }
    snprintf(cut, sizeof cut, "%.*s%s", (int)bytes, name, name[bytes] ? "\xE2\x80\xA6" : "");
    label(out, LABELS - 8, y, "end", "name", cut);
}

static void rectangle(double x, double y, double width, double height, const char *class,
                      const char *tooltip, struct fc_text *out)
{
    fc_text_printf(out,
                   "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" "
                   "class=\"%s\"><title>",
                   x, y, width > 0 ? width : 0, height, class);
    fc_html_escape(tooltip, out);
    fc_text_puts(out, "</title></rect>\n");
}

void fc_svg_accuracy(const struct fc_report_accuracy *a, size_t n, double chance,
                     struct fc_text *out)
{
    struct axis x = {.low = 0, .high = 100 * chance, .from = LABELS, .to = WIDTH - 62};
    for (size_t i = 0; i < n; i++) {
        double low, high;
        fc_wilson(a[i].correct, a[i].total, &low, &high);
        stretch(100 * high, &x.low, &x.high);
    }
    fc_nice_axis(&x.low, &x.high, 5, &x.step);
    double bottom = 8 + (double)n * ROW;
    begin(out, WIDTH, bottom + 42, "accuracy in percent");
    x_axis(&x, 8, bottom, "accuracy, with its 95 % interval", " %", out);
    for (size_t i = 0; i < n; i++) {
        double low, high, y = 8 + (double)i * ROW, middle = y + ROW / 2.0;
        double value = a[i].total ? 100.0 * (double)a[i].correct / (double)a[i].total : 0;
        char text[64];
        fc_wilson(a[i].correct, a[i].total, &low, &high);
        snprintf(text, sizeof text, "%zu of %zu", a[i].correct, a[i].total);
        row_name(middle + 4, a[i].name, out);
        rectangle(x.from, y + 7, place(&x, value) - x.from, ROW - 14, a[i].ours ? "ours" : "other",
                  text, out);
        line(out, place(&x, 100 * low), middle, place(&x, 100 * high), middle, "whisker");
        line(out, place(&x, 100 * low), middle - 5, place(&x, 100 * low), middle + 5, "whisker");
        line(out, place(&x, 100 * high), middle - 5, place(&x, 100 * high), middle + 5, "whisker");
        snprintf(text, sizeof text, "%.1f %%", value);
        label(out, WIDTH - 4, middle + 4, "end", a[i].ours ? "value strong" : "value", text);
    }
    if (chance > 0) {
        line(out, place(&x, 100 * chance), 2, place(&x, 100 * chance), bottom, "chance");
        fc_text_puts(out, "</svg>\n<p class=\"legend\"><span><i class=\"chance\"></i>");
        fc_text_printf(out, "guessing (%.1f %%)</span></p>\n", 100 * chance);
        return;
    }
    fc_text_puts(out, "</svg>\n");
}

void fc_svg_bars(const struct fc_svg_bar *bars, size_t n, const char *x_label, const char *first,
                 const char *second, struct fc_text *out)
{
    struct axis x = {.low = 0, .high = 0, .from = LABELS, .to = WIDTH - 84};
    for (size_t i = 0; i < n; i++)
        stretch(bars[i].first + bars[i].second, &x.low, &x.high);
    fc_nice_axis(&x.low, &x.high, 4, &x.step);
    double bottom = 8 + (double)n * ROW;
    if (second)
        legend((const char *const[]){first, second}, (const char *const[]){"s0", "wait"}, 2, out);
    begin(out, WIDTH, bottom + 42, x_label);
    x_axis(&x, 8, bottom, x_label, "", out);
    for (size_t i = 0; i < n; i++) {
        double y = 8 + (double)i * ROW, split = place(&x, bars[i].first);
        row_name(y + ROW / 2.0 + 4, bars[i].name, out);
        rectangle(x.from, y + 8, split - x.from, ROW - 16, "bar", first, out);
        if (bars[i].second > 0)
            rectangle(split, y + 8, place(&x, bars[i].first + bars[i].second) - split, ROW - 16,
                      "waiting", second ? second : "", out);
        label(out, WIDTH - 4, y + ROW / 2.0 + 4, "end", "value", bars[i].value);
    }
    fc_text_puts(out, "</svg>\n");
}

void fc_svg_histogram(const double *values, size_t n, const char *x_label, const char *y_label,
                      struct fc_text *out)
{
    enum { MOST = 64 };
    size_t counts[MOST] = {0}, most = 0;
    struct axis x = {.low = INFINITY, .high = -INFINITY, .from = 58, .to = WIDTH - RIGHT};
    struct axis y = {.low = 0, .from = 176, .to = 10};
    double bin;
    for (size_t i = 0; i < n; i++)
        stretch(values[i], &x.low, &x.high);
    double low = x.low, high = x.high;
    fc_nice_axis(&low, &high, 20, &bin);
    size_t bins = (size_t)((high - low) / bin + 0.5);
    bins = bins < 1 ? 1 : bins > MOST ? MOST : bins;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            continue;
        size_t at = (size_t)((values[i] - low) / bin);
        at = at < bins ? at : bins - 1;
        most = ++counts[at] > most ? counts[at] : most;
    }
    x.low = low;
    x.high = high;
    fc_nice_axis(&x.low, &x.high, 6, &x.step);
    y.high = (double)most;
    fc_nice_axis(&y.low, &y.high, 4, &y.step);
    begin(out, WIDTH, 216, x_label);
    x_axis(&x, y.to, y.from, x_label, "", out);
    y_axis(&y, x.from, x.to, y_label, out);
    for (size_t i = 0; i < bins; i++) {
        double from = place(&x, low + (double)i * bin), to = place(&x, low + (double)(i + 1) * bin);
        double top = place(&y, (double)counts[i]);
        char text[96];
        snprintf(text, sizeof text, "%zu from %.4g to %.4g", counts[i], low + (double)i * bin,
                 low + (double)(i + 1) * bin);
        if (counts[i])
            rectangle(from + 0.5, top, to - from - 1, y.from - top, "bar", text, out);
    }
    fc_text_puts(out, "</svg>\n");
}

void fc_svg_meter(double value, double limit, const char *name, struct fc_text *out)
{
    double share = limit > 0 ? value / limit : 0, width = WIDTH - 2;
    char text[64];
    snprintf(text, sizeof text, "%.1f %%", 100 * share);
    begin(out, WIDTH, 46, name);
    rectangle(1, 6, width, 16, "track", name, out);
    rectangle(1, 6, width * (share < 1 ? share : 1), 16, share > 0.9 ? "full" : "bar", text, out);
    label(out, 1, 40, "start", "tick", name);
    label(out, WIDTH - 1, 40, "end", "value", text);
    fc_text_puts(out, "</svg>\n");
}
