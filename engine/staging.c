#include "engine/staging.h"

enum fc_code fc_staging_open(struct fc_staging *r, struct fc_device *dev, size_t bytes,
                             struct fc_error *err)
{
    *r = (struct fc_staging){.dev = dev, .bytes = bytes};
    for (int i = 0; i < FC_STAGING_BLOCKS; i++) {
        struct fc_error why = {0};
        r->blocks[i] = dev->k->host_alloc(dev->stream, bytes, &why);
        if (r->blocks[i])
            r->sent[i] = dev->k->event_open(dev->stream, &why);
        if (!r->sent[i]) {
            fc_staging_close(r);
            return fc_fail(err, why.code, "%s", why.text);
        }
    }
    return FC_OK;
}

void fc_staging_close(struct fc_staging *r)
{
    if (!r->dev)
        return;
    for (int i = 0; i < FC_STAGING_BLOCKS; i++) {
        if (r->sent[i])
            r->dev->k->event_sync(r->dev->stream, r->sent[i]);
        r->dev->k->event_close(r->dev->stream, r->sent[i]);
        r->dev->k->host_free(r->dev->stream, r->blocks[i]);
    }
    r->dev->k->event_close(r->dev->stream, r->there);
    r->dev->k->stream_close(r->copies);
    *r = (struct fc_staging){0};
}

enum fc_code fc_staging_overlap(struct fc_staging *r, struct fc_error *err)
{
    struct fc_error why = {0};
    r->copies = r->dev->k->copy_stream_open(r->dev->stream, &why);
    if (r->copies)
        r->there = r->dev->k->event_open(r->dev->stream, &why);
    return r->there ? FC_OK : fc_fail(err, why.code, "%s", why.text);
}

void fc_staging_upload(struct fc_staging *r, void *to, size_t n)
{
    r->dev->k->upload(r->copies, to, r->blocks[r->at], n);
    r->dev->k->event_record(r->copies, r->there);
    r->dev->k->event_wait(r->dev->stream, r->there);
}

void *fc_staging_next(struct fc_staging *r)
{
    r->at = (r->at + 1) % FC_STAGING_BLOCKS;
    r->dev->k->event_sync(r->dev->stream, r->sent[r->at]);
    return r->blocks[r->at];
}

void fc_staging_sent(struct fc_staging *r)
{
    r->dev->k->event_record(r->dev->stream, r->sent[r->at]);
}
