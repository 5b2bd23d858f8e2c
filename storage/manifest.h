/* SPDX-License-Identifier: Apache-2.0
 * storage/manifest.h - what an image version is made of.
 *
 * The *manifest* lists the segments of the disk, and of the kernel and initrd that boot it, if it
 * was pushed with them. It is kept as a blob of segments itself. The *reference* is the small
 * record under the image's name in the store: what one looks for images by, and where the manifest
 * and the boot profile are. A boot profile is the order in which a boot first reads the disk's
 * segments.
 *
 * Manifest, little-endian, numbers as varints unless said otherwise:
 *     magic[8] "PLXMANI1", name, tag, operating system, application, command line (length, bytes),
 *     0 (a manifest of older stores: the time of the push), logical and physical sector, kind and
 *     average of cuts, three streams (disk, kernel, initrd): bytes, segments, then for each
 *     segment: bytes of zeros before it, its length, SHA-256[32]
 * Reference: magic[8] "PLXREF01", name, tag, os, app, bytes, bytes of segments, bytes stored, time,
 *     SHA-256 of the manifest[32], blob of the manifest, blob of the profile (length 0: none)
 * Blob: length, number of parts, SHA-256[32] of each
 * Profile: magic[8] "PLXPROF1", number, then the index of each segment in the disk's stream
 *
 * Decoding takes bytes from anywhere: all is checked. Pure; any thread. */
#ifndef STORAGE_MANIFEST_H
#define STORAGE_MANIFEST_H

#include "storage/chunk.h"
#include "storage/store.h"

enum {
    IMAGE_TEXT = 64, /* name, tag, operating system, application, with the NUL */
    IMAGE_APP = 256, /* applications, separated by commas */
    IMAGE_CMDLINE = 2048,
    IMAGE_NAME = 2 * IMAGE_TEXT,
    MANIFEST_MAX = 256 << 20 /* bytes */
};
#define IMAGE_BYTES_MAX (UINT64_C(1) << 46) /* 64 TiB */

struct manifest_segment {
    uint64_t off; /* in its stream; what no segment covers is zero */
    uint32_t len;
    struct seg_id id;
};

struct manifest_stream {
    uint64_t bytes; /* 0: there is none */
    size_t n;
    struct manifest_segment *segs; /* by offset, not overlapping */
};

enum manifest_stream_id { STREAM_DISK, STREAM_KERNEL, STREAM_INITRD, STREAMS };

struct manifest {
    char name[IMAGE_TEXT], tag[IMAGE_TEXT], os[IMAGE_TEXT], app[IMAGE_APP];
    char cmdline[IMAGE_CMDLINE];
    uint32_t logical_sector, physical_sector;
    enum chunk_kind chunks;
    uint32_t chunk_avg;
    struct manifest_stream streams[STREAMS];
};

struct image_ref {
    char name[IMAGE_TEXT], tag[IMAGE_TEXT], os[IMAGE_TEXT], app[IMAGE_APP];
    uint64_t bytes, data_bytes, stored_bytes; /* of the disk; in segments; added by the push */
    uint64_t created_ns;
    uint8_t sha[SHA256_LEN]; /* of the manifest: the version's identity */
    struct store_blob manifest, profile;
};

/* Errors of the getters: PLX_ECORRUPT, PLX_EVERSION, PLX_ENOMEM, with a message. On error nothing
 * is retained. */
int manifest_put(const struct manifest *m, struct wbuf *out);
int manifest_get(const void *data, size_t len, struct manifest *out, struct plx_err *err);
void manifest_free(struct manifest *m);

int image_ref_put(const struct image_ref *r, struct wbuf *out);
int image_ref_get(const void *data, size_t len, struct image_ref *out, struct plx_err *err);
void image_ref_free(struct image_ref *r);
int image_ref_copy(const struct image_ref *from, struct image_ref *to); /* PLX_ENOMEM */

int profile_put(const uint32_t *order, size_t n, struct wbuf *out);
/* *order is the caller's. Indices are below @segments, none twice. */
int profile_get(const void *data, size_t len, size_t segments, uint32_t **order, size_t *n,
                struct plx_err *err);

/* The segment that covers @off, or the first one behind it (== n: none). */
size_t manifest_find(const struct manifest_stream *s, uint64_t off);
uint64_t manifest_data(const struct manifest_stream *s); /* bytes in segments */

/* "NAME[:TAG]" (tag "latest" if none): letters, digits and ".-_+", not beginning with a dot.
 * Errors: PLX_EINVAL. */
int image_name_parse(const char *text, char name[IMAGE_TEXT], char tag[IMAGE_TEXT],
                     struct plx_err *err);
void image_name_text(const char *name, const char *tag, char out[IMAGE_NAME]);

#endif
