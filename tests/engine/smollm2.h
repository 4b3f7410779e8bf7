/* The real model that some tests run on, and skip without. */
#ifndef FC_TESTS_ENGINE_SMOLLM2_H
#define FC_TESTS_ENGINE_SMOLLM2_H

#include "tests/engine/toy.h"

#include <stdio.h>

#define SMOLLM2_NAME "SmolLM2-135M-Instruct.Q4_1.gguf"

/* FEDCOT_MODEL, or where scripts/ put the model. False, after saying why, if it is not there, not
 * the one that the goldens were made with, or if FEDCOT_TEST_SHORT asks for short tests. */
static inline bool smollm2_open(struct fc_model_file **file)
{
    char path[4096];
    const char *named = getenv("FEDCOT_MODEL"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (getenv("FEDCOT_TEST_SHORT")) {
        printf("skipped: FEDCOT_TEST_SHORT is set\n");
        return false;
    }
    if (named)
        snprintf(path, sizeof path, "%s", named);
    else if (cache)
        snprintf(path, sizeof path, "%s/fedcot/%s", cache, SMOLLM2_NAME);
    else
        snprintf(path, sizeof path, "%s/.cache/fedcot/%s", home ? home : "", SMOLLM2_NAME);
    FILE *probe = fopen(path, "rb");
    if (!probe) {
        printf("skipped: no model at %s (scripts/fetch_model.sh fetches it)\n", path);
        return false;
    }
    fclose(probe);
    must(fc_model_file_open(file, path, why));
    const struct fc_model_config *c = fc_model_file_config(*file);
    bool right = c->n_layer == 30 && c->n_embd == 576 && c->n_vocab == 49152 &&
                 strcmp(fc_model_file_format(*file), "gguf Q4_1") == 0;
    if (!right)
        printf("skipped: %s is not %s, of which the golden was made\n", path, SMOLLM2_NAME);
    return right;
}

#endif
