/* SPDX-License-Identifier: Apache-2.0
 * tests/isa/draft.c - see draft.h. */
#include "tests/isa/draft.h"

#include <string.h>

#include "base/check.h"
#include "tests/isa/isa.h"

uint64_t choose(struct choices *c, uint64_t n)
{
    uint64_t v = 0;

    if (c->bytes == NULL || c->left == 0) {
        return prng_below(&c->g, n);
    }
    for (uint64_t seen = 1; seen < n && c->left > 0; seen <<= 8) {
        v = v << 8 | *c->bytes++;
        c->left--;
    }
    return v % n;
}

bool one_in(struct choices *c, unsigned n)
{
    return choose(c, n) == 0;
}

struct draft {
    uint8_t prefix[4];
    unsigned nprefix;
    uint8_t rex; /* 0: none */
    uint8_t map, op;
    bool vex;
};

static void add_prefix(struct draft *d, uint8_t p)
{
    if (p != 0) {
        d->prefix[d->nprefix++] = p;
    }
}

/* What pollux-v3 adds for general registers. */
static void bmi_opcode(struct choices *c, struct draft *d)
{
    static const struct {
        uint8_t prefix, map, op;
        bool vex;
    } ops[] = {
        {0, 2, 0xf2, true},     {0, 2, 0xf3, true},     {0, 2, 0xf3, true},
        {0, 2, 0xf5, true},     {0xf3, 2, 0xf5, true},  {0xf2, 2, 0xf5, true},
        {0xf2, 2, 0xf6, true},  {0, 2, 0xf7, true},     {0x66, 2, 0xf7, true},
        {0xf3, 2, 0xf7, true},  {0xf2, 2, 0xf7, true},  {0xf2, 3, 0xf0, true},
        {0xf3, 1, 0xbc, false}, {0xf3, 1, 0xbd, false}, {0, 2, 0xf0, false},
        {0, 2, 0xf1, false},
    };
    unsigned i = (unsigned)choose(c, PLX_COUNT(ops));

    if (!ops[i].vex && one_in(c, 4)) {
        add_prefix(d, 0x66);
    }
    add_prefix(d, ops[i].prefix);
    d->map = ops[i].map;
    d->op = ops[i].op;
    d->vex = ops[i].vex;
}

/* What is translated, the commoner the more often. */
static void integer_opcode(struct choices *c, struct draft *d)
{
    static const uint8_t one[] = {
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x09, 0x0b, 0x10, 0x11, 0x13, 0x19, 0x1b, 0x21,
        0x23, 0x29, 0x2b, 0x28, 0x30, 0x31, 0x33, 0x39, 0x3b, 0x38, 0x3c, 0x3d, 0x50, 0x53,
        0x56, 0x5b, 0x58, 0x5f, 0x63, 0x69, 0x6b, 0x72, 0x74, 0x75, 0x7c, 0x7f, 0x78, 0x7a,
        0x70, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0x98,
        0x99, 0xa8, 0xa9, 0xb0, 0xb4, 0xb8, 0xbd, 0xc0, 0xc1, 0xc1, 0xc6, 0xc7, 0xd0, 0xd1,
        0xd2, 0xd3, 0xf6, 0xf7, 0xfe, 0xff, 0x68, 0x6a, 0xc9, 0xff, 0x01, 0x29, 0x39, 0x85,
        0x89, 0xd3, 0xd3, 0xf5, 0xf8, 0xf9, 0x9e, 0x9f, 0xfc, 0xfd};
    static const uint8_t two[] = {0x42, 0x44, 0x4c, 0x4f, 0x92, 0x95, 0x9e, 0x90, 0xa3, 0xab,
                                  0xb3, 0xbb, 0xba, 0xa4, 0xad, 0xaf, 0xb0, 0xb1, 0xb6, 0xb7,
                                  0xbe, 0xbf, 0xbc, 0xbd, 0xc0, 0xc1, 0xc8, 0xcd, 0xb8, 0xac,
                                  0xa5, 0xad, 0xc7, 0xa3, 0xab, 0xb3, 0xbb};

    add_prefix(d, one_in(c, 6) ? 0x66 : 0);
    d->map = one_in(c, 3);
    if (d->map == 0) {
        d->op = one[choose(c, sizeof one)];
        return;
    }
    d->op = two[choose(c, sizeof two)];
    if (d->op == 0xb8 || ((d->op & 0xfe) == 0xbc && one_in(c, 2))) {
        add_prefix(d, 0xf3);
    }
}

/* Anything of the maps that hold SSE. */
static void sse_opcode(struct choices *c, struct draft *d)
{
    static const uint8_t prefix[] = {0, 0x66, 0x66, 0xf2, 0xf3};
    static const uint8_t two[] = {0x10, 0x50, 0x60, 0x70, 0xd0, 0xe0, 0xf0};
    static const uint8_t others[] = {0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e,
                                     0x2f, 0xc2, 0xc4, 0xc5, 0xc6, 0xae};
    unsigned map = (unsigned)choose(c, 8);

    add_prefix(d, prefix[choose(c, sizeof prefix)]);
    if (map == 0) {
        d->map = 2;
        d->op = (uint8_t)choose(c, isa_v3 ? 0xf8 : 0x42);
    } else if (map == 1) {
        d->map = 3;
        d->op = (uint8_t)(isa_v3 ? choose(c, 0x64) : 8 + choose(c, 0x1b));
    } else {
        d->map = 1;
        d->op = one_in(c, 4) ? others[choose(c, sizeof others)]
                             : (uint8_t)(two[choose(c, sizeof two)] + choose(c, 16));
    }
}

/* Any opcode, of x87 half of the time. */
static void any_opcode(struct choices *c, struct draft *d)
{
    static const uint8_t prefix[] = {0, 0, 0, 0x66, 0xf2, 0xf3, 0xf0, 0x67};

    add_prefix(d, prefix[choose(c, sizeof prefix)]);
    if (one_in(c, 2)) {
        d->op = (uint8_t)(0xd8 + choose(c, 8));
    } else {
        d->map = (uint8_t)choose(c, 4);
        d->op = (uint8_t)choose(c, 256);
    }
}

/* Any of x87. */
static void x87_opcode(struct choices *c, struct draft *d)
{
    add_prefix(d, one_in(c, 16) ? 0x66 : 0);
    d->op = (uint8_t)(0xd8 + choose(c, 8));
}

static void put(struct bytes *o, uint64_t v, unsigned n)
{
    memcpy(o->b + o->n, &v, n);
    o->n += n;
}

/* ModRM and what it asks for. Bases are pointers (sequence.h) at first. */
static void operands(struct choices *c, struct bytes *o, uint8_t *rex, bool memory)
{
    static const uint8_t bases[] = {3, 6, 3, 5, 7, 11, 13, 15, 12, 4};
    unsigned reg = (unsigned)choose(c, 8), base = bases[choose(c, sizeof bases)];
    unsigned index = (unsigned)choose(c, 16), form = (unsigned)choose(c, 8);
    int32_t disp = (int32_t)choose(c, 256) - 128;

    if (!memory) {
        put(o, 0xc0 | reg << 3 | choose(c, 8), 1);
        return;
    }
    if (*rex == 0 && base >= 8) {
        *rex = 0x40;
    }
    if (*rex != 0) {
        *rex = (uint8_t)((*rex & 0xfe) | base >> 3);
    }
    if (form == 0) { /* relative to RIP: the address, for now */
        put(o, reg << 3 | 5, 1);
        o->relative_at = o->n;
        put(o, DATA_AT + choose(c, DATA_SIZE), 4);
    } else if (form == 1) { /* an address of 32 bits */
        put(o, reg << 3 | 4, 1);
        put(o, 0x25, 1);
        put(o, DATA_AT + choose(c, DATA_SIZE), 4);
    } else if (form < 4 || (base & 7) == 4) { /* a SIB */
        unsigned scale = (unsigned)choose(c, 4);
        bool wide = one_in(c, 4);
        if (*rex != 0) {
            *rex = (uint8_t)((*rex & 0xfd) | (index >> 3) << 1);
        }
        put(o, (wide ? 0x80U : 0x40U) | reg << 3 | 4, 1);
        put(o, scale << 6 | (one_in(c, 3) && *rex < 0x42 ? 4U : index & 7) << 3 | (base & 7), 1);
        put(o, (uint64_t)(int64_t)disp, wide ? 4 : 1);
    } else if (form == 4 && (base & 7) != 5) {
        put(o, reg << 3 | (base & 7), 1);
    } else if (form == 5) {
        put(o, 0x80 | reg << 3 | (base & 7), 1);
        put(o, (uint64_t)(int64_t)disp, 4);
    } else {
        put(o, 0x40 | reg << 3 | (base & 7), 1);
        put(o, choose(c, 8) * 16 + (one_in(c, 12) ? choose(c, 16) : 0), 1);
    }
}

/* The same opcode, VEX-encoded, of any length, width and register besides; now and then, @odd, what
 * must not be before it, or any bit of it changed. */
static void put_vex(struct choices *c, const struct draft *d, uint8_t rex, bool odd,
                    struct bytes *o)
{
    static const uint8_t before[] = {0x66, 0xf2, 0xf3, 0xf0, 0x40, 0x48};
    unsigned pp = 0, vvvv = one_in(c, 2) ? 15 : (unsigned)choose(c, 16), l = (unsigned)choose(c, 2);
    unsigned strange = odd ? (unsigned)choose(c, 24) : 23;

    for (unsigned i = 0; i < d->nprefix; i++) {
        pp = d->prefix[i] == 0x66 ? 1 : d->prefix[i] == 0xf3 ? 2 : d->prefix[i] == 0xf2 ? 3 : pp;
    }
    if (strange == 0) {
        put(o, before[choose(c, sizeof before)], 1);
    }
    o->vex_at = o->n;
    if (d->map == 1 && (rex & 0xb) == 0 && one_in(c, 2)) {
        put(o, 0xc5, 1);
        put(o, (~(unsigned)rex & 4) << 5 | vvvv << 3 | l << 2 | pp, 1);
    } else {
        put(o, 0xc4, 1);
        put(o, (~(unsigned)rex & 7) << 5 | d->map, 1);
        put(o, (rex & 8U) << 4 | vvvv << 3 | l << 2 | pp, 1);
    }
    if (strange == 1) {
        o->b[o->n - 1 - choose(c, o->n - o->vex_at - 1)] ^= (uint8_t)(1U << choose(c, 8));
    }
}

void draft(struct choices *c, enum draft_kind kind, bool odd, struct bytes *o)
{
    struct draft d = {.nprefix = 0};
    struct bytes rest = {.n = 0};
    uint8_t rex;

    *o = (struct bytes){.n = 0};
    switch (kind) {
    case DRAFT_ANY:
        any_opcode(c, &d);
        break;
    case DRAFT_SSE:
        sse_opcode(c, &d);
        break;
    case DRAFT_X87:
        x87_opcode(c, &d);
        break;
    default:
        if (isa_v3 && one_in(c, 6)) {
            bmi_opcode(c, &d);
        } else {
            integer_opcode(c, &d);
        }
        break;
    }
    if (d.map == 0 && d.op == 0x8d && one_in(c, 4)) {
        add_prefix(&d, 0x67); /* LEA */
    } else if (one_in(c, 24)) {
        static const uint8_t more[] = {0x64, 0x65, 0x67, 0xf0, 0x2e};
        add_prefix(&d, more[choose(c, sizeof more)]);
    }
    d.vex |= isa_v3 && d.map != 0 && kind != DRAFT_INTEGER && !one_in(c, 4);
    rex = one_in(c, 2) ? (uint8_t)(0x40 | choose(c, 16)) : 0;
    operands(c, &rest, &rex, one_in(c, 2) || (d.map == 0 && d.op == 0x8d));
    if (d.vex) {
        put_vex(c, &d, rex, odd, o);
    } else {
        memcpy(o->b, d.prefix, d.nprefix);
        o->n = d.nprefix;
        if (rex != 0) {
            put(o, rex, 1);
        }
        if (d.map != 0) {
            put(o, 0x0f, 1);
        }
        if (d.map > 1) {
            put(o, d.map == 2 ? 0x38 : 0x3a, 1);
        }
    }
    put(o, d.op, 1);
    if (rest.relative_at != 0) {
        o->relative_at = o->n + rest.relative_at;
    }
    memcpy(o->b + o->n, rest.b, rest.n);
    o->n += rest.n;
}
