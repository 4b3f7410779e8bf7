/* Fuzzes a frame as it comes from the wire and what its header says (net/frame.c, message.c). What
 * decodes is encoded again to the same bytes but for the header's white space. */
#include "fuzz.h"

#include "net/frame.h"
#include "net/message.h"

static void read_header(const cJSON *header)
{
    struct fc_error err = {0};
    struct fc_wire_sampling sampling;
    struct fc_limits limits;
    enum fc_answer_finish finish;
    unsigned char job[FC_JOB_ID_SIZE];
    uint64_t number;
    const cJSON *items = NULL;
    (void)fc_wire_sampling_read(&sampling, cJSON_GetObjectItemCaseSensitive(header, "sampling"),
                                4096, &err);
    (void)fc_limits_read(&limits, header, &err);
    (void)fc_answer_finish_read(&finish, header, &err);
    (void)fc_hex_read(header, "job", job, sizeof job, &err);
    (void)fc_hex64_read(header, "client", &number, &err);
    if (fc_array_read(header, "items", 1024, &items, &err) == FC_OK)
        for (const cJSON *e = items->child; e; e = e->next)
            (void)fc_index_read(e, &number, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_error err = {0};
    struct fc_frame f;
    enum fc_code code = fc_frame_decode(&f, data, size, (size_t)1 << 20, &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code != FC_OK)
        return 0;
    fuzz_touch(f.body, f.n_body);
    read_header(f.header);
    struct fc_text again = {0}, clean = {0};
    FUZZ_CHECK(fc_frame_encode(&again, f.kind, f.sequence, f.header, f.body, f.n_body, &err) ==
               FC_OK);
    fc_utf8_clean(&clean, f.body, f.n_body, 100);
    FUZZ_CHECK(clean.len <= 100);
    fc_text_free(&again);
    fc_text_free(&clean);
    fc_frame_release(&f);
    return 0;
}
