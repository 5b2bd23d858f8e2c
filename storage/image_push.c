/* SPDX-License-Identifier: Apache-2.0
 * storage/image_push.c - images into a store (image.h); image_push_name.c gives them their names.
 *
 * The source is taken in regions; each thread takes the next one, reads it, cuts it, names the
 * pieces and puts those that are new. Ends of regions are ends of segments, which costs less than
 * one segment in two hundred and makes threads independent. What another writer is putting at this
 * moment is left to it and looked for at the end. */
#include "storage/image_push_priv.h"

#include <sched.h>
#include <signal.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"

enum { REGION = 8 << 20, WINDOW = 512 << 10, PIECES = 16, THREADS_MAX = 64 };
#define COMMIT_EVERY_NS UINT64_C(2000000000) /* what an interruption costs at most */
#define OTHER_WAIT_NS   UINT64_C(5000000)
#define OTHER_GIVE_UP   2000 /* waits for a writer that does not get on */

/* The segments of one region, in order. */
struct push_region {
    struct manifest_segment *segs;
    size_t n, cap;
};

/* One that another writer was putting. */
struct push_late {
    uint64_t region;
    size_t at; /* in the region */
};

unsigned image_threads(unsigned asked)
{
    cpu_set_t set;
    unsigned n = 1;

    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        n = (unsigned)CPU_COUNT(&set);
    }
    n = asked != 0 ? asked : n;
    return n > THREADS_MAX ? THREADS_MAX : n;
}

static int read_source(const struct push_source *s, uint8_t *buf, uint64_t off, size_t len,
                       struct plx_err *err)
{
    if (s->disk == NULL) {
        memcpy(buf, s->mem + off, len);
        return 0;
    }
    return disk_read(s->disk, buf, len, off, err);
}

static int add_segment(struct push_region *r, uint64_t off, size_t len, const struct seg_id *id)
{
    if (r->n == r->cap) {
        size_t cap = r->cap == 0 ? 64 : 2 * r->cap;
        struct manifest_segment *segs = plx_realloc(r->segs, cap * sizeof *segs);
        if (segs == NULL) {
            return PLX_ENOMEM;
        }
        r->segs = segs;
        r->cap = cap;
    }
    r->segs[r->n++] = (struct manifest_segment){.off = off, .len = (uint32_t)len, .id = *id};
    return 0;
}

static int put_off(struct push *p, uint64_t region, size_t at)
{
    int rc = 0;

    (void)pthread_mutex_lock(&p->lock);
    if (p->nlate == p->late_cap) {
        size_t cap = p->late_cap == 0 ? 64 : 2 * p->late_cap;
        struct push_late *late = plx_realloc(p->late, cap * sizeof *late);
        if (late == NULL) {
            rc = PLX_ENOMEM;
        } else {
            p->late = late;
            p->late_cap = cap;
        }
    }
    if (rc == 0) {
        p->late[p->nlate++] = (struct push_late){.region = region, .at = at};
    }
    (void)pthread_mutex_unlock(&p->lock);
    return rc;
}

/* One piece, put if it is new. */
static int put_piece(struct push *p, uint64_t region, const struct seg_id *id, enum seg_state state,
                     const uint8_t *data, size_t len, uint64_t off, struct image_progress *sum,
                     struct plx_err *err)
{
    struct push_region *r = &p->regions[region];
    uint64_t stored = 0;
    int rc = STORE_SHARED;

    if (add_segment(r, off, len, id) != 0) {
        return push_no_memory(err);
    }
    if (state == SEG_COMING) { /* shared by the other writer's work */
        rc = put_off(p, region, r->n - 1) != 0 ? push_no_memory(err) : STORE_SHARED;
    } else if (state == SEG_ABSENT) {
        rc = store_put_named(p->store, data, len, id, &stored, err);
    }
    sum->shared_bytes += rc == STORE_SHARED ? len : 0;
    sum->shared += rc == STORE_SHARED;
    sum->data_bytes += len;
    sum->stored_bytes += stored;
    sum->segments++;
    return rc < 0 ? rc : 0;
}

/* Pieces that were cut and not named yet: they are named together. */
struct pieces {
    struct sha256_job jobs[PIECES];
    uint64_t offs[PIECES];
    size_t n;
};

static int put_pieces(struct push *p, uint64_t region, struct pieces *c, struct image_progress *sum,
                      struct plx_err *err)
{
    struct seg_id ids[PIECES];
    uint8_t states[PIECES];

    sha256_many(c->jobs, c->n);
    for (size_t i = 0; i < c->n; i++) {
        memcpy(ids[i].sha, c->jobs[i].sha, sizeof ids[i].sha);
    }
    int rc = store_look(p->store, ids, c->n, states, err);
    for (size_t i = 0; i < c->n && rc == 0; i++) {
        rc = put_piece(p, region, &ids[i], states[i], c->jobs[i].data, c->jobs[i].len, c->offs[i],
                       sum, err);
    }
    c->n = 0;
    return rc;
}

/* Cut @data, which begins at @off of the source, at a cut. Unless it is the @last of its part, what
 * is left where more bytes could change the next cut stays: *done bytes were used. */
static int cut(struct push *p, uint64_t region, const uint8_t *data, size_t len, uint64_t off,
               bool last, size_t *done, struct image_progress *sum, struct plx_err *err)
{
    const struct chunk_params *chunks = &p->cfg->chunks;
    struct pieces c;
    size_t at = 0;
    int rc = 0;
    bool more = true;

    c.n = 0;
    while (at < len && more && rc == 0) {
        /* The rest of a block that a cut divided is no zero block. */
        size_t rest = (size_t)(-(off + at) % CHUNK_BLOCK);
        size_t end = at + rest < len ? at + rest : len;
        bool zero = false;
        if (end < len) {
            size_t run = chunk_run(data + end, len - end, &zero);
            end += zero && rest > 0 ? 0 : run;
            zero = zero && rest == 0;
        }
        if (zero) {
            at = end;
        }
        while (at < end && rc == 0) {
            more = last || end < len || end - at >= chunks->max;
            if (!more) {
                break;
            }
            size_t piece = chunk_next(chunks, data + at, end - at);
            c.jobs[c.n] = (struct sha256_job){.data = data + at, .len = piece};
            c.offs[c.n++] = off + at;
            at += piece;
            rc = c.n == PIECES ? put_pieces(p, region, &c, sum, err) : 0;
        }
    }
    *done = at;
    return rc != 0 ? rc : put_pieces(p, region, &c, sum, err);
}

/* Read and cut a part that is not known to be zero, a window at a time: what was read is then still
 * in the processor's second cache when it is cut, named and compressed. */
static int do_part(struct push *p, uint64_t region, uint8_t *buf, uint64_t off, uint64_t stop,
                   struct image_progress *sum, struct plx_err *err)
{
    size_t have = 0; /* bytes in @buf, the first of which is at @off */
    int rc = 0;

    while (off + have < stop && rc == 0) {
        size_t done, more = stop - off - have < WINDOW ? (size_t)(stop - off - have) : WINDOW;
        rc = read_source(&p->src, buf + have, off + have, more, err);
        if (rc == 0) {
            have += more;
            rc = cut(p, region, buf, have, off, off + have == stop, &done, sum, err);
        }
        if (rc == 0) {
            have -= done;
            off += done;
            memmove(buf, buf + done, have);
        }
    }
    return rc;
}

/* Every part of a region that is not known to be zero. */
static int do_region(struct push *p, uint64_t region, uint8_t *buf, struct image_progress *sum,
                     struct plx_err *err)
{
    uint64_t off = region * REGION;
    uint64_t end = p->src.bytes - off < REGION ? p->src.bytes : off + REGION;
    int rc = 0;

    sum->bytes = end - off;
    while (off < end && rc == 0) {
        struct disk_extent e = {.off = off, .len = end - off, .kind = DISK_EXTENT_DATA};
        if (p->src.disk != NULL) {
            rc = disk_map(p->src.disk, off, end - off, &e, err);
        }
        if (rc == 0 && e.kind == DISK_EXTENT_ZERO) {
            off += e.len;
            continue;
        }
        /* Up to the next whole zero block: holes in files need not lie at blocks of ours. */
        uint64_t stop = off + e.len;
        while (rc == 0 && stop < end && p->src.disk != NULL) {
            rc = disk_map(p->src.disk, stop, end - stop, &e, err);
            if (rc == 0 && e.kind == DISK_EXTENT_ZERO && e.len >= 2 * CHUNK_BLOCK) {
                stop = (stop + CHUNK_BLOCK - 1) / CHUNK_BLOCK * CHUNK_BLOCK;
                break;
            }
            stop += rc == 0 ? e.len : 0;
        }
        rc =
            rc != 0 ? rc : do_part(p, region, buf, off / CHUNK_BLOCK * CHUNK_BLOCK, stop, sum, err);
        off = stop;
    }
    return rc;
}

static void add_progress(struct image_progress *to, const struct image_progress *from)
{
    to->bytes += from->bytes;
    to->data_bytes += from->data_bytes;
    to->shared_bytes += from->shared_bytes;
    to->stored_bytes += from->stored_bytes;
    to->segments += from->segments;
    to->shared += from->shared;
}

/* Next region for a thread, or none when all are taken or something failed. */
static bool take_region(struct push *p, uint64_t *region)
{
    (void)pthread_mutex_lock(&p->lock);
    bool more = p->rc == 0 && p->next < p->nregions;
    if (more) {
        *region = p->next++;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return more;
}

static void region_done(struct push *p, const struct image_progress *sum, int rc,
                        const struct plx_err *err)
{
    bool commit = false;

    (void)pthread_mutex_lock(&p->lock);
    add_progress(p->totals, sum);
    if (rc == 0 && p->cfg->progress != NULL && p->cfg->progress(p->cfg->ctx, p->totals) != 0) {
        rc = PLX_ECANCELED;
    }
    if (rc != 0 && p->rc == 0) {
        p->rc = rc;
        p->err = *err;
        if (rc == PLX_ECANCELED) {
            (void)plx_fail(&p->err, rc, "stopped; the same push goes on from here");
        }
    }
    uint64_t now = clock_mono_ns();
    if (now - p->committed_ns > COMMIT_EVERY_NS) {
        p->committed_ns = now;
        commit = true;
    }
    (void)pthread_mutex_unlock(&p->lock);
    struct plx_err why = {{0}};
    if (commit && (rc = store_commit(p->store, &why)) != 0) {
        (void)pthread_mutex_lock(&p->lock);
        if (p->rc == 0) {
            p->rc = rc;
            p->err = why;
        }
        (void)pthread_mutex_unlock(&p->lock);
    }
}

static void *worker(void *arg)
{
    struct push *p = arg;
    uint8_t *buf = plx_calloc(1, WINDOW + p->cfg->chunks.max);
    uint64_t region;

    while (take_region(p, &region)) {
        struct image_progress sum = {0};
        struct plx_err err = {{0}};
        int rc = buf == NULL ? push_no_memory(&err) : do_region(p, region, buf, &sum, &err);
        region_done(p, &sum, rc, &err);
    }
    plx_free(buf);
    return NULL;
}

static void run_workers(struct push *p)
{
    unsigned n = image_threads(p->cfg->threads);
    pthread_t threads[THREADS_MAX];
    unsigned started = 0;
    sigset_t all, old;

    n = n > p->nregions ? (unsigned)p->nregions : n;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (started + 1 < n && pthread_create(&threads[started], NULL, worker, p) == 0) {
        started++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)worker(p);
    while (started > 0) {
        (void)pthread_join(threads[--started], NULL);
    }
}

int push_again(struct push *p, const struct manifest_segment *g, struct plx_err *err)
{
    uint8_t *buf = plx_calloc(1, g->len);
    struct seg_id id = {{0}};
    uint64_t stored = 0;

    /* Disks are read in sectors. */
    uint64_t first = g->off / DISK_SECTOR * DISK_SECTOR;
    uint64_t end = (g->off + g->len + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
    end = end < p->src.bytes ? end : p->src.bytes;
    uint8_t *wide = plx_calloc(1, (size_t)(end - first));
    int rc = buf == NULL || wide == NULL
                 ? push_no_memory(err)
                 : read_source(&p->src, wide, first, (size_t)(end - first), err);
    if (rc == 0 && buf != NULL && wide != NULL) {
        memcpy(buf, wide + (g->off - first), g->len);
        sha256(buf, g->len, id.sha);
        if (!seg_id_eq(&id, &g->id)) {
            rc = plx_fail(err, PLX_ESTALE, "the source changed while it was pushed");
        } else {
            rc = store_put_named(p->store, buf, g->len, &g->id, &stored, err);
            p->totals->stored_bytes += stored;
        }
    }
    plx_free(wide);
    plx_free(buf);
    return rc < 0 ? rc : 0;
}

/* Look at what other writers were putting: keep in the list what still does not stand, unless it is
 * to be put by us now. */
static int look_at_late(struct push *p, bool give_up, struct plx_err *err)
{
    struct seg_id *ids = plx_calloc(p->nlate, sizeof *ids);
    uint8_t *states = plx_calloc(p->nlate, 1);
    size_t kept = 0;
    int rc = ids == NULL || states == NULL ? push_no_memory(err) : 0;

    for (size_t i = 0; i < p->nlate && rc == 0; i++) {
        ids[i] = p->regions[p->late[i].region].segs[p->late[i].at].id;
    }
    rc = rc != 0 ? rc : store_look(p->store, ids, p->nlate, states, err);
    for (size_t i = 0; i < p->nlate && rc == 0; i++) {
        if (states[i] == SEG_COMING && !give_up) {
            p->late[kept++] = p->late[i];
        } else if (states[i] != SEG_THERE) {
            const struct manifest_segment *g = &p->regions[p->late[i].region].segs[p->late[i].at];
            uint64_t before = p->totals->stored_bytes;
            rc = push_again(p, g, err);
            if (p->totals->stored_bytes != before) { /* it was not shared after all */
                p->totals->shared--;
                p->totals->shared_bytes -= g->len;
            }
        }
    }
    p->nlate = kept;
    plx_free(ids);
    plx_free(states);
    return rc;
}

/* What other writers were putting: there by now, or soon, or ours after all. */
static int finish_late(struct push *p, struct plx_err *err)
{
    int rc = p->nlate > 0 ? store_commit(p->store, err) : 0;

    for (int tries = 0; p->nlate > 0 && rc == 0; tries++) {
        size_t before = p->nlate;
        rc = look_at_late(p, tries == OTHER_GIVE_UP, err);
        if (p->nlate > 0) {
            tries = p->nlate < before ? 0 : tries;
            clock_sleep_ns(OTHER_WAIT_NS);
        }
    }
    return rc;
}

static int join_regions(struct push *p, struct manifest_stream *out, struct plx_err *err)
{
    size_t n = 0;

    for (uint64_t i = 0; i < p->nregions; i++) {
        n += p->regions[i].n;
    }
    *out = (struct manifest_stream){.bytes = p->src.bytes};
    out->segs = plx_calloc(n + 1, sizeof *out->segs);
    if (out->segs == NULL) {
        return push_no_memory(err);
    }
    for (uint64_t i = 0; i < p->nregions; i++) {
        if (p->regions[i].n > 0) {
            memcpy(out->segs + out->n, p->regions[i].segs, p->regions[i].n * sizeof *out->segs);
        }
        out->n += p->regions[i].n;
    }
    return 0;
}

static int push_stream(struct push *p, const struct push_source *src, struct manifest_stream *out,
                       struct plx_err *err)
{
    p->src = *src;
    p->next = 0;
    p->nlate = 0;
    p->nregions = (src->bytes + REGION - 1) / REGION;
    p->regions = plx_calloc(p->nregions + 1, sizeof *p->regions);
    if (p->regions == NULL) {
        return push_no_memory(err);
    }
    run_workers(p);
    int rc = p->rc;
    if (rc != 0) {
        *err = p->err;
    } else {
        rc = finish_late(p, err);
    }
    if (rc == 0) {
        rc = join_regions(p, out, err);
    }
    for (uint64_t i = 0; i < p->nregions; i++) {
        plx_free(p->regions[i].segs);
    }
    plx_free(p->regions);
    p->regions = NULL;
    return rc;
}

static int push_file(struct push *p, const char *path, struct manifest_stream *out,
                     struct plx_err *err)
{
    struct wbuf file;

    if (path == NULL) {
        return 0;
    }
    int rc = io_read_file(path, PUSH_FILE_MAX, &file, err);
    if (rc == 0 && file.len == 0) {
        rc = plx_fail(err, PLX_EINVAL, "%s is empty", path);
    }
    if (rc == 0) {
        struct push_source src = {.mem = file.data, .bytes = file.len};
        p->totals->total += file.len;
        rc = push_stream(p, &src, out, err);
        wbuf_free(&file);
    }
    return rc;
}

static void set_text(char *out, size_t cap, const char *text)
{
    size_t len = text == NULL ? 0 : strlen(text);

    len = len < cap ? len : cap - 1;
    memcpy(out, text == NULL ? "" : text, len);
    out[len] = '\0';
}

static int check_texts(const struct image_push *cfg, struct plx_err *err)
{
    if (cfg->os != NULL && strlen(cfg->os) >= IMAGE_TEXT) {
        return plx_fail(err, PLX_ERANGE, "the operating system has more than %d characters",
                        IMAGE_TEXT - 1);
    }
    if (cfg->app != NULL && strlen(cfg->app) >= IMAGE_APP) {
        return plx_fail(err, PLX_ERANGE, "the applications have more than %d characters",
                        IMAGE_APP - 1);
    }
    if (cfg->cmdline != NULL && strlen(cfg->cmdline) >= IMAGE_CMDLINE) {
        return plx_fail(err, PLX_ERANGE, "the command line has more than %d characters",
                        IMAGE_CMDLINE - 1);
    }
    return 0;
}

int image_push(struct store *s, const struct image_push *cfg, struct disk *disk,
               struct image_ref *out, struct image_progress *totals, struct plx_err *err)
{
    struct push p = {.store = s, .cfg = cfg, .totals = totals, .committed_ns = clock_mono_ns()};
    struct manifest m = {.logical_sector = disk->geo.logical_sector,
                         .physical_sector = disk->geo.physical_sector,
                         .chunks = cfg->chunks.kind,
                         .chunk_avg = cfg->chunks.avg};
    struct image_ref ref = {.created_ns = cfg->now_ns, .bytes = disk->geo.bytes};
    int rc = check_texts(cfg, err);

    if (rc != 0) {
        return rc;
    }
    (void)pthread_mutex_init(&p.lock, NULL);
    set_text(m.name, sizeof m.name, cfg->name);
    set_text(m.tag, sizeof m.tag, cfg->tag);
    set_text(m.os, sizeof m.os, cfg->os);
    set_text(m.app, sizeof m.app, cfg->app);
    set_text(m.cmdline, sizeof m.cmdline, cfg->cmdline);
    set_text(ref.name, sizeof ref.name, cfg->name);
    set_text(ref.tag, sizeof ref.tag, cfg->tag);
    set_text(ref.os, sizeof ref.os, cfg->os);
    set_text(ref.app, sizeof ref.app, cfg->app);
    *totals = (struct image_progress){.total = disk->geo.bytes};
    rc = push_file(&p, cfg->kernel, &m.streams[STREAM_KERNEL], err);
    if (rc == 0) {
        rc = push_file(&p, cfg->initrd, &m.streams[STREAM_INITRD], err);
    }
    if (rc == 0) {
        struct push_source src = {.disk = disk, .bytes = disk->geo.bytes};
        rc = push_stream(&p, &src, &m.streams[STREAM_DISK], err);
    }
    if (rc == 0) {
        ref.data_bytes = totals->data_bytes;
        ref.stored_bytes = totals->stored_bytes;
        rc = push_name(&p, &m, disk, &ref, err);
    }
    if (rc != 0) {
        (void)store_commit(s, NULL); /* for the next try */
    }
    manifest_free(&m);
    plx_free(p.late);
    (void)pthread_mutex_destroy(&p.lock);
    if (rc == 0 && out != NULL) {
        *out = ref;
    } else {
        image_ref_free(&ref);
    }
    return rc;
}
