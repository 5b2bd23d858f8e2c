/* SPDX-License-Identifier: Apache-2.0
 * storage/chain_edit.c - changes of what depends on what: new children, commit, rebase, relink
 * (chain.h). */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "storage/chain_int.h"
#include "storage/image_disk.h"

enum { PART = 1 << 20 };

static bool tell(const struct disk_progress *p, uint64_t done, uint64_t total)
{
    return p == NULL || p->tell(p->ctx, done, total);
}

/* --- a new child ---------------------------------------------------------------------------- */

int chain_create_child(struct io_space *s, const char *path, const char *parent, uint32_t block,
                       struct plx_err *err)
{
    struct vhdx_parent *link = plx_calloc(1, sizeof *link);
    struct disk *d = NULL;
    struct io_file *f = NULL;
    struct disk_guid id;
    int rc = link == NULL ? io_no_memory(path, err) : chain_open_parent(s, parent, &d, &id, err);

    if (rc == 0) {
        rc = chain_describe(path, parent, &id, link, err);
    }
    if (rc == 0) {
        rc = io_open(s, path, IO_WRITE | IO_CREATE, &f, err);
    }
    if (rc == 0) {
        struct vhdx_create c = {.type = VHDX_DIFFERENCING,
                                .bytes = d->geo.bytes,
                                .block = block,
                                .logical_sector = d->geo.logical_sector,
                                .physical_sector = d->geo.physical_sector,
                                .parent = link};
        rc = vhdx_create(f, &c, err);
        io_close(f);
        if (rc != 0) {
            (void)s->remove(s, path, NULL);
        }
    }
    (void)disk_close(d, NULL);
    plx_free(link);
    return rc;
}

/* --- commit --------------------------------------------------------------------------------- */

/* What the child has of one stretch, into the parent. */
static int commit_run(struct vhdx *child, struct disk *parent, uint64_t off, uint64_t len,
                      uint8_t *buf, uint64_t *done, struct plx_err *err)
{
    struct vhdx_run run;
    int rc = vhdx_map(child, off, len < PART ? len : PART, &run, err);

    if (rc != 0) {
        return rc;
    }
    *done = run.len;
    if (run.where == VHDX_HERE) {
        rc = io_read(vhdx_file(child), buf, run.len, run.file_off, err);
        return rc == 0 ? disk_write(parent, buf, run.len, off, err) : rc;
    }
    return run.where == VHDX_ZEROS ? disk_zero(parent, run.len, off, true, err) : 0;
}

static int commit_all(struct vhdx *child, struct disk *parent, uint64_t bytes,
                      const struct disk_progress *p, struct plx_err *err)
{
    uint8_t *buf = plx_calloc(1, PART);
    int rc = buf == NULL ? io_no_memory(parent->path, err) : 0;

    for (uint64_t off = 0, n = 0; off < bytes && rc == 0; off += n) {
        rc = commit_run(child, parent, off, bytes - off, buf, &n, err);
        if (rc == 0 && !tell(p, off + n, bytes)) {
            rc = plx_fail(err, PLX_ECANCELED, "%s: commit was ended; do it again to finish it",
                          vhdx_file(child)->path);
        }
    }
    plx_free(buf);
    return rc;
}

int chain_commit(struct io_space *s, const char *path, const struct disk_progress *p,
                 struct plx_err *err)
{
    char parent_path[VHDX_PATH_MAX];
    struct disk *d = NULL, *parent = NULL;
    struct vhdx *child = NULL;
    struct vhdx_parent *link = plx_calloc(1, sizeof *link);
    uint64_t bytes = 0;
    /* The whole chain is judged once; then the child is held, and its parent opened for writing. */
    int rc = link == NULL ? io_no_memory(path, err) : chain_open(s, path, DISK_FOR_WRITE, &d, err);

    if (rc == 0 && chain_depth(d) < 2) {
        rc = chain_base(d) == NULL
                 ? plx_fail(err, PLX_EINVAL, "%s has no parent to commit to", path)
                 : plx_fail(err, PLX_EINVAL,
                            "%s: its parent %s is an image, which is not changed (pollux image "
                            "push %s NAME:TAG makes a new one)",
                            path, chain_base(d)->path, path);
    }
    if (rc == 0) {
        (void)snprintf(parent_path, sizeof parent_path, "%s", vhdx_file(chain_layer(d, 1))->path);
        bytes = d->geo.bytes;
    }
    if (d != NULL) {
        int closed = disk_close(d, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    if (rc == 0) {
        rc = chain_open_layer(s, path, 0, true, &child, err);
    }
    if (rc == 0) {
        rc = chain_open(s, parent_path, DISK_FOR_WRITE, &parent, err);
    }
    if (rc == 0) {
        struct disk_guid id = vhdx_identity(chain_layer(parent, 0));
        *link = *vhdx_parent(child);
        if (!chain_link_holds(link, &id)) {
            rc = plx_fail(err, PLX_ESTALE, "%s was changed just now: try again", parent_path);
        } else if (parent->geo.bytes < bytes) {
            rc = plx_fail(err, PLX_EINVAL,
                          "%s is smaller than %s: pollux disk resize %s first, then relink",
                          parent_path, path, parent_path);
        }
    }
    /* The child learns the parent's next identifier before the parent has it, and data move after
     * that: at every moment the child over the parent reads as before, and opens. */
    if (rc == 0) {
        link->linkage = vhdx_identity(chain_layer(parent, 0));
        link->linkage2 = disk_guid_new();
        rc = vhdx_set_parent(child, link, err);
    }
    if (rc == 0) {
        rc = vhdx_renew(chain_layer(parent, 0), &link->linkage2, err);
    }
    if (rc == 0) {
        link->linkage = link->linkage2;
        link->linkage2 = (struct disk_guid){{0}};
        rc = vhdx_set_parent(child, link, err);
    }
    if (rc == 0) {
        rc = commit_all(child, parent, bytes, p, err);
    }
    if (parent != NULL) {
        int closed = disk_close(parent, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    if (rc == 0) {
        rc = vhdx_empty(child, err);
    }
    if (child != NULL) {
        int closed = vhdx_close(child, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    plx_free(link);
    return rc;
}

/* --- rebase --------------------------------------------------------------------------------- */

/* Sectors for which the child would have to ask its parent and the two parents differ are copied
 * from the old chain into the child. */
static int rebase_part(struct disk *d, struct disk *parent, uint64_t off, uint64_t len, uint8_t *a,
                       uint8_t *b, struct plx_err *err)
{
    uint64_t sector = d->geo.logical_sector;
    uint64_t there = off >= parent->geo.bytes        ? 0
                     : parent->geo.bytes - off < len ? parent->geo.bytes - off
                                                     : len;
    int rc = disk_read(d, a, len, off, err);

    memset(b, 0, len);
    if (rc == 0 && there != 0) {
        rc = disk_read(parent, b, there, off, err);
    }
    for (uint64_t i = 0; i < len && rc == 0;) {
        uint64_t n = 0;
        while (i + n < len && memcmp(a + i + n, b + i + n, sector) != 0) {
            n += sector;
        }
        if (n != 0) {
            rc = disk_write(d, a + i, n, off + i, err);
        }
        i += n + sector;
    }
    return rc;
}

static int rebase_all(struct disk *d, struct disk *parent, const struct disk_progress *p,
                      struct plx_err *err)
{
    uint8_t *buf = plx_calloc(2, PART);
    int rc = buf == NULL ? io_no_memory(d->path, err) : 0;

    for (uint64_t off = 0; off < d->geo.bytes && rc == 0;) {
        struct vhdx_run run;
        uint64_t left = d->geo.bytes - off;
        rc = vhdx_map(chain_layer(d, 0), off, left < PART ? left : PART, &run, err);
        if (rc == 0 && run.where == VHDX_PARENT) {
            rc = rebase_part(d, parent, off, run.len, buf, buf + PART, err);
        }
        off += run.len;
        if (rc == 0 && !tell(p, off, d->geo.bytes)) {
            rc = plx_fail(err, PLX_ECANCELED, "%s: rebase was ended; it has its old parent still",
                          d->path);
        }
    }
    plx_free(buf);
    return rc == 0 ? disk_flush(d, err) : rc;
}

int chain_rebase(struct io_space *s, const char *path, const char *parent,
                 const struct disk_progress *p, struct plx_err *err)
{
    struct vhdx_parent *link = plx_calloc(1, sizeof *link);
    struct disk *d = NULL, *to = NULL;
    struct disk_guid id;
    uint64_t a[2], b[2];
    int rc = link == NULL ? io_no_memory(path, err) : chain_open(s, path, DISK_FOR_WRITE, &d, err);

    if (rc == 0 && chain_depth(d) < 2 && chain_base(d) == NULL) {
        rc = plx_fail(err, PLX_EINVAL, "%s has no parent that another could replace", path);
    }
    if (rc == 0) {
        rc = chain_open_parent(s, parent, &to, &id, err);
    }
    for (unsigned i = 0; rc == 0 && disk_is_chain(to) && i < chain_depth(to); i++) {
        rc = io_identity(vhdx_file(chain_layer(d, 0)), a, err);
        rc = rc == 0 ? io_identity(vhdx_file(chain_layer(to, i)), b, err) : rc;
        if (rc == 0 && a[0] == b[0] && a[1] == b[1]) {
            rc = plx_fail(err, PLX_EINVAL, "%s depends on %s already", parent, path);
        }
    }
    if (rc == 0 && d->geo.logical_sector != to->geo.logical_sector) {
        rc = plx_fail(err, PLX_EINVAL, "%s and %s have sectors of different sizes", path, parent);
    }
    if (rc == 0) {
        rc = rebase_all(d, to, p, err);
    }
    if (rc == 0) {
        rc = chain_describe(path, parent, &id, link, err);
    }
    if (rc == 0) {
        rc = vhdx_set_parent(chain_layer(d, 0), link, err);
    }
    (void)disk_close(to, NULL);
    if (d != NULL) {
        int closed = disk_close(d, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    plx_free(link);
    return rc;
}

/* --- relink --------------------------------------------------------------------------------- */

static int note_force(struct vhdx *child, const char *path, const char *parent,
                      const struct disk_guid *holds, const struct disk_guid *has,
                      struct plx_err *err)
{
    char a[DISK_GUID_TEXT], b[DISK_GUID_TEXT], when[32], line[PLX_ERR_MSG_MAX];
    time_t now = (time_t)(clock_wall_ns() / 1000000000);
    struct tm tm;

    (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    (void)snprintf(line, sizeof line, "%s relink --force by uid %u: parent %.200s is %s, was %s",
                   when, (unsigned)getuid(), parent, disk_guid_text(has, b),
                   disk_guid_text(holds, a));
    log_warn("%s: %s", path, line);
    return vhdx_note(child, line, err);
}

/* Of the file alone: its own parents do not matter. */
static int parent_identity(struct io_space *s, const char *path, struct disk_guid *out,
                           struct plx_err *err)
{
    struct disk *image;
    struct vhdx *v;
    int rc = 0;

    if (image_disk_path(path)) {
        rc = chain_open_parent(s, path, &image, out, err);
        (void)disk_close(image, NULL);
        return rc;
    }
    rc = chain_open_layer(s, path, 0, false, &v, err);
    if (rc == 0) {
        *out = vhdx_identity(v);
    }
    (void)vhdx_close(v, NULL);
    return rc;
}

int chain_relink(struct io_space *s, const char *path, const char *parent, bool force,
                 struct plx_err *err)
{
    char found[VHDX_PATH_MAX], a[DISK_GUID_TEXT], b[DISK_GUID_TEXT];
    struct vhdx_parent *link = plx_calloc(1, sizeof *link);
    struct vhdx *child = NULL;
    struct disk_guid has;
    int rc =
        link == NULL ? io_no_memory(path, err) : chain_open_layer(s, path, 0, true, &child, err);

    if (rc == 0 && vhdx_parent(child) == NULL) {
        rc = plx_fail(err, PLX_EINVAL, "%s has no parent", path);
    }
    if (rc == 0 && parent == NULL) {
        rc = chain_parent_path(s, path, vhdx_parent(child), found, err);
        parent = found;
    }
    if (rc == 0) {
        rc = parent_identity(s, parent, &has, err);
    }
    if (rc == 0) {
        struct disk_guid holds = vhdx_parent(child)->linkage;
        bool same = chain_link_holds(vhdx_parent(child), &has);
        if (!same && !force) {
            rc = plx_fail(err, PLX_ESTALE,
                          "%s depends on %s as it was when it was %s; it is %s now: relinked, the "
                          "disk may show what it never held (--force does it all the same)",
                          path, parent, disk_guid_text(&holds, a), disk_guid_text(&has, b));
        }
        if (rc == 0) {
            rc = chain_describe(path, parent, &has, link, err);
        }
        /* The note first: there is no forced link without one. */
        if (rc == 0 && !same) {
            rc = note_force(child, path, parent, &holds, &has, err);
        }
        if (rc == 0) {
            rc = vhdx_set_parent(child, link, err);
        }
    }
    if (child != NULL) {
        int closed = vhdx_close(child, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    plx_free(link);
    return rc;
}
