/* SPDX-License-Identifier: Apache-2.0
 * pollux-replica - runs one replica of one VM; started by polluxd with its channel on descriptor 3.
 *
 * main sets up, starts the VM thread and becomes the I/O thread (ops/replica/proc.h). */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/chaos.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/disk_image.h"
#include "ops/replica/proc.h"
#include "ops/replica/sandbox.h"

enum { CONTROL_FD = 3, STATS_MS = 1000, ANNOUNCE_MS = 500, READY_MS = 500 };

#define MS UINT64_C(1000000)

/* Said again until a record answers it: polluxd's proposal may get lost with a leader. One that
 * starts alone may be past JOINING before it has said it: the record of its assignment is told it
 * again whenever polluxd sees that applied again, and names it alone already. */
static void report_ready(struct proc *p, uint64_t now)
{
    enum rep_phase phase = rep_phase(p->rep);
    bool due = phase == REP_JOINING || (phase == REP_ALONE && !p->ready_answered);
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__Ready r = CTL__READY__INIT;

    if (!p->ready || rep_role(p->rep) != REP_PRIMARY || !due || now < p->next_ready) {
        return;
    }
    p->next_ready = now + READY_MS * MS;
    r.epoch = rep_epoch(p->rep);
    r.incarnation = p->start->incarnation;
    m.msg_case = CTL__FROM_REPLICA__MSG_READY;
    m.ready = &r;
    control_send(p, &m);
}

/* The VM's own end is said once its last output is out: then both replicas have it. */
static void report_stopped(struct proc *p)
{
    static const enum roles_stop reasons[] = {[POWER_OFF] = ROLES_STOP_POWER_OFF,
                                              [POWER_RESET] = ROLES_STOP_RESET,
                                              [POWER_DEBUG_EXIT] = ROLES_STOP_DEBUG_EXIT,
                                              [POWER_TRIPLE_FAULT] = ROLES_STOP_TRIPLE_FAULT};
    struct rep_stats s;

    if (p->stopped_at == 0 || p->stop_reported || rep_role(p->rep) != REP_PRIMARY) {
        return;
    }
    rep_stats(p->rep, &s);
    if (s.released >= p->stopped_at) {
        control_stopped(p, reasons[p->stop_event], p->stop_code, "");
        p->stop_reported = true;
    }
}

static void periodic(struct proc *p, uint64_t now)
{
    rep_tick(p->rep, now);
    if (p->announce_left > 0 && now >= p->announce_next) {
        output_announce(p);
        p->announce_left--;
        p->announce_next = now + ANNOUNCE_MS * MS;
    }
    if (now >= p->next_stats) {
        p->next_stats = now + STATS_MS * MS;
        control_stats(p, 0);
    }
    report_ready(p, now);
    report_stopped(p);
    if (rep_phase(p->rep) == REP_OUT) {
        atomic_store(&p->ending, true);
        proc_wake(p->wake_vm);
    }
}

static int timeout_ms(const struct proc *p, uint64_t now)
{
    uint64_t at = rep_deadline(p->rep);

    at = at < p->next_stats ? at : p->next_stats;
    if (p->link != NULL && link_deadline(p->link) < at) {
        at = link_deadline(p->link);
    }
    if (p->announce_left > 0 && p->announce_next < at) {
        at = p->announce_next;
    }
    return at <= now ? 0 : (int)((at - now + MS - 1) / MS);
}

/* What poll watches, in this order. */
enum { WATCH_WAKE, WATCH_CTL, WATCH_LINK, WATCHED = WATCH_LINK + LINK_FDS_MAX };

static void watch(struct proc *p, struct pollfd fds[WATCHED])
{
    int ctl = p->ctl >= 0 ? p->ctl : p->ctl_listen;

    fds[WATCH_WAKE] = (struct pollfd){.fd = p->wake_io, .events = POLLIN};
    fds[WATCH_CTL] = (struct pollfd){.fd = ctl, .events = POLLIN};
    for (unsigned i = WATCH_LINK; i < WATCHED; i++) {
        fds[i] = (struct pollfd){.fd = -1};
    }
    if (p->link != NULL) {
        link_pollfds(p->link, fds + WATCH_LINK, !p->vm_reads_link);
    }
}

/* The peer first: somebody waits for a backup's acknowledgement, and for what a primary's lets out.
 */
static void serve(struct proc *p, const struct pollfd fds[WATCHED])
{
    if (p->link != NULL) {
        int before = link_fd(p->link);

        link_ready(p->link, fds + WATCH_LINK);
        if (p->vm_reads_link) {
            link_look(p->link); /* the slice may be a long one */
        }
        peer_recv(p);
        link_tick(p->link, clock_mono_ns());
        if (link_fd(p->link) != before) {
            proc_wake(p->wake_vm);
        }
    }
    if (fds[WATCH_CTL].revents != 0 && p->ctl < 0 && p->ctl_listen >= 0) {
        control_accept(p);
    } else if (fds[WATCH_CTL].revents != 0) {
        control_recv(p);
    }
    periodic(p, clock_mono_ns());
    output_console_flush(p);
    control_tell_typed(p);
    control_flush(p);
}

static void io_loop(struct proc *p)
{
    struct pollfd fds[WATCHED] = {0}; /* poll finds what is there already */

    while (!atomic_load(&p->ending)) {
        int timeout;

        (void)pthread_mutex_lock(&p->lock);
        serve(p, fds);
        watch(p, fds);
        timeout = timeout_ms(p, clock_mono_ns());
        (void)pthread_mutex_unlock(&p->lock);
        (void)poll(fds, WATCHED, timeout);
        chaos_delay(CHAOS_IO);
        if (fds[WATCH_WAKE].revents != 0) {
            proc_drain(p->wake_io);
        }
    }
}

/* Heartbeats and acknowledgements must not wait behind the VMs of a busy host: a replica that is
 * silent for long loses its place. Threads made later start at normal priority. False: without the
 * right to it (CAP_SYS_NICE) the I/O goes on like everything else. */
static bool io_priority(void)
{
    struct sched_param param = {.sched_priority = 1};

    return sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param) == 0;
}

/* The VM thread, at normal priority, must not keep the I/O thread out while others of its kind have
 * the processor: who holds the lock inherits the priority of who waits for it. */
static void init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t a;

    PLX_CHECK(pthread_mutexattr_init(&a) == 0 &&
              pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT) == 0 &&
              pthread_mutex_init(lock, &a) == 0);
    (void)pthread_mutexattr_destroy(&a);
}

static int run(struct proc *p, struct plx_err *err)
{
    pthread_t vm;
    int rc = control_wait_start(p, err);

    if (rc == 0) {
        rc = setup_vm(p, err);
    }
    (void)io_priority();
    if (rc == 0) {
        rc = setup_rep(p, err);
    }
    if (rc == 0) {
        rc = sandbox_enter(err);
    }
    if (rc != 0) {
        return rc;
    }
    if (pthread_create(&vm, NULL, vm_thread, p) != 0) {
        return plx_fail(err, PLX_ENOMEM, "cannot start the VM thread");
    }
    io_loop(p);
    atomic_store(&p->ending, true);
    proc_wake(p->wake_vm);
    (void)pthread_join(vm, NULL);
    control_flush(p);
    return 0;
}

static void release(struct proc *p)
{
    rep_destroy(p->rep);
    link_close(p->link);
    vm_destroy(p->vm);
    hostio_destroy(p->io);
    packets_free(&p->to_polluxd);
    wbuf_free(&p->message);
    if (p->roles != NULL) {
        ctl__roles__free_unpacked(p->roles, NULL);
    }
    if (p->start != NULL) {
        ctl__start__free_unpacked(p->start, NULL);
    }
    plx_free(p);
}

int main(int argc, char **argv)
{
    struct plx_err err = {0};
    struct stat st;
    struct proc *p;
    int rc;

    (void)argc; /* arguments only tell a reader of ps which VM this is */
    if (fstat(CONTROL_FD, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        (void)fprintf(stderr, "%s is started by polluxd, with its channel on descriptor 3\n",
                      argv[0]);
        return 1;
    }
    log_init("pollux-replica", LOG_INFO);
    disk_image_register();
    (void)signal(SIGPIPE, SIG_IGN);
    p = plx_calloc(1, sizeof *p);
    PLX_CHECK(p != NULL);
    init_lock(&p->lock);
    p->ctl = CONTROL_FD;
    p->ctl_listen = -1;
    p->wake_io = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    p->wake_vm = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    PLX_CHECK(p->wake_io >= 0 && p->wake_vm >= 0);
    rc = run(p, &err);
    if (rc != 0) {
        log_error("%s", err.msg);
        control_stopped(p, ROLES_STOP_FAILED, 0, err.msg);
        control_flush(p);
        p->exit_code = 1;
    }
    if (chaos_on) {
        char line[CHAOS_SUMMARY];

        log_info("chaos: %s", chaos_summary(line));
    }
    rc = p->exit_code;
    release(p);
    return rc;
}
