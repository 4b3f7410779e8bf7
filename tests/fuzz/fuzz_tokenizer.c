/* Fuzzes tokenizer.json (models/tokenizer_json.c, tokenizer_pipeline.c, vocab.c, pattern.c) and
 * what such a file makes of a text: encoding and decoding, which must agree with streaming. */
#include "fuzz.h"

#include "models/tokenizer.h"

#include <string.h>

static const char text[] =
    "The \xc3\xa9lan of <|im_end|> 1234 words,\n\n  it's\xff \xe6\xbc\xa2\xe5\xad\x97.";

static void decode_both(const struct fc_tokenizer *tok, const struct fc_tokens *ids)
{
    struct fc_error err = {0};
    struct fc_text whole = {0}, streamed = {0};
    struct fc_decode_state state = {0};
    enum fc_code code = fc_tokenizer_decode(tok, ids->ids, ids->n, false, &whole, &err);
    for (size_t i = 0; i < ids->n && code == FC_OK; i++)
        code = fc_decode_next(tok, &state, ids->ids[i], &streamed, &err);
    if (code == FC_OK)
        code = fc_decode_flush(&state, &streamed, &err);
    FUZZ_CHECK_ERROR(code, err);
    FUZZ_CHECK(code != FC_OK || (whole.len == streamed.len &&
                                 (!whole.len || !memcmp(whole.data, streamed.data, whole.len))));
    fc_text_free(&whole);
    fc_text_free(&streamed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_error err = {0};
    struct fc_tokenizer *tok = NULL;
    enum fc_code code = fc_tokenizer_open_json(&tok, fuzz_file(0, data, size), &err);
    FUZZ_CHECK_ERROR(code, err);
    struct fc_tokens ids = {0};
    if (code == FC_OK &&
        fc_tokenizer_encode(tok, text, sizeof text - 1, FC_MARKUP, &ids, &err) == FC_OK) {
        for (size_t i = 0; i < ids.n; i++)
            FUZZ_CHECK(ids.ids[i] >= 0 && (size_t)ids.ids[i] < fc_tokenizer_size(tok));
        decode_both(tok, &ids);
    }
    fc_tokens_free(&ids);
    fc_tokenizer_close(tok);
    return 0;
}
