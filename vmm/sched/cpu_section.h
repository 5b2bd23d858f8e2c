/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/cpu_section.h - the section "cpuN": struct cpu, field by field, and nothing else.
 *
 * Ownership: the VM. Threading: between slices. Determinism: the one place that says which
 * registers are state (R1); a new field of struct cpu belongs in the table of cpu_section.c. */
#ifndef VMM_SCHED_CPU_SECTION_H
#define VMM_SCHED_CPU_SECTION_H

#include "vmm/device.h"
#include "vmm/engine/engine.h"

struct cpu_section {
    const struct engine_ops *engine;
    struct vcpu *v;
    unsigned id;
};

/* The upper halves of the YMM registers are state only where there are any. */
enum { CPU_SECTION_VERSION = 1, CPU_SECTION_VERSION_AVX = 2 };

static inline uint32_t cpu_section_version(enum cpu_model model)
{
    return model == CPU_POLLUX_V2 ? CPU_SECTION_VERSION : CPU_SECTION_VERSION_AVX;
}

/* reset puts the vCPU to its power-up state; load validates every value before it changes one. */
extern const struct device_ops cpu_section_ops;

/* The fields, for who touches each by itself: element i of @count at offset + i * stride. */
struct cpu_field {
    const char *name;
    uint16_t offset; /* in struct cpu */
    uint8_t width;   /* 1, 2, 4 or 8 bytes */
    uint8_t count;
    uint16_t stride;
};
extern const struct cpu_field cpu_fields[];
unsigned cpu_nfields(enum cpu_model model); /* how many of them it has */
/* One field as the section has it. */
void cpu_field_save(const struct cpu_field *f, const struct cpu *c, struct wbuf *out);

#endif
