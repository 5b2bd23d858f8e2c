/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_run.h - `pollux run` with a first disk, and perhaps a kernel, that are not files. */
#ifndef OPS_CMD_RUN_H
#define OPS_CMD_RUN_H

#include <stdbool.h>
#include <stddef.h>

#include "ops/cmd.h"
#include "ops/opt.h"
#include "vmm/dev/backend/disk_base.h"

/* All borrowed until cmd_run_image returns. */
struct run_image {
    const char *name;
    const struct disk_base *base;
    const char *overlay;
    bool create_overlay;
    const void *kernel, *initrd;   /* options go before */
    size_t kernel_len, initrd_len; /* 0: none */
    const char *cmdline;
    const char *until; /* end the run when a console has printed this; NULL: no */
    /* The run is over: reads of the base that wait must end now. */
    void (*stopping)(void *ctx);
    void *ctx;
};

/* The options of `pollux run`; they end with a NULL name. */
const struct opt *cmd_run_options(void);

#endif
