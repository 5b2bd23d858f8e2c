/* SPDX-License-Identifier: Apache-2.0
 * storage/chain.c - reads and changes of a chain (chain.h): the top layer answers for what it has,
 * the next for the rest. */
#include "storage/chain.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/chain_int.h"

static struct chain *chain_of(struct disk *d)
{
    return (struct chain *)d;
}

/* Who answers for all of a unit (chain_int.h). */
static uint8_t ask_layers(struct chain *c, uint64_t unit)
{
    uint64_t len = UINT64_C(1) << c->unit_shift;
    struct vhdx_run run = {.where = VHDX_PARENT};
    unsigned k = c->fixed;

    for (; k < c->n; k++) {
        if (vhdx_map(c->layers[k], unit << c->unit_shift, len, &run, NULL) != 0 || run.len < len) {
            return CHAIN_MIXED;
        }
        if (run.where != VHDX_PARENT) {
            break;
        }
    }
    return k + CHAIN_ANSWER <= UINT8_MAX ? (uint8_t)(k + CHAIN_ANSWER) : CHAIN_MIXED;
}

static uint8_t answer_of(struct chain *c, uint64_t unit)
{
    uint8_t a = atomic_load_explicit(&c->answers[unit], memory_order_relaxed);

    if (a == 0) {
        a = ask_layers(c, unit);
        atomic_store_explicit(&c->answers[unit], a, memory_order_relaxed);
    }
    return a;
}

/* The first fixed layer to ask about @off, which is the last one too if one answers for whole units
 * from there on: reads of a deep chain would otherwise look into the bitmaps of every layer. */
static unsigned first_fixed(struct chain *c, uint64_t off, uint64_t *len)
{
    uint64_t unit = off >> c->unit_shift, end = unit + 1;
    uint8_t a = c->answers == NULL || unit >= c->units ? CHAIN_MIXED : answer_of(c, unit);

    if (a == CHAIN_MIXED) {
        return c->fixed;
    }
    while ((end << c->unit_shift) - off < *len && end < c->units && end - unit < CHAIN_UNITS_RUN &&
           answer_of(c, end) == a) {
        end++;
    }
    uint64_t left = (end << c->unit_shift) - off;
    *len = *len < left ? *len : left;
    return a - CHAIN_ANSWER;
}

/* The layer that answers for @off, and how far. VHDX_PARENT: the base does. */
static int look(struct chain *c, uint64_t off, uint64_t len, struct vhdx_run *run, unsigned *depth,
                struct plx_err *err)
{
    int rc = 0;

    run->len = len;
    for (*depth = 0; *depth < c->n; ++*depth) {
        if (*depth == c->fixed && (*depth = first_fixed(c, off, &run->len)) == c->n) {
            break;
        }
        rc = vhdx_map(c->layers[*depth], off, run->len, run, err);
        if (rc != 0 || run->where != VHDX_PARENT) {
            return rc;
        }
    }
    if (c->base != NULL && off < c->base->geo.bytes) {
        *depth = c->n;
        run->where = VHDX_PARENT;
        run->len = run->len < c->base->geo.bytes - off ? run->len : c->base->geo.bytes - off;
        return rc;
    }
    *depth = c->n - 1;
    run->where = VHDX_ZEROS; /* beyond a parent's end, or a top opened without its parents */
    return rc;
}

static int chain_read(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    struct chain *c = chain_of(d);
    unsigned token = d->writable ? vhdx_enter(c->layers[0]) : 0;
    uint8_t *p = buf;
    int rc = 0;

    while (len > 0 && rc == 0) {
        struct vhdx_run run;
        unsigned depth;
        rc = look(c, off, len, &run, &depth, err);
        if (rc == 0 && run.where == VHDX_HERE) {
            rc = io_read(vhdx_file(c->layers[depth]), p, run.len, run.file_off, err);
        } else if (rc == 0 && run.where == VHDX_PARENT) {
            rc = disk_read(c->base, p, run.len, off, err);
        } else if (rc == 0) {
            memset(p, 0, run.len);
        }
        p += run.len;
        off += run.len;
        len -= run.len;
    }
    if (d->writable) {
        vhdx_leave(c->layers[0], token);
    }
    return rc;
}

/* In whole logical sectors. */
static int write_sectors(struct chain *c, const uint8_t *p, uint64_t len, uint64_t off,
                         struct plx_err *err)
{
    struct vhdx *top = c->layers[0];
    unsigned token = vhdx_enter(top);
    int rc = 0;

    while (len > 0 && rc == 0) {
        struct vhdx_write w;
        rc = vhdx_write_begin(top, off, len, &w, err);
        if (rc != 0) {
            break;
        }
        int done = io_write(vhdx_file(top), p, w.len, w.file_off, err);
        rc = vhdx_write_end(top, &w, done == 0, err);
        rc = done != 0 ? done : rc;
        p += w.len;
        off += w.len;
        len -= w.len;
    }
    vhdx_leave(top, token);
    return rc;
}

/* Part of one logical sector: with what is around it. @p NULL: zeros. */
static int write_part(struct chain *c, const uint8_t *p, uint64_t len, uint64_t off,
                      struct plx_err *err)
{
    uint8_t sector[4096];
    uint64_t in = off % c->d.geo.logical_sector;

    (void)pthread_mutex_lock(&c->part_lock);
    int rc = chain_read(&c->d, sector, c->d.geo.logical_sector, off - in, err);
    if (rc == 0) {
        if (p != NULL) {
            memcpy(sector + in, p, len);
        } else {
            memset(sector + in, 0, len);
        }
        rc = write_sectors(c, sector, c->d.geo.logical_sector, off - in, err);
    }
    (void)pthread_mutex_unlock(&c->part_lock);
    return rc;
}

/* Bytes at the start that are not whole logical sectors; else how many whole ones there are. */
static uint64_t piece(const struct chain *c, uint64_t off, uint64_t len, bool *whole)
{
    uint64_t sector = c->d.geo.logical_sector, in = off % sector;

    *whole = in == 0 && len >= sector;
    return *whole ? len - len % sector : sector - in < len ? sector - in : len;
}

static int chain_write(struct disk *d, const void *buf, uint64_t len, uint64_t off,
                       struct plx_err *err)
{
    const uint8_t *p = buf;
    int rc = 0;

    while (len > 0 && rc == 0) {
        bool whole;
        uint64_t n = piece(chain_of(d), off, len, &whole);
        rc = whole ? write_sectors(chain_of(d), p, n, off, err)
                   : write_part(chain_of(d), p, n, off, err);
        p += n;
        off += n;
        len -= n;
    }
    return rc;
}

static int chain_zero(struct disk *d, uint64_t len, uint64_t off, bool discard, struct plx_err *err)
{
    int rc = 0;

    while (len > 0 && rc == 0) {
        bool whole;
        uint64_t n = piece(chain_of(d), off, len, &whole);
        rc = whole ? vhdx_zero(chain_of(d)->layers[0], off, n, discard, err)
                   : write_part(chain_of(d), NULL, n, off, err);
        off += n;
        len -= n;
    }
    return rc;
}

static int chain_flush(struct disk *d, struct plx_err *err)
{
    return vhdx_flush(chain_of(d)->layers[0], err);
}

static int chain_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
                     struct plx_err *err)
{
    struct chain *c = chain_of(d);
    struct vhdx_run run;
    unsigned depth;
    int rc = look(c, off, len, &run, &depth, err);
    bool data = true;
    uint64_t end;

    if (rc == 0 && run.where == VHDX_PARENT) {
        rc = disk_map(c->base, off, run.len, out, err);
        out->depth = depth;
        return rc;
    }
    if (rc == 0 && run.where == VHDX_HERE) { /* a hole in its file is zeros too */
        struct io_file *f = vhdx_file(c->layers[depth]);
        rc = io_extent(f, run.file_off, run.file_off + run.len, &data, &end, err);
        if (rc == 0 && (end - run.file_off) % DISK_SECTOR == 0 && end > run.file_off) {
            run.len = end - run.file_off;
        } else {
            data = true;
        }
    }
    *out =
        (struct disk_extent){.off = off, .len = run.len, .kind = DISK_EXTENT_ZERO, .depth = depth};
    if (rc == 0 && run.where == VHDX_HERE && data) {
        out->kind = DISK_EXTENT_DATA;
        out->file = vhdx_file(c->layers[depth]);
        out->file_off = run.file_off;
    }
    return rc;
}

static int chain_identity(struct disk *d, struct disk_guid *out, struct plx_err *err)
{
    (void)err;
    *out = vhdx_identity(chain_of(d)->layers[0]);
    return 0;
}

/* --- without blocking ----------------------------------------------------------------------- */

/* What a request keeps while its pieces are under way (disk_request.plan_words). */
struct plan {
    uint64_t token, n;
    struct vhdx_write w[DISK_PIECES];
};
_Static_assert(sizeof(struct plan) <= sizeof((struct disk_request *)0)->plan_words, "fits");

static void piece_done(struct io_request *io, int rc, const struct plx_err *err)
{
    struct disk_request *r = io->ctx;
    struct vhdx *top = chain_of(r->disk)->layers[0];
    struct plan *plan = r->plan;

    if (rc != 0 && r->rc == 0) {
        r->rc = rc;
        r->err = *err;
    }
    if (--r->left != 0) {
        return;
    }
    for (unsigned i = 0; r->op == DISK_OP_WRITE && i < plan->n; i++) {
        int ended = vhdx_write_end(top, &plan->w[i], r->rc == 0, &r->err);
        r->rc = r->rc != 0 ? r->rc : ended;
    }
    if (r->disk->writable) {
        vhdx_leave(top, (unsigned)plan->token);
    }
    r->done(r);
}

static void add_piece(struct disk_request *r, enum io_kind kind, struct io_file *f, uint64_t done,
                      uint64_t len, uint64_t file_off)
{
    r->io[r->left++] = (struct io_request){.kind = kind,
                                           .file = f,
                                           .buf = (uint8_t *)r->buf + done,
                                           .len = len,
                                           .off = file_off,
                                           .done = piece_done,
                                           .ctx = r};
}

/* A large read in more pieces than this goes the blocking way: one thread of the queue copies them
 * all, as it would a read in one piece, while this one goes on. */
enum { READ_PIECES = 4 };

static bool plan_read(struct chain *c, struct disk_request *r)
{
    unsigned most = r->len > IO_AT_ONCE ? READ_PIECES : DISK_PIECES;

    for (uint64_t done = 0; done < r->len;) {
        struct vhdx_run run;
        unsigned depth;
        if (r->left == most || look(c, r->off + done, r->len - done, &run, &depth, NULL) != 0 ||
            run.where == VHDX_PARENT) {
            return false;
        }
        if (run.where == VHDX_HERE) {
            add_piece(r, IO_KIND_READ, vhdx_file(c->layers[depth]), done, run.len, run.file_off);
        } else {
            memset((uint8_t *)r->buf + done, 0, run.len);
        }
        done += run.len;
    }
    if (r->left == 0) {
        add_piece(r, IO_KIND_NOTHING, NULL, 0, 0, 0);
    }
    return true;
}

static bool plan_write(struct chain *c, struct disk_request *r, struct plan *plan)
{
    struct vhdx *top = c->layers[0];

    if (r->off % c->d.geo.logical_sector != 0 || r->len % c->d.geo.logical_sector != 0) {
        return false;
    }
    for (uint64_t done = 0; done < r->len;) {
        struct vhdx_write *w = &plan->w[plan->n];
        if (plan->n == DISK_PIECES || !vhdx_write_fast(top, r->off + done, r->len - done, w)) {
            return false;
        }
        plan->n++;
        add_piece(r, IO_KIND_WRITE, vhdx_file(top), done, w->len, w->file_off);
        done += w->len;
    }
    return true;
}

static bool chain_submit(struct disk *d, struct io_queue *q, struct disk_request *r)
{
    struct chain *c = chain_of(d);
    struct plan *plan = (struct plan *)(void *)r->plan_words;

    r->plan = plan;
    r->left = 0;
    plan->n = 0;
    plan->token = d->writable ? vhdx_enter(c->layers[0]) : 0;
    if (r->op == DISK_OP_READ ? !plan_read(c, r) : !plan_write(c, r, plan)) {
        if (d->writable) {
            vhdx_leave(c->layers[0], (unsigned)plan->token);
        }
        return false;
    }
    for (unsigned i = 0, n = r->left; i < n; i++) {
        io_queue_submit(q, &r->io[i]);
    }
    return true;
}

/* --- life ----------------------------------------------------------------------------------- */

static int chain_close(struct disk *d, struct plx_err *err)
{
    struct chain *c = chain_of(d);
    int rc = 0;

    for (unsigned i = 0; i < c->n; i++) {
        int closed = vhdx_close(c->layers[i], i == 0 ? err : NULL);
        rc = i == 0 ? closed : rc;
    }
    (void)disk_close(c->base, NULL);
    (void)pthread_mutex_destroy(&c->part_lock);
    plx_free((void *)c->answers);
    plx_free(c->layers);
    plx_free(c->path);
    plx_free(c);
    return rc;
}

static const struct disk_ops chain_ops = {
    .format = "vhdx",
    .read = chain_read,
    .write = chain_write,
    .zero = chain_zero,
    .flush = chain_flush,
    .map = chain_map,
    .identity = chain_identity,
    .submit = chain_submit,
    .close = chain_close,
};

struct chain *chain_new(const char *path)
{
    struct chain *c = plx_calloc(1, sizeof *c);

    if (c == NULL) {
        return NULL;
    }
    c->d.ops = &chain_ops;
    c->path = plx_strdup(path);
    c->d.path = c->path;
    (void)pthread_mutex_init(&c->part_lock, NULL);
    if (c->path == NULL) {
        (void)chain_close(&c->d, NULL);
        return NULL;
    }
    return c;
}

bool disk_is_chain(const struct disk *d)
{
    return d->ops == &chain_ops;
}

unsigned chain_depth(const struct disk *d)
{
    return ((const struct chain *)d)->n;
}

struct vhdx *chain_layer(const struct disk *d, unsigned i)
{
    const struct chain *c = (const struct chain *)d;

    PLX_CHECK(disk_is_chain(d) && i < c->n);
    return c->layers[i];
}

struct disk *chain_base(const struct disk *d)
{
    PLX_CHECK(disk_is_chain(d));
    return ((const struct chain *)d)->base;
}
