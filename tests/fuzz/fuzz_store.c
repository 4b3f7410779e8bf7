/* Fuzzes the stored texts of a job (cli/store.c): what opens, opens again as the same. */
#include "fuzz.h"

#include "cli/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char ids[3][8] = {"a", "b", "line-3"};
    struct fc_example examples[3] = {{.id = ids[0]}, {.id = ids[1]}, {.id = ids[2]}};
    const struct fc_dataset dataset = {.items = examples, .n = 3};
    const char *path = fuzz_file(0, data, size);
    size_t held = 0;
    for (int again = 0; again < 2; again++) {
        struct fc_error err = {0};
        struct fc_store s = {0};
        enum fc_code code = fc_store_open(&s, path, "text", &dataset, &err);
        FUZZ_CHECK_ERROR(code, err);
        if (code != FC_OK)
            return 0;
        FUZZ_CHECK(s.n <= 3 && (!again || s.n == held));
        held = s.n;
        fc_store_close(&s);
    }
    return 0;
}
