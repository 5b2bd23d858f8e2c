/* SPDX-License-Identifier: Apache-2.0
 * vmm/machine.h - what every device of one VM shares: bus, timers, interrupts, time, outputs.
 *
 * Built by vmm/pc.c, driven by vmm/sched/vm.c. Devices borrow it for their whole life; they touch
 * no host descriptor, no host clock and no thread. */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/prng.h"
#include "vmm/cpu/cpu.h"
#include "vmm/dev/bus.h"
#include "vmm/dev/irq.h"
#include "vmm/dev/timer.h"
#include "vmm/device.h"
#include "vmm/mmu/ram.h"
#include "vmm/sched/input.h"

enum { DISKS_MAX = 8, NICS_MAX = 4, VCPUS_MAX = 16 };
enum { CONSOLE_SERIAL0 = 0, CONSOLE_VIRTIO0 = 1, CONSOLE_SERIAL1 = 2, CONSOLE_PORTS };

struct disk_config {
    uint64_t sectors; /* of 512 bytes, > 0 */
    bool readonly;
};

struct nic_config {
    uint8_t mac[6];
};

/* What the guest's hardware is; part of the manifest, equal on all replicas. */
struct machine_config {
    uint64_t memory; /* bytes */
    unsigned vcpus;
    enum cpu_model cpu;
    unsigned ndisks, nnics;
    struct disk_config disks[DISKS_MAX];
    struct nic_config nics[NICS_MAX];
};

/* How the VM reaches data that no record carries. */
struct machine_host {
    /* Result of disk request @id, logged as done: fills @data (reads) and gives the local status.
     * May block until the local backend has finished (that wait is lag). A negative return is a
     * host error and stops the replica: the guest never sees it. */
    int (*disk_result)(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len,
                       uint8_t *status, struct plx_err *err);
    void *ctx;
};

/* Who takes an input, set by the device that owns the port. Negative returns (only of disks: what
 * disk_result returned) end the VM on this replica; whatever else an input holds has a defined
 * reaction. */
struct input_port {
    int (*take)(void *ctx, const struct input *in, struct plx_err *err); /* NULL: no such device */
    void *ctx;
};

struct pci_bus;
struct rom;

struct machine {
    struct machine_config cfg;
    struct machine_host host;
    struct ram *ram;
    struct bus *bus;
    struct vtimer_queue timers;
    struct irq_line gsi[24]; /* to PIC and IOAPIC; PCI INTA-D use GSI 16-19 */
    struct msi_sink msi;
    struct prng rng; /* R6; seeded by INPUT_ENTROPY; saved in the "machine" section */
    /* Virtual time as the running vCPU sees it, or the VM's clock between slices. */
    uint64_t (*now)(void *ctx);
    void *now_ctx;
    struct output_list *out; /* of the slice that runs; never NULL while devices run */
    uint64_t net_out,
        console_out; /* bytes in it (tunables.h bounds them); no state: 0 between slices */
    bool stopped;    /* an OUTPUT_POWER was emitted; nothing runs any more */
    enum power_event stop_event;
    uint64_t stop_code;
    struct pci_bus *pci; /* owned; vmm/dev/pci.h */
    struct rom *rom;     /* of the firmware; vmm/dev/rom.h. NULL: the board has no place for one */
    struct input_port nic[NICS_MAX], console[CONSOLE_PORTS], disk[DISKS_MAX];
    struct input_port wallclock, power_button;
    struct input_port entropy; /* optional: told after rng was seeded (vCPUs have generators too) */
    void (*on_stop)(void *ctx); /* from machine_stop: makes the running vCPU stop; may be NULL */
    void *on_stop_ctx;
    /* The devices in their fixed order: of reset, save, digest. Filled by machine_add_device. */
    struct device devices[64];
    unsigned ndevices;
};

static inline uint64_t machine_now(const struct machine *m)
{
    return m->now(m->now_ctx);
}

/* An empty machine: RAM, bus, timer queue, device "machine", a clock that stands at 0. Undone by
 * machine_fini, also after an error. Errors: PLX_EINVAL (counts), PLX_ERANGE (memory), PLX_ENOMEM.
 */
int machine_init(struct machine *m, const struct machine_config *cfg,
                 const struct machine_host *host, struct plx_err *err);
void machine_fini(struct machine *m);  /* the devices must be gone, m->pci is not touched */
void machine_reset(struct machine *m); /* every device, in order */
/* Append; PLX_CHECKs that the name is new and that there is room. */
void machine_add_device(struct machine *m, const char *name, uint32_t version,
                        const struct device_ops *ops, void *dev);
/* Apply one input: INPUT_ENTROPY here, others by their port. INPUT_JUMP is the scheduler's,
 * INPUT_TYPED_BY nobody's.
 * Errors: PLX_ECORRUPT (no such device: the record does not fit this machine), or the port's. */
int machine_input(struct machine *m, const struct input *in, struct plx_err *err);
/* End the VM: emits OUTPUT_POWER once and sets stopped; the engine stops after this instruction. */
void machine_stop(struct machine *m, enum power_event event, uint64_t code);
void machine_console_out(struct machine *m, unsigned port, uint64_t pos, const void *data,
                         uint32_t len);
/* May @len more bytes leave in this slice? A device that can emit much in one instruction asks
 * first, and drops what has no room: held outputs must fit the memory of both replicas. */
bool machine_console_room(const struct machine *m, uint64_t len);
bool machine_net_room(const struct machine *m, uint64_t len);
/* Drops the frame where machine_net_room says no. */
void machine_net_tx(struct machine *m, unsigned nic, const void *frame, uint32_t len);

#endif
