/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/mem.h - how instructions read and write guest memory.
 *
 * Every access is as if the page tables were walked at that moment (R7); what is cached is never
 * stale. Any of these may raise (#PF, #GP, #SS, #AC) and then does not return; a write that spans
 * pages checks both before it changes either. MMIO goes to v->ops, in the serial part.
 *
 * seg + off variants check segmentation; _lin variants take a linear address and an explicit
 * privilege (system structures are read as supervisor: SDM Vol. 3A, "Determination of Access
 * Rights"). */
#ifndef VMM_CPU_MEM_H
#define VMM_CPU_MEM_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/cpu/vcpu.h"

enum { MEM_R = 1, MEM_W = 2, MEM_X = 4 };

/* The effective address (offset) of the instruction's memory operand, cut to its address size. */
uint64_t mem_ea(const struct vcpu *v, const struct insn *in);

/* @size 1, 2, 4 or 8. Values are zero-extended. */
uint64_t mem_read(struct vcpu *v, unsigned seg, uint64_t off, unsigned size);
void mem_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, uint64_t value);
/* Any length up to 4096; atomic with respect to faults: all or nothing. */
void mem_read_bytes(struct vcpu *v, unsigned seg, uint64_t off, void *out, unsigned len);
void mem_write_bytes(struct vcpu *v, unsigned seg, uint64_t off, const void *data, unsigned len);
/* Check that a write of @len bytes would succeed, setting accessed and dirty flags as it would. */
void mem_probe_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned len);

/* Read-modify-write: the page must be writable before the read counts. begin gives the old value,
 * end stores the new one and cannot fault. Nothing else may access memory in between. */
struct mem_rmw {
    uint8_t *hva; /* NULL: not one plain page; linear/size are used */
    gva_t linear;
    unsigned size;
    uint64_t old;
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

/* --- caches ---------------------------------------------------------------------------- */
int vcpu_mem_create(struct vcpu *v, unsigned entries);
void vcpu_mem_destroy(struct vcpu *v);
void vcpu_mem_drop_all(struct vcpu *v);    /* everything; changes no result */
void vcpu_mem_drop_writes(struct vcpu *v); /* permissions to write fast (ram_clean) */

#endif
