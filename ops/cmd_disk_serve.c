/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_disk_serve.c - `pollux disk serve`: a disk, or an image of a store, by NBD. */
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "ops/cmd_disk.h"
#include "storage/disk_nbd.h"
#include "storage/image_disk.h"

enum { PATH_CAP = 4096 };

static int serve_disk(const char *socket, struct nbd_config *cfg, const sigset_t *stop,
                      struct plx_err *err)
{
    int rc = nbd_listen(socket, &cfg->listen_fd, err);

    if (rc == 0) {
        cfg->stop_fd = signalfd(-1, stop, SFD_CLOEXEC);
        rc = nbd_serve(cfg, err);
        (void)unlink(socket);
        (void)close(cfg->listen_fd);
        (void)close(cfg->stop_fd);
    }
    return rc;
}

int disk_verb_serve(struct disk_args *a, struct plx_err *err)
{
    struct nbd_config cfg = {.name = a->name != NULL ? a->name : "",
                             .readonly = a->readonly,
                             .once = a->once,
                             .queue = a->threads ? IO_QUEUE_THREADS : IO_QUEUE_AUTO};
    char image[PATH_CAP];
    const char *path = a->argv[0];
    sigset_t stop;
    int rc;

    if (a->socket == NULL) {
        return plx_fail(err, PLX_EINVAL, "--socket is missing");
    }
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGINT);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &stop, NULL);
    if (a->store != NULL) {
        (void)snprintf(image, sizeof image, "image:%s#%s", a->store, path);
        path = image;
    }
    bool write = !a->readonly && !image_disk_path(path);
    rc = disk_open(io_host(), path, a->format, write ? DISK_FOR_WRITE : 0, &cfg.disk, err);
    if (rc == 0) {
        rc = serve_disk(a->socket, &cfg, &stop, err);
        int closed = disk_close(cfg.disk, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    return rc;
}
