/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_disk_serve.c - `pollux disk serve`: a disk, or an image of a store, by NBD. */
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "ops/cmd_disk.h"
#include "storage/disk_nbd.h"
#include "storage/image.h"
#include "storage/stream.h"

/* An image of a store on this host, and what its disk borrows. */
struct stored {
    struct store *store;
    struct image_ref ref;
    struct manifest manifest;
    bool found, read;
};

static int open_stored(const struct disk_args *a, struct stored *st, struct disk **out,
                       struct plx_err *err)
{
    const char *text = a->argv[0];
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];
    struct stream *stream;
    int rc = image_name_parse(text, name, tag, err);

    if (rc == 0) {
        rc = store_open(a->store, false, &st->store, err);
    }
    if (rc == 0) {
        rc = image_find(st->store, name, tag, &st->ref, err);
    }
    st->found = rc == 0;
    if (rc == 0) {
        rc = image_manifest(st->store, &st->ref, &st->manifest, err);
        st->read = rc == 0;
    }
    if (rc == 0) {
        struct stream_config cfg = {.name = text, .manifest = &st->manifest, .store = st->store};
        rc = stream_open(&cfg, &stream, err);
        if (rc == 0) {
            *out = stream_disk(stream);
        }
    }
    return rc;
}

static void close_stored(struct stored *st)
{
    if (st->read) {
        manifest_free(&st->manifest);
    }
    if (st->found) {
        image_ref_free(&st->ref);
    }
    if (st->store != NULL) {
        store_close(st->store);
    }
}

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
    struct stored stored = {.store = NULL};
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
        rc = open_stored(a, &stored, &cfg.disk, err);
    } else {
        rc = disk_open(io_host(), a->argv[0], a->format, a->readonly ? 0 : DISK_FOR_WRITE,
                       &cfg.disk, err);
    }
    if (rc == 0) {
        rc = serve_disk(a->socket, &cfg, &stop, err);
        int closed = disk_close(cfg.disk, rc == 0 ? err : NULL);
        rc = rc == 0 ? closed : rc;
    }
    close_stored(&stored);
    return rc;
}
