/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/hostio.c - see hostio.h. */
#include "vmm/dev/backend/hostio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "vmm/dev/backend/console.h"
#include "vmm/dev/backend/slirp.h"
#include "vmm/dev/backend/tap.h"

enum { POLL_MAX = 512, FRAME_MAX = 65568, TYPED_MAX = 4096, DONE_MAX = 256 };

struct host_net {
    enum hostio_net_kind kind;
    int fd; /* TAP */
    struct user_net *user;
    /* where its descriptors stand in the table that is being polled */
    unsigned first, count;
};

struct hostio {
    unsigned nnics, ndisks;
    struct host_net nets[NICS_MAX];
    struct diskfile *disks[DISKS_MAX];
    struct console *console;
    unsigned console_ports, console_input;
    struct hostio_stats stats;
    struct pollfd fds[POLL_MAX];
    uint8_t frame[FRAME_MAX];
};

/* --- batches ------------------------------------------------------------------------------ */

void input_batch_init(struct input_batch *b)
{
    *b = (struct input_batch){.n = 0};
    wbuf_init(&b->bytes);
}

void input_batch_free(struct input_batch *b)
{
    plx_free(b->items);
    plx_free(b->offsets);
    wbuf_free(&b->bytes);
    input_batch_init(b);
}

void input_batch_clear(struct input_batch *b)
{
    b->n = 0;
    wbuf_clear(&b->bytes);
}

int input_batch_add(struct input_batch *b, const struct input *in)
{
    if (b->n == b->cap) {
        size_t cap = b->cap == 0 ? 64 : 2 * b->cap;
        struct input *items = plx_realloc(b->items, cap * sizeof *items);
        if (items == NULL) {
            return PLX_ENOMEM;
        }
        b->items = items;
        size_t *offsets = plx_realloc(b->offsets, cap * sizeof *offsets);
        if (offsets == NULL) {
            return PLX_ENOMEM;
        }
        b->offsets = offsets;
        b->cap = cap;
    }
    const uint8_t *before = b->bytes.data;
    b->offsets[b->n] = b->bytes.len;
    wbuf_put(&b->bytes, in->data, in->len);
    if (b->bytes.failed) {
        b->bytes.failed = false;
        return PLX_ENOMEM;
    }
    b->items[b->n++] = *in;
    for (size_t i = b->bytes.data != before ? 0 : b->n - 1; i < b->n; i++) {
        b->items[i].data = b->items[i].len != 0 ? b->bytes.data + b->offsets[i] : NULL;
    }
    return 0;
}

bool hostio_batch_full(const struct input_batch *b)
{
    return b->n >= HOSTIO_BATCH_INPUTS || b->bytes.len >= HOSTIO_BATCH_BYTES;
}

static int out_of_memory(struct plx_err *err)
{
    return plx_fail(err, PLX_ENOMEM, "out of memory for the VM's inputs");
}

/* --- life --------------------------------------------------------------------------------- */

static int open_net(struct host_net *n, const struct hostio_net *cfg, struct plx_err *err)
{
    n->kind = cfg->kind;
    n->fd = -1;
    switch (cfg->kind) {
    case HOSTIO_NET_NONE:
        return 0;
    case HOSTIO_NET_TAP:
        if (cfg->ifname != NULL) {
            return tap_open(cfg->ifname, &n->fd, err);
        }
        int rc = tap_adopt(cfg->fd, err);
        n->fd = rc == 0 ? cfg->fd : -1;
        return rc;
    case HOSTIO_NET_USER:
        return user_net_create(cfg->hostfwd, cfg->nhostfwd, &n->user, err);
    }
    return plx_fail(err, PLX_EINVAL, "unknown kind of network %d", (int)cfg->kind);
}

static int open_console(struct hostio *h, const struct hostio_config *cfg, struct plx_err *err)
{
    h->console_ports = cfg->console_ports;
    h->console_input = cfg->console_input;
    switch (cfg->console) {
    case HOSTIO_CONSOLE_NONE:
        return 0;
    case HOSTIO_CONSOLE_STDIO:
        return console_open_stdio(&h->console, err);
    case HOSTIO_CONSOLE_FILE:
        return console_open_file(cfg->console_path, &h->console, err);
    }
    return plx_fail(err, PLX_EINVAL, "unknown kind of console %d", (int)cfg->console);
}

static int open_disk(const struct hostio_disk *disk, struct diskfile **out, struct plx_err *err)
{
    struct diskfile_config cfg = {.path = disk->path,
                                  .base = disk->base,
                                  .overlay = disk->overlay,
                                  .create_overlay = disk->create_overlay,
                                  .readonly = disk->readonly,
                                  .scrub_ns = disk->scrub_ns};

    memcpy(cfg.base_sha256, disk->base_sha256, sizeof cfg.base_sha256);
    return diskfile_open(&cfg, out, err);
}

int hostio_create(const struct hostio_config *cfg, struct hostio **out, struct plx_err *err)
{
    int rc = 0;

    *out = NULL;
    struct hostio *h = plx_calloc(1, sizeof *h);
    if (h == NULL || cfg->nnics > NICS_MAX || cfg->ndisks > DISKS_MAX) {
        plx_free(h);
        return h == NULL ? plx_fail(err, PLX_ENOMEM, "out of memory")
                         : plx_fail(err, PLX_EINVAL, "too many disks or networks");
    }
    for (; h->ndisks < cfg->ndisks && rc == 0; h->ndisks += rc == 0) {
        rc = open_disk(&cfg->disks[h->ndisks], &h->disks[h->ndisks], err);
    }
    for (unsigned i = 0; i < cfg->nnics; i++) {
        if (rc == 0) {
            rc = open_net(&h->nets[i], &cfg->nets[i], err);
            h->nnics++;
        } else if (cfg->nets[i].kind == HOSTIO_NET_TAP && cfg->nets[i].ifname == NULL) {
            (void)close(cfg->nets[i].fd); /* ours from the call on */
        }
    }
    if (rc == 0) {
        rc = open_console(h, cfg, err);
    }
    if (rc != 0) {
        hostio_destroy(h);
        return rc;
    }
    *out = h;
    return 0;
}

void hostio_destroy(struct hostio *h)
{
    if (h == NULL) {
        return;
    }
    console_close(h->console);
    for (unsigned i = 0; i < h->nnics; i++) {
        user_net_destroy(h->nets[i].user);
        if (h->nets[i].fd >= 0) {
            (void)close(h->nets[i].fd);
        }
    }
    for (unsigned i = 0; i < h->ndisks; i++) {
        diskfile_close(h->disks[i]);
    }
    plx_free(h);
}

uint64_t hostio_disk_sectors(const struct hostio *h, unsigned disk)
{
    return diskfile_sectors(h->disks[disk]);
}

/* --- inputs ------------------------------------------------------------------------------- */

/* In the order of the table: console, disks, networks (whose number varies). */
unsigned hostio_pollfds(struct hostio *h, struct pollfd *fds, unsigned cap, uint64_t *timeout_ns)
{
    unsigned n = 0;

    if (h->console != NULL && console_fd(h->console) >= 0 && n < cap) {
        fds[n++] = (struct pollfd){.fd = console_fd(h->console), .events = POLLIN};
    }
    for (unsigned i = 0; i < h->ndisks && n < cap; i++) {
        fds[n++] = (struct pollfd){.fd = diskfile_fd(h->disks[i]), .events = POLLIN};
    }
    for (unsigned i = 0; i < h->nnics; i++) {
        struct host_net *net = &h->nets[i];
        net->first = n;
        if (net->kind == HOSTIO_NET_TAP && n < cap) {
            fds[n++] = (struct pollfd){.fd = net->fd, .events = POLLIN};
        } else if (net->kind == HOSTIO_NET_USER) {
            n += user_net_pollfds(net->user, fds + n, cap - n, timeout_ns);
        }
        net->count = n - net->first;
    }
    return n;
}

static int gather_console(struct hostio *h, struct input_batch *in)
{
    uint8_t typed[TYPED_MAX];
    size_t n = console_read(h->console, typed, sizeof typed);
    struct input input = {.kind = INPUT_CONSOLE_RX,
                          .dev = (uint16_t)h->console_input,
                          .data = typed,
                          .len = (uint32_t)n};

    return n != 0 ? input_batch_add(in, &input) : 0;
}

static int add_frame(struct hostio *h, unsigned nic, const uint8_t *frame, uint32_t len,
                     struct input_batch *in)
{
    struct input input = {.kind = INPUT_NET_RX, .dev = (uint16_t)nic, .data = frame, .len = len};

    h->stats.net_rx++;
    return input_batch_add(in, &input);
}

static int gather_net(struct hostio *h, unsigned nic, struct input_batch *in)
{
    struct host_net *net = &h->nets[nic];
    const uint8_t *frame;
    uint32_t len;
    int rc = 0;

    if (net->kind == HOSTIO_NET_TAP) {
        while (rc == 0 && !hostio_batch_full(in)) {
            size_t n = tap_read(net->fd, h->frame, sizeof h->frame);
            if (n == 0) {
                break;
            }
            rc = add_frame(h, nic, h->frame, (uint32_t)n, in);
        }
    } else if (net->kind == HOSTIO_NET_USER) {
        user_net_run(net->user, h->fds + net->first, net->count);
        while (rc == 0 && !hostio_batch_full(in) && user_net_receive(net->user, &frame, &len)) {
            rc = add_frame(h, nic, frame, len, in);
        }
    }
    return rc;
}

static int gather_disk(struct hostio *h, unsigned disk, struct input_batch *in)
{
    uint64_t ids[DONE_MAX];
    unsigned n = diskfile_poll(h->disks[disk], ids, DONE_MAX);
    int rc = 0;

    for (unsigned i = 0; i < n && rc == 0; i++) {
        struct input input = {.kind = INPUT_DISK_DONE, .dev = (uint16_t)disk, .arg = ids[i]};
        rc = input_batch_add(in, &input);
    }
    return rc;
}

int hostio_poll(struct hostio *h, uint64_t timeout_ns, struct input_batch *in, struct plx_err *err)
{
    unsigned n = hostio_pollfds(h, h->fds, POLL_MAX, &timeout_ns);
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                          .tv_nsec = (long)(timeout_ns % 1000000000)};
    int rc = 0;

    if (ppoll(h->fds, n, &ts, NULL) < 0) {
        if (errno != EINTR) {
            return plx_fail_errno(err, "cannot wait for the VM's devices");
        }
        for (unsigned i = 0; i < n; i++) {
            h->fds[i].revents = 0;
        }
    }
    if (h->console != NULL && console_fd(h->console) >= 0 && h->fds[0].revents != 0) {
        rc = gather_console(h, in);
    }
    for (unsigned i = 0; i < h->nnics && rc == 0; i++) {
        rc = gather_net(h, i, in);
    }
    for (unsigned i = 0; i < h->ndisks && rc == 0; i++) {
        rc = gather_disk(h, i, in);
    }
    if (rc != 0) {
        return out_of_memory(err);
    }
    for (unsigned i = 0; i < h->ndisks && rc == 0; i++) {
        rc = diskfile_error(h->disks[i], err);
    }
    return rc;
}

unsigned hostio_events(struct hostio *h)
{
    unsigned events = h->console != NULL ? console_events(h->console) : 0;

    return ((events & CONSOLE_EVENT_QUIT) != 0 ? HOSTIO_QUIT : 0u) |
           ((events & CONSOLE_EVENT_MONITOR) != 0 ? HOSTIO_MONITOR : 0u);
}

/* --- outputs ------------------------------------------------------------------------------ */

static void send_frame(struct hostio *h, unsigned nic, const uint8_t *frame, uint32_t len)
{
    struct host_net *net = &h->nets[nic];

    h->stats.net_tx++;
    if (net->kind == HOSTIO_NET_USER) {
        user_net_send(net->user, frame, len);
    } else if (net->kind == HOSTIO_NET_TAP && tap_write(net->fd, frame, len) != 0) {
        h->stats.net_tx_dropped++;
    }
}

int hostio_emit(struct hostio *h, const struct output *o, const uint8_t *data, struct plx_err *err)
{
    switch (o->kind) {
    case OUTPUT_NET_TX:
        if (o->dev < h->nnics) {
            send_frame(h, o->dev, data, o->len);
        }
        return 0;
    case OUTPUT_CONSOLE:
        if (h->console != NULL && (h->console_ports >> o->dev & 1) != 0) {
            return console_write(h->console, data, o->len, err);
        }
        return 0;
    case OUTPUT_DISK:
        if (o->dev >= h->ndisks) {
            return plx_fail(err, PLX_EINVAL, "there is no disk %u", o->dev);
        }
        h->stats.disk_requests++;
        h->stats.disk_read_bytes += o->op == DISK_READ ? o->len : 0;
        h->stats.disk_written_bytes += o->op == DISK_WRITE ? o->len : 0;
        return diskfile_submit(h->disks[o->dev], o, data, err);
    default:
        return 0;
    }
}

static int emit_some(struct hostio *h, const struct output_list *l, bool disks, struct plx_err *err)
{
    int rc = 0;

    for (size_t i = 0; i < l->n && rc == 0; i++) {
        if ((l->items[i].kind == OUTPUT_DISK) == disks) {
            rc = hostio_emit(h, &l->items[i], output_data(l, &l->items[i]), err);
        }
    }
    return rc;
}

int hostio_submit(struct hostio *h, const struct output_list *l, struct plx_err *err)
{
    return emit_some(h, l, true, err);
}

int hostio_release(struct hostio *h, const struct output_list *l, struct plx_err *err)
{
    return emit_some(h, l, false, err);
}

/* --- disks -------------------------------------------------------------------------------- */

int hostio_disk_result(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len,
                       uint8_t *status, struct plx_err *err)
{
    struct hostio *h = ctx;

    *status = DISK_OK;
    if (disk >= h->ndisks) {
        return plx_fail(err, PLX_EINVAL, "there is no disk %u", disk);
    }
    return diskfile_result(h->disks[disk], id, data, len, err);
}

int hostio_drain(struct hostio *h, struct plx_err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < h->ndisks && rc == 0; i++) {
        rc = diskfile_drain(h->disks[i], err);
    }
    return rc;
}

int hostio_stamp(struct hostio *h, const struct disk_stamp *stamp, struct plx_err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < h->ndisks && rc == 0; i++) {
        rc = diskfile_stamp(h->disks[i], stamp, err);
    }
    return rc;
}

void hostio_get_stamp(const struct hostio *h, unsigned disk, struct disk_stamp *out)
{
    diskfile_get_stamp(h->disks[disk], out);
}

void hostio_stats(const struct hostio *h, struct hostio_stats *out)
{
    *out = h->stats;
    for (unsigned i = 0; i < h->nnics; i++) {
        if (h->nets[i].user != NULL) {
            out->net_rx_dropped += user_net_dropped(h->nets[i].user);
        }
    }
}
