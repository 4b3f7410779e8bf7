#define _GNU_SOURCE
#include "cli/progress.h"

#include "base/clock.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define RATE_SECONDS 15.0 /* what "recent" means for the rate */

void fc_duration(double seconds, char text[static 24])
{
    if (!(seconds >= 0 && seconds < 1e9)) {
        snprintf(text, 24, "?");
        return;
    }
    unsigned long s = (unsigned long)(seconds + 0.5);
    if (seconds < 9.95)
        snprintf(text, 24, "%.1f s", seconds);
    else if (s < 60)
        snprintf(text, 24, "%lu s", s);
    else if (s < 3600)
        snprintf(text, 24, "%lu:%02lu", s / 60, s % 60);
    else
        snprintf(text, 24, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
}

void fc_bytes(double bytes, char text[static 24])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    while (bytes >= 1023.5 && u + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024;
        u++;
    }
    snprintf(text, 24, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
}

/* Three figures are enough for a rate. */
static void format_rate(double rate, char text[static 24])
{
    if (!isfinite(rate))
        snprintf(text, 24, "?");
    else
        snprintf(text, 24, "%.*f", rate < 9.95 ? 2 : rate < 99.5 ? 1 : 0, rate);
}

void fc_progress_begin(struct fc_progress *p, FILE *out, const char *name, const char *unit,
                       size_t total)
{
    *p = (struct fc_progress){.out = out, .name = name, .unit = unit, .total = total};
    p->terminal = isatty(fileno(out));
    p->interval = p->terminal ? 0.2 : 10;
    p->start = p->shown = fc_now();
}

/* Columns of the terminal; a longer line would wrap, and \r could not take it back. */
static size_t columns(const struct fc_progress *p)
{
    struct winsize size;
    if (ioctl(fileno(p->out), TIOCGWINSZ, &size) != 0 || size.ws_col < 20)
        return 80;
    return size.ws_col;
}

static void print_line(const struct fc_progress *p, const char *line)
{
    if (p->terminal)
        fprintf(p->out, "\r%.*s\033[K", (int)columns(p) - 1, line);
    else
        fprintf(p->out, "%s\n", line);
    fflush(p->out);
}

static void show(const struct fc_progress *p)
{
    char line[512], rate[24], left[24];
    double recent = p->rate_weight > 0 ? p->rate / p->rate_weight : 0;
    size_t n =
        (size_t)snprintf(line, sizeof line, "%.60s", p->name); /* cut, so that all of it fits */
    if (p->total)
        n += (size_t)snprintf(line + n, sizeof line - n, "  %.0f %%  %zu/%zu %.30s",
                              floor(100.0 * (double)p->done / (double)p->total), p->done, p->total,
                              p->unit);
    else
        n += (size_t)snprintf(line + n, sizeof line - n, "  %zu %.30s", p->done, p->unit);
    if (recent > 0) {
        format_rate(recent, rate);
        n += (size_t)snprintf(line + n, sizeof line - n, "  %s %.30s/s", rate, p->unit);
        if (p->total > p->done) {
            fc_duration((double)(p->total - p->done) / recent, left);
            n += (size_t)snprintf(line + n, sizeof line - n, "  %s left", left);
        }
    }
    if (p->note[0])
        snprintf(line + n, sizeof line - n, "  %s", p->note);
    print_line(p, line);
}

void fc_progress_update(struct fc_progress *p, size_t done, const char *note, ...)
{
    p->done = done;
    if (note) {
        va_list args;
        va_start(args, note);
        vsnprintf(p->note, sizeof p->note, note, args);
        va_end(args);
    }
    double now = fc_now(), passed = now - p->shown;
    if (passed < p->interval)
        return;
    /* An exponential mean whose weights are divided out, so that it is unbiased from the start. */
    double keep = exp(-passed / RATE_SECONDS);
    if (passed > 0 && done >= p->shown_done) {
        p->rate = keep * p->rate + (1 - keep) * (double)(done - p->shown_done) / passed;
        p->rate_weight = keep * p->rate_weight + (1 - keep);
    }
    p->shown = now;
    p->shown_done = done;
    show(p);
}

void fc_progress_message(struct fc_progress *p, const char *format, ...)
{
    if (p->terminal)
        fputs("\r\033[K", p->out);
    va_list args;
    va_start(args, format);
    vfprintf(p->out, format, args);
    va_end(args);
    fputs("\n", p->out);
    if (p->terminal && p->shown > p->start)
        show(p);
    fflush(p->out);
}

void fc_progress_end(struct fc_progress *p)
{
    char line[512], rate[24], taken[24];
    double seconds = fc_now() - p->start;
    fc_duration(seconds, taken);
    format_rate(seconds > 0 ? (double)p->done / seconds : 0, rate);
    snprintf(line, sizeof line, "%.60s  %zu %.30s in %s  %s %.30s/s%s%s", p->name, p->done, p->unit,
             taken, rate, p->unit, p->note[0] ? "  " : "", p->note);
    print_line(p, line);
    if (p->terminal)
        fputs("\n", p->out);
    fflush(p->out);
}
