/* SPDX-License-Identifier: Apache-2.0
 * tests/bench/work/work.c - workloads that measures run inside of a guest, and natively.
 *
 *   work NAME [THREADS [COUNT]]     prints "work NAME THREADS begins COUNT" when all is prepared,
 *                                   and "work NAME THREADS: N ms" (the guest's monotonic clock)
 *
 * Each does COUNT units of work in all (0: a default of its own), so that THREADS changes the time
 * alone. Those of the kernel are here. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/work/work.h"

uint64_t work_count;
unsigned work_threads = 1;
volatile uint64_t work_sink;

void work_die(const char *what)
{
    perror(what);
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

void work_on_all(void *(*fn)(void *))
{
    pthread_t t[THREADS_MAX];

    for (uintptr_t i = 0; i < work_threads; i++) {
        if (pthread_create(&t[i], NULL, fn, (void *)i) != 0) {
            work_die("pthread_create");
        }
    }
    for (unsigned i = 0; i < work_threads; i++) {
        pthread_join(t[i], NULL);
    }
}

/* --- fork and exec ------------------------------------------------------------------------------
 */

static void *fork_part(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < work_count / work_threads; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            execl("/proc/self/exe", "work", "nothing", (char *)NULL);
            _exit(1);
        }
        waitpid(pid, NULL, 0);
    }
    return NULL;
}

static void fork_exec(void)
{
    work_on_all(fork_part);
}

/* --- a byte to and fro between two processes ----------------------------------------------------
 */

static void pipe_ping(void)
{
    int to[2], fro[2];
    char c = 0;

    if (pipe(to) != 0 || pipe(fro) != 0) {
        work_die("pipe");
    }
    if (fork() == 0) {
        while (read(to[0], &c, 1) == 1 && c == 0) {
            if (write(fro[1], &c, 1) != 1) {
                break;
            }
        }
        _exit(0);
    }
    for (uint64_t i = 0; i < work_count; i++) {
        if (write(to[1], &c, 1) != 1 || read(fro[0], &c, 1) != 1) {
            work_die("pipe");
        }
    }
    c = 1;
    (void)!write(to[1], &c, 1);
    wait(NULL);
}

/* --- page faults: map, touch, unmap
 * --------------------------------------------------------------- */

static void *fault_part(void *arg)
{
    enum { SIZE = 2 << 20 };

    (void)arg;
    for (uint64_t i = 0; i < work_count / work_threads; i++) {
        uint8_t *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            work_die("mmap");
        }
        madvise(p, SIZE, MADV_NOHUGEPAGE);
        for (unsigned at = 0; at < SIZE; at += 4096) {
            p[at] = 1;
        }
        munmap(p, SIZE);
    }
    return NULL;
}

static void page_faults(void)
{
    work_on_all(fault_part);
}

/* --- one lock that all threads want --------------------------------------------------------------
 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t counter;

static void *lock_part(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < work_count / work_threads; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void futex(void)
{
    work_on_all(lock_part);
    if (counter != work_count / work_threads * work_threads) {
        work_die("the lock does not exclude");
    }
}

/* --- context switches on one processor: sched_yield among processes of different memory ----------
 */

static void switches(void)
{
    enum { PROCESSES = 4, TOUCH = 24 };

    for (int p = 0; p < PROCESSES; p++) {
        if (fork() == 0) {
            volatile uint8_t *mem = malloc(TOUCH * 4096);
            for (uint64_t i = 0; i < work_count; i++) {
                for (int at = 0; at < TOUCH; at++) {
                    mem[at * 4096]++;
                }
                syscall(SYS_sched_yield);
            }
            _exit(0);
        }
    }
    while (wait(NULL) > 0) {
    }
}

/* --- system calls that do next to nothing ------------------------------------------------------
 */

static void *syscall_part(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < work_count / work_threads; i++) {
        syscall(SYS_getppid);
    }
    return NULL;
}

static void syscalls(void)
{
    work_on_all(syscall_part);
}

static void nothing(void)
{
}

const struct work works_os[] = {
    {"fork", NULL, fork_exec, 160, "child"},
    {"pipe", NULL, pipe_ping, 8000, "turn"},
    {"faults", NULL, page_faults, 24, "2 MiB"},
    {"futex", NULL, futex, 60000, "lock"},
    {"switches", NULL, switches, 3000, "yield of each"},
    {"syscall", NULL, syscalls, 1000000, "call"},
    {"nothing", NULL, nothing, 1, "time"},
    {NULL, NULL, NULL, 0, NULL},
};

static const struct work *find(const char *name)
{
    const struct work *const all[] = {works_os, works_cpu};

    for (unsigned t = 0; t < sizeof all / sizeof all[0]; t++) {
        for (const struct work *w = all[t]; w->name != NULL; w++) {
            if (strcmp(w->name, name) == 0) {
                return w;
            }
        }
    }
    return NULL;
}

static void list(const struct work *w)
{
    for (; w->name != NULL; w++) {
        fprintf(stderr, "  %-10s %8llu times %s\n", w->name, (unsigned long long)w->count, w->unit);
    }
}

int main(int argc, char **argv)
{
    const struct work *w = argc > 1 ? find(argv[1]) : NULL;
    double t0;

    work_threads = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
    if (w == NULL || work_threads == 0 || work_threads > THREADS_MAX) {
        fprintf(stderr, "usage: work NAME [THREADS [COUNT]]\n");
        list(works_os);
        list(works_cpu);
        return 1;
    }
    work_count = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    work_count = work_count == 0 ? w->count : work_count;
    if (w->run == nothing) {
        return 0;
    }
    if (w->prepare != NULL) {
        w->prepare();
    }
    printf("work %s %u begins %llu\n", w->name, work_threads, (unsigned long long)work_count);
    fflush(stdout);
    t0 = now_ms();
    w->run();
    printf("work %s %u: %.1f ms\n", w->name, work_threads, now_ms() - t0);
    return 0;
}
