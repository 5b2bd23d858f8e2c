/* SPDX-License-Identifier: Apache-2.0
 * base/chaos.h - delays at random, wherever something is handed on, to show that no result depends
 * on when things happen.
 *
 * Off unless chaos_start is called; then each point where the host's time enters draws from one
 * seeded sequence of its own. A delay never carries information: whatever happens differently
 * afterwards happened in another order, as it may on any host.
 * Threading: chaos_start before there are threads; chaos_delay anywhere, also under a lock. */
#ifndef BASE_CHAOS_H
#define BASE_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

/* Name, one in how many times, at most how many microseconds. Sums stay well below the silence
 * after which a peer counts as lost. */
/* clang-format off */
#define CHAOS_POINTS(X)                                                                  \
    X(GATHER, 8, 2000)      /* before what happened on the host is gathered */           \
    X(SEALED, 16, 1000)     /* between shipping a record and running it */               \
    X(RAN, 8, 2000)         /* before the outputs of a slice are handed on */            \
    X(IO, 16, 2000)         /* when the I/O thread wakes */                              \
    X(SEND, 32, 500)        /* before a message to the peer is queued */                 \
    X(ACK, 16, 1000)        /* likewise an acknowledgement */                            \
    X(RECEIVE, 32, 500)     /* before a message from the peer is looked at */            \
    X(RELEASE, 32, 500)     /* before a frame or console bytes leave */                  \
    X(DISK_START, 4, 5000)  /* before a disk request is carried out */                   \
    X(DISK_DONE, 4, 5000)   /* before its completion is seen */                          \
    X(BARRIER, 8, 50)       /* before and after a thread's share of a parallel part */   \
    X(OWNER, 16, 50)        /* when a page moves from vCPUs to others */
/* clang-format on */

enum chaos_point {
#define X(name, one_in, max_us) CHAOS_##name,
    CHAOS_POINTS(X)
#undef X
        CHAOS_POINT_END
};

extern bool chaos_on; /* written by chaos_start only */

void chaos_start(uint64_t seed); /* 0: nothing */
void chaos_sleep(enum chaos_point point);

/* What a VM does at its slice boundaries (vmm/sched/chaos.c): only counted here, whether delays are
 * on or not. */
enum chaos_deed { CHAOS_DROPPED, CHAOS_RELOADED, CHAOS_DEED_END };
void chaos_did(enum chaos_deed deed);

static inline void chaos_delay(enum chaos_point point)
{
    if (__builtin_expect(chaos_on, false)) {
        chaos_sleep(point);
    }
}

enum { CHAOS_SUMMARY = 680 };
/* One line: how often everything was dropped, and the state reloaded; of each point how often it
 * slept and how often it was passed. Shows that chaos reached what it is for. */
const char *chaos_summary(char out[CHAOS_SUMMARY]);

#endif
