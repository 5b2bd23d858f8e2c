/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/tap.h - Ethernet frames through a TAP interface of the host.
 *
 * Plain frames: IFF_TAP | IFF_NO_PI, no virtio header. The descriptor is non-blocking and belongs
 * to the caller (close it). Any thread, one at a time. */
#ifndef VMM_DEV_BACKEND_TAP_H
#define VMM_DEV_BACKEND_TAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Attach to the existing TAP @ifname. Errors: PLX_EINVAL (name), PLX_ENOENT (no such interface),
 * PLX_EBUSY (in use), PLX_EACCES; the message names the interface. */
int tap_open(const char *ifname, int *fd, struct plx_err *err);
/* Make a TAP that someone else opened ours: checks that it is one, sets it non-blocking. On error
 * the descriptor is closed. */
int tap_adopt(int fd, struct plx_err *err);
/* One frame; its length, or 0 when there is none now (or the interface is down). */
size_t tap_read(int fd, void *frame, size_t cap);
/* 0, or PLX_EAGAIN: the kernel did not take the frame now, drop it. */
int tap_write(int fd, const void *frame, size_t len);

#endif
