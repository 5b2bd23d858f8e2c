/* SPDX-License-Identifier: Apache-2.0
 * ops/image_clients.h - the file that names the clients of an image server, a line each: public key
 * (64 hex digits), perhaps a name, and `push` if it may change the store; otherwise it only reads.
 * `#` begins a comment. A key that stands twice has what its last line says.
 *
 * Pure but for image_clients_read. Threading: any. */
#ifndef OPS_IMAGE_CLIENTS_H
#define OPS_IMAGE_CLIENTS_H

#include <sys/stat.h>

#include "proto/keys.h"

struct image_clients {
    struct authoriser_key keys[AUTHORISER_KEYS]; /* users: what it may (storage/server.h), key */
    unsigned n;
    bool pushes; /* at least one may */
};

/* @text ends with a NUL and is changed; @path is for messages. Errors: PLX_EINVAL, PLX_ERANGE. */
int image_clients_parse(char *text, const char *path, struct image_clients *out,
                        struct plx_err *err);
/* *seen becomes what stat says of the file, unless it could not be read for a reason that may pass
 * while the file stays as it is: who looks for changes by it comes again then, but hears of what is
 * wrong in the file once. Errors: those of reading, too. */
int image_clients_read(const char *path, struct image_clients *out, struct stat *seen,
                       struct plx_err *err);

#endif
