/* SPDX-License-Identifier: Apache-2.0
 * ops/disk_image.h - VHDX files, chains and images of stores as the disks of VMs: what
 * vmm/dev/backend/diskfile.h is given, because it knows no formats. */
#ifndef OPS_DISK_IMAGE_H
#define OPS_DISK_IMAGE_H

#include "base/hash.h"

/* Once, in main, before any disk is opened. */
void disk_image_register(void);
/* What two nodes compare of a base: the SHA-256 of the file; of a chain, of those of its layers
 * from the top down; of an image of a store, that of its manifest. Errors: of opening the chain, of
 * reading. */
int disk_image_sha256(const char *path, uint8_t out[SHA256_LEN], struct plx_err *err);

#endif
