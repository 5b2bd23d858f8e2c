/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/mem.c - guest memory as one vCPU sees it: every checked path behind mem.h, over the
 * translations of mem_translate.c.
 *
 * Owned by one vCPU and run by its thread; no state. */
#include "vmm/cpu/mem.h"

#include <string.h>

#include "vmm/cpu/block.h"
#include "vmm/cpu/mem_internal.h"
#include "vmm/cpu/seg.h"

/* --- pieces: an access cut at its page boundary ------------------------------------------------
 */

static gva_t next_page(const struct vcpu *v, gva_t lin)
{
    gva_t next = PAGE_BASE(lin) + PAGE_SIZE;
    return v->mem->is64 ? next : (uint32_t)next;
}

/* Parallel part: the access reaches the vCPU's own LAPIC only, and the instruction has no effect
 * after it. */
static bool own_mmio(const struct vcpu *v, gpa_t gpa, unsigned len, bool write)
{
    if (v->ops->mmio_own == NULL ||
        (write && (v->cur == NULL || v->cur->mnemonic != ZYDIS_MNEMONIC_MOV))) {
        return false;
    }
    return v->ops->mmio_own(v->ops_ctx, gpa, len, write);
}

static void span_of(struct vcpu *v, gva_t lin, unsigned len, unsigned access, bool user,
                    bool implicit, struct mem_span *s)
{
    unsigned first = (unsigned)(PAGE_SIZE - PAGE_OFFSET(lin));

    s->n = 0;
    for (gva_t at = lin; len > 0; at = next_page(v, at)) {
        const struct shadow_entry *e = mem_translate(v, at, access, user, implicit);
        uint8_t *hva = ram_page_hva(v->ram, e->page);
        unsigned part = s->n == 0 && first < len ? first : len;
        s->piece[s->n++] = (struct mem_piece){e->page + PAGE_OFFSET(at),
                                              hva == NULL ? NULL : hva + PAGE_OFFSET(at), part};
        if (hva == NULL && v->parallel &&
            !own_mmio(v, e->page + PAGE_OFFSET(at), len, access == MEM_W)) {
            vcpu_need_serial(v);
        }
        len -= part;
    }
    if (v->debug && !implicit && access != MEM_X) {
        unsigned total = s->piece[0].len + (s->n > 1 ? s->piece[1].len : 0);
        exc_data_access(v, lin, total, access == MEM_W);
    }
}

/* Largest access to MMIO at @gpa: naturally aligned parts, whole where it fits. */
static unsigned mmio_part(unsigned len)
{
    return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
}

static void piece_read(struct vcpu *v, const struct mem_piece *p, uint8_t *out)
{
    if (p->hva != NULL) {
        memcpy(out, p->hva, p->len);
        return;
    }
    for (unsigned at = 0; at < p->len;) {
        unsigned part = mmio_part(p->len - at);
        uint64_t value = v->ops->mmio_read(v->ops_ctx, p->gpa + at, part);
        memcpy(out + at, &value, part);
        at += part;
    }
}

/* Does the store change an entry that may be present? Conservative: entries of 4 and 8 bytes. */
static bool changes_entry(const struct mem_piece *p, const uint8_t *data)
{
    unsigned off = (unsigned)PAGE_OFFSET(p->gpa);

    for (unsigned at = off & ~7U; at < off + p->len; at += 8) {
        unsigned from = at > off ? at : off;
        unsigned to = at + 8 < off + p->len ? at + 8 : off + p->len;
        uint64_t old;
        memcpy(&old, p->hva - off + at, sizeof old);
        if ((old & UINT64_C(0x100000001)) != 0 &&
            memcmp(p->hva + (from - off), data + (from - off), to - from) != 0) {
            return true;
        }
    }
    return false;
}

static void piece_write(struct vcpu *v, const struct mem_piece *p, const uint8_t *data)
{
    if (p->hva == NULL) {
        for (unsigned at = 0; at < p->len;) {
            unsigned part = mmio_part(p->len - at);
            uint64_t value = 0;
            memcpy(&value, data + at, part);
            v->ops->mmio_write(v->ops_ctx, p->gpa + at, part, value);
            at += part;
        }
        return;
    }
    uint64_t page = (uint64_t)(p->hva - v->ram->hva) >> PAGE_SHIFT;
    uint8_t use = v->use[page];
    bool entry = (use & USE_TABLE) != 0 && changes_entry(p, data);
    mem_note_bytes(v, p->gpa, p->hva, p->len);
#ifndef BREAK_R7 /* make/rules.mk: derived from a page, and outlives a store to it */
    if (!mem_exclusive(v, page)) {
        ram_tell(v->ram, v, p->gpa, p->len, false);
    }
    if ((use & USE_ANY_CODE) != 0) {
        blocks_written(v, p->gpa, p->len);
    }
#endif
    v->ram->flags[page] |= RAM_DIRTY;
    memcpy(p->hva, data, p->len);
    if (entry) {
        shadow_table_written(v->mem->s, page, p->gpa, p->len);
        mem_settle_space(v);
    }
}

static void span_read(struct vcpu *v, const struct mem_span *s, void *out)
{
    piece_read(v, &s->piece[0], out);
    if (s->n > 1) {
        piece_read(v, &s->piece[1], (uint8_t *)out + s->piece[0].len);
    }
}

static void span_write(struct vcpu *v, const struct mem_span *s, const void *data)
{
    piece_write(v, &s->piece[0], data);
    if (s->n > 1) {
        piece_write(v, &s->piece[1], (const uint8_t *)data + s->piece[0].len);
    }
}

/* --- segmented access --------------------------------------------------------------------------
 */

static void check_alignment(struct vcpu *v, gva_t lin, unsigned size)
{
    if ((lin & (size - 1)) != 0 && (v->c.rflags & FLAG_AC) != 0 && (v->c.cr0 & CR0_AM) != 0 &&
        cpu_cpl(&v->c) == 3) {
        cpu_raise_error(v, VEC_AC, 0);
    }
}

/* The linear address where no check can fail but being canonical, which a cache hit implies. */
static inline bool lin_plain(const struct vcpu *v, unsigned seg, uint64_t off, unsigned size,
                             gva_t *lin)
{
    const struct cpu_seg *s = &v->c.seg[seg];

    if (v->mem->is64) {
        *lin = off + (seg >= SEG_FS ? s->base : 0);
        return true;
    }
    *lin = (uint32_t)(s->base + off);
    return s->limit == UINT32_MAX && off <= UINT32_MAX - (size - 1) &&
           (s->attr & (SEG_NULL | SEG_P | SEG_S | SEG_CODE | SEG_EC | SEG_RW)) ==
               (SEG_P | SEG_S | SEG_RW);
}

uint64_t mem_read(struct vcpu *v, unsigned seg, uint64_t off, unsigned size)
{
    struct mem_span s;
    uint64_t value = 0;
    gva_t lin;

    if (lin_plain(v, seg, off, size, &lin)) {
        const void *p = tlb_read(v, lin, size);
        if (p != NULL) {
            return host_load(p, size);
        }
    }
    lin = seg_linear(v, seg, off, size, false);
    check_alignment(v, lin, size);
    span_of(v, lin, size, MEM_R, cpu_cpl(&v->c) == 3, false, &s);
    span_read(v, &s, &value);
    return value;
}

void mem_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, uint64_t value)
{
    struct mem_span s;
    gva_t lin;

    if (lin_plain(v, seg, off, size, &lin)) {
        void *p = tlb_write(v, lin, size);
        if (p != NULL) {
            host_store(p, size, value);
            return;
        }
    }
    lin = seg_linear(v, seg, off, size, true);
    check_alignment(v, lin, size);
    span_of(v, lin, size, MEM_W, cpu_cpl(&v->c) == 3, false, &s);
    span_write(v, &s, &value);
}

void mem_read_bytes(struct vcpu *v, unsigned seg, uint64_t off, void *out, unsigned len)
{
    struct mem_span s;

    span_of(v, seg_linear(v, seg, off, len, false), len, MEM_R, cpu_cpl(&v->c) == 3, false, &s);
    span_read(v, &s, out);
}

void mem_write_bytes(struct vcpu *v, unsigned seg, uint64_t off, const void *data, unsigned len)
{
    struct mem_span s;

    span_of(v, seg_linear(v, seg, off, len, true), len, MEM_W, cpu_cpl(&v->c) == 3, false, &s);
    span_write(v, &s, data);
}

void mem_probe_write(struct vcpu *v, unsigned seg, uint64_t off, unsigned len)
{
    struct mem_span s;

    span_of(v, seg_linear(v, seg, off, len, true), len, MEM_W, cpu_cpl(&v->c) == 3, false, &s);
}

unsigned mem_write_run(struct vcpu *v, uint64_t off, const void *one, unsigned len, unsigned size)
{
    uint8_t data[PAGE_SIZE];
    struct mem_span s;
    unsigned n = 0;

    if (v->parallel || v->debug || (v->c.rflags & FLAG_AC) != 0 || !v->mem->is64 ||
        PAGE_OFFSET(off) + len > PAGE_SIZE) {
        return 0;
    }
    span_of(v, seg_linear(v, SEG_ES, off, size, true), len, MEM_W, cpu_cpl(&v->c) == 3, false, &s);
    struct mem_piece p = s.piece[0];
    uint8_t use = p.hva == NULL ? USE_CODE : v->use[(uint64_t)(p.hva - v->ram->hva) >> PAGE_SHIFT];
    if ((use & USE_ANY_CODE) != 0 || (use & USE_TABLE) == 0) {
        return 0; /* one store, and perhaps the next ones are fast */
    }
    p.len = size;
    while (n < len && !changes_entry(&p, one)) {
        memcpy(data + n, one, size);
        p.gpa += size;
        p.hva += size;
        n += size;
    }
    if (n != 0) {
        s.piece[0].len = n;
        piece_write(v, &s.piece[0], data);
    }
    return n;
}

uint64_t mem_rmw_begin(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, struct mem_rmw *m)
{
    gva_t lin;

    m->size = size;
    if (lin_plain(v, seg, off, size, &lin)) {
        m->hva = tlb_write(v, lin, size);
        if (m->hva != NULL) {
            m->old = host_load(m->hva, size);
            return m->old;
        }
    }
    m->hva = NULL;
    m->old = 0;
    lin = seg_linear(v, seg, off, size, true);
    check_alignment(v, lin, size);
    span_of(v, lin, size, MEM_W, cpu_cpl(&v->c) == 3, false, &m->span);
    span_read(v, &m->span, &m->old);
    return m->old;
}

void mem_rmw_end(struct vcpu *v, struct mem_rmw *m, uint64_t value)
{
    if (m->hva != NULL) {
        host_store(m->hva, m->size, value);
    } else {
        span_write(v, &m->span, &value);
    }
}

/* Its tags, if an access of @size bytes at @lin stays in one page; else NULL. */
static const struct tlb_entry *tags_of(const struct vcpu *v, gva_t lin, unsigned size, bool user)
{
    const struct shadow *s = v->mem->s;

    return v->debug || PAGE_OFFSET(lin) + size > PAGE_SIZE
               ? NULL
               : &s->tlb[shadow_slot(s, user ? SHADOW_USER : SHADOW_SUPER, lin)];
}

uint64_t mem_read_lin(struct vcpu *v, gva_t lin, unsigned size, bool user)
{
    const struct tlb_entry *e = tags_of(v, lin, size, user);
    struct mem_span s;
    uint64_t value = 0;

    if (e != NULL && e->rtag == PAGE_BASE(lin)) {
        memcpy(&value, e->hva + PAGE_OFFSET(lin), size);
        return value;
    }
    span_of(v, lin, size, MEM_R, user, !user, &s);
    span_read(v, &s, &value);
    return value;
}

void mem_write_lin(struct vcpu *v, gva_t lin, unsigned size, uint64_t value, bool user)
{
    const struct tlb_entry *e = v->parallel ? NULL : tags_of(v, lin, size, user);
    struct mem_span s;

    if (e != NULL && e->wtag == PAGE_BASE(lin)) { /* there is nothing to undo */
        memcpy(e->hva + PAGE_OFFSET(lin), &value, size);
        return;
    }
    span_of(v, lin, size, MEM_W, user, !user, &s);
    span_write(v, &s, &value);
}

unsigned mem_window(struct vcpu *v, unsigned seg, uint64_t off, unsigned len, bool write,
                    uint8_t **hva)
{
    gva_t lin;

    if (((v->c.rflags & FLAG_AC) != 0 && cpu_cpl(&v->c) == 3) ||
        !lin_plain(v, seg, off, len, &lin)) {
        return 0;
    }
    *hva = write ? tlb_write(v, lin, 1) : tlb_read(v, lin, 1);
    if (*hva == NULL) {
        return 0;
    }
    unsigned room = (unsigned)(PAGE_SIZE - PAGE_OFFSET(lin));
    return len < room ? len : room;
}

/* --- stack ------------------------------------------------------------------------------------ */

/* SDM Vol. 1, "Address-Size Attribute for Stack". */
static uint64_t stack_mask(const struct vcpu *v)
{
    return v->mem->is64 ? UINT64_MAX : (v->c.seg[SEG_SS].attr & SEG_DB) != 0 ? UINT32_MAX : 0xffff;
}

static void set_sp(struct vcpu *v, uint64_t mask, uint64_t sp)
{
    v->c.gpr[RSP] = (sp & mask) | (mask == 0xffff ? v->c.gpr[RSP] & ~mask : 0);
}

void mem_push(struct vcpu *v, unsigned size, uint64_t value)
{
    uint64_t mask = stack_mask(v);
    uint64_t sp = (v->c.gpr[RSP] - size) & mask;

    mem_write(v, SEG_SS, sp, size, value);
    set_sp(v, mask, sp);
}

uint64_t mem_pop(struct vcpu *v, unsigned size)
{
    uint64_t mask = stack_mask(v);
    uint64_t value = mem_read(v, SEG_SS, v->c.gpr[RSP] & mask, size);

    set_sp(v, mask, v->c.gpr[RSP] + size);
    return value;
}
