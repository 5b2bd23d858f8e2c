/* SPDX-License-Identifier: Apache-2.0
 * storage/stream.c - see stream.h. Contents of the last segments read are kept in memory: guests
 * read a segment in pieces. */
#include "storage/stream.h"

#include <pthread.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

enum { KEPT = 512, KEPT_WAYS = 4 };
#define RETRY_NS UINT64_C(500000000) /* until a segment that nobody has is asked for again */

struct kept {
    size_t segment; /* index + 1; 0: none */
    uint8_t *data;
    uint64_t used;
};

struct stream {
    struct disk d; /* first */
    struct stream_config cfg;
    const struct manifest_stream *disk;
    struct store_hold *hold; /* NULL: none */
    pthread_mutex_t lock;    /* of all below */
    bool stop;
    uint8_t *here;     /* one byte a segment */
    uint8_t *touched;  /* one byte a segment */
    uint8_t *profiled; /* one byte a segment */
    uint32_t *order;
    size_t norder, next_profile, next_rest;
    struct kept kept[KEPT];
    uint64_t clock;
    size_t *table; /* name to index + 1: what arrives is known by name */
    size_t slots;
    struct stream_progress p;
};

static struct stream *of(struct disk *d)
{
    return (struct stream *)(void *)d;
}

/* --- names ---------------------------------------------------------------------------------- */

/* Equal contents stand in the table next to one another, each with its place. */
static int make_table(struct stream *s)
{
    for (s->slots = 64; s->slots < 2 * s->disk->n; s->slots *= 2) {
    }
    s->table = plx_calloc(s->slots, sizeof *s->table);
    if (s->table == NULL) {
        return PLX_ENOMEM;
    }
    for (size_t i = 0; i < s->disk->n; i++) {
        size_t at = seg_id_hash(&s->disk->segs[i].id) & (s->slots - 1);
        while (s->table[at] != 0) {
            at = (at + 1) & (s->slots - 1);
        }
        s->table[at] = i + 1;
    }
    return 0;
}

/* Every segment with this name is here now. */
static void mark_here_locked(struct stream *s, const struct seg_id *id)
{
    size_t at = seg_id_hash(id) & (s->slots - 1);

    for (; s->table[at] != 0; at = (at + 1) & (s->slots - 1)) {
        size_t i = s->table[at] - 1;
        if (seg_id_eq(&s->disk->segs[i].id, id) && !s->here[i]) {
            s->here[i] = 1;
            s->p.here++;
            s->p.here_bytes += s->disk->segs[i].len;
        }
    }
}

/* --- background ------------------------------------------------------------------------------ */

bool stream_next(void *ctx, struct seg_id *id, enum client_urgency *urgency)
{
    struct stream *s = ctx;
    bool found = false;

    (void)pthread_mutex_lock(&s->lock);
    while (!found && !s->stop && s->next_profile < s->cfg.nprofile) {
        uint32_t i = s->cfg.profile[s->next_profile++];
        if (!s->here[i]) {
            *id = s->disk->segs[i].id;
            *urgency = CLIENT_SOON;
            found = true;
        }
    }
    while (!found && !s->stop && !s->cfg.no_rest && s->next_rest < s->disk->n) {
        size_t i = s->next_rest++;
        if (!s->here[i]) {
            *id = s->disk->segs[i].id;
            *urgency = CLIENT_REST;
            found = true;
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return found;
}

void stream_arrived(void *ctx, const struct seg_id *id, uint32_t raw_len,
                    enum client_urgency urgency)
{
    struct stream *s = ctx;

    (void)pthread_mutex_lock(&s->lock);
    mark_here_locked(s, id);
    switch (urgency) {
    case CLIENT_NEEDED:
        s->p.needed++;
        s->p.needed_bytes += raw_len;
        break;
    case CLIENT_SOON:
        s->p.profile++;
        s->p.profile_bytes += raw_len;
        break;
    case CLIENT_REST:
        s->p.rest++;
        s->p.rest_bytes += raw_len;
        break;
    }
    (void)pthread_mutex_unlock(&s->lock);
}

void stream_stop(struct stream *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->stop = true;
    (void)pthread_mutex_unlock(&s->lock);
}

void stream_progress(struct stream *s, struct stream_progress *out)
{
    (void)pthread_mutex_lock(&s->lock);
    *out = s->p;
    (void)pthread_mutex_unlock(&s->lock);
}

int stream_order(struct stream *s, uint32_t **order, size_t *n)
{
    (void)pthread_mutex_lock(&s->lock);
    *n = s->norder;
    *order = plx_calloc(s->norder + 1, sizeof **order);
    if (*order != NULL && s->norder > 0) {
        memcpy(*order, s->order, s->norder * sizeof **order);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return *order == NULL ? PLX_ENOMEM : 0;
}

/* --- reading -------------------------------------------------------------------------------- */

static struct kept *find_kept_locked(struct stream *s, size_t segment)
{
    struct kept *set = &s->kept[segment % (KEPT / KEPT_WAYS) * KEPT_WAYS];

    for (int i = 0; i < KEPT_WAYS; i++) {
        if (set[i].segment == segment + 1) {
            return &set[i];
        }
    }
    return NULL;
}

/* Keeps @data (owned from now on) in place of the way used longest ago. */
static void keep_locked(struct stream *s, size_t segment, uint8_t *data)
{
    struct kept *set = &s->kept[segment % (KEPT / KEPT_WAYS) * KEPT_WAYS], *oldest = set;

    if (find_kept_locked(s, segment) != NULL) {
        plx_free(data);
        return;
    }
    for (int i = 1; i < KEPT_WAYS; i++) {
        if (set[i].used < oldest->used) {
            oldest = &set[i];
        }
    }
    plx_free(oldest->data);
    *oldest = (struct kept){.segment = segment + 1, .data = data, .used = ++s->clock};
}

/* From this host. PLX_ENOENT: it is not here. A damaged one counts as absent if there are servers.
 */
static int read_here(struct stream *s, size_t segment, uint8_t *data, struct plx_err *err)
{
    const struct manifest_segment *g = &s->disk->segs[segment];
    struct store *const places[] = {s->cfg.store, s->cfg.cache};
    int rc = PLX_ENOENT;

    if (s->hold != NULL) {
        return store_held_get(s->cfg.store, s->hold, segment, &g->id, data, g->len, err);
    }
    for (int i = 0; i < 2; i++) {
        if (places[i] != NULL && store_has(places[i], &g->id, err) == 1) {
            rc = store_get(places[i], &g->id, data, g->len, err);
            if (rc == 0) {
                return 0;
            }
            log_warn("%s", err->msg);
        }
    }
    return rc;
}

static int wait_for(struct stream *s, const struct manifest_segment *g, uint8_t *data,
                    struct plx_err *err)
{
    uint64_t begun = clock_mono_ns();
    bool told = false;
    int rc;

    for (;;) {
        rc = image_client_fetch(s->cfg.client, &g->id, data, g->len, err);
        (void)pthread_mutex_lock(&s->lock);
        bool stop = s->stop;
        (void)pthread_mutex_unlock(&s->lock);
        if (rc == 0 || rc == PLX_ECANCELED || stop) {
            break;
        }
        if (!told) {
            log_warn("image %s: %s; the guest waits", s->cfg.name, err->msg);
            told = true;
        }
        clock_sleep_ns(RETRY_NS);
    }
    uint64_t waited = clock_mono_ns() - begun;
    (void)pthread_mutex_lock(&s->lock);
    s->p.waits++;
    if (waited > s->p.longest_wait_ns) {
        s->p.longest_wait_ns = waited;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

/* A part of one segment. */
static int read_part(struct stream *s, size_t segment, uint8_t *out, uint32_t off, size_t len,
                     struct plx_err *err)
{
    const struct manifest_segment *g = &s->disk->segs[segment];

    (void)pthread_mutex_lock(&s->lock);
    if (!s->touched[segment]) {
        s->touched[segment] = 1;
        s->order[s->norder++] = (uint32_t)segment;
        s->p.touched++;
        s->p.unprofiled += !s->profiled[segment];
        s->p.touched_bytes += g->len;
    }
    struct kept *k = find_kept_locked(s, segment);
    if (k != NULL) {
        k->used = ++s->clock;
        memcpy(out, k->data + off, len);
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (k != NULL) {
        return 0;
    }
    uint8_t *data = plx_calloc(1, g->len);
    if (data == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image %s: out of memory", s->cfg.name);
    }
    int rc = read_here(s, segment, data, err);
    if (rc != 0 && s->cfg.client != NULL) {
        rc = wait_for(s, g, data, err);
    }
    if (rc != 0) {
        plx_free(data);
        return plx_err_wrap(err, rc, "image %s", s->cfg.name);
    }
    memcpy(out, data + off, len);
    (void)pthread_mutex_lock(&s->lock);
    keep_locked(s, segment, data);
    (void)pthread_mutex_unlock(&s->lock);
    return 0;
}

static int stream_read(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    struct stream *s = of(d);
    uint8_t *out = buf;
    int rc = 0;

    (void)pthread_mutex_lock(&s->lock);
    s->p.reads++;
    (void)pthread_mutex_unlock(&s->lock);
    for (size_t i = manifest_find(s->disk, off); len > 0 && rc == 0;) {
        const struct manifest_segment *g = i < s->disk->n ? &s->disk->segs[i] : NULL;
        uint64_t part;
        if (g == NULL || g->off > off) {
            part = g == NULL || g->off - off > len ? len : g->off - off;
            memset(out, 0, part);
        } else {
            uint32_t at = (uint32_t)(off - g->off);
            part = g->len - at < len ? g->len - at : len;
            rc = read_part(s, i++, out, at, part, err);
        }
        out += part;
        off += part;
        len -= part;
    }
    return rc;
}

static int stream_map(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
                      struct plx_err *err)
{
    struct stream *s = of(d);
    size_t i = manifest_find(s->disk, off);
    uint64_t end = off + len;
    bool data = false;

    (void)err;
    if (i < s->disk->n && s->disk->segs[i].off < off + DISK_SECTOR) {
        data = true; /* and what follows without a gap */
        uint64_t to = s->disk->segs[i].off + s->disk->segs[i].len;
        while (to < end && i + 1 < s->disk->n && s->disk->segs[i + 1].off < to + DISK_SECTOR) {
            i++;
            to = s->disk->segs[i].off + s->disk->segs[i].len;
        }
        to = (to + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
        end = to < end ? to : end;
    } else if (i < s->disk->n && s->disk->segs[i].off < end) {
        end = s->disk->segs[i].off / DISK_SECTOR * DISK_SECTOR;
    }
    *out = (struct disk_extent){
        .off = off, .len = end - off, .kind = data ? DISK_EXTENT_DATA : DISK_EXTENT_ZERO};
    return 0;
}

static int stream_flush(struct disk *d, struct plx_err *err)
{
    (void)d;
    (void)err;
    return 0;
}

static int stream_close(struct disk *d, struct plx_err *err)
{
    struct stream *s = of(d);

    (void)err;
    if (s->hold != NULL) {
        store_hold_end(s->cfg.store, s->hold);
    }
    for (int i = 0; i < KEPT; i++) {
        plx_free(s->kept[i].data);
    }
    plx_free(s->here);
    plx_free(s->touched);
    plx_free(s->profiled);
    plx_free(s->order);
    plx_free(s->table);
    (void)pthread_mutex_destroy(&s->lock);
    plx_free(s);
    return 0;
}

/* --- life ----------------------------------------------------------------------------------- */

static const struct disk_ops stream_ops = {
    .format = "image",
    .read = stream_read,
    .flush = stream_flush,
    .map = stream_map,
    .close = stream_close,
};

static int look_what_is_here(struct stream *s, struct plx_err *err)
{
    struct store *const places[] = {s->cfg.store, s->cfg.cache};

    for (size_t i = 0; i < s->disk->n; i++) {
        const struct manifest_segment *g = &s->disk->segs[i];
        int has = 0;
        for (int k = 0; k < 2 && has == 0; k++) {
            has = places[k] == NULL ? 0 : store_has(places[k], &g->id, err);
        }
        if (has < 0) {
            return has;
        }
        s->here[i] = (uint8_t)has;
        s->p.here += (uint64_t)has;
        s->p.here_bytes += has ? g->len : 0;
        s->p.bytes += g->len;
        s->p.segments++;
    }
    return 0;
}

static int take_hold(struct stream *s, struct plx_err *err)
{
    struct seg_id *ids = plx_calloc(s->disk->n + 1, sizeof *ids);

    if (ids == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image %s: out of memory", s->cfg.name);
    }
    for (size_t i = 0; i < s->disk->n; i++) {
        ids[i] = s->disk->segs[i].id;
    }
    int rc = store_hold(s->cfg.store, ids, s->disk->n, &s->hold, err);
    plx_free(ids);
    return rc;
}

int stream_open(const struct stream_config *cfg, struct stream **out, struct plx_err *err)
{
    struct stream *s = plx_calloc(1, sizeof *s);
    const struct manifest *m = cfg->manifest;
    size_t n = m->streams[STREAM_DISK].n;
    int rc = 0;

    *out = NULL;
    if (s == NULL) {
        return plx_fail(err, PLX_ENOMEM, "image %s: out of memory", cfg->name);
    }
    s->cfg = *cfg;
    s->disk = &m->streams[STREAM_DISK];
    s->d = (struct disk){.ops = &stream_ops, .path = cfg->name};
    s->d.geo = (struct disk_geometry){.bytes = s->disk->bytes,
                                      .logical_sector = m->logical_sector,
                                      .physical_sector = m->physical_sector};
    (void)pthread_mutex_init(&s->lock, NULL);
    s->here = plx_calloc(n + 1, 1);
    s->touched = plx_calloc(n + 1, 1);
    s->profiled = plx_calloc(n + 1, 1);
    s->order = plx_calloc(n + 1, sizeof *s->order);
    if (s->here == NULL || s->touched == NULL || s->profiled == NULL || s->order == NULL ||
        make_table(s) != 0) {
        rc = plx_fail(err, PLX_ENOMEM, "image %s: out of memory", cfg->name);
    } else if (s->disk->bytes == 0 || s->disk->bytes % DISK_SECTOR != 0) {
        rc = plx_fail(err, PLX_ECORRUPT, "image %s has no disk of whole sectors", cfg->name);
    } else {
        for (size_t i = 0; i < cfg->nprofile; i++) {
            s->profiled[cfg->profile[i]] = 1;
        }
        s->p.profiled = cfg->nprofile;
        rc = look_what_is_here(s, err);
        if (rc == 0 && cfg->hold) {
            rc = take_hold(s, err);
        }
    }
    if (rc != 0) {
        (void)stream_close(&s->d, NULL);
        return rc;
    }
    *out = s;
    return 0;
}

struct disk *stream_disk(struct stream *s)
{
    return &s->d;
}
