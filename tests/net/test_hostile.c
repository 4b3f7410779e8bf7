/* Messages that lie, to a server that serves others meanwhile, and to a client. */
#include "harness.h"

#include "net/frame.h"

#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>

/* ---- against the server ---- */

static int request_socket(const char *address)
{
    int s = nn_socket(AF_SP, NN_REQ), timeout = 30000, no_limit = -1;
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof timeout);
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVMAXSIZE, &no_limit, sizeof no_limit);
    assert_true(nn_connect(s, address) >= 0);
    return s;
}

/* Sends bytes as one request; *frame is the answer (release it, and free *memory). */
static void ask_raw(int s, const char *data, size_t len, struct fc_frame *frame, void **memory)
{
    struct fc_error err = {0};
    assert_true(nn_send(s, data, len, 0) >= 0);
    int n = nn_recv(s, memory, NN_MSG, 0);
    if (n < 0)
        fail_msg("no answer: %s", nn_strerror(nn_errno()));
    if (fc_frame_decode(frame, *memory, (size_t)n, FC_FRAME_MAX_BODY, &err) != FC_OK)
        fail_msg("%s", err.text);
}

static void expect_refusal(int s, const char *data, size_t len, const char *code)
{
    struct fc_frame f;
    void *memory;
    ask_raw(s, data, len, &f, &memory);
    assert_int_equal(f.kind, FC_MSG_ERROR);
    const cJSON *name = cJSON_GetObjectItem(f.header, "code");
    assert_true(cJSON_IsString(name));
    if (strcmp(name->valuestring, code) != 0)
        fail_msg("refused as %s, expected %s", name->valuestring, code);
    fc_frame_release(&f);
    nn_freemsg(memory);
}

/* A frame of which JSON text and body are given; the identity of a client is put in front. */
static struct fc_text frame_of(int kind, const char *fields, const char *body)
{
    struct fc_text t = {0}, header = {0};
    static uint64_t sequence;
    fc_text_printf(&header, "{\"job\":\"%032d\",\"client\":\"%016d\"%s%s}", 7, 7,
                   *fields ? "," : "", fields);
    cJSON *h = cJSON_Parse(header.data);
    if (!h)
        fail_msg("not JSON: %s", header.data);
    assert_int_equal(fc_frame_encode(&t, (uint16_t)kind, ++sequence, h, body, strlen(body), NULL),
                     FC_OK);
    cJSON_Delete(h);
    fc_text_free(&header);
    return t;
}

static void expect_refused_frame(int s, int kind, const char *fields, const char *body,
                                 const char *code)
{
    struct fc_text t = frame_of(kind, fields, body);
    expect_refusal(s, t.data, t.len, code);
    fc_text_free(&t);
}

static void say_hello(int s)
{
    struct fc_frame f;
    void *memory;
    struct fc_text t = frame_of(FC_MSG_HELLO, "\"protocol\":1", "");
    ask_raw(s, t.data, t.len, &f, &memory);
    assert_int_equal(f.kind, FC_MSG_HELLO + FC_MSG_ANSWER);
    fc_frame_release(&f);
    nn_freemsg(memory);
    fc_text_free(&t);
}

/* A client beside every attack: its job must come through whatever happens. */
struct bystander {
    const struct running *server;
    size_t right;
    enum fc_code code;
    atomic_int stop;
    pthread_t thread;
};

static void *bystander_main(void *argument)
{
    struct bystander *b = argument;
    struct fc_error err = {0};
    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(b->server->address, 1000);
    b->code = fc_client_open(&c, &o, &err);
    for (size_t i = 0; b->code == FC_OK && !atomic_load(&b->stop); i++) {
        struct fc_perturbed p = perturbed("bystander", i);
        struct fc_answer a;
        bool found = false;
        b->code = fc_client_submit(c, i, seed_of(i), &p, &err);
        if (b->code == FC_OK)
            b->code = fc_client_next(c, 2, &a, &found, &err);
        if (b->code != FC_OK || !found || !answer_is_right(&a, "bystander"))
            break;
        b->right++;
        b->code = fc_client_ack(c, a.index, &err);
    }
    fc_client_close(c);
    return NULL;
}

static void start_both(struct running *r, struct bystander *b)
{
    *r = (struct running){.options = {.shortest = 0, .longest = 0.002}};
    r->options.server.limits.frame_bytes = 4096;
    r->options.server.limits.prompt_bytes = 64;
    r->options.server.limits.job_items = 100;
    r->options.server.limits.frame_items = 10;
    start_server(r, 22400);
    *b = (struct bystander){.server = r};
    assert_int_equal(pthread_create(&b->thread, NULL, bystander_main, b), 0);
}

static void stop_both(struct running *r, struct bystander *b)
{
    fc_sleep(0.05);
    atomic_store(&b->stop, 1);
    pthread_join(b->thread, NULL);
    assert_int_equal(b->code, FC_OK);
    assert_true(b->right > 5);
    stop_server(r);
}

static void test_garbage_frames(void **state)
{
    (void)state;
    static struct running r;
    static struct bystander b;
    start_both(&r, &b);
    int s = request_socket(r.address);
    expect_refusal(s, "", 0, "bad_request");
    expect_refusal(s, "GET / HTTP/1.1\r\n\r\n0000000000000000", 34, "bad_request");
    struct fc_text t = frame_of(FC_MSG_HELLO, "\"protocol\":1", "");
    for (size_t n = 0; n < t.len; n += 5)
        expect_refusal(s, t.data, n, "bad_request");
    for (size_t i = 0; i < 300; i++) { /* damaged: any answer will do, but there is one */
        struct fc_frame f;
        void *memory;
        uint32_t w[4];
        fc_philox(5, i, 0, w);
        size_t at = w[0] % t.len;
        if (at >= 8 && at < 16) /* an old sequence is dropped without an answer */
            continue;
        char kept = t.data[at];
        t.data[at] = (char)w[1];
        ask_raw(s, t.data, t.len, &f, &memory);
        fc_frame_release(&f);
        nn_freemsg(memory);
        t.data[at] = kept;
    }
    t.data[4] = 9;
    expect_refusal(s, t.data, t.len, "version");
    fc_text_free(&t);
    nn_close(s);
    stop_both(&r, &b);
    assert_true(r.stats.refused > 20);
}

static void test_wrong_requests(void **state)
{
    (void)state;
    static struct running r;
    static struct bystander b;
    start_both(&r, &b);
    int s = request_socket(r.address);
#define GOOD                                                                                       \
    "\"sampling\":{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[]}"
#define ITEM(index, seed, bytes) "{\"index\":" index ",\"seed\":" seed ",\"bytes\":" bytes "}"
#define SEED "\"0123456789abcdef\""
    expect_refused_frame(s, FC_MSG_POLL, "\"wait_ms\":0,\"after\":0,\"done\":[]", "",
                         "unknown_job");
    expect_refused_frame(s, FC_MSG_HELLO, "\"protocol\":2", "", "version");
    expect_refused_frame(s, FC_MSG_HELLO, "\"protocol\":\"1\"", "", "bad_request");
    say_hello(s);
    static const struct {
        int kind;
        const char *fields, *body;
    } cases[] = {
        {0, "", ""},
        {99, "", ""},
        {FC_MSG_HELLO + FC_MSG_ANSWER, "", ""},
        {FC_MSG_SUBMIT, "", ""},
        {FC_MSG_SUBMIT, "\"items\":[]", ""},
        {FC_MSG_SUBMIT, "\"items\":{}," GOOD, ""},
        {FC_MSG_SUBMIT, "\"items\":[1]," GOOD, "x"},
        {FC_MSG_SUBMIT, "\"items\":[[]]," GOOD, "x"},
        {FC_MSG_SUBMIT, "\"items\":[{}]," GOOD, "x"},
        {FC_MSG_SUBMIT, "\"sampling\":3,\"items\":[" ITEM("0", SEED, "1") "]", "x"},
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("-1", SEED, "1") "]", "x"},
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("1e300", SEED, "1") "]", "x"},
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", "7", "1") "]", "x"},
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", SEED, "0") "]", ""},
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", SEED, "2") "]", "x"}, /* beyond the body */
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", SEED, "18446744073709551615") "]", "x"},
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", SEED, "1") "]", "xy"}, /* bytes left over */
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", SEED, "2") "]", "\xC3("}, /* not UTF-8 */
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", SEED, "1") "," ITEM("1", SEED, "1") "]",
         "\xC3\xA9"}, /* a character cut in two */
        {FC_MSG_SUBMIT, GOOD ",\"items\":[" ITEM("0", SEED, "65") "]",
         "01234567890123456789012345678901234567890123456789012345678901234"}, /* over the limit */
        {FC_MSG_SUBMIT, GOOD ",\"items\":[1,2,3,4,5,6,7,8,9,10,11]", "x"},
        {FC_MSG_POLL, "\"after\":0,\"done\":[]", ""},
        {FC_MSG_POLL, "\"wait_ms\":-5,\"after\":0,\"done\":[]", ""},
        {FC_MSG_POLL, "\"wait_ms\":0,\"after\":1e999,\"done\":[]", ""},
        {FC_MSG_POLL, "\"wait_ms\":0,\"after\":0,\"done\":[null]", ""},
        {FC_MSG_POLL, "\"wait_ms\":0,\"after\":0,\"done\":\"all\"", ""},
        {FC_MSG_CANCEL, "\"all\":1", ""},
        {FC_MSG_CANCEL, "\"items\":[0.5]", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused_frame(s, cases[i].kind, cases[i].fields, cases[i].body, "bad_request");
    struct fc_error err = {0};
    cJSON *h = cJSON_Parse("{\"job\":\"xyz\",\"client\":5}"); /* no identity */
    struct fc_text t = {0};
    assert_int_equal(fc_frame_encode(&t, FC_MSG_STATUS, 1, h, "", 0, &err), FC_OK);
    expect_refusal(s, t.data, t.len, "bad_request");
    fc_text_free(&t);
    cJSON_Delete(h);
    nn_close(s);
    stop_both(&r, &b);
    assert_int_equal(r.stats.submitted, b.right); /* nothing of all this was generated */
}

/* More than the server's NN_RCVMAXSIZE: nanomsg closes that connection, ours stay. */
static void test_oversized_message(void **state)
{
    (void)state;
    static struct running r;
    static struct bystander b;
    start_both(&r, &b);
    int s = request_socket(r.address);
    size_t n = 3 << 20;
    char *big = calloc(n, 1);
    void *memory;
    int timeout = 200;
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof timeout);
    assert_true(nn_send(s, big, n, 0) >= 0); /* says that all is well */
    assert_true(nn_recv(s, &memory, NN_MSG, 0) < 0);
    free(big);
    nn_close(s);
    stop_both(&r, &b);
}

/* Below nanomsg: bytes of a plain TCP connection. */
static void test_raw_connections(void **state)
{
    (void)state;
    static struct running r;
    static struct bystander b;
    start_both(&r, &b);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons((uint16_t)atoi(strrchr(r.address, ':') + 1));
#define SP "\0SP\0\0\x30\0\0"
#define LEN(n) "\0\0\0\0\0\0\0" n
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"", 0},
        {"GET / HTTP/1.0\r\n\r\n", 18},
        {"\0SP\0", 4}, /* and silence */
        {SP "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 16},
        {SP "\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 16},
        {SP LEN("\x02") "ab", 18},         /* no room for a request number */
        {SP LEN("\x04") "\0\0\0\1", 20},   /* a route without an end */
        {SP LEN("\x04") "\x80\0\0\1", 20}, /* an empty message */
        {SP LEN("\x10") "\0\0\0\1\0\0\0\2\0\0\0\3\x80\0\0\1", 32}, /* hops, then empty */
        {SP LEN("\x80") "abcd", 20},                               /* announced, not sent */
    };
    int fds[sizeof cases / sizeof cases[0]];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(send(fds[i], cases[i].bytes, cases[i].n, MSG_NOSIGNAL), cases[i].n);
    }
    fc_sleep(0.2);
    int s = request_socket(r.address);
    say_hello(s);
    nn_close(s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        close(fds[i]);
    stop_both(&r, &b);
}

/* ---- against the client: a server that answers as the script says ---- */

struct line {
    int kind;           /* 0: the bytes of `header` as they are */
    const char *header; /* %s: nothing is added */
    const char *body;
};

struct liar {
    char address[64];
    const struct line *script;
    size_t n;
    atomic_int stop;
    pthread_t thread;
    int socket;
};

static void *liar_main(void *argument)
{
    struct liar *l = argument;
    for (size_t i = 0; i < l->n && !atomic_load(&l->stop);) {
        void *memory;
        struct fc_frame f;
        int n = nn_recv(l->socket, &memory, NN_MSG, 0);
        if (n < 0)
            continue;
        struct fc_text t = {0};
        const struct line *line = &l->script[i++];
        if (line->kind == 0) {
            fc_text_puts(&t, line->header);
        } else if (fc_frame_decode(&f, memory, (size_t)n, FC_FRAME_MAX_BODY, NULL) == FC_OK) {
            cJSON *h = cJSON_Parse(line->header);
            fc_frame_encode(&t, (uint16_t)line->kind, f.sequence, h, line->body, strlen(line->body),
                            NULL);
            cJSON_Delete(h);
            fc_frame_release(&f);
        }
        nn_freemsg(memory);
        nn_send(l->socket, t.data, t.len, 0);
        fc_text_free(&t);
    }
    return NULL;
}

#define WELCOME                                                                                    \
    {                                                                                              \
        FC_MSG_HELLO + FC_MSG_ANSWER,                                                              \
            "{\"protocol\":1,\"server\":\"x\",\"model\":\"m\",\"limits\":{\"frame_items\":10,"     \
            "\"frame_bytes\":1000,\"job_items\":10,\"prompt_bytes\":100,\"max_tokens\":100}}",     \
            ""                                                                                     \
    }
#define ACCEPTED                                                                                   \
    {                                                                                              \
        FC_MSG_SUBMIT + FC_MSG_ANSWER, "{\"accepted\":1}", ""                                      \
    }
#define RESULT(index, bytes, finish, body)                                                         \
    {                                                                                              \
        FC_MSG_POLL + FC_MSG_ANSWER,                                                               \
            "{\"last\":1,\"waiting\":0,\"running\":0,\"items\":[{\"index\":" index                 \
            ",\"tokens\":1,\"finish\":\"" finish "\",\"bytes\":" bytes "}]}",                      \
            body                                                                                   \
    }

/* Opens, submits item 0, waits for its answer. */
static enum fc_code try_liar(const struct line *script, size_t n, double patience,
                             struct fc_error *err)
{
    static struct liar l;
    int timeout = 20;
    l = (struct liar){.script = script, .n = n};
    snprintf(l.address, sizeof l.address, "tcp://127.0.0.1:%d", free_port(22600));
    l.socket = nn_socket(AF_SP, NN_REP);
    nn_setsockopt(l.socket, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof timeout);
    assert_true(nn_bind(l.socket, l.address) >= 0);
    assert_int_equal(pthread_create(&l.thread, NULL, liar_main, &l), 0);

    struct fc_client *c = NULL;
    struct fc_client_options o = client_options(l.address, 1);
    struct fc_perturbed p = perturbed("liar", 0);
    struct fc_answer a;
    bool found = false;
    o.timeout = patience;
    *err = (struct fc_error){0};
    enum fc_code code = fc_client_open(&c, &o, err);
    if (code == FC_OK)
        code = fc_client_submit(c, 0, 1, &p, err);
    while (code == FC_OK && !found)
        code = fc_client_next(c, 0.2, &a, &found, err);
    fc_client_close(c);
    atomic_store(&l.stop, 1);
    pthread_join(l.thread, NULL);
    nn_close(l.socket);
    return code;
}

static void test_lying_server(void **state)
{
    (void)state;
    static const struct {
        struct line script[3];
        size_t n;
        enum fc_code code;
        const char *says;
    } cases[] = {
        {{WELCOME, ACCEPTED, RESULT("0", "2", "stop", "ok")}, 3, FC_OK, ""}, /* an honest one */
        {{{0, "HTTP/1.1 200 OK\r\n\r\n----------", ""}}, 1, FC_ERR_INPUT, "FCoT"},
        {{{0, "", ""}}, 1, FC_ERR_INPUT, "0 bytes"},
        {{{FC_MSG_HELLO + FC_MSG_ANSWER, "{}", ""}}, 1, FC_ERR_INPUT, "protocol"},
        {{{FC_MSG_HELLO + FC_MSG_ANSWER, "{\"protocol\":1,\"model\":\"m\"}", ""}},
         1,
         FC_ERR_INPUT,
         "limits"},
        {{{FC_MSG_HELLO + FC_MSG_ANSWER,
           "{\"protocol\":1,\"model\":\"m\",\"limits\":{\"frame_items\":0}}", ""}},
         1,
         FC_ERR_INPUT,
         "frame_items"},
        {{{FC_MSG_POLL + FC_MSG_ANSWER, "{}", ""}}, 1, FC_ERR_INPUT, "expected an answer of kind"},
        {{{FC_MSG_ERROR, "{\"code\":\"version\",\"text\":\"v9\"}", ""}},
         1,
         FC_ERR_UNSUPPORTED,
         "v9"},
        {{{FC_MSG_ERROR, "{\"code\":\"no\",\"text\":\"\\u001b[2Jboo\"}", ""}},
         1,
         FC_ERR_INPUT,
         "?[2Jboo"}, /* no control characters on our terminal */
        {{{FC_MSG_ERROR, "{\"code\":1}", ""}}, 1, FC_ERR_INPUT, "code"},
        {{WELCOME, {FC_MSG_SUBMIT + FC_MSG_ANSWER, "{\"accepted\":2}", ""}},
         2,
         FC_ERR_INPUT,
         "took 2"},
        {{WELCOME, {FC_MSG_SUBMIT + FC_MSG_ANSWER, "{}", ""}}, 2, FC_ERR_INPUT, "accepted"},
        {{WELCOME, ACCEPTED, {FC_MSG_POLL + FC_MSG_ANSWER, "{}", ""}}, 3, FC_ERR_INPUT, "items"},
        {{WELCOME, ACCEPTED, RESULT("0", "3", "stop", "ok")}, 3, FC_ERR_INPUT, "3 bytes"},
        {{WELCOME, ACCEPTED, RESULT("0", "1", "stop", "ok")}, 3, FC_ERR_INPUT, "2 bytes of body"},
        {{WELCOME, ACCEPTED, RESULT("0", "1e15", "stop", "ok")}, 3, FC_ERR_INPUT, "left"},
        {{WELCOME, ACCEPTED, RESULT("-1", "2", "stop", "ok")}, 3, FC_ERR_INPUT, "index"},
        {{WELCOME, ACCEPTED, RESULT("0", "2", "done", "ok")}, 3, FC_ERR_INPUT, "finish"},
        {{WELCOME, ACCEPTED, RESULT("0", "2", "stop", "\xC3(")}, 3, FC_ERR_INPUT, "UTF-8"},
        {{WELCOME, ACCEPTED, RESULT("9", "2", "stop", "ok")}, 3, FC_ERR_NETWORK, "no answer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fc_error err;
        double patience = cases[i].code == FC_ERR_NETWORK ? 1 : 60;
        enum fc_code code = try_liar(cases[i].script, cases[i].n, patience, &err);
        if (code != cases[i].code || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: code %d, \"%s\"", i, code, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_garbage_frames),    cmocka_unit_test(test_wrong_requests),
        cmocka_unit_test(test_oversized_message), cmocka_unit_test(test_raw_connections),
        cmocka_unit_test(test_lying_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
