/* HELLO: a client begins a job, or comes back to one. */
#include "net/server_private.h"

#include "base/clock.h"

#include <stdio.h>

/* Another client's job goes on with this one: one that says hello for it, or the first one since it
 * was read from disk. */
static enum fc_code take_up(struct fc_server_request *r)
{
    struct fc_job *job = r->job;
    if (job->client != r->client && job->previous_client == r->client && !job->orphan)
        return fc_server_refuse(r->server, r, FC_REFUSED_TAKEN_OVER,
                                "another client runs this job now");
    if (job->client != r->client)
        fc_job_take_over(job, r->client);
    job->orphan = false;
    return FC_OK;
}

/* A place for a new job; r->job stays NULL if the client was told to come back. */
static enum fc_code begin(struct fc_server_request *r, struct fc_party *party)
{
    struct fc_server *s = r->server;
    if (s->drained)
        return fc_server_refuse_busy(r, fc_server_drain_wait(s),
                                     "the server takes no new jobs: it is about to stop");
    if (!fc_party_has_job_room(&s->table, party))
        return fc_server_refuse_busy(r, fc_server_job_wait(s),
                                     "this client has its share of the places for jobs");
    while (!(r->job = fc_job_add(&s->table, r->job_id)))
        if (!fc_server_make_room(s))
            return fc_server_refuse_busy(r, fc_server_job_wait(s), "all places for jobs are taken");
    r->job->client = r->job->previous_client = r->client;
    return FC_OK;
}

static enum fc_code welcome(struct fc_server_request *r, struct fc_error *err)
{
    struct fc_server *s = r->server;
    enum fc_code code;
    cJSON *header = cJSON_CreateObject();
    if (!cJSON_AddStringToObject(header, "server", s->options.name) ||
        !cJSON_AddStringToObject(header, "model", s->model))
        code = fc_fail(err, FC_ERR_MEMORY, "hello: out of memory");
    else if ((code = fc_number_write(header, "protocol", FC_PROTOCOL_VERSION, err)) == FC_OK &&
             (code = fc_limits_write(header, &s->options.limits, err)) == FC_OK)
        code = fc_server_answer_to(r, header, err);
    cJSON_Delete(header);
    return code;
}

static enum fc_code wrong_version(struct fc_server_request *r, size_t protocol)
{
    char text[160];
    snprintf(text, sizeof text,
             "%.64s speaks protocol %d and this client speaks %zu: use programs of one release",
             r->server->options.name, FC_PROTOCOL_VERSION, protocol);
    return fc_server_refuse(r->server, r, FC_REFUSED_VERSION, text);
}

enum fc_code fc_serve_hello(struct fc_server_request *r, struct fc_error *err)
{
    struct fc_server *s = r->server;
    size_t protocol = 0;
    enum fc_code code = fc_json_size(r->frame.header, "protocol", true, &protocol, "hello", err);
    if (code != FC_OK)
        return code;
    if (protocol != FC_PROTOCOL_VERSION)
        return wrong_version(r, protocol);
    struct fc_party *party = fc_party_of(&s->admission, &s->table, r->identity, r->route);
    if (!party)
        return fc_server_refuse_busy(r, fc_server_job_wait(s), "all places for clients are taken");
    bool known = r->job;
    code = known ? take_up(r) : begin(r, party);
    if (code != FC_OK || !r->job || r->job->client != r->client)
        return code;
    r->job->party = party;
    r->job->owner = *r->identity;
    r->job->contact = fc_now();
    r->job->last_sequence = r->frame.sequence;
    return welcome(r, err);
}
