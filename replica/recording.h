/* SPDX-License-Identifier: Apache-2.0
 * replica/recording.h - a directory that holds all of one run, so that it can be replayed:
 *
 *   manifest         what the machine was (manifest.h)
 *   kernel, initrd   copies; or "state", a copy of the saved state the run began with
 *   log.mdb, log.end records and digests (log.h)
 *   overlay-N        what the run wrote to disk N; the base stays where it is and is never written
 *
 * Ownership: whoever creates it. Threading: one thread, that of the VM. */
#ifndef REPLICA_RECORDING_H
#define REPLICA_RECORDING_H

#include "replica/manifest.h"
#include "vmm/sched/vm.h"

struct recording; /* opaque */

struct recording_config {
    const char *dir;                       /* created; must not exist, or be empty */
    const char *kernel, *initrd, *cmdline; /* kernel: NULL when @state is given; initrd may be */
    const char *state;                     /* the run begins with this saved state */
    const char *disks[DISKS_MAX];          /* bases */
};

/* The directory and copies, before the VM exists (so that overlays can be put there). Errors:
 * PLX_EEXIST (something is there), those of the files. On error what was created stays for a look,
 * except that a created directory without contents is removed. */
int recording_create(const struct recording_config *cfg, struct recording **out,
                     struct plx_err *err);
/* Path of disk @disk's overlay in the directory, for hostio. Borrowed until recording_close. */
const char *recording_overlay(struct recording *rec, unsigned disk);
/* The VM is as it will be when its first record runs: writes manifest and log, and logs the digest
 * of the state it begins with. Must come before the first append. Errors: PLX_EINVAL (a machine
 * with other disks), those of manifest_write and log_create. */
int recording_begin(struct recording *rec, struct vm *vm, const struct vm_config *cfg,
                    struct plx_err *err);

/* Of what follows errors are those of replica/log.h's functions, and PLX_ENOMEM. */
int recording_append(struct recording *rec, const struct record *r, struct plx_err *err);
int recording_digest(struct recording *rec, const struct vm_digest *d,
                     const struct digest_page *pages, size_t npages, struct plx_err *err);
/* Take the digest of @vm, with the stretch of RAM that is due, and log it. Call it every
 * DIGEST_EVERY_SLICES slices and after the last. */
int recording_digest_now(struct recording *rec, struct vm *vm, struct plx_err *err);
/* Make durable what was logged more than LOG_COMMIT_NS ago; call before a wait. */
int recording_flush(struct recording *rec, struct plx_err *err);
uint64_t recording_log_bytes(const struct recording *rec);
/* Seals the log; frees in any case. NULL is a no-op. */
int recording_close(struct recording *rec, struct plx_err *err);

#endif
