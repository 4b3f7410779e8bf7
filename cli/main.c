/* The program `fedcot`: a table of commands. Only this file turns an error into an exit status. */
#include "cli/commands.h"
#include "cli/guard.h"
#include "cli/openmp.h"
#include "cli/options.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name, *summary;
    enum fc_code (*run)(int argc, char **argv, struct fc_error *err);
};

#define TABLE_LINE(name, summary) {#name, summary, fc_cmd_##name},
static const struct command commands[] = {FC_COMMANDS(TABLE_LINE){0}};

static const struct command *find_command(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static enum fc_code unknown_command(const char *name, struct fc_error *err)
{
    const char *names[sizeof commands / sizeof commands[0]] = {0};
    size_t n = 0;
    while (commands[n].name) {
        names[n] = commands[n].name;
        n++;
    }
    const char *nearest = fc_nearest(name, names, n);
    return nearest
               ? fc_fail(err, FC_ERR_USAGE, "unknown command %s; did you mean %s?", name, nearest)
               : fc_fail(err, FC_ERR_USAGE, "unknown command %s", name);
}

static enum fc_code print_help(struct fc_error *err)
{
    size_t width = fc_terminal_width();
    struct fc_text text = {0};
    fc_text_puts(&text, "Usage: fedcot COMMAND [FLAGS]\n"
                        "       fedcot help COMMAND\n\n");
    fc_wrap("Federated chain-of-thought distillation: a server's large language model writes "
            "rationales for perturbed prompts, and a client's small model learns from them, "
            "without the client's data leaving it in clear.",
            0, 0, width, &text);
    fc_text_puts(&text, "\nCommands:\n");
    for (const struct command *c = commands; c->name; c++) {
        fc_text_printf(&text, "  %-10s ", c->name);
        fc_wrap(c->summary, 13, 13, width, &text);
    }
    fc_text_puts(&text, "  help       Print the flags of a command\n"
                        "\nFlags:\n"
                        "  --help     Print this text\n"
                        "  --version  Print the version\n\n");
    fc_exit_status_help(width, &text);
    enum fc_code code = fc_text_check(&text, err);
    if (code == FC_OK)
        fputs(text.data, stdout); /* write errors are found by main's fflush */
    fc_text_free(&text);
    return code;
}

static enum fc_code run_help(int argc, char **argv, struct fc_error *err)
{
    if (argc < 2)
        return print_help(err);
    const struct command *c = find_command(argv[1]);
    if (!c)
        return unknown_command(argv[1], err);
    char help[] = "--help";
    char *words[] = {argv[1], help, NULL};
    return c->run(2, words, err);
}

static enum fc_code run(int argc, char **argv, struct fc_error *err)
{
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word)
        return fc_fail(err, FC_ERR_USAGE, "a command is missing");
    if (strcmp(word, "help") == 0)
        return run_help(argc - 1, argv + 1, err);
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return print_help(err);
    if (strcmp(word, "--version") == 0) {
        puts("fedcot " FEDCOT_VERSION);
        return FC_OK;
    }
    const struct command *c = find_command(word);
    return c ? c->run(argc - 1, argv + 1, err) : unknown_command(word, err);
}

int main(int argc, char **argv)
{
    fc_openmp_settle(argv);
    struct fc_error err = {0};
    enum fc_code code = fc_guard(&err);
    if (code == FC_OK && sodium_init() < 0)
        code = fc_fail(&err, FC_ERR_INTERNAL, "libsodium does not start");
    if (code == FC_OK)
        code = run(argc, argv, &err);
    if (code == FC_OK && (fflush(stdout) != 0 || ferror(stdout)))
        code = fc_fail(&err, FC_ERR_IO, "standard output: %s", strerror(errno));
    if (code == FC_OK)
        return 0;
    const struct command *c = argc > 1 ? find_command(argv[1]) : NULL;
    fprintf(stderr, "fedcot%s%s: %s\n", c ? " " : "", c ? c->name : "",
            err.text[0] ? err.text : fc_code_name(code));
    if (code == FC_ERR_USAGE)
        fprintf(stderr, "Try 'fedcot%s%s --help'.\n", c ? " " : "", c ? c->name : "");
    return (int)code;
}
