/* SPDX-License-Identifier: Apache-2.0
 * vmm/engine/jit_perf.c - names of translated code for perf (Linux, tools/perf/Documentation,
 * jit-interface.txt): a line with address, size and name for each piece. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/engine/engine.h"
#include "vmm/engine/jit.h"

static FILE *map; /* of the process, which is what perf knows; lines are written whole */

int jit_perf_map(struct plx_err *err)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/tmp/perf-%ld.map", (long)getpid());
    map = fopen(path, "wex");
    if (map == NULL) {
        return plx_fail(err, PLX_EIO, "%s: %s", path, strerror(errno));
    }
    (void)setvbuf(map, NULL, _IOLBF, 0);
    return 0;
}

void jit_perf_note(const struct jit_code *c, uint32_t from, const char *what, uint64_t rip)
{
    if (map != NULL) {
        (void)fprintf(map, "%" PRIxPTR " %" PRIx32 " %s_%" PRIx64 "\n", (uintptr_t)(c->rx + from),
                      c->at - from, what, rip);
    }
}
