#include "cli/commands.h"
#include "cli/session.h"

#include <string.h>

enum { MOST_DEVICES = 64 };

/* Here the model may be left out. */
static const struct fc_option info_options[] = {
    {.name = "model",
     .type = FC_OPT_STRING,
     .offset = offsetof(struct fc_model_flags, model),
     .metavar = "M",
     .help =
         "the model: a Hugging Face directory or a GGUF file; without it the devices are listed"},
    {0}};

static const struct fc_option_group groups[] = {
    {"Model", info_options, 0}, {"Prompts", fc_model_options + 1, 0}, {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "info",
    .summary = "Print what a model file is, or which devices there are",
    .description = "Reads the headers of a Hugging Face directory or a GGUF file, checks them, and "
                   "prints family, shape, vocabulary, chat format and memory.\n\nWithout --model "
                   "it lists the devices that --device takes on this machine.",
    .groups = groups,
};

static cJSON *describe(const struct fc_model_file *file, const struct fc_tokenizer *tok,
                       enum fc_chat_format chat)
{
    const struct fc_model_config *c = fc_model_file_config(file);
    const struct fc_params *params = fc_model_file_params(file);
    cJSON *o = cJSON_CreateObject();
    const struct {
        const char *name;
        size_t value;
    } sizes[] = {{"weights", params->n_weights},
                 {"layers", c->n_layer},
                 {"width", c->n_embd},
                 {"heads", c->n_head},
                 {"kv_heads", c->n_kv_head},
                 {"head_size", c->head_size},
                 {"feed_forward", c->n_ff},
                 {"vocabulary", c->n_vocab},
                 {"context", c->n_ctx},
                 {"tokens", fc_tokenizer_size(tok)},
                 {"bf16_bytes", params->total * 2},
                 {"kv_cache_bf16_bytes_per_token", c->n_layer * c->n_kv_head * c->head_size * 4}};
    cJSON_AddStringToObject(o, "model", fc_model_file_path(file));
    cJSON_AddStringToObject(o, "format", fc_model_file_format(file));
    cJSON_AddStringToObject(o, "family", c->family);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        cJSON_AddNumberToObject(o, sizes[i].name, (double)sizes[i].value);
    cJSON_AddNumberToObject(o, "rope_theta", c->rope_theta);
    cJSON_AddBoolToObject(o, "tied_embeddings", c->tied);
    cJSON_AddStringToObject(o, "chat_format", fc_chat_format_name(chat));
    return o;
}

/* {"cuda:0": what it is, ..., "cpu": ...}; why there is no CUDA device is said on stderr. */
static cJSON *describe_devices(void)
{
    struct fc_device_entry devices[MOST_DEVICES];
    struct fc_error why = {0};
    size_t n = fc_device_list(devices, MOST_DEVICES, &why);
    cJSON *o = cJSON_CreateObject();
    for (size_t i = 0; i < n; i++)
        cJSON_AddStringToObject(o, devices[i].name, devices[i].text);
    if (why.text[0])
        fprintf(stderr, "%s\n", why.text);
    return o;
}

enum fc_code fc_cmd_info(int argc, char **argv, struct fc_error *err)
{
    struct fc_model_flags flags;
    struct fc_options options = {0};
    struct fc_model_file *file = NULL;
    struct fc_tokenizer *tok = NULL;
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    if (!flags.model) {
        code = fc_print_summary(&options, describe_devices(), err);
        goto cleanup;
    }
    code = fc_model_file_open(&file, flags.model, err);
    if (code == FC_OK)
        code = fc_tokenizer_open(&tok, file, err);
    if (code != FC_OK)
        goto cleanup;
    enum fc_chat_format chat = (enum fc_chat_format)flags.chat_format;
    struct fc_error unknown = {0};
    if (chat == FC_CHAT_AUTO && fc_chat_detect(tok, &chat, &unknown) != FC_OK)
        fprintf(stderr, "%s\n", unknown.text); /* worth saying, no reason to fail here */
    code = fc_print_summary(&options, describe(file, tok, chat), err);
cleanup:
    fc_tokenizer_close(tok);
    fc_model_file_close(file);
    fc_options_free(&options);
    return code;
}
