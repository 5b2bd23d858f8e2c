/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/crashdisk.c - a virtual disk in memory behind NBD, and what crashes leave of it.
 *
 *   crashdisk SOCKET MEGABYTES SEED     serves a differencing disk over an empty base, both of them
 *                                       in memory that keeps every change of the files
 *
 * Commands on standard input, one a line, each answered by one:
 *   mark              "mark N": N changes have been recorded
 *   crash N KIND FILE the image a crash after N changes would leave (KIND 0 to 2, see
 *                     storage/io.h) is opened, replayed and copied to the raw FILE: "ok"
 *   end               the server ends */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/prng.h"
#include "storage/chain.h"
#include "storage/disk_nbd.h"

static struct plx_err err;

static void need(int rc, const char *what)
{
    if (rc != 0) {
        (void)fprintf(stderr, "crashdisk: %s: %s\n", what, err.msg);
        exit(1);
    }
}

static void *serve(void *arg)
{
    struct plx_err e = {""};

    if (nbd_serve(arg, &e) != 0) {
        (void)fprintf(stderr, "crashdisk: %s\n", e.msg);
        exit(1);
    }
    return NULL;
}

static struct disk *make_disk(struct io_mem *m, uint64_t bytes)
{
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = bytes, .block = 1 << 20};
    struct io_space *s = io_mem_space(m);
    struct io_file *f;
    struct disk *d;

    need(io_open(s, "/base", IO_WRITE | IO_CREATE, &f, &err), "base");
    need(vhdx_create(f, &c, &err), "base");
    io_close(f);
    need(chain_create_child(s, "/top", "/base", 1 << 20, &err), "top");
    io_mem_record(m);
    need(chain_open(s, "/top", DISK_FOR_WRITE, &d, &err), "top");
    return d;
}

static void crash(const struct io_mem *m, unsigned n, enum io_crash kind, struct prng *g,
                  const char *path)
{
    struct io_mem *after = io_mem_crash(m, n, kind, g);
    struct io_file *f;
    struct disk *from, *to;

    need(after == NULL, "memory");
    need(chain_open(io_mem_space(after), "/top", DISK_FOR_WRITE, &from, &err), "after the crash");
    need(io_open(io_host(), path, IO_WRITE | IO_TRUNCATE | IO_TEMPORARY, &f, &err), path);
    need(io_truncate(f, from->geo.bytes, &err), path);
    need(disk_raw_open(f, &to, &err), path);
    need(disk_copy(from, to, NULL, &err), path);
    need(disk_close(to, &err), path);
    need(disk_close(from, &err), "closing");
    io_mem_free(after);
}

int main(int argc, char **argv)
{
    struct nbd_config cfg = {.name = ""};
    struct io_mem *m = io_mem_new();
    char line[512], path[256];
    int stop[2];
    pthread_t thread;
    struct prng g;
    unsigned n, kind;

    if (argc != 4 || m == NULL || pipe(stop) != 0) {
        return 2;
    }
    prng_seed(&g, strtoull(argv[3], NULL, 0));
    cfg.disk = make_disk(m, strtoull(argv[2], NULL, 0) << 20);
    cfg.stop_fd = stop[0];
    need(nbd_listen(argv[1], &cfg.listen_fd, &err), argv[1]);
    if (pthread_create(&thread, NULL, serve, &cfg) != 0) {
        return 1;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) != NULL && strncmp(line, "end", 3) != 0) {
        if (sscanf(line, "crash %u %u %255s", &n, &kind, path) == 3 && kind < IO_CRASH_KINDS &&
            n <= io_mem_recorded(m)) {
            crash(m, n, (enum io_crash)kind, &g, path);
            printf("ok\n");
        } else if (strncmp(line, "mark", 4) == 0) {
            printf("mark %u\n", io_mem_recorded(m));
        } else {
            printf("what?\n");
        }
    }
    (void)close(stop[1]);
    (void)pthread_join(thread, NULL);
    need(disk_close(cfg.disk, &err), "closing");
    io_mem_free(m);
    return 0;
}
