/* SPDX-License-Identifier: Apache-2.0
 * proto/frame.h - protobuf messages on local sockets, in two forms.
 *
 * Stream (the daemon's API socket): each message behind its length, 4 bytes little-endian.
 * Packet (the control channel of a replica, SOCK_SEQPACKET): one packet is one message, and
 * descriptors travel with the packet they belong to.
 * One owner each; no locks. Peers are not trusted: every length is checked here. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    FRAME_HEADER = 4,
    FRAME_MAX = 1 << 20,
    PACKET_MAX = 65536,
    PACKET_FDS_MAX = 8,
    CONSOLE_TYPED_MAX = 1024 /* bytes typed into one session that no record is known to carry */
};

/* Append one frame to @out. */
void frame_put(struct wbuf *out, const void *data, size_t len);

struct frame_reader {
    struct wbuf buf; /* bytes received, not yet handed out */
    size_t used;     /* of them, handed out already */
};

void frame_reader_init(struct frame_reader *r);
void frame_reader_free(struct frame_reader *r);
/* Bytes as they came from the socket. Errors: PLX_ENOMEM. */
int frame_feed(struct frame_reader *r, const void *data, size_t len);
/* 1: the next message in *data and *len, valid until the next call on @r; 0: more bytes are needed;
 * PLX_ERANGE: a frame above FRAME_MAX, the connection is of no more use. */
int frame_next(struct frame_reader *r, const uint8_t **data, size_t *len);

/* Blocking use of a stream: write one frame; read one into @out (cleared first).
 * Errors: PLX_ECONN (closed or broken), PLX_ERANGE, PLX_ENOMEM. */
int frame_write_fd(int fd, const void *data, size_t len, struct plx_err *err);
int frame_read_fd(int fd, struct wbuf *out, struct plx_err *err);

/* One packet with @nfds descriptors (they stay open here). 0 or -1 with errno; EAGAIN when the
 * socket does not block and is full. Never raises SIGPIPE. */
int packet_send(int fd, const void *data, size_t len, const int *fds, unsigned nfds);
/* One packet: its length; 0 when the peer is gone; -1 with errno (EMSGSIZE: longer than @cap,
 * thrown away). Received descriptors are close-on-exec and the caller's: up to PACKET_FDS_MAX in
 * @fds. */
ssize_t packet_recv(int fd, void *buf, size_t cap, int fds[PACKET_FDS_MAX], unsigned *nfds);

#endif
