/* Fuzzes the JSON lines files that users bring: data sets, prompts, rationales (models/dataset.c,
 * records.c, jsonl.c). */
#include "fuzz.h"

#include "models/dataset.h"
#include "models/records.h"

#include <string.h>

static void touch_dataset(const struct fc_dataset *d)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct fc_example *e = &d->items[i];
        FUZZ_CHECK(e->id && e->question && e->question[0]);
        for (size_t j = 0; j < e->n_choices; j++)
            fuzz_touch(e->choices[j], strlen(e->choices[j]));
        FUZZ_CHECK(e->label <= e->n_choices);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file(0, data, size);
    for (int need_answers = 0; need_answers < 2; need_answers++) {
        struct fc_error err = {0};
        struct fc_dataset d = {0};
        enum fc_code code = fc_dataset_read(&d, path, need_answers, &err);
        FUZZ_CHECK_ERROR(code, err);
        touch_dataset(&d);
        fc_dataset_free(&d);
    }
    struct fc_error err = {0}, err2 = {0};
    struct fc_prompts prompts = {0};
    enum fc_code code = fc_prompts_read(&prompts, path, &err);
    FUZZ_CHECK_ERROR(code, err);
    fc_prompts_free(&prompts);
    struct fc_id_texts texts = {0};
    code = fc_id_texts_read(&texts, path, &err2);
    FUZZ_CHECK_ERROR(code, err2);
    if (code == FC_OK)
        for (size_t i = 0; i < texts.n; i++)
            FUZZ_CHECK(fc_id_texts_find(&texts, texts.items[i].id));
    fc_id_texts_free(&texts);
    return 0;
}
