/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/hostio.h - the host side of one VM's disks, networks and consoles.
 *
 * Gathers what happens on the host as inputs (to be logged by who runs the VM), and carries out
 * outputs. Never touches guest RAM. Nothing here is deterministic; the record made of its inputs
 * is what makes the VM so.
 *
 * Ownership: whoever creates it owns it. Threading: one thread, the VM's (hostio_disk_result is
 * called from inside vm_slice); disk requests run on threads of their own inside. */
#ifndef VMM_DEV_BACKEND_HOSTIO_H
#define VMM_DEV_BACKEND_HOSTIO_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "vmm/dev/backend/diskfile.h"
#include "vmm/machine.h"
#include "vmm/sched/input.h"

enum hostio_net_kind {
    HOSTIO_NET_NONE, /* frames vanish */
    HOSTIO_NET_TAP, /* ifname: an existing TAP; or fd >= 0: a TAP passed open (owned from now on) */
    HOSTIO_NET_USER, /* libslirp; hostfwd as in "tcp:8080-:80", any number */
};

enum { HOSTIO_HOSTFWD_MAX = 16 };

struct hostio_net {
    enum hostio_net_kind kind;
    const char *ifname;
    int fd;
    unsigned nhostfwd;
    const char *hostfwd[HOSTIO_HOSTFWD_MAX];
};

struct hostio_disk {
    const char *path;             /* raw image */
    const struct disk_base *base; /* instead of the image; see struct diskfile_config */
    const char *overlay;          /* NULL: the image itself is written (unless readonly) */
    bool create_overlay;          /* a fresh one; must not exist */
    bool readonly;
    uint8_t base_sha256[SHA256_LEN]; /* see struct diskfile_config */
    uint64_t scrub_ns;               /* likewise */
};

enum hostio_console_kind {
    HOSTIO_CONSOLE_NONE,
    HOSTIO_CONSOLE_STDIO, /* raw terminal; Ctrl-A is the escape */
    HOSTIO_CONSOLE_FILE,  /* output only; path, truncated */
};

struct hostio_config {
    unsigned nnics, ndisks;
    struct hostio_net nets[NICS_MAX];
    struct hostio_disk disks[DISKS_MAX];
    /* One host console; output of all @console_ports (bits 1 << CONSOLE_*) goes there, what is
     * typed goes to @console_input. */
    enum hostio_console_kind console;
    const char *console_path;
    unsigned console_ports;
    unsigned console_input;
};

/* Inputs gathered for the next record. Data live in the batch and stay valid until it is cleared.
 */
struct input_batch {
    struct input *items;
    size_t *offsets; /* of each item's data in bytes */
    size_t n, cap;
    struct wbuf bytes;
};

void input_batch_init(struct input_batch *b);
void input_batch_free(struct input_batch *b);
void input_batch_clear(struct input_batch *b);
/* Appends a copy of @in and its data. Errors: PLX_ENOMEM (nothing changed). */
int input_batch_add(struct input_batch *b, const struct input *in);

struct hostio; /* opaque */

/* Errors name the file or interface. On error nothing is left open (a passed fd is closed). */
int hostio_create(const struct hostio_config *cfg, struct hostio **out, struct plx_err *err);
void hostio_destroy(struct hostio *h); /* waits for running disk requests; NULL is a no-op */

/* Sizes of the opened disks, for machine_config. */
uint64_t hostio_disk_sectors(const struct hostio *h, unsigned disk);

/* Wait up to @timeout_ns (0: do not wait) for anything, then append every input there is to @in,
 * in the order consoles, NICs, disks, at most about HOSTIO_BATCH_BYTES; what does not fit waits.
 * Disk completions are reported once each. Errors: PLX_EIO (a host disk failed: message says
 * which), PLX_ENOMEM. */
enum { HOSTIO_BATCH_BYTES = 1 << 18, HOSTIO_BATCH_INPUTS = 512 };
int hostio_poll(struct hostio *h, uint64_t timeout_ns, struct input_batch *in, struct plx_err *err);
/* hostio_poll would take no frame more: waiting for one would not wait. */
bool hostio_batch_full(const struct input_batch *in);
/* For a caller with a poll loop of its own: what to wait for before hostio_poll(h, 0, ...). Fills
 * at most @cap entries, returns how many; lowers *timeout_ns if a network timer is due sooner. */
unsigned hostio_pollfds(struct hostio *h, struct pollfd *fds, unsigned cap, uint64_t *timeout_ns);

/* Escapes typed at the console since the last call. */
enum { HOSTIO_QUIT = 1, HOSTIO_MONITOR = 2 };
unsigned hostio_events(struct hostio *h);

/* Carry out one output: disks at once (any replica), network and console when released. Kinds that
 * do not concern it are ignored. A full or absent TAP drops the frame, counted.
 * Errors: PLX_EIO (console file), PLX_ENOMEM, PLX_EINVAL (disk request beyond the disk). */
int hostio_emit(struct hostio *h, const struct output *o, const uint8_t *data, struct plx_err *err);
/* The disk requests of a list, and nothing else of it. */
int hostio_submit(struct hostio *h, const struct output_list *l, struct plx_err *err);
/* The network and console outputs of a list, and nothing else of it. */
int hostio_release(struct hostio *h, const struct output_list *l, struct plx_err *err);

/* machine_host.disk_result with the hostio as @ctx. */
int hostio_disk_result(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len,
                       uint8_t *status, struct plx_err *err);
/* Wait until no disk request is running (before a state is saved). */
int hostio_drain(struct hostio *h, struct plx_err *err);
/* Durably write the stamp of every overlay (before the first write of an epoch). */
int hostio_stamp(struct hostio *h, const struct disk_stamp *stamp, struct plx_err *err);
void hostio_get_stamp(const struct hostio *h, unsigned disk, struct disk_stamp *out);

struct hostio_stats {
    uint64_t net_rx, net_rx_dropped, net_tx, net_tx_dropped;
    uint64_t disk_requests, disk_read_bytes, disk_written_bytes;
};
void hostio_stats(const struct hostio *h, struct hostio_stats *out);

#endif
