/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_blk.c - buffers of a virtio disk that other processors rewrite while the request
 * is in flight, and code that a request brings.
 *
 * Hunts: data of a write that is not as it was at the doorbell, data of a read that is there before
 * its completion or lacks a piece after it, code that outlives what a device wrote over it. What is
 * left open (which of two stores was last) must be the same in a replay (smp.sh). */
#include "smp.h"

enum { RUNS = 24, WORDS = 1024, BYTES = WORDS * 4, SECTORS = BYTES / 512, QSIZE = 4 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2 };
enum { DESC_NEXT = 1, DESC_WRITE = 2, NO_INTERRUPT = 1 };
enum { BLK_READ = 0, BLK_WRITE = 1 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
static struct desc desc[QSIZE] __attribute__((aligned(4096)));
static struct {
    volatile uint16_t flags, idx, ring[QSIZE];
} avail __attribute__((aligned(4096)));
static struct {
    volatile uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[QSIZE];
} used __attribute__((aligned(4096)));
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static volatile uint8_t status;
static volatile uint32_t *notify;

static volatile uint32_t buffer[WORDS] __attribute__((aligned(4096)));
static uint32_t back[WORDS] __attribute__((aligned(4096)));
static uint8_t code[4096] __attribute__((aligned(4096)));
static volatile uint32_t go;
static uint32_t torn, early, missing, failed, stale, taken;

static uint32_t config(unsigned slot, unsigned reg)
{
    outl(0xcf8, 0x80000000U | slot << 11 | reg);
    return inl(0xcfc);
}

static uint32_t word(uint32_t run, uint32_t i)
{
    return (run << 16 | i) * 2654435761U | 1;
}

/* The structure of the capability @type in BAR 0. */
static uint8_t *structure(unsigned slot, unsigned type)
{
    uintptr_t bar = config(slot, 0x10) & ~15U;

    for (unsigned at = config(slot, 0x34) & 0xff; at != 0;) {
        uint32_t head = config(slot, at);
        if ((head & 0xff) == 9 && head >> 24 == type) {
            return (uint8_t *)(bar + config(slot, at + 8));
        }
        at = head >> 8 & 0xff;
    }
    return NULL;
}

static void set64(uint8_t *reg, const volatile void *p)
{
    *(volatile uint32_t *)reg = (uint32_t)(uintptr_t)p;
    *(volatile uint32_t *)(reg + 4) = 0;
}

static bool open_disk(void)
{
    unsigned slot = 0;
    uint8_t *common, *doorbell;

    while (slot < 32 && config(slot, 0) != 0x10421af4) {
        slot++;
    }
    if (slot == 32) {
        return false;
    }
    uint32_t command = config(slot, 4);
    outl(0xcfc, command | 6); /* memory, bus master */
    common = structure(slot, CAP_COMMON);
    doorbell = structure(slot, CAP_NOTIFY);
    if (common == NULL || doorbell == NULL) {
        return false;
    }
    volatile uint8_t *const device_status = common + 20;
    *device_status = 0;
    *device_status = 1;
    *device_status = 3;
    *(volatile uint32_t *)(common + 8) = 1; /* features 32-63: VERSION_1 */
    *(volatile uint32_t *)(common + 12) = 1;
    *device_status = 11;
    *(volatile uint16_t *)(common + 22) = 0;
    *(volatile uint16_t *)(common + 24) = QSIZE;
    set64(common + 32, desc);
    set64(common + 40, &avail);
    set64(common + 48, &used);
    *(volatile uint16_t *)(common + 28) = 1;
    *device_status = 15;
    avail.flags = NO_INTERRUPT;
    notify = (volatile uint32_t *)doorbell;
    return *device_status == 15;
}

/* Make a request and ring the doorbell; done when used.idx has moved. */
static void request(unsigned type, uint64_t sector, volatile void *data)
{
    header.type = type;
    header.sector = sector;
    status = 0xff;
    desc[0] = (struct desc){(uintptr_t)&header, sizeof header, DESC_NEXT, 1};
    desc[1] =
        (struct desc){(uintptr_t)data, BYTES, DESC_NEXT | (type == BLK_READ ? DESC_WRITE : 0), 2};
    desc[2] = (struct desc){(uintptr_t)&status, 1, DESC_WRITE, 0};
    avail.ring[avail.idx % QSIZE] = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    avail.idx++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *(volatile uint16_t *)notify = 0;
}

static void await(uint16_t before)
{
    while (used.idx == before) {
        pause_cpu();
    }
    failed += status != 0;
}

/* What a write takes is what was there at its doorbell: from then on everybody writes over it. */
static void rewrite_outgoing(unsigned cpu)
{
    for (uint32_t run = 1; run <= RUNS; run++) {
        uint16_t before = used.idx;
        smp_barrier(cpu, smp_cpus);
        if (cpu == 0) {
            for (uint32_t i = 0; i < WORDS; i++) {
                buffer[i] = word(run, i);
            }
            request(BLK_WRITE, run % 4 * SECTORS, buffer);
            go = run;
        }
        while (go != run) {
        }
        for (uint32_t i = cpu; i < WORDS; i += smp_cpus) {
            buffer[i] = ~cpu;
        }
        for (uint32_t i = WORDS; i-- > 0 && used.idx == before;) {
            buffer[i] += cpu;
        }
        if (cpu == 0) {
            await(before);
            before = used.idx;
            request(BLK_READ, run % 4 * SECTORS, back);
            await(before);
            for (uint32_t i = 0; i < WORDS; i++) {
                torn += back[i] != word(run, i);
            }
        }
        smp_barrier(cpu, smp_cpus);
    }
}

/* What a read brings comes at its completion, all at once, over whatever was written until then. */
static void rewrite_incoming(unsigned cpu)
{
    for (uint32_t run = 1; run <= RUNS; run++) {
        uint16_t before = used.idx;
        if (cpu == 0) {
            for (uint32_t i = 0; i < WORDS; i++) {
                buffer[i] = 0;
            }
        }
        smp_barrier(cpu, smp_cpus);
        if (cpu == 0) {
            request(BLK_READ, RUNS % 4 * SECTORS, buffer);
            go = RUNS + run;
            await(before);
        } else {
            while (go != RUNS + run) {
            }
            for (uint32_t i = cpu; used.idx == before; i = (i + 7) % WORDS) {
                bool there = buffer[i] == word(RUNS, i);
                if (used.idx != before) {
                    break; /* it may have come between the two looks */
                }
                if (there) {
                    __atomic_fetch_add(&early, 1, __ATOMIC_SEQ_CST);
                }
                buffer[i] = cpu << 1;
            }
        }
        smp_barrier(cpu, smp_cpus);
        if (cpu == 0) {
            uint32_t lost = 0;
            for (uint32_t i = 0; i < WORDS; i++) {
                lost += buffer[i] != word(RUNS, i);
            }
            missing += lost > smp_cpus - 1; /* each may have stored once more before it looked */
            taken += WORDS - lost;
        }
        smp_barrier(cpu, smp_cpus);
    }
}

/* A function that every processor has run is replaced by a read from the disk. */
static void read_code(unsigned cpu)
{
    uint32_t (*const fn)(void) = (uint32_t(*)(void))(uintptr_t)code;

    for (uint32_t run = 1; run <= RUNS; run++) {
        if (cpu == 0) {
            uint16_t before = used.idx;
            uint8_t *bytes = (uint8_t *)back;
            bytes[0] = 0xb8; /* mov eax, run; ret */
            __builtin_memcpy(bytes + 1, &run, sizeof run);
            bytes[5] = 0xc3;
            request(BLK_WRITE, 0, back);
            await(before);
            before = used.idx;
            request(BLK_READ, 0, code);
            await(before);
        }
        smp_barrier(cpu, smp_cpus);
        if (fn() != run) {
            __atomic_fetch_add(&stale, 1, __ATOMIC_SEQ_CST);
        }
        smp_barrier(cpu, smp_cpus);
    }
}

int guest_main(void)
{
    if (!smp_start()) {
        return checks_done("smp_blk");
    }
    check("there is a virtio disk", open_disk());
    if (notify == NULL) {
        return checks_done("smp_blk");
    }
    smp_run(rewrite_outgoing);
    check_eq("a write has the data of its doorbell", torn, 0);
    smp_run(rewrite_incoming);
    check_eq("a read does not come before its completion", early, 0);
    check_eq("a read comes whole", missing, 0);
    check("something was read", taken != 0);
    smp_run(read_code);
    check_eq("code that was read is run", stale, 0);
    check_eq("no request failed", failed, 0);
    return checks_done("smp_blk");
}
