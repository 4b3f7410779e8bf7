#include "cli/report.h"

#include "base/file.h"
#include "cli/evaluate.h"
#include "cli/progress.h"
#include "cli/report_style.h"
#include "cli/report_svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- small parts --------------------------------------------------------------------------- */

static void element(struct fc_text *out, const char *tag, const char *text)
{
    fc_text_printf(out, "<%s>", tag);
    fc_html_escape(text ? text : "", out);
    fc_text_printf(out, "</%s>", tag);
}

/* A card: a big value over what it is. Both are escaped. */
static void card(struct fc_text *out, const char *value, const char *name)
{
    fc_text_puts(out, "<div class=\"card\">");
    element(out, "b", value);
    element(out, "span", name);
    fc_text_puts(out, "</div>\n");
}

static void figure(struct fc_text *out, const char *title)
{
    fc_text_puts(out, "<figure>");
    element(out, "h3", title);
    fc_text_puts(out, "\n");
}

static double percent(const struct fc_report_accuracy *a)
{
    return a->total ? 100.0 * (double)a->correct / (double)a->total : 0;
}

static const struct fc_report_accuracy *find_ours(const struct fc_report *r)
{
    for (size_t i = r->n_accuracies; i-- > 0;)
        if (r->accuracies[i].ours)
            return &r->accuracies[i];
    return NULL;
}

/* An epsilon was rounded up where it was computed; the page must not round it down again. */
static void epsilon_text(double epsilon, char text[static 32])
{
    if (!isfinite(epsilon)) {
        snprintf(text, 32, "no bound");
        return;
    }
    double unit = epsilon < 10 ? 1e-3 : epsilon < 1000 ? 1e-2 : 1e-1;
    double up = ceil(epsilon / unit - 1e-9) * unit;
    snprintf(text, 32, "%.*f", epsilon < 10 ? 3 : epsilon < 1000 ? 2 : 1, up);
}

/* --- sections ------------------------------------------------------------------------------ */

static void cards(const struct fc_report *r, struct fc_text *out)
{
    const struct fc_report_accuracy *ours = find_ours(r);
    char value[64], name[160], epsilon[32];
    fc_text_puts(out, "<div class=\"cards\">\n");
    if (ours) {
        snprintf(value, sizeof value, "%.1f %%", percent(ours));
        snprintf(name, sizeof name, "accuracy, %.80s", ours->name);
        card(out, value, name);
        if (ours != r->accuracies) {
            snprintf(value, sizeof value, "%+.1f points", percent(ours) - percent(r->accuracies));
            snprintf(name, sizeof name, "against %.80s", r->accuracies[0].name);
            card(out, value, name);
        }
    }
    if (r->privacy) {
        epsilon_text(r->privacy->epsilon_unit, epsilon);
        snprintf(value, sizeof value, "\xCE\xB5 %s", epsilon);
        card(out, value, "per replaced word");
        epsilon_text(r->privacy->spent, epsilon);
        snprintf(value, sizeof value, "\xCE\xB5 %s", epsilon);
        card(out, value, "spent by this client in all");
    }
    for (size_t i = 0; i < r->n_facts; i++)
        card(out, r->facts[i].value, r->facts[i].name);
    fc_text_puts(out, "</div>\n");
}

/* Says whether the gain over the best baseline is more than the noise of this many examples. */
static void verdict(const struct fc_report *r, struct fc_text *out)
{
    const struct fc_report_accuracy *ours = find_ours(r), *best = NULL;
    for (size_t i = 0; i < r->n_accuracies; i++)
        if (!r->accuracies[i].ours && (!best || percent(&r->accuracies[i]) > percent(best)))
            best = &r->accuracies[i];
    if (!ours || !best)
        return;
    double low, high, best_low, best_high;
    fc_wilson(ours->correct, ours->total, &low, &high);
    fc_wilson(best->correct, best->total, &best_low, &best_high);
    bool overlap = low <= best_high && best_low <= high;
    fc_text_puts(out, "<ul><li>");
    fc_html_escape(ours->name, out);
    fc_text_printf(out, " is %.1f points %s the best baseline, ",
                   fabs(percent(ours) - percent(best)),
                   percent(ours) < percent(best) ? "below" : "above");
    fc_html_escape(best->name, out);
    fc_text_puts(out, overlap
                          ? ". Their intervals overlap: on this many examples the difference may "
                            "be chance.</li></ul>\n"
                          : ". Their intervals do not overlap.</li></ul>\n");
}

static void accuracy_section(const struct fc_report *r, struct fc_text *out)
{
    if (!r->n_accuracies)
        return;
    fc_text_puts(out, "<h2>Accuracy</h2>\n<div class=\"grid\">\n");
    figure(out, "Accuracy on the held-out examples");
    fc_svg_accuracy(r->accuracies, r->n_accuracies, r->chance, out);
    fc_text_puts(out, "</figure>\n");
    figure(out, "The same in figures");
    fc_text_puts(out, "<div class=\"scroll\"><table><tr><th>Model</th><th>Accuracy</th>"
                      "<th>95 % interval</th><th>Correct</th></tr>\n");
    for (size_t i = 0; i < r->n_accuracies; i++) {
        const struct fc_report_accuracy *a = &r->accuracies[i];
        double low, high;
        fc_wilson(a->correct, a->total, &low, &high);
        fc_text_puts(out, a->ours ? "<tr class=\"ours\">" : "<tr>");
        element(out, "td", a->name);
        fc_text_printf(out,
                       "<td>%.1f %%</td><td>%.1f \xE2\x80\x93 %.1f %%</td>"
                       "<td>%zu <small>of %zu</small></td></tr>\n",
                       percent(a), 100 * low, 100 * high, a->correct, a->total);
    }
    fc_text_puts(out, "</table></div></figure>\n</div>\n");
    verdict(r, out);
}

static void loss_section(const struct fc_report *r, struct fc_text *out)
{
    if (!r->n_losses)
        return;
    fc_text_puts(out, "<h2>Training</h2>\n");
    figure(out, "Loss of both tasks");
    fc_svg_lines(r->losses, r->n_losses, "optimizer step", "loss, nats per token", out);
    fc_text_puts(out, "</figure>\n");
}

static void stage_table(const struct fc_report *r, struct fc_text *out)
{
    fc_text_puts(out, "<div class=\"scroll\"><table><tr><th>Stage</th><th>At work</th>"
                      "<th>Waiting</th><th>Items</th><th>Bytes</th><th>Tokens/s</th></tr>\n");
    for (size_t i = 0; i < r->n_stages; i++) {
        const struct fc_report_stage *s = &r->stages[i];
        char busy[24], waiting[24], bytes[24], speed[32] = "";
        fc_duration(s->busy, busy);
        fc_duration(s->waiting, waiting);
        fc_bytes(s->bytes, bytes);
        if (s->tokens_per_second > 0)
            snprintf(speed, sizeof speed, "%.0f", s->tokens_per_second);
        fc_text_puts(out, "<tr>");
        element(out, "td", s->name);
        fc_text_printf(out, "<td>%s</td><td>%s</td><td>%zu</td><td>%s</td><td>%s</td></tr>\n", busy,
                       waiting, s->items, bytes, speed);
    }
    fc_text_puts(out, "</table></div>\n");
}

/* KiB up to 1 MiB, else MiB: one unit for the whole axis. */
static void byte_bars(const struct fc_report *r, struct fc_svg_bar *bars, struct fc_text *out)
{
    double most = 0;
    for (size_t i = 0; i < r->n_stages; i++)
        most = fmax(most, r->stages[i].bytes);
    bool mega = most >= 1048576;
    for (size_t i = 0; i < r->n_stages; i++) {
        bars[i] = (struct fc_svg_bar){.name = r->stages[i].name,
                                      .first = r->stages[i].bytes / (mega ? 1048576 : 1024)};
        fc_bytes(r->stages[i].bytes, bars[i].value);
    }
    fc_svg_bars(bars, r->n_stages, mega ? "MiB handed on" : "KiB handed on", "handed on", NULL,
                out);
}

static enum fc_code stage_section(const struct fc_report *r, struct fc_text *out,
                                  struct fc_error *err)
{
    if (!r->n_stages)
        return FC_OK;
    struct fc_svg_bar *bars = fc_alloc(r->n_stages, sizeof *bars, "report", err);
    if (!bars)
        return FC_ERR_MEMORY;
    char whole[24];
    fc_duration(r->seconds, whole);
    fc_text_puts(out, "<h2>Time and bytes</h2>\n<div class=\"grid\">\n");
    figure(out, "Time of each stage");
    for (size_t i = 0; i < r->n_stages; i++) {
        const struct fc_report_stage *s = &r->stages[i];
        bars[i] = (struct fc_svg_bar){.name = s->name, .first = s->busy, .second = s->waiting};
        fc_duration(s->busy, bars[i].value);
    }
    fc_svg_bars(bars, r->n_stages, "seconds", "at work", "waiting for the stage before or after",
                out);
    fc_text_puts(out, "</figure>\n");
    figure(out, "Bytes that each stage handed on");
    byte_bars(r, bars, out);
    fc_text_puts(out, "</figure>\n</div>\n<div class=\"grid\" style=\"margin-top:16px\">");
    figure(out, "The same in figures");
    stage_table(r, out);
    fc_text_puts(out, "</figure></div>\n");
    if (r->seconds > 0)
        fc_text_printf(out,
                       "<ul><li>The whole job took %s; stages run at the same time, so their "
                       "times do not add up to it.</li></ul>\n",
                       whole);
    free(bars);
    return FC_OK;
}

static void row(struct fc_text *out, const char *name, const char *value)
{
    fc_text_puts(out, "<tr>");
    element(out, "td", name);
    element(out, "td", value);
    fc_text_puts(out, "</tr>\n");
}

static void privacy_table(const struct fc_report_privacy *p, struct fc_text *out)
{
    char text[160], epsilon[32], mean[32];
    double most = 0, sum = 0;
    for (size_t i = 0; i < p->n_documents; i++) {
        most = fmax(most, p->documents[i]);
        sum += p->documents[i];
    }
    fc_text_puts(out, "<table class=\"facts\">\n");
    if (p->mechanism)
        row(out, "Mechanism", p->mechanism);
    epsilon_text(p->epsilon_unit, epsilon);
    snprintf(text, sizeof text, "\xCE\xB5 = %s", epsilon);
    row(out, "Each replaced word", text);
    if (p->stay_near >= 0) {
        snprintf(text, sizeof text, "%.1f %% (nearest %zu of %zu)", 100 * p->stay_near, p->nearest,
                 p->vocabulary);
        row(out, "Chance to stay near", text);
    }
    if (p->n_documents) {
        epsilon_text(most, epsilon);
        epsilon_text(sum / (double)p->n_documents, mean);
        snprintf(text, sizeof text, "%zu; \xCE\xB5 %s on average, at most %s", p->n_documents, mean,
                 epsilon);
        row(out, "Documents sent", text);
    }
    epsilon_text(p->spent, epsilon);
    if (p->delta > 0)
        snprintf(text, sizeof text, "\xCE\xB5 = %s at \xCE\xB4 = %.0e", epsilon, p->delta);
    else
        snprintf(text, sizeof text, "\xCE\xB5 = %s (pure)", epsilon);
    row(out, "This client in all", text);
    if (p->rho > 0) {
        epsilon_text(p->rho, epsilon);
        snprintf(text, sizeof text, "\xCF\x81 = %s", epsilon);
        row(out, "The same in zCDP", text);
    }
    if (p->budget > 0)
        snprintf(text, sizeof text, "\xCE\xB5 = %.6g", p->budget);
    else
        snprintf(text, sizeof text, "no limit set");
    row(out, "Budget", text);
    if (p->in_clear)
        row(out, "Outside the guarantee", p->in_clear);
    fc_text_puts(out, "</table>\n");
}

static void privacy_section(const struct fc_report *r, struct fc_text *out)
{
    const struct fc_report_privacy *p = r->privacy;
    if (!p)
        return;
    fc_text_puts(out, "<h2>Privacy</h2>\n<div class=\"grid\">\n");
    figure(out, "What was spent");
    privacy_table(p, out);
    if (p->budget > 0)
        fc_svg_meter(p->spent, p->budget, "share of the budget that is spent", out);
    fc_text_puts(out, "</figure>\n");
    if (p->n_documents) {
        figure(out, "Cost of each document");
        fc_svg_histogram(p->documents, p->n_documents, "\xCE\xB5 of the document, pure",
                         "documents", out);
        fc_text_puts(out, "</figure>\n");
    }
    fc_text_puts(out, "</div>\n");
}

static void term(struct fc_text *out, const char *name, const char *text)
{
    if (!text)
        return;
    element(out, "dt", name);
    element(out, "dd", text);
    fc_text_puts(out, "\n");
}

static void example_section(const struct fc_report *r, struct fc_text *out)
{
    if (!r->show_examples || !r->n_examples)
        return;
    fc_text_puts(out, "<h2>Examples</h2>\n<p class=\"legend\">Raw private text, shown because this "
                      "was asked for: keep the page as private as the data.</p>\n");
    for (size_t i = 0; i < r->n_examples; i++) {
        const struct fc_report_example *e = &r->examples[i];
        fc_text_puts(out, "<div class=\"example\"><dl>\n");
        term(out, "Question", e->question);
        term(out, "As it was sent", e->perturbed);
        term(out, "Server's rationale", e->received);
        term(out, "After decoding", e->rationale);
        term(out, "Right answer", e->answer);
        term(out, "Predicted before", e->before);
        term(out, "Predicted after", e->after);
        fc_text_puts(out, "</dl></div>\n");
    }
}

static enum fc_code config_section(const struct fc_report *r, struct fc_text *out,
                                   struct fc_error *err)
{
    if (!r->config)
        return FC_OK;
    char *json = cJSON_Print(r->config);
    if (!json)
        return fc_fail(err, FC_ERR_MEMORY, "report: out of memory");
    fc_text_puts(out, "<h2>Configuration</h2>\n<p class=\"legend\">As a job file: "
                      "<code>--config</code> with this repeats the run.</p>\n<details><summary>Show"
                      "</summary>\n<pre>");
    fc_html_escape(json, out);
    fc_text_puts(out, "</pre></details>\n");
    free(json);
    return FC_OK;
}

/* --- the page ------------------------------------------------------------------------------ */

static void head(const struct fc_report *r, struct fc_text *out)
{
    /* The policy lets a browser fetch nothing and run nothing, whatever slipped through. */
    fc_text_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                      "style-src 'unsafe-inline'\">\n<meta name=\"viewport\" "
                      "content=\"width=device-width, initial-scale=1\">\n");
    element(out, "title", r->title);
    fc_text_printf(out, "\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<header>",
                   fc_report_style);
    element(out, "h1", r->title);
    if (r->subtitle)
        element(out, "p", r->subtitle);
    if (r->date)
        element(out, "p", r->date);
    fc_text_puts(out, "</header>\n");
}

static void notes(const struct fc_report *r, struct fc_text *out)
{
    if (!r->n_notes)
        return;
    fc_text_puts(out, "<h2>Notes</h2>\n<ul>\n");
    for (size_t i = 0; i < r->n_notes; i++) {
        element(out, "li", r->notes[i]);
        fc_text_puts(out, "\n");
    }
    fc_text_puts(out, "</ul>\n");
}

enum fc_code fc_report_write(const struct fc_report *r, const char *path, struct fc_error *err)
{
    struct fc_text page = {0};
    head(r, &page);
    cards(r, &page);
    accuracy_section(r, &page);
    loss_section(r, &page);
    enum fc_code code = stage_section(r, &page, err);
    privacy_section(r, &page);
    example_section(r, &page);
    notes(r, &page);
    if (code == FC_OK)
        code = config_section(r, &page, err);
    fc_text_puts(&page, "<footer>fedcot " FEDCOT_VERSION "</footer>\n</main>\n</body>\n</html>\n");
    if (code == FC_OK)
        code = fc_text_check(&page, err);
    if (code == FC_OK)
        code = fc_file_write(path, page.data, page.len, err);
    fc_text_free(&page);
    return code;
}
