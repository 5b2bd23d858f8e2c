/* SPDX-License-Identifier: Apache-2.0
 * consensus/raft_node.c - see raft_node.h. */
#include "consensus/raft_node.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"

enum {
    CONNECT_RETRY_MS = 50,
    SEGMENT_BYTES = 1 << 20,
    SNAPSHOT_THRESHOLD = 1024,
    SNAPSHOT_TRAILING = 256
};

struct raft_node {
    struct raft_node_config cfg;
    struct raft raft;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft_transfer transfer;
    bool transferring;
    void (*done)(void *ctx);
    void *done_ctx;
};

struct request {
    union {
        struct raft_apply apply;
        struct raft_barrier barrier;
    } req;
    raft_node_cb cb;
    void *ctx;
};

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct raft_node *n = fsm->data;

    *result = (void *)(uintptr_t)n->cfg.apply(n->cfg.ctx, buf->base, buf->len);
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct raft_node *n = fsm->data;
    struct wbuf w;

    wbuf_init(&w);
    n->cfg.snapshot(n->cfg.ctx, &w);
    *bufs = raft_malloc(sizeof **bufs);
    void *base = raft_malloc((w.len + 7) & ~(size_t)7);
    if (w.failed || *bufs == NULL || base == NULL) {
        wbuf_free(&w);
        raft_free(*bufs);
        raft_free(base);
        return RAFT_NOMEM;
    }
    memcpy(base, w.data, w.len);
    **bufs = (struct raft_buffer){.base = base, .len = w.len};
    *n_bufs = 1;
    wbuf_free(&w);
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct raft_node *n = fsm->data;
    struct plx_err err;

    if (n->cfg.restore(n->cfg.ctx, buf->base, buf->len, &err) != 0) {
        log_error("cannot restore the cluster's state: %s", err.msg);
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    return 0;
}

static const char *address_of(uint32_t id, char out[32])
{
    (void)snprintf(out, 32, "node-%u", id);
    return out;
}

static int bootstrap(struct raft_node *n)
{
    struct raft_configuration conf;
    char address[32];
    int rc = 0;

    raft_configuration_init(&conf);
    for (unsigned i = 0; i < n->cfg.nids && rc == 0; i++) {
        rc = raft_configuration_add(&conf, n->cfg.ids[i], address_of(n->cfg.ids[i], address),
                                    RAFT_VOTER);
    }
    if (rc == 0) {
        rc = raft_bootstrap(&n->raft, &conf);
    }
    raft_configuration_close(&conf);
    return rc == RAFT_CANTBOOTSTRAP ? 0 : rc; /* there is a log already */
}

static void free_node(struct raft_node *n)
{
    raft_uv_close(&n->io);
    plx_free(n);
}

static void on_open_failed(struct raft *r)
{
    free_node(r->data);
}

int raft_node_open(const struct raft_node_config *cfg, struct raft_node **out, struct plx_err *err)
{
    struct raft_node *n = plx_calloc(1, sizeof *n);
    char address[32];
    int rc;

    *out = NULL;
    if (n == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot start Raft: out of memory");
    }
    n->cfg = *cfg;
    rc = raft_uv_init(&n->io, cfg->loop, cfg->dir, cfg->transport);
    if (rc != 0) {
        plx_free(n);
        return plx_fail(err, PLX_EIO, "cannot start Raft in %s: %s", cfg->dir, raft_strerror(rc));
    }
    raft_uv_set_connect_retry_delay(&n->io, CONNECT_RETRY_MS);
    raft_uv_set_segment_size(&n->io, SEGMENT_BYTES);
    n->fsm = (struct raft_fsm){.version = 1,
                               .data = n,
                               .apply = fsm_apply,
                               .snapshot = fsm_snapshot,
                               .restore = fsm_restore};
    rc = raft_init(&n->raft, &n->io, &n->fsm, cfg->self, address_of(cfg->self, address));
    if (rc != 0) {
        rc = plx_fail(err, PLX_EIO, "cannot start Raft in %s: %s", cfg->dir, n->raft.errmsg);
        raft_uv_close(&n->io);
        plx_free(n);
        return rc;
    }
    n->raft.data = n;
    raft_set_election_timeout(&n->raft, cfg->election_ms);
    raft_set_heartbeat_timeout(&n->raft, cfg->heartbeat_ms);
    raft_set_pre_vote(&n->raft, true);
    raft_set_snapshot_threshold(&n->raft, SNAPSHOT_THRESHOLD);
    raft_set_snapshot_trailing(&n->raft, SNAPSHOT_TRAILING);
    rc = bootstrap(n);
    if (rc == 0) {
        rc = raft_start(&n->raft);
    }
    if (rc != 0) {
        (void)plx_fail(err, PLX_EIO, "cannot start Raft in %s: %s", cfg->dir,
                       raft_errmsg(&n->raft));
        raft_close(&n->raft, on_open_failed);
        return PLX_EIO;
    }
    *out = n;
    return 0;
}

static void on_raft_closed(struct raft *r)
{
    struct raft_node *n = r->data;
    void (*done)(void *) = n->done;
    void *ctx = n->done_ctx;

    free_node(n);
    done(ctx);
}

void raft_node_close(struct raft_node *n, void (*done)(void *ctx), void *ctx)
{
    n->done = done;
    n->done_ctx = ctx;
    raft_close(&n->raft, on_raft_closed);
}

static void finish(struct request *q, int status, uint32_t result, uint64_t index)
{
    raft_node_cb cb = q->cb;
    void *ctx = q->ctx;

    plx_free(q);
    cb(ctx,
       status == 0                ? RAFT_NODE_DONE
       : status == RAFT_NOTLEADER ? RAFT_NODE_NOT_LEADER
                                  : RAFT_NODE_UNKNOWN,
       result, index);
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
    finish(req->data, status, (uint32_t)(uintptr_t)result, req->index);
}

static void on_barrier(struct raft_barrier *req, int status)
{
    finish(req->data, status, 0, req->index);
}

void raft_node_submit(struct raft_node *n, const void *data, size_t len, raft_node_cb cb, void *ctx)
{
    struct request *q = plx_calloc(1, sizeof *q);
    int rc;

    if (q == NULL) {
        cb(ctx, RAFT_NODE_NOT_LEADER, 0, 0); /* of no use as one: it may be asked again */
        return;
    }
    q->cb = cb;
    q->ctx = ctx;
    if (raft_state(&n->raft) != RAFT_LEADER) {
        finish(q, RAFT_NOTLEADER, 0, 0);
        return;
    }
    if (len == 0) {
        q->req.barrier.data = q;
        rc = raft_barrier(&n->raft, &q->req.barrier, on_barrier);
    } else {
        /* libraft stores entries in words of 8 bytes: the tail is zeros. */
        size_t padded = (len + 7) & ~(size_t)7;
        struct raft_buffer buf = {.base = raft_calloc(1, padded), .len = padded};
        rc = RAFT_NOMEM;
        if (buf.base != NULL) {
            memcpy(buf.base, data, len);
            q->req.apply.data = q;
            rc = raft_apply(&n->raft, &q->req.apply, &buf, 1, on_applied);
        }
        if (rc != 0) {
            raft_free(buf.base);
        }
    }
    if (rc != 0) {
        finish(q, RAFT_NOTLEADER, 0, 0);
    }
}

bool raft_node_is_leader(const struct raft_node *n)
{
    return raft_state((struct raft *)(uintptr_t)&n->raft) == RAFT_LEADER;
}

uint32_t raft_node_leader(const struct raft_node *n)
{
    raft_id id = 0;
    const char *address;

    raft_leader((struct raft *)(uintptr_t)&n->raft, &id, &address);
    return (uint32_t)id;
}

uint64_t raft_node_applied(const struct raft_node *n)
{
    return raft_last_applied((struct raft *)(uintptr_t)&n->raft);
}

uint64_t raft_node_term(const struct raft_node *n)
{
    return n->raft.current_term;
}

static void on_transferred(struct raft_transfer *req)
{
    struct raft_node *n = req->data;

    n->transferring = false;
}

void raft_node_transfer(struct raft_node *n, uint32_t id)
{
    if (n->transferring || raft_state(&n->raft) != RAFT_LEADER) {
        return;
    }
    n->transfer.data = n;
    n->transferring = raft_transfer(&n->raft, &n->transfer, id, on_transferred) == 0;
}
