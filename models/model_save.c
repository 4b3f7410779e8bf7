/* Writing a Hugging Face directory. */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "models/model_file.h"

#include <string.h>

/* A JSON file; takes the tree, which may be NULL after a failure. */
static enum fc_code write_json(const char *folder, const char *name, cJSON *json,
                               struct fc_error *err)
{
    enum fc_code code = FC_ERR_MEMORY;
    char *path = fc_path_join(folder, name, err), *text = json ? cJSON_Print(json) : NULL;
    if (!json || !path)
        code = err && err->code ? err->code : FC_ERR_MEMORY;
    else if (!text)
        code = fc_fail(err, FC_ERR_MEMORY, "%s: out of memory", name);
    else
        code = fc_file_write(path, text, strlen(text), err);
    cJSON_Delete(json);
    cJSON_free(text);
    free(path);
    return code;
}

static enum fc_code write_generation_config(const char *folder,
                                            const struct fc_model_config *config,
                                            struct fc_error *err)
{
    cJSON *json = cJSON_CreateObject();
    if (!json || !cJSON_AddBoolToObject(json, "_from_model_config", true) ||
        !fc_config_write_tokens(config, json)) {
        cJSON_Delete(json);
        return fc_fail(err, FC_ERR_MEMORY, "generation_config.json: out of memory");
    }
    return write_json(folder, "generation_config.json", json, err);
}

/* ---- model.safetensors ----------------------------------------------------------------------- */

/* Parts lie one after another in the file in the order of the table, so the data of a fused tensor
 * is written in one piece under the names of its parts. Names are ours: nothing to escape. */
static void write_header(struct fc_text *header, const struct fc_params *params,
                         enum fc_dtype dtype)
{
    size_t at = 0;
    fc_text_puts(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < params->n; i++) {
        const struct fc_param *p = &params->items[i];
        for (size_t part = 0; part < p->n_parts; part++) {
            size_t rows = p->parts[part].rows, cols = p->is_vector ? 1 : p->cols;
            size_t end = at + rows * cols * fc_dtype_size(dtype);
            fc_text_printf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", p->parts[part].name,
                           dtype == FC_F32    ? "F32"
                           : dtype == FC_BF16 ? "BF16"
                                              : "F16",
                           rows);
            if (!p->is_vector)
                fc_text_printf(header, ",%zu", cols);
            fc_text_printf(header, "],\"data_offsets\":[%zu,%zu]}", at, end);
            at = end;
        }
    }
    fc_text_puts(header, "}");
    while (header->len % 8 && !header->failed)
        fc_text_puts(header, " ");
}

static enum fc_code write_weights(const char *folder, const struct fc_params *params,
                                  enum fc_dtype dtype, const void *weights, struct fc_error *err)
{
    struct fc_text header = {0};
    struct fc_atomic_file file = {0};
    unsigned char length[8];
    char *path = fc_path_join(folder, "model.safetensors", err);
    enum fc_code code = path ? FC_OK : FC_ERR_MEMORY;
    write_header(&header, params, dtype);
    if (code == FC_OK)
        code = fc_text_check(&header, err);
    if (code == FC_OK)
        code = fc_atomic_open(&file, path, err);
    if (code != FC_OK)
        goto cleanup;
    for (size_t i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    fwrite(length, 1, sizeof length, file.stream);
    fwrite(header.data, 1, header.len, file.stream);
    for (size_t i = 0; i < params->n && !ferror(file.stream); i++) {
        const struct fc_param *p = &params->items[i];
        fwrite((const unsigned char *)weights + p->offset * fc_dtype_size(dtype),
               fc_dtype_size(dtype), p->count, file.stream);
    }
    code = fc_atomic_commit(&file, err);
cleanup:
    fc_atomic_abort(&file);
    fc_text_free(&header);
    free(path);
    return code;
}

enum fc_code fc_model_save(const char *folder, const struct fc_model_config *config,
                           const struct fc_params *params, enum fc_dtype dtype, const void *weights,
                           struct fc_error *err)
{
    static const char *const torch_names[] = {
        [FC_F32] = "float32", [FC_BF16] = "bfloat16", [FC_F16] = "float16"};
    /* Weights first: a folder whose config.json is new never holds old weights. */
    enum fc_code code = write_weights(folder, params, dtype, weights, err);
    if (code == FC_OK)
        code = write_generation_config(folder, config, err);
    if (code == FC_OK)
        code = write_json(folder, "config.json", fc_config_to_hf(config, torch_names[dtype], err),
                          err);
    return code;
}
