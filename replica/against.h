/* SPDX-License-Identifier: Apache-2.0
 * replica/against.h - two replays side by side, to find where they part: the first slice whose
 * digests differ, then, by running that slice again with every instruction noted, the first
 * instruction, its vCPU and address.
 *
 * Either one recording under two sets of things that must not matter (engine, threads, caches), or
 * two recordings. Threading: the calling thread, and those of the two VMs. */
#ifndef REPLICA_AGAINST_H
#define REPLICA_AGAINST_H

#include <stdio.h>

#include "replica/replay.h"

struct against_config {
    struct replay_config side[2]; /* dir, engine and all; digest_log unused */
    const char *name[2];          /* how the report calls them */
    unsigned every;               /* compare digests every so many slices at first; > 0 */
    FILE *report;
};

struct against_result {
    uint64_t slices;   /* run on both sides, and equal */
    uint64_t compared; /* digests */
    uint64_t recorded; /* the first slice after which a side, or both, is not what was recorded,
                          though both are equal; 0: none */
    bool differ;
    uint64_t slice;   /* the first whose state differs, or (no state does) its record; 0: the states
                         they begin with do */
    bool instruction; /* the first instruction that differs was found: */
    unsigned vcpu;
    uint64_t rip; /* its linear address */
};

/* Returns 0 also when they differ. The report gets what was found, in words. Errors: those of
 * replay_open and replay_step; PLX_EINVAL: the recordings are of different machines. Recordings of
 * different inputs differ: the report says in which record and how, then where states do. */
int against_run(const struct against_config *cfg, struct against_result *out, struct plx_err *err);

#endif
