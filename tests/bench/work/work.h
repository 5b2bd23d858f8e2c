/* SPDX-License-Identifier: Apache-2.0
 * tests/bench/work/work.h - what the files of the program `work` share. */
#ifndef WORK_H
#define WORK_H

#include <stdint.h>

enum { THREADS_MAX = 16 };

/* One workload. @run does @work_count units in all, divided among @work_threads threads if it says
 * that it divides; @prepare, outside of the time, makes what @run needs. */
struct work {
    const char *name;
    void (*prepare)(void); /* NULL: nothing to do */
    void (*run)(void);
    uint64_t count; /* units, if none are asked for */
    const char *unit;
};

extern uint64_t work_count;
extern unsigned work_threads;
extern volatile uint64_t work_sink; /* results go here, so that no compiler leaves the work out */

/* Each ends with a NULL name. */
extern const struct work works_os[];  /* work.c: what a kernel does */
extern const struct work works_cpu[]; /* work_cpu.c: what a processor does */

void work_die(const char *what);
/* Runs @fn(thread number) on all threads and waits. */
void work_on_all(void *(*fn)(void *));

#endif
