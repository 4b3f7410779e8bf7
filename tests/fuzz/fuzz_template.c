/* Fuzzes templates of the method: one text, and a file of them (models/template.c,
 * task_templates.c). */
#include "fuzz.h"

#include "models/template.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const fields[] = {"question", "choices"};
    static const char *const values[] = {"{{choices}}", NULL};
    char *text = malloc(size + 1);
    FUZZ_CHECK(text);
    memcpy(text, data, size);
    text[size] = '\0';
    struct fc_error err = {0};
    struct fc_template *t = NULL;
    struct fc_text out = {0};
    enum fc_code code = fc_template_compile(&t, text, "a text", fields, 2, &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code == FC_OK)
        FUZZ_CHECK(fc_template_render(t, values, &out, &err) == FC_OK);
    fc_text_free(&out);
    fc_template_free(t);
    free(text);

    struct fc_error err2 = {0};
    struct fc_task_templates all = {0};
    code = fc_task_templates_open(&all, size % 2, fuzz_file(0, data, size), &err2);
    FUZZ_CHECK_ERROR(code, err2);
    if (code == FC_OK)
        fc_task_templates_free(&all);
    return 0;
}
