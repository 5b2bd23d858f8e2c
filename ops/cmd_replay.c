/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_replay.c - `pollux replay`: run a recording again and compare every digest in it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/chaos.h"
#include "ops/cmd.h"
#include "ops/opt.h"
#include "ops/shadow_opt.h"
#include "replica/against.h"
#include "replica/replay.h"
#include "vmm/sched/team.h"
#include "vmm/tunables.h"

struct request {
    struct replay_config cfg;
    const char *against; /* NULL: none */
    const char *under;   /* likewise */
};

static int set_until(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the slice", 1, UINT64_MAX, &((struct request *)ctx)->cfg.until, err);
}

static int set_digest_log(void *ctx, char *const *v, struct plx_err *err)
{
    (void)err;
    ((struct request *)ctx)->cfg.digest_log = v[0];
    return 0;
}

static int set_digest(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the number of slices", 1, UINT32_MAX,
                   &((struct request *)ctx)->cfg.digest_every, err);
}

static int set_chaos(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the seed", 1, UINT64_MAX, &((struct request *)ctx)->cfg.chaos, err);
}

static int set_threads(void *ctx, char *const *v, struct plx_err *err)
{
    uint64_t n;
    int rc = opt_u64(v[0], "the number of threads", 1, TEAM_THREADS_MAX, &n, err);

    ((struct request *)ctx)->cfg.threads = rc == 0 ? (unsigned)n : 0;
    return rc;
}

static int set_against(void *ctx, char *const *v, struct plx_err *err)
{
    (void)err;
    ((struct request *)ctx)->against = v[0];
    return 0;
}

static int set_under(void *ctx, char *const *v, struct plx_err *err)
{
    (void)err;
    ((struct request *)ctx)->under = v[0];
    return 0;
}

static int set_cpu(void *ctx, char *const *v, struct plx_err *err)
{
    (void)err;
    ((struct request *)ctx)->cfg.cpu_model = v[0];
    return 0;
}

static int set_shadow(void *ctx, char *const *v, struct plx_err *err)
{
    struct replay_config *cfg = &((struct request *)ctx)->cfg;

    cfg->lazy_ad_named = cfg->lazy_ad_named || shadow_opt_names_lazy_ad(v[0]);
    return shadow_opt(v[0], &cfg->shadow, err);
}

static const struct opt options[] = {
    {"until", "SLICE", "stop after this slice", set_until},
    {"digest-log", "FILE", "write one line a digest: slice, digest", set_digest_log},
    {"digest", "N", "digest also every N slices, for --digest-log", set_digest},
    {"cpu", "MODEL", "refuse a recording of another CPU model", set_cpu},
    {"chaos", "SEED", "drop everything that must not matter, at random", set_chaos},
    {"threads", "M", "threads that run vCPUs (as recorded or not: nothing depends on it)",
     set_threads},
    {"against", "WHAT",
     "find where it parts from a second recording, or from itself under conditions", set_against},
    {"under", "CONDITIONS", "what must not matter, as for --against: threads=M,cache=N,...",
     set_under},
    {"shadow", SHADOW_OPT_VALUES,
     "how translations are kept; with several vCPUs lazy-ad as recorded", set_shadow},
    {0},
};

static const struct opt_command command = {
    .name = "pollux replay",
    .arguments = "DIR",
    .summary =
        "Run the recording in DIR again and compare the digests it holds. With --against, run it\n"
        "beside another recording, or beside itself under other conditions\n"
        "(engine=NAME,threads=M,cache=N,chaos=SEED), and show the first slice and instruction\n"
        "that differ, with both states. Exit codes: 0 all equal, 4 divergence, 1 none compared, or\n"
        "the recording is damaged.",
    .options = options,
    .min_args = 1,
    .max_args = 1,
};

/* "engine=interp,threads=2,cache=16,chaos=7": what must not matter, over what @cfg has. */
static int parse_conditions(const char *option, const char *text, struct replay_config *cfg,
                            struct plx_err *err)
{
    char copy[256], *rest = copy, *item;

    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy) {
        return plx_fail(err, PLX_EINVAL, "%s %s: too long", option, text);
    }
    while ((item = strsep(&rest, ",")) != NULL) {
        char *value = strchr(item, '=');
        uint64_t n = 0;
        int rc = 0;
        if (value == NULL) {
            return plx_fail(err, PLX_EINVAL, "%s %s: none of engine=, threads=, cache=, chaos=%s",
                            option, text,
                            strcmp(option, "--against") == 0 ? ", and no recording" : "");
        }
        *value++ = '\0';
        if (strcmp(item, "engine") == 0) {
            cfg->engine = engine_find(value);
            rc = cfg->engine != NULL
                     ? 0
                     : plx_fail(err, PLX_EINVAL, "%s: no engine '%s'", option, value);
        } else if (strcmp(item, "threads") == 0) {
            rc = opt_u64(value, "the number of threads", 1, TEAM_THREADS_MAX, &n, err);
            cfg->threads = (unsigned)n;
        } else if (strcmp(item, "cache") == 0) {
            rc = opt_u64(value, "the entries of caches", 1, 1 << 20, &n, err);
            cfg->cache_entries = (unsigned)n;
        } else if (strcmp(item, "chaos") == 0) {
            rc = opt_u64(value, "the seed", 1, UINT64_MAX, &cfg->chaos, err);
        } else {
            rc = plx_fail(err, PLX_EINVAL, "%s: no condition '%s'", option, item);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int run_against(const struct request *q, struct plx_err *err)
{
    struct against_config cfg = {.side = {q->cfg, q->cfg},
                                 .name = {q->cfg.dir, q->against},
                                 .every = q->cfg.digest_every != 0 ? (unsigned)q->cfg.digest_every
                                                                   : DIGEST_EVERY_SLICES,
                                 .report = stdout};
    struct against_result res;
    struct stat st;
    int rc = 0;

    if (stat(q->against, &st) == 0 && S_ISDIR(st.st_mode)) {
        cfg.side[1].dir = q->against;
    } else {
        rc = parse_conditions("--against", q->against, &cfg.side[1], err);
    }
    if (rc == 0) {
        rc = against_run(&cfg, &res, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (res.differ) {
        return plx_fail(err, PLX_EDIVERGED, "%s and %s part in slice %" PRIu64, cfg.name[0],
                        cfg.name[1], res.slice);
    }
    if (res.recorded != 0) {
        return plx_fail(err, PLX_EDIVERGED,
                        "both replays are equal, but not what was recorded, from slice %" PRIu64
                        " on",
                        res.recorded);
    }
    printf("%" PRIu64 " slices, %" PRIu64 " digests compared, 0 differ\n", res.slices,
           res.compared);
    return 0;
}

static int run_alone(const struct request *q, struct plx_err *err)
{
    struct replay_result result = {0};
    int rc;

    chaos_start(q->cfg.chaos);
    rc = replay_run(&q->cfg, &result, err);
    if (chaos_on) {
        char line[CHAOS_SUMMARY];

        (void)fprintf(stderr, "chaos: %s\n", chaos_summary(line));
    }
    if (rc != 0) {
        return rc;
    }
    printf("%" PRIu64 " slices, %" PRIu64 " digests compared, %" PRIu64 " differ\n", result.slices,
           result.compared, result.differ);
    if (!result.sealed) {
        printf("the recording was interrupted; it was replayed as far as it goes\n");
    }
    return replay_verdict(&result, err);
}

int cmd_replay(int argc, char **argv)
{
    struct request q = {.cfg = {.engine = &engine_interp, .shadow = SHADOW_DEFAULT}};
    struct plx_err err = {{0}};
    int first, rc;

    rc = opt_parse(&command, &q, argc, argv, &first, &err);
    if (rc == OPT_HELP) {
        return EXIT_OK;
    }
    if (rc == 0) {
        q.cfg.dir = argv[first];
        rc = q.under != NULL ? parse_conditions("--under", q.under, &q.cfg, &err) : 0;
    }
    if (rc == 0) {
        rc = q.against != NULL ? run_against(&q, &err) : run_alone(&q, &err);
    }
    if (rc != 0) {
        (void)fprintf(stderr, "pollux: %s\n", err.msg[0] != 0 ? err.msg : plx_strerror(rc));
    }
    return rc == 0 ? EXIT_OK : rc == PLX_EDIVERGED ? EXIT_DIVERGED : EXIT_ERROR;
}
