/* transformers loads what fc_model_save writes as the model it came from. Needs a Python with
 * transformers in FEDCOT_PEER_PYTHON; skipped without. */
#define _GNU_SOURCE
#include "tests/models/saved.h"

#include <sys/wait.h>

static void check_with_peer(const char *python, const char *from, enum fc_dtype dtype)
{
    const char *folder = test_path("saved");
    save(from, folder, dtype);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execlp(python, python, golden_path("check_saved_model.py"), folder, from, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    remove_saved(folder);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The path of the real model, or NULL. */
static const char *real_model(void)
{
    static char path[1024];
    const char *given = getenv("FEDCOT_MODEL"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME") ? getenv("HOME") : "";
    if (given)
        snprintf(path, sizeof path, "%s", given);
    else
        snprintf(path, sizeof path, "%s%s/fedcot/SmolLM2-135M-Instruct.Q4_1.gguf",
                 cache ? cache : home, cache ? "" : "/.cache");
    return fc_is_file(path) || fc_is_folder(path) ? path : NULL;
}

static void small_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof originals / sizeof *originals; i++)
        check_with_peer(getenv("FEDCOT_PEER_PYTHON"), golden_path(originals[i]),
                        i % 2 ? FC_BF16 : FC_F32);
}

static void the_real_model(void **state)
{
    (void)state;
    if (!real_model()) {
        print_message("skipped: no model file; FEDCOT_MODEL may name one\n");
        skip();
    }
    check_with_peer(getenv("FEDCOT_PEER_PYTHON"), real_model(), FC_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_models),
                                       cmocka_unit_test(the_real_model)};
    if (!getenv("FEDCOT_PEER_PYTHON")) {
        printf("skipped: FEDCOT_PEER_PYTHON does not name a Python with transformers\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
