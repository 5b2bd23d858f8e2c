/* SPDX-License-Identifier: Apache-2.0
 * base/clock.h - the one place that reads the host's clocks and its randomness. Never called from
 * vmm/ below the backends and the pacer's caller: guest time is virtual (ARCHITECTURE.md, R5). */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC */
uint64_t clock_wall_ns(void); /* CLOCK_REALTIME, since 1970 */
uint64_t clock_thread_cpu_ns(void);
void clock_sleep_ns(uint64_t ns);
void host_random(void *out, size_t len); /* getrandom(2); never fails */

#endif
