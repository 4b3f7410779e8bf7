/* Golden files, models and folders of the tokenizer tests. */
#ifndef FC_TESTS_TOKENIZER_FILES_H
#define FC_TESTS_TOKENIZER_FILES_H

#include "base/file.h"
#include "base/json.h"
#include "models/gguf.h"
#include "models/tokenizer_private.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static inline cJSON *read_golden(const char *name)
{
    struct fc_error err = {0};
    char *path = fc_path_join(FC_GOLDEN_DIR, name, &err);
    cJSON *tree = path ? fc_json_read_file(path, (size_t)1 << 24, &err) : NULL;
    if (!tree)
        fail_msg("%s", err.text);
    free(path);
    return tree;
}

static inline struct fc_tokenizer *open_golden(const char *name)
{
    struct fc_error err = {0};
    struct fc_tokenizer *tok = NULL;
    char *path = fc_path_join(FC_GOLDEN_DIR, name, &err);
    if (!path || fc_tokenizer_open_json(&tok, path, &err) != FC_OK)
        fail_msg("%s", err.text);
    free(path);
    return tok;
}

static inline struct fc_tokenizer *open_gguf(const char *path)
{
    struct fc_error err = {0};
    struct fc_gguf *gguf = NULL;
    struct fc_tokenizer *tok = NULL;
    if (fc_gguf_open(&gguf, path, &err) != FC_OK || fc_tok_open_gguf(&tok, gguf, &err) != FC_OK)
        fail_msg("%s", err.text);
    fc_gguf_close(gguf);
    return tok;
}

/* tokenizer.json and the files beside it. */
static inline struct fc_tokenizer *open_folder(const char *folder)
{
    struct fc_error err = {0};
    struct fc_tokenizer *tok = NULL;
    if (fc_tok_open_folder(&tok, folder, &err) != FC_OK)
        fail_msg("%s", err.text);
    return tok;
}

/* The model of the tests, owned by the caller; NULL if there is none. */
static inline char *model_path(void)
{
    const char *model = getenv("FEDCOT_MODEL"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    struct fc_text path = {0};
    if (model)
        fc_text_puts(&path, model);
    else
        fc_text_printf(&path, "%s%s/fedcot/SmolLM2-135M-Instruct.Q4_1.gguf",
                       cache  ? cache
                       : home ? home
                              : "",
                       cache ? "" : "/.cache");
    if (path.failed || !fc_is_file(path.data))
        fc_text_free(&path);
    return path.data;
}

static inline void assert_same_file(const char *folder, const char *other, const char *name)
{
    char *a = fc_path_join(folder, name, NULL), *b = fc_path_join(other, name, NULL);
    char *x = NULL, *y = NULL;
    size_t n, m;
    assert_int_equal(fc_file_read(a, (size_t)1 << 26, &x, &n, NULL), FC_OK);
    assert_int_equal(fc_file_read(b, (size_t)1 << 26, &y, &m, NULL), FC_OK);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(a);
    free(b);
    free(x);
    free(y);
}

/* A folder of files only. */
static inline void remove_folder(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *path = fc_path_join(folder, e->d_name, NULL);
        if (path)
            unlink(path);
        free(path);
    }
    if (d)
        closedir(d);
    rmdir(folder);
}

#endif
