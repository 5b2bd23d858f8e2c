/* SPDX-License-Identifier: Apache-2.0
 * storage/store_claims.h - which segments the writers of one store directory are about to put, so
 * that two that push the same image at once do the work, and store it, once.
 *
 * A file of slots (tag of the segment, session of the writer) mapped by all, changed by compare and
 * swap; a session is a byte of another file that its writer holds locked, so death ends it. Claims
 * are hints: one that is lost costs a segment stored twice until the next sweep, never more.
 * Threading: any thread. */
#ifndef STORAGE_STORE_CLAIMS_H
#define STORAGE_STORE_CLAIMS_H

#include "storage/segment.h"

struct claims; /* opaque */

int claims_open(const char *dir, struct claims **out, struct plx_err *err);
void claims_close(struct claims *c); /* NULL is a no-op */
/* 0: it is ours now (or cannot be said); PLX_EBUSY: another live writer has it. */
int claims_take(struct claims *c, const struct seg_id *id);
void claims_drop(struct claims *c, const struct seg_id *id); /* if it is ours */

#endif
