/* SPDX-License-Identifier: Apache-2.0
 * storage/io_mem.c - files in memory, what was done to them in order, and what a crash could
 * leave (io.h). Sparse: pages of zeros that nobody wrote take no memory. One lock for a space. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "storage/io.h"

enum { PAGE = 4096, LEAF = 512, LEAVES_MAX = 1 << 20 };

struct content {
    uint64_t size;
    uint8_t ***leaves; /* of LEAF pages; NULL: zeros */
    size_t nleaves;
};

struct mem_file {
    struct mem_file *next;
    struct io_mem *space;
    char *path;
    unsigned index;
    struct content now, start; /* start: when recording began */
    unsigned readers;
    bool writer, removed;
};

enum change_kind { CHANGE_WRITE, CHANGE_TRUNCATE, CHANGE_PUNCH, CHANGE_SYNC };

struct change {
    enum change_kind kind;
    unsigned file;
    uint64_t off, len; /* truncate: len is the new size */
    uint8_t *data;
};

struct io_mem {
    struct io_space space; /* first: what callers hold */
    pthread_mutex_t lock;
    struct mem_file *files;
    unsigned nfiles;
    bool recording, failing;
    unsigned fail_in;
    struct change *changes;
    unsigned nchanges, cap;
};

struct mem_open {
    struct io_file f;
    struct mem_file *file;
    enum io_lock held;
};

/* --- sparse contents ------------------------------------------------------------------------ */

static uint8_t *page_of(struct content *c, uint64_t n, bool make)
{
    size_t leaf = n / LEAF;

    if (leaf >= c->nleaves) {
        if (!make || leaf >= LEAVES_MAX) {
            return NULL;
        }
        uint8_t ***grown = plx_realloc(c->leaves, (leaf + 1) * sizeof *grown);
        if (grown == NULL) {
            return NULL;
        }
        memset(grown + c->nleaves, 0, (leaf + 1 - c->nleaves) * sizeof *grown);
        c->leaves = grown;
        c->nleaves = leaf + 1;
    }
    if (c->leaves[leaf] == NULL && make) {
        c->leaves[leaf] = plx_calloc(LEAF, sizeof **c->leaves);
    }
    if (c->leaves[leaf] == NULL) {
        return NULL;
    }
    uint8_t **page = &c->leaves[leaf][n % LEAF];
    if (*page == NULL && make) {
        *page = plx_calloc(1, PAGE);
    }
    return *page;
}

static void content_free(struct content *c)
{
    for (size_t i = 0; i < c->nleaves; i++) {
        for (unsigned k = 0; c->leaves[i] != NULL && k < LEAF; k++) {
            plx_free(c->leaves[i][k]);
        }
        plx_free(c->leaves[i]);
    }
    plx_free(c->leaves);
    *c = (struct content){0};
}

static void content_read(struct content *c, uint8_t *buf, uint64_t len, uint64_t off)
{
    while (len > 0) {
        uint64_t part = PAGE - off % PAGE < len ? PAGE - off % PAGE : len;
        const uint8_t *page = page_of(c, off / PAGE, false);
        if (page != NULL) {
            memcpy(buf, page + off % PAGE, part);
        } else {
            memset(buf, 0, part);
        }
        buf += part;
        off += part;
        len -= part;
    }
}

/* @data NULL: zeros. */
static bool content_write(struct content *c, const uint8_t *data, uint64_t len, uint64_t off)
{
    while (len > 0) {
        uint64_t part = PAGE - off % PAGE < len ? PAGE - off % PAGE : len;
        uint8_t *page = page_of(c, off / PAGE, data != NULL);
        if (page == NULL && data != NULL) {
            return false;
        }
        if (data != NULL) {
            memcpy(page + off % PAGE, data, part);
            data += part;
        } else if (page != NULL) {
            memset(page + off % PAGE, 0, part);
        }
        off += part;
        len -= part;
        if (data != NULL && off > c->size) {
            c->size = off;
        }
    }
    return true;
}

static void content_resize(struct content *c, uint64_t size)
{
    if (size < c->size) {
        uint64_t end = (uint64_t)c->nleaves * LEAF * PAGE;
        (void)content_write(c, NULL, end > size ? end - size : 0, size);
    }
    c->size = size;
}

static bool content_copy(struct content *to, const struct content *from)
{
    *to = (struct content){.size = from->size};
    for (size_t i = 0; i < from->nleaves; i++) {
        for (unsigned k = 0; from->leaves[i] != NULL && k < LEAF; k++) {
            if (from->leaves[i][k] != NULL) {
                uint8_t *page = page_of(to, i * LEAF + k, true);
                if (page == NULL) {
                    return false;
                }
                memcpy(page, from->leaves[i][k], PAGE);
            }
        }
    }
    return true;
}

/* Sectors [from, from + n) of a change, n counted from its first, partly covered one. */
static bool apply(struct content *c, const struct change *ch, uint64_t from, uint64_t n)
{
    uint64_t start = from == 0 ? ch->off : (ch->off / IO_SECTOR + from) * IO_SECTOR;
    uint64_t end = (ch->off / IO_SECTOR + from + n) * IO_SECTOR;

    end = end < ch->off + ch->len ? end : ch->off + ch->len;
    switch (ch->kind) {
    case CHANGE_WRITE:
        return start >= end || content_write(c, ch->data + (start - ch->off), end - start, start);
    case CHANGE_PUNCH:
        return start >= end || content_write(c, NULL, end - start, start);
    case CHANGE_TRUNCATE:
        content_resize(c, ch->len);
        return true;
    case CHANGE_SYNC:
        return true;
    }
    return false;
}

/* --- operations ------------------------------------------------------------------------------ */

/* Counts an operation; false when it is to fail. */
static bool goes_well_locked(struct io_mem *m)
{
    if (m->failing && m->fail_in > 0) {
        m->fail_in--;
        return true;
    }
    return !m->failing;
}

static int injected(const struct io_file *f, struct plx_err *err)
{
    return plx_fail(err, PLX_EIO, "cannot read or write %s: injected", f->path);
}

static bool record_locked(struct io_mem *m, const struct change *ch)
{
    if (!m->recording) {
        return true;
    }
    if (m->nchanges == m->cap) {
        unsigned cap = m->cap == 0 ? 64 : m->cap * 2;
        struct change *grown = plx_realloc(m->changes, cap * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        m->changes = grown;
        m->cap = cap;
    }
    struct change copy = *ch;
    if (ch->data != NULL) {
        copy.data = plx_calloc(1, ch->len == 0 ? 1 : ch->len);
        if (copy.data == NULL) {
            return false;
        }
        memcpy(copy.data, ch->data, ch->len);
    }
    m->changes[m->nchanges++] = copy;
    return true;
}

static int change(struct io_file *f, struct change ch, struct plx_err *err)
{
    struct mem_file *file = ((struct mem_open *)f)->file;
    struct io_mem *m = file->space;
    int rc = 0;

    ch.file = file->index;
    if (!f->writable) {
        return plx_fail(err, PLX_EACCES, "cannot write %s: opened read-only", f->path);
    }
    (void)pthread_mutex_lock(&m->lock);
    if (!goes_well_locked(m)) {
        rc = injected(f, err);
    } else if (!record_locked(m, &ch) || !apply(&file->now, &ch, 0, UINT64_MAX / IO_SECTOR / 2)) {
        rc = io_no_memory(f->path, err);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_read(struct io_file *f, void *buf, size_t len, uint64_t off, struct plx_err *err)
{
    struct mem_file *file = ((struct mem_open *)f)->file;
    int rc = 0;

    (void)pthread_mutex_lock(&file->space->lock);
    if (!goes_well_locked(file->space)) {
        rc = injected(f, err);
    } else if (off > file->now.size || len > file->now.size - off) {
        rc = plx_fail(err, PLX_ETRUNCATED, "%s ends at byte %llu", f->path,
                      (unsigned long long)file->now.size);
    } else {
        content_read(&file->now, buf, len, off);
    }
    (void)pthread_mutex_unlock(&file->space->lock);
    return rc;
}

static int mem_write(struct io_file *f, const void *buf, size_t len, uint64_t off,
                     struct plx_err *err)
{
    struct change ch = {.kind = CHANGE_WRITE, .off = off, .len = len};

    memcpy(&ch.data, &buf, sizeof ch.data); /* only ever read */
    return len == 0 ? 0 : change(f, ch, err);
}

static int mem_sync(struct io_file *f, struct plx_err *err)
{
    return change(f, (struct change){.kind = CHANGE_SYNC}, err);
}

static int mem_size(struct io_file *f, uint64_t *out, struct plx_err *err)
{
    struct mem_file *file = ((struct mem_open *)f)->file;

    (void)err;
    (void)pthread_mutex_lock(&file->space->lock);
    *out = file->now.size;
    (void)pthread_mutex_unlock(&file->space->lock);
    return 0;
}

static int mem_truncate(struct io_file *f, uint64_t size, struct plx_err *err)
{
    return change(f, (struct change){.kind = CHANGE_TRUNCATE, .len = size}, err);
}

static int mem_punch(struct io_file *f, uint64_t off, uint64_t len, bool keep, struct plx_err *err)
{
    (void)keep;
    return change(f, (struct change){.kind = CHANGE_PUNCH, .off = off, .len = len}, err);
}

static void unlock_locked(struct mem_open *o)
{
    o->file->readers -= o->held == IO_LOCK_SHARED;
    o->file->writer = o->file->writer && o->held != IO_LOCK_EXCLUSIVE;
    o->held = IO_UNLOCKED;
}

static int mem_lock(struct io_file *f, enum io_lock how, struct plx_err *err)
{
    struct mem_open *o = (struct mem_open *)f;
    struct mem_file *file = o->file;
    int rc = 0;

    (void)pthread_mutex_lock(&file->space->lock);
    enum io_lock held = o->held;
    unlock_locked(o);
    if (file->writer || (how == IO_LOCK_EXCLUSIVE && file->readers != 0)) {
        if (how != IO_UNLOCKED) {
            how = held;
            rc = plx_fail(err, PLX_EBUSY, "%s is %s", f->path,
                          file->writer ? "open for writing elsewhere" : "in use elsewhere");
        }
    }
    file->readers += how == IO_LOCK_SHARED;
    file->writer = file->writer || how == IO_LOCK_EXCLUSIVE;
    o->held = how;
    (void)pthread_mutex_unlock(&file->space->lock);
    return rc;
}

static int mem_extent(struct io_file *f, uint64_t off, uint64_t limit, bool *data, uint64_t *end,
                      struct plx_err *err)
{
    struct mem_file *file = ((struct mem_open *)f)->file;
    uint64_t page = off / PAGE;

    (void)err;
    (void)pthread_mutex_lock(&file->space->lock);
    *data = page_of(&file->now, page, false) != NULL;
    do {
        page++;
    } while (page * PAGE < limit && (page_of(&file->now, page, false) != NULL) == *data);
    *end = page * PAGE < limit ? page * PAGE : limit;
    (void)pthread_mutex_unlock(&file->space->lock);
    return 0;
}

static int mem_identity(struct io_file *f, uint64_t id[2], struct plx_err *err)
{
    (void)err;
    id[0] = 0;
    id[1] = ((struct mem_open *)f)->file->index;
    return 0;
}

static void mem_close(struct io_file *f)
{
    struct mem_open *o = (struct mem_open *)f;

    (void)pthread_mutex_lock(&o->file->space->lock);
    unlock_locked(o);
    (void)pthread_mutex_unlock(&o->file->space->lock);
    plx_free(f->path);
    plx_free(o);
}

static const struct io_ops mem_ops = {
    .read = mem_read,
    .write = mem_write,
    .sync = mem_sync,
    .size = mem_size,
    .truncate = mem_truncate,
    .punch = mem_punch,
    .lock = mem_lock,
    .extent = mem_extent,
    .identity = mem_identity,
    .close = mem_close,
};

/* --- the space ------------------------------------------------------------------------------- */

static struct mem_file *find_locked(struct io_mem *m, const char *path)
{
    struct mem_file *file = m->files;

    while (file != NULL && (file->removed || strcmp(file->path, path) != 0)) {
        file = file->next;
    }
    return file;
}

static struct mem_file *add_locked(struct io_mem *m, const char *path)
{
    struct mem_file *file = plx_calloc(1, sizeof *file);

    if (file != NULL) {
        *file = (struct mem_file){
            .next = m->files, .space = m, .path = plx_strdup(path), .index = m->nfiles};
        if (file->path == NULL) {
            plx_free(file);
            return NULL;
        }
        m->nfiles++;
        m->files = file;
    }
    return file;
}

static int mem_open(struct io_space *s, const char *path, unsigned flags, struct io_file **out,
                    struct plx_err *err)
{
    struct io_mem *m = (struct io_mem *)s;
    struct mem_open *o = plx_calloc(1, sizeof *o);
    char *copy = plx_strdup(path);
    int rc = 0;

    *out = NULL;
    (void)pthread_mutex_lock(&m->lock);
    struct mem_file *file = find_locked(m, path);
    if (o == NULL || copy == NULL) {
        rc = io_no_memory(path, err);
    } else if (file != NULL && (flags & IO_CREATE) != 0) {
        rc = plx_fail(err, PLX_EEXIST, "cannot create %s: it exists", path);
    } else if (file == NULL && (flags & (IO_CREATE | IO_TRUNCATE)) == 0) {
        rc = plx_fail(err, PLX_ENOENT, "cannot open %s: No such file or directory", path);
    } else if (file == NULL && (file = add_locked(m, path)) == NULL) {
        rc = io_no_memory(path, err);
    }
    (void)pthread_mutex_unlock(&m->lock);
    if (rc != 0 || o == NULL || file == NULL) {
        plx_free(o);
        plx_free(copy);
        return rc;
    }
    *o = (struct mem_open){
        .f = {.ops = &mem_ops, .path = copy, .writable = (flags & IO_WRITE) != 0, .fd = -1},
        .file = file};
    *out = &o->f;
    if ((flags & IO_TRUNCATE) != 0) {
        rc = mem_truncate(*out, 0, err);
        if (rc != 0) {
            mem_close(*out);
            *out = NULL;
        }
    }
    return rc;
}

static int mem_remove(struct io_space *s, const char *path, struct plx_err *err)
{
    struct io_mem *m = (struct io_mem *)s;

    (void)pthread_mutex_lock(&m->lock);
    struct mem_file *file = find_locked(m, path);
    if (file != NULL) {
        file->removed = true; /* opens of it live on */
    }
    (void)pthread_mutex_unlock(&m->lock);
    return file != NULL ? 0 : plx_fail(err, PLX_ENOENT, "cannot remove %s: there is none", path);
}

struct io_mem *io_mem_new(void)
{
    struct io_mem *m = plx_calloc(1, sizeof *m);

    if (m != NULL) {
        m->space = (struct io_space){.open = mem_open, .remove = mem_remove};
        (void)pthread_mutex_init(&m->lock, NULL);
    }
    return m;
}

void io_mem_free(struct io_mem *m)
{
    if (m == NULL) {
        return;
    }
    while (m->files != NULL) {
        struct mem_file *file = m->files;
        m->files = file->next;
        content_free(&file->now);
        content_free(&file->start);
        plx_free(file->path);
        plx_free(file);
    }
    for (unsigned i = 0; i < m->nchanges; i++) {
        plx_free(m->changes[i].data);
    }
    plx_free(m->changes);
    (void)pthread_mutex_destroy(&m->lock);
    plx_free(m);
}

struct io_space *io_mem_space(struct io_mem *m)
{
    return &m->space;
}

void io_mem_record(struct io_mem *m)
{
    (void)pthread_mutex_lock(&m->lock);
    m->recording = true;
    for (struct mem_file *file = m->files; file != NULL; file = file->next) {
        PLX_CHECK(content_copy(&file->start, &file->now)); /* tests have memory */
    }
    (void)pthread_mutex_unlock(&m->lock);
}

unsigned io_mem_recorded(const struct io_mem *m)
{
    return m->nchanges;
}

void io_mem_fail_at(struct io_mem *m, unsigned k)
{
    (void)pthread_mutex_lock(&m->lock);
    m->failing = true;
    m->fail_in = k;
    (void)pthread_mutex_unlock(&m->lock);
}

void io_mem_fail_never(struct io_mem *m)
{
    (void)pthread_mutex_lock(&m->lock);
    m->failing = false;
    (void)pthread_mutex_unlock(&m->lock);
}

/* --- crashes --------------------------------------------------------------------------------- */

static struct mem_file *by_index(struct io_mem *m, unsigned index)
{
    struct mem_file *file = m->files;

    while (file != NULL && file->index != index) {
        file = file->next;
    }
    return file;
}

/* A run of the sectors of @ch, chosen by @g; possibly none, possibly all. */
static bool apply_torn(struct content *c, const struct change *ch, struct prng *g)
{
    uint64_t sectors = (ch->off % IO_SECTOR + ch->len + IO_SECTOR - 1) / IO_SECTOR;
    uint64_t from = prng_below(g, 2) != 0 ? 0 : prng_below(g, sectors + 1);

    if (ch->kind == CHANGE_TRUNCATE) {
        return prng_below(g, 2) == 0 || apply(c, ch, 0, 0);
    }
    return apply(c, ch, from, prng_below(g, sectors - from + 1));
}

/* Change @i of @n, as what kind of crash would have it; @barrier: none before it is in doubt. */
static bool replay(struct content *c, const struct change *ch, unsigned i, unsigned n,
                   unsigned barrier, enum io_crash kind, struct prng *g)
{
    if (kind == IO_CRASH_TORN && i + 1 == n) {
        return apply_torn(c, ch, g);
    }
    if (kind == IO_CRASH_REORDER && i >= barrier) {
        switch (prng_below(g, 4)) {
        case 0:
            return true;
        case 1:
            return apply_torn(c, ch, g);
        default:
            break;
        }
    }
    return apply(c, ch, 0, UINT64_MAX / IO_SECTOR / 2);
}

struct io_mem *io_mem_crash(const struct io_mem *m, unsigned n, enum io_crash kind, struct prng *g)
{
    struct io_mem *after = io_mem_new();
    bool well = after != NULL;

    PLX_CHECK(n <= m->nchanges && m->recording);
    for (unsigned k = 0; well && k < m->nfiles; k++) { /* in order, so that indexes agree */
        const struct mem_file *file = m->files;
        while (file != NULL && file->index != k) {
            file = file->next;
        }
        PLX_CHECK(file != NULL);
        struct mem_file *copy = add_locked(after, file->path);
        well = copy != NULL && content_copy(&copy->now, &file->start);
        if (well) {
            copy->removed = file->removed;
        }
    }
    for (unsigned i = 0; well && i < n; i++) {
        const struct change *ch = &m->changes[i];
        unsigned barrier = n; /* of this file: what follows its last sync is in doubt */
        while (barrier > 0 && (m->changes[barrier - 1].kind != CHANGE_SYNC ||
                               m->changes[barrier - 1].file != ch->file)) {
            barrier--;
        }
        well = replay(&by_index(after, ch->file)->now, ch, i, n, barrier, kind, g);
    }
    if (!well) {
        io_mem_free(after);
        after = NULL;
    }
    return after;
}
