/* SPDX-License-Identifier: Apache-2.0
 * storage/image_disk.c - see image_disk.h. */
#include "storage/image_disk.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "storage/stream.h"

struct image_disk {
    struct disk d; /* first */
    char *path;
    struct store *store;
    struct image_lease *lease; /* NULL: ref is not filled */
    struct image_ref ref;
    struct manifest manifest;
    struct disk *stream;
};

static struct image_disk *of(struct disk *d)
{
    return (struct image_disk *)d;
}

/* --- paths ---------------------------------------------------------------------------------- */

const char *image_store_default(void)
{
    const char *env = getenv("POLLUX_STORE");

    return env != NULL && *env != '\0' ? env : "/var/lib/pollux/images";
}

bool image_disk_path(const char *path)
{
    return strncmp(path, IMAGE_DISK_PREFIX, strlen(IMAGE_DISK_PREFIX)) == 0;
}

/* The last '#' ends the store's path: there is none in a name. */
static int parse(const char *path, char store[PATH_MAX], const char **name, struct plx_err *err)
{
    const char *from = path + strlen(IMAGE_DISK_PREFIX), *at = strrchr(path, '#');
    bool given = at != NULL;
    size_t len = given ? (size_t)(at - from) : strlen(image_store_default());

    if (!image_disk_path(path) || len == 0 || len >= PATH_MAX) {
        return plx_fail(err, PLX_EINVAL, "%s: an image of a store is image:[STORE#]NAME[:TAG]",
                        path);
    }
    (void)snprintf(store, PATH_MAX, "%.*s", (int)len, given ? from : image_store_default());
    *name = given ? at + 1 : from;
    return 0;
}

int image_disk_absolute(const char *path, char *out, size_t cap, struct plx_err *err)
{
    char store[PATH_MAX], absolute[PATH_MAX];
    const char *name;
    int rc = parse(path, store, &name, err);

    if (rc != 0) {
        return rc;
    }
    if (realpath(store, absolute) == NULL) {
        return plx_fail_errno(err, "%s", store);
    }
    int n = snprintf(out, cap, "%s%s#%s", IMAGE_DISK_PREFIX, absolute, name);
    return n >= 0 && (size_t)n < cap ? 0
                                     : plx_fail(err, PLX_EINVAL, "%s: the path is too long", path);
}

/* --- the disk ------------------------------------------------------------------------------- */

static int image_read(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    return disk_read(of(d)->stream, buf, len, off, err);
}

static int image_flush(struct disk *d, struct plx_err *err)
{
    (void)d;
    (void)err;
    return 0;
}

static int image_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
                     struct plx_err *err)
{
    return disk_map(of(d)->stream, off, len, out, err);
}

/* A UUID of version 8 (RFC 9562), so that nobody takes it for a random one. */
static int image_identity(struct disk *d, struct disk_guid *out, struct plx_err *err)
{
    (void)err;
    memcpy(out->b, of(d)->ref.sha, sizeof out->b);
    out->b[7] = (uint8_t)((out->b[7] & 0x0f) | 0x80);
    out->b[8] = (uint8_t)((out->b[8] & 0x3f) | 0x80);
    return 0;
}

static int image_close(struct disk *d, struct plx_err *err)
{
    struct image_disk *i = of(d);
    int rc = disk_close(i->stream, err);

    manifest_free(&i->manifest);
    if (i->lease != NULL) {
        image_lease_end(i->lease);
        image_ref_free(&i->ref);
    }
    store_close(i->store);
    plx_free(i->path);
    plx_free(i);
    return rc;
}

static const struct disk_ops image_ops = {
    .format = "image",
    .read = image_read,
    .flush = image_flush,
    .map = image_map,
    .identity = image_identity,
    .close = image_close,
};

static int open_stream(struct image_disk *i, struct plx_err *err)
{
    struct stream_config cfg = {
        .name = i->path, .manifest = &i->manifest, .store = i->store, .hold = true};
    struct stream *s;
    int rc = stream_open(&cfg, &s, err);

    if (rc == 0) {
        i->stream = stream_disk(s);
        i->d.geo = i->stream->geo;
    }
    return rc;
}

int image_disk_open(const char *path, struct disk **out, struct plx_err *err)
{
    struct image_disk *i = plx_calloc(1, sizeof *i);
    char store[PATH_MAX], name[IMAGE_TEXT], tag[IMAGE_TEXT];
    const char *text = NULL;
    int rc;

    *out = NULL;
    if (i == NULL || (i->path = plx_strdup(path)) == NULL) {
        plx_free(i);
        return io_no_memory(path, err);
    }
    i->d = (struct disk){.ops = &image_ops, .path = i->path};
    rc = parse(path, store, &text, err);
    if (rc == 0) {
        rc = image_name_parse(text, name, tag, err);
    }
    if (rc == 0) {
        rc = store_open(store, false, &i->store, err);
    }
    if (rc == 0) {
        rc = image_lease(i->store, name, tag, &i->ref, &i->lease, err);
    }
    if (rc == 0) {
        rc = image_manifest(i->store, &i->ref, &i->manifest, err);
    }
    if (rc == 0) {
        rc = open_stream(i, err);
    }
    if (rc != 0) {
        (void)image_close(&i->d, NULL);
        return rc;
    }
    *out = &i->d;
    return 0;
}

bool disk_is_image(const struct disk *d)
{
    return d->ops == &image_ops;
}

void image_disk_sha256(const struct disk *d, uint8_t out[SHA256_LEN])
{
    memcpy(out, ((const struct image_disk *)d)->ref.sha, SHA256_LEN);
}
