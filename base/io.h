/* SPDX-License-Identifier: Apache-2.0
 * base/io.h - whole reads and writes over short and interrupted ones. Any thread. */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

ssize_t io_read_some(int fd, void *buf, size_t len); /* read(2) without EINTR */
/* Bytes read before the end of the file or -1 with errno. */
ssize_t io_read_full(int fd, void *buf, size_t len);
int io_write_full(int fd, const void *buf, size_t len); /* 0 or -1 with errno */
ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t off);
int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t off);

/* The whole of a file, at most @max bytes (PLX_ERANGE beyond). @out is initialised here. */
int io_read_file(const char *path, size_t max, struct wbuf *out, struct plx_err *err);
/* Replace a file durably: temporary beside it, fsync, rename, fsync of the directory. */
int io_write_file(const char *path, const void *data, size_t len, struct plx_err *err);
/* Make what was created in, or renamed into, a folder durable; _of: the folder that holds @path.
 * 0 or -1 with errno. */
int io_sync_folder(const char *folder);
int io_sync_folder_of(const char *path);
/* A folder and those above it. 0, also when it is there, or -1 with errno. */
int io_make_folders(const char *path);
int io_set_nonblock(int fd); /* 0 or -1 with errno */

#endif
