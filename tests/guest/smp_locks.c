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
static uint32_t wants[2], turn;
static volatile uint64_t counter;
static uint64_t unlocked[2]; /* by INC: one plain, one with LOCK */

/* Not atomic on purpose. */
static void critical(void)
{
    uint64_t v = counter;

    spin((unsigned)(v % 13));
    counter = v + 1;
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

static void dekker(unsigned cpu)
{
    for (unsigned i = 0; cpu < 2 && i < TURNS; i++) {
        __atomic_store_n(&wants[cpu], 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&wants[1 - cpu], __ATOMIC_SEQ_CST) != 0) {
            if (LOAD(&turn) != cpu) {
                STORE(&wants[cpu], 0);
                while (LOAD(&turn) != cpu) {
                }
                __atomic_store_n(&wants[cpu], 1, __ATOMIC_SEQ_CST);
            }
        }
        critical();
        STORE(&turn, 1 - cpu);
        STORE(&wants[cpu], 0);
    }
    if (cpu < 2) { /* who is done stands in nobody's way */
        STORE(&turn, 1 - cpu);
    }
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

static void expect(const char *name, void (*fn)(unsigned), uint64_t processors)
{
    counter = 0;
    smp_run(fn);
    check_eq(name, counter, processors * TURNS);
}

int guest_main(void)
{
    if (!smp_start()) {
        return checks_done("smp_locks");
    }
    expect("test-and-set without PAUSE", test_and_set, smp_cpus);
    expect("trylock with backoff", trylock_backoff, smp_cpus);
    expect("tickets", tickets, smp_cpus);
    expect("Dekker's, with retry", dekker, 2);
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
