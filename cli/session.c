#include "cli/session.h"

#include "base/dequant.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/metrics.h"

#include <sodium.h>
#include <string.h>

#define HASH_BLOCK ((size_t)1 << 24)

enum fc_code fc_session_device(struct fc_device *dev, const struct fc_compute_flags *compute,
                               struct fc_error *err)
{
    enum fc_code code = fc_device_open(dev, compute->device, (int)compute->threads, err);
    if (code != FC_OK)
        return code;
    char text[256];
    fc_device_describe(dev, text, sizeof text);
    fprintf(stderr, "device %s: %s\n", dev->name, text);
    if (dev->note[0])
        fprintf(stderr, "device auto took %s: %s\n", dev->name, dev->note);
    return FC_OK;
}

enum fc_code fc_session_open(struct fc_session *s, const struct fc_model_flags *model,
                             const struct fc_compute_flags *compute, size_t max_ctx,
                             bool keep_quantised, struct fc_error *err)
{
    *s = (struct fc_session){.chat = (enum fc_chat_format)model->chat_format};
    enum fc_code code = fc_session_device(&s->dev, compute, err);
    if (code == FC_OK)
        code = fc_model_file_open(&s->file, model->model, err);
    if (code == FC_OK)
        code = fc_tokenizer_open(&s->tok, s->file, err);
    if (code == FC_OK)
        code = (keep_quantised ? fc_model_load_quantised : fc_model_load)(
            &s->model, &s->dev, s->file, (enum fc_dtype)compute->dtype, max_ctx, err);
    if (code != FC_OK)
        return code;
    if (fc_tokenizer_size(s->tok) > s->model.config.n_vocab)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: the tokenizer has %zu tokens, more than the model's %zu", model->model,
                       fc_tokenizer_size(s->tok), s->model.config.n_vocab);
    enum fc_dtype dtype = s->model.dtype;
    fprintf(stderr, "model %s: %s, %.1fM weights, %s -> %s%s, device %s%s\n", model->model,
            s->model.config.family, (double)s->model.params.n_weights / 1e6,
            fc_model_file_format(s->file), fc_dtype_name(dtype),
            keep_quantised ? " (matrices stay quantised)" : "", s->dev.name,
            s->dev.k->has_fast(s->dev.stream, dtype)
                ? ""
                : " (this machine has no fast path for this dtype; --dtype fp32 is faster)");
    return FC_OK;
}

void fc_session_close(struct fc_session *s)
{
    fc_model_free(&s->model);
    fc_tokenizer_close(s->tok);
    fc_model_file_close(s->file);
    fc_device_close(&s->dev);
    *s = (struct fc_session){0};
}

enum fc_code fc_session_chat(struct fc_session *s, struct fc_error *err)
{
    return s->chat == FC_CHAT_AUTO ? fc_chat_detect(s->tok, &s->chat, err) : FC_OK;
}

/* The matrices that stay as the file stores them. */
static enum fc_code hash_kept(const struct fc_session *s, crypto_generichash_state *hash,
                              struct fc_error *err)
{
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < s->model.params.n && code == FC_OK; i++) {
        const struct fc_param *p = &s->model.params.items[i];
        if (!s->model.kept[i])
            continue;
        const struct fc_weight_format *format = fc_model_file_stored(s->file, p);
        size_t bytes = p->rows * (p->cols / format->block * format->bytes);
        unsigned char *blocks = fc_alloc(bytes, 1, "fingerprint", err);
        code = blocks ? fc_model_file_read_blocks(s->file, p, blocks, err) : FC_ERR_MEMORY;
        if (code == FC_OK)
            crypto_generichash_update(hash, blocks, bytes);
        free(blocks);
    }
    return code;
}

enum fc_code fc_session_fingerprint(const struct fc_session *s, const char *extra,
                                    char text[FC_FINGERPRINT_SIZE], struct fc_error *err)
{
    const struct fc_device *dev = &s->dev;
    size_t total = s->model.params.total * fc_dtype_size(s->model.dtype);
    unsigned char digest[16];
    char hex[2 * sizeof digest + 1];
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, sizeof digest);
    const unsigned char chat = (unsigned char)s->chat;
    crypto_generichash_update(&hash, &chat, 1);
    if (extra)
        crypto_generichash_update(&hash, (const unsigned char *)extra, strlen(extra));
    unsigned char *block = fc_alloc(HASH_BLOCK, 1, "fingerprint", err);
    enum fc_code code = block ? FC_OK : FC_ERR_MEMORY;
    for (size_t at = 0; at < total && code == FC_OK; at += HASH_BLOCK) {
        size_t n = total - at < HASH_BLOCK ? total - at : HASH_BLOCK;
        dev->k->download(dev->stream, block, (const char *)s->model.weights + at, n);
        code = dev->k->sync(dev->stream, err);
        crypto_generichash_update(&hash, block, n);
    }
    if (code == FC_OK && s->model.kept)
        code = hash_kept(s, &hash, err);
    crypto_generichash_final(&hash, digest, sizeof digest);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    snprintf(text, FC_FINGERPRINT_SIZE, "%s %s %s", s->model.config.family,
             fc_dtype_name(s->model.dtype), hex);
    free(block);
    return code;
}

enum fc_code fc_session_record(const struct fc_options *options, const char *folder,
                               struct fc_error *err)
{
    cJSON *config = fc_options_to_json(options, err);
    char *text = config ? fc_json_print(config, err) : NULL;
    char *path = folder ? fc_path_join(folder, "job.json", err) : NULL;
    enum fc_code code = text && (path || !folder) ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK)
        fprintf(stderr, "configuration %s\n", text);
    if (code == FC_OK && path)
        code = fc_file_write(path, text, strlen(text), err);
    free(path);
    free(text);
    cJSON_Delete(config);
    return code;
}

enum fc_code fc_print_summary(const struct fc_options *options, cJSON *summary,
                              struct fc_error *err)
{
    if (!summary)
        return fc_fail(err, FC_ERR_MEMORY, "summary: out of memory");
    enum fc_code code = FC_OK;
    if (options->json) {
        code = fc_print_json_line(stdout, summary, err);
    } else {
        const cJSON *item;
        cJSON_ArrayForEach(item, summary)
        {
            char *json = cJSON_IsString(item) ? NULL : fc_json_print(item, err);
            const char *value = cJSON_IsString(item) ? item->valuestring : json;
            if (value)
                printf("%-24s %s\n", item->string, value);
            else
                code = FC_ERR_MEMORY;
            free(json);
        }
    }
    cJSON_Delete(summary);
    return code;
}
