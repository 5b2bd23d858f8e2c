/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/undo.c - see undo.h; vcpu_mem_undo (mem_translate.c) does it. */
#include "vmm/cpu/undo.h"

#include <string.h>

void undo_reset(struct undo *u)
{
    u->retired = UINT64_MAX;
    u->nwrites = u->nbytes = u->nfills = 0;
    u->flags = u->fills_lost = false;
}

bool undo_is_current(const struct undo *u, const struct vcpu *v)
{
    return u->retired == v->c.retired && u->progress == v->c.progress;
}

void undo_begin(struct undo *u, const struct vcpu *v, unsigned nowed)
{
    if (!undo_is_current(u, v)) {
        undo_reset(u);
        u->retired = v->c.retired;
        u->progress = v->c.progress;
        u->nowed = nowed;
    }
}

bool undo_write(struct undo *u, gpa_t gpa, const uint8_t *hva, unsigned len)
{
    if (u->nwrites == UNDO_WRITES || len > UNDO_BYTES - u->nbytes) {
        return false;
    }
    u->write[u->nwrites].gpa = gpa;
    u->write[u->nwrites].len = (uint16_t)len;
    u->write[u->nwrites].at = (uint16_t)u->nbytes;
    u->nwrites++;
    memcpy(u->bytes + u->nbytes, hva, len);
    u->nbytes += len;
    return true;
}

void undo_fill(struct undo *u, uint32_t slot)
{
    if (u->nfills < UNDO_FILLS) {
        u->fill[u->nfills++] = slot;
    } else {
        u->fills_lost = true;
    }
}
