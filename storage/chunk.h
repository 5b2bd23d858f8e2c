/* SPDX-License-Identifier: Apache-2.0
 * storage/chunk.h - where a disk image is cut into segments.
 *
 * First runs of zero blocks are taken out: they are stored as nothing. What is left is cut by its
 * contents, so that the same files give the same segments wherever a file system put them:
 *
 *   CHUNK_BLOCKS  only between blocks of 4 KiB, where a hash of one block says so. File systems
 *                 place files at blocks, so nothing is lost against bytes, no segment straddles
 *                 what a guest reads at once, and each byte is hashed once, quickly.
 *   CHUNK_BYTES   at any byte, by a rolling (gear) hash of the last 64: for images of other
 *                 contents, archives for instance.
 *   CHUNK_FIXED   every avg bytes.
 *
 * Content-defined cuts are normalized: rarer than 1/avg before avg bytes, more frequent after it
 * (Xia et al., "FastCDC", USENIX ATC 2016, section "Normalized Chunking"). Pure; any thread. */
#ifndef STORAGE_CHUNK_H
#define STORAGE_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    CHUNK_BLOCK = 4096,
    /* By measurement (tests/bench/store.sh): of three similar Debian images CHUNK_BLOCKS keeps as
     * much as CHUNK_BYTES in 15 % less time, and half of what CHUNK_FIXED does; 32 KiB keep 8 %
     * less than 64 KiB, and less is to be hashed and compressed. */
    CHUNK_AVERAGE = 32 << 10,
};

enum chunk_kind { CHUNK_BLOCKS, CHUNK_BYTES, CHUNK_FIXED };

struct chunk_params {
    enum chunk_kind kind;
    uint32_t min, avg, max; /* bytes; multiples of CHUNK_BLOCK */
};

/* @avg: a power of two from 16 KiB to 256 KiB. Errors: PLX_EINVAL. */
int chunk_params(enum chunk_kind kind, uint32_t avg, struct chunk_params *out, struct plx_err *err);
/* "blocks", "bytes", "fixed". False: none of these. */
bool chunk_kind_parse(const char *text, enum chunk_kind *out);
const char *chunk_kind_name(enum chunk_kind kind);

/* How many bytes from the start of @data are zero blocks (*zero) or are none. The last block may be
 * short. @len > 0. */
size_t chunk_run(const uint8_t *data, size_t len, bool *zero);
/* The length of the first segment of @data, 1..max. The end of @data is an end of a segment. */
size_t chunk_next(const struct chunk_params *p, const uint8_t *data, size_t len);

#endif
