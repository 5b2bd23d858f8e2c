/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/output.c - frames to the TAPs, console bytes to their rings, announcements. */
#include <string.h>
#include <unistd.h>

#include "base/chaos.h"
#include "base/log.h"
#include "ops/replica/proc.h"

static void console_append(struct console_ring *r, uint64_t pos, const uint8_t *data, size_t len)
{
    /* Bytes carry positions: what is let out twice (after a takeover) is stored once. */
    if (pos + len <= r->end) {
        return;
    }
    if (pos < r->end) {
        data += r->end - pos;
        len -= (size_t)(r->end - pos);
        pos = r->end;
    }
    r->end = pos;
    for (size_t i = 0; i < len; i++) {
        r->bytes[r->end % CONSOLE_RING] = data[i];
        r->end++;
    }
}

void output_emit(struct proc *p, const struct output *o, const uint8_t *data)
{
    chaos_delay(CHAOS_RELEASE);
    if (o->kind == OUTPUT_NET_TX && o->dev < p->nnics && p->tap[o->dev] >= 0) {
        if (write(p->tap[o->dev], data, o->len) != (ssize_t)o->len) {
            log_debug("a frame of %u bytes was dropped by the TAP", o->len);
        }
        p->frames_out++;
    } else if (o->kind == OUTPUT_CONSOLE && o->dev < CONSOLE_PORTS) {
        console_append(&p->console[o->dev], o->pos, data, o->len);
        proc_wake(p->wake_io);
    }
}

void output_announce(struct proc *p)
{
    for (unsigned i = 0; i < p->nnics; i++) {
        /* RFC 903: a reverse ARP request for our own hardware address, broadcast. */
        uint8_t f[60] = {0};
        const uint8_t *mac = p->start->nics[i]->mac.data;
        static const uint8_t rarp[] = {0x80, 0x35, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x03};

        memset(f, 0xff, 6);
        memcpy(f + 6, mac, 6);
        memcpy(f + 12, rarp, sizeof rarp);
        memcpy(f + 22, mac, 6);
        memcpy(f + 32, mac, 6);
        if (p->tap[i] >= 0 && write(p->tap[i], f, sizeof f) < 0) {
            log_warn("cannot announce the MAC of NIC %u on its TAP", i);
        }
    }
}

void output_console_flush(struct proc *p)
{
    for (unsigned port = 0; port < CONSOLE_PORTS; port++) {
        struct console_ring *r = &p->console[port];

        while (r->attached && r->sent < r->end && p->ctl >= 0 &&
               packets_left(&p->to_polluxd) < BACKLOG_MAX) {
            uint8_t part[16384];
            Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
            Ctl__ConsoleData d = CTL__CONSOLE_DATA__INIT;
            size_t n = 0;

            if (r->end > CONSOLE_RING && r->sent < r->end - CONSOLE_RING) {
                r->sent = r->end - CONSOLE_RING;
            }
            while (n < sizeof part && r->sent + n < r->end) {
                part[n] = r->bytes[(r->sent + n) % CONSOLE_RING];
                n++;
            }
            d.port = port;
            d.pos = r->sent;
            d.data.data = part;
            d.data.len = n;
            m.msg_case = CTL__FROM_REPLICA__MSG_CONSOLE_DATA;
            m.console_data = &d;
            control_send(p, &m);
            r->sent += n;
        }
    }
}
