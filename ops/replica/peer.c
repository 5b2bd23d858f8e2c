/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/peer.c - what the peer says, into the protocol. Both threads read the link, under the
 * lock (proc.h). */
#include "base/chaos.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/replica/proc.h"

void peer_recv(struct proc *p)
{
    const uint8_t *data;
    size_t len;

    while (p->link != NULL && link_recv(p->link, &data, &len) == 1) {
        struct rep_wire *w;
        struct rep_msg m;
        int rc = rep_wire_decode(data, len, &p->id, &w, &m);

        chaos_delay(CHAOS_RECEIVE);
        if (rc != 0) {
            log_warn("a message from the peer was refused: %s", plx_strerror(rc));
            continue;
        }
        rep_recv(p->rep, &m, clock_mono_ns());
        rep_wire_free(w);
    }
}

void peer_recv_by_vm(struct proc *p, bool spinning)
{
    bool primary = rep_role(p->rep) == REP_PRIMARY;
    bool paired = p->link != NULL && rep_phase(p->rep) == REP_PAIRED;
    bool mine = paired && (primary ? p->vm_reads_link || !rep_holds(p->rep) : spinning);

    if (mine) {
        link_look(p->link);
        peer_recv(p);
    }
    bool back = p->vm_reads_link && !mine;
    p->vm_reads_link = mine;
    if (back || rep_phase(p->rep) == REP_OUT || (mine && link_needs_poll(p->link))) {
        proc_wake(p->wake_io);
    }
}

void peer_leave_to_io(struct proc *p)
{
    if (p->vm_reads_link && rep_holds(p->rep)) {
        p->vm_reads_link = false;
        proc_wake(p->wake_io);
    }
}
