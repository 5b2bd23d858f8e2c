/* SPDX-License-Identifier: Apache-2.0
 * storage/store_mem.h - the backend of segments in memory: for tests, and for what need not last.
 * Faults can be put between it and its user. */
#ifndef STORAGE_STORE_MEM_H
#define STORAGE_STORE_MEM_H

#include "storage/segment.h"

/* Errors: PLX_ENOMEM. */
int store_mem_open(const struct seg_ops **ops, void **self, struct plx_err *err);
/* The @k-th put, get or commit from now (0: the next) fails with PLX_EIO, once. */
void store_mem_fail_at(void *self, int k);

#endif
