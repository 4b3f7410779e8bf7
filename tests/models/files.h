/* What the tests of model files share: a folder of their own, a writer of GGUF files that can write
 * wrong ones too, and limits under which hostile files are opened. */
#ifndef FC_TESTS_MODELS_FILES_H
#define FC_TESTS_MODELS_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "models/model_file.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* A new folder under TMPDIR; group setup and teardown. */
static char test_folder[256];

static int make_test_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(test_folder, sizeof test_folder, "%s/fedcot-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(test_folder) ? 0 : -1;
}

static int remove_test_folder(void **state)
{
    (void)state;
    DIR *dir = opendir(test_folder);
    char path[1024];
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", test_folder, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlink(path);
    }
    if (dir)
        closedir(dir);
    return rmdir(test_folder);
}

/* "TEST_FOLDER/name" in one of four static buffers, used in turn. */
static inline const char *test_path(const char *name)
{
    static char paths[4][512];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder, name);
    return path;
}

static inline const char *golden_path(const char *name)
{
    static char paths[4][512];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", FC_GOLDEN_DIR, name);
    return path;
}

/* A plain write: no fsync, as the tests write thousands of files; and a new file each time, because
 * some file systems flush one that was truncated and written again. */
static inline const char *put_file(const char *name, const void *data, size_t len)
{
    const char *path = test_path(name);
    unlink(path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* From here on an allocation of a GiB or more fails, so that a hostile count that is believed shows
 * as FC_ERR_MEMORY. (The sanitizers need address space, and report such counts themselves.) */
static inline void limit_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    struct rlimit limit = {(rlim_t)1 << 30, (rlim_t)1 << 30};
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
#endif
}

/* A hostile file is refused with words, or was harmless. */
static inline void assert_refused_or_fine(enum fc_code code, const struct fc_error *err)
{
    if (code != FC_OK && code != FC_ERR_INPUT && code != FC_ERR_UNSUPPORTED)
        fail_msg("unexpected code %d: %s", code, err->text);
    assert_int_equal(code, err->code);
    assert_true(code == FC_OK || err->text[0]);
}

static inline void assert_refused(enum fc_code code, const struct fc_error *err,
                                  enum fc_code expected, const char *words)
{
    if (code != expected || !strstr(err->text, words))
        fail_msg("expected code %d with \"%s\", found %d: %s", expected, words, code, err->text);
}

/* Field by field, as padding may hold anything. */
static inline void assert_same_config(const struct fc_model_config *a,
                                      const struct fc_model_config *b)
{
    assert_string_equal(a->family, b->family);
    assert_true(a->n_layer == b->n_layer && a->n_embd == b->n_embd && a->n_head == b->n_head &&
                a->n_kv_head == b->n_kv_head && a->head_size == b->head_size &&
                a->n_ff == b->n_ff && a->n_vocab == b->n_vocab && a->n_ctx == b->n_ctx);
    assert_true(a->norm == b->norm && a->norm_eps == b->norm_eps && a->position == b->position &&
                a->activation == b->activation && a->gated == b->gated);
    assert_true(a->rope_theta == b->rope_theta && a->rope_scaling == b->rope_scaling &&
                a->rope_factor == b->rope_factor && a->rope_low_freq == b->rope_low_freq &&
                a->rope_high_freq == b->rope_high_freq &&
                a->rope_original_ctx == b->rope_original_ctx);
    assert_true(a->qkv_bias == b->qkv_bias && a->out_bias == b->out_bias &&
                a->mlp_bias == b->mlp_bias && a->tied == b->tied);
    assert_true(a->bos == b->bos && a->pad == b->pad && a->n_eos == b->n_eos);
    assert_memory_equal(a->eos, b->eos, sizeof a->eos);
}

/* xorshift64: the same bytes in every run. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- writing GGUF ---------------------------------------------------------------------------- */

enum {
    G_U8,
    G_I8,
    G_U16,
    G_I16,
    G_U32,
    G_I32,
    G_F32,
    G_BOOL,
    G_STRING,
    G_ARRAY,
    G_U64,
    G_I64,
    G_F64
};

/* Metadata, tensor descriptions and data are collected apart and joined by gguf_join. */
struct gguf_writer {
    struct fc_text values, tensors, data;
    uint64_t n_values, n_tensors;
    uint32_t version;
};

static inline void add_bytes(struct fc_text *t, const void *p, size_t n)
{
    fc_text_add(t, p, n);
}

static inline void add_u32(struct fc_text *t, uint32_t v)
{
    add_bytes(t, &v, 4);
}

static inline void add_u64(struct fc_text *t, uint64_t v)
{
    add_bytes(t, &v, 8);
}

static inline void add_string(struct fc_text *t, const char *s)
{
    add_u64(t, strlen(s));
    add_bytes(t, s, strlen(s));
}

static inline void gguf_key(struct gguf_writer *w, const char *key, uint32_t type)
{
    add_string(&w->values, key);
    add_u32(&w->values, type);
    w->n_values++;
}

static inline void gguf_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    gguf_key(w, key, G_U32);
    add_u32(&w->values, v);
}

static inline void gguf_f32(struct gguf_writer *w, const char *key, float v)
{
    gguf_key(w, key, G_F32);
    add_bytes(&w->values, &v, 4);
}

static inline void gguf_string(struct gguf_writer *w, const char *key, const char *v)
{
    gguf_key(w, key, G_STRING);
    add_string(&w->values, v);
}

static inline void gguf_describe(struct gguf_writer *w, const char *name, size_t n_dims,
                                 const uint64_t *dims, uint32_t type, uint64_t offset)
{
    add_string(&w->tensors, name);
    add_u32(&w->tensors, (uint32_t)n_dims);
    for (size_t i = 0; i < n_dims; i++)
        add_u64(&w->tensors, dims[i]);
    add_u32(&w->tensors, type);
    add_u64(&w->tensors, offset);
    w->n_tensors++;
}

/* An F32 tensor of `rows` rows (0: a vector) whose values are small numbers derived from `seed`. */
static inline void gguf_matrix(struct gguf_writer *w, const char *name, size_t rows, size_t cols,
                               uint64_t seed)
{
    uint64_t dims[2] = {cols, rows};
    static const char zeros[32] = {0};
    gguf_describe(w, name, rows ? 2 : 1, dims, 0, w->data.len);
    for (size_t i = 0; i < (rows ? rows : 1) * cols; i++) {
        float v = (float)(next_random(&seed) % 2001) / 1000 - 1;
        add_bytes(&w->data, &v, 4);
    }
    add_bytes(&w->data, zeros, (32 - w->data.len % 32) % 32);
}

static inline void gguf_join(const struct gguf_writer *w, struct fc_text *out)
{
    static const char zeros[32] = {0};
    fc_text_clear(out);
    add_bytes(out, "GGUF", 4);
    add_u32(out, w->version ? w->version : 3);
    add_u64(out, w->n_tensors);
    add_u64(out, w->n_values);
    if (w->values.len)
        add_bytes(out, w->values.data, w->values.len);
    if (w->tensors.len)
        add_bytes(out, w->tensors.data, w->tensors.len);
    add_bytes(out, zeros, (32 - out->len % 32) % 32);
    if (w->data.len)
        add_bytes(out, w->data.data, w->data.len);
    assert_int_equal(fc_text_check(out, NULL), FC_OK);
}

static inline void gguf_free(struct gguf_writer *w)
{
    fc_text_free(&w->values);
    fc_text_free(&w->tensors);
    fc_text_free(&w->data);
    *w = (struct gguf_writer){0};
}

/* The metadata of a Llama of one layer: V 12, C 8, 2 heads of 4, 1 KV head, F 16. */
static inline void gguf_llama_values(struct gguf_writer *w)
{
    gguf_string(w, "general.architecture", "llama");
    gguf_u32(w, "llama.block_count", 1);
    gguf_u32(w, "llama.context_length", 64);
    gguf_u32(w, "llama.embedding_length", 8);
    gguf_u32(w, "llama.feed_forward_length", 16);
    gguf_u32(w, "llama.attention.head_count", 2);
    gguf_u32(w, "llama.attention.head_count_kv", 1);
    gguf_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_f32(w, "llama.rope.freq_base", 10000);
    gguf_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_u32(w, "tokenizer.ggml.eos_token_id", 2);
}

static inline void gguf_llama_tensors(struct gguf_writer *w)
{
    gguf_matrix(w, "token_embd.weight", 12, 8, 1);
    gguf_matrix(w, "blk.0.attn_norm.weight", 0, 8, 2);
    gguf_matrix(w, "blk.0.attn_q.weight", 8, 8, 3);
    gguf_matrix(w, "blk.0.attn_k.weight", 4, 8, 4);
    gguf_matrix(w, "blk.0.attn_v.weight", 4, 8, 5);
    gguf_matrix(w, "blk.0.attn_output.weight", 8, 8, 6);
    gguf_matrix(w, "blk.0.ffn_norm.weight", 0, 8, 7);
    gguf_matrix(w, "blk.0.ffn_gate.weight", 16, 8, 8);
    gguf_matrix(w, "blk.0.ffn_up.weight", 16, 8, 9);
    gguf_matrix(w, "blk.0.ffn_down.weight", 8, 16, 10);
    gguf_matrix(w, "output_norm.weight", 0, 8, 11);
}

#endif
