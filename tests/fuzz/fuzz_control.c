/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_control.c - packets of polluxd to a replica: first byte odd: the first is what it
 * waits for to start; then any number after it. A packet is a length of two bytes and as many. */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"
#include "base/log.h"
#include "ops/replica/proc.h"
#include "proto/frame.h"
#include "tests/fuzz/fuzz.h"

static void on_send(void *ctx, const struct rep_msg *m)
{
    (void)ctx;
    (void)m;
}

static void on_emit(void *ctx, const struct output *o, const uint8_t *data)
{
    (void)ctx;
    (void)o;
    (void)data;
}

static void on_ask(void *ctx, enum rep_ask ask, uint64_t epoch)
{
    control_ask(ctx, ask, epoch);
}

static void on_reread(void *ctx, uint64_t nonce)
{
    (void)ctx;
    (void)nonce;
}

static void on_event(void *ctx, enum rep_event ev, uint64_t detail, const char *text)
{
    (void)ev;
    (void)detail;
    control_event(ctx, "event", text);
}

static void on_wake(void *ctx)
{
    (void)ctx;
}

static const uint8_t *next_packet(const uint8_t **at, size_t *left, size_t *len)
{
    const uint8_t *packet = *at + 2;

    if (*left < 2) {
        return NULL;
    }
    *len = (size_t)(*at)[0] | (size_t)(*at)[1] << 8;
    *len = *len <= *left - 2 ? *len : *left - 2;
    *at += 2 + *len;
    *left -= 2 + *len;
    return packet;
}

static void start(struct proc *p, const uint8_t *packet, size_t len, int peer)
{
    struct plx_err err = {0};

    if (packet != NULL && len != 0 && packet_send(peer, packet, len, NULL, 0) == 0 &&
        control_wait_start(p, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    }
    if (p->start == NULL) {
        p->start = plx_calloc(1, sizeof *p->start);
        PLX_CHECK(p->start != NULL);
        ctl__start__init(p->start);
        p->start->incarnation = 7;
    }
}

static void finish(struct proc *p, int peer)
{
    rep_destroy(p->rep);
    ctl__start__free_unpacked(p->start, NULL);
    if (p->roles != NULL) {
        ctl__roles__free_unpacked(p->roles, NULL);
    }
    packets_free(&p->to_polluxd);
    PLX_CHECK(close(p->ctl) == 0 && close(peer) == 0);
    PLX_CHECK(close(p->wake_io) == 0 && close(p->wake_vm) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct proc p;
    const struct rep_ops ops = {on_send, on_emit, on_ask, on_reread, on_event, on_wake, &p};
    struct rep_config cfg = {.incarnation = 7, .peer = 8, .epoch = 1};
    const uint8_t *packet;
    int sv[2];
    size_t len = 0;

    if (size < 1) {
        return 0;
    }
    log_init("fuzz", LOG_ERROR);
    memset(&p, 0, sizeof p);
    PLX_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    p.ctl = sv[0];
    p.ctl_listen = -1;
    p.wake_io = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    p.wake_vm = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    cfg.role = (data[0] & 2) != 0 ? REP_BACKUP : REP_PRIMARY;
    bool first = (data[0] & 1) != 0;
    data++;
    size--;
    start(&p, first ? next_packet(&data, &size, &len) : NULL, len, sv[1]);
    (void)io_set_nonblock(p.ctl);
    (void)io_set_nonblock(sv[1]);
    PLX_CHECK(rep_create(&cfg, &ops, 0, &p.rep) == 0);
    while ((packet = next_packet(&data, &size, &len)) != NULL) {
        uint8_t answer[4096];
        if (len != 0 && packet_send(sv[1], packet, len, NULL, 0) == 0) {
            control_recv(&p);
            output_console_flush(&p);
            control_tell_typed(&p);
            control_flush(&p);
        }
        while (recv(sv[1], answer, sizeof answer, 0) > 0) {
        }
    }
    finish(&p, sv[1]);
    return 0;
}
