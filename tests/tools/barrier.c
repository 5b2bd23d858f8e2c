/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/barrier.c [THREADS] - what a parallel part costs beside its work: the time of
 * team_run over tasks that do nothing, one a thread, in nanoseconds; the median of several series.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "vmm/sched/team.h"

enum { SERIES = 25, RUNS = 20000 };

static void nothing(void *ctx, unsigned i)
{
    (void)ctx;
    (void)i;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    const struct team_config cfg = {.threads = argc > 1 ? (unsigned)atoi(argv[1]) : 2};
    struct plx_err err = {""};
    uint64_t took[SERIES];
    struct team *t;

    if (cfg.threads < 1 || cfg.threads > TEAM_THREADS_MAX || team_create(&cfg, &t, &err) != 0) {
        (void)fprintf(stderr, "barrier: no team of %u threads %s\n", cfg.threads, err.msg);
        return 1;
    }
    for (unsigned s = 0; s < SERIES; s++) {
        uint64_t from = clock_mono_ns();
        for (unsigned r = 0; r < RUNS; r++) {
            team_run(t, cfg.threads, nothing, NULL);
        }
        took[s] = (clock_mono_ns() - from) / RUNS;
    }
    team_destroy(t);
    qsort(took, SERIES, sizeof took[0], by_value);
    (void)printf("%" PRIu64 "\n", took[SERIES / 2]);
    return 0;
}
