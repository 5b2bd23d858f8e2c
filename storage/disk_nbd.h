/* SPDX-License-Identifier: Apache-2.0
 * storage/disk_nbd.h - a disk served by NBD (the protocol document of the NBD project: fixed
 * newstyle, structured replies, base:allocation) on a listening socket.
 *
 * Clients are hostile: everything is checked, what a client may have under way is bounded, and one
 * that breaks the protocol loses its connection and nothing else. There is no authentication: the
 * permissions of the socket are the access.
 *
 * Threading: nbd_serve is one thread that accepts, and one for each client with a queue of its
 * own. A flush of any client covers what all were told is done, so several connections may share
 * the work (NBD_FLAG_CAN_MULTI_CONN). */
#ifndef STORAGE_DISK_NBD_H
#define STORAGE_DISK_NBD_H

#include "storage/disk.h"

enum { NBD_CLIENTS_MAX = 32 };

struct nbd_config {
    struct disk *disk; /* borrowed */
    const char *name;  /* of the export; a client that names none gets it too */
    bool readonly;     /* though the disk is writable */
    bool once;         /* end when the last client has gone, after at least one came */
    int listen_fd;     /* borrowed */
    int stop_fd;       /* readable, or its other end closed: end. Borrowed; -1: none */
    enum io_queue_kind queue;
};

/* Serve until told to end. What clients were told is written is flushed when it returns.
 * Errors: of the listening socket, of the last flush. */
int nbd_serve(const struct nbd_config *cfg, struct plx_err *err);

/* One client on the connected socket @fd (borrowed), until it leaves or has to go, here on this
 * thread. Of @cfg the disk, name, readonly and queue count. */
void nbd_serve_client(int fd, const struct nbd_config *cfg);

/* A listening unix socket; a stale one (nobody listens) is replaced. Errors: PLX_EBUSY, PLX_EINVAL
 * (too long a path), those of bind(2). */
int nbd_listen(const char *path, int *fd, struct plx_err *err);

#endif
