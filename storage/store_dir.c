/* SPDX-License-Identifier: Apache-2.0
 * storage/store_dir.c - see store_dir.h: opening, putting, getting, committing, listing. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "storage/store_dir_priv.h"

enum {
    CACHE_PACKS = 16,
    PACK_MIN = 1 << 20,
    PENDING_FIRST = 1024,
    MOVED_TRIES = 4,
    REST_MIN = 16 << 20 /* a shorter pack stays open: packs must not become too many */
};

/* --- what is put and not committed ---------------------------------------------------------- */

static struct index_entry *pending_find(struct store_dir *d, const struct seg_id *id, size_t *slot)
{
    size_t at;

    if (d->pending_slots == 0) {
        return NULL;
    }
    for (at = seg_id_hash(id) & (d->pending_slots - 1); d->pending_at[at] != 0;
         at = (at + 1) & (d->pending_slots - 1)) {
        struct index_entry *e = &d->pending[d->pending_at[at] - 1];
        if (seg_id_eq(&e->id, id)) {
            return e;
        }
    }
    if (slot != NULL) {
        *slot = at;
    }
    return NULL;
}

/* Make pending[@i] one that pending_find finds. */
static void pending_hash(struct store_dir *d, size_t i)
{
    size_t slot = 0;

    (void)pending_find(d, &d->pending[i].id, &slot);
    d->pending_at[slot] = i + 1;
}

/* There is room (pending_reserve), and it is not there yet. */
static void pending_add(struct store_dir *d, const struct index_entry *e)
{
    d->pending[d->npending] = *e;
    pending_hash(d, d->npending++);
}

static int pending_reserve(struct store_dir *d)
{
    if (d->npending < d->pending_cap) {
        return 0;
    }
    size_t cap = d->pending_cap == 0 ? PENDING_FIRST : 2 * d->pending_cap;
    struct index_entry *entries = plx_realloc(d->pending, cap * sizeof *entries);
    if (entries == NULL) {
        return PLX_ENOMEM;
    }
    d->pending = entries;
    size_t *at = plx_calloc(2 * cap, sizeof *at);
    if (at == NULL) {
        return PLX_ENOMEM;
    }
    plx_free(d->pending_at);
    d->pending_at = at;
    d->pending_slots = 2 * cap;
    d->pending_cap = cap;
    for (size_t i = 0; i < d->npending; i++) {
        pending_hash(d, i);
    }
    return 0;
}

/* --- putting -------------------------------------------------------------------------------- */

static int find(struct store_dir *d, const struct seg_id *id, struct index_entry *out,
                struct plx_err *err)
{
    (void)pthread_mutex_lock(&d->lock);
    const struct index_entry *e = pending_find(d, id, NULL);
    if (e != NULL) {
        *out = *e;
    }
    (void)pthread_mutex_unlock(&d->lock);
    return e != NULL ? 1 : index_find(d->index, id, out, err);
}

static int dir_has(void *self, const struct seg_id *id, struct plx_err *err)
{
    struct index_entry e;

    return find(self, id, &e, err);
}

static int dir_put(void *self, const struct seg_id *id, const struct seg_form *form,
                   struct plx_err *err)
{
    struct store_dir *d = self;
    struct index_entry e;
    bool full;
    int rc;

    (void)pthread_mutex_lock(&d->lock);
    int there = pending_find(d, id, NULL) != NULL ? 1 : index_find(d->index, id, &e, err);
    if (there != 0) {
        rc = there < 0 ? there : 0;
    } else if (pending_reserve(d) != 0) {
        rc = plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
    } else {
        rc = store_dir_append(d, id, form, &e, err);
        if (rc == 0) {
            pending_add(d, &e);
            rc = 1;
        }
    }
    full = d->writer.fd >= 0 && d->writer.end >= d->pack_max;
    (void)pthread_mutex_unlock(&d->lock);
    if (rc >= 0 && full) {
        int done = store_dir_commit(d, err);
        rc = done != 0 ? done : rc;
    }
    return rc;
}

static int dir_claim(void *self, const struct seg_id *id)
{
    struct store_dir *d = self;

    if (d->claims == NULL) {
        (void)pthread_mutex_lock(&d->lock);
        if (d->claims == NULL) {
            struct claims *c;
            (void)claims_open(d->path, &c, NULL); /* without them, work may be done twice */
            __atomic_store_n(&d->claims, c, __ATOMIC_RELEASE);
        }
        (void)pthread_mutex_unlock(&d->lock);
    }
    return d->claims == NULL ? 0 : claims_take(d->claims, id);
}

/* Entries that another writer committed in the meantime stay as they are: ours are garbage then. */
static int enter(struct store_dir *d, const struct index_entry *entries, size_t n,
                 struct plx_err *err)
{
    struct index_txn *t;
    int rc = index_begin(d->index, &t, err);

    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < n && rc >= 0; i++) {
        rc = index_txn_put(t, &entries[i], d->limit != 0, err);
    }
    if (rc < 0) {
        index_abort(t);
        return rc;
    }
    return index_commit(t, err);
}

/* The first @n of what is pending is in the index now. */
static void settle_locked(struct store_dir *d, size_t n)
{
    for (size_t i = 0; i < n && d->claims != NULL; i++) {
        claims_drop(d->claims, &d->pending[i].id);
    }
    memmove(d->pending, d->pending + n, (d->npending - n) * sizeof *d->pending);
    d->npending -= n;
    memset(d->pending_at, 0, d->pending_slots * sizeof *d->pending_at);
    for (size_t i = 0; i < d->npending; i++) {
        pending_hash(d, i);
    }
    if (d->npending == 0 && d->writer.end >= d->pack_max) {
        store_dir_end_pack(d);
    }
}

/* The lock is not held while the medium or another process is waited for: a sweep of ours that has
 * the index needs it. */
static int commit_pending(struct store_dir *d, struct plx_err *err)
{
    (void)pthread_mutex_lock(&d->lock);
    size_t n = d->npending;
    struct index_entry *entries = n == 0 ? NULL : plx_calloc(n, sizeof *entries);
    int rc = n == 0 ? 0 : store_dir_flush(d, err);
    int fd = n == 0 || d->limit != 0 ? -1 : fcntl(d->writer.fd, F_DUPFD_CLOEXEC, 3);
    if (entries != NULL) {
        memcpy(entries, d->pending, n * sizeof *entries);
    }
    (void)pthread_mutex_unlock(&d->lock);
    if (n > 0 && entries == NULL) {
        rc = plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path);
    } else if (rc == 0 && n > 0 && d->limit == 0 && (fd < 0 || fdatasync(fd) != 0)) {
        rc = plx_fail_errno(err, "cannot sync a pack of %s", d->path);
    } else if (rc == 0 && n > 0) {
        rc = enter(d, entries, n, err);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (rc == 0 && n > 0) {
        (void)pthread_mutex_lock(&d->lock);
        settle_locked(d, n);
        (void)pthread_mutex_unlock(&d->lock);
    }
    plx_free(entries);
    return rc;
}

int store_dir_commit(void *self, struct plx_err *err)
{
    struct store_dir *d = self;

    (void)pthread_mutex_lock(&d->commit_lock);
    int rc = commit_pending(d, err);
    if (rc == 0 && d->limit != 0) {
        rc = store_dir_evict(d, err);
    }
    (void)pthread_mutex_unlock(&d->commit_lock);
    return rc;
}

static int dir_rest(void *self, struct plx_err *err)
{
    struct store_dir *d = self;
    int rc = store_dir_commit(d, err);

    (void)pthread_mutex_lock(&d->commit_lock);
    (void)pthread_mutex_lock(&d->lock);
    if (rc == 0 && d->npending == 0 && d->writer.end >= REST_MIN) {
        store_dir_end_pack(d);
    }
    (void)pthread_mutex_unlock(&d->lock);
    (void)pthread_mutex_unlock(&d->commit_lock);
    return rc;
}

/* --- getting -------------------------------------------------------------------------------- */

/* A cache keeps what is used: what is read from its older half goes to the front. */
static void refresh(struct store_dir *d, const struct index_entry *e, const struct seg_form *form)
{
    struct index_entry fresh;

    (void)pthread_mutex_lock(&d->lock);
    if (d->newest >= e->pack + CACHE_PACKS / 2 && pending_find(d, &e->id, NULL) == NULL &&
        pending_reserve(d) == 0 && store_dir_append(d, &e->id, form, &fresh, NULL) == 0) {
        pending_add(d, &fresh);
    }
    (void)pthread_mutex_unlock(&d->lock);
}

static int dir_get(void *self, const struct seg_id *id, struct wbuf *out, struct seg_form *form,
                   struct plx_err *err)
{
    struct store_dir *d = self;
    struct index_entry e, last = {.pack = 0};
    int rc = PLX_ENOENT;

    /* A sweep may have moved it between look-up and read. */
    for (int i = 0; i < MOVED_TRIES; i++) {
        int found = find(d, id, &e, err);
        if (found <= 0) {
            char hex[SHA256_HEX];
            return found < 0 ? found
                             : plx_fail(err, PLX_ENOENT, "store %s: no segment %s", d->path,
                                        sha256_hex(id->sha, hex));
        }
        if (rc != PLX_ENOENT && e.pack == last.pack && e.off == last.off) {
            return rc; /* it did not move: damaged */
        }
        rc = store_dir_read(d, &e, out, form, err);
        if (rc == 0) {
            if (d->limit != 0) {
                refresh(d, &e, form);
            }
            return 0;
        }
        if (rc != PLX_ECORRUPT && rc != PLX_ENOENT) {
            return rc;
        }
        last = e;
    }
    return rc;
}

/* --- listing -------------------------------------------------------------------------------- */

static int gather(void *ctx, const struct index_entry *e)
{
    return index_list_add(ctx, e);
}

static void check_header(struct store_dir *d, uint32_t number, seg_damage_fn bad, void *ctx)
{
    uint8_t header[PACK_HEADER];
    char path[DIR_PATH_MAX];

    store_dir_pack_path(d, number, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || io_pread_full(fd, header, sizeof header, 0) != (ssize_t)sizeof header ||
        !pack_header_good(header, number)) {
        bad(ctx, path, NULL, fd < 0 ? "the pack is missing" : "the pack's header is damaged");
    }
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* What the index says must be in the packs, every bit of it. What is in the packs besides is
 * garbage, and its state does not matter. */
static int dir_each(void *self,
                    int (*each)(void *ctx, const struct seg_id *id, const struct seg_form *form,
                                const char *where),
                    seg_damage_fn bad, void *ctx, struct plx_err *err)
{
    struct store_dir *d = self;
    struct index_list all = {0};
    struct wbuf buf;
    int rc = index_each(d->index, gather, &all, err);

    wbuf_init(&buf);
    if (rc == 0) {
        index_list_sort(&all);
    }
    for (size_t i = 0; i < all.n && rc == 0; i++) {
        const struct index_entry *e = &all.items[i];
        struct seg_form form = {0};
        struct plx_err why;
        char where[DIR_PATH_MAX + 32];
        if (bad != NULL && (i == 0 || all.items[i - 1].pack != e->pack)) {
            check_header(d, e->pack, bad, ctx);
        }
        (void)snprintf(where, sizeof where, "%s/packs/%08x at %llu", d->path, e->pack,
                       (unsigned long long)e->off);
        if (bad != NULL && store_dir_read(d, e, &buf, &form, &why) != 0) {
            struct index_entry now;
            if (index_find(d->index, &e->id, &now, NULL) == 1 &&
                (now.pack != e->pack || now.off != e->off) &&
                store_dir_read(d, &now, &buf, &form, &why) == 0) {
                rc = each(ctx, &e->id, &form, where); /* a sweep had moved it */
            } else if (index_find(d->index, &e->id, &now, NULL) == 1) {
                bad(ctx, where, &e->id, why.msg);
            }
        } else {
            form.raw_len = e->raw_len;
            form.stored_len = e->stored_len;
            rc = each(ctx, &e->id, &form, where);
        }
    }
    wbuf_free(&buf);
    plx_free(all.items);
    return rc == PLX_ENOMEM ? plx_fail(err, rc, "store %s: out of memory", d->path) : rc;
}

static int add_totals(void *ctx, const struct index_entry *e)
{
    struct seg_totals *t = ctx;

    t->segments++;
    t->raw_bytes += e->raw_len;
    t->stored_bytes += e->stored_len;
    return 0;
}

static int dir_totals(void *self, struct seg_totals *out, struct plx_err *err)
{
    struct store_dir *d = self;
    uint32_t *packs;
    size_t n;

    *out = (struct seg_totals){0};
    int rc = index_each(d->index, add_totals, out, err);
    if (rc == 0) {
        rc = store_dir_packs(d, &packs, &n, err);
    }
    if (rc == 0) {
        struct stat st;
        char path[DIR_PATH_MAX];
        for (size_t i = 0; i < n; i++) {
            store_dir_pack_path(d, packs[i], path);
            out->used_bytes += stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
        }
        plx_free(packs);
    }
    return rc;
}

/* --- life ----------------------------------------------------------------------------------- */

static void dir_close(void *self)
{
    struct store_dir *d = self;

    if (d == NULL) {
        return;
    }
    store_dir_end_pack(d);
    for (int i = 0; i < DIR_OPEN_PACKS; i++) {
        if (d->open[i].fd >= 0) {
            (void)close(d->open[i].fd);
        }
    }
    for (size_t i = 0; i < d->npending && d->claims != NULL; i++) {
        claims_drop(d->claims, &d->pending[i].id);
    }
    claims_close(d->claims);
    index_close(d->index);
    plx_free(d->pending);
    plx_free(d->pending_at);
    plx_free(d->writer.buf);
    (void)pthread_mutex_destroy(&d->lock);
    (void)pthread_mutex_destroy(&d->commit_lock);
    plx_free(d->path);
    plx_free(d);
}

static const struct seg_ops dir_ops = {
    .kind = "directory",
    .has = dir_has,
    .put = dir_put,
    .get = dir_get,
    .commit = store_dir_commit,
    .rest = dir_rest,
    .claim = dir_claim,
    .name_put = store_dir_name_put,
    .name_get = store_dir_name_get,
    .name_del = store_dir_name_del,
    .name_each = store_dir_name_each,
    .sweep = store_dir_sweep,
    .lease = store_dir_lease,
    .lease_end = store_dir_lease_end,
    .lease_each = store_dir_lease_each,
    .hold = store_dir_hold,
    .held_get = store_dir_held_get,
    .hold_end = store_dir_hold_end,
    .each = dir_each,
    .totals = dir_totals,
    .close = dir_close,
};

static int make_folders(const char *path, bool create, struct plx_err *err)
{
    static const char *const subs[] = {"", "/packs", "/names", "/leases"};
    char sub[DIR_PATH_MAX];
    struct stat st;

    (void)snprintf(sub, sizeof sub, "%s/packs", path);
    if (stat(sub, &st) == 0) {
        create = true; /* what is missing of a store is made */
    }
    for (unsigned i = 0; i < PLX_COUNT(subs); i++) {
        (void)snprintf(sub, sizeof sub, "%s%s", path, subs[i]);
        if (!create && stat(sub, &st) != 0) {
            return plx_fail(err, PLX_ENOENT, "%s is not a store: `pollux image push` makes one",
                            path);
        }
        if (create && mkdir(sub, 0750) != 0 && errno != EEXIST) {
            return plx_fail_errno(err, "cannot make %s", sub);
        }
    }
    return 0;
}

static int open_dir(const struct store_dir_config *cfg, struct store_dir **out, struct plx_err *err)
{
    char path[DIR_PATH_MAX];
    bool fresh = false;
    uint32_t *packs;
    size_t n;

    *out = NULL;
    if (strlen(cfg->path) > DIR_PATH_MAX - 256) {
        return plx_fail(err, PLX_ERANGE, "store: the path is too long");
    }
    int rc = make_folders(cfg->path, cfg->create, err);
    if (rc != 0) {
        return rc;
    }
    struct store_dir *d = plx_calloc(1, sizeof *d);
    if (d == NULL || (d->path = plx_strdup(cfg->path)) == NULL) {
        plx_free(d);
        return plx_fail(err, PLX_ENOMEM, "store %s: out of memory", cfg->path);
    }
    d->limit = cfg->limit;
    d->pack_max = PACK_MAX;
    if (d->limit != 0 && d->limit / CACHE_PACKS < PACK_MAX) {
        d->pack_max = d->limit / CACHE_PACKS < PACK_MIN ? PACK_MIN : d->limit / CACHE_PACKS;
    }
    d->writer.fd = -1;
    for (int i = 0; i < DIR_OPEN_PACKS; i++) {
        d->open[i].fd = -1;
    }
    (void)pthread_mutex_init(&d->lock, NULL);
    (void)pthread_mutex_init(&d->commit_lock, NULL);
    (void)snprintf(path, sizeof path, "%s/index.mdb", d->path);
    rc = index_open(path, &d->index, &fresh, err);
    if (rc == 0) {
        rc = store_dir_packs(d, &packs, &n, err);
    }
    if (rc == 0) {
        d->newest = n == 0 ? 0 : packs[n - 1];
        plx_free(packs);
        if (fresh && n > 0) {
            uint64_t found;
            log_warn("store %s: the index is gone; making it again from %zu packs", d->path, n);
            rc = store_dir_rebuild(d, &found, err);
        }
    }
    if (rc != 0) {
        dir_close(d);
        return plx_err_wrap(err, rc, "store %s", cfg->path);
    }
    *out = d;
    return 0;
}

int store_dir_open(const struct store_dir_config *cfg, const struct seg_ops **ops, void **self,
                   struct plx_err *err)
{
    struct store_dir *d;
    int rc = open_dir(cfg, &d, err);

    *ops = &dir_ops;
    *self = d;
    return rc;
}

int store_dir_reindex(const char *path, uint64_t *segments, struct plx_err *err)
{
    struct store_dir_config cfg = {.path = path};
    char old[DIR_PATH_MAX], kept[DIR_PATH_MAX];
    struct store_dir *d;

    (void)snprintf(old, sizeof old, "%s/index.mdb", path);
    (void)snprintf(kept, sizeof kept, "%s/index.damaged", path);
    if (rename(old, kept) != 0 && errno != ENOENT) {
        return plx_fail_errno(err, "cannot put %s aside", old);
    }
    int rc = open_dir(&cfg, &d, err);
    if (rc == 0) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): 0 comes with a store */
        *segments = index_count(d->index);
        dir_close(d);
    }
    return rc;
}
