/* SPDX-License-Identifier: Apache-2.0
 * replica/log.h - the event log of one run on disk: records and digests in one LMDB file.
 *
 * Two tables, both keyed by the slice number, big-endian:
 *
 *   "records"   the record as record_encode wrote it, then 4 bytes: the low ones of the chain,
 *               which for record n is the low half of H over (the chain of record n - 1, n, the
 *               record). It begins with a hash of the manifest, so no record can be altered,
 *               exchanged, removed or moved to another recording without the chain breaking there.
 *   "digests"   a digest, of sections and of the pages hashed for it (log.c).
 *
 * Records are committed in groups: at most LOG_COMMIT_RECORDS records or LOG_COMMIT_NS are lost
 * when the process dies. log_close writes "log.end" beside the file: the last record's number and
 * chain and the SHA-256 of the file. A log without one was interrupted and ends where it ends.
 *
 * Ownership: whoever opens it. Threading: one thread. */
#ifndef REPLICA_LOG_H
#define REPLICA_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "vmm/sched/vm.h"

enum { LOG_COMMIT_RECORDS = 1024, LOG_COMMIT_BYTES = 4 << 20 };
#define LOG_COMMIT_NS UINT64_C(1000000000)

struct log; /* opaque */

/* A new log at @dir/log.mdb, which must not exist. @origin is where the chain begins.
 * Errors: PLX_EEXIST, PLX_EIO, PLX_ENOMEM. */
int log_create(const char *dir, uint64_t origin, struct log **out, struct plx_err *err);
/* Append record @seq, one higher than the last (the first may be any). Commits now and then.
 * Errors, of all that appends or commits: PLX_EIO, PLX_ENOMEM. */
int log_append(struct log *log, uint64_t seq, const void *record, size_t len, struct plx_err *err);
int log_append_digest(struct log *log, const struct vm_digest *d, const struct digest_page *pages,
                      size_t npages, struct plx_err *err);
/* Make everything appended durable; cheap when there is nothing. */
int log_commit(struct log *log, struct plx_err *err);
int log_commit_due(struct log *log, struct plx_err *err); /* if the last was LOG_COMMIT_NS ago */
/* Commits and seals a log that is written; frees in any case. NULL is a no-op. */
int log_close(struct log *log, struct plx_err *err);

uint64_t log_bytes(const struct log *log); /* appended: records and digests with their keys */

/* Open for reading. The file is judged whole first: its seal, then every record's chain.
 * Errors: PLX_ENOENT; PLX_ETRUNCATED and PLX_ECORRUPT with a message that names the record. */
int log_open(const char *dir, uint64_t origin, struct log **out, struct plx_err *err);
uint64_t log_first(const struct log *log); /* number of the first record; 0: no record */
uint64_t log_last(const struct log *log);
bool log_sealed(const struct log *log);
/* Record @seq; the bytes are borrowed until the next call. Errors: PLX_ENOENT. */
int log_get(struct log *log, uint64_t seq, const void **record, size_t *len, struct plx_err *err);

/* A digest as it was logged. */
struct log_digest {
    uint64_t seq;
    struct hash128 all;
    unsigned nsections;
    uint64_t ram;                           /* low half */
    uint32_t sections[DIGEST_SECTIONS_MAX]; /* low 32 bits, in the order of the manifest */
    size_t npages;
    struct rbuf pages; /* private; log_digest_page reads them */
    gpa_t last;
};
/* False: none was logged for @seq. Borrowed until the next call.
 * Errors (negative): PLX_ECORRUPT. Returns 1 when found, 0 when there is none. */
int log_get_digest(struct log *log, uint64_t seq, struct log_digest *out, struct plx_err *err);
/* The next page of @d, by ascending address, and the low 16 bits of its hash; false: no more. */
bool log_digest_page(struct log_digest *d, gpa_t *gpa, uint16_t *hash);

#endif
