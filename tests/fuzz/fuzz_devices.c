/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_devices.c - a guest that does anything to the PC's devices: ports, MMIO, MSRs of
 * the LAPIC, rings in its memory, and time and inputs between. Bytes are read as operations (struct
 * op below); the virtio devices begin with their queues set up. What it leads to must save and
 * load.
 */
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/cpu/vcpu.h"
#include "vmm/dev/pci.h"
#include "vmm/sched/state.h"

enum { RINGS = 0x100000, RING_SIZE = 0x3000, QSIZE = 8, QUEUES = 3, PENDING_MAX = 64 };
enum { DESC = 0, AVAIL = 0x1000, USED = 0x2000, BUFFERS = 0x200000 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, DRIVER_OK = 15 };
enum { FUNCTIONS_MAX = 4, REGIONS_MAX = 16, OPS_MAX = 400 };

static const uint8_t slots[FUNCTIONS_MAX] = {2, 6, 14, 15}; /* net, disk, entropy, console */

struct feed {
    const uint8_t *at;
    size_t left;
};

static struct rig {
    struct vm *vm;
    struct vcpu *v;
    struct output_list out;
    gpa_t region[REGIONS_MAX];
    unsigned nregions;
    gpa_t notify[FUNCTIONS_MAX];
    unsigned nqueues[FUNCTIONS_MAX];
    uint16_t avail[FUNCTIONS_MAX][QUEUES];
    uint64_t pending[PENDING_MAX]; /* disk requests without an answer */
    unsigned npending;
} rig;

static uint64_t take(struct feed *f, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n && f->left > 0; i++, f->left--) {
        v |= (uint64_t)*f->at++ << 8 * i;
    }
    return v;
}

/* --- the machine as a guest reaches it ----------------------------------------------------------
 */

static uint64_t pio(uint16_t port, unsigned size, const uint64_t *write)
{
    if (write != NULL) {
        rig.v->ops->pio_write(rig.v->ops_ctx, port, size, *write);
        return 0;
    }
    return rig.v->ops->pio_read(rig.v->ops_ctx, port, size);
}

static uint32_t config_read(unsigned slot, unsigned off, unsigned size)
{
    pio(0xcf8, 4, &(uint64_t){0x80000000u | slot << 11 | (off & 0xfc)});
    return (uint32_t)pio((uint16_t)(0xcfc + (off & 3)), size, NULL);
}

static void config_write(unsigned slot, unsigned off, unsigned size, uint64_t v)
{
    pio(0xcf8, 4, &(uint64_t){0x80000000u | slot << 11 | (off & 0xfc)});
    pio((uint16_t)(0xcfc + (off & 3)), size, &v);
}

static void mmio_write(gpa_t at, unsigned size, uint64_t v)
{
    rig.v->ops->mmio_write(rig.v->ops_ctx, at, size, v);
}

static void ram_put(gpa_t at, const void *data, uint64_t len)
{
    (void)ram_write(vm_machine(rig.vm)->ram, at, data, len);
}

static gpa_t ring_of(unsigned fn, unsigned q)
{
    return RINGS + (fn * QUEUES + q) * RING_SIZE;
}

/* As a driver: every feature accepted, queues of QSIZE, DRIVER_OK. */
static void set_up_queues(unsigned fn, gpa_t common)
{
    mmio_write(common + 20, 1, 3);
    for (unsigned half = 0; half < 2; half++) {
        mmio_write(common, 4, half);
        uint64_t offered = rig.v->ops->mmio_read(rig.v->ops_ctx, common + 4, 4);
        mmio_write(common + 8, 4, half);
        mmio_write(common + 12, 4, offered);
    }
    mmio_write(common + 20, 1, 11);
    rig.nqueues[fn] = (unsigned)rig.v->ops->mmio_read(rig.v->ops_ctx, common + 18, 2);
    rig.nqueues[fn] = rig.nqueues[fn] < QUEUES ? rig.nqueues[fn] : QUEUES;
    for (unsigned q = 0; q < rig.nqueues[fn]; q++) {
        gpa_t ring = ring_of(fn, q);
        mmio_write(common + 22, 2, q);
        mmio_write(common + 24, 2, QSIZE);
        mmio_write(common + 32, 4, ring + DESC);
        mmio_write(common + 40, 4, ring + AVAIL);
        mmio_write(common + 48, 4, ring + USED);
        mmio_write(common + 28, 2, 1);
    }
    mmio_write(common + 20, 1, DRIVER_OK);
}

static void find_function(unsigned fn)
{
    unsigned slot = slots[fn];
    gpa_t common = 0;

    for (unsigned bar = 0; bar < PCI_BARS; bar++) {
        gpa_t at = config_read(slot, PCI_BAR0 + 4 * bar, 4);
        if ((at & 1) == 0 && at != 0 && rig.nregions < REGIONS_MAX) {
            rig.region[rig.nregions++] = at & ~15u;
        }
    }
    config_write(slot, PCI_COMMAND, 2, PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER);
    unsigned cap = config_read(slot, PCI_CAP_PTR, 1);
    for (unsigned i = 0; cap != 0 && i < 16; i++) {
        if (config_read(slot, cap, 1) == PCI_CAP_VENDOR) {
            unsigned type = config_read(slot, cap + 3, 1), bar = config_read(slot, cap + 4, 1);
            gpa_t base =
                (config_read(slot, PCI_BAR0 + 4 * bar, 4) & ~15u) + config_read(slot, cap + 8, 4);
            common = type == CAP_COMMON ? base : common;
            rig.notify[fn] = type == CAP_NOTIFY ? base : rig.notify[fn];
        }
        cap = config_read(slot, cap + 1, 1);
    }
    if (common != 0) {
        set_up_queues(fn, common);
    }
}

static int disk_result(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len,
                       uint8_t *status, struct plx_err *err)
{
    (void)ctx;
    (void)disk;
    (void)err;
    memset(data, (int)id, len);
    *status = (uint8_t)(id % 3);
    return 0;
}

static void rig_open(void)
{
    struct vm_config cfg = {.machine = {.memory = 8 << 20, .vcpus = 1, .ndisks = 1, .nnics = 1},
                            .host = {.disk_result = disk_result},
                            .engine = &engine_interp};
    struct plx_err err = {0};

    memset(&rig, 0, sizeof rig);
    cfg.machine.disks[0].sectors = 2048;
    PLX_CHECK(vm_create(&cfg, &rig.vm, &err) == 0);
    rig.v = vm_vcpu(rig.vm, 0);
    rig.v->c.halted = 1; /* with interrupts off: it never runs */
    output_list_init(&rig.out);
    vm_machine(rig.vm)->out = &rig.out;
    pci_assign_bars(vm_machine(rig.vm)->pci);
    for (unsigned i = 0; i < FUNCTIONS_MAX; i++) {
        find_function(i);
    }
    rig.region[rig.nregions++] = 0xfec00000; /* IOAPIC */
    rig.region[rig.nregions++] = 0xfee00000; /* LAPIC */
}

/* Disk requests wait for their answers; all else is thrown away. */
static void collect(void)
{
    for (size_t i = 0; i < rig.out.n; i++) {
        if (rig.out.items[i].kind == OUTPUT_DISK && rig.npending < PENDING_MAX) {
            rig.pending[rig.npending++] = rig.out.items[i].arg;
        }
    }
    output_list_clear(&rig.out);
}

/* --- operations
 * ------------------------------------------------------------------------------------ */

static void op_pio(struct feed *f, bool write)
{
    static const uint16_t ports[] = {0x20,  0xa0,  0x40,  0x60, 0x70, 0x3f8, 0x2f8,
                                     0xcf8, 0x600, 0x4d0, 0xf4, 0x92, 0x80};
    uint8_t which = (uint8_t)take(f, 1);
    uint16_t port = which < 0xf0 ? (uint16_t)(ports[which % PLX_COUNT(ports)] + (take(f, 1) & 15))
                                 : (uint16_t)take(f, 2);
    unsigned size = 1u << take(f, 1) % 3;
    uint64_t v = write ? take(f, size) : 0;

    pio(port, size, write ? &v : NULL);
}

static void op_mmio(struct feed *f, bool write)
{
    gpa_t at = rig.region[take(f, 1) % rig.nregions] + (take(f, 2) & 0x3fff);
    unsigned size = 1u << take(f, 1) % 4;

    at &= ~(gpa_t)(size - 1);
    if (write) {
        mmio_write(at, size, take(f, size));
    } else {
        (void)rig.v->ops->mmio_read(rig.v->ops_ctx, at, size);
    }
}

static void op_msr(struct feed *f)
{
    uint32_t msr = (take(f, 1) & 1) != 0 ? 0x800 + (uint32_t)(take(f, 1) & 0x3f)
                                         : (uint32_t[]){0x1b, 0x6e0}[take(f, 1) & 1];
    uint64_t value = take(f, 8);

    (void)rig.v->ops->msr_write(rig.v->ops_ctx, msr, value);
    (void)rig.v->ops->msr_read(rig.v->ops_ctx, msr, &value);
}

static void op_ram(struct feed *f)
{
    uint8_t bytes[16];
    gpa_t at = RINGS + take(f, 3) % (FUNCTIONS_MAX * QUEUES * RING_SIZE);
    unsigned n = 1 + (unsigned)take(f, 1) % 16;

    for (unsigned i = 0; i < n; i++) {
        bytes[i] = (uint8_t)take(f, 1);
    }
    ram_put(at, bytes, n);
}

/* A chain as drivers make them, offered and notified: up to three descriptors. */
static void op_request(struct feed *f)
{
    unsigned fn = (unsigned)take(f, 1) % FUNCTIONS_MAX;
    unsigned q = rig.nqueues[fn] == 0 ? 0 : (unsigned)take(f, 1) % rig.nqueues[fn];
    unsigned n = 1 + (unsigned)take(f, 1) % 3, writable = (unsigned)take(f, 1);
    gpa_t ring = ring_of(fn, q);

    for (unsigned i = 0; i < n; i++) {
        struct {
            uint64_t addr;
            uint32_t len;
            uint16_t flags, next;
        } d = {BUFFERS + i * 0x4000, (uint32_t)take(f, 2),
               (uint16_t)((i + 1 < n ? 1 : 0) | (writable >> i & 1) << 1), (uint16_t)(i + 1)};
        uint64_t head[2] = {take(f, 1), take(f, 1)}; /* a disk's header: type, sector */
        ram_put(d.addr, head, sizeof head);
        ram_put(ring + DESC + i * 16, &d, sizeof d);
    }
    uint16_t head = 0, *idx = &rig.avail[fn][q];
    ram_put(ring + AVAIL + 4 + *idx % QSIZE * 2, &head, 2);
    *idx = (uint16_t)(*idx + 1);
    ram_put(ring + AVAIL + 2, idx, 2);
    if (rig.notify[fn] != 0) {
        mmio_write(rig.notify[fn] + q * 4, 2, q);
    }
}

/* A slice with one input. */
static bool op_slice(struct feed *f)
{
    static const uint8_t kinds[] = {INPUT_NET_RX,  INPUT_CONSOLE_RX,   INPUT_DISK_DONE,
                                    INPUT_ENTROPY, INPUT_POWER_BUTTON, INPUT_WALLCLOCK};
    struct input in = {.kind = kinds[take(f, 1) % PLX_COUNT(kinds)]};
    struct plx_err err = {0};
    struct record r = {.seq = vm_seq(rig.vm) + 1,
                       .start_ns = vm_now(rig.vm) + take(f, 3),
                       .span_ns = 1 + take(f, 2),
                       .rate = 65536,
                       .ninputs = 1,
                       .inputs = &in};

    in.dev = in.kind == INPUT_CONSOLE_RX ? (uint16_t)(take(f, 1) % CONSOLE_PORTS) : 0;
    if (in.kind == INPUT_DISK_DONE) {
        unsigned i = (unsigned)take(f, 1);
        if (rig.npending != 0 && i < 0xf0) {
            i %= rig.npending;
            in.arg = rig.pending[i];
            rig.pending[i] = rig.pending[--rig.npending];
        } else {
            in.arg = i;
        }
        in.status = (uint8_t)(take(f, 1) % 4);
    } else if (in.kind == INPUT_WALLCLOCK) {
        in.arg = take(f, 8);
    } else if (in.kind != INPUT_POWER_BUTTON) {
        uint32_t len = (uint32_t)take(f, 1) * 8;
        in.len = len <= f->left ? len : (uint32_t)f->left;
        in.data = f->at;
        f->at += in.len;
        f->left -= in.len;
    }
    int rc = vm_slice(rig.vm, &r, &rig.out, &err);
    PLX_CHECK(rc == 0 || err.msg[0] != '\0');
    vm_machine(rig.vm)->out = &rig.out;
    return rc == 0;
}

static bool op(struct feed *f)
{
    switch (take(f, 1) % 8) {
    case 0:
        op_pio(f, false);
        return true;
    case 1:
        op_pio(f, true);
        return true;
    case 2:
        op_mmio(f, false);
        return true;
    case 3:
        op_mmio(f, true);
        return true;
    case 4:
        op_ram(f);
        return true;
    case 5:
        op_request(f);
        return true;
    case 6:
        return op_slice(f);
    default:
        op_msr(f);
        return true;
    }
}

static void rig_close(bool whole)
{
    struct plx_err err = {0};
    struct wbuf file;

    wbuf_init(&file);
    if (whole) {
        PLX_CHECK(vm_save_buf(rig.vm, &file, &err) == 0);
        if (vm_load_buf(rig.vm, file.data, file.len, &err) != 0) {
            log_error("%s", err.msg);
            PLX_CHECK(false);
        }
    }
    wbuf_free(&file);
    output_list_free(&rig.out);
    vm_destroy(rig.vm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    bool whole = true;

    log_init("fuzz", LOG_ERROR);
    rig_open();
    for (unsigned i = 0; i < OPS_MAX && f.left > 0 && whole && !vm_stopped(rig.vm, NULL, NULL);
         i++) {
        whole = op(&f);
        collect();
    }
    rig_close(whole);
    return 0;
}
