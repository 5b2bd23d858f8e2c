/* SPDX-License-Identifier: Apache-2.0
 * replica/replay.h - run a recording again and compare every digest it holds (R9).
 *
 * The directory is judged whole before anything runs: manifest, copies, bases of disks, log. Disks
 * get a fresh overlay each, removed afterwards. Console and network outputs go nowhere, unless the
 * caller takes them. Threading: the calling thread. */
#ifndef REPLICA_REPLAY_H
#define REPLICA_REPLAY_H

#include "vmm/sched/vm.h"

struct replay_config {
    const char *dir;
    const struct engine_ops *engine;
    unsigned cache_entries, threads; /* as vm_config */
    struct shadow_config shadow;     /* as vm_config; batch 0: the default */
    bool lazy_ad_named;              /* shadow.lazy_ad was asked for; else it is as recorded */
    uint64_t chaos;
    uint64_t until;         /* stop after this slice; 0: all */
    const char *digest_log; /* one line a digest: slice, digest in hex; NULL: none */
    const char *cpu_model;  /* refuse a recording of another one; NULL: any */
    uint64_t
        digest_every; /* also digest every so many slices for digest_log; 0: logged ones only */
    /* Sees the VM after every slice with the slice's outputs; not 0 ends the replay with that
     * number. May be NULL. */
    int (*slice)(void *ctx, struct vm *vm, const struct output_list *out, struct plx_err *err);
    void *ctx;
};

struct replay_result {
    uint64_t slices, compared, differ;
    uint64_t first_differing; /* slice of the first digest that differs; 0 if none */
    char what[512];           /* its sections and pages */
    bool sealed;              /* false: the recording was interrupted */
    bool stopped;             /* the VM stopped by itself */
    enum power_event event;
    uint64_t code;
};

/* 0 also when digests differ: judge by @out with replay_verdict. Errors: those of the recording's
 * files, each named; PLX_ECORRUPT: a record does not fit the state it meets. */
int replay_run(const struct replay_config *cfg, struct replay_result *out, struct plx_err *err);
/* 0; PLX_EDIVERGED: some digest differs; PLX_ESTATE: none was compared. Fills @err. */
int replay_verdict(const struct replay_result *r, struct plx_err *err);

/* --- slice by slice; errors as replay_run's ----------------------------------------------------
 */

struct replay; /* opaque */

/* Judges the directory and makes the VM as it was when the recording began. @cfg outlives it. */
int replay_open(const struct replay_config *cfg, struct replay **out, struct plx_err *err);
void replay_close(struct replay *r); /* NULL is a no-op */
/* The record that replay_step will run, in its binary form, borrowed until then. Positive, or 0:
 * there is none. */
int replay_peek(struct replay *r, const void **record, size_t *len, struct plx_err *err);
/* Run one slice. Positive, or 0: none was left, nothing ran. */
int replay_step(struct replay *r, struct plx_err *err);
struct vm *replay_vm(struct replay *r);
/* What has been compared with the recording until now. */
const struct replay_result *replay_result(const struct replay *r);

#endif
