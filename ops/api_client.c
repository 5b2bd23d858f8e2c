/* SPDX-License-Identifier: Apache-2.0
 * ops/api_client.c - see api_client.h. */
#include "ops/api_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "ops/polluxd/conf.h"
#include "proto/frame.h"

enum { API_VERSION = 1 };

int api_connect(const char *path, struct plx_err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd;

    if (path == NULL) {
        path = getenv("POLLUX_SOCKET");
    }
    if (path == NULL) {
        path = CONF_DEFAULT_SOCKET;
    }
    if (strlen(path) >= sizeof a.sun_path) {
        return plx_fail(err, PLX_EINVAL, "the path of the socket is too long: %s", path);
    }
    (void)strcpy(a.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        int rc =
            plx_fail_errno(err, "cannot reach polluxd at %s (%s)", path,
                           errno == EACCES ? "only its user and root may; --socket names another"
                                           : "is it running? --socket names another");
        if (fd >= 0) {
            (void)close(fd);
        }
        return rc;
    }
    return fd;
}

int api_send(int fd, Api__Request *req, struct plx_err *err)
{
    req->version = API_VERSION;
    size_t len = api__request__get_packed_size(req);
    if (len > FRAME_MAX) {
        return plx_fail(err, PLX_ERANGE, "the request is too long (%zu bytes)", len);
    }
    uint8_t *buf = plx_calloc(1, len + 1);
    if (buf == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    (void)api__request__pack(req, buf);
    int rc = frame_write_fd(fd, buf, len, err);
    plx_free(buf);
    return rc;
}

int api_receive(int fd, Api__Reply **reply, struct plx_err *err)
{
    struct wbuf w;

    *reply = NULL;
    wbuf_init(&w);
    int rc = frame_read_fd(fd, &w, err);
    if (rc == 0) {
        *reply = api__reply__unpack(NULL, w.len, w.data);
        if (*reply == NULL) {
            rc = plx_fail(err, PLX_ECORRUPT, "polluxd sent a malformed reply");
        } else if ((*reply)->code != 0) {
            rc = (*reply)->code < 0 ? (*reply)->code : PLX_EIO;
            (void)plx_fail(err, rc, "%s", (*reply)->error);
            api__reply__free_unpacked(*reply, NULL);
            *reply = NULL;
        }
    }
    wbuf_free(&w);
    return rc;
}
