#include "net/status.h"

#include "net/exchange.h"

#include <string.h>

#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct fc_status, name)                                                    \
    }

static const struct {
    const char *name;
    size_t offset;
} counts[] = {FIELD(protocol),    FIELD(clients),      FIELD(jobs),       FIELD(waiting),
              FIELD(running),     FIELD(finished),     FIELD(text_bytes), FIELD(max_text_bytes),
              FIELD(state_bytes), FIELD(memory_bytes), FIELD(answers),    FIELD(tokens),
              FIELD(busy),        FIELD(refused),      FIELD(dropped)};

#define N_COUNTS (sizeof counts / sizeof counts[0])

enum fc_code fc_status_write(cJSON *object, const struct fc_status *s, struct fc_error *err)
{
    if (!cJSON_AddStringToObject(object, "server", s->server) ||
        !cJSON_AddStringToObject(object, "model", s->model) ||
        !cJSON_AddBoolToObject(object, "draining", s->draining))
        return fc_fail(err, FC_ERR_MEMORY, "status: out of memory");
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < N_COUNTS && code == FC_OK; i++) {
        size_t v;
        memcpy(&v, (const char *)s + counts[i].offset, sizeof v);
        code = fc_number_write(object, counts[i].name, (double)v, err);
    }
    if (code == FC_OK)
        code = fc_number_write(object, "tokens_per_second", s->tokens_per_second, err);
    return code == FC_OK ? fc_number_write(object, "uptime", s->uptime, err) : code;
}

static enum fc_code read_text(char out[FC_STATUS_TEXT], const cJSON *object, const char *name,
                              struct fc_error *err)
{
    const char *text = "";
    enum fc_code code = fc_json_string(object, name, false, &text, "status", err);
    size_t n = 0;
    for (; code == FC_OK && text[n] && n + 1 < FC_STATUS_TEXT; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = '\0';
    return code;
}

enum fc_code fc_status_read(struct fc_status *s, const cJSON *object, struct fc_error *err)
{
    static const char where[] = "status";
    *s = (struct fc_status){0};
    enum fc_code code = read_text(s->server, object, "server", err);
    if (code == FC_OK)
        code = read_text(s->model, object, "model", err);
    if (code == FC_OK)
        code = fc_json_bool(object, "draining", false, &s->draining, where, err);
    for (size_t i = 0; i < N_COUNTS && code == FC_OK; i++) {
        size_t v = 0;
        bool required = counts[i].offset == offsetof(struct fc_status, waiting) ||
                        counts[i].offset == offsetof(struct fc_status, running);
        code = fc_json_size(object, counts[i].name, required, &v, where, err);
        memcpy((char *)s + counts[i].offset, &v, sizeof v);
    }
    if (code == FC_OK)
        code =
            fc_json_double(object, "tokens_per_second", false, &s->tokens_per_second, where, err);
    return code == FC_OK ? fc_json_double(object, "uptime", true, &s->uptime, where, err) : code;
}

void fc_status_line(struct fc_text *out, const struct fc_status *s)
{
    fc_text_printf(
        out,
        "%s%s, up %.0f s: %zu clients, %zu jobs, %zu waiting, %zu running, %zu finished, "
        "%.1f tokens/s, %zu answers, memory %.1f MiB, texts %.1f of %.0f MiB, state %.1f "
        "MiB, busy %zu, refused %zu, dropped %zu",
        s->server, s->draining ? " (draining)" : "", s->uptime, s->clients, s->jobs, s->waiting,
        s->running, s->finished, s->tokens_per_second, s->answers,
        (double)s->memory_bytes / (1 << 20), (double)s->text_bytes / (1 << 20),
        (double)s->max_text_bytes / (1 << 20), (double)s->state_bytes / (1 << 20), s->busy,
        s->refused, s->dropped);
}

enum fc_code fc_status_ask(const struct fc_client_options *options, struct fc_status *status,
                           struct fc_error *err)
{
    struct fc_exchange x;
    struct fc_frame frame = {0};
    struct fc_client_options own = *options; /* a job of nobody: STATUS needs none */
    const struct fc_text no_body = {0};
    enum fc_code code = fc_job_id_random(own.job, err);
    if (code != FC_OK)
        return code;
    code = fc_exchange_open(&x, &own, err);
    if (code == FC_OK)
        code = fc_exchange_ask(&x, FC_MSG_STATUS, cJSON_CreateObject(), &no_body, 0, &frame, err);
    if (code == FC_OK)
        code = frame.header ? fc_status_read(status, frame.header, err)
                            : fc_fail(err, FC_ERR_INPUT, "%s: the server does not tell its status",
                                      x.address.text);
    fc_exchange_done(&x, &frame);
    fc_exchange_close(&x);
    return code;
}
