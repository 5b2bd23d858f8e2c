/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/engine.c - the engines there are, by name. Threading: none. Determinism: constant. */
#include <stddef.h>
#include <string.h>

#include "vmm/engine/engine.h"

static const struct engine_ops *const engines[] = {&engine_jit, &engine_interp, &engine_switch};

const struct engine_ops *engine_find(const char *name)
{
    if (strcmp(name, "auto") == 0) {
        return engines[0];
    }
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        if (strcmp(name, engines[i]->name) == 0) {
            return engines[i];
        }
    }
    return NULL;
}
