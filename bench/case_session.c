/* What encryption costs, both ends in one thread and no socket: the handshake, and an exchange (a
 * request of 16 KiB and its answer of as much, encoded, sealed, copied once as by a wire, opened
 * and decoded) against the same in clear. */
#include "base/memory.h"
#include "bench/bench.h"
#include "net/frame.h"
#include "net/handshake.h"

#include <stdio.h>
#include <string.h>

#define HANDSHAKES 32
#define EXCHANGES 32
#define BODY ((size_t)16 << 10)

struct session_state {
    struct fc_key_pair *client, *server;
    struct fc_tunnel ends[2];
    enum fc_pad pad;
    bool sealed;
    cJSON *header;
    char body[BODY];
    struct fc_text frame, packet, wire;
};

static enum fc_code shake_once(struct session_state *s, struct fc_error *err)
{
    struct fc_noise client, server;
    unsigned char first[FC_FIRST_SIZE], second[FC_SECOND_SIZE];
    bool good = fc_handshake_first(&client, s->client, s->server->public_key, first) &&
                fc_handshake_read(&server, s->server, first, sizeof first) &&
                fc_handshake_answer(&server, 1, second, &s->ends[1]) &&
                fc_handshake_finish(&client, second, sizeof second, &s->ends[0]);
    return good ? FC_OK : fc_fail(err, FC_ERR_INTERNAL, "bench: the handshake failed");
}

static enum fc_code shake(void *state, struct fc_error *err)
{
    enum fc_code code = FC_OK;
    for (int i = 0; i < HANDSHAKES && code == FC_OK; i++)
        code = shake_once(state, err);
    return code;
}

/* One frame from end `from` to the other. */
static enum fc_code carry(struct session_state *s, int from, struct fc_error *err)
{
    struct fc_frame frame = {0};
    const struct fc_text *out = s->sealed ? &s->packet : &s->frame;
    fc_text_clear(&s->frame);
    fc_text_clear(&s->wire);
    enum fc_code code = fc_frame_encode(&s->frame, 2, 1, s->header, s->body, BODY, err);
    if (code == FC_OK && s->sealed)
        code = fc_tunnel_seal(&s->ends[from], s->pad, s->frame.data, s->frame.len, &s->packet, err);
    if (code != FC_OK)
        return code;
    fc_text_add(&s->wire, out->data, out->len);
    const char *received = s->wire.data;
    size_t n = s->wire.len;
    if (s->sealed && !fc_tunnel_open(&s->ends[1 - from], (unsigned char *)s->wire.data, s->wire.len,
                                     &received, &n))
        return fc_fail(err, FC_ERR_INTERNAL, "bench: a packet was not opened");
    code = fc_frame_decode(&frame, received, n, FC_FRAME_MAX_BODY, err);
    fc_frame_release(&frame);
    return code;
}

static enum fc_code exchange(void *state, struct fc_error *err)
{
    struct session_state *s = state;
    enum fc_code code = fc_tunnel_spent(&s->ends[0]) ? shake_once(s, err) : FC_OK;
    for (int i = 0; i < 2 * EXCHANGES && code == FC_OK; i++)
        code = carry(s, i % 2, err);
    return code;
}

/* Of the measurement that was added last. */
static double last_rate(const struct fc_bench_context *c)
{
    const cJSON *last = cJSON_GetArrayItem(c->results, cJSON_GetArraySize(c->results) - 1);
    return cJSON_GetNumberValue(cJSON_GetObjectItem(last, "rate"));
}

static enum fc_code measure_exchanges(struct fc_bench_context *c, struct session_state *s,
                                      struct fc_error *err)
{
    static const struct {
        const char *name;
        bool sealed;
        enum fc_pad pad;
    } kinds[] = {{"exchange of 16 KiB, clear", false, FC_PAD_NONE},
                 {"exchange of 16 KiB, sealed", true, FC_PAD_NONE},
                 {"exchange of 16 KiB, power2", true, FC_PAD_POWER2}};
    double clear = 0;
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && code == FC_OK; i++) {
        struct fc_measurement m = {kinds[i].name, "exchanges/s", EXCHANGES, 0};
        s->sealed = kinds[i].sealed;
        s->pad = kinds[i].pad;
        code = fc_bench_measure(c, &m, exchange, s, err);
        if (code != FC_OK)
            return code;
        if (!kinds[i].sealed)
            clear = last_rate(c);
        else
            printf("%-34s %10.1f us more than in clear, each\n", "",
                   1e6 / last_rate(c) - 1e6 / clear);
    }
    return code;
}

enum fc_code fc_case_session(struct fc_bench_context *c, struct fc_error *err)
{
    struct session_state *s = fc_alloc(1, sizeof *s, "bench", err);
    if (!s)
        return FC_ERR_MEMORY;
    memset(s->body, 'a', sizeof s->body);
    s->header = cJSON_CreateObject();
    struct fc_measurement m = {"handshake, both ends", "handshakes/s", HANDSHAKES, 0};
    enum fc_code code = s->header ? FC_OK : fc_fail(err, FC_ERR_MEMORY, "bench: out of memory");
    if (code == FC_OK)
        code = fc_key_pair_make(&s->client, err);
    if (code == FC_OK)
        code = fc_key_pair_make(&s->server, err);
    if (code == FC_OK)
        code = fc_bench_measure(c, &m, shake, s, err);
    if (code == FC_OK)
        code = measure_exchanges(c, s, err);
    fc_key_pair_free(s->client);
    fc_key_pair_free(s->server);
    cJSON_Delete(s->header);
    fc_text_free(&s->frame);
    fc_text_free(&s->packet);
    fc_text_free(&s->wire);
    free(s);
    return code;
}
