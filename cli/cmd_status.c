#include "cli/commands.h"
#include "cli/key_flags.h"
#include "cli/metrics.h"
#include "cli/session.h"
#include "net/status.h"

struct status_flags {
    const char *server;
    double timeout;
    struct fc_key_flags keys;
};

static const struct fc_option status_options[] = {
    {.name = "server",
     .type = FC_OPT_STRING,
     .offset = offsetof(struct status_flags, server),
     .fallback = "tcp://127.0.0.1:7450",
     .metavar = "URL",
     .help = "address of the server"},
    {.name = "timeout",
     .type = FC_OPT_DOUBLE,
     .offset = offsetof(struct status_flags, timeout),
     .fallback = "10",
     .metavar = "SECONDS",
     .help = "give up after so long without an answer",
     .min = 0.1,
     .max = 86400},
    {0}};

static const struct fc_option_group groups[] = {
    {"Server", status_options, 0},
    {"Keys", fc_client_key_options, offsetof(struct status_flags, keys)},
    {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "status",
    .summary = "Print what a server is doing",
    .description =
        "Asks a running server for its queue (waiting and running items, and finished ones that no "
        "client has acknowledged yet), clients, tokens per second, memory, refusals and uptime. "
        "These are counts: they name no other client. The server prints the same as one line on "
        "its standard error when it gets SIGUSR1.",
    .groups = groups,
};

enum fc_code fc_cmd_status(int argc, char **argv, struct fc_error *err)
{
    struct status_flags flags;
    struct fc_options options = {0};
    struct fc_status status;
    struct fc_keys keys = {0};
    cJSON *summary = NULL;
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    code = fc_keys_open_client(&keys, &flags.keys, err);
    if (code != FC_OK)
        goto cleanup;
    const struct fc_client_options how = {.address = flags.server,
                                          .timeout = flags.timeout,
                                          .resend = flags.timeout / 10,
                                          .key = keys.own,
                                          .server_key = keys.own ? keys.server : NULL,
                                          .pad = keys.pad};
    code = fc_status_ask(&how, &status, err);
    if (code != FC_OK)
        goto cleanup;
    summary = cJSON_CreateObject();
    code = fc_status_write(summary, &status, err);
    if (code == FC_OK) {
        code = fc_print_summary(&options, summary, err);
        summary = NULL;
    }
cleanup:
    cJSON_Delete(summary);
    fc_keys_close(&keys);
    fc_options_free(&options);
    return code;
}
