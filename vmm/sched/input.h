/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/input.h - what enters a VM and what leaves it, as data.
 *
 * state', outputs = slice(state, record). Inputs stand in the record, in order, and are applied at
 * the start of the slice (R4). Outputs are collected during the slice; who runs the VM releases,
 * keeps or drops them. Disk requests are outputs whose answer is an input. Times are virtual ns
 * since power-on. Plain data; any thread. */
#ifndef VMM_SCHED_INPUT_H
#define VMM_SCHED_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"

enum input_kind {
    INPUT_ENTROPY = 1, /* data: seeds the guest's generators */
    INPUT_WALLCLOCK,   /* arg: ns since 1970 that belong to the slice's start time; sets the RTC */
    INPUT_NET_RX,      /* dev: NIC index; data: one Ethernet frame */
    INPUT_CONSOLE_RX,  /* dev: console port (CONSOLE_*); data: bytes typed */
    INPUT_DISK_DONE,   /* dev: disk index; arg: request id; status: 0 or a DISK_* status */
    INPUT_POWER_BUTTON,
    INPUT_JUMP,     /* the virtual clock jumps to the record's start time, however far (R5) */
    INPUT_TYPED_BY, /* whose bytes the CONSOLE_RX of this record are, for who runs the VM: nothing
                     * of it enters. data: id of a session; arg: position after its bytes */
    INPUT_KIND_END
};

struct input {
    uint8_t kind; /* enum input_kind */
    uint8_t status;
    uint16_t dev;
    uint64_t arg;
    const uint8_t *data; /* borrowed from whoever made the record */
    uint32_t len;
};

enum { INPUT_DATA_MAX = 1 << 20 };

/* One slice's opening (ARCHITECTURE.md, "The record"). */
struct record {
    uint64_t seq;      /* slice number, from 1, without gaps */
    uint64_t start_ns; /* virtual time at which it starts; not before the end of the last one */
    uint64_t span_ns;  /* virtual time it may use, > 0 */
    uint32_t rate;     /* virtual ns per unit of progress, in 1/65536 */
    uint32_t ninputs;
    const struct input *inputs;
};

/* Compact binary form, checked as a whole when read: this is what is logged and shipped. */
void record_encode(const struct record *r, struct wbuf *out);
/* Decodes one record; *inputs is allocated (plx_free it), their data point into @data.
 * Errors: PLX_ECORRUPT, PLX_ETRUNCATED, PLX_EVERSION, PLX_ENOMEM. */
int record_decode(const void *data, size_t len, struct record *r, struct input **inputs,
                  struct plx_err *err);

enum output_kind {
    OUTPUT_NET_TX = 1, /* dev: NIC; data: frame. External: withheld until committed. */
    OUTPUT_CONSOLE,    /* dev: port; pos: position of the first byte. External. */
    OUTPUT_DISK,       /* dev: disk; a request to execute locally, at once */
    OUTPUT_POWER,      /* arg: enum power_event, code. The VM has stopped. */
    OUTPUT_KIND_END
};

enum power_event {
    POWER_OFF,
    POWER_RESET,
    POWER_DEBUG_EXIT /* code: (v << 1) | 1 */,
    POWER_TRIPLE_FAULT
};

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_ZERO };
enum disk_status { DISK_OK, DISK_IOERR, DISK_UNSUPPORTED };

struct output {
    uint8_t kind;
    uint8_t op; /* OUTPUT_DISK: enum disk_op; OUTPUT_POWER: enum power_event */
    uint16_t dev;
    uint32_t len;     /* of data; for DISK_READ the bytes wanted, and data is absent */
    uint64_t pos;     /* OUTPUT_CONSOLE: position; OUTPUT_DISK: first 512-byte sector */
    uint64_t arg;     /* OUTPUT_DISK: request id, from 1, per disk; OUTPUT_POWER: exit code */
    uint64_t sectors; /* OUTPUT_DISK: length of discard and zero */
    size_t data_off;  /* into the list's bytes; length is len, except for DISK_READ (none) */
};

/* Outputs of one slice, in order. Owned by the caller of vm_slice, reused by clear. */
struct output_list {
    struct output *items;
    size_t n, cap;
    struct wbuf bytes;
};

void output_list_init(struct output_list *l);
void output_list_free(struct output_list *l);
void output_list_clear(struct output_list *l);
/* Appends a copy; console bytes that follow one another at their port become one output. Running
 * out of memory here is a PLX_CHECK: an output must not be lost. */
void output_add(struct output_list *l, const struct output *o, const void *data);
static inline const uint8_t *output_data(const struct output_list *l, const struct output *o)
{
    return l->bytes.data + o->data_off;
}

#endif
