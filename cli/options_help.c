/* Help texts: made from the same tables that the parser reads, so they cannot drift apart. */
#define _GNU_SOURCE
#include "cli/options_impl.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { NAME_COLUMN = 28 }; /* where the help of an option begins */

size_t fc_terminal_width(void)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col < 60 ? 60 : size.ws_col > 100 ? 100 : size.ws_col;
}

static void blanks(struct fc_text *out, size_t n)
{
    while (n--)
        fc_text_add(out, " ", 1);
}

void fc_wrap(const char *text, size_t column, size_t indent, size_t width, struct fc_text *out)
{
    bool first = true;
    while (*(text += strspn(text, " \n"))) {
        size_t len = strcspn(text, " \n");
        if (!first && column + 1 + len > width) {
            fc_text_add(out, "\n", 1);
            blanks(out, indent);
            column = indent;
        } else if (!first) {
            fc_text_add(out, " ", 1);
            column++;
        }
        fc_text_add(out, text, len);
        column += len;
        text += len;
        first = false;
    }
    fc_text_add(out, "\n", 1);
}

/* "--name M", "--[no-]name": what to type. */
static void add_flag(const struct fc_option *p, struct fc_text *out)
{
    bool on = p->type == FC_OPT_FLAG && p->fallback && strcmp(p->fallback, "true") == 0;
    fc_text_printf(out, "--%s%s", on ? "[no-]" : "", p->name);
    if (p->type != FC_OPT_FLAG)
        fc_text_printf(out, " %s", fc_option_metavar(p));
}

static void usage(const struct fc_command_spec *spec, size_t width, struct fc_text *out)
{
    struct fc_text line = {0};
    fc_text_printf(&line, "%s%s%s", spec->program, spec->name ? " " : "",
                   spec->name ? spec->name : "");
    for (const struct fc_option_group *g = spec->groups; g && g->options; g++)
        for (const struct fc_option *p = g->options; p->name; p++)
            if (p->required) {
                fc_text_puts(&line, " ");
                add_flag(p, &line);
            }
    fc_text_puts(&line, " [FLAGS]");
    if (spec->arguments)
        fc_text_printf(&line, " %s", spec->arguments);
    fc_text_puts(out, "Usage: ");
    fc_wrap(line.data ? line.data : "", 7, 7, width, out);
    fc_text_free(&line);
}

/* The phrase, the choices and the default. */
static void describe(const struct fc_option *p, struct fc_text *out)
{
    fc_text_puts(out, p->help);
    for (size_t i = 0; p->type == FC_OPT_CHOICE && p->choices[i]; i++)
        fc_text_printf(out, "%s%s", i ? ", " : "; one of ", p->choices[i]);
    if (p->type == FC_OPT_STRINGS)
        fc_text_puts(out, "; may be given again");
    if (p->required)
        fc_text_puts(out, " (required)");
    else if (p->type == FC_OPT_FLAG)
        fc_text_puts(out, p->fallback && strcmp(p->fallback, "true") == 0 ? " (default: on)" : "");
    else if (p->fallback)
        fc_text_printf(out, " (default: %s)", p->fallback);
    else if (p->type == FC_OPT_CHOICE)
        fc_text_printf(out, " (default: %s)", p->choices[0]);
}

static void group_help(const struct fc_option_group *g, size_t width, struct fc_text *out)
{
    struct fc_text left = {0}, right = {0};
    fc_text_printf(out, "\n%s:\n", g->title);
    for (const struct fc_option *p = g->options; p->name; p++) {
        fc_text_clear(&left);
        fc_text_clear(&right);
        add_flag(p, &left);
        describe(p, &right);
        fc_text_printf(out, "  %s", left.data ? left.data : "");
        if (left.len + 4 > NAME_COLUMN) {
            fc_text_puts(out, "\n");
            blanks(out, NAME_COLUMN);
        } else {
            blanks(out, NAME_COLUMN - 2 - left.len);
        }
        fc_wrap(right.data ? right.data : "", NAME_COLUMN, NAME_COLUMN, width, out);
    }
    out->failed |= left.failed | right.failed;
    fc_text_free(&left);
    fc_text_free(&right);
}

static void paragraphs(const char *text, size_t width, struct fc_text *out)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        size_t len = end ? (size_t)(end - text) : strlen(text);
        fc_text_puts(out, "\n");
        if (*text == ' ') {
            fc_text_add(out, text, len);
            fc_text_puts(out, "\n");
        } else {
            char *copy = fc_strndup(text, len, NULL);
            out->failed |= !copy;
            fc_wrap(copy ? copy : "", 0, 0, width, out);
            free(copy);
        }
        text += len + (end ? 2 : 0);
    }
}

void fc_options_help(const struct fc_command_spec *spec, size_t width, struct fc_text *out)
{
    usage(spec, width, out);
    fc_text_puts(out, "\n");
    fc_wrap(spec->summary, 0, 0, width, out);
    if (spec->description)
        paragraphs(spec->description, width, out);
    for (const struct fc_option_group *g = spec->groups; g && g->options; g++)
        group_help(g, width, out);
    group_help(&fc_builtin_group, width, out);
    fc_text_puts(out, "\n");
    fc_exit_status_help(width, out);
}

void fc_exit_status_help(size_t width, struct fc_text *out)
{
    static const struct {
        enum fc_code code;
        const char *meaning;
    } table[] = {
        {FC_OK, "done"},
        {FC_ERR_INTERNAL, "a bug of fedcot, or a library refused what it should take"},
        {FC_ERR_USAGE, "flags or a job file that cannot be meant"},
        {FC_ERR_INPUT, "a file or message that is not what it claims to be"},
        {FC_ERR_BUDGET, "the privacy budget does not cover what was asked; nothing left"},
        {FC_ERR_NETWORK, "no connection, or the peer stopped answering in time"},
        {FC_ERR_MEMORY, "out of memory"},
        {FC_ERR_IO, "the operating system refused to read or write"},
        {FC_ERR_UNSUPPORTED, "well formed, but this build or model family cannot do it"},
        {FC_ERR_CANCELLED, "stopped by a signal"},
    };
    fc_text_puts(out, "Exit status:\n");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        fc_text_printf(out, "  %d  %-12s ", (int)table[i].code, fc_code_name(table[i].code));
        fc_wrap(table[i].meaning, 18, 18, width, out);
    }
}
