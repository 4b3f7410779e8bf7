/* The FedCoT protocol, version 1: what the frames (net/frame.h) say.
 *
 * REQ/REP: the client asks, the server answers each request once, in any order between clients. A
 * client has one request in the air; it never waits for an answer without a deadline, and may ask
 * again at any time. Every request header holds
 *
 *     "job"     32 hex digits: the 128-bit random id of the job, chosen once by the client
 *     "client"  16 hex digits: random, new each time that a client program starts
 *
 * and this table shows the rest. The kind of an answer is that of its request + FC_MSG_ANSWER, or
 * FC_MSG_ERROR.
 *
 *     HELLO   protocol                            -> protocol, server, model, limits{...}
 *     SUBMIT  sampling{max_tokens, temperature,   -> accepted: so many, the first ones, are taken;
 *             top_k, top_p, stops[]},                retry_after if the rest has no room now, or is
 *             items[{index, seed (16 hex),           beyond the client's share or budget
 *             bytes}]; body: prompts end to end
 *     POLL    wait_ms, after, done[indexes]       -> last, items[{index, tokens, finish, bytes}],
 *                                                    waiting, running; body: texts end to end
 *     CANCEL  items[indexes] or all: true         -> (nothing)
 *     STATUS                                      -> the fields of net/status.h
 *     (any)                                       -> ERROR code, text; busy: retry_after; version:
 *                                                    protocol
 *
 * Nothing is done twice. (job, index) names an item: a SUBMIT of a known item changes nothing, so a
 * request whose answer was lost is sent again without a thought. A finished item gets the job's
 * next delivery number; POLL asks for the numbers above `after` and the answer's `last` is the
 * next `after`, so lost answers come again and others do not. The server keeps a finished text
 * until the client says in `done` that it has stored it. Requests that were overtaken (sequence
 * below the last one seen from this client) are dropped: an old duplicate cannot revive an item
 * that was acknowledged meanwhile.
 *
 * A poll is answered as soon as something is finished, at the latest after wait_ms with an empty
 * list: the heartbeat of a server that is busy but alive.
 *
 * Busy. A server that has no room, or whose operator drains it, refuses new jobs as "busy", and
 * accepts items in part; `retry_after` is the time in seconds (a fraction is allowed) after which
 * it is worth asking again. A client waits that long, and as much as a quarter more or less at
 * random. (Peers that do not know the field wait as long as they would without an answer.)
 *
 * Restarts. A client that starts again with the same job id says hello with a new "client" and
 * submits everything that it has no stored text for; what the server has finished or is working on
 * is not generated again. The earlier client, should it still live, is told TAKEN_OVER. A server
 * that starts again (or let the job age out) answers UNKNOWN_JOB; the client says hello and submits
 * again what it lacks. The results are identical to those that were lost, because each item
 * carries its own seed and generation depends on nothing but prompt, sampling, seed and model (the
 * client checks that the model is still the same). */
#ifndef FC_NET_MESSAGE_H
#define FC_NET_MESSAGE_H

#include "base/json.h"

#include <stdint.h>

#define FC_PROTOCOL_VERSION 1
#define FC_JOB_ID_SIZE 16
#define FC_MAX_STOPS 8
#define FC_MAX_STOP_BYTES 256
#define FC_MAX_TEXT ((size_t)1 << 20)    /* bytes of one answer; longer ones are cut */
#define FC_MAX_INDEX ((uint64_t)1 << 53) /* what JSON holds exactly */

enum fc_message_kind {
    FC_MSG_HELLO = 1,
    FC_MSG_SUBMIT = 2,
    FC_MSG_POLL = 3,
    FC_MSG_CANCEL = 4,
    FC_MSG_STATUS = 5,
    FC_MSG_ERROR = 15,
    FC_MSG_ANSWER = 16
};

/* Codes of ERROR, by name on the wire. */
enum fc_refusal {
    FC_REFUSED_UNKNOWN_JOB, /* "unknown_job": say hello (again) and submit what is missing */
    FC_REFUSED_TAKEN_OVER,  /* "taken_over": another client runs this job now */
    FC_REFUSED_BUSY,        /* "busy": no room for another job; ask again after retry_after */
    FC_REFUSED_VERSION,     /* "version": another protocol */
    FC_REFUSED_REQUEST,     /* "bad_request": the text says what was wrong */
    FC_REFUSALS
};
const char *fc_refusal_name(enum fc_refusal refusal);
/* FC_REFUSED_REQUEST for a name that it does not know. */
enum fc_refusal fc_refusal_from_name(const char *name);

/* How the LLM shall write: the same for all items of one SUBMIT. */
struct fc_wire_sampling {
    size_t max_tokens;               /* >= 1 */
    double temperature;              /* 0: greedy; at most 100 */
    size_t top_k;                    /* 0: off; at most 2^31 - 1 */
    double top_p;                    /* in (0, 1] */
    const char *stops[FC_MAX_STOPS]; /* 1 to FC_MAX_STOP_BYTES bytes each; borrowed */
    size_t n_stops;
};

/* Appends field "sampling" to a header. */
enum fc_code fc_wire_sampling_write(cJSON *header, const struct fc_wire_sampling *s,
                                    struct fc_error *err);
/* Reads the object itself; the stops stay owned by it. Ranges as above, max_tokens also at most
 * `max_tokens`. */
enum fc_code fc_wire_sampling_read(struct fc_wire_sampling *s, const cJSON *object,
                                   size_t max_tokens, struct fc_error *err);

/* What a server takes; told in its answer to HELLO. */
struct fc_limits {
    size_t frame_items;  /* items in one SUBMIT */
    size_t frame_bytes;  /* body of a request */
    size_t job_items;    /* items of one job that are not yet acknowledged */
    size_t prompt_bytes; /* one prompt */
    size_t max_tokens;   /* of one answer */
};
enum fc_code fc_limits_write(cJSON *header, const struct fc_limits *l, struct fc_error *err);
/* Every field is required and at least 1. */
enum fc_code fc_limits_read(struct fc_limits *l, const cJSON *header, struct fc_error *err);

enum fc_answer_finish {
    FC_ANSWER_STOP,      /* "stop": the model ended it, or a stop text */
    FC_ANSWER_LENGTH,    /* "length": max_tokens, or cut at FC_MAX_TEXT */
    FC_ANSWER_CANCELLED, /* "cancelled": the server gave it up */
    FC_ANSWER_REFUSED,   /* "refused": the text says why (a prompt longer than the context, ...) */
    FC_ANSWER_FINISHES
};
const char *fc_answer_finish_name(enum fc_answer_finish finish);
/* FC_ERR_INPUT for an unknown name. */
enum fc_code fc_answer_finish_read(enum fc_answer_finish *finish, const cJSON *object,
                                   struct fc_error *err);

/* 64-bit numbers and ids travel as lower-case hex of fixed length: JSON numbers hold 53 bits. */
enum fc_code fc_hex_write(cJSON *object, const char *name, const unsigned char *bytes, size_t n,
                          struct fc_error *err);
enum fc_code fc_hex_read(const cJSON *object, const char *name, unsigned char *bytes, size_t n,
                         struct fc_error *err);
enum fc_code fc_hex64_write(cJSON *object, const char *name, uint64_t v, struct fc_error *err);
enum fc_code fc_hex64_read(const cJSON *object, const char *name, uint64_t *v,
                           struct fc_error *err);

/* Adds a number; FC_ERR_MEMORY. */
enum fc_code fc_number_write(cJSON *object, const char *name, double v, struct fc_error *err);
/* A required array field of at most `max` elements; *array stays owned by the object. */
enum fc_code fc_array_read(const cJSON *object, const char *name, size_t max, const cJSON **array,
                           struct fc_error *err);
/* One element of an array of item indexes. */
enum fc_code fc_index_read(const cJSON *element, uint64_t *index, struct fc_error *err);

#endif
