/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_nbd.c - bytes from a client of the NBD server. With the first byte odd they
 * follow a good handshake, so that they are requests. */
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"
#include "storage/chain.h"
#include "storage/disk_nbd_wire.h"
#include "tests/fuzz/fuzz.h"

struct peer {
    int fd;
    const uint8_t *data;
    size_t len;
};

/* Sends everything, and takes whatever comes, so that nobody waits for anybody. */
static void *send_main(void *arg)
{
    const struct peer *p = arg;

    (void)io_write_full(p->fd, p->data, p->len);
    (void)shutdown(p->fd, SHUT_WR);
    return NULL;
}

static void *drain_main(void *arg)
{
    const struct peer *p = arg;
    uint8_t buf[4096];

    while (io_read_some(p->fd, buf, sizeof buf) > 0) {
    }
    return NULL;
}

static size_t good_handshake(uint8_t *out)
{
    static const char name[] = "base:allocation";
    uint8_t *p = out;

    nbd_put32(p, NBD_HAND_FIXED | NBD_HAND_NO_ZEROES);
    p += 4;
    for (unsigned i = 0; i < 3; i++) {
        static const uint32_t options[] = {NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META, NBD_OPT_GO};
        uint32_t len = i == 0 ? 0 : i == 1 ? 12 + (uint32_t)strlen(name) : 6;
        nbd_put64(p, NBD_OPTION_MAGIC);
        nbd_put32(p + 8, options[i]);
        nbd_put32(p + 12, len);
        memset(p + 16, 0, len);
        if (i == 1) {
            nbd_put32(p + 20, 1);
            nbd_put32(p + 24, (uint32_t)strlen(name));
            memcpy(p + 28, name, strlen(name));
        }
        p += 16 + len;
    }
    return (size_t)(p - out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vhdx_create c = {.type = VHDX_DYNAMIC, .bytes = 2 << 20, .block = 1 << 20};
    struct nbd_config cfg = {.name = "disk", .queue = IO_QUEUE_THREADS};
    struct io_mem *m = io_mem_new();
    pthread_t sender, drain;
    struct io_file *f;
    struct peer peer;
    int fds[2];

    if (size == 0) {
        io_mem_free(m);
        return 0;
    }
    uint8_t *bytes = plx_calloc(1, size + 256);
    PLX_CHECK(m != NULL && bytes != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    size_t head = (data[0] & 1) != 0 ? good_handshake(bytes) : 0;
    memcpy(bytes + head, data + 1, size - 1);
    PLX_CHECK(io_open(io_mem_space(m), "/d", IO_WRITE | IO_CREATE, &f, NULL) == 0);
    PLX_CHECK(vhdx_create(f, &c, NULL) == 0);
    io_close(f);
    PLX_CHECK(chain_open(io_mem_space(m), "/d", DISK_FOR_WRITE, &cfg.disk, NULL) == 0);
    peer = (struct peer){fds[0], bytes, head + size - 1};
    PLX_CHECK(pthread_create(&sender, NULL, send_main, &peer) == 0);
    PLX_CHECK(pthread_create(&drain, NULL, drain_main, &peer) == 0);
    nbd_serve_client(fds[1], &cfg);
    PLX_CHECK(shutdown(fds[1], SHUT_RDWR) == 0 || fds[1] >= 0);
    PLX_CHECK(pthread_join(sender, NULL) == 0 && pthread_join(drain, NULL) == 0);
    (void)close(fds[0]);
    (void)close(fds[1]);
    PLX_CHECK(disk_close(cfg.disk, NULL) == 0);
    io_mem_free(m);
    plx_free(bytes);
    return 0;
}
