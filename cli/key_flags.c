#include "cli/key_flags.h"

#define FIELD(name) offsetof(struct fc_key_flags, name)

static const char *const pads[] = {"none", "256", "power2", NULL};

#define PAD_OPTION                                                                                 \
    {                                                                                              \
        .name = "pad-frames", .type = FC_OPT_CHOICE, .offset = FIELD(pad), .choices = pads,        \
        .fallback = "256", .help = "with --key, what the lengths of messages are rounded up to"    \
    }

const struct fc_option fc_client_key_options[] = {
    {.name = "key",
     .type = FC_OPT_STRING,
     .offset = FIELD(key),
     .metavar = "FILE",
     .help = "this client's secret key (`fedcot keygen`): encrypt, and take any address"},
    {.name = "server-key",
     .type = FC_OPT_STRING,
     .offset = FIELD(server),
     .metavar = "KEY|FILE",
     .help = "the server's public key; nothing is sent to anybody else"},
    PAD_OPTION,
    {0}};

const struct fc_option fc_server_key_options[] = {
    {.name = "key",
     .type = FC_OPT_STRING,
     .offset = FIELD(key),
     .metavar = "FILE",
     .help = "the server's secret key (`fedcot keygen`): encrypt, and listen on any address"},
    {.name = "clients",
     .type = FC_OPT_STRING,
     .offset = FIELD(clients),
     .metavar = "FILE",
     .help = "who may come: lines of KEY NAME [tokens-per-day=N] [rate=N]; read again on SIGHUP"},
    PAD_OPTION,
    {0}};

enum fc_code fc_keys_open_client(struct fc_keys *keys, const struct fc_key_flags *f,
                                 struct fc_error *err)
{
    if (!f->key != !f->server)
        return fc_fail(err, FC_ERR_USAGE,
                       "--key and --server-key belong together: this client's own secret key, and "
                       "the server's public key");
    keys->pad = (enum fc_pad)f->pad;
    enum fc_code code = f->key ? fc_public_key_read(keys->server, f->server, err) : FC_OK;
    return code == FC_OK && f->key ? fc_key_pair_read(&keys->own, f->key, err) : code;
}

enum fc_code fc_keys_open_server(struct fc_keys *keys, const struct fc_key_flags *f,
                                 struct fc_error *err)
{
    if (!f->key != !f->clients)
        return fc_fail(err, FC_ERR_USAGE,
                       "--key and --clients belong together: the server's secret key, and the list "
                       "of the clients that may come");
    keys->pad = (enum fc_pad)f->pad;
    return f->key ? fc_key_pair_read(&keys->own, f->key, err) : FC_OK;
}

void fc_keys_close(struct fc_keys *keys)
{
    fc_key_pair_free(keys->own);
    *keys = (struct fc_keys){0};
}
