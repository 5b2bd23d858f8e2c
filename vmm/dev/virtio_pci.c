/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/virtio_pci.c - see virtio_pci.h. No state of its own: registers are in struct virtio,
 * capabilities in the function's configuration space. */
#include "vmm/dev/virtio_pci.h"

#include <string.h>

#include "base/check.h"

enum { VIRTIO_PCI_VENDOR = 0x1af4, VIRTIO_PCI_DEVICE_BASE = 0x1040 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_PCI_CFG = 5 };
enum { CAP_LEN = 16, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_DATA = 16 };
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* struct virtio_pci_common_cfg */
enum {
    C_DEVICE_FEATURE_SELECT = 0,
    C_DEVICE_FEATURE = 4,
    C_DRIVER_FEATURE_SELECT = 8,
    C_DRIVER_FEATURE = 12,
    C_CONFIG_VECTOR = 16,
    C_NUM_QUEUES = 18,
    C_STATUS = 20,
    C_GENERATION = 21,
    C_QUEUE_SELECT = 22,
    C_QUEUE_SIZE = 24,
    C_QUEUE_VECTOR = 26,
    C_QUEUE_ENABLE = 28,
    C_QUEUE_NOTIFY_OFF = 30,
    C_QUEUE_DESC = 32,
    C_QUEUE_AVAIL = 40,
    C_QUEUE_USED = 48,
    C_END = 56
};

static void put(uint8_t *image, unsigned at, uint64_t v, unsigned size)
{
    memcpy(image + at, &v, size);
}

static uint64_t common_read(const struct virtio *v, uint64_t addr, unsigned size)
{
    uint8_t image[C_END + 8] = {0};
    uint64_t value = 0;

    if (addr >= C_END) {
        return 0;
    }
    put(image, C_DEVICE_FEATURE_SELECT, v->device_feature_select, 4);
    if (v->device_feature_select < 2) {
        put(image, C_DEVICE_FEATURE, v->offered >> (32 * v->device_feature_select), 4);
    }
    put(image, C_DRIVER_FEATURE_SELECT, v->driver_feature_select, 4);
    if (v->driver_feature_select < 2) {
        put(image, C_DRIVER_FEATURE, v->accepted >> (32 * v->driver_feature_select), 4);
    }
    put(image, C_CONFIG_VECTOR, v->config_vector, 2);
    put(image, C_NUM_QUEUES, v->nqueues, 2);
    put(image, C_STATUS, v->status, 1);
    put(image, C_QUEUE_SELECT, v->queue_select, 2);
    if (v->queue_select < v->nqueues) {
        const struct virtq *q = &v->q[v->queue_select];
        put(image, C_QUEUE_SIZE, q->size, 2);
        put(image, C_QUEUE_VECTOR, q->vector, 2);
        put(image, C_QUEUE_ENABLE, q->enabled, 2);
        put(image, C_QUEUE_NOTIFY_OFF, v->queue_select, 2);
        put(image, C_QUEUE_DESC, q->desc, 8);
        put(image, C_QUEUE_AVAIL, q->avail, 8);
        put(image, C_QUEUE_USED, q->used, 8);
    }
    memcpy(&value, image + addr, size);
    return value;
}

static uint16_t vector_or_none(const struct virtio_pci *p, uint64_t value)
{
    return value < p->fn->msix.vectors ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void set_half(uint64_t *reg, unsigned byte, uint64_t value)
{
    unsigned shift = byte == 0 ? 0 : 32;
    *reg = (*reg & ~(UINT64_C(0xffffffff) << shift)) | (value & 0xffffffff) << shift;
}

/* Registers of the selected queue; a queue that runs keeps its size and addresses. */
static void queue_write(struct virtio_pci *p, uint64_t addr, unsigned size, uint64_t value)
{
    struct virtio *v = p->v;

    if (v->queue_select >= v->nqueues) {
        return;
    }
    struct virtq *q = &v->q[v->queue_select];
    if (addr == C_QUEUE_VECTOR && size == 2) {
        q->vector = vector_or_none(p, value);
    } else if (q->enabled) {
        return;
    } else if (addr == C_QUEUE_SIZE && size == 2) {
        q->size = (uint16_t)value;
    } else if (addr == C_QUEUE_ENABLE && size == 2 && value == 1) {
        virtio_enable_queue(v, v->queue_select);
    } else if (addr >= C_QUEUE_DESC && addr < C_END && size == 4 && addr % 4 == 0) {
        uint64_t *regs[] = {&q->desc, &q->avail, &q->used};
        set_half(regs[(addr - C_QUEUE_DESC) / 8], (unsigned)addr & 4, value);
    }
}

/* "Common configuration structure layout": the driver uses accesses of the field's width, 64-bit
 * fields as two halves. Others are ignored, except whole 64-bit writes, which are two halves. */
static void common_write(struct virtio_pci *p, uint64_t addr, unsigned size, uint64_t value)
{
    struct virtio *v = p->v;

    if (size == 8) {
        common_write(p, addr, 4, value & 0xffffffff);
        common_write(p, addr + 4, 4, value >> 32);
    } else if (addr == C_DEVICE_FEATURE_SELECT && size == 4) {
        v->device_feature_select = (uint32_t)value;
    } else if (addr == C_DRIVER_FEATURE_SELECT && size == 4) {
        v->driver_feature_select = (uint32_t)value;
    } else if (addr == C_DRIVER_FEATURE && size == 4) {
        virtio_write_features(v, v->driver_feature_select, (uint32_t)value);
    } else if (addr == C_CONFIG_VECTOR && size == 2) {
        v->config_vector = vector_or_none(p, value);
    } else if (addr == C_STATUS && size == 1) {
        virtio_write_status(v, (uint8_t)value);
    } else if (addr == C_QUEUE_SELECT && size == 2) {
        v->queue_select = (uint16_t)value;
    } else {
        queue_write(p, addr, size, value);
    }
}

static uint64_t isr_read(struct virtio_pci *p)
{
    uint8_t isr = p->v->isr;

    p->v->isr = 0;
    pci_intx(p->fn, false);
    return isr;
}

static uint64_t device_read(const struct virtio *v, uint64_t off, unsigned size)
{
    uint64_t value = 0;

    if (off < v->config_len) {
        unsigned left = v->config_len - (unsigned)off;
        memcpy(&value, v->config + off, size < left ? size : left);
    }
    return value;
}

static uint64_t bar_read(void *ctx, uint64_t addr, unsigned size)
{
    struct virtio_pci *p = ctx;

    if (addr < VIRTIO_BAR_ISR) {
        return common_read(p->v, addr, size);
    }
    if (addr < VIRTIO_BAR_DEVICE) {
        return addr == VIRTIO_BAR_ISR ? isr_read(p) : 0;
    }
    return addr < VIRTIO_BAR_NOTIFY ? device_read(p->v, addr - VIRTIO_BAR_DEVICE, size) : 0;
}

static void bar_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct virtio_pci *p = ctx;

    if (addr < VIRTIO_BAR_ISR) {
        common_write(p, addr, size, value);
    } else if (addr >= VIRTIO_BAR_NOTIFY) {
        uint64_t q = (addr - VIRTIO_BAR_NOTIFY) / VIRTIO_NOTIFY_MULTIPLIER;
        virtio_notify(p->v, (unsigned)q);
    }
}

static const struct bus_range_ops bar_ops = {bar_read, bar_write};

/* --- interrupts --------------------------------------------------------------------------- */

static void interrupt(struct virtio_pci *p, uint16_t vector, uint8_t isr)
{
    if (pci_msix_enabled(p->fn)) {
        pci_msix_send(p->fn, vector); /* VIRTIO_NO_VECTOR is out of range: nothing */
    } else {
        p->v->isr |= isr;
        pci_intx(p->fn, true);
    }
}

static void queue_interrupt(void *ctx, uint16_t vector)
{
    interrupt(ctx, vector, ISR_QUEUE);
}

static void config_interrupt(void *ctx, uint16_t vector)
{
    interrupt(ctx, vector, ISR_CONFIG);
}

static void quiet(void *ctx)
{
    struct virtio_pci *p = ctx;
    pci_intx(p->fn, false);
}

/* --- the window in configuration space ("PCI configuration access capability") ------------- */

/* The access that the capability describes; false: none that a driver may ask for. */
static bool window(const struct virtio_pci *p, unsigned *bar, uint64_t *off, unsigned *size)
{
    const uint8_t *cap = p->fn->config + p->cfg_cap;
    uint32_t at, len;

    memcpy(&at, cap + CAP_OFFSET, sizeof at);
    memcpy(&len, cap + CAP_LENGTH, sizeof len);
    *bar = cap[CAP_BAR];
    *off = at;
    *size = len;
    return *bar == p->bar && (len == 1 || len == 2 || len == 4) && at % len == 0;
}

static bool in_window(const struct virtio_pci *p, unsigned off, unsigned size)
{
    return off < p->cfg_cap + CAP_DATA + 4 && off + size > p->cfg_cap + CAP_DATA;
}

static void config_read(void *ctx, unsigned off, unsigned size)
{
    struct virtio_pci *p = ctx;
    unsigned bar, len;
    uint64_t at, value;

    if (in_window(p, off, size) && window(p, &bar, &at, &len) &&
        pci_bar_access(p->fn, bar, at, len, false, &value)) {
        memcpy(p->fn->config + p->cfg_cap + CAP_DATA, &value, 4);
    }
}

static void config_written(void *ctx, unsigned off, unsigned size)
{
    struct virtio_pci *p = ctx;
    unsigned bar, len;
    uint64_t at;
    uint64_t value = 0;

    if (in_window(p, off, size) && window(p, &bar, &at, &len)) {
        memcpy(&value, p->fn->config + p->cfg_cap + CAP_DATA, len);
        (void)pci_bar_access(p->fn, bar, at, len, true, &value);
    }
}

/* --- building ----------------------------------------------------------------------------- */

static unsigned add_cap(struct virtio_pci *p, uint8_t type, uint32_t off, uint32_t len,
                        unsigned cap_len)
{
    uint8_t cap[CAP_LEN + 4] = {0};

    cap[2] = (uint8_t)cap_len;
    cap[3] = type;
    cap[CAP_BAR] = type == CAP_PCI_CFG ? 0 : (uint8_t)p->bar;
    put(cap, CAP_OFFSET, off, 4);
    put(cap, CAP_LENGTH, len, 4);
    if (type == CAP_NOTIFY) {
        put(cap, CAP_DATA, VIRTIO_NOTIFY_MULTIPLIER, 4);
    }
    return pci_add_capability(p->fn, PCI_CAP_VENDOR, cap, cap_len);
}

void virtio_pci_attach(struct virtio_pci *p, struct virtio *v, struct pci_function *fn,
                       unsigned bar)
{
    p->v = v;
    p->fn = fn;
    p->bar = bar;
    pci_add_bar(fn, bar, BUS_MMIO, VIRTIO_BAR_SIZE, &bar_ops, p);
    (void)add_cap(p, CAP_COMMON, VIRTIO_BAR_COMMON, C_END, CAP_LEN);
    (void)add_cap(p, CAP_ISR, VIRTIO_BAR_ISR, 1, CAP_LEN);
    if (v->config_len != 0) {
        (void)add_cap(p, CAP_DEVICE, VIRTIO_BAR_DEVICE, v->config_len, CAP_LEN);
    }
    (void)add_cap(p, CAP_NOTIFY, VIRTIO_BAR_NOTIFY, v->nqueues * VIRTIO_NOTIFY_MULTIPLIER,
                  CAP_LEN + 4);
    p->cfg_cap = add_cap(p, CAP_PCI_CFG, 0, 0, CAP_LEN + 4);
    fn->wmask[p->cfg_cap + CAP_BAR] = 0xff;
    memset(fn->wmask + p->cfg_cap + CAP_OFFSET, 0xff, 12);
    PLX_CHECK(fn->config_read == NULL && fn->config_written == NULL);
    fn->config_read = config_read;
    fn->config_written = config_written;
    fn->config_ctx = p;
    v->transport = (struct virtio_transport){queue_interrupt, config_interrupt, quiet, p};
}

int virtio_pci_create(struct virtio_pci *p, struct virtio *v, unsigned slot, uint32_t class_code,
                      struct plx_err *err)
{
    /* Revision 1 or higher says "not transitional" ("PCI Device Discovery"). */
    struct pci_ids ids = {.vendor = VIRTIO_PCI_VENDOR,
                          .device = (uint16_t)(VIRTIO_PCI_DEVICE_BASE + v->type),
                          .subsys_vendor = VIRTIO_PCI_VENDOR,
                          .subsys = (uint16_t)(VIRTIO_PCI_DEVICE_BASE + v->type),
                          .class_code = class_code,
                          .revision = 1};
    struct pci_function *fn;
    int rc = pci_add_function(v->m->pci, slot, v->name, &ids, &fn, err);

    if (rc != 0) {
        return rc;
    }
    pci_set_intx_pin(fn);
    pci_add_msix(fn, 1, v->nqueues + 1);
    virtio_pci_attach(p, v, fn, 0);
    return 0;
}
