/* Files of keys: written once and whole, readable by their owner alone, and refused when they are
 * anything else. The list of clients: read strictly, or not at all. */
#define _GNU_SOURCE
#include "keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>

struct place {
    char folder[200], key[240], other[240];
};

static int set_up(void **state)
{
    static struct place p;
    make_folder(p.folder, sizeof p.folder);
    snprintf(p.key, sizeof p.key, "%s/key", p.folder);
    snprintf(p.other, sizeof p.other, "%s/other", p.folder);
    *state = &p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    remove_folder(p->folder);
    return 0;
}

static size_t read_text(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, size - 1, f);
    fclose(f);
    text[n] = '\0';
    return n;
}

static void expect_refused(const char *path, enum fc_code code, const char *words)
{
    struct fc_key_pair *pair = NULL;
    struct fc_error err = {0};
    enum fc_code got = fc_key_pair_read(&pair, path, &err);
    if (got != code || !strstr(err.text, words))
        fail_msg("code %d, expected %d: %s", got, code, err.text);
    assert_null(pair);
}

static void test_written_and_read(void **state)
{
    struct place *p = *state;
    struct fc_error err = {0};
    struct fc_key_pair *pair = make_key(), *again = NULL, *second = make_key();
    unsigned char key[FC_KEY_SIZE];
    char path[260], text[FC_KEY_TEXT_SIZE], file[300];
    struct stat st;
    mode_t old = umask(0); /* the mode does not depend on it */
    assert_int_equal(fc_key_pair_write(pair, p->key, &err), FC_OK);
    umask(old);
    assert_int_equal(stat(p->key, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(fc_key_pair_read(&again, p->key, &err), FC_OK);
    assert_memory_equal(again, pair, sizeof *pair);

    snprintf(path, sizeof path, "%s.pub", p->key);
    fc_key_text(text, pair->public_key);
    assert_int_equal(read_text(path, file, sizeof file), FC_KEY_TEXT_SIZE);
    assert_memory_equal(file, text, FC_KEY_TEXT_SIZE - 1);
    assert_int_equal(fc_public_key_read(key, path, &err), FC_OK);
    assert_memory_equal(key, pair->public_key, FC_KEY_SIZE);
    assert_int_equal(fc_public_key_read(key, text, &err), FC_OK);
    assert_memory_equal(key, pair->public_key, FC_KEY_SIZE);

    /* Never over another, and nothing is left of the attempt. */
    assert_int_equal(fc_key_pair_write(second, p->key, &err), FC_ERR_USAGE);
    assert_non_null(strstr(err.text, "never overwritten"));
    fc_key_pair_free(again);
    assert_int_equal(fc_key_pair_read(&again, p->key, &err), FC_OK);
    assert_memory_equal(again, pair, sizeof *pair);
    snprintf(path, sizeof path, "ls %s | wc -l | grep -qx 2", p->folder);
    assert_int_equal(system(path), 0);
    assert_memory_not_equal(pair->secret, second->secret, FC_KEY_SIZE);
    fc_key_pair_free(again);
    fc_key_pair_free(pair);
    fc_key_pair_free(second);
}

static void test_modes(void **state)
{
    struct place *p = *state;
    static const mode_t bad[] = {0640, 0604, 0660, 0601, 0610, 0602, 0777};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(chmod(p->key, bad[i]), 0);
        expect_refused(p->key, FC_ERR_INPUT, "chmod 600");
    }
    assert_int_equal(chmod(p->key, 0400), 0);
    struct fc_key_pair *pair = NULL;
    struct fc_error err = {0};
    assert_int_equal(fc_key_pair_read(&pair, p->key, &err), FC_OK);
    fc_key_pair_free(pair);
    assert_int_equal(chmod(p->key, 0600), 0);
    if (geteuid() == 0) { /* only root can give a file away */
        assert_int_equal(chown(p->key, 65534, (gid_t)-1), 0);
        expect_refused(p->key, FC_ERR_INPUT, "another user");
        assert_int_equal(chown(p->key, 0, (gid_t)-1), 0);
    }
    expect_refused(p->folder, FC_ERR_INPUT, "regular file");
    char fifo[260];
    snprintf(fifo, sizeof fifo, "%s/fifo", p->folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    alarm(20); /* a fifo that is opened in the usual way waits for ever */
    expect_refused(fifo, FC_ERR_INPUT, "regular file");
    alarm(0);
    snprintf(fifo, sizeof fifo, "%s/none", p->folder);
    expect_refused(fifo, FC_ERR_IO, "keygen");
}

/* Every cut and every changed byte; no text of the file in the message. */
static void test_torn_and_damaged(void **state)
{
    struct place *p = *state;
    char text[300];
    size_t n = read_text(p->key, text, sizeof text), ignored = 0;
    for (size_t len = 0; len < n; len++) {
        write_text(p->other, text, len, 0600);
        expect_refused(p->other, FC_ERR_INPUT, "keygen");
    }
    for (size_t at = 0; at < n; at++) {
        char kept = text[at];
        text[at] = kept == '0' ? '1' : '0';
        write_text(p->other, text, n, 0600);
        struct fc_key_pair *pair = NULL;
        struct fc_error err = {0};
        /* X25519 ignores five bits of a secret, so some other digits are the same key. */
        if (fc_key_pair_read(&pair, p->other, &err) == FC_OK) {
            fc_key_pair_free(pair);
            assert_in_range(at, 27, 27 + 63);
            ignored++;
        } else {
            assert_int_equal(err.code, FC_ERR_INPUT);
            assert_null(strstr(err.text, "secret key 1"));
        }
        text[at] = kept;
    }
    assert_true(ignored <= 3); /* digits: the lowest three bits and the highest two */
    text[n] = '\n';
    write_text(p->other, text, n + 1, 0600);
    expect_refused(p->other, FC_ERR_INPUT, "keygen");
    memset(text, 0, sizeof text);
    write_text(p->other, text, n, 0600);
    expect_refused(p->other, FC_ERR_INPUT, "keygen");
}

static void test_public_keys(void **state)
{
    struct place *p = *state;
    unsigned char key[FC_KEY_SIZE];
    struct fc_error err = {0};
    static const char digits[] = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
    assert_int_equal(fc_public_key_read(key, digits, &err), FC_OK);
    assert_int_equal(key[1], 0x11);
    assert_int_equal(key[16], 0xff);
    assert_int_equal(fc_public_key_read(key, p->key, &err), FC_ERR_USAGE); /* the secret one */
    assert_non_null(strstr(err.text, ".pub"));
    static const char *const bad[] = {"", "\n", "0011", "x",
                                      "00112233445566778899aabbccddeeffFFEE"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_text(p->other, bad[i], strlen(bad[i]), 0600);
        err = (struct fc_error){0};
        assert_int_equal(fc_public_key_read(key, p->other, &err), FC_ERR_INPUT);
    }
    assert_false(fc_public_key_parse(key, digits, 63));
    assert_false(fc_public_key_parse(
        key, "g0112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100", 64));
}

/* ---- the list of clients ---- */

#define A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define B "f0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define NAME_63 "abcdefghijklmnopqrstuvwxyz.ABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456_9"

static void test_lists(void **state)
{
    struct place *p = *state;
    struct fc_allow_list list = {0};
    struct fc_error err = {0};
    static const char good[] = "# clients\n\n  \t\n" A " ward-1 rate=0.25 tokens-per-day=5000\n\t" B
                               "\t" NAME_63 "  \n# " A " x";
    write_text(p->other, good, strlen(good), 0644);
    assert_int_equal(fc_allow_list_read(&list, p->other, &err), FC_OK);
    assert_int_equal(list.n, 2);
    unsigned char key[FC_KEY_SIZE];
    fc_public_key_parse(key, A, 64);
    const struct fc_client_identity *ward = fc_allow_list_find(&list, key);
    assert_non_null(ward);
    assert_string_equal(ward->name, "ward-1");
    assert_int_equal(ward->tokens_per_day, 5000);
    assert_true(ward->rate > 0.2499 && ward->rate < 0.2501);
    fc_public_key_parse(key, B, 64);
    ward = fc_allow_list_find(&list, key);
    assert_string_equal(ward->name, NAME_63);
    assert_true(ward->tokens_per_day == 0 && ward->rate <= 0);
    key[31] ^= 1;
    assert_null(fc_allow_list_find(&list, key));

    static const struct {
        const char *text, *line;
    } bad[] = {
        {"x\n", "line 1"},
        {A "\n", "line 1: expected a name"},
        {"\n\n" A " a b\n", "line 3"},
        {A " a\n" A " b\n", "line 2: this key"},
        {A " a\n" B " a\n", "line 2: this name"},
        {A "0 a\n", "line 1"},
        {A " " NAME_63 "x\n", "line 1: expected a name"},
        {A " a/b\n", "line 1: expected a name of letters"},
        {A " a\r\n", "line 1: expected a name of letters"},
        {A " a rate=\n", "line 1: rate"},
        {A " a rate=0\n", "line 1: rate"},
        {A " a rate=-1\n", "line 1: rate"},
        {A " a rate=nan\n", "line 1: rate"},
        {A " a rate=1e3\n", "line 1: rate"},
        {A " a rate=1.\n", "line 1: rate"},
        {A " a rate=.5\n", "line 1: rate"},
        {A " a rate=1.5.5\n", "line 1: rate"},
        {A " a rate=1 rate=2\n", "rate comes twice"},
        {A " a rate=99999999999999999999999999999999999\n", "line 1: rate"},
        {A " a tokens-per-day=1.5\n", "line 1: tokens-per-day"},
        {A " a tokens-per-day=0\n", "line 1: tokens-per-day"},
        {A " a tokens-per-day=99999999999999999999\n", "line 1: tokens-per-day"},
        {A " a tokens-per-day=1 tokens-per-day=1\n", "tokens-per-day comes twice"},
        {A " a tokens_per_day=1\n", "expected tokens-per-day=N"},
        {A " a # comment\n", "expected tokens-per-day=N"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_text(p->other, bad[i].text, strlen(bad[i].text), 0644);
        err = (struct fc_error){0};
        assert_int_equal(fc_allow_list_read(&list, p->other, &err), FC_ERR_INPUT);
        if (!strstr(err.text, bad[i].line))
            fail_msg("%s: said %s", bad[i].text, err.text);
        assert_int_equal(list.n, 2); /* as it was */
    }
    static const char nul[] = A " a\0b\n";
    write_text(p->other, nul, sizeof nul - 1, 0644);
    assert_int_equal(fc_allow_list_read(&list, p->other, NULL), FC_ERR_INPUT);
    static const mode_t modes[] = {0620, 0602, 0666};
    for (size_t i = 0; i < 3; i++) {
        write_text(p->other, good, strlen(good), modes[i]);
        err = (struct fc_error){0};
        assert_int_equal(fc_allow_list_read(&list, p->other, &err), FC_ERR_INPUT);
        assert_non_null(strstr(err.text, "chmod go-w"));
    }
    write_text(p->other, "", 0, 0644);
    assert_int_equal(fc_allow_list_read(&list, p->other, NULL), FC_OK);
    assert_int_equal(list.n, 0);
    fc_allow_list_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_and_read),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_torn_and_damaged),
        cmocka_unit_test(test_public_keys),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
