/* Fuzzes config.json (models/config_hf.c, config.c): what it accepts can be written and read again.
 */
#include "fuzz.h"

#include "base/json.h"
#include "models/config.h"

static void write_again(const struct fc_model_config *c)
{
    struct fc_error err = {0};
    cJSON *json = fc_config_to_hf(c, "bfloat16", &err);
    char *text = json ? fc_json_print(json, &err) : NULL;
    free(text);
    cJSON_Delete(json);
    double *inverse = malloc(c->head_size / 2 * sizeof *inverse + 1);
    FUZZ_CHECK(inverse);
    fc_config_rope_frequencies(c, inverse);
    free(inverse);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_error err = {0};
    cJSON *json = fc_json_parse((const char *)data, size, "config.json", &err);
    if (!json)
        return 0;
    struct fc_model_config config;
    enum fc_code code = fc_config_from_hf(&config, json, json, "config.json", &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code == FC_OK)
        write_again(&config);
    cJSON_Delete(json);
    return 0;
}
