/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/bus.c - see bus.h. Each space is an array of ranges sorted by base. */
#include "vmm/dev/bus.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

struct range {
    uint64_t base, last; /* inclusive */
    const char *name;
    const struct bus_range_ops *ops;
    void *ctx;
};

struct space {
    struct range *ranges;
    size_t n, cap;
};

struct bus {
    struct space spaces[2];
};

static const struct {
    const char *name;
    uint64_t last;
} space_info[2] = {
    [BUS_PIO] = {"port", 0xffff},
    [BUS_MMIO] = {"address", UINT64_MAX},
};

int bus_create(struct bus **out)
{
    *out = plx_calloc(1, sizeof **out);
    return *out == NULL ? PLX_ENOMEM : 0;
}

void bus_destroy(struct bus *bus)
{
    if (bus != NULL) {
        plx_free(bus->spaces[BUS_PIO].ranges);
        plx_free(bus->spaces[BUS_MMIO].ranges);
        plx_free(bus);
    }
}

/* The first range whose last byte is at or after @addr. */
static size_t lower(const struct space *s, uint64_t addr)
{
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (s->ranges[mid].last < addr) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

int bus_claim(struct bus *bus, enum bus_space space, uint64_t base, uint64_t len, const char *name,
              const struct bus_range_ops *ops, void *ctx, struct plx_err *err)
{
    struct space *s = &bus->spaces[space];
    uint64_t last = base + len - 1;
    size_t i;

    if (len == 0 || last < base || last > space_info[space].last) {
        return plx_fail(err, PLX_EINVAL, "%s: no such %s range: 0x%" PRIx64 " + 0x%" PRIx64, name,
                        space_info[space].name, base, len);
    }
    i = lower(s, base);
    if (i < s->n && s->ranges[i].base <= last) {
        return plx_fail(err, PLX_EEXIST,
                        "%s range 0x%" PRIx64 "-0x%" PRIx64 " of %s overlaps 0x%" PRIx64
                        "-0x%" PRIx64 " of %s",
                        space_info[space].name, base, last, name, s->ranges[i].base,
                        s->ranges[i].last, s->ranges[i].name);
    }
    if (s->n == s->cap) {
        size_t cap = s->cap == 0 ? 32 : s->cap * 2;
        struct range *grown = plx_realloc(s->ranges, cap * sizeof *grown);

        if (grown == NULL) {
            return plx_fail(err, PLX_ENOMEM, "%s: out of memory for a bus range", name);
        }
        s->ranges = grown;
        s->cap = cap;
    }
    memmove(&s->ranges[i + 1], &s->ranges[i], (s->n - i) * sizeof *s->ranges);
    s->ranges[i] = (struct range){.base = base, .last = last, .name = name, .ops = ops, .ctx = ctx};
    s->n++;
    return 0;
}

void bus_release(struct bus *bus, enum bus_space space, uint64_t base, void *ctx)
{
    struct space *s = &bus->spaces[space];
    size_t i = lower(s, base);

    if (i < s->n && s->ranges[i].base == base && s->ranges[i].ctx == ctx) {
        s->n--;
        memmove(&s->ranges[i], &s->ranges[i + 1], (s->n - i) * sizeof *s->ranges);
    }
}

static const struct range *find(const struct space *s, uint64_t addr)
{
    size_t i = lower(s, addr);

    return i < s->n && s->ranges[i].base <= addr ? &s->ranges[i] : NULL;
}

static uint64_t ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (size * 8)) - 1;
}

/* An access that no single range covers is done in bytes, as a bus with 8-bit slaves would: each
 * byte goes to whoever claims it. Addresses wrap in their space. */
static bool straddles(const struct range *r, const struct space *s, uint64_t addr, unsigned size)
{
    if (r != NULL) {
        return r->last - addr < size - 1;
    }
    size_t i = lower(s, addr);

    return i < s->n && s->ranges[i].base - addr < size;
}

uint64_t bus_read(struct bus *bus, enum bus_space space, uint64_t addr, unsigned size)
{
    struct space *s = &bus->spaces[space];
    const struct range *r;

    addr &= space_info[space].last;
    r = find(s, addr);
    if (straddles(r, s, addr, size)) {
        uint64_t value = 0;

        for (unsigned i = 0; i < size; i++) {
            value |= bus_read(bus, space, addr + i, 1) << (i * 8);
        }
        return value;
    }
    return r == NULL ? ones(size) : r->ops->read(r->ctx, addr - r->base, size) & ones(size);
}

void bus_write(struct bus *bus, enum bus_space space, uint64_t addr, unsigned size, uint64_t value)
{
    struct space *s = &bus->spaces[space];
    const struct range *r;

    addr &= space_info[space].last;
    r = find(s, addr);
    if (straddles(r, s, addr, size)) {
        for (unsigned i = 0; i < size; i++) {
            bus_write(bus, space, addr + i, 1, (value >> (i * 8)) & 0xff);
        }
        return;
    }
    if (r != NULL) {
        r->ops->write(r->ctx, addr - r->base, size, value & ones(size));
    }
}
