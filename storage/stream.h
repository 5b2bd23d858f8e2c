/* SPDX-License-Identifier: Apache-2.0
 * storage/stream.h - the disk of an image, read-only: from stores on this host, and what they lack
 * from servers while it is used. A VM starts on it at once.
 *
 * A read of a segment that is not here goes ahead of everything else and waits as long as it takes:
 * while no server is there the guest sees latency, not errors. Meanwhile the segments of the
 * image's boot profile are fetched, in its order; then the rest. Every segment is checked against
 * its name before anybody sees it. The order of first reads is kept: it is what a profile is made
 * of.
 *
 * Ownership: see disk.h; stores, client and manifest are borrowed and outlive it. */
#ifndef STORAGE_STREAM_H
#define STORAGE_STREAM_H

#include "storage/client.h"

struct stream; /* opaque; it is the disk */

struct stream_config {
    const char *name; /* for messages */
    const struct manifest *manifest;
    const uint32_t *profile; /* segments in the order of a boot; NULL: none */
    size_t nprofile;
    struct store *store;         /* NULL, or where the whole image is, or part of it */
    bool hold;                   /* all is in @store: take hold of it (store_hold) */
    struct store *cache;         /* NULL, or where the client puts what comes */
    struct image_client *client; /* NULL: all must be in @store */
    bool no_rest;                /* fetch the profile only */
};

struct stream_progress {
    uint64_t segments, bytes;               /* of the disk's data */
    uint64_t here, here_bytes;              /* of these: on this host */
    uint64_t needed, needed_bytes;          /* fetched because the guest waited */
    uint64_t profile, profile_bytes;        /* fetched ahead of a boot */
    uint64_t rest, rest_bytes;              /* fetched in the background */
    uint64_t reads, waits, longest_wait_ns; /* of the guest */
    uint64_t touched, touched_bytes;        /* read by the guest, once each */
    uint64_t profiled, unprofiled;          /* in the boot profile; of those read: not in it */
};

int stream_open(const struct stream_config *cfg, struct stream **out, struct plx_err *err);
struct disk *stream_disk(struct stream *s); /* disk_close frees the stream */

/* For the client's configuration, with the stream as context. */
bool stream_next(void *ctx, struct seg_id *id, enum client_urgency *urgency);
void stream_arrived(void *ctx, const struct seg_id *id, uint32_t raw_len,
                    enum client_urgency urgency);

/* Reads that wait, and those to come, end with an error: before the client is closed. */
void stream_stop(struct stream *s);
void stream_progress(struct stream *s, struct stream_progress *out);
/* Segments in the order of their first read so far; the caller's. */
int stream_order(struct stream *s, uint32_t **order, size_t *n);

#endif
