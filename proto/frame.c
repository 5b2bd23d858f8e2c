/* SPDX-License-Identifier: Apache-2.0
 * proto/frame.c - see frame.h. */
#include "proto/frame.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"

void frame_put(struct wbuf *out, const void *data, size_t len)
{
    PLX_CHECK(len <= FRAME_MAX);
    wbuf_u32(out, (uint32_t)len);
    wbuf_put(out, data, len);
}

void frame_reader_init(struct frame_reader *r)
{
    *r = (struct frame_reader){0};
}

void frame_reader_free(struct frame_reader *r)
{
    wbuf_free(&r->buf);
    r->used = 0;
}

int frame_feed(struct frame_reader *r, const void *data, size_t len)
{
    if (r->used > 0) {
        memmove(r->buf.data, r->buf.data + r->used, r->buf.len - r->used);
        r->buf.len -= r->used;
        r->used = 0;
    }
    wbuf_put(&r->buf, data, len);
    return r->buf.failed ? PLX_ENOMEM : 0;
}

int frame_next(struct frame_reader *r, const uint8_t **data, size_t *len)
{
    struct rbuf b;

    rbuf_init(&b, r->buf.data, r->buf.len);
    (void)rbuf_take(&b, r->used);
    if (rbuf_left(&b) < FRAME_HEADER) {
        return 0;
    }
    uint32_t n = rbuf_u32(&b);
    if (n > FRAME_MAX) {
        return PLX_ERANGE;
    }
    if (rbuf_left(&b) < n) {
        return 0;
    }
    *data = b.p;
    *len = n;
    r->used += FRAME_HEADER + n;
    return 1;
}

int frame_write_fd(int fd, const void *data, size_t len, struct plx_err *err)
{
    struct wbuf w;
    int rc = 0;

    wbuf_init(&w);
    frame_put(&w, data, len);
    if (w.failed) {
        rc = plx_fail(err, PLX_ENOMEM, "cannot send a message: out of memory");
    } else {
        for (size_t done = 0; done < w.len && rc == 0;) {
            ssize_t n = send(fd, w.data + done, w.len - done, MSG_NOSIGNAL);
            if (n < 0 && errno != EINTR) {
                rc = plx_fail(err, PLX_ECONN, "cannot send a message: %s", strerror(errno));
            }
            done += n > 0 ? (size_t)n : 0;
        }
    }
    wbuf_free(&w);
    return rc;
}

int frame_read_fd(int fd, struct wbuf *out, struct plx_err *err)
{
    uint32_t n;

    wbuf_clear(out);
    if (io_read_full(fd, &n, sizeof n) != (ssize_t)sizeof n) {
        return plx_fail(err, PLX_ECONN, "the connection was closed");
    }
    if (n > FRAME_MAX) {
        return plx_fail(err, PLX_ERANGE, "received a message of %u bytes, more than %d", n,
                        FRAME_MAX);
    }
    uint8_t *at = wbuf_grow(out, n);
    if (at == NULL && n != 0) {
        return plx_fail(err, PLX_ENOMEM, "cannot receive a message: out of memory");
    }
    if (io_read_full(fd, at, n) != (ssize_t)n) {
        return plx_fail(err, PLX_ECONN, "the connection was closed inside a message");
    }
    return 0;
}

union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(PACKET_FDS_MAX * sizeof(int))];
};

int packet_send(int fd, const void *data, size_t len, const int *fds, unsigned nfds)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    union fd_control control;
    ssize_t n;

    PLX_CHECK(len <= PACKET_MAX && nfds <= PACKET_FDS_MAX);
    if (nfds > 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    do {
        n = sendmsg(fd, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : 0;
}

ssize_t packet_recv(int fd, void *buf, size_t cap, int fds[PACKET_FDS_MAX], unsigned *nfds)
{
    struct iovec iov = {.iov_base = buf, .iov_len = cap};
    union fd_control control;
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n;

    *nfds = 0;
    do {
        n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -1;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            *nfds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(c), *nfds * sizeof(int));
        }
    }
    if ((m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        while (*nfds > 0) {
            (void)close(fds[--*nfds]);
        }
        errno = EMSGSIZE;
        return -1;
    }
    return n;
}
