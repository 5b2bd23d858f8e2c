/* SPDX-License-Identifier: Apache-2.0
 * Every x87 opcode (D8-DF, every register and memory form, with and without an operand size
 * prefix), run here and on the host's processor from the same random state: registers, tags,
 * status word with C1, flags, memory and pending exceptions must agree. Transcendentals have a
 * test of their own (test_x87_math.c).
 *
 * Hunts: wrong rounding, C1, precision control, NaN choice, stack faults, masked and unmasked
 * responses, a memory operand of the wrong size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/host_fpu.h"
#include "vmm/cpu/x87_soft.h"

enum { ROUNDS = 400, DATA = 128 };

static void put_f80(uint8_t *out, unsigned se, uint64_t m)
{
    memcpy(out, &m, 8);
    memcpy(out + 8, &se, 2);
}

static void rnd_f80(uint8_t *out)
{
    static const uint64_t frac[] = {0,
                                    1,
                                    2,
                                    0x400,
                                    0x3ff,
                                    0x401,
                                    0x8000000000,
                                    0x7fffffffff,
                                    0x4000000000000000,
                                    0x3fffffffffffffff,
                                    0x7fffffffffffffff,
                                    0x7ffffffffffffc00,
                                    0x7fffff8000000000,
                                    0x2000000000000000};
    unsigned sign = (unsigned)(rnd() & 1) << 15;
    uint64_t m = rnd_below(2) != 0 ? frac[rnd_below(PLX_COUNT(frac))] : rnd() >> 1;

    m >>= rnd_below(4) == 0 ? rnd_below(63) : 0;
    switch (rnd_below(12)) {
    case 0: /* zero, denormal, pseudo-denormal */
        put_f80(out, sign, rnd_below(3) == 0 ? 0 : m | (rnd() & F80_INT));
        break;
    case 1: /* infinity, NaN */
        put_f80(out, sign | 0x7fff, F80_INT | (rnd_below(3) == 0 ? 0 : m));
        break;
    case 2: /* unsupported, or whatever comes */
        put_f80(out, (unsigned)(rnd() & 0xffff), m | (rnd() & F80_INT));
        break;
    case 3: /* the ends of the exponent range */
        put_f80(out,
                sign | (unsigned)(rnd_below(2) != 0 ? rnd_below(100) + 1 : 0x7ffe - rnd_below(100)),
                F80_INT | m);
        break;
    case 4: /* the ends of the single and double ranges */
        put_f80(out,
                sign | (unsigned)(16383 +
                                  (rnd_below(2) != 0 ? 127 : -127) * (rnd_below(2) != 0 ? 1 : 8) +
                                  (int)rnd_below(64) - 40),
                F80_INT | m);
        break;
    case 5:
        put_f80(out, sign | (unsigned)(0x2000 * rnd_below(4) + rnd_below(16)), F80_INT | m);
        break;
    default:
        put_f80(out, sign | (unsigned)(16383 - 40 + rnd_below(110)), F80_INT | m);
        break;
    }
}

static void rnd_data(uint8_t *out)
{
    for (unsigned i = 0; i < DATA; i++) {
        out[i] = (uint8_t)rnd();
    }
    switch (rnd_below(6)) {
    case 0: /* decimal */
        for (unsigned i = 0; i < 9; i++) {
            out[i] = (uint8_t)(rnd_below(10) << 4 | rnd_below(10));
        }
        break;
    case 1: /* small integers */
        memset(out, (int)(rnd() & 1) * 0xff, 8);
        out[0] = (uint8_t)rnd();
        break;
    case 2:
        rnd_f80(out);
        break;
    case 3: { /* single: edges */
        static const uint32_t edge[] = {0,          1,          0x7fffff,   0x800000,  0x7f800000,
                                        0x7f800001, 0x7fc00000, 0x3f800000, 0x7f7fffff};
        uint32_t x = edge[rnd_below(PLX_COUNT(edge))] | (uint32_t)(rnd() & 1) << 31;
        memcpy(out, &x, 4);
        break;
    }
    case 4: {
        static const uint64_t edge[] = {0,
                                        1,
                                        0xfffffffffffff,
                                        0x10000000000000,
                                        0x7ff0000000000000,
                                        0x7ff0000000000001,
                                        0x7ff8000000000000,
                                        0x3ff0000000000000};
        uint64_t x = edge[rnd_below(PLX_COUNT(edge))] | (rnd() & 1) << 63;
        memcpy(out, &x, 8);
        break;
    }
    default:
        break;
    }
}

static void rnd_state(struct host_state *s, bool unmasked)
{
    uint16_t cw = (uint16_t)(0x40 | 0x3f | rnd_below(4) << 10), sw, pc[] = {0, 2, 3, 3};
    uint32_t mxcsr = 0x1f80;

    memset(s, 0, sizeof *s);
    cw |= (uint16_t)(pc[rnd_below(4)] << 8);
    if (unmasked) {
        cw &= (uint16_t) ~(rnd() & 0x3f);
    }
    sw = (uint16_t)(rnd() & 0x7f7f);
    sw &= (uint16_t) ~(~cw & 0x3f);
    if (unmasked && rnd_below(20) == 0 && (~cw & 0x3f) != 0) {
        sw |= (~cw & 0x3f) | 0x8080; /* pending */
    }
    memcpy(s->fx, &cw, 2);
    memcpy(s->fx + 2, &sw, 2);
    s->fx[4] = rnd_below(3) != 0 ? 0xff : (uint8_t)(rnd() | rnd());
    if (rnd_below(2) != 0) { /* room to push */
        s->fx[4] &= (uint8_t) ~(1U << (((sw >> 11 & 7) - 1U) & 7));
    }
    memcpy(s->fx + 24, &mxcsr, 4);
    for (unsigned i = 0; i < 8; i++) {
        rnd_f80(s->fx + 32 + 16 * i);
    }
    if (rnd_below(4) == 0) {
        memcpy(s->fx + 32, s->fx + 48, 10); /* equal, or opposite */
        s->fx[41] ^= (uint8_t)(rnd() & 0x80);
    }
    s->rax = rnd();
    s->rflags = FLAG_ONE | (rnd() & FLAGS_ARITH);
}

static void dump(const char *what, const struct host_state *s, const uint8_t *mem)
{
    uint16_t cw, sw;

    memcpy(&cw, s->fx, 2);
    memcpy(&sw, s->fx + 2, 2);
    fprintf(stderr, " %s: cw %04x sw %04x (top %d) tags %02x rax %04x flags %03x\n", what, cw, sw,
            sw >> 11 & 7, s->fx[4], (unsigned)(s->rax & 0xffff), (unsigned)(s->rflags & 0xfff));
    for (unsigned i = 0; i < 8; i++) {
        uint64_t m;
        uint16_t se;
        memcpy(&m, s->fx + 32 + 16 * i, 8);
        memcpy(&se, s->fx + 40 + 16 * i, 2);
        fprintf(stderr, "%s%04x.%016llx", i % 4 == 0 ? "\n   " : " ", se, (unsigned long long)m);
    }
    fprintf(stderr, "\n   mem");
    for (unsigned i = 0; i < 30; i++) {
        fprintf(stderr, " %02x", mem[i]);
    }
    fprintf(stderr, "\n");
}

static bool is_math(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_FSIN || m == ZYDIS_MNEMONIC_FCOS || m == ZYDIS_MNEMONIC_FSINCOS ||
           m == ZYDIS_MNEMONIC_FPTAN || m == ZYDIS_MNEMONIC_FPATAN || m == ZYDIS_MNEMONIC_F2XM1 ||
           m == ZYDIS_MNEMONIC_FYL2X || m == ZYDIS_MNEMONIC_FYL2XP1;
}

/* Instruction and data pointers are not the host's to choose, nor reserved halves. */
static void forget_pointers(const struct insn *in, uint8_t *mem)
{
    unsigned env = in->osz == 2 ? 14 : 28;

    if (in->mnemonic == ZYDIS_MNEMONIC_FNSTENV || in->mnemonic == ZYDIS_MNEMONIC_FNSAVE) {
        memset(mem + env * 3 / 7, 0, env * 4 / 7);
    }
}

static bool is_any(const struct insn *in, const ZydisMnemonic *list)
{
    while (*list != ZYDIS_MNEMONIC_INVALID && in->mnemonic != *list) {
        list++;
    }
    return *list != ZYDIS_MNEMONIC_INVALID;
}

/* What the SDM leaves open and vendors do differently; ours is in x87_ctl.c. */
static void forget_undefined(const struct insn *in, struct host_state *a, struct host_state *b)
{
    static const ZydisMnemonic frees[] = {ZYDIS_MNEMONIC_FFREE, ZYDIS_MNEMONIC_FFREEP,
                                          ZYDIS_MNEMONIC_INVALID};
    static const ZydisMnemonic remainders[] = {ZYDIS_MNEMONIC_FPREM, ZYDIS_MNEMONIC_FPREM1,
                                               ZYDIS_MNEMONIC_INVALID};
    static const ZydisMnemonic moves[] = {
        ZYDIS_MNEMONIC_FCMOVB,  ZYDIS_MNEMONIC_FCMOVNB, ZYDIS_MNEMONIC_FCMOVE,
        ZYDIS_MNEMONIC_FCMOVNE, ZYDIS_MNEMONIC_FCMOVBE, ZYDIS_MNEMONIC_FCMOVNBE,
        ZYDIS_MNEMONIC_FCMOVU,  ZYDIS_MNEMONIC_FCMOVNU, ZYDIS_MNEMONIC_FCOMI,
        ZYDIS_MNEMONIC_FCOMIP,  ZYDIS_MNEMONIC_FUCOMI,  ZYDIS_MNEMONIC_FUCOMIP,
        ZYDIS_MNEMONIC_INVALID};
    static const ZydisMnemonic compares[] = {
        ZYDIS_MNEMONIC_FCOM,    ZYDIS_MNEMONIC_FCOMP,  ZYDIS_MNEMONIC_FCOMPP,
        ZYDIS_MNEMONIC_FUCOM,   ZYDIS_MNEMONIC_FUCOMP, ZYDIS_MNEMONIC_FUCOMPP,
        ZYDIS_MNEMONIC_FICOM,   ZYDIS_MNEMONIC_FICOMP, ZYDIS_MNEMONIC_FTST,
        ZYDIS_MNEMONIC_FCOMI,   ZYDIS_MNEMONIC_FCOMIP, ZYDIS_MNEMONIC_FUCOMI,
        ZYDIS_MNEMONIC_FUCOMIP, ZYDIS_MNEMONIC_INVALID};
    bool nan = (a->fx[41] & 0x7f) == 0x7f && a->fx[40] == 0xff;
    bool unmasked = (a->fx[2] & ~a->fx[0] & 3) != 0;
    uint8_t cc = 0; /* C3 40, C2 04, C1 02, C0 01 */

    if (is_any(in, frees)) {
        cc = 0x47;
    } else if (is_any(in, remainders) && (nan || unmasked)) {
        cc = 0x45;
    } else if (is_any(in, compares) && unmasked) {
        cc = 0x47;
        a->rflags = b->rflags = 0;
    }
    if (is_any(in, moves)) {
        cc |= 2;
    }
    a->fx[3] &= (uint8_t)~cc;
    b->fx[3] &= (uint8_t)~cc;
}

/* Digits above nine have no value. */
static bool is_decimal(const uint8_t *bcd)
{
    for (unsigned i = 0; i < 9; i++) {
        if (bcd[i] >> 4 > 9 || (bcd[i] & 15) > 9) {
            return false;
        }
    }
    return true;
}

/* Intel's raise no unmasked underflow for a tiny dividend that is also the remainder. */
static bool tiny_remainder(const struct insn *in, const struct host_state *host,
                           const struct host_state *ours)
{
    return (in->mnemonic == ZYDIS_MNEMONIC_FPREM || in->mnemonic == ZYDIS_MNEMONIC_FPREM1) &&
           (ours->fx[2] & (X87_ES | X87_UE)) == (X87_ES | X87_UE) && (host->fx[2] & X87_ES) == 0;
}

static bool agree_once(struct vcpu *v, const uint8_t *code, size_t len, bool unmasked)
{
    static _Alignas(16) uint8_t start_mem[DATA], ours_mem[DATA], mem[DATA];
    struct host_state start, host, ours;
    struct insn in;
    int sig, vec;

    rnd_state(&start, unmasked);
    rnd_data(start_mem);
    start.rsi = GUEST_DATA;
    host = start;
    assert_int_equal(ram_write(v->ram, GUEST_DATA, start_mem, DATA), 0);
    host_to_cpu(v, &start);
    vec = cpu_run(v, code, len, &in);
    if (is_math((ZydisMnemonic)in.mnemonic) ||
        (in.mnemonic == ZYDIS_MNEMONIC_FBLD && !is_decimal(start_mem))) {
        return true;
    }
    ours = start;
    cpu_to_host(v, &ours);
    assert_int_equal(ram_read(v->ram, GUEST_DATA, ours_mem, DATA), 0);
    memcpy(mem, start_mem, DATA);
    host.rsi = (uint64_t)mem;
    sig = host_run(&host, code, len);
    host.rsi = start.rsi;
    if (tiny_remainder(&in, &host, &ours)) {
        return true;
    }
    if (sig != 0) {
        host.rflags = ours.rflags = 0;
    }
    memset(host.fx + 5, 0, 19);
    memset(ours.fx + 5, 0, 19);
    memset(host.fx + 28, 0, 4);
    memset(ours.fx + 28, 0, 4);
    memset(host.fx + 160, 0, 352);
    memset(ours.fx + 160, 0, 352);
    host.rflags &= FLAGS_ARITH;
    ours.rflags &= FLAGS_ARITH;
    forget_undefined(&in, &host, &ours);
    forget_pointers(&in, mem);
    forget_pointers(&in, ours_mem);
    if ((sig == SIGFPE) == (vec == 256 + VEC_MF) && (sig == SIGILL) == (vec == 256 + VEC_UD) &&
        memcmp(&host, &ours, sizeof host) == 0 && memcmp(mem, ours_mem, DATA) == 0) {
        return true;
    }
    fprintf(stderr, "DIFF %s %02x %02x %02x %s: host signal %d, vector here %d\n",
            ZydisMnemonicGetString((ZydisMnemonic)in.mnemonic), code[0], code[1], code[2],
            unmasked ? "unmasked" : "masked", sig, vec == 0 ? 0 : vec - 256);
    dump("before", &start, start_mem);
    dump("host", &host, mem);
    dump("here", &ours, ours_mem);
    return false;
}

static void opcodes_agree(bool unmasked)
{
    struct vcpu *v = cpu_fake();
    unsigned forms = 0, differ = 0;

    host_init();
    for (unsigned op = 0xd8; op <= 0xdf; op++) {
        for (unsigned modrm = 0; modrm <= 0xff; modrm++) {
            for (unsigned prefix = 0; prefix < 2; prefix++) {
                uint8_t code[3] = {0x66, (uint8_t)op, (uint8_t)modrm};

                if (modrm < 0xc0 && (modrm & 0xc7) != 6) {
                    continue; /* memory: [rsi] only */
                }
                if (op == 0xd9 && modrm >= 0xd8 && modrm < 0xe0) {
                    continue; /* an undocumented FSTP: not in the model */
                }
                forms++;
                for (unsigned i = 0; i < ROUNDS; i++) {
                    if (!agree_once(v, code + 1 - prefix, 2 + prefix, unmasked)) {
                        differ++;
                        break;
                    }
                }
            }
        }
    }
    printf("%u forms, %u differ\n", forms, differ);
    cpu_fake_close(v);
    assert_int_equal(differ, 0);
}

static void masked_opcodes_agree_with_the_host(void **state)
{
    (void)state;
    opcodes_agree(false);
}

static void unmasked_opcodes_agree_with_the_host(void **state)
{
    (void)state;
    opcodes_agree(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masked_opcodes_agree_with_the_host),
        cmocka_unit_test(unmasked_opcodes_agree_with_the_host),
    };

    host_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
