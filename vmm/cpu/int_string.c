/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/int_string.c - MOVS STOS LODS SCAS CMPS, with REP (rep.h; SDM Vol. 1, "String
 * Operations"; Vol. 2B, "REP/REPE/REPZ/REPNE/REPNZ - Repeat String Operation Prefix"). The source
 * is in->seg:rSI, the destination ES:rDI. REP MOVS and REP STOS upwards go by page pieces through
 * plain memory, with the results, counts and faults of one element after the other. */
#include <string.h>

#include "vmm/cpu/int.h"
#include "vmm/cpu/rep.h"

static inline void advance(struct vcpu *v, const struct insn *in, unsigned reg, uint64_t bytes)
{
    uint64_t at = reg_read(v, reg, in->asz);

    reg_write(v, reg, in->asz, (v->c.rflags & FLAG_DF) != 0 ? at - bytes : at + bytes);
}

static inline uint64_t read_si(struct vcpu *v, const struct insn *in, unsigned size)
{
    return mem_read(v, in->seg, reg_read(v, RSI, in->asz), size);
}

static inline uint64_t read_di(struct vcpu *v, const struct insn *in, unsigned size)
{
    return mem_read(v, SEG_ES, reg_read(v, RDI, in->asz), size);
}

static void compare(struct vcpu *v, uint64_t a, uint64_t b, unsigned size)
{
    uint64_t r = (a - b) & size_mask(size);

    set_arith(v, flags_zsp(r, size) | (a < b ? FLAG_CF : 0) | ((a ^ b ^ r) & FLAG_AF) |
                     (msb((a ^ b) & (a ^ r), size) != 0 ? FLAG_OF : 0));
}

/* --- one element ------------------------------------------------------------------------------ */

static void movs_one(struct vcpu *v, const struct insn *in, unsigned size)
{
    mem_write(v, SEG_ES, reg_read(v, RDI, in->asz), size, read_si(v, in, size));
    advance(v, in, RSI, size);
    advance(v, in, RDI, size);
}

static void stos_one(struct vcpu *v, const struct insn *in, unsigned size)
{
    mem_write(v, SEG_ES, reg_read(v, RDI, in->asz), size, reg_read(v, RAX, size));
    advance(v, in, RDI, size);
}

static void lods_one(struct vcpu *v, const struct insn *in, unsigned size)
{
    reg_write(v, RAX, size, read_si(v, in, size));
    advance(v, in, RSI, size);
}

static void scas_one(struct vcpu *v, const struct insn *in, unsigned size)
{
    compare(v, reg_read(v, RAX, size), read_di(v, in, size), size);
    advance(v, in, RDI, size);
}

static void cmps_one(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint64_t a = read_si(v, in, size);

    compare(v, a, read_di(v, in, size), size);
    advance(v, in, RSI, size);
    advance(v, in, RDI, size);
}

/* --- many elements at once; 0: none, take the checked path --------------------------------------
 */

/* At most @len bytes from offset @off before the address size wraps. */
static unsigned before_wrap(const struct insn *in, uint64_t off, uint64_t len)
{
    uint64_t room = size_mask(in->asz) - off;

    len = len < PAGE_SIZE ? len : PAGE_SIZE;
    return (unsigned)(len - 1 <= room ? len : room + 1);
}

static uint64_t movs_many(struct vcpu *v, const struct insn *in, unsigned size, uint64_t room)
{
    uint64_t si = reg_read(v, RSI, in->asz), di = reg_read(v, RDI, in->asz);
    uint8_t *src, *dst;

    if ((v->c.rflags & FLAG_DF) != 0) {
        return 0;
    }
    uint64_t want = room < PAGE_SIZE ? room * size : PAGE_SIZE;
    unsigned len = mem_window(v, in->seg, si, before_wrap(in, si, want), false, &src);
    if (len < size) {
        return 0;
    }
    len = mem_window(v, SEG_ES, di, before_wrap(in, di, len), true, &dst);
    if (len < size) {
        return 0;
    }
    len &= ~(size - 1);
    if (dst > src && dst < src + len) { /* overlap upwards: elements feed later ones */
        for (unsigned i = 0; i < len; i += size) {
            memmove(dst + i, src + i, size);
        }
    } else {
        memmove(dst, src, len);
    }
    reg_write(v, RSI, in->asz, si + len);
    reg_write(v, RDI, in->asz, di + len);
    return len / size;
}

/* Into a page from which something was derived, as page tables are that are cleared for new use. */
static uint64_t stos_run(struct vcpu *v, const struct insn *in, unsigned size, uint64_t room)
{
    uint64_t di = v->c.gpr[RDI], end = PAGE_SIZE - PAGE_OFFSET(di);

    if (in->asz != 8 || end < 2UL * size) {
        return 0;
    }
    unsigned len = (unsigned)(room < end / size ? room * size : end & ~(size - 1UL));
    len = mem_write_run(v, di, &v->c.gpr[RAX], len, size);
    v->c.gpr[RDI] = di + len;
    return len / size;
}

static uint64_t stos_many(struct vcpu *v, const struct insn *in, unsigned size, uint64_t room)
{
    uint64_t di = reg_read(v, RDI, in->asz), value = v->c.gpr[RAX];
    uint8_t *dst;

    if ((v->c.rflags & FLAG_DF) != 0) {
        return 0;
    }
    uint64_t want = room < PAGE_SIZE ? room * size : PAGE_SIZE;
    unsigned len = mem_window(v, SEG_ES, di, before_wrap(in, di, want), true, &dst);
    if (len < size) {
        return stos_run(v, in, size, room);
    }
    len &= ~(size - 1);
    if (size == 1) {
        memset(dst, (int)(value & 0xff), len);
    } else {
        for (unsigned i = 0; i < len; i += size) {
            memcpy(dst + i, &value, size);
        }
    }
    reg_write(v, RDI, in->asz, di + len);
    return len / size;
}

/* --- the instructions --------------------------------------------------------------------------
 */

typedef void (*one_fn)(struct vcpu *v, const struct insn *in, unsigned size);
typedef uint64_t (*many_fn)(struct vcpu *v, const struct insn *in, unsigned size, uint64_t room);

static inline void run(struct vcpu *v, const struct insn *in, unsigned size, one_fn one,
                       many_fn many, bool compares)
{
    struct rep r;
    bool ended = false;

    if ((in->flags & (INSN_REP | INSN_REPNE)) == 0) {
        one(v, in, size);
        return;
    }
    if (!rep_begin(v, in, size, &r)) {
        return;
    }
    while (!ended && rep_next(v, in, &r)) {
        uint64_t n = many != NULL ? many(v, in, size, rep_room(v, in, &r)) : 0;
        if (n == 0) {
            one(v, in, size);
            n = 1;
        }
        rep_done(v, in, &r, n);
        if (compares) {
            bool zf = (v->c.rflags & FLAG_ZF) != 0;
            ended = zf == ((in->flags & INSN_REPNE) != 0);
        }
    }
    rep_end(v, &r, ended);
}

#define DEF_STRING(name, size, many, compares)                       \
    static void name##_##size(struct vcpu *v, const struct insn *in) \
    {                                                                \
        run(v, in, size, name##_one, many, compares);                \
    }
#define DEF_SIZES(name, many, compares) \
    DEF_STRING(name, 1, many, compares) \
    DEF_STRING(name, 2, many, compares) \
    DEF_STRING(name, 4, many, compares) DEF_STRING(name, 8, many, compares)
DEF_SIZES(movs, movs_many, false)
DEF_SIZES(stos, stos_many, false)
DEF_SIZES(lods, NULL, false)
DEF_SIZES(scas, NULL, true)
DEF_SIZES(cmps, NULL, true)

insn_fn int_pick_string(const struct insn *in)
{
    static const struct {
        ZydisMnemonic mnemonic;
        insn_fn fn;
    } table[] = {
        {ZYDIS_MNEMONIC_MOVSB, movs_1}, {ZYDIS_MNEMONIC_MOVSW, movs_2},
        {ZYDIS_MNEMONIC_MOVSD, movs_4}, {ZYDIS_MNEMONIC_MOVSQ, movs_8},
        {ZYDIS_MNEMONIC_STOSB, stos_1}, {ZYDIS_MNEMONIC_STOSW, stos_2},
        {ZYDIS_MNEMONIC_STOSD, stos_4}, {ZYDIS_MNEMONIC_STOSQ, stos_8},
        {ZYDIS_MNEMONIC_LODSB, lods_1}, {ZYDIS_MNEMONIC_LODSW, lods_2},
        {ZYDIS_MNEMONIC_LODSD, lods_4}, {ZYDIS_MNEMONIC_LODSQ, lods_8},
        {ZYDIS_MNEMONIC_SCASB, scas_1}, {ZYDIS_MNEMONIC_SCASW, scas_2},
        {ZYDIS_MNEMONIC_SCASD, scas_4}, {ZYDIS_MNEMONIC_SCASQ, scas_8},
        {ZYDIS_MNEMONIC_CMPSB, cmps_1}, {ZYDIS_MNEMONIC_CMPSW, cmps_2},
        {ZYDIS_MNEMONIC_CMPSD, cmps_4}, {ZYDIS_MNEMONIC_CMPSQ, cmps_8},
    };

    for (unsigned i = 0; i < PLX_COUNT(table); i++) {
        if (table[i].mnemonic == in->mnemonic) {
            return table[i].fn;
        }
    }
    return NULL;
}
