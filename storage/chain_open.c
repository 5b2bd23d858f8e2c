/* SPDX-License-Identifier: Apache-2.0
 * storage/chain_open.c - opening a chain: finding each parent, and judging each link. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "storage/chain_int.h"
#include "storage/image_disk.h"

/* --- paths ---------------------------------------------------------------------------------- */

static bool is_there(struct io_space *s, const char *path)
{
    struct io_file *f;

    if (io_open(s, path, 0, &f, NULL) != 0) {
        return false;
    }
    io_close(f);
    return true;
}

/* @name as seen from the folder of @path. */
static bool beside(const char *path, const char *name, char out[VHDX_PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int folder = slash == NULL ? 0 : (int)(slash - path) + 1;

    return snprintf(out, VHDX_PATH_MAX, "%.*s%s", folder, path, name) < VHDX_PATH_MAX;
}

int chain_parent_path(struct io_space *s, const char *path, const struct vhdx_parent *p,
                      char out[VHDX_PATH_MAX], struct plx_err *err)
{
    char text[DISK_GUID_TEXT], tried[VHDX_PATH_MAX] = "";

    if (image_disk_path(p->absolute)) {
        (void)snprintf(out, VHDX_PATH_MAX, "%s", p->absolute);
        return 0;
    }
    if (p->relative[0] != 0 && beside(path, p->relative, tried) && is_there(s, tried)) {
        memcpy(out, tried, sizeof tried);
        return 0;
    }
    if (p->absolute[0] != 0 && is_there(s, p->absolute)) {
        (void)snprintf(out, VHDX_PATH_MAX, "%s", p->absolute);
        return 0;
    }
    return plx_fail(err, PLX_ENOENT,
                    "%s: its parent %s is missing, neither %.120s nor %.120s is there (if it was "
                    "moved: pollux disk relink %s --parent FILE)",
                    path, disk_guid_text(&p->linkage, text),
                    tried[0] != 0 ? tried : "a relative path",
                    p->absolute[0] != 0 ? p->absolute : "an absolute path", path);
}

static void real(const char *path, char out[PATH_MAX])
{
    if (realpath(path, out) == NULL) { /* in memory, or not there yet */
        char folder[PATH_MAX], found[PATH_MAX];
        const char *slash = strrchr(path, '/');
        (void)snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : (int)(slash - path),
                       slash == NULL ? "." : path);
        if (realpath(folder, found) == NULL ||
            snprintf(out, PATH_MAX, "%s/%s", found, slash == NULL ? path : slash + 1) >= PATH_MAX) {
            (void)snprintf(out, PATH_MAX, "%s", path);
        }
    }
}

int chain_describe(const char *child, const char *parent, const struct disk_guid *linkage,
                   struct vhdx_parent *out, struct plx_err *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    size_t same = 0, up = 0, n = 0;

    *out = (struct vhdx_parent){.linkage = *linkage};
    if (image_disk_path(parent)) {
        return image_disk_absolute(parent, out->absolute, sizeof out->absolute, err);
    }
    real(child, from);
    real(parent, to);
    for (size_t i = 0; from[i] != 0 && from[i] == to[i]; i++) {
        same = from[i] == '/' ? i + 1 : same;
    }
    for (const char *p = from + same; (p = strchr(p, '/')) != NULL; p++) {
        up++;
    }
    if (3 * up + strlen(to + same) >= sizeof out->relative || strlen(to) >= sizeof out->absolute) {
        return plx_fail(err, PLX_EINVAL, "%s: the path is too long", parent);
    }
    for (; up > 0; up--, n += 3) {
        memcpy(out->relative + n, "../", 3);
    }
    strcpy(out->relative + n, to + same);
    strcpy(out->absolute, to);
    return 0;
}

/* --- layers --------------------------------------------------------------------------------- */

static int open_once(struct io_space *s, const char *path, unsigned flags, bool write,
                     struct vhdx **out, struct plx_err *err)
{
    struct io_file *f;
    int rc = io_open(s, path, write ? IO_WRITE : 0, &f, err);

    *out = NULL;
    if (rc != 0) {
        return rc;
    }
    if (write || (flags & DISK_NO_LOCK) == 0) {
        rc = io_lock(f, write ? IO_LOCK_EXCLUSIVE : IO_LOCK_SHARED, err);
    }
    if (rc == 0) {
        rc = vhdx_open(f,
                       write                         ? VHDX_WRITE
                       : (flags & DISK_NO_LOCK) != 0 ? VHDX_PEEK
                                                     : 0,
                       out, err);
    }
    if (rc != 0) {
        io_close(f);
    }
    return rc;
}

int chain_open_layer(struct io_space *s, const char *path, unsigned flags, bool write,
                     struct vhdx **out, struct plx_err *err)
{
    int rc = open_once(s, path, flags, write, out, err);

    if (rc == PLX_ESTATE && !write) {
        struct plx_err why;
        struct vhdx *v;
        if (open_once(s, path, flags, true, &v, &why) == 0 && vhdx_close(v, &why) == 0) {
            return open_once(s, path, flags, false, out, err);
        }
        return plx_fail(err, rc, "%s was not closed, and its log cannot be replayed: %s", path,
                        why.msg);
    }
    return rc;
}

/* --- links ---------------------------------------------------------------------------------- */

static int refuse_link(const struct chain *c, const char *parent, const struct disk_guid *holds,
                       const struct disk_guid *has, struct plx_err *err)
{
    char a[DISK_GUID_TEXT], b[DISK_GUID_TEXT];
    const char *child = vhdx_file(c->layers[c->n - 1])->path;

    return plx_fail(err, PLX_ESTALE,
                    "%s depends on %s as it was when it was %s, but that was changed and is %s now "
                    "(if it is right as it is: pollux disk relink --force %s)",
                    child, parent, disk_guid_text(holds, a), disk_guid_text(has, b), child);
}

bool chain_link_holds(const struct vhdx_parent *p, const struct disk_guid *has)
{
    return disk_guid_eq(&p->linkage, has) ||
           (!disk_guid_zero(&p->linkage2) && disk_guid_eq(&p->linkage2, has));
}

/* Somebody writes it: say what it was, as far as its header tells. */
static int refuse_busy(struct io_space *s, const struct chain *c, const char *parent,
                       const struct disk_guid *holds, struct plx_err *err)
{
    char a[DISK_GUID_TEXT], b[DISK_GUID_TEXT] = "unknown";
    struct vhdx *v;

    if (open_once(s, parent, DISK_NO_LOCK, false, &v, NULL) == 0) {
        struct disk_guid has = vhdx_identity(v);
        (void)disk_guid_text(&has, b);
        (void)vhdx_close(v, NULL);
    }
    return plx_fail(err, PLX_EBUSY,
                    "%s depends on %s as it was when it was %s; that is open for writing elsewhere "
                    "(and is %s now): close it there first (fuser %s)",
                    vhdx_file(c->layers[c->n - 1])->path, parent, disk_guid_text(holds, a), b,
                    parent);
}

static int check_cycle(const struct chain *c, struct vhdx *v, struct plx_err *err)
{
    uint64_t a[2], b[2];
    int rc = io_identity(vhdx_file(v), a, err);

    for (unsigned i = 0; i < c->n && rc == 0; i++) {
        rc = io_identity(vhdx_file(c->layers[i]), b, err);
        if (rc == 0 && a[0] == b[0] && a[1] == b[1]) {
            char text[DISK_GUID_TEXT];
            return plx_fail(err, PLX_EINVAL,
                            "%s depends on itself: its ancestor %s names it as the parent %s "
                            "(give that one its own parent: pollux disk relink --force)",
                            vhdx_file(v)->path, vhdx_file(c->layers[c->n - 1])->path,
                            disk_guid_text(&vhdx_parent(c->layers[c->n - 1])->linkage, text));
        }
    }
    if (rc == 0 && c->n == CHAIN_DEPTH_MAX) {
        rc = plx_fail(err, PLX_EINVAL, "%s: a chain of more than %d layers", c->path,
                      CHAIN_DEPTH_MAX);
    }
    return rc;
}

/* The parent @has another identifier than its child holds: refused, or said and ignored. */
static int judge_link(const struct chain *c, const char *path, const struct disk_guid *has,
                      unsigned flags, struct plx_err *err)
{
    const struct vhdx_parent *p = vhdx_parent(c->layers[c->n - 1]);
    struct plx_err said;

    if (chain_link_holds(p, has)) {
        return 0;
    }
    int rc = refuse_link(c, path, &p->linkage, has, &said);
    if ((flags & DISK_NO_CHECK) == 0) {
        return plx_fail(err, rc, "%s", said.msg);
    }
    log_warn("%s", said.msg);
    return 0;
}

static int judge_sectors(struct vhdx *child, const char *path, const struct disk_geometry *parent,
                         struct plx_err *err)
{
    struct vhdx_info i;

    vhdx_get_info(child, &i);
    return i.geo.logical_sector == parent->logical_sector
               ? 0
               : plx_fail(err, PLX_EINVAL, "%s has sectors of %u bytes, its parent %s of %u",
                          vhdx_file(child)->path, i.geo.logical_sector, path,
                          parent->logical_sector);
}

/* The parent is an image of a store: the base of the chain. */
static int open_base(struct chain *c, unsigned flags, struct plx_err *err)
{
    struct vhdx *child = c->layers[c->n - 1];
    const struct vhdx_parent *p = vhdx_parent(child);
    const char *name = vhdx_file(child)->path;
    char text[DISK_GUID_TEXT];
    struct disk_guid has;
    int rc = image_disk_open(p->absolute, &c->base, err);

    if (rc == PLX_ENOENT) {
        struct plx_err why = *err;
        return plx_fail(err, rc,
                        "%s: its parent %s, which was %s, is missing: %.300s (if it is elsewhere: "
                        "pollux disk relink %s --parent image:STORE#NAME)",
                        name, p->absolute, disk_guid_text(&p->linkage, text), why.msg, name);
    }
    if (rc != 0) {
        return plx_err_wrap(err, rc, "%s", name);
    }
    rc = disk_identity(c->base, &has, err);
    if (rc == 0) {
        rc = judge_link(c, p->absolute, &has, flags, err);
    }
    return rc == 0 ? judge_sectors(child, p->absolute, &c->base->geo, err) : rc;
}

/* The parent of the deepest layer so far, judged. */
static int open_parent(struct io_space *s, struct chain *c, unsigned flags, struct vhdx **out,
                       struct plx_err *err)
{
    struct vhdx *child = c->layers[c->n - 1];
    const struct vhdx_parent *p = vhdx_parent(child);
    char path[VHDX_PATH_MAX];
    int rc = chain_parent_path(s, vhdx_file(child)->path, p, path, err);

    *out = NULL;
    if (rc == 0) { /* a cycle leads back to what we have locked: look before locking */
        struct vhdx *v;
        if (open_once(s, path, DISK_NO_LOCK, false, &v, NULL) == 0) {
            rc = check_cycle(c, v, err);
            (void)vhdx_close(v, NULL);
        }
    }
    if (rc == 0) {
        rc = chain_open_layer(s, path, flags, false, out, err);
        if (rc == PLX_EBUSY) {
            return refuse_busy(s, c, path, &p->linkage, err);
        }
        if (rc != 0) {
            return plx_err_wrap(err, rc, "%s", vhdx_file(child)->path);
        }
    }
    if (rc != 0) {
        return rc;
    }
    struct disk_guid has = vhdx_identity(*out);
    struct vhdx_info i;
    vhdx_get_info(*out, &i);
    rc = judge_link(c, path, &has, flags, err);
    return rc == 0 ? judge_sectors(child, path, &i.geo, err) : rc;
}

static int add_layer(struct chain *c, struct vhdx *v, struct plx_err *err)
{
    struct vhdx **grown = plx_realloc(c->layers, (c->n + 1) * sizeof(struct vhdx *));

    if (grown == NULL) {
        (void)vhdx_close(v, NULL);
        return io_no_memory(c->path, err);
    }
    c->layers = grown;
    c->layers[c->n++] = v;
    return 0;
}

/* Without memory for it every layer is asked. */
static void remember_answers(struct chain *c)
{
    c->fixed = c->d.writable ? 1 : 0;
    c->unit_shift = CHAIN_UNIT_SHIFT;
    if (c->n < c->fixed + 2) {
        return;
    }
    while (c->d.geo.bytes >> c->unit_shift > CHAIN_UNITS_MAX) {
        c->unit_shift++;
    }
    c->units = c->d.geo.bytes >> c->unit_shift; /* the last one only if it is whole */
    c->answers = plx_calloc(c->units + 1, 1);
}

int chain_open(struct io_space *s, const char *path, unsigned flags, struct disk **out,
               struct plx_err *err)
{
    struct chain *c = chain_new(path);
    struct vhdx_info info;
    struct vhdx *v;
    int rc;

    *out = NULL;
    if (c == NULL) {
        return io_no_memory(path, err);
    }
    c->d.writable = (flags & DISK_FOR_WRITE) != 0;
    rc = chain_open_layer(s, path, flags, c->d.writable, &v, err);
    if (rc == 0) {
        rc = add_layer(c, v, err);
    }
    while (rc == 0 && (flags & DISK_NO_PARENTS) == 0 && c->base == NULL &&
           vhdx_parent(c->layers[c->n - 1]) != NULL) {
        if (image_disk_path(vhdx_parent(c->layers[c->n - 1])->absolute)) {
            rc = open_base(c, flags, err);
            continue;
        }
        rc = open_parent(s, c, flags, &v, err);
        if (rc != 0) {
            (void)vhdx_close(v, NULL);
        } else {
            rc = add_layer(c, v, err);
        }
    }
    if (rc == 0 && (flags & DISK_NO_PARENTS) != 0 && c->d.writable &&
        vhdx_parent(c->layers[0]) != NULL) {
        rc = plx_fail(err, PLX_EINVAL, "%s cannot be written without its parents", path);
    }
    if (rc != 0) {
        (void)disk_close(&c->d, NULL);
        return rc;
    }
    vhdx_get_info(c->layers[0], &info);
    c->d.geo = info.geo;
    remember_answers(c);
    *out = &c->d;
    return 0;
}

int chain_open_parent(struct io_space *s, const char *path, struct disk **out,
                      struct disk_guid *identity, struct plx_err *err)
{
    int rc =
        image_disk_path(path) ? image_disk_open(path, out, err) : chain_open(s, path, 0, out, err);

    return rc == 0 ? disk_identity(*out, identity, err) : rc;
}

/* --- formats -------------------------------------------------------------------------------- */

const char *disk_format_of(const char *path)
{
    const char *dot = strrchr(path, '.');

    if (image_disk_path(path)) {
        return "image";
    }
    return dot != NULL && (strcasecmp(dot, ".vhdx") == 0 || strcasecmp(dot, ".avhdx") == 0) ? "vhdx"
                                                                                            : "raw";
}

static int refuse_doubtful(struct io_file *f, const char *path, struct plx_err *err)
{
    char magic[8] = "";

    if (io_read(f, magic, sizeof magic, 0, NULL) != 0) {
        return 0;
    }
    if (memcmp(magic, "QFI\xfb", 4) == 0) {
        return plx_fail(err, PLX_EINVAL,
                        "%s looks like qcow2, not like a raw image: pollux disk convert makes a "
                        "VHDX of it (or say that its format is raw)",
                        path);
    }
    if (memcmp(magic, "vhdxfile", 8) == 0) {
        return plx_fail(err, PLX_EINVAL, "%s looks like VHDX and is not named so: say its format",
                        path);
    }
    return 0;
}

int disk_open(struct io_space *s, const char *path, const char *format, unsigned flags,
              struct disk **out, struct plx_err *err)
{
    bool write = (flags & DISK_FOR_WRITE) != 0;
    struct io_file *f;

    *out = NULL;
    if (strcmp(format != NULL ? format : disk_format_of(path), "vhdx") == 0) {
        return chain_open(s, path, flags, out, err);
    }
    if (strcmp(format != NULL ? format : disk_format_of(path), "image") == 0) {
        return write ? plx_fail(err, PLX_EACCES,
                                "%s: images are not changed (make a child: pollux disk create "
                                "--parent %s, or open it read-only)",
                                path, path)
                     : image_disk_open(path, out, err);
    }
    if (format != NULL && strcmp(format, "raw") != 0) {
        return plx_fail(err, PLX_ENOTSUP, "%s: no format '%s' (raw, vhdx, image)", path, format);
    }
    int rc = io_open(s, path, write ? IO_WRITE : 0, &f, err);
    if (rc != 0) {
        return rc;
    }
    if (format == NULL) {
        rc = refuse_doubtful(f, path, err);
    }
    if (rc == 0 && (write || (flags & DISK_NO_LOCK) == 0)) {
        rc = io_lock(f, write ? IO_LOCK_EXCLUSIVE : IO_LOCK_SHARED, err);
    }
    if (rc == 0) {
        rc = disk_raw_open(f, out, err);
    }
    if (rc != 0) {
        io_close(f);
    }
    return rc;
}
