#include "net/gate.h"

#include "net/allow_list.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define MAX_SESSIONS 1024
#define MAX_TRIAL 60.0   /* seconds until a session is confirmed */
#define MAX_IDLE 900.0   /* seconds without a packet; a client says a word every ten */
#define MAX_AGE 7200.0   /* seconds in all; a client shakes hands anew every hour */
#define NOTICE_PAUSE 1.0 /* seconds between notices */
#define FIRST_DIGEST 16

enum session_state { FREE, ON_TRIAL, CONFIRMED };

struct session {
    enum session_state state;
    double begun, heard;
    struct fc_client_identity identity;
    unsigned char first[FIRST_DIGEST];    /* of the packet that made it */
    unsigned char second[FC_SECOND_SIZE]; /* its answer, for a packet that comes again */
    struct fc_tunnel tunnel;
};

struct fc_gate {
    struct fc_gate_options options;
    char *clients;
    struct fc_allow_list list;
    struct session *sessions; /* guarded memory, as the next */
    struct fc_noise *noise;
    double noticed;
    uint64_t unnoticed;
    struct fc_gate_stats stats;
};

/* ---- the table ---- */

/* The place of a session is part of its number, the rest of which is random. */
static struct session *find(struct fc_gate *g, uint64_t number)
{
    struct session *s = &g->sessions[number % g->options.max_sessions];
    return number && s->state != FREE && s->tunnel.session == number ? s : NULL;
}

static void forget(struct session *s)
{
    sodium_memzero(s, sizeof *s);
}

static bool is_old(const struct session *s, double now)
{
    double idle = s->state == ON_TRIAL ? MAX_TRIAL : MAX_IDLE;
    return now - s->heard > idle || now - s->begun > MAX_AGE || fc_tunnel_spent(&s->tunnel);
}

/* Whether a is to be given up before b. */
static bool is_worse(const struct session *a, const struct session *b)
{
    return a->state != b->state ? a->state < b->state : a->heard < b->heard;
}

/* A free place for a session of this key, made so if need be. */
static struct session *make_place(struct fc_gate *g, const unsigned char key[FC_KEY_SIZE])
{
    struct session *worst = &g->sessions[0], *own = NULL;
    size_t n_own = 0, share = g->options.max_sessions / 4;
    for (size_t i = 0; i < g->options.max_sessions; i++) {
        struct session *s = &g->sessions[i];
        if (is_worse(s, worst)) /* FREE is the worst there is */
            worst = s;
        if (s->state != FREE && memcmp(s->identity.key, key, FC_KEY_SIZE) == 0) {
            n_own++;
            if (!own || is_worse(s, own))
                own = s;
        }
    }
    struct session *place = own && n_own >= share ? own : worst;
    forget(place);
    return place;
}

static uint64_t new_number(const struct fc_gate *g, const struct session *place)
{
    uint64_t random, n = g->options.max_sessions;
    randombytes_buf(&random, sizeof random);
    random = random >> 1 | UINT64_C(1) << 62;
    return random / n * n + (uint64_t)(place - g->sessions);
}

void fc_gate_sweep(struct fc_gate *g, double now)
{
    for (size_t i = 0; i < g->options.max_sessions; i++)
        if (g->sessions[i].state != FREE && is_old(&g->sessions[i], now))
            forget(&g->sessions[i]);
}

/* ---- what comes in ---- */

static void notice(struct fc_gate *g, double now, const char *text)
{
    char line[320];
    if (now - g->noticed < NOTICE_PAUSE) {
        g->unnoticed++;
        return;
    }
    if (g->unnoticed)
        snprintf(line, sizeof line, "%s (and %llu more since the last such line)", text,
                 (unsigned long long)g->unnoticed);
    else
        snprintf(line, sizeof line, "%s", text);
    g->noticed = now;
    g->unnoticed = 0;
    if (g->options.notice)
        g->options.notice(g->options.context, line);
}

static enum fc_gate_verdict refuse(struct fc_gate *g, struct fc_gate_result *r,
                                   enum fc_packet_refusal code, const unsigned char *packet,
                                   size_t len)
{
    g->stats.refused++;
    fc_packet_refuse(r->reply, code, packet, len);
    r->n_reply = FC_REFUSAL_SIZE;
    return FC_GATE_REPLY;
}

static enum fc_gate_verdict refuse_version(struct fc_gate *g, double now,
                                           const unsigned char *packet, size_t len,
                                           struct fc_gate_result *r)
{
    char text[160];
    snprintf(text, sizeof text,
             "refused a client that speaks version %u of the sessions; this server speaks %d",
             fc_packet_version(packet), FC_PACKET_VERSION);
    notice(g, now, text);
    return refuse(g, r, FC_REFUSAL_VERSION, packet, len);
}

static enum fc_gate_verdict refuse_client(struct fc_gate *g, double now,
                                          const unsigned char *packet, size_t len,
                                          struct fc_gate_result *r)
{
    char text[224], key[FC_KEY_TEXT_SIZE];
    fc_key_text(key, g->noise->peer);
    snprintf(text, sizeof text, "refused a client whose key %s is not in the list of clients", key);
    notice(g, now, text);
    return refuse(g, r, FC_REFUSAL_CLIENT, packet, len);
}

/* A first packet that comes again is answered as it was: the client repeats it until it hears. */
static struct session *find_by_first(struct fc_gate *g, const unsigned char digest[FIRST_DIGEST])
{
    for (size_t i = 0; i < g->options.max_sessions; i++)
        if (g->sessions[i].state != FREE && memcmp(g->sessions[i].first, digest, FIRST_DIGEST) == 0)
            return &g->sessions[i];
    return NULL;
}

static enum fc_gate_verdict begin_session(struct fc_gate *g, double now,
                                          const struct fc_client_identity *client,
                                          const unsigned char digest[FIRST_DIGEST],
                                          struct fc_gate_result *r)
{
    struct session *s = make_place(g, client->key);
    if (!fc_handshake_answer(g->noise, new_number(g, s), s->second, &s->tunnel)) {
        forget(s);
        return FC_GATE_DROP; /* an ephemeral key of small order: its client is not ours */
    }
    s->state = ON_TRIAL;
    s->begun = s->heard = now;
    s->identity = *client;
    memcpy(s->first, digest, FIRST_DIGEST);
    memcpy(r->reply, s->second, FC_SECOND_SIZE);
    r->n_reply = FC_SECOND_SIZE;
    g->stats.handshakes++;
    return FC_GATE_REPLY;
}

static enum fc_gate_verdict take_first(struct fc_gate *g, double now, const unsigned char *packet,
                                       size_t len, struct fc_gate_result *r)
{
    unsigned char digest[FIRST_DIGEST];
    if (len != FC_FIRST_SIZE) {
        g->stats.dropped++;
        return FC_GATE_DROP;
    }
    crypto_generichash(digest, sizeof digest, packet, len, NULL, 0);
    const struct session *known = find_by_first(g, digest);
    if (known) {
        memcpy(r->reply, known->second, FC_SECOND_SIZE);
        r->n_reply = FC_SECOND_SIZE;
        return FC_GATE_REPLY;
    }
    enum fc_gate_verdict verdict;
    const struct fc_client_identity *client = NULL;
    if (!fc_handshake_read(g->noise, g->options.key, packet, len)) {
        notice(g, now,
               "refused a handshake that was not made for this server's key (a client "
               "with another --server-key, or a damaged packet)");
        verdict = refuse(g, r, FC_REFUSAL_KEY, packet, len);
    } else if (!(client = fc_allow_list_find(&g->list, g->noise->peer))) {
        verdict = refuse_client(g, now, packet, len, r);
    } else {
        verdict = begin_session(g, now, client, digest, r);
    }
    sodium_memzero(g->noise, sizeof *g->noise);
    return verdict;
}

static enum fc_gate_verdict take_data(struct fc_gate *g, double now, unsigned char *packet,
                                      size_t len, struct fc_gate_result *r)
{
    struct session *s = find(g, fc_tunnel_session(packet, len));
    if (!s || is_old(s, now))
        return refuse(g, r, FC_REFUSAL_SESSION, packet, len);
    if (!fc_tunnel_open(&s->tunnel, packet, len, &r->frame, &r->n_frame)) {
        g->stats.dropped++;
        return FC_GATE_DROP;
    }
    s->state = CONFIRMED;
    s->heard = now;
    r->session = s->tunnel.session;
    r->identity = &s->identity;
    return FC_GATE_FRAME;
}

enum fc_gate_verdict fc_gate_receive(struct fc_gate *g, double now, unsigned char *packet,
                                     size_t len, struct fc_gate_result *r)
{
    *r = (struct fc_gate_result){0};
    if (!fc_packet_is(packet, len))
        return FC_GATE_CLEAR;
    if (fc_packet_version(packet) != FC_PACKET_VERSION)
        return refuse_version(g, now, packet, len, r);
    switch (fc_packet_type(packet, len)) {
    case FC_PACKET_FIRST:
        return take_first(g, now, packet, len, r);
    case FC_PACKET_DATA:
        return take_data(g, now, packet, len, r);
    default:
        g->stats.dropped++;
        return FC_GATE_DROP;
    }
}

enum fc_code fc_gate_seal(struct fc_gate *g, uint64_t session, const void *frame, size_t len,
                          struct fc_text *out, bool *sealed, struct fc_error *err)
{
    struct session *s = find(g, session);
    *sealed = s && !fc_tunnel_spent(&s->tunnel);
    return *sealed ? fc_tunnel_seal(&s->tunnel, g->options.pad, frame, len, out, err) : FC_OK;
}

/* ---- the list ---- */

bool fc_gate_knows(const struct fc_gate *g, const unsigned char key[FC_KEY_SIZE])
{
    return fc_allow_list_find(&g->list, key) != NULL;
}

enum fc_code fc_gate_reload(struct fc_gate *g, struct fc_error *err)
{
    enum fc_code code = fc_allow_list_read(&g->list, g->clients, err);
    if (code != FC_OK)
        return code;
    for (size_t i = 0; i < g->options.max_sessions; i++) {
        struct session *s = &g->sessions[i];
        if (s->state == FREE)
            continue;
        const struct fc_client_identity *client = fc_allow_list_find(&g->list, s->identity.key);
        if (client)
            s->identity = *client;
        else
            forget(s);
    }
    return FC_OK;
}

/* ---- life ---- */

enum fc_code fc_gate_open(struct fc_gate **out, const struct fc_gate_options *options,
                          struct fc_error *err)
{
    *out = NULL;
    if (sodium_init() < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "server: libsodium cannot start");
    struct fc_gate *g = fc_alloc(1, sizeof *g, "gate", err);
    if (!g)
        return FC_ERR_MEMORY;
    g->options = *options;
    g->noticed = -NOTICE_PAUSE;
    if (!g->options.max_sessions)
        g->options.max_sessions = MAX_SESSIONS;
    size_t bytes = g->options.max_sessions * sizeof *g->sessions;
    g->clients = fc_strndup(options->clients, strlen(options->clients), err);
    g->sessions = sodium_malloc(bytes);
    g->noise = sodium_malloc(sizeof *g->noise);
    enum fc_code code = g->clients ? FC_OK : FC_ERR_MEMORY;
    if (code == FC_OK && (!g->sessions || !g->noise))
        code = fc_fail(err, FC_ERR_MEMORY, "sessions: no guarded memory for %zu bytes", bytes);
    if (code == FC_OK) {
        memset(g->sessions, 0, bytes);
        code = fc_allow_list_read(&g->list, g->clients, err);
    }
    if (code != FC_OK)
        fc_gate_close(g);
    else
        *out = g;
    return code;
}

void fc_gate_close(struct fc_gate *g)
{
    if (!g)
        return;
    sodium_free(g->sessions);
    sodium_free(g->noise);
    fc_allow_list_free(&g->list);
    free(g->clients);
    free(g);
}

void fc_gate_stats(const struct fc_gate *g, struct fc_gate_stats *stats)
{
    *stats = g->stats;
    for (size_t i = 0; i < g->options.max_sessions; i++) {
        stats->sessions += g->sessions[i].state == CONFIRMED;
        stats->on_trial += g->sessions[i].state == ON_TRIAL;
    }
}
