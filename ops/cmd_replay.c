/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_replay.c - `pollux replay`: run a recording again and compare every digest in it. */
#include <inttypes.h>
#include <stdio.h>

#include "ops/cmd.h"
#include "ops/opt.h"
#include "replica/replay.h"
#include "vmm/sched/team.h"

static int set_until(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the slice", 1, UINT64_MAX, &((struct replay_config *)ctx)->until, err);
}

static int set_digest_log(void *ctx, char *const *v, struct plx_err *err)
{
    (void)err;
    ((struct replay_config *)ctx)->digest_log = v[0];
    return 0;
}

static int set_digest(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the number of slices", 1, UINT32_MAX,
                   &((struct replay_config *)ctx)->digest_every, err);
}

static int set_chaos(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the seed", 1, UINT64_MAX, &((struct replay_config *)ctx)->chaos, err);
}

static int set_threads(void *ctx, char *const *v, struct plx_err *err)
{
    uint64_t n;
    int rc = opt_u64(v[0], "the number of threads", 1, TEAM_THREADS_MAX, &n, err);

    ((struct replay_config *)ctx)->threads = rc == 0 ? (unsigned)n : 0;
    return rc;
}

static const struct opt options[] = {
    {"until", "SLICE", "stop after this slice", set_until},
    {"digest-log", "FILE", "write one line a digest: slice, digest", set_digest_log},
    {"digest", "N", "digest also every N slices, for --digest-log", set_digest},
    {"chaos", "SEED", "drop everything that must not matter, at random", set_chaos},
    {"threads", "M", "threads that run vCPUs (as recorded or not: nothing depends on it)",
     set_threads},
    {0},
};

static const struct opt_command command = {
    .name = "pollux replay",
    .arguments = "DIR",
    .summary =
        "Run the recording in DIR again and compare the digests it holds. Exit codes: 0 all\n"
        "equal, 4 divergence, 1 none compared, or the recording is damaged.",
    .options = options,
    .min_args = 1,
    .max_args = 1,
};

int cmd_replay(int argc, char **argv)
{
    struct replay_config cfg = {.engine = &engine_interp};
    struct replay_result result = {0};
    struct plx_err err = {{0}};
    int first, rc;

    rc = opt_parse(&command, &cfg, argc, argv, &first, &err);
    if (rc == OPT_HELP) {
        return EXIT_OK;
    }
    if (rc == 0) {
        cfg.dir = argv[first];
        rc = replay_run(&cfg, &result, &err);
        if (rc == 0) {
            printf("%" PRIu64 " slices, %" PRIu64 " digests compared, %" PRIu64 " differ\n",
                   result.slices, result.compared, result.differ);
            if (!result.sealed) {
                printf("the recording was interrupted; it was replayed as far as it goes\n");
            }
            rc = replay_verdict(&result, &err);
        }
    }
    if (rc != 0) {
        (void)fprintf(stderr, "pollux: %s\n", err.msg[0] != 0 ? err.msg : plx_strerror(rc));
    }
    return rc == 0 ? EXIT_OK : rc == PLX_EDIVERGED ? EXIT_DIVERGED : EXIT_ERROR;
}
