/* SPDX-License-Identifier: Apache-2.0
 * storage/store_dir_sweep.c - what makes a store directory smaller: sweeps, eviction of a cache;
 * and the index made again (store_dir.h).
 *
 * A sweep first drops entries from the index, in one transaction; then deals with packs of which
 * little is left: what lives moves to a new pack, which is synced and entered before the old one
 * goes. Who had looked up the old place finds the pack gone, or another record there, and looks
 * again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"
#include "storage/store_dir_priv.h"

enum { KEEP_PERCENT = 75 }; /* packs of which less lives are written again */

struct pack_use {
    uint32_t number;
    bool held; /* by a live writer */
    uint64_t size, live;
};

struct sweep {
    struct store_dir *d;
    const struct seg_set *live;
    struct pack_use *packs;
    size_t npacks;
    struct seg_sweep *out;
    struct index_list moves; /* of packs that are written again */
};

static struct pack_use *pack_of(struct sweep *s, uint32_t number)
{
    size_t low = 0, high = s->npacks;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->packs[mid].number < number) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < s->npacks && s->packs[low].number == number ? &s->packs[low] : NULL;
}

static int look_at_packs(struct sweep *s, struct plx_err *err)
{
    uint32_t *numbers;
    int rc = store_dir_packs(s->d, &numbers, &s->npacks, err);

    if (rc != 0) {
        return rc;
    }
    s->packs = plx_calloc(s->npacks + 1, sizeof *s->packs);
    for (size_t i = 0; i < s->npacks && s->packs != NULL; i++) {
        char path[DIR_PATH_MAX];
        struct stat st;
        store_dir_pack_path(s->d, numbers[i], path);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        s->packs[i].number = numbers[i];
        s->packs[i].held = fd < 0 || store_dir_pack_held(fd);
        s->packs[i].size = fd >= 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    plx_free(numbers);
    return s->packs == NULL ? plx_fail(err, PLX_ENOMEM, "store %s: out of memory", s->d->path) : 0;
}

static bool drop_entry(void *ctx, const struct index_entry *e)
{
    struct sweep *s = ctx;
    struct pack_use *p = pack_of(s, e->pack);

    /* A pack made after we looked belongs to a live writer. */
    if (p == NULL || p->held || seg_set_has(s->live, &e->id)) {
        s->out->live++;
        s->out->live_bytes += e->stored_len;
        if (p != NULL) {
            p->live += PACK_RECORD + (uint64_t)e->stored_len;
        }
        return false;
    }
    s->out->dropped++;
    s->out->dropped_bytes += e->stored_len;
    return true;
}

/* Worth writing again, or all of it garbage. */
static bool wasteful(const struct pack_use *p)
{
    return !p->held && p->live < p->size / 100 * KEEP_PERCENT;
}

static int gather_move(void *ctx, const struct index_entry *e)
{
    struct sweep *s = ctx;
    const struct pack_use *p = pack_of(s, e->pack);

    if (p == NULL || !wasteful(p)) {
        return 0;
    }
    return index_list_add(&s->moves, e);
}

/* Copy one batch of entries, then enter their new places. */
static int move_batch(struct sweep *s, struct index_entry *old, size_t n, struct plx_err *err)
{
    struct store_dir *d = s->d;
    struct index_entry *fresh = plx_calloc(n, sizeof *fresh);
    struct index_txn *t = NULL;
    struct wbuf buf;
    int rc = fresh == NULL ? plx_fail(err, PLX_ENOMEM, "store %s: out of memory", d->path) : 0;

    wbuf_init(&buf);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct seg_form form;
        rc = store_dir_read(d, &old[i], &buf, &form, err);
        if (rc == 0) {
            (void)pthread_mutex_lock(&d->lock);
            rc = store_dir_append(d, &old[i].id, &form, &fresh[i], err);
            (void)pthread_mutex_unlock(&d->lock);
        }
    }
    wbuf_free(&buf);
    if (rc == 0) {
        (void)pthread_mutex_lock(&d->lock);
        rc = store_dir_flush(d, err);
        int fd = fcntl(d->writer.fd, F_DUPFD_CLOEXEC, 3);
        (void)pthread_mutex_unlock(&d->lock);
        if (rc == 0 && (fd < 0 || fdatasync(fd) != 0)) {
            rc = plx_fail_errno(err, "cannot sync a pack of %s", d->path);
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    if (rc == 0) {
        rc = index_begin(d->index, &t, err);
    }
    for (size_t i = 0; i < n && rc >= 0 && t != NULL; i++) {
        struct index_entry now;
        rc = index_txn_find(t, &old[i].id, &now, err);
        if (rc == 1 && now.pack == old[i].pack && now.off == old[i].off) {
            rc = index_txn_put(t, &fresh[i], true, err);
        }
    }
    if (rc < 0) {
        index_abort(t);
    } else if (t != NULL) {
        rc = index_commit(t, err);
    }
    plx_free(fresh);
    return rc;
}

/* Batches end where packs do, so that no pack of ours gets too long. */
static int move_all(struct sweep *s, struct plx_err *err)
{
    struct store_dir *d = s->d;
    int rc = store_dir_commit(d, err);

    index_list_sort(&s->moves);
    for (size_t at = 0, end; at < s->moves.n && rc == 0; at = end) {
        for (end = at; end < s->moves.n && s->moves.items[end].pack == s->moves.items[at].pack;
             end++) {
        }
        (void)pthread_mutex_lock(&d->commit_lock); /* nobody ends the pack that it moves to */
        rc = move_batch(s, &s->moves.items[at], end - at, err);
        (void)pthread_mutex_lock(&d->lock);
        if (rc == 0 && d->npending == 0 && d->writer.end >= d->pack_max) {
            store_dir_end_pack(d);
        }
        (void)pthread_mutex_unlock(&d->lock);
        (void)pthread_mutex_unlock(&d->commit_lock);
    }
    return rc;
}

static void remove_pack(struct store_dir *d, const struct pack_use *p, uint64_t *freed)
{
    char path[DIR_PATH_MAX];

    store_dir_pack_path(d, p->number, path);
    if (unlink(path) == 0) {
        *freed += p->size;
        store_dir_forget_pack(d, p->number);
    }
}

static int sweep_lock(struct store_dir *d, int *fd, struct plx_err *err)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[DIR_PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/sweep.lock", d->path);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (*fd < 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    if (fcntl(*fd, F_OFD_SETLK, &l) != 0) {
        (void)close(*fd);
        return plx_fail(err, PLX_EBUSY, "store %s: another gc is running", d->path);
    }
    return 0;
}

static int drop_entries(struct sweep *s,
                        int (*mark)(void *ctx, struct seg_set *live, struct plx_err *err),
                        void *ctx, struct plx_err *err)
{
    struct seg_set live = {0};
    struct index_txn *t;
    int rc = index_begin(s->d->index, &t, err);

    if (rc != 0) {
        return rc;
    }
    rc = look_at_packs(s, err);
    if (rc == 0) {
        rc = mark(ctx, &live, err);
    }
    if (rc == 0) {
        s->live = &live;
        rc = index_txn_filter(t, drop_entry, s, err);
    }
    s->live = NULL;
    seg_set_free(&live);
    if (rc != 0) {
        index_abort(t);
        return rc;
    }
    return index_commit(t, err);
}

int store_dir_sweep(void *self, int (*mark)(void *ctx, struct seg_set *live, struct plx_err *err),
                    void *ctx, struct seg_sweep *out, struct plx_err *err)
{
    struct store_dir *d = self;
    struct sweep s = {.d = d, .out = out};
    int lock;

    *out = (struct seg_sweep){0};
    int rc = store_dir_commit(d, err);
    if (rc == 0) {
        rc = sweep_lock(d, &lock, err);
    }
    if (rc != 0) {
        return rc;
    }
    rc = drop_entries(&s, mark, ctx, err);
    if (rc == 0) {
        rc = index_each(d->index, gather_move, &s, err);
    }
    if (rc == 0) {
        rc = move_all(&s, err);
    }
    for (size_t i = 0; i < s.npacks && rc == 0; i++) {
        if (wasteful(&s.packs[i])) {
            remove_pack(d, &s.packs[i], &out->freed_bytes);
        }
    }
    if (rc == 0) {
        rc = store_dir_sync(d, "packs", err);
    }
    for (size_t i = 0; i < s.moves.n; i++) {
        uint64_t moved = PACK_RECORD + (uint64_t)s.moves.items[i].stored_len;
        out->freed_bytes -= out->freed_bytes < moved ? out->freed_bytes : moved;
    }
    plx_free(s.packs);
    plx_free(s.moves.items);
    (void)close(lock);
    return rc;
}

/* --- a cache -------------------------------------------------------------------------------- */

static bool in_old_pack(void *ctx, const struct index_entry *e)
{
    return e->pack <= *(const uint32_t *)ctx;
}

int store_dir_evict(struct store_dir *d, struct plx_err *err)
{
    struct sweep s = {.d = d};
    struct index_txn *t;
    uint64_t total = 0, freed = 0;
    size_t gone = 0;
    int rc = look_at_packs(&s, err);

    for (size_t i = 0; i < s.npacks && rc == 0; i++) {
        total += s.packs[i].size;
    }
    while (rc == 0 && gone < s.npacks && total > d->limit && !s.packs[gone].held) {
        total -= s.packs[gone++].size;
    }
    if (rc == 0 && gone > 0) {
        uint32_t last = s.packs[gone - 1].number;
        rc = index_begin(d->index, &t, err);
        if (rc == 0) {
            rc = index_txn_filter(t, in_old_pack, &last, err);
            if (rc == 0) {
                rc = index_commit(t, err);
            } else {
                index_abort(t);
            }
        }
        for (size_t i = 0; i < gone && rc == 0; i++) {
            remove_pack(d, &s.packs[i], &freed);
        }
    }
    plx_free(s.packs);
    return rc;
}

/* --- the index again ------------------------------------------------------------------------ */

/* Enter every good record of a pack up to the first that is none. */
static int enter_pack(struct store_dir *d, uint32_t number, struct index_txn *t, uint64_t *found,
                      struct plx_err *err)
{
    uint8_t header[PACK_RECORD];
    struct pack_record r;
    char path[DIR_PATH_MAX];
    struct wbuf buf;
    int rc = 0;

    store_dir_pack_path(d, number, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    wbuf_init(&buf);
    for (uint64_t off = PACK_HEADER;
         io_pread_full(fd, header, sizeof header, off) == (ssize_t)sizeof header &&
         pack_record_get(header, number, off, &r) == 0;
         off += PACK_RECORD + (uint64_t)r.stored_len) {
        struct index_entry e = {.id = r.id,
                                .pack = number,
                                .raw_len = r.raw_len,
                                .stored_len = r.stored_len,
                                .off = off};
        struct seg_form form;
        if (pack_read(fd, number, off, r.stored_len, &r.id, &buf, &form, NULL) != 0) {
            continue; /* damaged: as good as not there */
        }
        rc = index_txn_put(t, &e, false, err);
        if (rc < 0) {
            break;
        }
        *found += rc == 1;
    }
    wbuf_free(&buf);
    (void)close(fd);
    return rc < 0 ? rc : 0;
}

int store_dir_rebuild(struct store_dir *d, uint64_t *segments, struct plx_err *err)
{
    struct index_txn *t;
    uint32_t *packs;
    size_t n;
    int rc = store_dir_packs(d, &packs, &n, err);

    *segments = 0;
    if (rc != 0) {
        return rc;
    }
    rc = index_begin(d->index, &t, err);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = enter_pack(d, packs[i], t, segments, err);
        if (rc != 0) {
            index_abort(t);
        }
    }
    if (rc == 0) {
        rc = index_commit(t, err);
    }
    plx_free(packs);
    return rc;
}
