/* A ring of blocks of host memory that a device copies from beside the host's work (pinned on
 * CUDA): the host fills one block while the copies from the others still wait in the stream. A
 * block is handed out again only when its last copy has passed, which the host waits for.
 *
 *     int32_t *block = fc_staging_next(&r);      fill it
 *     dev->k->upload(dev->stream, to, block, n);
 *     fc_staging_sent(&r);                       after the last use of the block in the stream
 *
 * Where device memory has as many places as the ring has blocks, and block i goes to place i alone,
 * fc_staging_upload takes the place of the upload: it copies beside what the device's stream still
 * computes for the blocks before.
 *
 * Anything that the stream reads from host memory later than the call goes through one of these, or
 * is left alone by the host until sync. */
#ifndef FC_ENGINE_STAGING_H
#define FC_ENGINE_STAGING_H

#include "engine/device.h"

enum { FC_STAGING_BLOCKS = 2 };

struct fc_staging {
    struct fc_device *dev;
    void *blocks[FC_STAGING_BLOCKS];
    struct fc_event *sent[FC_STAGING_BLOCKS];
    struct fc_stream *copies; /* for copies alone; NULL without fc_staging_overlap */
    struct fc_event *there;   /* the last of them has passed */
    size_t bytes, at;         /* of a block; the one in hand */
};

/* Zero-initialise; `bytes` a block, at start-up only. FC_ERR_MEMORY. */
enum fc_code fc_staging_open(struct fc_staging *r, struct fc_device *dev, size_t bytes,
                             struct fc_error *err);
void fc_staging_close(struct fc_staging *r); /* a zeroed struct is fine; waits for the copies */

void *fc_staging_next(struct fc_staging *r);
/* Opens the stream that fc_staging_upload needs; at start-up only. */
enum fc_code fc_staging_overlap(struct fc_staging *r, struct fc_error *err);
/* Copies n bytes of the block in hand to device memory that nothing uses which came after the
 * block's last fc_staging_sent. What is put on the device's stream from now on finds them there. */
void fc_staging_upload(struct fc_staging *r, void *to, size_t n);
void fc_staging_sent(struct fc_staging *r);

#endif
