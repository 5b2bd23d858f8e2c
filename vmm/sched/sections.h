/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/sections.h - all sections of a VM, RAM left out: the part of a saved state (state.h)
 * that chaos also saves and loads in place. Its form stands in state.h. */
#ifndef VMM_SCHED_SECTIONS_H
#define VMM_SCHED_SECTIONS_H

#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "base/hash.h"
#include "vmm/machine.h"

struct vm;

#define STATE_SEED UINT64_C(0x7374617465000001) /* of every hash in a saved state */

enum { SECTIONS_MAX = PLX_COUNT(((struct machine *)0)->devices) };

/* One as it stands in a saved state, its hash checked; @data is borrowed from what was parsed. */
struct section {
    char name[32];
    uint32_t version;
    const uint8_t *data;
    size_t len;
};

/* Appends every section; @out has failed when memory ran out. */
void sections_save(struct vm *vm, struct wbuf *out);
/* Every section of the machine once, none unknown. @found has SECTIONS_MAX elements and is indexed
 * as m->devices. Errors name the section: PLX_ETRUNCATED (or missing), PLX_ECORRUPT, PLX_ENOTSUP
 * (unknown), PLX_EVERSION. */
int sections_parse(const struct machine *m, struct rbuf *in, struct section *found,
                   struct plx_err *err);
/* Give each device its section; what a device then saves must be what it was given. On error the
 * state is undefined. */
int sections_apply(struct vm *vm, const struct section *found, struct plx_err *err);
/* Both. */
int sections_load(struct vm *vm, struct rbuf *in, struct plx_err *err);

static inline void state_put_hash(struct wbuf *out, struct hash128 h)
{
    wbuf_u64(out, h.lo);
    wbuf_u64(out, h.hi);
}

static inline struct hash128 state_get_hash(struct rbuf *in)
{
    uint64_t lo = rbuf_u64(in);

    return (struct hash128){.lo = lo, .hi = rbuf_u64(in)};
}

#endif
