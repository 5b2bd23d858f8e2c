/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/duo_pair.h - two replicas of one VM and, for them, what polluxd would be: it starts
 * them, gives them their keys, disks and cards, and keeps the roles. Only duo.c has it. */
#ifndef TESTS_TOOLS_DUO_PAIR_H
#define TESTS_TOOLS_DUO_PAIR_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/prng.h"
#include "proto/control.pb-c.h"
#include "proto/frame.h"
#include "proto/keys.h"
#include "vmm/dev/backend/overlay.h"
#include "vmm/dev/backend/tap.h"

enum { PRIMARY, BACKUP };
enum { CHAOS_PEER_LOST_MS = 1000 }; /* delays are to reorder, not to end the pair */

struct side {
    pid_t pid;
    int fd;
    uint64_t incarnation;
    char endpoint[64];
    uint8_t public[32], secret[32];
    bool alive;
    uint64_t slice, compared, differ, instructions, lag, delay;
};

static struct {
    uint64_t memory;
    uint32_t vcpus;
    const char *mark, *kill, *disk, *state, *taps, *exec, *cpu;
    char *engine[2];
    uint64_t after_ms, stop_ms, chaos, timeout_s, scrub_ms, flip, flip_disk;
    bool net;
    uint32_t digest;
} opt = {.memory = 256, .vcpus = 1, .mark = "redis ready", .timeout_s = 60, .digest = 64};

static struct side side[2];
static struct {
    uint64_t epoch;
    int primary, backup; /* index of side, -1: none */
    bool in_sync;
} roles = {1, PRIMARY, BACKUP, false};

static struct {         /* --flip-disk */
    uint64_t block, at; /* the block, and the byte in the file */
    bool named;
} flip_disk;

static void make_keys(struct side *s)
{
    struct curve_pair k;
    struct plx_err err;

    PLX_CHECK(curve_generate(&k, &err) == 0);
    memcpy(s->public, k.public_key, sizeof s->public);
    memcpy(s->secret, k.secret_key, sizeof s->secret);
}

static void spawn(const char *program, struct side *s)
{
    int sv[2];

    PLX_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    s->pid = fork();
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(sv[1], 3);
        (void)fcntl(3, F_SETFD, 0);
        (void)execl(program, program, (char *)NULL);
        perror(program);
        _exit(1);
    }
    (void)close(sv[1]);
    s->fd = sv[0];
    s->alive = true;
}

static void send_with(struct side *s, const Ctl__ToReplica *m, const int *fds, unsigned nfds)
{
    static uint8_t buf[PACKET_MAX];

    if (s->alive) {
        size_t n = ctl__to_replica__pack(m, buf);
        (void)packet_send(s->fd, buf, n, fds, nfds);
    }
}

static void send_to(struct side *s, const Ctl__ToReplica *m)
{
    send_with(s, m, NULL, 0);
}

/* The @i-th of --taps, open. */
static int open_tap(int i)
{
    char name[32];
    struct plx_err err = {""};
    const char *comma = strchr(opt.taps, ',');
    int fd = -1;

    PLX_CHECK(comma != NULL);
    (void)snprintf(name, sizeof name, "%.*s", i == 0 ? (int)(comma - opt.taps) : 15,
                   i == 0 ? opt.taps : comma + 1);
    if (tap_open(name, &fd, &err) != 0) {
        (void)fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    return fd;
}

static Ctl__Replica wire_replica(const struct side *s, unsigned node)
{
    Ctl__Replica r = CTL__REPLICA__INIT;

    r.node = node;
    r.incarnation = s->incarnation;
    r.key.data = (uint8_t *)(uintptr_t)s->public;
    r.key.len = 32;
    r.endpoint = (char *)(uintptr_t)s->endpoint;
    return r;
}

struct wire_roles {
    Ctl__Roles r;
    Ctl__Replica p, b;
};

static void fill_roles(struct wire_roles *w, uint64_t nonce)
{
    ctl__roles__init(&w->r);
    ctl__replica__init(&w->p);
    ctl__replica__init(&w->b);
    if (roles.primary >= 0) {
        w->p = wire_replica(&side[roles.primary], (unsigned)roles.primary + 1);
    }
    if (roles.backup >= 0) {
        w->b = wire_replica(&side[roles.backup], (unsigned)roles.backup + 1);
    }
    w->r.epoch = roles.epoch;
    w->r.primary = &w->p;
    w->r.backup = &w->b;
    w->r.in_sync = roles.in_sync;
    w->r.nonce = nonce;
}

static void tell_roles(struct side *s, uint64_t nonce)
{
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    struct wire_roles w;

    fill_roles(&w, nonce);
    m.msg_case = CTL__TO_REPLICA__MSG_ROLES;
    m.roles = &w.r;
    send_to(s, &m);
}

static char *overlay_path(int i, char out[64])
{
    (void)snprintf(out, 64, "/tmp/pollux-duo-%d-%d.overlay", (int)getpid(), i);
    return out;
}

enum { FLIP_BLOCKS = 40 };

/* Blocks as a guest would have written them before. */
static void fill_overlay(int i)
{
    static const uint8_t none[SHA256_LEN];
    char path[64];
    struct overlay *o;
    struct prng g;
    FILE *base = fopen(opt.disk, "re");
    long bytes;

    PLX_CHECK(base != NULL && fseek(base, 0, SEEK_END) == 0 && (bytes = ftell(base)) > 0);
    (void)fclose(base);
    prng_seed_bytes(&g, &opt.flip_disk, sizeof opt.flip_disk);
    PLX_CHECK(overlay_create(overlay_path(i, path), (uint64_t)bytes, none, NULL) == 0 &&
              overlay_open(path, (uint64_t)bytes, none, &o, NULL) == 0 && o->blocks > FLIP_BLOCKS);
    for (unsigned n = 0; n < FLIP_BLOCKS; n++) {
        uint8_t data[OVERLAY_BLOCK];

        prng_fill(&g, data, sizeof data);
        flip_disk.block = prng_below(&g, o->blocks);
        flip_disk.at = overlay_offset(o, flip_disk.block) + prng_below(&g, OVERLAY_BLOCK);
        PLX_CHECK(overlay_begin_write(o, flip_disk.block, 1) == 0 &&
                  pwrite(o->fd, data, sizeof data, (off_t)overlay_offset(o, flip_disk.block)) ==
                      sizeof data);
        overlay_mark(o, flip_disk.block, data);
        overlay_end_write(o, flip_disk.block, 1);
    }
    PLX_CHECK(overlay_flush(o) == 0 && overlay_settle(o, true) == 0);
    overlay_close(o);
}

static void start(int i, char **argv)
{
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    Ctl__Start s = CTL__START__INIT;
    Ctl__Tunables t = CTL__TUNABLES__INIT;
    Ctl__Disk d = CTL__DISK__INIT, *disks[1] = {&d};
    Ctl__Nic nic = CTL__NIC__INIT, *nics[1] = {&nic};
    static uint8_t vm[16] = "duo", cluster[16] = "duo",
                   mac[6] = {0x52, 0x54, 0x00, 0x70, 0x78, 0x01};
    struct wire_roles w;
    char overlay[64];

    fill_roles(&w, 0);
    s.vm.data = vm;
    s.vm.len = 16;
    s.cluster.data = cluster;
    s.cluster.len = 16;
    s.name = (char *)(uintptr_t) "duo";
    s.role = i == PRIMARY ? CTL__ROLE__PRIMARY : CTL__ROLE__BACKUP;
    s.roles = &w.r;
    s.incarnation = side[i].incarnation;
    s.secret_key.data = side[i].secret;
    s.secret_key.len = 32;
    s.bind_endpoint = side[i].endpoint;
    s.memory = opt.memory << 20;
    s.vcpus = opt.vcpus;
    if (opt.cpu != NULL) {
        s.cpu = (char *)(uintptr_t)opt.cpu;
    }
    s.kernel = argv[0];
    s.initrd = argv[1];
    s.cmdline = argv[2];
    if (opt.disk != NULL) {
        (void)unlink(overlay_path(i, overlay));
        if (opt.flip_disk != 0) {
            fill_overlay(i);
        }
        d.base_path = (char *)(uintptr_t)opt.disk;
        d.overlay = overlay;
        s.disks = disks;
        s.n_disks = 1;
    }
    if (opt.state != NULL) {
        s.state_file = (char *)(uintptr_t)opt.state;
    }
    if (opt.net) {
        nic.mac.data = mac;
        nic.mac.len = sizeof mac;
        s.nics = nics;
        s.n_nics = 1;
    }
    t.scrub_ns = opt.scrub_ms * 1000000;
    t.digest_slices = opt.digest;
    t.chaos = opt.chaos == 0 ? 0 : opt.chaos + (uint64_t)i;
    t.peer_lost_ms = opt.chaos == 0 ? 0 : CHAOS_PEER_LOST_MS;
    if (opt.engine[i] != NULL) {
        t.engine = opt.engine[i];
    }
    s.tunables = &t;
    m.msg_case = CTL__TO_REPLICA__MSG_START;
    m.start = &s;
    if (opt.taps != NULL) {
        int tap = open_tap(i);
        nic.tap = true;
        send_with(&side[i], &m, &tap, 1);
        (void)close(tap);
    } else {
        send_to(&side[i], &m);
    }
}

static void apply_request(int who, const Ctl__Request *q)
{
    if (q->epoch == roles.epoch) {
        if (q->kind == CTL__REQUEST_KIND__DROP_BACKUP && roles.primary == who) {
            roles.backup = -1;
            roles.epoch++;
        } else if (q->kind == CTL__REQUEST_KIND__TAKEOVER && roles.backup == who && roles.in_sync) {
            roles.primary = who;
            roles.backup = -1;
            roles.epoch++;
        } else if (q->kind == CTL__REQUEST_KIND__RESUME) {
            roles.epoch++;
        }
    }
    tell_roles(&side[0], 0);
    tell_roles(&side[1], 0);
}

static void attach(struct side *s)
{
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    Ctl__ConsoleAttach a = CTL__CONSOLE_ATTACH__INIT;

    m.msg_case = CTL__TO_REPLICA__MSG_CONSOLE_ATTACH;
    m.console_attach = &a;
    send_to(s, &m);
}

static void ask_stats(struct side *s, uint64_t nonce)
{
    Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
    Ctl__InfoRequest r = CTL__INFO_REQUEST__INIT;

    r.nonce = nonce;
    m.msg_case = CTL__TO_REPLICA__MSG_INFO;
    m.info = &r;
    send_to(s, &m);
}

#endif
