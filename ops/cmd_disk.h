/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_disk.h - what the files of `pollux disk` share: the options of its verbs, sizes as
 * users write them, progress. One thread. */
#ifndef OPS_CMD_DISK_H
#define OPS_CMD_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "ops/opt.h"
#include "storage/chain.h"

struct disk_args {
    const char *parent, *format, *output_format, *type, *socket, *name, *store;
    uint64_t bytes, block, sector;
    bool force, repair, shrink, json, readonly, once, threads;
    char **argv; /* what stands after the options */
    int argc;
};

/* The verbs; argv and argc were judged against the table in cmd_disk.c. */
int disk_verb_create(struct disk_args *a, struct plx_err *err);
int disk_verb_info(struct disk_args *a, struct plx_err *err);
int disk_verb_check(struct disk_args *a, struct plx_err *err);
int disk_verb_chain(struct disk_args *a, struct plx_err *err);
int disk_verb_map(struct disk_args *a, struct plx_err *err);
int disk_verb_commit(struct disk_args *a, struct plx_err *err);
int disk_verb_rebase(struct disk_args *a, struct plx_err *err);
int disk_verb_relink(struct disk_args *a, struct plx_err *err);
int disk_verb_resize(struct disk_args *a, struct plx_err *err);
int disk_verb_convert(struct disk_args *a, struct plx_err *err);
int disk_verb_serve(struct disk_args *a, struct plx_err *err);

/* "512", "64M", "1.5T": bytes, or binary multiples. Errors: PLX_EINVAL, naming @what. */
int disk_size(const char *text, const char *what, uint64_t *out, struct plx_err *err);
/* "1.5 GiB" */
const char *disk_size_text(uint64_t bytes, char out[32]);

/* A line on standard error that is written over, twice a second, if that is a terminal; ends a work
 * when the user says so. disk_progress_end clears the line. */
struct disk_meter {
    struct disk_progress p; /* first: what the work is given */
    const char *what;
    uint64_t begun_ns, told_ns;
    bool terminal;
};
struct disk_progress *disk_meter_begin(struct disk_meter *m, const char *what);
void disk_meter_end(struct disk_meter *m);

#endif
