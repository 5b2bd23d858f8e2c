/* SPDX-License-Identifier: Apache-2.0
 * storage/pack.h - the file format of a pack: segments one after another, each with checksums.
 *
 *     0    header: magic[8] "PLXPACK1", u32 pack number, u32 zero, u64 hash of the bytes before
 *     24   records, each:
 *            u32 magic "SEG1", u32 contents' length, u32 stored length, u8 codec, u8[3] zero,
 *            u8 SHA-256 of the contents[32], u64 hash of the stored form,
 *            u64 hash of the bytes before, with the record's place as its seed
 *            stored form
 *
 * All little-endian. Packs only grow, by one writer, who holds a lock on the file until he is done;
 * what an interrupted writer left at the end is in no index and harmless. A record at the
 * wrong place, or of another pack, does not pass for one. The index can be made again from packs.
 *
 * Pure, but for pack_read. Any thread. */
#ifndef STORAGE_PACK_H
#define STORAGE_PACK_H

#include "storage/segment.h"

enum { PACK_HEADER = 24, PACK_RECORD = 64, PACK_MAX = 256 << 20 /* begin another beyond this */ };

struct pack_record {
    struct seg_id id;
    enum seg_codec codec;
    uint32_t raw_len, stored_len;
    uint64_t data_hash;
};

void pack_header_put(uint8_t out[PACK_HEADER], uint32_t number);
/* False: not the header of this pack. */
bool pack_header_good(const uint8_t in[PACK_HEADER], uint32_t number);

uint64_t pack_data_hash(const void *data, size_t len);
/* @off: where in pack @number the record begins. */
void pack_record_put(uint8_t out[PACK_RECORD], uint32_t number, uint64_t off,
                     const struct pack_record *r);
/* Errors: PLX_ECORRUPT. Lengths and codec are within bounds when it returns 0. */
int pack_record_get(const uint8_t in[PACK_RECORD], uint32_t number, uint64_t off,
                    struct pack_record *out);

/* Read the record of @id at @off of an open pack: its stored form to @out (cleared first), checked.
 * Errors: PLX_ECORRUPT (other record, damaged), PLX_EIO, PLX_ENOMEM; the message says what. */
int pack_read(int fd, uint32_t number, uint64_t off, uint32_t stored_len, const struct seg_id *id,
              struct wbuf *out, struct seg_form *form, struct plx_err *err);

#endif
