/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/model.c - the names of the CPU models (cpu.h). */
#include <string.h>

#include "vmm/cpu/cpu.h"

static const char *const model_names[CPU_MODELS] = {"pollux-v2", "pollux-v3"};

const char *cpu_model_name(enum cpu_model model)
{
    return model_names[model];
}

bool cpu_model_find(const char *name, enum cpu_model *out)
{
    for (unsigned i = 0; i < CPU_MODELS; i++) {
        if (strcmp(name, model_names[i]) == 0) {
            *out = (enum cpu_model)i;
            return true;
        }
    }
    return false;
}
