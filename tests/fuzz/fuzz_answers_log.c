/* Fuzzes the answers that a server keeps on disk (net/log.c, results.c). An input that begins with
 * '+' is a list of payloads, each behind its length in two bytes: they get their checksums here. */
#include "fuzz.h"

#include "net/results.h"

#include <sodium.h>
#include <string.h>

#define MODEL "\1model"

static void put_number(unsigned char *to, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = (unsigned char)(v >> (8 * i));
}

static void add_record(struct fc_text *out, const char *payload, size_t len)
{
    unsigned char head[FC_LOG_RECORD_HEAD], offset[8];
    put_number(offset, out->len, 8);
    put_number(head, len, 4);
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, 16);
    crypto_generichash_update(&state, offset, 8);
    crypto_generichash_update(&state, head, 4);
    crypto_generichash_update(&state, (const unsigned char *)payload, len);
    crypto_generichash_final(&state, head + 4, 16);
    fc_text_add(out, (const char *)head, sizeof head);
    fc_text_add(out, payload, len);
}

static void put_records(const uint8_t *data, size_t size)
{
    struct fc_text out = {0};
    fc_text_add(&out, "FCoTlog\1", FC_LOG_HEAD);
    add_record(&out, MODEL, sizeof MODEL - 1);
    while (size > 2) {
        size_t len = data[0] | (size_t)data[1] << 8;
        data += 2, size -= 2;
        len = len > size ? size : len;
        add_record(&out, (const char *)data, len);
        data += len, size -= len;
    }
    fuzz_put("answers.log", out.data, out.len);
    fc_text_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FUZZ_CHECK(sodium_init() >= 0);
    if (size && data[0] == '+')
        put_records(data + 1, size - 1);
    else
        fuzz_put("answers.log", data, size);
    struct fc_error err = {0};
    struct fc_jobs table;
    struct fc_admission admission;
    struct fc_results results = {0};
    struct fc_results_options options = {.folder = fuzz_folder(),
                                         .model = "model",
                                         .max_bytes = 1 << 20,
                                         .max_age = 1e18,
                                         .max_text_bytes = 1 << 16};
    FUZZ_CHECK(fc_jobs_init(&table, 4, 64, &err) == FC_OK);
    FUZZ_CHECK(fc_admission_init(&admission, 4, 1 << 16, &err) == FC_OK);
    enum fc_code code = fc_results_open(&results, &options, &table, &admission, &err);
    FUZZ_CHECK_ERROR(code, err);
    FUZZ_CHECK(table.bytes <= options.max_text_bytes);
    fc_results_close(&results);
    fc_jobs_free(&table);
    fc_admission_free(&admission);
    return 0;
}
