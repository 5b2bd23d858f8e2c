/* SPDX-License-Identifier: Apache-2.0
 * base/clock.c - see clock.h. */
#include "base/clock.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "base/check.h"

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;

    PLX_CHECK(clock_gettime(id, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t clock_thread_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void clock_sleep_ns(uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000U),
                          .tv_nsec = (long)(ns % 1000000000U)};

    while (nanosleep(&ts, &ts) != 0 && errno == EINTR) {
    }
}

void host_random(void *out, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = getrandom((uint8_t *)out + done, len - done, 0);
        PLX_CHECK(n > 0 || errno == EINTR);
        done += n > 0 ? (size_t)n : 0;
    }
}
