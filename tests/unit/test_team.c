/* SPDX-License-Identifier: Apache-2.0
 * Hunts, in vmm/sched/team.c: a task that runs twice or not at all, a run that returns too early,
 * a wake-up that is lost, two threads that never are inside together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "vmm/sched/team.h"

enum { TASKS = 16 };

struct work {
    unsigned ran[TASKS]; /* written by tasks without any lock, read after the run */
    unsigned sum;
};

static void count(void *ctx, unsigned i)
{
    struct work *w = ctx;

    w->ran[i] += w->sum + 1; /* what the caller wrote is seen */
}

static void runs(unsigned threads, bool delays, unsigned rounds)
{
    const struct team_config cfg = {.threads = threads, .delays = delays};
    struct work w = {.sum = 0};
    struct team_counters c;
    struct team *t;

    assert_int_equal(team_create(&cfg, &t, NULL), 0);
    for (unsigned r = 0; r < rounds; r++) {
        unsigned n = 1 + r % TASKS;
        unsigned before[TASKS];
        for (unsigned i = 0; i < TASKS; i++) {
            before[i] = w.ran[i];
        }
        w.sum = r;
        team_run(t, n, count, &w);
        for (unsigned i = 0; i < TASKS; i++) {
            assert_int_equal(w.ran[i], before[i] + (i < n ? r + 1 : 0));
        }
        if (r % 64 == 63) {
            (void)usleep(100); /* long enough for the others to fall asleep now and then */
        }
    }
    team_counters(t, &c);
    assert_int_equal(c.runs, rounds);
    team_destroy(t);
}

static void every_task_runs_once(void **state)
{
    (void)state;
    runs(1, 0, 2000);
    runs(2, 0, 2000);
    runs(3, 0, 500);
    runs(16, 0, 100);
    runs(2, 7, 200);
    runs(4, 8, 100);
}

/* Each of two tasks waits until the other is there: possible only on two threads. */
struct meeting {
    atomic_uint there;
    pthread_t who[2];
};

static void meet(void *ctx, unsigned i)
{
    struct meeting *m = ctx;

    m->who[i] = pthread_self();
    atomic_fetch_add(&m->there, 1);
    while (atomic_load(&m->there) < 2) {
        (void)usleep(10);
    }
}

static void tasks_run_at_the_same_time(void **state)
{
    const struct team_config cfg = {.threads = 2};
    struct team_counters c;
    struct team *t;

    (void)state;
    assert_int_equal(team_create(&cfg, &t, NULL), 0);
    for (unsigned r = 0; r < 200; r++) {
        struct meeting m = {.there = 0};
        team_run(t, 2, meet, &m);
        assert_false(pthread_equal(m.who[0], m.who[1]));
        assert_true(pthread_equal(m.who[0], pthread_self()));
    }
    team_counters(t, &c);
    assert_int_equal(c.together, 200);
    team_destroy(t);
}

static void teams_come_and_go(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        const struct team_config cfg = {.threads = 1 + i % 5};
        struct team *t;
        assert_int_equal(team_create(&cfg, &t, NULL), 0);
        team_destroy(t);
    }
    team_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(tasks_run_at_the_same_time),
        cmocka_unit_test(teams_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
