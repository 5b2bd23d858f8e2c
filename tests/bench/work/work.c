/* SPDX-License-Identifier: Apache-2.0
 * tests/bench/work/work.c - workloads that measures run inside of a guest.
 *
 *   work NAME [THREADS]     prints "work NAME THREADS: N ms" (the guest's monotonic clock)
 *
 * Each does a fixed amount of work in all, so that THREADS changes the time alone. Results that
 * could be optimised away are folded into the exit of the program. */
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

enum { THREADS_MAX = 16 };

static unsigned threads = 1;
static volatile uint64_t sink;

static void die(const char *what)
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

/* Runs @fn(thread number) on all threads and waits. */
static void on_all(void *(*fn)(void *))
{
    pthread_t t[THREADS_MAX];

    for (uintptr_t i = 0; i < threads; i++) {
        if (pthread_create(&t[i], NULL, fn, (void *)i) != 0) {
            die("pthread_create");
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(t[i], NULL);
    }
}

/* --- integer compute: CRC-32 by table over a buffer of each thread's own ---------------------- */

static uint32_t crc_table[256];

static void *crc_part(void *arg)
{
    enum { TOTAL = 24 << 20, SIZE = 64 << 10 };
    uint8_t *buf = malloc(SIZE);
    uint32_t crc = (uint32_t)(uintptr_t)arg;

    for (unsigned i = 0; i < SIZE; i++) {
        buf[i] = (uint8_t)(i * 31 + crc);
    }
    for (unsigned done = 0; done < TOTAL / threads; done += SIZE) {
        for (unsigned i = 0; i < SIZE; i++) {
            crc = crc_table[(crc ^ buf[i]) & 0xff] ^ crc >> 8;
        }
    }
    sink += crc;
    free(buf);
    return NULL;
}

static void compute(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) {
            c = (c & 1) != 0 ? 0xedb88320 ^ c >> 1 : c >> 1;
        }
        crc_table[i] = c;
    }
    on_all(crc_part);
}

/* --- fork and exec ------------------------------------------------------------------------------
 */

static void *fork_part(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 160 / threads; i++) {
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
    on_all(fork_part);
}

/* --- a byte to and fro between two processes ----------------------------------------------------
 */

static void pipe_ping(void)
{
    enum { TURNS = 8000 };
    int to[2], fro[2];
    char c = 0;

    if (pipe(to) != 0 || pipe(fro) != 0) {
        die("pipe");
    }
    if (fork() == 0) {
        while (read(to[0], &c, 1) == 1 && c == 0) {
            if (write(fro[1], &c, 1) != 1) {
                break;
            }
        }
        _exit(0);
    }
    for (int i = 0; i < TURNS; i++) {
        if (write(to[1], &c, 1) != 1 || read(fro[0], &c, 1) != 1) {
            die("pipe");
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
    for (unsigned i = 0; i < 24 / threads; i++) {
        uint8_t *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            die("mmap");
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
    on_all(fault_part);
}

/* --- one lock that all threads want --------------------------------------------------------------
 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t counter;

static void *lock_part(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 60000 / threads; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void futex(void)
{
    on_all(lock_part);
    if (counter != 60000 / threads * threads) {
        die("the lock does not exclude");
    }
}

/* --- context switches on one processor: sched_yield among processes of different memory ----------
 */

static void switches(void)
{
    enum { PROCESSES = 4, YIELDS = 3000, TOUCH = 24 };

    for (int p = 0; p < PROCESSES; p++) {
        if (fork() == 0) {
            volatile uint8_t *mem = malloc(TOUCH * 4096);
            for (int i = 0; i < YIELDS; i++) {
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

static void nothing(void)
{
}

static const struct {
    const char *name;
    void (*run)(void);
} works[] = {
    {"compute", compute}, {"fork", fork_exec},    {"pipe", pipe_ping},  {"faults", page_faults},
    {"futex", futex},     {"switches", switches}, {"nothing", nothing},
};

int main(int argc, char **argv)
{
    for (unsigned i = 0; argc > 1 && i < sizeof works / sizeof works[0]; i++) {
        if (strcmp(argv[1], works[i].name) != 0) {
            continue;
        }
        threads = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
        if (threads == 0 || threads > THREADS_MAX) {
            break;
        }
        double t0 = now_ms();
        works[i].run();
        if (works[i].run != nothing) {
            printf("work %s %u: %.1f ms\n", argv[1], threads, now_ms() - t0);
        }
        return 0;
    }
    fprintf(stderr, "usage: work NAME [THREADS]; NAME one of:");
    for (unsigned i = 0; i < sizeof works / sizeof works[0]; i++) {
        fprintf(stderr, " %s", works[i].name);
    }
    fprintf(stderr, "\n");
    return 1;
}
