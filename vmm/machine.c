/* SPDX-License-Identifier: Apache-2.0
 * vmm/machine.c - see machine.h. Determinism: section "machine" holds the generator and whether
 * and why the VM has stopped. */
#include "vmm/machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "vmm/tunables.h"

enum { MACHINE_VERSION = 1 };

static uint64_t clock_at_zero(void *ctx)
{
    (void)ctx;
    return 0;
}

static void state_reset(void *dev)
{
    struct machine *m = dev;

    prng_seed(&m->rng, 0);
    m->stopped = false;
    m->stop_event = POWER_OFF;
    m->stop_code = 0;
}

static void state_save(const void *dev, struct wbuf *out)
{
    const struct machine *m = dev;

    for (unsigned i = 0; i < 4; i++) {
        wbuf_u64(out, m->rng.s[i]);
    }
    wbuf_u8(out, m->stopped);
    wbuf_u8(out, (uint8_t)m->stop_event);
    wbuf_u64(out, m->stop_code);
}

static int state_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    struct machine *m = dev;
    uint8_t stopped, event;

    if (version != MACHINE_VERSION) {
        return plx_fail(err, PLX_EVERSION, "machine: section version %" PRIu32, version);
    }
    for (unsigned i = 0; i < 4; i++) {
        m->rng.s[i] = rbuf_u64(in);
    }
    stopped = rbuf_u8(in);
    event = rbuf_u8(in);
    m->stop_code = rbuf_u64(in);
    if (in->failed) {
        return plx_fail(err, PLX_ETRUNCATED, "machine: section too short");
    }
    if ((m->rng.s[0] | m->rng.s[1] | m->rng.s[2] | m->rng.s[3]) == 0) {
        return plx_fail(err, PLX_ECORRUPT, "machine: the generator is all zero");
    }
    if (stopped > 1 || event > POWER_TRIPLE_FAULT) {
        return plx_fail(err, PLX_ECORRUPT, "machine: stopped %u, power event %u", stopped, event);
    }
    m->stopped = stopped != 0;
    m->stop_event = (enum power_event)event;
    return 0;
}

static const struct device_ops state_ops = {state_reset, state_save, state_load};

static int check_config(const struct machine_config *cfg, struct plx_err *err)
{
    if (cfg->vcpus == 0 || cfg->vcpus > VCPUS_MAX) {
        return plx_fail(err, PLX_EINVAL, "%u vCPUs: use 1 to %d", cfg->vcpus, VCPUS_MAX);
    }
    if (cfg->ndisks > DISKS_MAX || cfg->nnics > NICS_MAX) {
        return plx_fail(err, PLX_EINVAL, "%u disks and %u NICs: at most %d and %d", cfg->ndisks,
                        cfg->nnics, DISKS_MAX, NICS_MAX);
    }
    for (unsigned i = 0; i < cfg->ndisks; i++) {
        /* Byte offsets must fit a signed 64-bit file offset. */
        if (cfg->disks[i].sectors == 0 || cfg->disks[i].sectors > INT64_MAX / 512) {
            return plx_fail(err, PLX_EINVAL, "disk %u: %" PRIu64 " sectors", i,
                            cfg->disks[i].sectors);
        }
    }
    return 0;
}

int machine_init(struct machine *m, const struct machine_config *cfg,
                 const struct machine_host *host, struct plx_err *err)
{
    int rc;

    *m = (struct machine){.cfg = *cfg, .host = *host, .now = clock_at_zero};
    vtimer_queue_init(&m->timers);
    rc = check_config(cfg, err);
    if (rc != 0) {
        return rc;
    }
    rc = ram_create(cfg->memory, &m->ram, err);
    if (rc != 0) {
        return rc;
    }
    rc = bus_create(&m->bus);
    if (rc != 0) {
        return plx_fail(err, rc, "out of memory for the bus");
    }
    machine_add_device(m, "machine", MACHINE_VERSION, &state_ops, m);
    state_reset(m);
    return 0;
}

void machine_fini(struct machine *m)
{
    bus_destroy(m->bus);
    ram_destroy(m->ram);
    m->bus = NULL;
    m->ram = NULL;
}

void machine_reset(struct machine *m)
{
    for (unsigned i = 0; i < m->ndevices; i++) {
        m->devices[i].ops->reset(m->devices[i].dev);
    }
}

void machine_add_device(struct machine *m, const char *name, uint32_t version,
                        const struct device_ops *ops, void *dev)
{
    struct device *d;

    PLX_CHECK(m->ndevices < PLX_COUNT(m->devices));
    for (unsigned i = 0; i < m->ndevices; i++) {
        PLX_CHECK(strcmp(m->devices[i].name, name) != 0);
    }
    d = &m->devices[m->ndevices++];
    *d = (struct device){.version = version, .ops = ops, .dev = dev};
    PLX_CHECK(snprintf(d->name, sizeof d->name, "%s", name) < (int)sizeof d->name);
}

/* The port an input goes to; NULL: the kind has none, or there is no such port. */
static const struct input_port *port_of(const struct machine *m, const struct input *in)
{
    switch (in->kind) {
    case INPUT_NET_RX:
        return in->dev < NICS_MAX ? &m->nic[in->dev] : NULL;
    case INPUT_CONSOLE_RX:
        return in->dev < CONSOLE_PORTS ? &m->console[in->dev] : NULL;
    case INPUT_DISK_DONE:
        return in->dev < DISKS_MAX ? &m->disk[in->dev] : NULL;
    case INPUT_WALLCLOCK:
        return &m->wallclock;
    case INPUT_POWER_BUTTON:
        return &m->power_button;
    default:
        return NULL;
    }
}

int machine_input(struct machine *m, const struct input *in, struct plx_err *err)
{
    const struct input_port *port;

    if (in->kind == INPUT_ENTROPY) {
        prng_seed_bytes(&m->rng, in->data, in->len);
        return m->entropy.take == NULL ? 0 : m->entropy.take(m->entropy.ctx, in, err);
    }
    port = port_of(m, in);
    if (port == NULL || port->take == NULL) {
        return plx_fail(err, PLX_ECORRUPT, "the machine has no device %u for inputs of kind %u",
                        in->dev, in->kind);
    }
    return port->take(port->ctx, in, err);
}

void machine_stop(struct machine *m, enum power_event event, uint64_t code)
{
    struct output o = {.kind = OUTPUT_POWER, .op = (uint8_t)event, .arg = code};

    if (m->stopped) {
        return;
    }
    m->stopped = true;
    m->stop_event = event;
    m->stop_code = code;
    output_add(m->out, &o, NULL);
    if (m->on_stop != NULL) {
        m->on_stop(m->on_stop_ctx);
    }
}

void machine_console_out(struct machine *m, unsigned port, uint64_t pos, const void *data,
                         uint32_t len)
{
    struct output o = {.kind = OUTPUT_CONSOLE, .dev = (uint16_t)port, .len = len, .pos = pos};

    m->console_out += len;
    output_add(m->out, &o, data);
}

bool machine_console_room(const struct machine *m, uint64_t len)
{
    return m->console_out <= CONSOLE_OUT_MAX && len <= CONSOLE_OUT_MAX - m->console_out;
}

bool machine_net_room(const struct machine *m, uint64_t len)
{
    return len <= NET_OUT_MAX && m->net_out + len + OUTPUT_COST <= NET_OUT_MAX;
}

void machine_net_tx(struct machine *m, unsigned nic, const void *frame, uint32_t len)
{
    struct output o = {.kind = OUTPUT_NET_TX, .dev = (uint16_t)nic, .len = len};

    if (!machine_net_room(m, len)) {
        return;
    }
    m->net_out += len + OUTPUT_COST;
    output_add(m->out, &o, frame);
}
