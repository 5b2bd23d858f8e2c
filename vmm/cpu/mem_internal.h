/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/mem_internal.h - what the accesses (mem.c) and the translations (mem_translate.c) of one
 * vCPU have in common; for these two files only. */
#ifndef VMM_CPU_MEM_INTERNAL_H
#define VMM_CPU_MEM_INTERNAL_H

#include "base/check.h"
#include "vmm/cpu/mem.h"
#include "vmm/cpu/undo.h"

enum { NOW_MAX = 8192 };

struct vcpu_mem {
    struct shadow *s;
    struct shadow_key key; /* of the current space */
    bool is64;
    struct tlb_entry none; /* what v->tlb points to while breakpoints watch data */
    struct undo undo;
    /* Pages that are written fast in this spell, though they are not ours (OWNER_NOW): USE_NOW. */
    uint64_t now[NOW_MAX], spell;
    unsigned nnow;
};

/* The tables of the current space may be others now. */
static inline void mem_settle_space(struct vcpu *v)
{
    if (PLX_UNLIKELY(v->mem->s->moved)) {
        v->mem->s->moved = false;
        vcpu_mem_select(v);
    }
}

/* May it write @page in a parallel part? */
static inline bool mem_exclusive(const struct vcpu *v, uint64_t page)
{
    return v->owner == NULL || owner_may_write(v->owner, page, v->id);
}

/* Note bytes before they change, if they may have to come back. */
static inline void mem_note_bytes(struct vcpu *v, gpa_t gpa, const uint8_t *hva, unsigned len)
{
    struct undo *u = &v->mem->undo;

    if (v->parallel) {
        undo_begin(u, v, v->mem->s->nowed);
        if (!undo_write(u, gpa, hva, len)) {
            vcpu_need_serial(v);
        }
    }
}

/* Translate one page's access as SDM Vol. 3A, "Paging"; raises #PF. @implicit: an access to a
 * system structure, which EFLAGS.AC does not let pass SMAP. The result is valid until the next
 * translation or drop. */
const struct shadow_entry *mem_translate(struct vcpu *v, gva_t lin, unsigned access, bool user,
                                         bool implicit);

#endif
