/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/disk_base.h - a disk's base that is no file of this host, or not all here yet:
 * how vmm sees what storage/ has. */
#ifndef VMM_DEV_BACKEND_DISK_BASE_H
#define VMM_DEV_BACKEND_DISK_BASE_H

#include <stdint.h>

#include "base/err.h"

/* Never written: an overlay goes with it. Any number of threads read it at once. */
struct disk_base {
    uint64_t bytes;
    /* Waits as long as it takes. 0, or an error with a message. */
    int (*read)(void *ctx, void *buf, uint64_t len, uint64_t off, struct plx_err *err);
    void *ctx;
};

#endif
