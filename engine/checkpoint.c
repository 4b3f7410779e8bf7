/* Trainer state on disk.
 *
 * All integers little endian:
 *   magic "FCTRAIN2" | u64 total | u64 steps done | f32 loss scale | u32 steps since it changed
 *   | tag[256] | note[1024]
 *   | master[total] f32 | m[total] f32 | v[total] f32 | BLAKE2b-256 of all that came before
 * It is written and read in blocks of BLOCK floats, so host memory stays small; the hash is checked
 * before any of it reaches the model. */
#include "base/file.h"
#include "base/memory.h"
#include "engine/trainer_private.h"

#include <sodium.h>
#include <string.h>

#define BLOCK (1u << 20)

struct header {
    char magic[8];
    uint64_t total, done;
    float loss_scale; /* 1 unless fp16 */
    uint32_t good_steps;
    char tag[256], note[1024];
};

static const char magic[8] = {'F', 'C', 'T', 'R', 'A', 'I', 'N', '2'};

/* One block of one of the three state vectors. */
static float *block_of(struct fc_trainer *t, int vector, size_t at)
{
    float *const vectors[3] = {t->master, t->m, t->v};
    return vectors[vector] + at;
}

static size_t block_size(size_t total, size_t at)
{
    return total - at < BLOCK ? total - at : BLOCK;
}

enum fc_code fc_trainer_save(struct fc_trainer *t, const char *path, const char *tag,
                             const char *note, struct fc_error *err)
{
    const struct fc_device *dev = t->model->dev;
    size_t total = t->model->params.total;
    struct header h = {.total = total,
                       .done = t->done,
                       .loss_scale = t->loss_scale,
                       .good_steps = (uint32_t)t->good_steps};
    memcpy(h.magic, magic, sizeof magic);
    if (strlen(tag) >= sizeof h.tag || (note && strlen(note) >= sizeof h.note))
        return fc_fail(err, FC_ERR_USAGE, "checkpoint: tag or note too long");
    strcpy(h.tag, tag);
    strcpy(h.note, note ? note : "");
    float *staging = fc_alloc(BLOCK, sizeof *staging, "checkpoint", err);
    if (!staging)
        return FC_ERR_MEMORY;
    struct fc_atomic_file f;
    enum fc_code code = fc_atomic_open(&f, path, err);
    if (code != FC_OK)
        goto cleanup;
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, 32);
    crypto_generichash_update(&hash, (const unsigned char *)&h, sizeof h);
    fwrite(&h, sizeof h, 1, f.stream);
    for (int vector = 0; vector < 3 && code == FC_OK; vector++)
        for (size_t at = 0; at < total && code == FC_OK; at += BLOCK) {
            size_t bytes = block_size(total, at) * sizeof(float);
            dev->k->download(dev->stream, staging, block_of(t, vector, at), bytes);
            code = dev->k->sync(dev->stream, err);
            crypto_generichash_update(&hash, (const unsigned char *)staging, bytes);
            fwrite(staging, 1, bytes, f.stream);
        }
    unsigned char digest[32];
    crypto_generichash_final(&hash, digest, sizeof digest);
    fwrite(digest, sizeof digest, 1, f.stream);
    if (code == FC_OK)
        code = fc_atomic_commit(&f, err);
    else
        fc_atomic_abort(&f);
cleanup:
    free(staging);
    return code;
}

static enum fc_code check_file(const struct fc_trainer *t, const struct fc_map *map,
                               const char *path, const char *tag, struct header *h,
                               struct fc_error *err)
{
    size_t total = t->model->params.total;
    size_t expected = sizeof *h + 3 * total * sizeof(float) + 32;
    if (map->len < sizeof *h)
        return fc_fail(err, FC_ERR_INPUT, "%s: %zu bytes, too short for a checkpoint", path,
                       map->len);
    memcpy(h, map->data, sizeof *h);
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return fc_fail(err, FC_ERR_INPUT, "%s: not a checkpoint of this version", path);
    if (h->total != total || map->len != expected)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: %zu bytes for %llu weights, expected %zu bytes for %zu weights", path,
                       map->len, (unsigned long long)h->total, expected, total);
    unsigned char digest[32];
    crypto_generichash(digest, sizeof digest, map->data, map->len - 32, NULL, 0);
    if (memcmp(digest, map->data + map->len - 32, 32) != 0)
        return fc_fail(err, FC_ERR_INPUT, "%s: damaged (checksum differs)", path);
    h->tag[sizeof h->tag - 1] = h->note[sizeof h->note - 1] = '\0';
    if (!(h->loss_scale > 0) || (h->loss_scale != 1.0f && t->model->dtype != FC_F16))
        return fc_fail(err, FC_ERR_INPUT, "%s: a loss scale of %g in %s: it is of another dtype",
                       path, (double)h->loss_scale, fc_dtype_name(t->model->dtype));
    if (strcmp(h->tag, tag) != 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "%s: written by a run with another model, data or configuration; use the "
                       "same ones, or another --output",
                       path);
    return FC_OK;
}

/* Weights that were rounded at random are rounded again by the step that did it: with a learning
 * rate of 0 it moves no master weight. The moments, which it does change, are sent again. */
static void round_again(struct fc_trainer *t, const struct header *h, const unsigned char *vectors)
{
    const struct fc_device *dev = t->model->dev;
    size_t bytes = t->model->params.total * sizeof(float);
    struct fc_adamw how = {.beta1 = 0.5f, .beta2 = 0.5f, .eps = 1, .step = h->done};
    dev->k->zero(dev->stream, t->gradients, bytes);
    fc_trainer_update(t, how);
    for (int vector = 1; vector < 3; vector++)
        dev->k->upload(dev->stream, block_of(t, vector, 0), vectors + (size_t)vector * bytes,
                       bytes);
}

enum fc_code fc_trainer_load(struct fc_trainer *t, const char *path, const char *tag, char *note,
                             size_t note_size, struct fc_error *err)
{
    const struct fc_device *dev = t->model->dev;
    size_t total = t->model->params.total;
    struct fc_map map;
    struct header h;
    enum fc_code code = fc_map_open(&map, path, err);
    if (code != FC_OK)
        return code;
    code = check_file(t, &map, path, tag, &h, err);
    if (code == FC_OK && note && strlen(h.note) >= note_size)
        code = fc_fail(err, FC_ERR_INPUT, "%s: note longer than expected", path);
    if (code != FC_OK)
        goto cleanup;
    const unsigned char *from = map.data + sizeof h;
    for (int vector = 0; vector < 3; vector++, from += total * sizeof(float))
        dev->k->upload(dev->stream, block_of(t, vector, 0), from, total * sizeof(float));
    if (t->options.stochastic && t->master != t->model->weights && h.done)
        round_again(t, &h, map.data + sizeof h);
    else if (t->master != t->model->weights)
        dev->k->cast(dev->stream, t->model->weights, t->model->dtype, t->master, FC_F32, total);
    code = dev->k->sync(dev->stream, err);
    t->done = (size_t)h.done;
    t->loss_scale = h.loss_scale;
    t->good_steps = h.good_steps;
    if (note)
        strcpy(note, h.note);
cleanup:
    fc_map_close(&map);
    return code;
}
