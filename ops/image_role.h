/* SPDX-License-Identifier: Apache-2.0
 * ops/image_role.h - an image server with all it needs: store, keys of its clients, thread. It is
 * what `pollux image serve` and a polluxd with a section [images] run.
 *
 * A file names the clients (image_clients.h).
 *
 * Threading: any, but not two functions of one role at once. */
#ifndef OPS_IMAGE_ROLE_H
#define OPS_IMAGE_ROLE_H

#include "storage/server.h"

struct image_role; /* opaque */

struct image_role_config {
    const char *store, *listen, *clients;
    const struct curve_pair *key; /* borrowed until image_role_start returns */
};

/* *nclients (may be NULL): keys that may connect. Errors: PLX_EINVAL, PLX_EBUSY, PLX_ERANGE, those
 * of the store and of reading the file. */
int image_role_start(const struct image_role_config *cfg, struct image_role **out,
                     unsigned *nclients, struct plx_err *err);
/* Call it every so often: reads the file of clients again if it has changed. A key that it does not
 * name any more is not served any more, and a file that makes no sense changes nothing. True: it
 * changed, and names *nclients keys now. */
bool image_role_refresh(struct image_role *r, unsigned *nclients);
void image_role_stats(struct image_role *r, struct image_server_stats *out);
void image_role_stop(struct image_role *r); /* NULL is a no-op */

#endif
