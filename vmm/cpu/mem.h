/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/mem.h - how instructions read and write guest memory.
 *
 * Every access is as if the page tables were walked at that moment (R7); what is cached is never
 * stale. Any of these may raise (#PF, #GP, #SS, #AC) and then does not return; a write that spans
 * pages checks both before it changes either. MMIO goes to v->ops, in the serial part.
 *
 * In a parallel part an access may also find that the vCPU lacks a page, and then stops the run
 * (R2). What the same instruction did to memory until then is undone, if it went through functions
 * of this file that are not inline; an instruction that stores through the inline paths, or
 * mem_write, lets no access follow that could lack something: it probes first.
 *
 * seg + off variants check segmentation; _lin variants take a linear address and an explicit
 * privilege (system structures are read as supervisor: SDM Vol. 3A, "Determination of Access
 * Rights"). */
#ifndef VMM_CPU_MEM_H
#define VMM_CPU_MEM_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/cpu/vcpu.h"
#include "vmm/mmu/shadow.h"

enum { MEM_R = 1, MEM_W = 2, MEM_X = 4 };

/* The effective address (offset) of the instruction's memory operand, cut to its address size. */
static inline uint64_t mem_ea(const struct vcpu *v, const struct insn *in)
{
    const char *at = (const char *)v;

    return (*(const uint64_t *)(at + in->base_off) +
            (*(const uint64_t *)(at + in->index_off) << in->scale_shift) + (uint64_t)in->disp) &
           in->ea_mask;
}

/* @size 1, 2, 4 or 8. Values are zero-extended. */
uint64_t mem_read(struct vcpu *v, unsigned seg, uint64_t off, unsigned size);
void mem_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, uint64_t value);
/* Any length up to 4096; atomic with respect to faults: all or nothing. */
void mem_read_bytes(struct vcpu *v, unsigned seg, uint64_t off, void *out, unsigned len);
void mem_write_bytes(struct vcpu *v, unsigned seg, uint64_t off, const void *data, unsigned len);
/* Check that a write of @len bytes would succeed, setting accessed and dirty flags as it would. */
void mem_probe_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned len);

/* An access cut at its page boundary. */
struct mem_piece {
    gpa_t gpa;
    uint8_t *hva; /* NULL: MMIO */
    unsigned len;
};
struct mem_span {
    struct mem_piece piece[2];
    unsigned n;
};

/* Read-modify-write: the page must be writable before the read counts. begin gives the old value,
 * end stores the new one and cannot fault. Nothing else may access memory in between. */
struct mem_rmw {
    uint8_t *hva; /* NULL: not one plain page; span is used */
    unsigned size;
    uint64_t old;
    struct mem_span span;
};
uint64_t mem_rmw_begin(struct vcpu *v, unsigned seg, uint64_t off, unsigned size,
                       struct mem_rmw *m);
void mem_rmw_end(struct vcpu *v, struct mem_rmw *m, uint64_t value);

/* Linear access with explicit privilege: @user true: as CPL 3. */
uint64_t mem_read_lin(struct vcpu *v, gva_t lin, unsigned size, bool user);
void mem_write_lin(struct vcpu *v, gva_t lin, unsigned size, uint64_t value, bool user);

/* Stack of the current mode: width @size, SS limits, RSP/ESP/SP wrap. push/pop commit RSP only
 * when the access succeeded. */
void mem_push(struct vcpu *v, unsigned size, uint64_t value);
uint64_t mem_pop(struct vcpu *v, unsigned size);

/* --- inline paths: struct tlb_entry of shadow.h ------------------------------------------ */

static inline struct tlb_entry *tlb_slot(const struct vcpu *v, gva_t lin)
{
    return &v->tlb[(lin >> PAGE_SHIFT) & v->tlb_mask];
}

/* The bytes at @lin if a @size (a power of two) access there is aligned and cached; else NULL. */
static inline void *tlb_read(const struct vcpu *v, gva_t lin, unsigned size)
{
    const struct tlb_entry *e = tlb_slot(v, lin);

    return (lin & (~(PAGE_SIZE - 1) | (size - 1))) == e->rtag ? e->hva + PAGE_OFFSET(lin) : NULL;
}

static inline void *tlb_write(const struct vcpu *v, gva_t lin, unsigned size)
{
    const struct tlb_entry *e = tlb_slot(v, lin);

    return (lin & (~(PAGE_SIZE - 1) | (size - 1))) == e->wtag ? e->hva + PAGE_OFFSET(lin) : NULL;
}

static inline uint64_t host_load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return *(const uint16_t *)p;
    case 4:
        return *(const uint32_t *)p;
    default:
        return *(const uint64_t *)p;
    }
}

static inline void host_store(void *p, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *(uint8_t *)p = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)p = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)p = (uint32_t)value;
        break;
    default:
        *(uint64_t *)p = value;
        break;
    }
}

/* The memory operand of @in, as mem_read(v, in->seg, mem_ea(v, in), size) would; fastest when
 * @size is a constant. */
static inline uint64_t mem_load(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint64_t ea = mem_ea(v, in);

    if ((in->flags & INSN_LIN64) != 0) {
        const void *p = tlb_read(v, ea + *(const uint64_t *)((const char *)v + in->seg_off), size);
        if (__builtin_expect(p != NULL, 1)) {
            return host_load(p, size);
        }
    }
    return mem_read(v, in->seg, ea, size);
}

static inline void mem_store(struct vcpu *v, const struct insn *in, unsigned size, uint64_t value)
{
    uint64_t ea = mem_ea(v, in);

    if ((in->flags & INSN_LIN64) != 0) {
        void *p = tlb_write(v, ea + *(const uint64_t *)((const char *)v + in->seg_off), size);
        if (__builtin_expect(p != NULL, 1)) {
            host_store(p, size, value);
            return;
        }
    }
    mem_write(v, in->seg, ea, size, value);
}

/* --- caches ---------------------------------------------------------------------------- */
/* @entries 0: the default; @cfg NULL: the default. Errors: PLX_ENOMEM. */
int vcpu_mem_create(struct vcpu *v, unsigned entries, const struct shadow_config *cfg);
void vcpu_mem_destroy(struct vcpu *v);
void vcpu_mem_drop_all(struct vcpu *v);    /* everything; changes no result */
void vcpu_mem_drop_writes(struct vcpu *v); /* permissions to write fast (ram_clean) */
/* ram_watcher.written. */
void vcpu_mem_written(struct vcpu *v, gpa_t gpa, uint64_t len, bool flags);
/* Decoded code came from @page: no cached permission to write it fast may stay. */
void vcpu_mem_protect(struct vcpu *v, uint64_t page);
/* engine_ops of the same names. */
void vcpu_mem_revoke(struct vcpu *v, uint64_t page, bool all);
/* Serial part: somebody else derives something from @page, so @v asks again before it writes there.
 */
void vcpu_mem_not_now(struct vcpu *v, uint64_t page);
void vcpu_mem_settle(struct vcpu *v);
/* The vCPU is about to run: applies what was revoked, and starts a new account for undo. */
void vcpu_mem_begin(struct vcpu *v);
/* The run stopped because something is lacking in a parallel part: takes back what the instruction
 * or the delivery of an event did to memory before it found out. */
void vcpu_mem_undo(struct vcpu *v);
const struct shadow_counters *vcpu_mem_counters(const struct vcpu *v);
/* Choose the cache of the current privilege; after CPL, AC, debug state or paging changed. */
void vcpu_mem_select(struct vcpu *v);

/* Translate @lin for fetching an instruction at the current privilege; may raise #PF. */
gpa_t mem_fetch(struct vcpu *v, gva_t lin);

/* For REP string instructions: how many bytes from the access at seg:off upwards can be used
 * through *@hva without any further check, at most @len and never past the page; 0: take the
 * checked path, one element at a time. Never raises. */
unsigned mem_window(struct vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write,
                    uint8_t **hva);
/* Likewise for stores that mem_window does not serve since the page is one of tables: of the @size
 * bytes at @one over and over, the first of them at ES:@off, all of them in its page, as long as
 * nothing derived changes. How many of the @len bytes that were; 0: as above. May raise what the
 * first store would. */
unsigned mem_write_run(struct vcpu *v, uint64_t off, const void *one, unsigned len, unsigned size);

#endif
