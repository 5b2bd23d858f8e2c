/* SPDX-License-Identifier: Apache-2.0
 * ops/api_client.h - talking to the daemon of this node (proto/api.proto). Blocking; one thread. */
#ifndef OPS_API_CLIENT_H
#define OPS_API_CLIENT_H

#include "base/err.h"
#include "proto/api.pb-c.h"

/* A connection to the socket at @path, else at $POLLUX_SOCKET, else at the preset path; or a
 * negative error. */
int api_connect(const char *path, struct plx_err *err);
int api_send(int fd, Api__Request *req, struct plx_err *err); /* fills in the version */
/* The next reply (free with api__reply__free_unpacked). One that is a refusal is an error too:
 * its code is returned, its text is in @err, *reply is NULL. */
int api_receive(int fd, Api__Reply **reply, struct plx_err *err);

#endif
