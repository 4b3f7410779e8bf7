/* Frames: round trip, every way in which bytes can lie, UTF-8. */
#include "harness.h"

#include "net/frame.h"

static struct fc_text make_frame(const char *header, const char *body, size_t n_body)
{
    struct fc_text t = {0};
    struct fc_error err = {0};
    cJSON *h = cJSON_Parse(header);
    assert_non_null(h);
    assert_int_equal(fc_frame_encode(&t, 2, 77, h, body, n_body, &err), FC_OK);
    cJSON_Delete(h);
    return t;
}

/* A frame with arbitrary header bytes: what fc_frame_encode would not make. */
static struct fc_text raw_frame(const char *header, size_t n_header)
{
    struct fc_text t = make_frame("{}", NULL, 0);
    t.len = FC_FRAME_PRELUDE;
    fc_text_add(&t, header, n_header);
    for (int i = 0; i < 4; i++)
        t.data[16 + i] = (char)(n_header >> (8 * i));
    return t;
}

static enum fc_code decode(const struct fc_text *t, size_t max_body, struct fc_error *err)
{
    struct fc_frame f;
    *err = (struct fc_error){0};
    /* an exact copy on the heap, so that the address sanitizer sees a read beyond its end */
    char *copy = malloc(t->len ? t->len : 1);
    memcpy(copy, t->data, t->len);
    enum fc_code code = fc_frame_decode(&f, copy, t->len, max_body, err);
    assert_int_equal(code, err->code);
    if (code != FC_OK)
        assert_null(f.header);
    fc_frame_release(&f);
    free(copy);
    return code;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct fc_frame f;
    struct fc_error err = {0};
    struct fc_text t = make_frame("{\"a\":[1,2,{\"b\":\"\xC3\xA9\"}]}", "body\0x", 6);
    fc_frame_set_sequence(&t, UINT64_C(0x0102030405060708));
    assert_memory_equal(t.data, "FCoT\x01\0\x02\0\x08\x07\x06\x05\x04\x03\x02\x01", 16);
    assert_int_equal(fc_frame_decode(&f, t.data, t.len, 6, &err), FC_OK);
    assert_int_equal(f.kind, 2);
    assert_true(f.sequence == UINT64_C(0x0102030405060708));
    assert_int_equal(f.n_body, 6);
    assert_memory_equal(f.body, "body\0x", 6);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(f.header, "a")), 3);
    fc_frame_release(&f);
    assert_int_equal(decode(&t, 5, &err), FC_ERR_INPUT); /* the receiver's limit */
    fc_text_free(&t);
}

static void test_truncated_and_extended(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_text t = make_frame("{\"items\":[1,2,3]}", "0123456789", 10);
    size_t whole = t.len;
    for (t.len = 0; t.len < whole; t.len++)
        assert_int_equal(decode(&t, 100, &err), FC_ERR_INPUT);
    t.len = whole;
    fc_text_add(&t, "x", 1);
    assert_int_equal(decode(&t, 100, &err), FC_ERR_INPUT);
    fc_text_free(&t);
}

static void test_prelude_lies(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_text t = make_frame("{}", "b", 1);
    const struct {
        size_t at;
        unsigned char value;
        enum fc_code code;
        const char *says;
    } cases[] = {
        {0, 'f', FC_ERR_INPUT, "FCoT"},      {4, 2, FC_ERR_UNSUPPORTED, "version 2"},
        {16, 1, FC_ERR_INPUT, "parts make"}, /* header shorter */
        {16, 3, FC_ERR_INPUT, "parts make"}, {19, 0xFF, FC_ERR_INPUT, "header of"}, /* 4 GiB */
        {20, 2, FC_ERR_INPUT, "parts make"}, {23, 0xFF, FC_ERR_INPUT, "body of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char kept = t.data[cases[i].at];
        t.data[cases[i].at] = (char)cases[i].value;
        assert_int_equal(decode(&t, SIZE_MAX, &err), cases[i].code);
        assert_non_null(strstr(err.text, cases[i].says));
        t.data[cases[i].at] = kept;
    }
    assert_int_equal(decode(&t, 1, &err), FC_OK);
    fc_text_free(&t);
}

static void test_header_lies(void **state)
{
    (void)state;
    struct fc_error err;
    static const struct {
        const char *header;
        size_t n;
    } cases[] = {
        {"", 0},
        {"[]", 2},
        {"1", 1},
        {"null", 4},
        {"{", 1},
        {"{}}", 3},
        {"{\"a\":NaN}", 9},
        {"{\"a\":Infinity}", 14},
        {"{\"a\":1,}", 8},
        {"{\"\xFF\":1}", 7},          /* invalid UTF-8 */
        {"{\"\xED\xA0\x80\":1}", 9},  /* a surrogate */
        {"{\"a\":\"\xC0\x80\"}", 10}, /* overlong NUL */
        {"{\"a\":\"\0\"}", 9},        /* NUL */
        {"{\"a\":\"\\ud800\"}", 14},  /* half of an escaped pair */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fc_text t = raw_frame(cases[i].header, cases[i].n);
        assert_int_equal(decode(&t, 100, &err), FC_ERR_INPUT);
        fc_text_free(&t);
    }
    /* nested as deep as a megabyte allows: refused, without exhausting the stack */
    char *deep = malloc(FC_FRAME_MAX_HEADER + 1);
    memset(deep, '[', FC_FRAME_MAX_HEADER + 1);
    memcpy(deep, "{\"a\":", 5);
    struct fc_text t = raw_frame(deep, FC_FRAME_MAX_HEADER);
    assert_int_equal(decode(&t, 100, &err), FC_ERR_INPUT);
    fc_text_free(&t);
    t = raw_frame(deep, FC_FRAME_MAX_HEADER + 1);
    assert_int_equal(decode(&t, 100, &err), FC_ERR_INPUT);
    assert_non_null(strstr(err.text, "expected at most"));
    fc_text_free(&t);
    free(deep);
}

static void test_encode_limits(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_text t = {0};
    char *big = malloc(FC_FRAME_MAX_HEADER + 1);
    memset(big, 'x', FC_FRAME_MAX_HEADER);
    big[FC_FRAME_MAX_HEADER] = '\0';
    cJSON *h = cJSON_CreateObject();
    assert_non_null(cJSON_AddStringToObject(h, "a", big));
    assert_int_equal(fc_frame_encode(&t, 1, 0, h, NULL, 0, &err), FC_ERR_USAGE);
    err = (struct fc_error){0};
    cJSON_DeleteItemFromObject(h, "a");
    assert_int_equal(fc_frame_encode(&t, 1, 0, h, big, FC_FRAME_MAX_BODY + 1, &err), FC_ERR_USAGE);
    assert_int_equal(t.len, 0);
    cJSON_Delete(h);
    free(big);
    fc_text_free(&t);
}

/* Random damage never does worse than an error. */
static void test_mutations(void **state)
{
    (void)state;
    struct fc_error err;
    struct fc_text good = make_frame(
        "{\"job\":\"00ff\",\"items\":[{\"index\":1,\"seed\":\"0a\",\"bytes\":4}],\"x\":1e5}",
        "abcd", 4);
    size_t accepted = 0, rounds = 20000;
    for (size_t i = 0; i < rounds; i++) {
        struct fc_text t = {0};
        uint32_t w[4];
        fc_text_add(&t, good.data, good.len);
        fc_philox(3, i, 0, w);
        for (uint32_t k = 0; k <= w[0] % 3; k++)
            t.data[w[1 + k] % t.len] = (char)(w[1 + k] >> 24);
        if (w[0] & 64)
            t.len -= w[3] % t.len;
        accepted += decode(&t, 1000, &err) == FC_OK;
        fc_text_free(&t);
    }
    assert_true(accepted < rounds / 2);
    fc_text_free(&good);
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len, valid;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 9, 9},
        {"\xF4\x8F\xBF\xBF", 4, 4},  /* U+10FFFF */
        {"\xF4\x90\x80\x80", 4, 0},  /* beyond */
        {"a\xC1\x81", 3, 1},         /* overlong */
        {"a\xE0\x9F\xBF", 4, 1},     /* overlong */
        {"a\xF0\x8F\xBF\xBF", 5, 1}, /* overlong */
        {"a\xED\x9F\xBF", 4, 4},     /* U+D7FF */
        {"a\xED\xBF\xBF", 4, 1},     /* surrogate */
        {"ab\x80", 3, 2},            /* lone continuation */
        {"ab\xE2\x82", 4, 2},        /* cut off */
        {"\xF0\x9F\x98", 3, 0},      /* cut off */
        {"a\xFE", 2, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *copy = malloc(cases[i].len + 1);
        memcpy(copy, cases[i].text, cases[i].len);
        assert_int_equal(fc_utf8_prefix(copy, cases[i].len), cases[i].valid);
        free(copy);
    }
    struct fc_text t = {0};
    fc_utf8_clean(&t, "a\xFFz\xE2\x82\xAC\xE2\x82", 8, 100);
    assert_string_equal(t.data, "a\xEF\xBF\xBDz\xE2\x82\xAC\xEF\xBF\xBD\xEF\xBF\xBD");
    fc_text_clear(&t);
    fc_utf8_clean(&t, "ab\xE2\x82\xAC", 5, 4); /* no room for the whole character */
    assert_string_equal(t.data, "ab");
    fc_text_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_truncated_and_extended),
        cmocka_unit_test(test_prelude_lies),  cmocka_unit_test(test_header_lies),
        cmocka_unit_test(test_encode_limits), cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
