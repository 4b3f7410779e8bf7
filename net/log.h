/* An append-only file of checksummed records, for what must survive SIGKILL and a power cut.
 *
 *     offset  size  file (integers little-endian)
 *          0     8  "FCoTlog" and the format's number, FC_LOG_FORMAT
 *          8     .  records, end to end
 *
 *     offset  size  record
 *          0     4  length of the payload, 1 to FC_LOG_MAX_RECORD
 *          4    16  BLAKE2b-128 of: offset of the record in the file (8 bytes), length, payload
 *         20     .  payload
 *
 * Records are gathered by fc_log_append and reach the disk together with fc_log_sync: one write and
 * one fdatasync for as many as came meanwhile. Nothing may be told to anybody before that. The
 * checksum is against torn writes and bad disks, not against whoever can write the folder: that
 * one owns the log. A record that is not whole, and whatever follows it, is dropped at the next
 * opening: what was synced lies before it.
 *
 * Rewriting (fc_log_rewrite) makes the file small again: into a temporary name beside it, fsync,
 * rename, fsync of the folder, so that a crash leaves the old log or the new one. A lock on
 * NAME.lock keeps a second process out. One thread at a time owns a log. */
#ifndef FC_NET_LOG_H
#define FC_NET_LOG_H

#include "base/error.h"

#include <stddef.h>

#define FC_LOG_FORMAT 1
#define FC_LOG_HEAD 8         /* bytes before the first record */
#define FC_LOG_RECORD_HEAD 20 /* bytes of a record beside its payload */
#define FC_LOG_MAX_RECORD ((size_t)2 << 20)

struct fc_log;

/* Is given each record in turn, valid during the call; an error ends the reading. */
typedef enum fc_code fc_log_visit(void *context, const void *payload, size_t len,
                                  struct fc_error *err);

/* Opens or creates FOLDER/NAME (mode 0600; the folder exists), gives its records to `visit`, cuts
 * off a torn tail and sets *dropped to its length in bytes. FC_ERR_IO when it cannot be read or
 * written, or when another process has it; FC_ERR_INPUT for a file that is no log, or larger than
 * max_bytes, or what `visit` said: the file is untouched then. */
enum fc_code fc_log_open(struct fc_log **log, const char *folder, const char *name,
                         size_t max_bytes, fc_log_visit *visit, void *context, size_t *dropped,
                         struct fc_error *err);
/* What was not synced is lost. NULL is fine. */
void fc_log_close(struct fc_log *log);

/* Remembers a record for the next sync. FC_ERR_MEMORY, or FC_ERR_INTERNAL for a payload of a length
 * that cannot be. */
enum fc_code fc_log_append(struct fc_log *log, const void *payload, size_t len,
                           struct fc_error *err);
/* Makes what was appended durable. FC_ERR_IO (a full disk, say): nothing of it was kept, the file
 * is as it was after the last sync, and what was appended is forgotten. */
enum fc_code fc_log_sync(struct fc_log *log, struct fc_error *err);

/* Replaces all records by those that `write` appends (with fc_log_append, to the log it is given)
 * and syncs. After an error the old log is as it was, without what was not synced. */
enum fc_code fc_log_rewrite(struct fc_log *log,
                            enum fc_code (*write)(void *context, struct fc_log *log,
                                                  struct fc_error *err),
                            void *context, struct fc_error *err);

/* Of the file, with what waits for a sync. */
size_t fc_log_bytes(const struct fc_log *log);

#endif
