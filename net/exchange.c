#define _POSIX_C_SOURCE 200809L
#include "net/exchange.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <sodium.h>
#include <string.h>

#define LONGEST_PUT_OFF 86400.0 /* seconds: a day's budget is back by then */
#define LOOK 50                 /* milliseconds between looks at `cancelled` */

bool fc_exchange_cancelled(const struct fc_exchange *x)
{
    return x->cancelled && x->cancelled(x->cancel_context);
}

static enum fc_code cancelled(struct fc_error *err)
{
    return fc_fail(err, FC_ERR_CANCELLED, "cancelled");
}

/* The header that a raw request travels with: its number, told from routing by the high bit. The
 * answer brings it back. */
struct header {
    struct nn_cmsghdr head;
    size_t size;
    unsigned char number[4];
    unsigned char pad[4]; /* to NN_CMSG_SPACE */
};

_Static_assert(sizeof(struct header) == NN_CMSG_SPACE(sizeof(size_t) + 4), "no holes");

static void fill_number(const struct fc_exchange *x, unsigned char number[4])
{
    uint32_t v = (uint32_t)x->sequence | UINT32_C(0x80000000);
    for (int i = 0; i < 4; i++)
        number[i] = (unsigned char)(v >> (24 - 8 * i));
}

/* An answer to any sending of the present request is as good as one to the last: and a server that
 * answers several at once gets only the first through (nanomsg drops what a pipe cannot take). */
static bool answers_this(const struct fc_exchange *x, const unsigned char number[4])
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 8 | number[i];
    uint32_t sendings_ago = ((uint32_t)x->sequence - v) & UINT32_C(0x7fffffff);
    return v >> 31 && sendings_ago <= x->sequence - x->first;
}

static bool is_passing(int why)
{
    return why == EAGAIN || why == EINTR || why == ETIMEDOUT;
}

/* The one place where bytes leave: waits for a connection until `until`. */
static enum fc_code transmit(struct fc_exchange *x, const struct fc_text *frame, double until,
                             struct fc_error *err)
{
    struct header header = {.head = {sizeof header, PROTO_SP, SP_HDR}, .size = 4};
    struct nn_iovec part = {frame->data, frame->len};
    struct nn_msghdr message = {&part, 1, &header, sizeof header};
    fill_number(x, header.number);
    do {
        if (fc_exchange_cancelled(x))
            return cancelled(err);
        if (nn_sendmsg(x->socket, &message, 0) >= 0) { /* at most LOOK */
            x->bytes_out += frame->len;
            return FC_OK;
        }
        if (!is_passing(nn_errno()))
            return fc_fail(err, FC_ERR_NETWORK, "%s: cannot send: %s", x->address.text,
                           nn_strerror(nn_errno()));
    } while (fc_now() < until);
    return FC_OK; /* as if it were lost: the caller goes on to send it again */
}

static void release(struct fc_exchange *x)
{
    if (x->received)
        nn_freemsg(x->received);
    x->received = NULL;
}

void fc_exchange_done(struct fc_exchange *x, struct fc_frame *frame)
{
    fc_frame_release(frame);
    release(x);
}

/* What came: a frame inside x->received, or news of the session. */
struct arrival {
    enum fc_channel_event event;
    const char *frame;
    size_t n_frame;
};

/* Looks into n received bytes. In a session a frame that does not answer the present request is as
 * good as none: an authentic answer to another one can be held back and put here. */
static enum fc_code examine(struct fc_exchange *x, size_t n, struct arrival *a,
                            struct fc_error *err)
{
    *a = (struct arrival){FC_CHANNEL_FRAME, x->received, n};
    if (!x->channel)
        return FC_OK;
    enum fc_code code = fc_channel_receive(x->channel, fc_now(), x->received, n, &a->event,
                                           &a->frame, &a->n_frame, err);
    if (code != FC_OK) {
        fc_error_prefix(err, "%s", x->address.text);
        return code;
    }
    uint64_t sequence = a->event == FC_CHANNEL_FRAME ? fc_frame_sequence(a->frame, a->n_frame) : 0;
    if (a->event == FC_CHANNEL_FRAME && (sequence < x->first || sequence > x->sequence))
        a->event = FC_CHANNEL_DROP;
    return FC_OK;
}

/* Waits until `until` for something that concerns the present request; FC_CHANNEL_DROP if nothing
 * came. Late answers to earlier requests are dropped. */
static enum fc_code await(struct fc_exchange *x, double until, struct arrival *a,
                          struct fc_error *err)
{
    do {
        struct header header = {.size = 0};
        struct nn_iovec part = {&x->received, NN_MSG};
        struct nn_msghdr message = {&part, 1, &header, sizeof header};
        *a = (struct arrival){FC_CHANNEL_DROP, NULL, 0};
        if (fc_exchange_cancelled(x))
            return cancelled(err);
        int n = nn_recvmsg(x->socket, &message, 0); /* at most LOOK */
        if (n < 0 && !is_passing(nn_errno()))
            return fc_fail(err, FC_ERR_NETWORK, "%s: cannot receive: %s", x->address.text,
                           nn_strerror(nn_errno()));
        if (n >= 0 && header.size == 4 && answers_this(x, header.number)) {
            enum fc_code code = examine(x, (size_t)n, a, err);
            if (code != FC_OK || a->event != FC_CHANNEL_DROP) {
                x->bytes_in += (uint64_t)n;
                return code;
            }
        }
        release(x);
    } while (fc_now() < until);
    return FC_OK;
}

/* +-25 %: clients that lost the same server do not come back in step. */
static double jitter(double seconds)
{
    return seconds * (0.75 + 0.5 * (double)randombytes_uniform(1 << 20) / (1 << 20));
}

double fc_exchange_put_off(const struct fc_exchange *x, double retry_after)
{
    retry_after = fmin(fmax(retry_after, 0), LONGEST_PUT_OFF);
    if (x->busy)
        x->busy(x->busy_context, retry_after);
    return jitter(retry_after);
}

static enum fc_code dead(const struct fc_exchange *x, bool busy, struct fc_error *err)
{
    if (busy)
        return fc_fail(
            err, FC_ERR_NETWORK,
            "%s: the server has been busy, without a place for this job, for %.0f s: try "
            "again later, or raise --timeout",
            x->address.text, x->timeout);
    return fc_fail(err, FC_ERR_NETWORK,
                   "%s: no answer for %.0f s%s: check that `fedcot serve` runs and listens there, "
                   "or raise --timeout; starting again with the same job goes on where it stopped",
                   x->address.text, x->timeout, x->channel ? fc_channel_trouble(x->channel) : "");
}

/* The server's words end up on a terminal: printable ASCII only. */
static enum fc_code refused(struct fc_exchange *x, const cJSON *header, enum fc_refusal *refusal,
                            double *retry_after, struct fc_error *err)
{
    const char *name = NULL, *words = NULL;
    char text[200];
    size_t n = 0;
    enum fc_code code = fc_json_string(header, "code", true, &name, "refusal", err);
    if (code == FC_OK)
        code = fc_json_string(header, "text", true, &words, "refusal", err);
    if (code == FC_OK)
        code = fc_json_double(header, "retry_after", false, retry_after, "refusal", err);
    if (code != FC_OK)
        return code;
    for (; words[n] && n + 1 < sizeof text; n++)
        text[n] = words[n] >= ' ' && words[n] <= '~' ? words[n] : '?';
    text[n] = '\0';
    *refusal = fc_refusal_from_name(name);
    switch (*refusal) {
    case FC_REFUSED_UNKNOWN_JOB:
    case FC_REFUSED_BUSY:
        return FC_OK; /* the caller goes on */
    case FC_REFUSED_TAKEN_OVER:
        return fc_fail(err, FC_ERR_USAGE,
                       "%s: another program runs this job now (the same job id): let one of them "
                       "finish",
                       x->address.text);
    case FC_REFUSED_VERSION:
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "%s: this client speaks protocol %d; the server says: %s", x->address.text,
                       FC_PROTOCOL_VERSION, text);
    default:
        return fc_fail(err, FC_ERR_INPUT, "%s: the server refused the request: %s", x->address.text,
                       text);
    }
}

static enum fc_code wait_quietly(struct fc_exchange *x, double until, struct fc_error *err)
{
    while (fc_now() < until) {
        if (fc_exchange_cancelled(x))
            return cancelled(err);
        fc_sleep(fmin(LOOK / 1000.0, until - fc_now()));
    }
    return FC_OK;
}

enum outcome { NOTHING, ANSWERED, UNKNOWN_JOB, BUSY };

/* Sends once and waits until `until`. */
static enum fc_code attempt(struct fc_exchange *x, int kind, double until, struct fc_frame *frame,
                            enum outcome *outcome, double *retry_after, struct fc_error *err)
{
    struct arrival a;
    enum fc_refusal refusal = FC_REFUSED_REQUEST;
    *outcome = NOTHING;
    fc_frame_set_sequence(&x->out, ++x->sequence);
    enum fc_code code = x->channel ? fc_channel_seal(x->channel, &x->out, &x->sealed, err) : FC_OK;
    if (code == FC_OK)
        code = transmit(x, x->channel ? &x->sealed : &x->out, until, err);
    if (code == FC_OK)
        code = await(x, until, &a, err);
    if (code != FC_OK || a.event != FC_CHANNEL_FRAME) {
        release(x);
        return code;
    }
    code = fc_frame_decode(frame, a.frame, a.n_frame, FC_FRAME_MAX_BODY, err);
    if (code != FC_OK) {
        fc_error_prefix(err, "%s", x->address.text);
        return code;
    }
    if (frame->kind == kind + FC_MSG_ANSWER && frame->sequence >= x->first &&
        frame->sequence <= x->sequence) {
        x->contact = fc_now();
        x->requests++;
        *outcome = ANSWERED;
        return FC_OK;
    }
    if (frame->kind != FC_MSG_ERROR)
        return fc_fail(err, FC_ERR_INPUT, "%s: expected an answer of kind %d, found %u",
                       x->address.text, kind + FC_MSG_ANSWER, (unsigned)frame->kind);
    code = refused(x, frame->header, &refusal, retry_after, err);
    fc_exchange_done(x, frame);
    *outcome = refusal == FC_REFUSED_BUSY ? BUSY : UNKNOWN_JOB;
    return code;
}

/* Asks for a session once, and waits for it until `until`. Nothing of the request is sent. */
static enum fc_code shake_hands(struct fc_exchange *x, double until, struct fc_error *err)
{
    struct arrival a;
    x->sequence++;
    enum fc_code code = fc_channel_first(x->channel, &x->sealed, err);
    if (code == FC_OK)
        code = transmit(x, &x->sealed, until, err);
    if (code == FC_OK)
        code = await(x, until, &a, err);
    if (code == FC_OK && a.event == FC_CHANNEL_OPENED)
        x->handshakes++;
    release(x);
    return code;
}

static enum fc_code converse(struct fc_exchange *x, int kind, double wait, struct fc_frame *frame,
                             struct fc_error *err)
{
    double give_up = fc_now() + x->timeout, pause = x->resend;
    x->first = x->sequence + 1;
    for (;;) {
        enum outcome outcome = NOTHING;
        bool ready = !x->channel || fc_channel_ready(x->channel, fc_now());
        double until = fmin(fc_now() + jitter(pause) + (ready ? wait : 0), give_up);
        double retry_after = -1;
        enum fc_code code = ready ? attempt(x, kind, until, frame, &outcome, &retry_after, err)
                                  : shake_hands(x, until, err);
        if (code != FC_OK || outcome == ANSWERED)
            return code;
        if (!ready && fc_channel_ready(x->channel, fc_now()))
            continue;
        if (outcome == UNKNOWN_JOB && kind != FC_MSG_HELLO) {
            x->greeted = false;
            return FC_OK;
        }
        if (outcome == BUSY && retry_after >= 0)
            until = fmin(fc_now() + fc_exchange_put_off(x, retry_after), give_up);
        if (outcome != NOTHING)
            code = wait_quietly(x, until, err);
        if (code != FC_OK)
            return code;
        if (fc_now() >= give_up)
            return dead(x, outcome == BUSY, err);
        x->resends++;
        pause = fmin(pause * 2, 16 * x->resend);
    }
}

enum fc_code fc_exchange_ask(struct fc_exchange *x, int kind, cJSON *header,
                             const struct fc_text *body, double wait, struct fc_frame *frame,
                             struct fc_error *err)
{
    *frame = (struct fc_frame){0};
    fc_text_clear(&x->out);
    enum fc_code code = fc_text_check(body, err);
    if (code == FC_OK)
        code = fc_hex_write(header, "job", x->job, sizeof x->job, err);
    if (code == FC_OK)
        code = fc_hex64_write(header, "client", x->client, err);
    if (code == FC_OK)
        code = fc_frame_encode(&x->out, (uint16_t)kind, 0, header, body->data, body->len, err);
    cJSON_Delete(header);
    return code == FC_OK ? converse(x, kind, wait, frame, err) : code;
}

/* ---- life ---- */

static enum fc_code set_up(struct fc_exchange *x, struct fc_error *err)
{
    /* The largest frame that a server may send; looks at `cancelled`; connections back off. */
    const struct {
        int level, option, value;
    } options[] = {
        {NN_SOL_SOCKET, NN_RCVMAXSIZE,
         (int)fc_tunnel_largest(FC_FRAME_PRELUDE + FC_FRAME_MAX_HEADER + FC_FRAME_MAX_BODY)},
        {NN_SOL_SOCKET, NN_RCVTIMEO, LOOK},
        {NN_SOL_SOCKET, NN_SNDTIMEO, LOOK},
        {NN_SOL_SOCKET, NN_RECONNECT_IVL, 50},
        {NN_SOL_SOCKET, NN_RECONNECT_IVL_MAX, 2000},
        {NN_SOL_SOCKET, NN_IPV4ONLY, !x->address.ipv6},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (nn_setsockopt(x->socket, options[i].level, options[i].option, &options[i].value,
                          sizeof options[i].value) < 0)
            return fc_fail(err, FC_ERR_INTERNAL, "client: cannot set up the socket: %s",
                           nn_strerror(nn_errno()));
    if (nn_connect(x->socket, x->address.text) < 0)
        return fc_fail(err, FC_ERR_NETWORK, "%s: cannot connect: %s", x->address.text,
                       nn_strerror(nn_errno()));
    return FC_OK;
}

enum fc_code fc_exchange_open(struct fc_exchange *x, const struct fc_client_options *options,
                              struct fc_error *err)
{
    *x = (struct fc_exchange){.socket = -1,
                              .timeout = options->timeout > 0 ? options->timeout : 60,
                              .resend = options->resend > 0 ? options->resend : 1,
                              .cancelled = options->cancelled,
                              .cancel_context = options->cancel_context,
                              .busy = options->busy,
                              .busy_context = options->busy_context};
    memcpy(x->job, options->job, sizeof x->job);
    if (sodium_init() < 0)
        return fc_fail(err, FC_ERR_INTERNAL, "client: libsodium cannot start");
    randombytes_buf(&x->client, sizeof x->client);
    if (!options->key != !options->server_key)
        return fc_fail(err, FC_ERR_USAGE, "client: its own key and the server's: both or neither");
    enum fc_code code = fc_address_parse(&x->address, options->address, options->key != NULL, err);
    if (code == FC_OK && options->key)
        code = fc_channel_open(&x->channel, options->key, options->server_key, options->pad, err);
    if (code != FC_OK)
        return code;
    /* Raw, with numbers of our own. The cooked socket of nanomsg 1.1.5 keeps its one answer in a
     * place that the next message overwrites: a late answer to an earlier request, which every
     * resend can bring, frees the right one before it is read (seen by the address sanitizer in
     * tests/net/test_loss.c: a failed assertion inside nn_recv). */
    x->socket = nn_socket(AF_SP_RAW, NN_REQ);
    if (x->socket < 0)
        return fc_fail(err, FC_ERR_NETWORK, "client: cannot make a socket: %s",
                       nn_strerror(nn_errno()));
    return set_up(x, err);
}

void fc_exchange_close(struct fc_exchange *x)
{
    if (x->socket >= 0)
        nn_close(x->socket);
    release(x);
    fc_channel_close(x->channel);
    fc_text_free(&x->out);
    fc_text_free(&x->sealed);
    *x = (struct fc_exchange){.socket = -1};
}
