/* SPDX-License-Identifier: Apache-2.0
 * ops/runner.h - drives one VM on this host: inputs into records, records into slices, outputs out.
 *
 * This is where the nondeterminism enters: the host's clock through the pacer, its randomness and
 * its devices through inputs. What enters is in the record before the slice runs.
 * Ownership: everything is borrowed. Threading: the calling thread is the VM's. */
#ifndef OPS_RUNNER_H
#define OPS_RUNNER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "replica/recording.h"
#include "vmm/dev/backend/hostio.h"
#include "vmm/sched/vm.h"

struct runner_config {
    struct vm *vm; /* ready for its first record */
    struct hostio *io;
    struct recording *recording; /* begun; NULL: nothing is recorded */
    uint64_t digest_every;       /* slices between digests; 0: none */
    bool print_digests;          /* on stderr, "digest SLICE HEX" */
    const char *save_path;       /* NULL: do not save */
    const char *save_mark;       /* save after the slice whose console output completes this ... */
                                 /* (without save_path: the run ends there) */
    uint64_t save_slice;         /* ... or after this one, if save_mark is NULL */
    uint64_t timeout_ns;         /* of the host's time; 0: none */
    unsigned console_input;      /* port whose typed bytes the monitor takes */
    const volatile sig_atomic_t *interrupted; /* not 0: quit; may be NULL */
};

enum runner_end { RUNNER_STOPPED /* by the guest */, RUNNER_QUIT, RUNNER_SAVED, RUNNER_TIMEOUT };

struct runner_result {
    enum runner_end end;
    enum power_event event; /* RUNNER_STOPPED */
    uint64_t code;
};

/* Runs until one of enum runner_end. Errors: of a host disk or console, of the recording, of
 * saving; the VM can then not be used any more. */
int runner_run(const struct runner_config *cfg, struct runner_result *out, struct plx_err *err);

/* One line on the state of a VM: slice, time, instructions, where vCPU 0 is. */
void runner_describe(struct vm *vm, char *out, size_t cap);
/* Counters of rounds, then a line for each vCPU. */
void runner_print_counters(struct vm *vm, FILE *to);

#endif
