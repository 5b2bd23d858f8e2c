/* SPDX-License-Identifier: Apache-2.0
 * ops/disk_image.c - see disk_image.h. */
#include "ops/disk_image.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "storage/chain.h"
#include "storage/image_disk.h"
#include "vmm/dev/backend/diskfile.h"

static int image_read(void *ctx, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    return disk_read(ctx, buf, len, off, err);
}

static int image_write(void *ctx, const void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    return disk_write(ctx, buf, len, off, err);
}

static int image_zero(void *ctx, uint64_t len, uint64_t off, struct plx_err *err)
{
    return disk_zero(ctx, len, off, true, err);
}

static int image_flush(void *ctx, struct plx_err *err)
{
    return disk_flush(ctx, err);
}

static void image_close(void *ctx)
{
    struct plx_err err = {""};

    if (disk_close(ctx, &err) != 0) {
        log_error("%s", err.msg);
    }
}

static bool knows(const char *path)
{
    return strcmp(disk_format_of(path), "raw") != 0;
}

static int open_image(const char *path, bool write, struct diskfile_image *out, struct plx_err *err)
{
    struct disk *d;
    int rc = disk_open(io_host(), path, NULL, write ? DISK_FOR_WRITE : 0, &d, err);

    if (rc == 0) {
        *out =
            (struct diskfile_image){.base = {.ctx = d, .bytes = d->geo.bytes, .read = image_read},
                                    .write = image_write,
                                    .zero = image_zero,
                                    .flush = image_flush,
                                    .close = image_close};
    }
    return rc;
}

void disk_image_register(void)
{
    static const struct diskfile_opener opener = {knows, open_image};
    diskfile_set_opener(&opener);
}

int disk_image_sha256(const char *path, uint8_t out[SHA256_LEN], struct plx_err *err)
{
    struct disk *d, *base;
    uint8_t *layers;
    unsigned n = 0, files;
    int rc = 0;

    if (!knows(path)) {
        return sha256_file(path, out, err);
    }
    rc = disk_open(io_host(), path, NULL, 0, &d, err);
    if (rc != 0) {
        return rc;
    }
    files = disk_is_chain(d) ? chain_depth(d) : 0;
    base = disk_is_chain(d) ? chain_base(d) : d;
    layers = plx_calloc(files + 1, SHA256_LEN);
    if (layers == NULL) {
        rc = io_no_memory(path, err);
    }
    for (; rc == 0 && n < files; n++) {
        rc = sha256_file(vhdx_file(chain_layer(d, n))->path, layers + (size_t)n * SHA256_LEN, err);
    }
    if (rc == 0 && base != NULL) {
        image_disk_sha256(base, layers + (size_t)n++ * SHA256_LEN);
    }
    if (rc == 0 && n == 1) {
        memcpy(out, layers, SHA256_LEN);
    } else if (rc == 0) {
        sha256(layers, (size_t)n * SHA256_LEN, out);
    }
    plx_free(layers);
    (void)disk_close(d, NULL);
    return rc;
}
