/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_image.h - what the verbs of `pollux image` share. */
#ifndef OPS_CMD_IMAGE_H
#define OPS_CMD_IMAGE_H

#include "ops/opt.h"
#include "storage/image.h"

enum { IMAGE_SERVERS = 8, IMAGE_CLIENT_KEYS = 256 };

/* The options of all verbs; each verb's table says which it takes. */
struct image_args {
    const char *verb;
    const char *store, *cache, *key;
    bool json, quiet, repair, dry;
    const char *name, *tag, *os, *app;
    const char *kernel, *initrd, *cmdline;
    const char *chunks, *format, *listen, *clients;
    uint64_t avg_kib, threads, cache_mib, rate;
    unsigned nservers;
    const char *servers[IMAGE_SERVERS];
    /* run */
    const char *overlay, *profile_until;
    const char *progress;
    bool no_profile, no_background;
    char **run_args; /* of run: what `pollux run` takes */
    int nrun_args;
    char **args; /* what stands after the options */
    int nargs;
};

const char *image_store_path(const struct image_args *a);
const char *image_scratch(void); /* a folder for files that go: $TMPDIR or /tmp */

/* Progress of a long operation, one line on stderr when that is a terminal. */
struct image_meter {
    const char *what;
    bool shown, quiet;
    uint64_t started_ns, last_ns;
};
void image_meter_start(struct image_meter *m, const char *what, bool quiet);
int image_meter_tick(void *ctx, const struct image_progress *p); /* an image_progress_fn */
void image_meter_end(struct image_meter *m);
double image_meter_seconds(const struct image_meter *m);
extern volatile int image_interrupted; /* set by SIGINT and SIGTERM */
void image_catch_signals(void);

/* "1.5 GiB" */
const char *image_size_text(uint64_t bytes, char out[32]);
/* Like opt tables, `pollux image run` takes those of `pollux run` as well. */
/* A source of a push. @format raw, vhdx (and its chain) or qcow2; NULL: by the name, never by
 * contents, which a guest writes. */
int image_open_disk(const char *path, const char *format, const char *scratch, struct disk **out,
                    struct plx_err *err);
/* Nanoseconds since 1970 as "2026-01-31 12:00". */
const char *image_time_text(uint64_t ns, char out[32]);

/* The verbs; errors are told by the caller. Return 0, a positive exit code or an error. */
int image_serve(struct image_args *a, struct plx_err *err);
int image_pull(struct image_args *a, struct plx_err *err);
int image_run(struct image_args *a, struct plx_err *err);
int image_list_remote(struct image_args *a, struct plx_err *err);
/* Prints a list of images, or one whole (manifest may be NULL). */
int image_print_list(struct image_args *a, const struct image_ref *refs, size_t n);
void image_print_one(const struct image_args *a, const struct image_ref *ref,
                     const struct manifest *m, size_t profile);

#endif
