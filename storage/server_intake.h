/* SPDX-License-Identifier: Apache-2.0
 * storage/server_intake.h - what clients put into a server's store: checked, kept and named by a
 * thread of its own, so that those who read never wait for a sync, only for the store's lock while
 * a segment is written. The jobs of one client are done in their order, clients take turns.
 *
 * Threading: intake_add, intake_forget and intake_take are the server's thread's. */
#ifndef STORAGE_SERVER_INTAKE_H
#define STORAGE_SERVER_INTAKE_H

#include "proto/image.pb-c.h"
#include "storage/image.h"

struct intake; /* opaque */

struct intake_job;

/* What a client has waiting; zeroed is nothing. */
struct intake_client {
    struct intake_client *next; /* among those with jobs */
    struct intake_job *first, *last;
};

struct intake_done {
    uint64_t client, number;
    uint64_t bytes;     /* of the post, as its client counts them */
    struct seg_id put;  /* if @put_bytes is not 0 */
    uint32_t put_bytes; /* of the stored form */
    bool new;           /* it was not in the store */
    bool named;
    bool lacks; /* of a name: @missing is not there */
    struct seg_id missing;
    int rc;
    struct plx_err err;
};

/* @wake: an eventfd that is written when something is done; -1: no thread, intake_take does the
 * work. The store is borrowed. Errors: PLX_ENOMEM. */
int intake_open(struct store *store, int wake, struct intake **out, struct plx_err *err);
void intake_close(struct intake *in); /* all clients are forgotten; NULL is a no-op */
/* @m is the intake's from now on. Errors: PLX_ENOMEM, and @m is freed. */
int intake_add(struct intake *in, struct intake_client *c, uint64_t serial, Img__ToServer *m);
void intake_forget(struct intake *in, struct intake_client *c); /* drop what waits */
/* Something that is done, of a client that may be gone; false: nothing. */
bool intake_take(struct intake *in, struct intake_done *out);

#endif
