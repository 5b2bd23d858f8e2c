/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/pic.c - see pic.h. An edge stays requested until it is acknowledged, even if its line
 * falls meanwhile: no interrupt of a device that pulses is lost. */
#include "vmm/dev/pic.h"

#include "base/alloc.h"
#include "base/check.h"
#include "vmm/abi/pc_layout.h"
#include "vmm/dev/section.h"

enum { PIC_VERSION = 1, NONE = -1, LOWEST = 7 };
enum { ICW1_INIT = 0x10, ICW1_LEVEL = 0x08, ICW1_SINGLE = 0x02, ICW1_ICW4 = 0x01 };
enum { ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum { OCW3 = 0x08, OCW3_POLL = 0x04 };

/* What the next write to the odd port means. */
enum expect { EXPECT_OCW1, EXPECT_ICW2, EXPECT_ICW3, EXPECT_ICW4, EXPECT_END };

struct chip {
    uint8_t irr, isr, imr;
    uint8_t lines; /* input levels */
    uint8_t elcr;  /* 1: level triggered */
    uint8_t base;  /* ICW2: vector of input 0 */
    uint8_t icw1, icw4;
    uint8_t expect; /* enum expect */
    uint8_t lowest; /* the input with the lowest priority */
    bool rotate_aeoi, special_mask, read_isr, poll;
};

struct pic {
    struct irq_line intr;
    struct chip chips[2]; /* master, slave */
};

static const uint8_t elcr_mask[2] = {0xf8, 0xde}; /* IRQ 0-2, 8 and 13 are always edges */

/* 0 is the highest priority, 8: nothing set in @bits. */
static unsigned priority(const struct chip *c, uint8_t bits)
{
    unsigned p = 0;

    while (p < 8 && (bits & (1U << ((c->lowest + 1U + p) & 7))) == 0) {
        p++;
    }
    return p;
}

static unsigned input_of(const struct chip *c, unsigned prio)
{
    return (c->lowest + 1U + prio) & 7;
}

/* The input to be served next, or NONE. */
static int requested(const struct pic *pic, unsigned n)
{
    const struct chip *c = &pic->chips[n];
    uint8_t in_service = c->isr;
    unsigned p = priority(c, (uint8_t)(c->irr & ~c->imr));

    if (c->special_mask) {
        in_service &= (uint8_t)~c->imr;
    }
    if (n == 0 && (c->icw4 & ICW4_SFNM) != 0) {
        in_service &= (uint8_t) ~(1U << PIC_CASCADE_IRQ);
    }
    return p < priority(c, in_service) ? (int)input_of(c, p) : NONE;
}

static void chip_line(struct chip *c, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)(1U << input);
    bool was = (c->lines & bit) != 0;

    c->lines = (uint8_t)(level ? c->lines | bit : c->lines & ~bit);
    if ((c->elcr & bit) != 0) {
        c->irr = (uint8_t)(level ? c->irr | bit : c->irr & ~bit);
    } else if (level && !was) {
        c->irr |= bit;
    }
}

static void update(struct pic *pic)
{
    chip_line(&pic->chips[0], PIC_CASCADE_IRQ, requested(pic, 1) != NONE);
    if (requested(pic, 1) == NONE) {
        pic->chips[0].irr &= (uint8_t) ~(1U << PIC_CASCADE_IRQ); /* the slave's INT is gone */
    }
    irq_set(&pic->intr, requested(pic, 0) != NONE);
}

void pic_set_line(struct pic *pic, unsigned irq, bool level)
{
    PLX_CHECK(irq < 16 && irq != PIC_CASCADE_IRQ);
    chip_line(&pic->chips[irq >> 3], irq & 7, level);
    update(pic);
}

static void acknowledge(struct chip *c, unsigned input)
{
    uint8_t bit = (uint8_t)(1U << input);

    if ((c->icw4 & ICW4_AEOI) == 0) {
        c->isr |= bit;
    } else if (c->rotate_aeoi) {
        c->lowest = (uint8_t)input;
    }
    if ((c->elcr & bit) == 0) {
        c->irr &= (uint8_t)~bit;
    }
}

/* INTA for one chip: the input, LOWEST's number 7 when there is none. */
static unsigned take(struct pic *pic, unsigned n)
{
    int input = requested(pic, n);

    if (input == NONE) {
        return LOWEST;
    }
    acknowledge(&pic->chips[n], (unsigned)input);
    return (unsigned)input;
}

int pic_take(struct pic *pic)
{
    unsigned n = 0, input = take(pic, 0);

    if (input == PIC_CASCADE_IRQ) {
        n = 1;
        input = take(pic, 1);
        /* INT of the slave falls during its INTA: another request of it is another edge. */
        chip_line(&pic->chips[0], PIC_CASCADE_IRQ, false);
    }
    update(pic);
    return pic->chips[n].base + (int)input;
}

/* --- registers --------------------------------------------------------------------------- */

static void chip_init(struct chip *c, uint8_t icw1)
{
    c->icw1 = icw1;
    c->icw4 = 0;
    c->irr = c->lines & c->elcr;
    c->isr = c->imr = 0;
    c->lowest = LOWEST;
    c->rotate_aeoi = c->special_mask = c->read_isr = c->poll = false;
    c->expect = EXPECT_ICW2;
}

/* OCW2: R, SL, EOI in bits 7-5, an input in bits 2-0. */
static void ocw2(struct chip *c, uint8_t value)
{
    bool rotate = (value & 0x80) != 0, specific = (value & 0x40) != 0, eoi = (value & 0x20) != 0;
    unsigned input = value & 7;

    if (!eoi) {
        if (specific && rotate) {
            c->lowest = (uint8_t)input; /* set priority */
        } else if (!specific) {
            c->rotate_aeoi = rotate;
        }
        return;
    }
    if (!specific) {
        uint8_t served = c->special_mask ? (uint8_t)(c->isr & ~c->imr) : c->isr;
        unsigned p = priority(c, served);

        if (p == 8) {
            return;
        }
        input = input_of(c, p);
    }
    c->isr &= (uint8_t) ~(1U << input);
    if (rotate) {
        c->lowest = (uint8_t)input;
    }
}

static void ocw3(struct chip *c, uint8_t value)
{
    if ((value & 0x40) != 0) {
        c->special_mask = (value & 0x20) != 0;
    }
    c->poll = (value & OCW3_POLL) != 0;
    if ((value & 0x02) != 0) {
        c->read_isr = (value & 0x01) != 0;
    }
}

static void write_data(struct chip *c, uint8_t value)
{
    switch (c->expect) {
    case EXPECT_ICW2:
        c->base = value & 0xf8;
        c->expect = (c->icw1 & ICW1_SINGLE) == 0 ? EXPECT_ICW3
                    : (c->icw1 & ICW1_ICW4) != 0 ? EXPECT_ICW4
                                                 : EXPECT_OCW1;
        break;
    case EXPECT_ICW3: /* the wiring is fixed */
        c->expect = (c->icw1 & ICW1_ICW4) != 0 ? EXPECT_ICW4 : EXPECT_OCW1;
        break;
    case EXPECT_ICW4:
        c->icw4 = value & (ICW4_AEOI | ICW4_SFNM);
        c->expect = EXPECT_OCW1;
        break;
    default:
        c->imr = value;
    }
}

static void pic_write(struct pic *pic, unsigned n, uint64_t port, uint64_t v)
{
    struct chip *c = &pic->chips[n];
    uint8_t value = (uint8_t)v;

    if (port == 1) {
        write_data(c, value);
    } else if ((value & ICW1_INIT) != 0) {
        chip_init(c, value);
    } else if ((value & OCW3) != 0) {
        ocw3(c, value);
    } else {
        ocw2(c, value);
    }
    update(pic);
}

static uint64_t pic_read(struct pic *pic, unsigned n, uint64_t port)
{
    struct chip *c = &pic->chips[n];

    if (c->poll) { /* the read is the INTA */
        int input = requested(pic, n);

        c->poll = false;
        if (input == NONE) {
            return 0;
        }
        acknowledge(c, (unsigned)input);
        update(pic);
        return 0x80 | (unsigned)input;
    }
    if (port == 1) {
        return c->imr;
    }
    return c->read_isr ? c->isr : c->irr;
}

/* The bus splits nothing inside a range: a wider access takes its ports in order. */
#define PIC_PORTS(name, n)                                                            \
    static uint64_t name##_read(void *ctx, uint64_t addr, unsigned size)              \
    {                                                                                 \
        uint64_t v = pic_read(ctx, n, addr);                                          \
        return size == 1 ? v : v | pic_read(ctx, n, 1) << 8;                          \
    }                                                                                 \
    static void name##_write(void *ctx, uint64_t addr, unsigned size, uint64_t value) \
    {                                                                                 \
        pic_write(ctx, n, addr, value);                                               \
        if (size > 1) {                                                               \
            pic_write(ctx, n, 1, value >> 8);                                         \
        }                                                                             \
    }                                                                                 \
    static const struct bus_range_ops name##_ops = {name##_read, name##_write};
PIC_PORTS(master, 0)
PIC_PORTS(slave, 1)

static uint64_t elcr_read(void *ctx, uint64_t addr, unsigned size)
{
    struct pic *pic = ctx;

    return size == 1 ? pic->chips[addr].elcr
                     : (uint64_t)(pic->chips[0].elcr | pic->chips[1].elcr << 8);
}

static void elcr_write_one(struct pic *pic, unsigned n, uint8_t value)
{
    struct chip *c = &pic->chips[n];

    c->elcr = value & elcr_mask[n];
    c->irr = (uint8_t)((c->irr & ~c->elcr) | (c->lines & c->elcr));
}

static void elcr_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct pic *pic = ctx;

    elcr_write_one(pic, (unsigned)addr, (uint8_t)value);
    if (size > 1) {
        elcr_write_one(pic, 1, (uint8_t)(value >> 8));
    }
    update(pic);
}

static const struct bus_range_ops elcr_ops = {elcr_read, elcr_write};

/* --- state --------------------------------------------------------------------------------- */

static void pic_reset(void *dev)
{
    struct pic *pic = dev;

    for (unsigned n = 0; n < 2; n++) {
        pic->chips[n] = (struct chip){.lowest = LOWEST, .imr = 0xff};
    }
    update(pic);
}

static void pic_save(const void *dev, struct wbuf *out)
{
    const struct pic *pic = dev;

    for (unsigned n = 0; n < 2; n++) {
        const struct chip *c = &pic->chips[n];
        const uint8_t bytes[] = {c->irr,         c->isr,          c->imr,      c->lines,  c->elcr,
                                 c->base,        c->icw1,         c->icw4,     c->expect, c->lowest,
                                 c->rotate_aeoi, c->special_mask, c->read_isr, c->poll};

        wbuf_put(out, bytes, sizeof bytes);
    }
}

static int pic_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct pic *pic = dev;
    int rc = section_version("pic", version, PIC_VERSION, err);

    for (unsigned n = 0; rc == 0 && n < 2; n++) {
        struct chip *c = &pic->chips[n];
        uint8_t b[14];

        rbuf_get(in, b, sizeof b);
        for (unsigned i = 10; rc == 0 && i < sizeof b; i++) {
            rc = section_field("pic: a flag", b[i] <= 1, b[i], err);
        }
        if (rc == 0) {
            rc = section_field("pic: ELCR", (b[4] & ~elcr_mask[n]) == 0, b[4], err);
        }
        if (rc == 0) {
            rc = section_field("pic: vector base", (b[5] & 7) == 0, b[5], err);
        }
        if (rc == 0) {
            rc = section_field("pic: ICW4", (b[7] & ~(ICW4_AEOI | ICW4_SFNM)) == 0, b[7], err);
        }
        if (rc == 0) {
            rc = section_field("pic: initialisation step", b[8] < EXPECT_END, b[8], err);
        }
        if (rc == 0) {
            rc = section_field("pic: lowest priority", b[9] <= LOWEST, b[9], err);
        }
        *c = (struct chip){.irr = b[0],
                           .isr = b[1],
                           .imr = b[2],
                           .lines = b[3],
                           .elcr = b[4],
                           .base = b[5],
                           .icw1 = b[6],
                           .icw4 = b[7],
                           .expect = b[8],
                           .lowest = b[9] & 7,
                           .rotate_aeoi = b[10],
                           .special_mask = b[11],
                           .read_isr = b[12],
                           .poll = b[13]};
    }
    return rc != 0 ? rc : section_complete("pic", in, err);
}

static const struct device_ops pic_device = {pic_reset, pic_save, pic_load};

int pic_create(struct machine *m, const struct irq_line *intr, struct pic **out,
               struct plx_err *err)
{
    struct pic *pic = plx_calloc(1, sizeof *pic);
    int rc;

    *out = NULL;
    if (pic == NULL) {
        return plx_fail(err, PLX_ENOMEM, "pic: out of memory");
    }
    pic->intr = *intr;
    rc = bus_claim(m->bus, BUS_PIO, PIC_MASTER_PORT, 2, "pic", &master_ops, pic, err);
    if (rc == 0) {
        rc = bus_claim(m->bus, BUS_PIO, PIC_SLAVE_PORT, 2, "pic", &slave_ops, pic, err);
    }
    if (rc == 0) {
        rc = bus_claim(m->bus, BUS_PIO, ELCR_PORT, 2, "elcr", &elcr_ops, pic, err);
    }
    if (rc != 0) {
        plx_free(pic);
        return rc;
    }
    machine_add_device(m, "pic", PIC_VERSION, &pic_device, pic);
    pic_reset(pic);
    *out = pic;
    return 0;
}

void pic_destroy(struct pic *pic)
{
    plx_free(pic);
}
