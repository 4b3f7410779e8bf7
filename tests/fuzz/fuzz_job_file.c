/* Fuzzes job files: the JSON behind --config, in every type of option (cli/options_file.c,
 * options_value.c), for the command with the most flags. */
#include "fuzz.h"

#include "cli/distill.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char program[] = "distill", flag[] = "--config", path[64];
    snprintf(path, sizeof path, "%s", fuzz_file(0, data, size));
    char *argv[] = {program, flag, path, NULL};
    struct fc_distill_flags flags = {0};
    struct fc_options options = {0};
    struct fc_error err = {0};
    enum fc_code code = fc_options_parse(&options, &fc_distill_spec, &flags, 3, argv, &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code == FC_OK)
        cJSON_Delete(fc_options_to_json(&options, &err));
    fc_options_free(&options);
    return 0;
}
