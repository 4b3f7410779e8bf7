/* The frame: one message of the FedCoT protocol as bytes.
 *
 *     offset  size  field (integers little-endian)
 *          0     4  magic "FCoT"
 *          4     2  version of the frame format, FC_FRAME_VERSION
 *          6     2  kind (net/message.h)
 *          8     8  sequence: chosen by the client, repeated in the answer
 *         16     4  header length, <= FC_FRAME_MAX_HEADER
 *         20     4  body length, <= the receiver's limit, never above FC_FRAME_MAX_BODY
 *         24     .  header: one JSON object in UTF-8
 *          .     .  body: texts end to end, whose lengths the header states
 *
 * A frame is exactly as long as its prelude says. There is no checksum: TCP has one, and the
 * authentication tag of an encrypted session (net/tunnel.h) covers all bytes. Decoding trusts
 * nothing: lengths are checked against the bytes that are there before anything is parsed or
 * allocated, the header must be valid UTF-8 without NUL, JSON (nesting limited by cJSON to 1000)
 * and an object. */
#ifndef FC_NET_FRAME_H
#define FC_NET_FRAME_H

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"

#define FC_FRAME_VERSION 1
#define FC_FRAME_PRELUDE 24
#define FC_FRAME_MAX_HEADER ((size_t)1 << 20)
#define FC_FRAME_MAX_BODY ((size_t)64 << 20)

struct fc_frame {
    uint16_t kind;
    uint64_t sequence;
    cJSON *header;    /* an object; freed by fc_frame_release */
    const char *body; /* inside the decoded bytes: valid as long as they are */
    size_t n_body;
};

/* Appends a frame to `out`. FC_ERR_USAGE when a part is over its limit. */
enum fc_code fc_frame_encode(struct fc_text *out, uint16_t kind, uint64_t sequence,
                             const cJSON *header, const char *body, size_t n_body,
                             struct fc_error *err);

/* Changes the sequence of an encoded frame: for a resend. */
void fc_frame_set_sequence(struct fc_text *frame, uint64_t sequence);

/* The sequence of an encoded frame; 0 if it is too short to have one. */
uint64_t fc_frame_sequence(const void *data, size_t len);

/* Reads a whole frame of `len` bytes, borrowing the body. FC_ERR_INPUT says which part is wrong;
 * FC_ERR_UNSUPPORTED when the other end speaks another version. *f is zeroed on failure. */
enum fc_code fc_frame_decode(struct fc_frame *f, const void *data, size_t len, size_t max_body,
                             struct fc_error *err);
void fc_frame_release(struct fc_frame *f);

/* Appends text with each byte that is not valid UTF-8 replaced by U+FFFD, at most max_len bytes and
 * never a part of a character. */
void fc_utf8_clean(struct fc_text *out, const char *text, size_t len, size_t max_len);

#endif
