/* SPDX-License-Identifier: Apache-2.0
 * storage/store_remote.h - the store of an image server as a place to push to: a backend of
 * segment.h that can look, put, commit and set names. Nothing can be read back through it. */
#ifndef STORAGE_STORE_REMOTE_H
#define STORAGE_STORE_REMOTE_H

#include "storage/client.h"

/* The client is borrowed and is one that may push. Errors: PLX_ENOMEM. */
int store_open_remote(struct image_client *client, struct store **out, struct plx_err *err);

#endif
