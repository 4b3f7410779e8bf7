/* HELLO: a client begins a job, or comes back to one. */
#include "net/server_private.h"

#include "base/clock.h"

enum fc_code fc_serve_hello(struct fc_server_request *r, struct fc_error *err)
{
    struct fc_server *s = r->server;
    size_t protocol = 0;
    enum fc_code code = fc_json_size(r->frame.header, "protocol", true, &protocol, "hello", err);
    if (code != FC_OK)
        return code;
    if (protocol != FC_PROTOCOL_VERSION)
        return fc_server_refuse(s, r, FC_REFUSED_VERSION, "this server speaks protocol version 1");
    if (r->job && r->job->client != r->client) {
        if (r->job->previous_client == r->client)
            return fc_server_refuse(s, r, FC_REFUSED_TAKEN_OVER,
                                    "another client runs this job now");
        fc_job_take_over(r->job, r->client);
    }
    while (!r->job) {
        r->job = fc_job_add(&s->table, r->job_id);
        if (!r->job && !fc_server_make_room(s))
            return fc_server_refuse(s, r, FC_REFUSED_BUSY, "all places for jobs are taken");
        if (r->job)
            r->job->client = r->job->previous_client = r->client;
    }
    r->job->owner = *r->identity;
    r->job->contact = fc_now();
    r->job->last_sequence = r->frame.sequence;
    cJSON *header = cJSON_CreateObject();
    if (!cJSON_AddStringToObject(header, "server", "fedcot") ||
        !cJSON_AddStringToObject(header, "model", s->model))
        code = fc_fail(err, FC_ERR_MEMORY, "hello: out of memory");
    else if ((code = fc_number_write(header, "protocol", FC_PROTOCOL_VERSION, err)) == FC_OK &&
             (code = fc_limits_write(header, &s->options.limits, err)) == FC_OK)
        code = fc_server_answer_to(r, header, err);
    cJSON_Delete(header);
    return code;
}
