/* SPDX-License-Identifier: Apache-2.0
 * replica/recording.c - see recording.h. */
#include "replica/recording.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "replica/log.h"
#include "vmm/tunables.h"

struct recording {
    char dir[MANIFEST_PATH_MAX];
    char overlay[MANIFEST_PATH_MAX + 32];
    struct manifest manifest;
    unsigned nbases;
    struct log *log; /* NULL before recording_begin */
    struct wbuf bytes;
};

/* A directory of our own: new, or empty. */
static int make_dir(const char *dir, struct plx_err *err)
{
    struct dirent *e;
    bool empty = true;
    DIR *d;

    if (mkdir(dir, 0700) == 0) {
        return 0;
    }
    if (errno != EEXIST) {
        return plx_fail_errno(err, "cannot create %s", dir);
    }
    d = opendir(dir);
    if (d == NULL) {
        return plx_fail_errno(err, "cannot open %s", dir);
    }
    while ((e = readdir(d)) != NULL) {
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    }
    (void)closedir(d);
    if (!empty) {
        return plx_fail(err, PLX_EEXIST,
                        "%s is not empty: a recording needs a directory of its own", dir);
    }
    return 0;
}

static int copy_bytes(int from, int to, const char *path, const char *copy, struct plx_err *err)
{
    uint8_t buf[1 << 16];
    ssize_t n;

    while ((n = io_read_some(from, buf, sizeof buf)) > 0) {
        if (io_write_full(to, buf, (size_t)n) != 0) {
            return plx_fail_errno(err, "cannot write %s", copy);
        }
    }
    if (n < 0) {
        return plx_fail_errno(err, "cannot read %s", path);
    }
    return fsync(to) == 0 ? 0 : plx_fail_errno(err, "cannot write %s", copy);
}

/* Copy @path to DIR/@name; what is hashed is the copy, the one that will be read again. */
static int copy_file(struct recording *rec, const char *path, const char *name,
                     struct manifest_file *f, struct plx_err *err)
{
    char copy[MANIFEST_PATH_MAX + 32];
    int from, to, rc;

    (void)snprintf(copy, sizeof copy, "%s/%s", rec->dir, name);
    (void)snprintf(f->name, sizeof f->name, "%s", name);
    from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        return plx_fail_errno(err, "cannot open %s", path);
    }
    to = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to < 0) {
        rc = plx_fail_errno(err, "cannot create %s", copy);
        (void)close(from);
        return rc;
    }
    rc = copy_bytes(from, to, path, copy, err);
    (void)close(from);
    if (close(to) != 0 && rc == 0) {
        rc = plx_fail_errno(err, "cannot write %s", copy);
    }
    return rc != 0 ? rc : manifest_hash_file(copy, f, err);
}

static int take_files(struct recording *rec, const struct recording_config *cfg,
                      struct plx_err *err)
{
    struct manifest *m = &rec->manifest;
    int rc = 0;

    if (cfg->state != NULL) {
        rc = copy_file(rec, cfg->state, "state", &m->state, err);
    }
    if (rc == 0 && cfg->kernel != NULL) {
        rc = copy_file(rec, cfg->kernel, "kernel", &m->kernel, err);
    }
    if (rc == 0 && cfg->initrd != NULL) {
        rc = copy_file(rec, cfg->initrd, "initrd", &m->initrd, err);
    }
    for (; rc == 0 && rec->nbases < DISKS_MAX && cfg->disks[rec->nbases] != NULL; rec->nbases++) {
        struct manifest_file *f = &m->disks[rec->nbases];
        char *real = realpath(cfg->disks[rec->nbases], NULL);
        if (real == NULL) {
            return plx_fail_errno(err, "cannot open %s", cfg->disks[rec->nbases]);
        }
        if (snprintf(f->name, sizeof f->name, "%s", real) >= (int)sizeof f->name) {
            rc = plx_fail(err, PLX_EINVAL, "%s: the name is too long", real);
        } else {
            rc = manifest_hash_file(real, f, err);
        }
        free(real);
    }
    return rc;
}

int recording_create(const struct recording_config *cfg, struct recording **out,
                     struct plx_err *err)
{
    struct recording *rec;
    int rc;

    *out = NULL;
    if ((cfg->kernel == NULL) == (cfg->state == NULL)) {
        return plx_fail(err, PLX_EINVAL, "a recording begins with a kernel or with a saved state");
    }
    rec = plx_calloc(1, sizeof *rec);
    if (rec == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    wbuf_init(&rec->bytes);
    if (snprintf(rec->dir, sizeof rec->dir, "%s", cfg->dir) >= (int)sizeof rec->dir ||
        snprintf(rec->manifest.cmdline, sizeof rec->manifest.cmdline, "%s",
                 cfg->cmdline != NULL ? cfg->cmdline : "") >= (int)sizeof rec->manifest.cmdline) {
        rc = plx_fail(err, PLX_EINVAL, "the name of the directory or the command line is too long");
        goto err_free;
    }
    rc = make_dir(rec->dir, err);
    if (rc != 0) {
        goto err_free;
    }
    rc = take_files(rec, cfg, err);
    if (rc != 0) {
        (void)rmdir(rec->dir); /* only if nothing is in it */
        goto err_free;
    }
    *out = rec;
    return 0;

err_free:
    plx_free(rec);
    return rc;
}

const char *recording_overlay(struct recording *rec, unsigned disk)
{
    (void)snprintf(rec->overlay, sizeof rec->overlay, "%s/overlay-%u", rec->dir, disk);
    return rec->overlay;
}

int recording_begin(struct recording *rec, struct vm *vm, const struct vm_config *cfg,
                    struct plx_err *err)
{
    struct manifest *m = &rec->manifest;
    const struct machine *machine = vm_machine(vm);
    struct vm_digest digest;
    uint64_t origin;
    int rc;

    PLX_CHECK(rec->log == NULL);
    if (machine->cfg.ndisks != rec->nbases) {
        return plx_fail(err, PLX_EINVAL, "the machine has %u disks, the recording %u",
                        machine->cfg.ndisks, rec->nbases);
    }
    m->machine = machine->cfg;
    m->eager_ad = !vm_lazy_ad(vm);
    (void)snprintf(m->engine, sizeof m->engine, "%s", cfg->engine->name);
    m->nsections = machine->ndevices;
    for (unsigned i = 0; i < machine->ndevices; i++) {
        memcpy(m->sections[i].name, machine->devices[i].name, sizeof m->sections[i].name);
        m->sections[i].version = machine->devices[i].version;
    }
    rc = manifest_write(rec->dir, m, &origin, err);
    if (rc == 0) {
        rc = log_create(rec->dir, origin, &rec->log, err);
    }
    if (rc != 0) {
        return rc;
    }
    /* The pages it begins with are those of the kernel or the state: not worth a list. */
    vm_digest(vm, 0, &digest, NULL, NULL);
    return recording_digest(rec, &digest, NULL, 0, err);
}

int recording_append(struct recording *rec, const struct record *r, struct plx_err *err)
{
    wbuf_clear(&rec->bytes);
    record_encode(r, &rec->bytes);
    if (rec->bytes.failed) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    return log_append(rec->log, r->seq, rec->bytes.data, rec->bytes.len, err);
}

int recording_digest(struct recording *rec, const struct vm_digest *d,
                     const struct digest_page *pages, size_t npages, struct plx_err *err)
{
    return log_append_digest(rec->log, d, pages, npages, err);
}

int recording_digest_now(struct recording *rec, struct vm *vm, struct plx_err *err)
{
    const struct digest_page *pages;
    struct vm_digest digest;
    size_t npages;

    vm_digest(vm, vm_scrub_pages(vm), &digest, &pages, &npages);
    return recording_digest(rec, &digest, pages, npages, err);
}

int recording_flush(struct recording *rec, struct plx_err *err)
{
    return log_commit_due(rec->log, err);
}

uint64_t recording_log_bytes(const struct recording *rec)
{
    return rec->log != NULL ? log_bytes(rec->log) : 0;
}

int recording_close(struct recording *rec, struct plx_err *err)
{
    int rc = 0;

    if (rec != NULL) {
        rc = log_close(rec->log, err);
        wbuf_free(&rec->bytes);
        plx_free(rec);
    }
    return rc;
}
