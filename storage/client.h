/* SPDX-License-Identifier: Apache-2.0
 * storage/client.h - images from servers (proto/image.proto): segments when they are needed at
 * once, and others while there is time. What has been fetched, and checked, goes to a store (a
 * cache, as a rule); what that store holds is never asked for.
 *
 * Several servers: one is used; when it is silent for IMAGE_SERVER_SILENCE_MS, or lacks a segment,
 * the next one is asked, round and round. A fetch does not fail because servers are gone: it waits.
 *
 * Flow: what is needed goes out at once. Of what is only wanted (`next` below) no more is on its
 * way than the link carries in CLIENT_AHEAD_MS, none is added while something needed is on its way,
 * and the least urgent one at a time until nothing was needed for CLIENT_IDLE_MS: the link is free
 * when a guest reads.
 *
 * Threading: a thread inside does the talking; every function may be called from any thread. */
#ifndef STORAGE_CLIENT_H
#define STORAGE_CLIENT_H

#include "proto/keys.h"
#include "storage/image.h"

struct image_client; /* opaque */

enum { CLIENT_SERVERS_MAX = 8, CLIENT_AHEAD_MS = 25, CLIENT_IDLE_MS = 30 };

enum client_urgency { CLIENT_NEEDED = 0, CLIENT_SOON = 1, CLIENT_REST = 2 };

struct client_server {
    const char *endpoint; /* tcp://HOST:PORT */
    uint8_t key[CURVE_KEY_LEN];
};

struct image_client_config {
    void *zmq; /* borrowed */
    unsigned nservers;
    struct client_server servers[CLIENT_SERVERS_MAX];
    struct curve_pair key;
    struct store *store; /* where segments go; borrowed */
    bool greedy;         /* nobody needs anything at once: use all of the window */
    /* NULL, or what becomes non-zero when all is to end as by image_client_stop. */
    const volatile int *interrupted;
    /* The next segment that is wanted and not in the store, and its urgency (SOON or REST); false:
     * none at present. Called from the client's thread. */
    bool (*next)(void *ctx, struct seg_id *id, enum client_urgency *urgency);
    /* A segment came and is in the store. @urgency is that of the first who asked for it: one that
     * was fetched ahead and is needed meanwhile was fetched ahead. From the client's thread, before
     * the fetches of it end. */
    void (*arrived)(void *ctx, const struct seg_id *id, uint32_t raw_len,
                    enum client_urgency urgency);
    void *ctx;
};

struct image_client_stats {
    struct {
        uint64_t segments, bytes;        /* as sent */
    } got[3];                            /* by urgency, as first asked for */
    uint64_t pushed_bytes;               /* of segments as sent, again after a reconnection */
    uint64_t corrupt;                    /* did not fit their names: thrown away, asked for again */
    uint64_t switches;                   /* from one server to the next */
    uint64_t stall_ns, longest_stall_ns; /* fetches' waiting, and the longest */
    uint64_t fetches;
    unsigned server; /* index of the one in use */
    bool connected;
};

/* Errors: PLX_EINVAL (an address), PLX_ENOMEM. The servers need not be there. */
int image_client_open(const struct image_client_config *cfg, struct image_client **out,
                      struct plx_err *err);
/* Fetches under way and to come end with PLX_ECANCELED; before their callers are waited for. */
void image_client_stop(struct image_client *c);
/* Nobody may be in a function of the client any more. NULL is a no-op. */
void image_client_close(struct image_client *c);

/* Wait for an answer up to @timeout_ms. Errors: PLX_ETIMEDOUT, PLX_ENOENT and others as the server
 * says. *refs and what it holds are the caller's. */
int image_client_list(struct image_client *c, const char *pattern, const char *os, const char *app,
                      unsigned timeout_ms, struct image_ref **refs, size_t *n, struct plx_err *err);
/* Find an image, and have every server keep it while we are connected. */
int image_client_image(struct image_client *c, const char *name, const char *tag,
                       unsigned timeout_ms, struct image_ref *ref, struct plx_err *err);
/* The contents of a segment, from the client's store, or from a server: waits until it is here. A
 * store_get_fn, with the client as context. Errors: PLX_ECANCELED, PLX_ENOENT (no server has it),
 * PLX_ECORRUPT (another length). */
int image_client_fetch(void *client, const struct seg_id *id, void *out, size_t len,
                       struct plx_err *err);
/* Ask for a segment that will be fetched soon, as urgently as if it were now. */
void image_client_request(struct image_client *c, const struct seg_id *id);
/* --- pushing: one server. While it is away all of these wait; PLX_ECANCELED ends them ----------
 */

/* Wait up to @timeout_ms for the server to say whether we may. Errors: PLX_EACCES, PLX_ETIMEDOUT.
 */
int image_client_may_push(struct image_client *c, unsigned timeout_ms, struct plx_err *err);
/* What the server knows of segments (enum seg_state). It waits for those that it has not. */
int image_client_look(struct image_client *c, const struct seg_id *ids, size_t n, uint8_t *states,
                      struct plx_err *err);
/* Send a segment, when there is room on the way. Says later, and then always, if one was not kept.
 */
int image_client_put(struct image_client *c, const struct seg_id *id, const struct seg_form *form,
                     struct plx_err *err);
/* What was put is durable now, unless the server died since: image_client_name looks for all of it.
 */
int image_client_sync(struct image_client *c, struct plx_err *err);
/* Set the name of a reference (storage/manifest.h). 1: *missing is not there, nothing was set. */
int image_client_name(struct image_client *c, const void *ref, size_t len, struct seg_id *missing,
                      struct plx_err *err);

/* `next` may have something again. */
void image_client_poke(struct image_client *c);
void image_client_stats(struct image_client *c, struct image_client_stats *out);

#endif
