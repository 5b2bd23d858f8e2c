/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/zero_disk.h - what every disk of a VM answers: zeros. */
#ifndef TESTS_UNIT_ZERO_DISK_H
#define TESTS_UNIT_ZERO_DISK_H

#include <string.h>

#include "vmm/sched/vm.h"

static inline int zero_disk(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len,
                            uint8_t *status, struct plx_err *err)
{
    (void)ctx;
    (void)disk;
    (void)id;
    (void)err;
    memset(data, 0, len);
    *status = DISK_OK;
    return 0;
}

#endif
