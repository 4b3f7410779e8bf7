/* Fuzzes what a server does with requests of a client that is in (net/requests.c, serve_hello.c,
 * serve_submit.c, serve_poll.c, jobs.c, admission.c, hand_out.c). An input is a list of requests,
 * each behind its length in two bytes: kind (1 byte), header (JSON up to a NUL), body. */
#define _POSIX_C_SOURCE 200809L
#include "fuzz.h"

#include "base/clock.h"
#include "net/server_private.h"

#include <arpa/inet.h>
#include <nanomsg/nn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct fc_server *server;

/* Answers at once; some prompts are refused. */
static enum fc_code answer(void *context, const struct fc_ask *ask, struct fc_error *err)
{
    (void)context;
    if (strchr(ask->text, '!'))
        return fc_fail(err, FC_ERR_USAGE, "the prompt is longer than the context");
    return fc_server_complete(server, ask->id, ask->text, ask->n_text, 1, FC_ANSWER_STOP, err);
}

static void cancel(void *context, uint64_t id)
{
    (void)context;
    (void)id;
}

static int free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    FUZZ_CHECK(bind(fd, (struct sockaddr *)&a, len) == 0 &&
               getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void open_server(void)
{
    char address[64];
    struct fc_error err = {0};
    struct fc_server_handler handler = {NULL, answer, cancel};
    struct fc_server_options options = {
        .address = address, .model = "fake", .max_jobs = 4, .max_items = 32, .max_bytes = 1 << 16};
    snprintf(address, sizeof address, "tcp://127.0.0.1:%d", free_port());
    FUZZ_CHECK(fc_server_open(&server, &options, &handler, &err) == FC_OK);
}

/* The way back to a client that has gone: nanomsg drops what is sent there. */
static struct fc_route gone(void)
{
    struct fc_route route = {0};
    struct nn_cmsghdr head = {NN_CMSG_SPACE(sizeof(size_t) + 8), PROTO_SP, SP_HDR};
    const unsigned char to[8] = {0, 0, 0, 1, 0x80, 0, 0, 1};
    size_t n = sizeof to;
    memcpy(route.control, &head, sizeof head);
    memcpy(route.control + sizeof head, &n, sizeof n);
    memcpy(route.control + sizeof head + sizeof n, to, sizeof to);
    route.len = head.cmsg_len;
    return route;
}

static void serve(const uint8_t *data, size_t size, uint64_t sequence)
{
    struct fc_error err = {0};
    struct fc_text frame = {0};
    const char *header = (const char *)data + 1;
    size_t n_header = size ? strnlen(header, size - 1) : 0;
    cJSON *json = size ? fc_json_parse(header, n_header, "header", &err) : NULL;
    size_t at = 1 + n_header + 1;
    if (cJSON_IsObject(json) &&
        fc_frame_encode(&frame, data[0], sequence, json, at < size ? (const char *)data + at : "",
                        at < size ? size - at : 0, &err) == FC_OK) {
        struct fc_route route = gone();
        err = (struct fc_error){0};
        FUZZ_CHECK(fc_server_serve(server, frame.data, frame.len, &fc_client_anonymous, &route,
                                   &err) == FC_OK);
        FUZZ_CHECK(fc_server_hand_out(server, &err) == FC_OK);
    }
    fc_text_free(&frame);
    cJSON_Delete(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t sequence;
    static double later = 1e6;
    if (!server)
        open_server();
    while (size > 2) {
        size_t len = data[0] | (size_t)data[1] << 8;
        data += 2, size -= 2;
        len = len > size ? size : len;
        serve(data, len, ++sequence);
        data += len, size -= len;
    }
    struct fc_error err = {0};
    double deadline = later;
    FUZZ_CHECK(fc_server_answer_parked(server, &deadline, &err) == FC_OK);
    fc_server_drop_aged(server, fc_now() + (later += 1e6)); /* every input begins with no job */
    FUZZ_CHECK(server->table.n_jobs == 0 && server->table.bytes == 0);
    return 0;
}
