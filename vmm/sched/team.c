/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/team.c - see team.h.
 *
 * One run: the caller writes the task, sets `left` to the number of other threads and counts
 * `round` up (release); each of them sees that (acquire), runs its share and counts `left` down
 * (release); the caller waits for 0 (acquire). Whoever waits too long sleeps on the very word it
 * waits for, having said so in `sleepers`; who changes a word looks at `sleepers` afterwards. Both
 * in sequentially consistent order: either the change is seen by the futex, or the sleeper by the
 * one who changes. */
#include "vmm/sched/team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/chaos.h"
#include "base/check.h"

/* How long to spin, in ticks of the host's TSC: from some 20 us, many times what a wake-up costs on
 * bare metal, to some 200 us, what it costs at worst under a hypervisor whose processor has to be
 * woken too. Each thread goes from one to the other by what it meets. */
#define SPIN_TICKS_MIN UINT64_C(50000)
#define SPIN_TICKS_MAX UINT64_C(500000)

struct member {
    struct team *team;
    unsigned index;
    pthread_t thread;
    uint64_t spin; /* ticks before it sleeps */
};

struct team {
    unsigned threads;
    bool spin, delays;
    struct member members[TEAM_THREADS_MAX];
    unsigned started; /* threads created, the caller's not counted */
    bool quit;
    /* of the run */
    unsigned n;
    void (*task)(void *ctx, unsigned i);
    void *ctx;
    struct team_counters counters;
    atomic_uint inside, met; /* threads inside the run; 1: two were at the same time */
    atomic_ullong slept;
    /* What threads spin on, away from what others write meanwhile. */
    char pad0[64];
    atomic_uint round;
    char pad1[64];
    atomic_uint left;
    char pad2[64];
    atomic_uint sleepers;
};

static void futex_wait(atomic_uint *word, unsigned seen)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static bool spin_while(atomic_uint *word, unsigned value, uint64_t from, uint64_t ticks)
{
    do {
        for (unsigned i = 0; i < 8; i++) {
            if (atomic_load(word) != value) {
                return true;
            }
            __builtin_ia32_pause();
        }
    } while (__builtin_ia32_rdtsc() - from < ticks);
    return false;
}

/* @m slept, and what it waited for came @took ticks after it began to wait: within reach of a
 * longer spin, or so late that even this one was for nothing? */
static void learn(struct member *m, uint64_t took)
{
    m->spin = took <= SPIN_TICKS_MAX ? m->spin * 2 : m->spin / 2;
    m->spin = m->spin < SPIN_TICKS_MIN   ? SPIN_TICKS_MIN
              : m->spin > SPIN_TICKS_MAX ? SPIN_TICKS_MAX
                                         : m->spin;
}

/* Until *word is no longer @value. */
static void wait_while(struct member *m, atomic_uint *word, unsigned value)
{
    struct team *t = m->team;
    uint64_t from = __builtin_ia32_rdtsc();

    if (atomic_load(word) != value || (t->spin && spin_while(word, value, from, m->spin))) {
        return;
    }
    atomic_fetch_add(&t->slept, 1);
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(word) == value) {
        futex_wait(word, value);
    }
    atomic_fetch_sub(&t->sleepers, 1);
    learn(m, __builtin_ia32_rdtsc() - from);
}

static void wake(struct team *t, atomic_uint *word)
{
    if (atomic_load(&t->sleepers) != 0) {
        futex_wake(word);
    }
}

static void delay(const struct team *t)
{
    if (t->delays) {
        chaos_sleep(CHAOS_BARRIER);
    }
}

/* Tasks k, k + threads, ... of thread k. */
static void share(struct team *t, const struct member *m)
{
    delay(t);
    if (atomic_fetch_add(&t->inside, 1) != 0) {
        atomic_store(&t->met, 1);
    }
    for (unsigned i = m->index; i < t->n; i += t->threads) {
        t->task(t->ctx, i);
    }
    atomic_fetch_sub(&t->inside, 1);
    delay(t);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct team *t = m->team;

    for (unsigned seen = 0;; seen++) {
        wait_while(m, &t->round, seen);
        if (t->quit) {
            return NULL;
        }
        share(t, m);
        if (atomic_fetch_sub(&t->left, 1) == 1) {
            wake(t, &t->left);
        }
    }
}

void team_run(struct team *t, unsigned n, void (*task)(void *ctx, unsigned i), void *ctx)
{
    unsigned left;

    t->n = n;
    t->task = task;
    t->ctx = ctx;
    t->counters.runs++;
    atomic_store(&t->met, 0);
    atomic_store(&t->left, t->started);
    if (t->started != 0) {
        atomic_fetch_add(&t->round, 1);
        wake(t, &t->round);
    }
    share(t, &t->members[0]);
    while ((left = atomic_load(&t->left)) != 0) {
        wait_while(&t->members[0], &t->left, left);
    }
    t->counters.together += atomic_load(&t->met);
}

void team_counters(struct team *t, struct team_counters *out)
{
    *out = t->counters;
    out->slept = atomic_load(&t->slept);
}

unsigned team_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < TEAM_THREADS_MAX ? (unsigned)n : TEAM_THREADS_MAX;
}

/* No signal is theirs: the process's handlers belong to the threads that wait for descriptors. */
static int start_members(struct team *t, struct plx_err *err)
{
    sigset_t all, was;
    int rc = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &was);
    while (rc == 0 && t->started + 1 < t->threads) {
        struct member *m = &t->members[t->started + 1];
        char name[16];
        rc = pthread_create(&m->thread, NULL, member_main, m);
        if (rc == 0) {
            t->started++;
            (void)snprintf(name, sizeof name, "vcpus-%u", m->index);
            (void)pthread_setname_np(m->thread, name);
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &was, NULL);
    if (rc != 0) {
        errno = rc;
        return plx_fail_errno(err, "cannot create a thread for vCPUs");
    }
    return 0;
}

int team_create(const struct team_config *cfg, struct team **out, struct plx_err *err)
{
    struct team *t = NULL;
    int rc;

    *out = NULL;
    PLX_CHECK(cfg->threads >= 1 && cfg->threads <= TEAM_THREADS_MAX);
    t = plx_calloc(1, sizeof *t);
    if (t == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory for threads of vCPUs");
    }
    t->threads = cfg->threads;
    t->delays = cfg->delays;
    t->spin = !t->delays && team_cores() >= cfg->threads;
    for (unsigned i = 0; i < t->threads; i++) {
        struct member *m = &t->members[i];
        m->team = t;
        m->index = i;
        m->spin = SPIN_TICKS_MIN;
    }
    rc = start_members(t, err);
    if (rc != 0) {
        team_destroy(t);
        return rc;
    }
    *out = t;
    return 0;
}

void team_destroy(struct team *t)
{
    if (t == NULL) {
        return;
    }
    t->quit = true;
    atomic_fetch_add(&t->round, 1);
    futex_wake(&t->round);
    for (unsigned i = 1; i <= t->started; i++) {
        (void)pthread_join(t->members[i].thread, NULL);
    }
    plx_free(t);
}
