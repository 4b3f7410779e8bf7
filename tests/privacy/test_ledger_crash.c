/* A client killed at any moment: what it sent is charged and comes back byte for byte, and what it
 * repeats after a restart is not charged twice. */
#define _GNU_SOURCE
#include "privacy/ledger.h"

#include "base/philox.h"
#include "tests/privacy/scratch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

enum { DOCUMENTS = 400, ROUNDS = 40 };

static const unsigned char mechanism[32] = "crash";
static const struct fc_budget unlimited = {0, 0};

static void tag_of(const struct fc_ledger *l, int document, struct fc_tag *tag)
{
    char id[16];
    snprintf(id, sizeof id, "doc-%d", document);
    fc_ledger_tag(l, id, "raw", 3, mechanism, tag);
}

/* What the client does: for every document the stored text or a new one, charged, then "sent" into
 * the pipe. Texts differ from life to life, so a second perturbation would show. */
static void client(const char *path, int life, int out)
{
    struct fc_ledger *l = NULL;
    struct fc_profile p;
    char line[8192], head[160];
    snprintf(head, sizeof head, "%s.head", path);
    if (fc_ledger_open(&l, path, unlimited, NULL) != FC_OK ||
        fc_ledger_keep_head(l, head, NULL) != FC_OK ||
        fc_profile_two_level(&p, 100, 5, 2, NULL) != FC_OK)
        _exit(3);
    for (int d = 0; d < DOCUMENTS; d++) {
        struct fc_tag tag;
        tag_of(l, d, &tag);
        const struct fc_ledger_entry *stored = fc_ledger_find(l, &tag);
        char text[4096]; /* of several disk blocks now and then */
        if (stored) {
            memcpy(text, stored->text, stored->len + 1);
        } else {
            size_t len = d % 7 == 0 ? sizeof text - 1 : 20;
            memset(text, 'a' + life % 26, len);
            text[len] = '\0';
            struct fc_ledger_entry e = {.tag = tag, .draws = 3, .text = text, .len = len};
            if (fc_ledger_charge(l, &p, mechanism, &e, 1, NULL) != FC_OK)
                _exit(4);
        }
        int n = snprintf(line, sizeof line, "%d %c%zu\n", d, text[0], strlen(text));
        if (write(out, line, (size_t)n) != n)
            _exit(5);
    }
    _exit(0);
}

/* Runs one life of the client, killed after about `microseconds` (0: not killed). Notes in first[]
 * what each document was first sent as, and checks that it never changes. 1 when it finished. */
static int one_life(const char *path, int life, uint32_t microseconds, char first[][16])
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        client(path, life, ends[1]);
    }
    close(ends[1]);
    if (microseconds) {
        struct timespec pause = {microseconds / 1000000, (long)(microseconds % 1000000) * 1000};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
    }
    FILE *sent = fdopen(ends[0], "r");
    assert_non_null(sent);
    int document;
    char text[16];
    while (fscanf(sent, "%d %15s", &document, text) == 2) {
        assert_in_range(document, 0, DOCUMENTS - 1);
        if (first[document][0])
            assert_string_equal(first[document], text);
        memcpy(first[document], text, sizeof text);
    }
    fclose(sent);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFEXITED(status);
}

static void test_killed_again_and_again(void **state)
{
    (void)state;
    char folder[64], path[128];
    static char first[DOCUMENTS][16];
    assert_non_null(scratch_make(folder));
    scratch_path(path, folder, "ledger");
    int lives = 0, kills = 0;
    for (int life = 0; life < ROUNDS; life++, lives++) {
        uint32_t w[4];
        fc_philox(11, (uint64_t)life, 0, w);
        if (one_life(path, life, 200 + w[0] % 20000, first))
            break;
        kills++;
        struct fc_ledger *l = NULL; /* all that was sent is on record, at its price */
        struct fc_spent spent;
        assert_int_equal(fc_ledger_open(&l, path, unlimited, NULL), FC_OK);
        for (int d = 0; d < DOCUMENTS; d++) {
            struct fc_tag tag;
            tag_of(l, d, &tag);
            if (first[d][0])
                assert_non_null(fc_ledger_find(l, &tag));
        }
        fc_ledger_spent(l, &spent);
        assert_int_equal(spent.draws, 3 * fc_ledger_entries(l));
        fc_ledger_close(l);
    }
    assert_true(one_life(path, ROUNDS, 0, first));
    struct fc_ledger *l = NULL;
    struct fc_spent spent;
    assert_int_equal(fc_ledger_open(&l, path, unlimited, NULL), FC_OK);
    assert_int_equal(fc_ledger_entries(l), DOCUMENTS);
    fc_ledger_spent(l, &spent);
    assert_int_equal(spent.draws, 3 * DOCUMENTS); /* each once, however often it was killed */
    fc_ledger_close(l);
    printf("killed %d times, every document charged once\n", kills);
    assert_true(kills >= 3);
    static const char *const names[] = {"ledger", "ledger.key", "ledger.head"};
    scratch_remove(folder, names, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed_again_and_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
