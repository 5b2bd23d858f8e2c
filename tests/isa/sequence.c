/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/sequence.c - see sequence.h. */
#include "tests/isa/sequence.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "vmm/cpu/decode.h"
#include "vmm/cpu/undefined.h"

enum { ITEM_MAX = 128, INNER_TURNS = 12, OUTER_TURNS = 24, TRIES = 8 };

/* Where the loops count: at the end of the stack. */
#define COUNTER_AT  (STACK_AT + STACK_SIZE - 64)
#define COUNTER2_AT (COUNTER_AT + 8)

/* --- emission --------------------------------------------------------------------------------- */

struct maker {
    struct choices *c;
    struct sequence *s;
    enum sequence_kind kind;
    bool x87;
    unsigned at;
    uint32_t unknown; /* flags, now */
    /* A forward branch under way: the byte with its displacement, and how many items it skips. */
    unsigned branch_at, skips;
    uint32_t branch_unknown;
    unsigned imm_at; /* of an earlier immediate that may be overwritten; 0: none */
};

static void emit(struct maker *m, const void *bytes, unsigned n)
{
    m->s->unknown[m->at] = (uint16_t)m->unknown;
    memcpy(m->s->code + m->at, bytes, n);
    m->at += n;
}
#define EMIT(m, ...) emit((m), (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__})

/* An instruction with a displacement to @target behind @n bytes of opcode, and @imm_len of @imm. */
static void emit_relative(struct maker *m, const uint8_t *op, unsigned n, uint64_t target,
                          uint32_t imm, unsigned imm_len)
{
    uint8_t b[15];
    uint32_t disp = (uint32_t)(target - (CODE_AT + m->at + n + 4 + imm_len));

    memcpy(b, op, n);
    memcpy(b + n, &disp, 4);
    memcpy(b + n + 4, &imm, imm_len);
    emit(m, b, n + 4 + imm_len);
}
#define EMIT_RELATIVE(m, target, imm, imm_len, ...)                                          \
    emit_relative((m), (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__}, \
                  (target), (imm), (imm_len))

static void changes_flags(struct maker *m, uint32_t known, uint32_t unknown)
{
    m->unknown = (m->unknown & ~known) | (unknown & FLAGS_ARITH);
}

/* What comes next looks at @flags. */
static void needs_flags(struct maker *m, uint32_t flags)
{
    if ((m->unknown & flags) != 0 && m->kind == SEQUENCE_HOST) {
        EMIT(m, 0x48, 0x39, (uint8_t)(0xc0 | choose(m->c, 64))); /* cmp r64, r64 */
        changes_flags(m, FLAGS_ARITH, 0);
    }
}

/* --- single instructions ---------------------------------------------------------------------- */

/* Its immediate, whose length the decoder tells. Its length. */
static unsigned complete(struct maker *m, struct bytes *o)
{
    struct insn in;

    for (unsigned i = o->n; i < 24; i++) {
        o->b[i] = (uint8_t)(i < o->n + 4 ? choose(m->c, 128) : 0);
    }
    PLX_CHECK(decode_insn(isa_v3 ? CPU_POLLUX_V3 : CPU_POLLUX_V2, DECODE_64, o->b, INSN_BYTES_MAX,
                          &in) == 0);
    return in.len;
}

/* Emit @emitted bytes of it, the instruction being @len long. */
static void place(struct maker *m, struct bytes *o, unsigned len, unsigned emitted)
{
    if (o->relative_at != 0) {
        uint32_t v;
        memcpy(&v, o->b + o->relative_at, 4);
        v -= (uint32_t)(CODE_AT + m->at + len);
        memcpy(o->b + o->relative_at, &v, 4);
    }
    emit(m, o->b, emitted);
}

static bool shift_like(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        return true;
    default:
        return false;
    }
}

/* Immediates of these may be overwritten: nothing but their result depends on it. */
static bool plain_imm(const struct form *f)
{
    switch (f->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST:
        return f->imm_len[0] != 0;
    default:
        return false;
    }
}

/* What processors are seen to read in another order than we do; the SDM does not say. */
static bool in_any_order(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return true;
    default:
        return false;
    }
}

/* The host does all of it as we do, and it is no branch (those are made on their own). Beside what
 * single instructions are exempt from: REP counts that never end; what a prefix makes another
 * instruction on newer processors; results undefined by count. */
static bool host_does(const struct form *f)
{
    bool double_shift = f->mnemonic == ZYDIS_MNEMONIC_SHLD || f->mnemonic == ZYDIS_MNEMONIC_SHRD;
    bool scan = f->mnemonic == ZYDIS_MNEMONIC_BSF || f->mnemonic == ZYDIS_MNEMONIC_BSR;

    return f->class == FORM_CHECKED && exemption_of(f) == NULL && !f->branch && !f->rep &&
           !(double_shift && strstr(f->name, "16, r16") != NULL) &&
           !(scan && memchr(f->bytes, 0xf3, f->opcode_at) != NULL) &&
           f->mnemonic != ZYDIS_MNEMONIC_MASKMOVQ && f->mnemonic != ZYDIS_MNEMONIC_MASKMOVDQU &&
           f->mnemonic != ZYDIS_MNEMONIC_VMASKMOVDQU && f->mnemonic != ZYDIS_MNEMONIC_ENTER;
}

/* @percent_sse of those that are not any. */
static void instruction(struct maker *m, unsigned percent_sse)
{
    struct choices *c = m->c;
    enum draft_kind kind = one_in(c, 6)                   ? DRAFT_ANY
                           : choose(c, 100) < percent_sse ? DRAFT_SSE
                                                          : DRAFT_INTEGER;
    struct bytes o;
    struct form f;

    if (m->x87 && !one_in(c, 4)) {
        kind = DRAFT_X87;
    }
    if (m->kind == SEQUENCE_ANY) {
        unsigned len = 0;
        for (unsigned tries = 0; tries < (isa_v3 ? TRIES : 1) && len <= 1; tries++) {
            draft(c, kind, true, &o);
            len = complete(m, &o); /* 1: mostly, there is none; VEX has many gaps */
        }
        /* Now and then bytes too many, or too few. */
        place(m, &o, len, one_in(c, 3) ? o.n + (unsigned)choose(c, 6) : len);
        return;
    }
    for (unsigned tries = 0; tries < TRIES; tries++) {
        draft(c, kind, false, &o);
        (void)complete(m, &o);
        if (!form_of_bytes(ISA_64, o.b, &f) || !host_does(&f)) {
            continue;
        }
        needs_flags(m, f.flags_read);
        m->s->any_order[m->at] = in_any_order(f.mnemonic);
        place(m, &o, f.len, f.len);
        uint32_t undefined = f.flags_undefined | undefined_mask(f.mnemonic);
        changes_flags(m, shift_like(f.mnemonic) ? 0 : f.flags_written & ~undefined, undefined);
        if (plain_imm(&f)) {
            m->imm_at = m->at - 1;
        }
        return;
    }
}

/* What no processor has for an instruction: VEX with a length, a width or a register that it does
 * not take. false: nothing came of it. */
static bool refused(struct maker *m)
{
    struct bytes o;
    struct form f;

    for (unsigned tries = 0; tries < TRIES; tries++) {
        draft(m->c, one_in(m->c, 3) ? DRAFT_INTEGER : DRAFT_SSE, false, &o);
        (void)complete(m, &o);
        unsigned last = o.vex_at + (o.b[o.vex_at] == 0xc4 ? 2 : 1);
        if (!form_of_bytes(ISA_64, o.b, &f) || !f.vex || !host_does(&f) || exempt_vex(&f)) {
            continue;
        }
        o.b[last] ^=
            (uint8_t)(choose(m->c, 32) << 2 | (last - o.vex_at == 2 ? choose(m->c, 2) << 7 : 0));
        if (!form_of_bytes(ISA_64, o.b, &f)) {
            place(m, &o, INSN_BYTES_MAX, INSN_BYTES_MAX);
            return true;
        }
    }
    return false;
}

/* --- short sequences -------------------------------------------------------------------------- */

/* On to the instruction behind, by an address: jumps, calls and returns. */
static void go_on(struct maker *m)
{
    static const struct {
        uint8_t n, bytes[2][8], len[2];
    } how[] = {
        {1, {{0xff, 0xe0}}, {2}},                              /* jmp rax */
        {1, {{0xff, 0xd0}}, {2}},                              /* call rax */
        {2, {{0x50}, {0xc3}}, {1, 1}},                         /* push rax; ret */
        {2, {{0x50}, {0xf3, 0xc3}}, {1, 2}},                   /* push rax; rep ret */
        {2, {{0x50}, {0xc2, 8, 0}}, {1, 3}},                   /* push rax; ret 8 */
        {2, {{0x48, 0x89, 0x43, 8}, {0xff, 0x63, 8}}, {4, 3}}, /* mov [rbx + 8], rax; jmp it */
        {2, {{0x48, 0x89, 0x43, 8}, {0xff, 0x53, 8}}, {4, 3}}, /* ...; call it */
        {2, {{0x49, 0x89, 0xc3}, {0x41, 0xff, 0xd3}}, {3, 3}}, /* mov r11, rax; call r11 */
        {1, {{0xe8, 0, 0, 0, 0}}, {5}},                        /* call */
        {2, {{0x50}, {0x48, 0x83, 0xc4, 8, 0xff, 0x64, 0x24, 0xf8}}, {1, 8}},
    };
    unsigned k = (unsigned)choose(m->c, PLX_COUNT(how));
    unsigned n = how[k].len[0] + how[k].len[1];

    EMIT(m, 0x48, 0x8d, 0x05, (uint8_t)n, 0, 0, 0); /* lea rax, [rip + n] */
    for (unsigned i = 0; i + 1 < how[k].n; i++) {
        emit(m, how[k].bytes[i], how[k].len[i]);
    }
    if (k == PLX_COUNT(how) - 1) { /* add rsp, 8; jmp [rsp - 8] */
        emit(m, how[k].bytes[1], 4);
        changes_flags(m, FLAGS_ARITH, 0);
        emit(m, how[k].bytes[1] + 4, 4);
    } else {
        emit(m, how[k].bytes[how[k].n - 1], how[k].len[how[k].n - 1]);
    }
}

/* A division that often does not fault. */
static void divide(struct maker *m)
{
    struct choices *c = m->c;
    uint8_t rex = (uint8_t)(0x40 | choose(c, 2) << 3), modrm = (uint8_t)(0xf0 | choose(c, 16));

    if (modrm >= 0xf8) {
        EMIT(m, rex, 0x99); /* cdq, cqo */
    } else if (!one_in(c, 3)) {
        EMIT(m, 0x31, 0xd2); /* xor edx, edx */
        changes_flags(m, FLAGS_ARITH, FLAG_AF);
    }
    if (one_in(c, 2)) {
        EMIT(m, rex, 0xf7, (uint8_t)((modrm & 0x38) | 0x43), (uint8_t)choose(c, 128)); /* [rbx+n] */
    } else {
        EMIT(m, (uint8_t)(rex | choose(c, 2)), 0xf7, modrm);
    }
    changes_flags(m, 0, FLAGS_ARITH);
}

static const uint8_t pointers[] = {RBX, RBP, RSI, RDI, R11, R12, R13, R15};

/* A pointer points into the data again: lea r, [rip + d]; mostly aligned, now and then where an
 * access crosses a page or the end. */
static void repoint(struct maker *m, unsigned reg)
{
    uint64_t to = DATA_AT + choose(m->c, DATA_SIZE / 64) * 64;

    if (one_in(m->c, 6)) {
        to = (to | 0xfff) + 1 - choose(m->c, 32);
    }
    EMIT_RELATIVE(m, to, 0, 0, (uint8_t)(0x48 | (reg >> 3) << 2), 0x8d,
                  (uint8_t)((reg & 7) << 3 | 5));
}

/* An index gets small again: movzx r32, r8. */
static void shrink(struct maker *m)
{
    unsigned reg = (unsigned)choose(m->c, 16);

    EMIT(m, (uint8_t)(0x40 | (reg >> 3) * 5), 0x0f, 0xb6,
         (uint8_t)(0xc0 | (reg & 7) << 3 | (reg & 7)));
}

/* A string instruction, most with REP, over a few elements, in either direction. */
static void string(struct maker *m)
{
    static const uint8_t ops[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    struct choices *c = m->c;
    uint8_t op = ops[choose(c, sizeof ops)], rep = (uint8_t)(0xf2 | choose(c, 2));
    bool compares = (op & 0xf6) == 0xa6;
    uint8_t b[4];
    unsigned n = 0;

    repoint(m, RSI);
    repoint(m, RDI);
    EMIT(m, 0xb9, (uint8_t)choose(c, 80), 0, 0, 0); /* mov ecx, n */
    if (one_in(c, 4)) {
        EMIT(m, 0xfd); /* std */
    }
    if (one_in(c, 4)) {
        b[n++] = 0x66;
    }
    if (!one_in(c, 4)) {
        b[n++] = compares ? rep : 0xf3;
    }
    if (one_in(c, 3)) {
        b[n++] = 0x48;
    }
    b[n++] = op;
    m->s->any_order[m->at] = (op & 0xfe) == 0xa6; /* CMPS */
    emit(m, b, n);
    EMIT(m, 0xfc); /* cld */
}

/* The program overwrites itself: the next instruction, or one behind which it is. */
static void patch(struct maker *m)
{
    uint8_t value = (uint8_t)choose(m->c, 128);
    unsigned at = m->imm_at;

    if (at == 0 || one_in(m->c, 2)) {
        at = m->at + 7 + 1 + (unsigned)choose(m->c, 4); /* in mov r32, imm32 */
        EMIT_RELATIVE(m, CODE_AT + at, value, 1, 0xc6, 0x05);
        EMIT(m, (uint8_t)(0xb8 + choose(m->c, 3)), 1, 2, 3, 4);
    } else if (one_in(m->c, 2)) {
        EMIT_RELATIVE(m, CODE_AT + at, value, 1, 0xc6, 0x05);
    } else {
        EMIT_RELATIVE(m, CODE_AT + at, 0, 0, 0x88, (uint8_t)(choose(m->c, 4) << 3 | 5));
    }
    m->s->own[at] = true;
}

/* --- branches --------------------------------------------------------------------------------- */

static uint32_t flags_of(unsigned condition)
{
    static const uint32_t of[] = {FLAG_OF, FLAG_CF, FLAG_ZF,           FLAG_CF | FLAG_ZF,
                                  FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF, FLAG_SF | FLAG_OF | FLAG_ZF};
    return of[condition >> 1];
}

/* Jumps over the next one to three items. */
static void branch_ahead(struct maker *m)
{
    unsigned condition = (unsigned)choose(m->c, 17);

    if (condition == 16) {
        EMIT(m, 0xe3, 0); /* jrcxz */
        m->branch_at = m->at - 1;
    } else {
        needs_flags(m, flags_of(condition));
        EMIT(m, 0x0f, (uint8_t)(0x80 | condition), 0, 0, 0, 0);
        m->branch_at = m->at - 4;
    }
    m->skips = 1 + (unsigned)choose(m->c, 3);
    m->branch_unknown = m->unknown;
}

static void land(struct maker *m)
{
    bool near = m->s->code[m->branch_at - 1] == 0xe3;
    unsigned width = near ? 1 : 4;
    uint32_t disp = m->at - m->branch_at - width;

    if (near && disp > 127) {
        disp = 0; /* too far: it goes nowhere */
    }
    memcpy(m->s->code + m->branch_at, &disp, width);
    m->unknown |= m->branch_unknown;
    m->branch_at = 0;
}

static void item(struct maker *m, unsigned percent_sse)
{
    switch (choose(m->c, 24)) {
    case 0:
    case 1:
        go_on(m);
        break;
    case 2:
        divide(m);
        break;
    case 3:
    case 4:
        repoint(m, pointers[choose(m->c, sizeof pointers)]);
        break;
    case 5:
        shrink(m);
        break;
    case 6:
        if (one_in(m->c, 2)) {
            string(m);
        }
        break;
    case 7:
        if (one_in(m->c, 2)) {
            patch(m);
        }
        break;
    case 8:
    case 9:
        if (m->branch_at == 0) {
            branch_ahead(m);
            return;
        }
        break;
    default:
        break;
    }
    instruction(m, percent_sse);
    if (m->branch_at != 0 && m->skips-- == 0) {
        land(m);
    }
}

static bool used_up(const struct maker *m)
{
    return (m->c->bytes != NULL && m->c->left == 0) || m->at > CODE_SIZE - 4 * ITEM_MAX;
}

/* dec dword [counter]; jnz @head */
static void turn(struct maker *m, uint64_t counter, unsigned head)
{
    if (m->branch_at != 0) {
        land(m);
    }
    EMIT_RELATIVE(m, counter, 0, 0, 0xff, 0x0d);
    changes_flags(m, FLAGS_ARITH & ~FLAG_CF, 0);
    EMIT_RELATIVE(m, CODE_AT + head, 0, 0, 0x0f, 0x85);
}

void sequence_make(struct choices *c, unsigned kind, unsigned start, unsigned items,
                   struct sequence *s)
{
    struct maker m = {.c = c,
                      .s = s,
                      .kind = (enum sequence_kind)(kind & ~(unsigned)SEQUENCE_X87),
                      .x87 = (kind & SEQUENCE_X87) != 0,
                      .at = start};
    unsigned percent_sse = one_in(c, 2) ? 70 : 0, head, inner = 0, inner_left = 0;

    decode_init();
    memset(s, 0, sizeof *s);
    s->start = start;
    EMIT_RELATIVE(&m, COUNTER_AT, 1 + (uint32_t)choose(c, OUTER_TURNS), 4, 0xc7, 0x05);
    head = m.at;
    m.unknown = FLAGS_ARITH; /* of all ways back here */
    for (unsigned i = 0; i < items && (i == 0 || !used_up(&m)); i++) {
        if (inner == 0 && m.branch_at == 0 && one_in(c, 8)) {
            EMIT_RELATIVE(&m, COUNTER2_AT, 1 + (uint32_t)choose(c, INNER_TURNS), 4, 0xc7, 0x05);
            inner = m.at;
            inner_left = 1 + (unsigned)choose(c, 4);
            m.unknown = FLAGS_ARITH;
        }
        item(&m, percent_sse);
        if (inner != 0 && inner_left-- == 0) {
            turn(&m, COUNTER2_AT, inner);
            inner = 0;
        }
    }
    if (inner != 0) {
        turn(&m, COUNTER2_AT, inner);
    }
    if (m.kind == SEQUENCE_ANY) {
        if (m.branch_at != 0) {
            land(&m);
        }
        EMIT_RELATIVE(&m, CODE_AT + head, 0, 0, 0xe9);
    } else {
        turn(&m, COUNTER_AT, head);
        if (!isa_v3 || !one_in(c, 2) || !refused(&m)) {
            EMIT(&m, 0x0f, 0x0b); /* ud2 */
        }
    }
    s->end = m.at;
}

/* --- what they start from --------------------------------------------------------------------- */

void sequence_memory(struct prng *g, struct isa_state *in)
{
    prng_fill(g, in->data, DATA_SIZE / 2);
    random_float(g, in->data + DATA_SIZE / 2, DATA_SIZE / 4);
    for (unsigned i = DATA_SIZE / 4 * 3; i < DATA_SIZE; i += 16) {
        random_x87(g, in->data + i);
    }
    memset(in->stack, 0, STACK_SIZE);
}

void sequence_registers(struct prng *g, const struct sequence *s, bool edges, struct isa_state *in)
{
    for (unsigned i = 0; i < 16; i++) {
        in->gpr[i] = random_value(g);
    }
    for (unsigned i = 0; i < sizeof pointers; i++) {
        uint64_t at = DATA_AT + prng_below(g, DATA_SIZE - 256) / 64 * 64;
        switch (edges ? prng_below(g, 8) : 8) {
        case 0:
            at = DATA_AT + DATA_SIZE - prng_below(g, 80);
            break;
        case 1:
            at = DATA_AT + 0x2000 - prng_below(g, 80);
            break;
        case 2:
            at = UINT64_C(0x7fffffffffff) + prng_below(g, 16) - 8 - prng_below(g, 256);
            break;
        case 3:
            at = DATA_AT - prng_below(g, 160);
            break;
        case 4: /* the program itself */
            at = CODE_AT + s->start + prng_below(g, s->end - s->start + 1U);
            break;
        default:
            at += prng_below(g, 4) == 0 ? prng_below(g, 64) : 0;
            break;
        }
        in->gpr[pointers[i]] = at;
    }
    in->gpr[RSP] = STACK_AT + STACK_SIZE / 2 + prng_below(g, 8);
    in->fs_base = prng_below(g, 16) * 64;
    in->gs_base = prng_below(g, 16) * 8;
    in->rip = CODE_AT + s->start;
    in->rflags = FLAG_ONE | FLAG_IF | (prng_u64(g) & FLAGS_ARITH);
    random_fx(g, in->fx);
    if (isa_v3) {
        random_float(g, in->ymm_high, sizeof in->ymm_high);
    }
}

void sequence_print(const struct sequence *s, const struct isa_state *in)
{
    printf("program at %#llx:", (unsigned long long)(CODE_AT + s->start));
    for (unsigned i = s->start; i < s->end; i++) {
        printf(" %02x", s->code[i]);
    }
    printf("\n");
    for (unsigned i = 0; i < 16; i++) {
        printf("r%-2u %016llx%s", i, (unsigned long long)in->gpr[i], i % 4 == 3 ? "\n" : "  ");
    }
    printf("flags %llx mxcsr %02x%02x\n", (unsigned long long)in->rflags, in->fx[25], in->fx[24]);
}
