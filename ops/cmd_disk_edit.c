/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_disk_edit.c - the verbs of `pollux disk` that make and change disks. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"
#include "ops/cmd_disk.h"
#include "storage/disk_nbd.h"
#include "storage/image_disk.h"

extern char **environ;

/* --- make ----------------------------------------------------------------------------------- */

static int type_of(const char *text, enum vhdx_type *out, struct plx_err *err)
{
    *out = VHDX_DYNAMIC;
    if (text == NULL || strcmp(text, "dynamic") == 0) {
        return 0;
    }
    *out = VHDX_FIXED;
    return strcmp(text, "fixed") == 0
               ? 0
               : plx_fail(err, PLX_EINVAL, "--type %s: dynamic or fixed", text);
}

static int create_vhdx(const char *path, const struct vhdx_create *c, struct plx_err *err)
{
    struct io_file *f;
    int rc = io_open(io_host(), path, IO_WRITE | IO_CREATE, &f, err);

    if (rc != 0) {
        return rc;
    }
    rc = vhdx_create(f, c, err);
    io_close(f);
    if (rc != 0) {
        (void)unlink(path);
    }
    return rc;
}

int disk_verb_create(struct disk_args *a, struct plx_err *err)
{
    struct vhdx_create c = {
        .bytes = a->bytes, .block = (uint32_t)a->block, .logical_sector = (uint32_t)a->sector};
    int rc = type_of(a->type, &c.type, err);

    if (rc != 0) {
        return rc;
    }
    if (a->block > 256 << 20) {
        return plx_fail(err, PLX_ERANGE, "--block: 1M to 256M");
    }
    if (strcmp(disk_format_of(a->argv[0]), "vhdx") != 0) {
        return plx_fail(err, PLX_EINVAL, "%s: a VHDX disk is called *.vhdx or *.avhdx", a->argv[0]);
    }
    if (a->parent != NULL) {
        if (a->bytes != 0 || a->type != NULL || a->sector != 0) {
            return plx_fail(err, PLX_EINVAL,
                            "--parent: size, type and sectors are those of the parent");
        }
        return chain_create_child(io_host(), a->argv[0], a->parent, (uint32_t)a->block, err);
    }
    if (a->bytes == 0) {
        return plx_fail(err, PLX_EINVAL, "--size is missing (or --parent)");
    }
    return create_vhdx(a->argv[0], &c, err);
}

/* --- change --------------------------------------------------------------------------------- */

int disk_verb_commit(struct disk_args *a, struct plx_err *err)
{
    struct disk_meter m;
    int rc = chain_commit(io_host(), a->argv[0], disk_meter_begin(&m, "commit"), err);

    disk_meter_end(&m);
    return rc;
}

int disk_verb_rebase(struct disk_args *a, struct plx_err *err)
{
    struct disk_meter m;

    if (a->parent == NULL) {
        return plx_fail(err, PLX_EINVAL, "--parent is missing (to have no parent: disk convert)");
    }
    int rc = chain_rebase(io_host(), a->argv[0], a->parent, disk_meter_begin(&m, "rebase"), err);
    disk_meter_end(&m);
    return rc;
}

int disk_verb_relink(struct disk_args *a, struct plx_err *err)
{
    return chain_relink(io_host(), a->argv[0], a->parent, a->force, err);
}

int disk_verb_resize(struct disk_args *a, struct plx_err *err)
{
    struct disk *d;
    int rc;

    if (a->bytes == 0) {
        return plx_fail(err, PLX_EINVAL, "--size is missing");
    }
    rc = chain_open(io_host(), a->argv[0], DISK_FOR_WRITE, &d, err);
    if (rc != 0) {
        return rc;
    }
    if (a->bytes < d->geo.bytes && !a->shrink) {
        rc = plx_fail(err, PLX_EINVAL,
                      "%s has %" PRIu64 " bytes: to make it smaller and lose what is beyond, say "
                      "--shrink",
                      a->argv[0], d->geo.bytes);
    } else {
        rc = vhdx_resize(chain_layer(d, 0), a->bytes, err);
    }
    int closed = disk_close(d, rc == 0 ? err : NULL);
    return rc == 0 ? closed : rc;
}

/* --- convert -------------------------------------------------------------------------------- */

/* qemu-img with @args; its output into @out when that is not NULL. */
static int qemu_img(const char *const *args, char *out, size_t cap, struct plx_err *err)
{
    posix_spawn_file_actions_t actions;
    char *argv[16];
    int pipes[2] = {-1, -1}, status;
    unsigned n = 0;
    pid_t pid;

    argv[n] = (char *)(uintptr_t) "qemu-img";
    while (n < PLX_COUNT(argv) - 2 && args[n] != NULL) {
        argv[n + 1] = (char *)(uintptr_t)args[n];
        n++;
    }
    argv[n + 1] = NULL;
    if (out != NULL && pipe(pipes) != 0) {
        return plx_fail_errno(err, "qemu-img");
    }
    (void)posix_spawn_file_actions_init(&actions);
    if (out != NULL) {
        (void)posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
        (void)posix_spawn_file_actions_addclose(&actions, pipes[0]);
    }
    int rc = posix_spawnp(&pid, "qemu-img", &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (out != NULL) {
        (void)close(pipes[1]);
        ssize_t got = rc == 0 ? io_read_full(pipes[0], out, cap - 1) : 0;
        out[got > 0 ? got : 0] = 0;
        (void)close(pipes[0]);
    }
    if (rc != 0) {
        errno = rc;
        return plx_fail_errno(err, "cannot run qemu-img, which reads and writes this format "
                                   "(package qemu-utils)");
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return plx_fail(err, PLX_EIO, "qemu-img %s failed", args[0]);
    }
    return 0;
}

static int foreign_size(const char *path, const char *format, uint64_t *out, struct plx_err *err)
{
    const char *const args[] = {"info", "--output=json", "-f", format, path, NULL};
    static const char key[] = "\"virtual-size\":";
    char text[65536];
    int rc = qemu_img(args, text, sizeof text, err);

    if (rc == 0) {
        const char *at = strstr(text, key);
        *out = at == NULL ? 0 : strtoull(at + sizeof key - 1, NULL, 10);
        if (*out == 0) {
            rc = plx_fail(err, PLX_ECORRUPT, "%s: qemu-img does not say its size", path);
        }
    }
    return rc;
}

struct serving {
    struct nbd_config cfg;
    int rc;
    struct plx_err err;
};

static void *serve_main(void *arg)
{
    struct serving *s = arg;

    s->rc = nbd_serve(&s->cfg, &s->err);
    return NULL;
}

/* qemu-img copies between @d, served for it, and the file @path; @in: into @d. */
static int copy_foreign(struct disk *d, const char *path, const char *format, bool in,
                        struct plx_err *err)
{
    char folder[] = "/tmp/pollux-disk-XXXXXX", socket[64], url[128];
    struct serving s = {.cfg = {.disk = d, .name = "", .readonly = !in}};
    int stop[2] = {-1, -1}, rc;
    pthread_t thread;
    const char *progress = isatty(STDERR_FILENO) != 0 ? "-p" : "-q";

    if (mkdtemp(folder) == NULL || pipe(stop) != 0) {
        return plx_fail_errno(err, "%s", folder);
    }
    (void)snprintf(socket, sizeof socket, "%s/nbd", folder);
    (void)snprintf(url, sizeof url, "nbd+unix:///?socket=%s", socket);
    s.cfg.stop_fd = stop[0];
    rc = nbd_listen(socket, &s.cfg.listen_fd, err);
    if (rc == 0) {
        int made = pthread_create(&thread, NULL, serve_main, &s);
        if (made != 0) {
            rc = plx_fail(err, PLX_ENOMEM, "no thread");
        } else {
            const char *const into[] = {"convert", progress, "-n", "-f", format, "-O",
                                        "raw",     "-W",     path, url,  NULL};
            const char *const from[] = {"convert", progress, "-f", "raw", "-O",
                                        format,    "-W",     url,  path,  NULL};
            rc = qemu_img(in ? into : from, NULL, 0, err);
            (void)close(stop[1]);
            (void)pthread_join(thread, NULL);
            stop[1] = -1;
            if (rc == 0 && s.rc != 0) {
                rc = plx_fail(err, s.rc, "%s", s.err.msg);
            }
        }
        (void)close(s.cfg.listen_fd);
    }
    (void)unlink(socket);
    (void)rmdir(folder);
    (void)close(stop[0]);
    if (stop[1] >= 0) {
        (void)close(stop[1]);
    }
    return rc;
}

static bool ours(const char *format)
{
    return strcmp(format, "vhdx") == 0 || strcmp(format, "raw") == 0 ||
           strcmp(format, "image") == 0;
}

static const char *by_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    return !image_disk_path(path) && dot != NULL && strcmp(dot, ".qcow2") == 0
               ? "qcow2"
               : disk_format_of(path);
}

/* An empty disk of @bytes in a new file of one of our formats, open for writing. */
static int make_target(const struct disk_args *a, const char *path, const char *format,
                       uint64_t bytes, struct disk **out, struct plx_err *err)
{
    struct vhdx_create c = {.bytes = bytes, .block = (uint32_t)a->block};
    int rc = type_of(a->type, &c.type, err);

    *out = NULL;
    if (rc != 0) {
        return rc;
    }
    if (strcmp(format, "vhdx") == 0) {
        c.bytes = (bytes + 511) / 512 * 512;
        rc = create_vhdx(path, &c, err);
    } else {
        struct io_file *f;
        rc = io_open(io_host(), path, IO_WRITE | IO_CREATE, &f, err);
        if (rc == 0) {
            rc = io_truncate(f, (bytes + 511) / 512 * 512, err);
            io_close(f);
        }
    }
    if (rc == 0) {
        rc = disk_open(io_host(), path, format, DISK_FOR_WRITE, out, err);
        if (rc != 0) {
            (void)unlink(path);
        }
    }
    return rc;
}

int disk_verb_convert(struct disk_args *a, struct plx_err *err)
{
    const char *from = a->argv[0], *to = a->argv[1];
    const char *ff = a->format != NULL ? a->format : by_name(from);
    const char *tf = a->output_format != NULL ? a->output_format : by_name(to);
    struct disk *in = NULL, *out = NULL;
    struct disk_meter m;
    uint64_t bytes = 0;
    bool made = false;
    int rc = 0;

    if (access(to, F_OK) == 0) {
        return plx_fail(err, PLX_EEXIST, "%s exists", to);
    }
    if (strcmp(tf, "image") == 0) {
        return plx_fail(err, PLX_EINVAL, "%s: pollux image push puts a disk into a store", to);
    }
    if (!ours(ff) && !ours(tf)) {
        return plx_fail(err, PLX_EINVAL, "neither %s nor %s is ours: use qemu-img convert", ff, tf);
    }
    if (ours(ff)) {
        rc = disk_open(io_host(), from, a->format, 0, &in, err);
        bytes = rc == 0 ? in->geo.bytes : 0;
    } else {
        rc = foreign_size(from, ff, &bytes, err);
    }
    if (rc == 0 && ours(tf)) {
        rc = make_target(a, to, tf, bytes, &out, err);
        made = rc == 0;
    }
    if (rc == 0 && in != NULL && out != NULL) {
        rc = disk_copy(in, out, disk_meter_begin(&m, "convert"), err);
        disk_meter_end(&m);
    } else if (rc == 0) {
        rc = in != NULL ? copy_foreign(in, to, tf, false, err)
                        : copy_foreign(out, from, ff, true, err);
    }
    if (out != NULL) {
        int closed = disk_close(out, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    (void)disk_close(in, NULL);
    if (rc != 0 && made) {
        (void)unlink(to);
    }
    return rc;
}
