#include "cli/commands.h"
#include "cli/metrics.h"
#include "cli/session.h"
#include "net/keys.h"

struct keygen_flags {
    const char *out;
};

static const struct fc_option options_table[] = {
    {.name = "out",
     .type = FC_OPT_STRING,
     .offset = offsetof(struct keygen_flags, out),
     .metavar = "FILE",
     .help = "the secret key; FILE.pub is the public one",
     .required = true},
    {0}};

static const struct fc_option_group groups[] = {{"Files", options_table, 0}, {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "keygen",
    .summary = "Make a key for encrypted sessions between server and client",
    .description =
        "Writes a secret key that its owner alone can read, and beside it the public key, which "
        "is also printed. Each end keeps its secret key and gives the public one to the other, by "
        "a way that both trust:\n\n"
        "  server$ fedcot keygen --out server.key\n"
        "  client$ fedcot keygen --out hospital.key\n"
        "  server$ echo \"$(cat hospital.key.pub) hospital\" >>clients.txt\n"
        "  server$ fedcot serve --key server.key --clients clients.txt ...\n"
        "  client$ fedcot distill --key hospital.key --server-key server.key.pub ...\n\n"
        "A file that exists is never overwritten.",
    .groups = groups,
};

enum fc_code fc_cmd_keygen(int argc, char **argv, struct fc_error *err)
{
    struct keygen_flags flags;
    struct fc_options options = {0};
    struct fc_key_pair *pair = NULL;
    char text[FC_KEY_TEXT_SIZE];
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    code = fc_key_pair_make(&pair, err);
    if (code == FC_OK)
        code = fc_key_pair_write(pair, flags.out, err);
    if (code != FC_OK)
        goto cleanup;
    fc_key_text(text, pair->public_key);
    code = fc_print_summary(&options, fc_metrics_object("public_key", text, NULL, 0, err), err);
cleanup:
    fc_key_pair_free(pair);
    fc_options_free(&options);
    return code;
}
