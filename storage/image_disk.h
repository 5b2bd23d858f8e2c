/* SPDX-License-Identifier: Apache-2.0
 * storage/image_disk.h - an image of a store on this host as a disk that is only read, and so as
 * the base of a chain (chain.h). Its path is
 *
 *     image:[STORE#]NAME[:TAG]       image:/var/lib/pollux/images#debian:12
 *
 * (without STORE: that of image_store_default, to which it is resolved where it is kept).
 * Its identifier is made of the SHA-256 of the manifest: the same disk pushed again, or in another
 * store, with the same words is the same image. Everything that reads take is open when
 * image_disk_open returns (a sandbox may follow), and a lease keeps the image through sweeps until
 * the disk is closed.
 *
 * Ownership and threading: of disk.h. */
#ifndef STORAGE_IMAGE_DISK_H
#define STORAGE_IMAGE_DISK_H

#include "base/hash.h"
#include "storage/disk.h"

#define IMAGE_DISK_PREFIX "image:"

const char *image_store_default(void); /* $POLLUX_STORE or /var/lib/pollux/images */

bool image_disk_path(const char *path); /* does it begin so? */
/* Errors: PLX_EINVAL (the path), PLX_ENOENT (no such store, no such image), those of the store. */
int image_disk_open(const char *path, struct disk **out, struct plx_err *err);
/* The same path with the store's own, absolute one, to be kept in a child. Errors: PLX_EINVAL. */
int image_disk_absolute(const char *path, char *out, size_t cap, struct plx_err *err);

bool disk_is_image(const struct disk *d);
void image_disk_sha256(const struct disk *d, uint8_t out[SHA256_LEN]); /* of the manifest */

#endif
