#include "net/frame.h"

#include <string.h>

static const char magic[4] = {'F', 'C', 'o', 'T'};

static void put(unsigned char *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

enum fc_code fc_frame_encode(struct fc_text *out, uint16_t kind, uint64_t sequence,
                             const cJSON *header, const char *body, size_t n_body,
                             struct fc_error *err)
{
    unsigned char prelude[FC_FRAME_PRELUDE];
    char *text = fc_json_print(header, err);
    if (!text)
        return FC_ERR_MEMORY;
    size_t n_header = strlen(text);
    enum fc_code code = FC_OK;
    if (n_header > FC_FRAME_MAX_HEADER || n_body > FC_FRAME_MAX_BODY) {
        code = fc_fail(err, FC_ERR_USAGE,
                       "frame: header of %zu bytes and body of %zu, expected at most %zu and %zu",
                       n_header, n_body, FC_FRAME_MAX_HEADER, FC_FRAME_MAX_BODY);
        goto cleanup;
    }
    memcpy(prelude, magic, sizeof magic);
    put(prelude + 4, FC_FRAME_VERSION, 2);
    put(prelude + 6, kind, 2);
    put(prelude + 8, sequence, 8);
    put(prelude + 16, n_header, 4);
    put(prelude + 20, n_body, 4);
    fc_text_add(out, (const char *)prelude, sizeof prelude);
    fc_text_add(out, text, n_header);
    fc_text_add(out, body, n_body);
    code = fc_text_check(out, err);
cleanup:
    cJSON_free(text);
    return code;
}

void fc_frame_set_sequence(struct fc_text *frame, uint64_t sequence)
{
    put((unsigned char *)frame->data + 8, sequence, 8);
}

uint64_t fc_frame_sequence(const void *data, size_t len)
{
    return len < FC_FRAME_PRELUDE ? 0 : get((const unsigned char *)data + 8, 8);
}

/* The lengths of the parts, checked against each other and the limits. */
static enum fc_code check_prelude(const unsigned char *p, size_t len, size_t max_body,
                                  size_t *n_header, size_t *n_body, struct fc_error *err)
{
    if (len < FC_FRAME_PRELUDE)
        return fc_fail(err, FC_ERR_INPUT, "frame: %zu bytes, expected at least %d", len,
                       FC_FRAME_PRELUDE);
    if (memcmp(p, magic, sizeof magic) != 0)
        return fc_fail(err, FC_ERR_INPUT, "frame: does not begin with \"FCoT\"");
    unsigned version = (unsigned)get(p + 4, 2);
    if (version != FC_FRAME_VERSION)
        return fc_fail(
            err, FC_ERR_UNSUPPORTED,
            "frame: version %u, expected %d: run the same release of fedcot on both ends", version,
            FC_FRAME_VERSION);
    *n_header = (size_t)get(p + 16, 4);
    *n_body = (size_t)get(p + 20, 4);
    if (*n_header > FC_FRAME_MAX_HEADER)
        return fc_fail(err, FC_ERR_INPUT, "frame: header of %zu bytes, expected at most %zu",
                       *n_header, FC_FRAME_MAX_HEADER);
    if (*n_body > max_body || *n_body > FC_FRAME_MAX_BODY)
        return fc_fail(err, FC_ERR_INPUT, "frame: body of %zu bytes, expected at most %zu", *n_body,
                       max_body < FC_FRAME_MAX_BODY ? max_body : FC_FRAME_MAX_BODY);
    if (FC_FRAME_PRELUDE + *n_header + *n_body != len) /* small: no overflow */
        return fc_fail(err, FC_ERR_INPUT, "frame: %zu bytes, but its parts make %zu", len,
                       FC_FRAME_PRELUDE + *n_header + *n_body);
    return FC_OK;
}

enum fc_code fc_frame_decode(struct fc_frame *f, const void *data, size_t len, size_t max_body,
                             struct fc_error *err)
{
    const unsigned char *p = data;
    size_t n_header = 0, n_body = 0;
    *f = (struct fc_frame){0};
    enum fc_code code = check_prelude(p, len, max_body, &n_header, &n_body, err);
    if (code != FC_OK)
        return code;
    const char *text = (const char *)p + FC_FRAME_PRELUDE;
    if (fc_utf8_prefix(text, n_header) != n_header || memchr(text, 0, n_header))
        return fc_fail(err, FC_ERR_INPUT, "frame: the header is not UTF-8 text");
    cJSON *header = fc_json_parse(text, n_header, "frame header", err);
    if (!header)
        return FC_ERR_INPUT;
    if (!cJSON_IsObject(header)) {
        cJSON_Delete(header);
        return fc_fail(err, FC_ERR_INPUT, "frame header: expected a JSON object");
    }
    *f = (struct fc_frame){.kind = (uint16_t)get(p + 6, 2),
                           .sequence = get(p + 8, 8),
                           .header = header,
                           .body = text + n_header,
                           .n_body = n_body};
    return FC_OK;
}

void fc_frame_release(struct fc_frame *f)
{
    cJSON_Delete(f->header);
    *f = (struct fc_frame){0};
}

void fc_utf8_clean(struct fc_text *out, const char *text, size_t len, size_t max_len)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    size_t room = max_len, at = 0;
    while (at < len && room > 0) {
        size_t n = fc_utf8_prefix(text + at, len - at);
        size_t fits = n <= room ? n : fc_utf8_prefix(text + at, room);
        fc_text_add(out, text + at, fits);
        room -= fits;
        at += n;
        if (fits < n || at == len || room < sizeof replacement - 1)
            return;
        fc_text_add(out, replacement, sizeof replacement - 1);
        room -= sizeof replacement - 1;
        at++;
    }
}
