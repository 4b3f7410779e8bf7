/* Both ends of a session without sockets: a gate (net/gate.h) with a list of clients, channels
 * (net/channel.h) to it, and what goes between them as bytes. Define _GNU_SOURCE before. */
#ifndef FC_TESTS_NET_ENDS_H
#define FC_TESTS_NET_ENDS_H

#include "keys.h"

#include "net/channel.h"
#include "net/gate.h"

enum { CLIENTS = 6 };

struct world {
    char folder[200], clients[240];
    struct fc_key_pair *server, *client[CLIENTS], *stranger;
    struct fc_gate *gate;
    struct fc_gate_result result; /* of the last packet */
    struct fc_text packet;        /* what it was */
    char said[400];               /* the gate's last notice */
    unsigned notices;
    double now;
};

static inline void hear(void *context, const char *text)
{
    struct world *w = context;
    snprintf(w->said, sizeof w->said, "%s", text);
    w->notices++;
}

static inline void open_gate(struct world *w, size_t max_sessions)
{
    struct fc_error err = {0};
    const struct fc_gate_options how = {.key = w->server,
                                        .clients = w->clients,
                                        .max_sessions = max_sessions,
                                        .notice = hear,
                                        .context = w};
    if (fc_gate_open(&w->gate, &how, &err) != FC_OK)
        fail_msg("%s", err.text);
}

static inline int set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    make_folder(w->folder, sizeof w->folder);
    snprintf(w->clients, sizeof w->clients, "%s/clients", w->folder);
    w->server = make_key();
    w->stranger = make_key();
    for (size_t i = 0; i < CLIENTS; i++)
        w->client[i] = make_key();
    write_list(w->clients, w->client, CLIENTS);
    open_gate(w, 0);
    w->now = 1000;
    *state = w;
    return 0;
}

static inline int tear_down(void **state)
{
    struct world *w = *state;
    fc_gate_close(w->gate);
    fc_key_pair_free(w->server);
    fc_key_pair_free(w->stranger);
    for (size_t i = 0; i < CLIENTS; i++)
        fc_key_pair_free(w->client[i]);
    fc_text_free(&w->packet);
    remove_folder(w->folder);
    free(w);
    return 0;
}

/* ---- the wire ---- */

static inline struct fc_channel *connect_to(const struct fc_key_pair *own,
                                            const struct fc_key_pair *pinned)
{
    struct fc_channel *c = NULL;
    struct fc_error err = {0};
    assert_int_equal(fc_channel_open(&c, own, pinned->public_key, FC_PAD_NONE, &err), FC_OK);
    return c;
}

/* Bytes to the gate; the verdict, and w->result. The bytes stay as they are. */
static inline enum fc_gate_verdict to_gate(struct world *w, const void *data, size_t len)
{
    fc_text_clear(&w->packet);
    fc_text_add(&w->packet, data, len);
    return fc_gate_receive(w->gate, w->now, (unsigned char *)w->packet.data, len, &w->result);
}

static inline enum fc_channel_event to_client(struct world *w, struct fc_channel *c,
                                              const void *data, size_t len, struct fc_error *err)
{
    enum fc_channel_event event;
    const char *frame = NULL;
    size_t n = 0;
    unsigned char *copy = malloc(len + 1);
    memcpy(copy, data, len);
    enum fc_code code = fc_channel_receive(c, w->now, copy, len, &event, &frame, &n, err);
    if (code == FC_OK && event == FC_CHANNEL_FRAME)
        assert_memory_equal(frame, "answer", n);
    free(copy);
    return event;
}

static inline enum fc_channel_event reply_to_client(struct world *w, struct fc_channel *c,
                                                    struct fc_error *err)
{
    return to_client(w, c, w->result.reply, w->result.n_reply, err);
}

static inline struct fc_text first_of(struct fc_channel *c)
{
    struct fc_text first = {0};
    struct fc_error err = {0};
    assert_int_equal(fc_channel_first(c, &first, &err), FC_OK);
    assert_int_equal(first.len, FC_FIRST_SIZE);
    return first;
}

static inline struct fc_text frame_of(struct fc_channel *c, const char *words)
{
    struct fc_text sealed = {0}, frame = {0};
    struct fc_error err = {0};
    fc_text_puts(&frame, words);
    assert_int_equal(fc_channel_seal(c, &frame, &sealed, &err), FC_OK);
    fc_text_free(&frame);
    return sealed;
}

/* A client whose handshake is done on its side. */
static inline struct fc_channel *shake(struct world *w, size_t client)
{
    struct fc_channel *c = connect_to(w->client[client], w->server);
    struct fc_text first = first_of(c);
    struct fc_error err = {0};
    assert_int_equal(to_gate(w, first.data, first.len), FC_GATE_REPLY);
    assert_int_equal(reply_to_client(w, c, &err), FC_CHANNEL_OPENED);
    fc_text_free(&first);
    return c;
}

/* Whether a frame of the client comes through. */
static inline bool speaks(struct world *w, struct fc_channel *c)
{
    struct fc_text sealed = frame_of(c, "question");
    enum fc_gate_verdict verdict = to_gate(w, sealed.data, sealed.len);
    if (verdict == FC_GATE_FRAME) {
        assert_int_equal(w->result.n_frame, 8);
        assert_memory_equal(w->result.frame, "question", 8);
    }
    fc_text_free(&sealed);
    return verdict == FC_GATE_FRAME;
}

static inline struct fc_gate_stats stats_of(const struct world *w)
{
    struct fc_gate_stats stats;
    fc_gate_stats(w->gate, &stats);
    return stats;
}

#endif
