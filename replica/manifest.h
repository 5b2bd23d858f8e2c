/* SPDX-License-Identifier: Apache-2.0
 * replica/manifest.h - the manifest of a recording: a file "manifest" in its directory.
 *
 *   offset  bytes  field
 *   0       8      "PLXMANIF"
 *   8       4      form, 1
 *   12      4      L
 *   16      L      rec.Manifest, proto/manifest.proto
 *   16+L    32     SHA-256 of all bytes before
 *
 * Ownership: plain data; strings are inside. Threading: any. */
#ifndef REPLICA_MANIFEST_H
#define REPLICA_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "vmm/sched/vm.h"

enum { MANIFEST_PATH_MAX = 1024, MANIFEST_CMDLINE_MAX = 4096 };

struct manifest_file {
    char name[MANIFEST_PATH_MAX]; /* empty: none */
    uint64_t size;
    uint8_t sha256[SHA256_LEN];
};

struct manifest {
    char engine[32];
    struct machine_config machine;
    bool eager_ad; /* several vCPUs: accessed and dirty flags are not owed (lazy-ad=off) */
    struct manifest_file disks[DISKS_MAX]; /* the bases */
    char cmdline[MANIFEST_CMDLINE_MAX];
    struct manifest_file kernel, initrd, state;
    unsigned nsections;
    struct {
        char name[32];
        uint32_t version;
    } sections[DIGEST_SECTIONS_MAX];
};

/* *origin: where a log's chain begins, a hash of the manifest's bytes. Errors: PLX_ENOMEM,
 * those of the file. */
int manifest_write(const char *dir, const struct manifest *m, uint64_t *origin,
                   struct plx_err *err);
/* Checks form, hash, ranges, and that this program keeps the same rules. Errors: PLX_ENOENT,
 * PLX_ETRUNCATED, PLX_ECORRUPT, PLX_EVERSION (other rules). */
int manifest_read(const char *dir, struct manifest *m, uint64_t *origin, struct plx_err *err);

/* Size and SHA-256 of @path into @f, whose name is left alone. Errors: the file's. */
int manifest_hash_file(const char *path, struct manifest_file *f, struct plx_err *err);
/* Is @path what @f says? PLX_ENOENT, PLX_ETRUNCATED, PLX_ECORRUPT, naming it. */
int manifest_check_file(const char *path, const struct manifest_file *f, struct plx_err *err);

#endif
