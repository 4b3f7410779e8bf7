/* Files: whole reads, read-only maps, and writes that are seen whole or not at all. */
#ifndef FC_BASE_FILE_H
#define FC_BASE_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdio.h>

/* Reads a whole regular file; *data is NUL-terminated (the NUL is not counted in *len) and owned
 * by the caller. FC_ERR_INPUT if the file is larger than max_len, FC_ERR_IO if it cannot be
 * read. */
enum fc_code fc_file_read(const char *path, size_t max_len, char **data, size_t *len,
                          struct fc_error *err);

/* A read-only memory map of a whole file. An empty file maps to data == NULL, len 0. */
struct fc_map {
    const unsigned char *data;
    size_t len;
};
enum fc_code fc_map_open(struct fc_map *map, const char *path, struct fc_error *err);
void fc_map_close(struct fc_map *map);

/* Writes all bytes, however short or interrupted the single writes are. 0, or -1 with errno. */
int fc_write_all(int fd, const void *bytes, size_t len);
/* fsync, again when a signal interrupts it. 0, or -1 with errno. */
int fc_sync_file(int fd);

/* A file that appears under its name only when complete. Everything goes to "PATH.tmp.PID" beside
 * it; commit flushes, fsyncs, renames over PATH and fsyncs the folder. Abort (also the right call
 * after a failed commit) removes the temporary file. After either call the struct is empty.
 * Temporary files of PATH that killed processes left are removed by the next open; a process holds
 * a lock on its own while it lives. */
struct fc_atomic_file {
    FILE *stream; /* write here with stdio; errors are found by commit */
    char *path, *temporary;
};
enum fc_code fc_atomic_open(struct fc_atomic_file *f, const char *path, struct fc_error *err);
enum fc_code fc_atomic_commit(struct fc_atomic_file *f, struct fc_error *err);
void fc_atomic_abort(struct fc_atomic_file *f);

/* fc_atomic_open, one write, commit. */
enum fc_code fc_file_write(const char *path, const void *data, size_t len, struct fc_error *err);

/* Creates a folder and its missing parents (mode 0777 & ~umask), each of which survives a crash; an
 * existing one is fine. */
enum fc_code fc_make_folder(const char *path, struct fc_error *err);

/* Makes renames and new names in a folder survive a crash. */
enum fc_code fc_sync_folder(const char *path, struct fc_error *err);
/* The same of the folder that a file lies in. */
enum fc_code fc_sync_parent(const char *path, struct fc_error *err);

int fc_is_folder(const char *path);
int fc_is_file(const char *path);

/* "folder/name" in a new string owned by the caller. */
char *fc_path_join(const char *folder, const char *name, struct fc_error *err);

#endif
