/* SPDX-License-Identifier: Apache-2.0
 * tests/guest/smp_locks.c - locks of every kind always make progress and exclude: test-and-set
 * without PAUSE, trylock with backoff, tickets, Dekker's with retry. A counter incremented without
 * any lock loses some, and the same ones whenever the log is run.
 *
 * Hunts: processors that stay in phase for ever, a read-modify-write that is not atomic, an
 * outcome that depends on the host: what was lost stands in memory, for the digests (smp.sh). */
#include "smp.h"

enum { TURNS = 400, RACES = 8 * TURNS };

static uint32_t lock, next_ticket, serving;
static volatile uint64_t counter;
static uint64_t unlocked[2]; /* by INC: one plain, one with LOCK */

/* Not atomic on purpose. */
static void add_one(volatile uint64_t *n)
{
    uint64_t v = *n;

    spin((unsigned)(v % 13));
    *n = v + 1;
}

static void critical(void)
{
    add_one(&counter);
}

static void test_and_set(unsigned cpu)
{
    (void)cpu;
    for (unsigned i = 0; i < TURNS; i++) {
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST) != 0) {
        }
        critical();
        STORE(&lock, 0);
    }
}

static void trylock_backoff(unsigned cpu)
{
    for (unsigned i = 0; i < TURNS; i++) {
        unsigned backoff = 1 + cpu % 2;
        uint32_t zero = 0;

        while (!__atomic_compare_exchange_n(&lock, &zero, 1, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST)) {
            zero = 0;
            spin(backoff);
            backoff = backoff < 512 ? backoff * 2 : backoff;
        }
        critical();
        STORE(&lock, 0);
    }
}

static void tickets(unsigned cpu)
{
    (void)cpu;
    for (unsigned i = 0; i < TURNS; i++) {
        uint32_t mine = __atomic_fetch_add(&next_ticket, 1, __ATOMIC_SEQ_CST);

        while (LOAD(&serving) != mine) {
            pause_cpu();
        }
        critical();
        STORE(&serving, mine + 1);
    }
}

/* Processors 0 and 1, 2 and 3, ... have a lock each; one without a partner has nothing to do. */
static struct pair {
    uint32_t wants[2], turn;
    volatile uint64_t counter;
} pairs[SMP_MAX / 2];

static void dekker(unsigned cpu)
{
    struct pair *p = &pairs[cpu / 2];
    unsigned me = cpu & 1, other = 1 - me;

    if ((cpu ^ 1) >= smp_cpus) {
        return;
    }
    for (unsigned i = 0; i < TURNS; i++) {
        __atomic_store_n(&p->wants[me], 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&p->wants[other], __ATOMIC_SEQ_CST) != 0) {
            if (LOAD(&p->turn) != me) {
                STORE(&p->wants[me], 0);
                while (LOAD(&p->turn) != me) {
                }
                __atomic_store_n(&p->wants[me], 1, __ATOMIC_SEQ_CST);
            }
        }
        add_one(&p->counter);
        STORE(&p->turn, other);
        STORE(&p->wants[me], 0);
    }
    STORE(&p->turn, other); /* who is done stands in nobody's way */
}

/* Between its load and its store the others have time to do the same. */
static void no_lock(unsigned cpu)
{
    for (unsigned i = 0; i < RACES; i++) {
        __asm__ volatile("incq %0" : "+m"(unlocked[0]));
        __asm__ volatile("lock incq %0" : "+m"(unlocked[1]));
        uint64_t v = counter;

        spin(40 + (i + cpu) % 13);
        counter = v + 1;
    }
}

static void expect(const char *name, void (*fn)(unsigned))
{
    counter = 0;
    smp_run(fn);
    check_eq(name, counter, (uint64_t)smp_cpus * TURNS);
}

int guest_main(void)
{
    if (!smp_start()) {
        return checks_done("smp_locks");
    }
    expect("test-and-set without PAUSE", test_and_set);
    expect("trylock with backoff", trylock_backoff);
    expect("tickets", tickets);
    smp_run(dekker);
    for (unsigned i = 0; i < smp_cpus / 2; i++) {
        check_eq("Dekker's, with retry", pairs[i].counter, 2 * TURNS);
    }
    counter = 0;
    smp_run(no_lock);
    check_eq("LOCK loses none", unlocked[1], (uint64_t)smp_cpus * RACES);
    check("load and store lose some", counter < (uint64_t)smp_cpus * RACES);
    put("without LOCK ");
    put_hex(unlocked[0]);
    put(", load and store ");
    put_hex(counter);
    put("\n");
    return checks_done("smp_locks");
}
