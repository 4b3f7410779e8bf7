/* Fields of the messages and addresses: what is taken and what is refused. */
#include "harness.h"

#include "net/address.h"

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *becomes; /* NULL: refused */
        enum fc_code code;
    } cases[] = {
        {"tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555", FC_OK},
        {"tcp://127.9.8.7:1", "tcp://127.9.8.7:1", FC_OK},
        {"tcp://localhost:65535", "tcp://127.0.0.1:65535", FC_OK},
        {"tcp://[::1]:5555", "tcp://[::1]:5555", FC_OK},
        {"ipc:///tmp/x", "ipc:///tmp/x", FC_OK},
        {"inproc://x", "inproc://x", FC_OK},
        {"tcp://0.0.0.0:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://*:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://10.0.0.1:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://128.0.0.1:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://eth0:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://[::]:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://[::ffff:127.0.0.1]:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://127.0.0.1.example.org:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://eth0;127.0.0.1:5555", NULL, FC_ERR_UNSUPPORTED}, /* nanomsg's interface;host */
        {"tcp://127.1:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://[:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://]:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://[]:5555", NULL, FC_ERR_UNSUPPORTED},
        {"tcp://127.0.0.1:0", NULL, FC_ERR_USAGE},
        {"tcp://127.0.0.1:65536", NULL, FC_ERR_USAGE},
        {"tcp://127.0.0.1:+80", NULL, FC_ERR_USAGE},
        {"tcp://127.0.0.1:", NULL, FC_ERR_USAGE},
        {"tcp://127.0.0.1", NULL, FC_ERR_USAGE},
        {"tcp://:5555", NULL, FC_ERR_USAGE},
        {"tcp://", NULL, FC_ERR_USAGE},
        {"ipc://", NULL, FC_ERR_USAGE},
        {"ws://127.0.0.1:5555", NULL, FC_ERR_USAGE},
        {"127.0.0.1:5555", NULL, FC_ERR_USAGE},
        {"", NULL, FC_ERR_USAGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fc_address a;
        struct fc_error err = {0};
        enum fc_code code = fc_address_parse(&a, cases[i].text, false, &err);
        if (code != cases[i].code)
            fail_msg("%s: code %d, expected %d", cases[i].text, code, cases[i].code);
        if (cases[i].becomes)
            assert_string_equal(a.text, cases[i].becomes);
        if (code == FC_ERR_UNSUPPORTED)
            assert_non_null(strstr(err.text, "not encrypted; give both ends keys"));
    }
    char longest[300] = "ipc://";
    memset(longest + 6, 'x', sizeof longest - 7);
    struct fc_address a;
    assert_int_equal(fc_address_parse(&a, longest, false, NULL), FC_ERR_USAGE);
    memcpy(longest, "tcp://", 6);
    assert_int_equal(fc_address_parse(&a, longest, false, NULL), FC_ERR_USAGE);
    memcpy(longest + 290, ":55", 4);
    assert_int_equal(fc_address_parse(&a, longest, false, NULL), FC_ERR_USAGE);
}

static void test_addresses_with_keys(void **state)
{
    (void)state;
    static const struct {
        const char *text, *becomes;
        bool ipv6;
    } cases[] = {
        {"tcp://0.0.0.0:5555", "tcp://0.0.0.0:5555", false},
        {"tcp://*:5555", "tcp://*:5555", false},
        {"tcp://192.0.2.7:5555", "tcp://192.0.2.7:5555", false},
        {"tcp://[2001:db8::7]:5555", "tcp://[2001:db8::7]:5555", true},
        {"tcp://[::1]:5555", "tcp://[::1]:5555", true},
        {"tcp://llm.example.org:5555", "tcp://llm.example.org:5555", false},
        {"tcp://localhost:5555", "tcp://127.0.0.1:5555", false},
        {"ipc:///tmp/x", "ipc:///tmp/x", false},
        {"tcp://eth0;127.0.0.1:5555", NULL, false},
        {"tcp://[]:5555", NULL, false},
        {"tcp://[::g]:5555", NULL, false},
        {"tcp://a b:5555", NULL, false},
        {"tcp://host", NULL, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fc_address a;
        struct fc_error err = {0};
        enum fc_code code = fc_address_parse(&a, cases[i].text, true, &err);
        if (code != (cases[i].becomes ? FC_OK : FC_ERR_USAGE))
            fail_msg("%s: code %d", cases[i].text, code);
        if (cases[i].becomes) {
            assert_string_equal(a.text, cases[i].becomes);
            assert_int_equal(a.ipv6, cases[i].ipv6);
        }
    }
}

static void test_server_refuses_other_hosts(void **state)
{
    (void)state;
    struct fc_server *s = NULL;
    struct fc_client *c = NULL;
    struct fc_error err = {0};
    struct fc_server_options options = {.address = "tcp://0.0.0.0:21999", .model = "m"};
    struct fc_server_handler handler = {NULL, fake_submit, fake_cancel};
    assert_int_equal(fc_server_open(&s, &options, &handler, &err), FC_ERR_UNSUPPORTED);
    assert_null(s);
    err = (struct fc_error){0};
    struct fc_client_options o = client_options("tcp://192.0.2.1:5555", 1);
    assert_int_equal(fc_client_open(&c, &o, &err), FC_ERR_UNSUPPORTED);
    assert_null(c);
    assert_non_null(strstr(err.text, "ssh -L"));
}

static enum fc_code read_sampling(const char *text, struct fc_wire_sampling *s)
{
    struct fc_error err = {0};
    cJSON *o = text ? cJSON_Parse(text) : NULL;
    enum fc_code code = fc_wire_sampling_read(s, o, 100, &err);
    cJSON_Delete(o);
    return code;
}

static void test_sampling(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_wire_sampling in = {
        .max_tokens = 100, .temperature = 0.1, .top_k = 40, .top_p = 1.0 / 3};
    struct fc_wire_sampling out;
    in.stops[0] = "a\"b";
    in.stops[1] = "\n";
    in.n_stops = 2;
    cJSON *h = cJSON_CreateObject();
    assert_int_equal(fc_wire_sampling_write(h, &in, &err), FC_OK);
    char *text = cJSON_PrintUnformatted(h);
    cJSON_Delete(h);
    h = cJSON_Parse(text); /* as it arrives */
    assert_int_equal(fc_wire_sampling_read(&out, cJSON_GetObjectItem(h, "sampling"), 100, &err),
                     FC_OK);
    assert_int_equal(out.max_tokens, 100);
    assert_int_equal(out.top_k, 40);
    assert_memory_equal(&out.temperature, &in.temperature, sizeof(double)); /* every bit */
    assert_memory_equal(&out.top_p, &in.top_p, sizeof(double));
    assert_int_equal(out.n_stops, 2);
    assert_string_equal(out.stops[0], "a\"b");
    cJSON_free(text);
    cJSON_Delete(h);

    const char *good = "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[]}";
    assert_int_equal(read_sampling(good, &out), FC_OK);
    static const char *const bad[] = {
        NULL,
        "[]",
        "{}",
        "{\"max_tokens\":0,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":101,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":1.5,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":1e999,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":\"1\",\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":1,\"temperature\":-1,\"top_k\":0,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":1,\"temperature\":1e999,\"top_k\":0,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":4294967296,\"top_p\":1,\"stops\":[]}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":0,\"stops\":[]}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1.01,\"stops\":[]}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":\"x\"}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[1]}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1,\"stops\":[\"\"]}",
        "{\"max_tokens\":1,\"temperature\":0,\"top_k\":0,\"top_p\":1,"
        "\"stops\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (read_sampling(bad[i], &out) != FC_ERR_INPUT)
            fail_msg("taken: %s", bad[i] ? bad[i] : "nothing");
}

static void test_fields(void **state)
{
    (void)state;
    struct fc_error err = {0};
    cJSON *h = cJSON_CreateObject();
    const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(0x0123456789ABCDEF), UINT64_C(1) << 53};
    for (size_t i = 0; i < 5; i++) {
        uint64_t v = 5;
        assert_int_equal(fc_hex64_write(h, "v", values[i], &err), FC_OK);
        assert_int_equal(fc_hex64_read(h, "v", &v, &err), FC_OK);
        assert_true(v == values[i]);
        cJSON_DeleteItemFromObject(h, "v");
    }
    static const char *const bad[] = {"", "0123", "0123456789ABCDEF", "0123456789abcdeg",
                                      "0123456789abcdef0"};
    for (size_t i = 0; i < 5; i++) {
        uint64_t v;
        cJSON_AddStringToObject(h, "v", bad[i]);
        assert_int_equal(fc_hex64_read(h, "v", &v, NULL), FC_ERR_INPUT);
        cJSON_DeleteItemFromObject(h, "v");
    }
    static const char *const indexes[] = {"-1",    "0.5",  "1e999", "9007199254740993e1",
                                          "\"1\"", "null", "[]"};
    for (size_t i = 0; i < 7; i++) {
        uint64_t v;
        cJSON *o = cJSON_Parse(indexes[i]);
        assert_int_equal(fc_index_read(o, &v, NULL), FC_ERR_INPUT);
        cJSON_Delete(o);
    }
    struct fc_limits l = {1, 2, 3, 4, 5}, m = {0};
    assert_int_equal(fc_limits_write(h, &l, &err), FC_OK);
    assert_int_equal(fc_limits_read(&m, h, &err), FC_OK);
    assert_memory_equal(&l, &m, sizeof l);
    cJSON_SetNumberValue(cJSON_GetObjectItem(cJSON_GetObjectItem(h, "limits"), "job_items"), 0);
    assert_int_equal(fc_limits_read(&m, h, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "job_items"));
    cJSON_Delete(h);
    for (int i = 0; i < FC_REFUSALS; i++)
        assert_int_equal(fc_refusal_from_name(fc_refusal_name((enum fc_refusal)i)), i);
    assert_int_equal(fc_refusal_from_name("nonsense"), FC_REFUSED_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_addresses_with_keys),
        cmocka_unit_test(test_server_refuses_other_hosts),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
