/* The Noise handshake against another implementation's bytes (tests/golden/make_noise.py), and what
 * makes it fail. */
#include "base/file.h"
#include "base/json.h"
#include "net/noise.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct bytes {
    unsigned char data[256];
    size_t len;
};

struct golden {
    cJSON *tree;
    struct fc_key_pair initiator, responder;
    struct bytes prologue, initiator_ephemeral, responder_ephemeral;
};

static struct bytes field(const struct golden *g, const char *name)
{
    struct bytes b = {.len = 0};
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(g->tree, name));
    assert_non_null(text);
    assert_int_equal(sodium_hex2bin(b.data, sizeof b.data, text, strlen(text), NULL, &b.len, NULL),
                     0);
    return b;
}

static struct fc_key_pair pair_of(const struct golden *g, const char *name)
{
    struct fc_key_pair pair;
    struct bytes secret = field(g, name);
    assert_int_equal(secret.len, FC_KEY_SIZE);
    memcpy(pair.secret, secret.data, FC_KEY_SIZE);
    crypto_scalarmult_base(pair.public_key, pair.secret);
    return pair;
}

static int set_up(void **state)
{
    static struct golden g;
    struct fc_error err = {0};
    assert_true(sodium_init() >= 0);
    g.tree = fc_json_read_file(FC_GOLDEN_DIR "/noise.json", 1 << 16, &err);
    if (!g.tree)
        fail_msg("%s", err.text);
    g.initiator = pair_of(&g, "initiator_static");
    g.responder = pair_of(&g, "responder_static");
    g.prologue = field(&g, "prologue");
    g.initiator_ephemeral = field(&g, "initiator_ephemeral");
    g.responder_ephemeral = field(&g, "responder_ephemeral");
    *state = &g;
    return 0;
}

static int tear_down(void **state)
{
    struct golden *g = *state;
    cJSON_Delete(g->tree);
    return 0;
}

static void start(const struct golden *g, struct fc_noise *i, struct fc_noise *r)
{
    fc_noise_start(i, g->prologue.data, g->prologue.len, &g->initiator, g->responder.public_key);
    fc_noise_start(r, g->prologue.data, g->prologue.len, &g->responder, g->responder.public_key);
}

static void expect(const struct golden *g, const char *name, const unsigned char *data, size_t len)
{
    struct bytes b = field(g, name);
    assert_int_equal(len, b.len);
    assert_memory_equal(data, b.data, len);
}

static void test_golden(void **state)
{
    const struct golden *g = *state;
    struct fc_noise i, r;
    unsigned char message[256], payload[256], keys[4][FC_KEY_SIZE];
    static const char first[] = "first payload", second[] = "second payload";
    expect(g, "responder_public", g->responder.public_key, FC_KEY_SIZE);
    start(g, &i, &r);
    size_t n = FC_NOISE_FIRST + sizeof first - 1;
    assert_true(fc_noise_write_first(&i, g->initiator_ephemeral.data, (const void *)first,
                                     sizeof first - 1, message));
    expect(g, "first", message, n);
    assert_true(fc_noise_read_first(&r, message, n, payload));
    assert_memory_equal(payload, first, sizeof first - 1);
    assert_memory_equal(r.peer, g->initiator.public_key, FC_KEY_SIZE);
    n = FC_NOISE_SECOND + sizeof second - 1;
    assert_true(fc_noise_write_second(&r, g->responder_ephemeral.data, (const void *)second,
                                      sizeof second - 1, message));
    expect(g, "second", message, n);
    assert_true(fc_noise_read_second(&i, message, n, payload));
    assert_memory_equal(payload, second, sizeof second - 1);
    expect(g, "hash", i.hash, FC_NOISE_HASH);
    expect(g, "hash", r.hash, FC_NOISE_HASH);
    fc_noise_split(&i, keys[0], keys[1]);
    fc_noise_split(&r, keys[2], keys[3]);
    assert_memory_equal(keys[0], keys[2], FC_KEY_SIZE);
    assert_memory_equal(keys[1], keys[3], FC_KEY_SIZE);
    fc_noise_encrypt(keys[0], 0, NULL, 0, (const void *)"there", 5, message);
    expect(g, "there", message, 5 + FC_NOISE_TAG);
    fc_noise_encrypt(keys[1], 0, NULL, 0, (const void *)"and back", 8, message);
    expect(g, "back", message, 8 + FC_NOISE_TAG);
    fc_noise_rekey(keys[0]);
    fc_noise_encrypt(keys[0], 1, NULL, 0, (const void *)"under another key", 17, message);
    expect(g, "rekeyed", message, 17 + FC_NOISE_TAG);
}

/* Every byte of both messages counts, and none may be missing. */
static void test_damage(void **state)
{
    const struct golden *g = *state;
    struct bytes first = field(g, "first"), second = field(g, "second");
    unsigned char payload[256];
    struct fc_noise i, r, copy;
    for (size_t at = 0; at <= first.len; at++) {
        start(g, &i, &r);
        if (at < first.len)
            first.data[at] ^= 0x20;
        assert_int_equal(fc_noise_read_first(&r, first.data, first.len, payload), at == first.len);
        if (at < first.len)
            first.data[at] ^= 0x20;
        start(g, &i, &r);
        assert_int_equal(fc_noise_read_first(&r, first.data, at, payload), at == first.len);
    }
    start(g, &i, &r);
    assert_true(fc_noise_write_first(&i, g->initiator_ephemeral.data, (const void *)"first payload",
                                     13, payload));
    for (size_t at = 0; at <= second.len; at++) {
        copy = i;
        if (at < second.len)
            second.data[at] ^= 0x20;
        assert_int_equal(fc_noise_read_second(&copy, second.data, second.len, payload),
                         at == second.len);
        if (at < second.len)
            second.data[at] ^= 0x20;
        copy = i;
        assert_int_equal(fc_noise_read_second(&copy, second.data, at, payload), at == second.len);
    }
}

/* Another prologue, another responder, a static key that its sender does not hold. */
static void test_wrong_parties(void **state)
{
    const struct golden *g = *state;
    struct fc_noise i, r;
    unsigned char message[FC_NOISE_FIRST], payload[1];
    const unsigned char *e = g->initiator_ephemeral.data;
    start(g, &i, &r);
    fc_noise_start(&r, g->prologue.data, g->prologue.len - 1, &g->responder,
                   g->responder.public_key);
    assert_true(fc_noise_write_first(&i, e, NULL, 0, message));
    assert_false(fc_noise_read_first(&r, message, sizeof message, payload));

    start(g, &i, &r);
    fc_noise_start(&i, g->prologue.data, g->prologue.len, &g->initiator, g->initiator.public_key);
    assert_true(fc_noise_write_first(&i, e, NULL, 0, message));
    assert_false(fc_noise_read_first(&r, message, sizeof message, payload));

    start(g, &i, &r);
    i.own.secret[5] ^= 1; /* claims the public key of another */
    assert_true(fc_noise_write_first(&i, e, NULL, 0, message));
    assert_false(fc_noise_read_first(&r, message, sizeof message, payload));
}

/* A point of small order makes every shared secret the same: it is no key. */
static void test_small_order(void **state)
{
    const struct golden *g = *state;
    static const unsigned char zero[FC_KEY_SIZE], one[FC_KEY_SIZE] = {1};
    struct bytes first = field(g, "first");
    struct fc_noise i, r;
    unsigned char message[FC_NOISE_FIRST], payload[256];
    start(g, &i, &r);
    fc_noise_start(&i, g->prologue.data, g->prologue.len, &g->initiator, zero);
    assert_false(fc_noise_write_first(&i, g->initiator_ephemeral.data, NULL, 0, message));
    start(g, &i, &r);
    memcpy(first.data, one, FC_KEY_SIZE);
    assert_false(fc_noise_read_first(&r, first.data, first.len, payload));
    start(g, &i, &r);
    memcpy(r.peer_ephemeral, one, FC_KEY_SIZE);
    assert_false(fc_noise_write_second(&r, g->responder_ephemeral.data, NULL, 0, message));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_wrong_parties),
        cmocka_unit_test(test_small_order),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
