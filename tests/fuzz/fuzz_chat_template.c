/* Fuzzes the recognition of chat templates (models/chat_template.c). */
#include "fuzz.h"

#include "models/chat_template.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    FUZZ_CHECK(text);
    memcpy(text, data, size);
    text[size] = '\0';
    struct fc_error err = {0};
    struct fc_chat_style style = {0};
    enum fc_code code = fc_chat_style_read(text, &style, &err);
    FUZZ_CHECK_ERROR(code, err);
    fc_text_free(&style.system);
    free(text);
    return 0;
}
