/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/vm_thread.c - gathers inputs, seals or fetches records, runs slices.
 *
 * The straight way of one slice: gather (hostio) -> seal (rep: logged and shipped) -> vm_slice ->
 * disk requests to the local disks at once -> rep_ran (frames and console bytes are held under the
 * record until it is committed). A backup fetches instead of gathering and sealing. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/chaos.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/replica/proc.h"
#include "vmm/sched/pacer.h"
#include "vmm/tunables.h"

enum { WAIT_FDS_MAX = 64, REPORT_EVERY = 16, SPIN_NS = 100000, SPIN_SLICE_NS = 500000 };
#define WAIT_MAX_NS UINT64_C(1000000000)

struct vm_run {
    struct proc *p;
    struct input_batch in; /* gathered, not yet in a record */
    struct output_list out;
    struct wbuf rec;
    struct pacer pacer;
    bool was_primary;
    uint64_t digest_every, slice_ns, scrub_ns; /* the last two 0: built-in */
    uint64_t epoch, stamped;                   /* as the protocol has it; as the overlays have it */
    uint64_t wake_wall;                        /* primary with nothing to do before this */
    int link_fd;                               /* to be polled with the rest; -1: not by us */
    bool spinning;                             /* backup: see spin */
};

/* --- what happened on this host ----------------------------------------------------------------
 */

/* On a backup only the completions of its own disks count: the rest of the world talks to the
 * primary. They are kept until the primary's record says that they are seen. */
static void keep_disk_completions(struct input_batch *b, size_t from)
{
    size_t kept = from;

    for (size_t i = from; i < b->n; i++) {
        if (b->items[i].kind == INPUT_DISK_DONE) {
            b->items[kept] = b->items[i];
            b->offsets[kept] = b->offsets[i];
            kept++;
        }
    }
    b->n = kept;
}

static void forget_completion(struct input_batch *b, const struct input *done)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct input *in = &b->items[i];
        if (in->kind == INPUT_DISK_DONE && in->dev == done->dev && in->arg == done->arg) {
            memmove(&b->items[i], &b->items[i + 1], (b->n - i - 1) * sizeof b->items[0]);
            memmove(&b->offsets[i], &b->offsets[i + 1], (b->n - i - 1) * sizeof b->offsets[0]);
            b->n--;
            return;
        }
    }
}

/* What was typed, and the power button, as inputs. */
static int take_control_inputs(struct vm_run *r)
{
    struct proc *p = r->p;
    int rc;

    (void)pthread_mutex_lock(&p->lock);
    rc = typists_take(&p->typists, &r->in);
    if (p->power_button && rc == 0) {
        struct input in = {.kind = INPUT_POWER_BUTTON};
        p->power_button = false;
        rc = input_batch_add(&r->in, &in);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return rc;
}

/* The VM's first record brings what no replica may choose for itself. */
static int first_inputs(struct vm_run *r)
{
    uint8_t seed[32];
    struct input entropy = {.kind = INPUT_ENTROPY, .data = seed, .len = sizeof seed};
    struct input clock = {.kind = INPUT_WALLCLOCK, .arg = clock_wall_ns()};
    int rc;

    host_random(seed, sizeof seed);
    rc = input_batch_add(&r->in, &entropy);
    return rc != 0 ? rc : input_batch_add(&r->in, &clock);
}

/* --- one slice ---------------------------------------------------------------------------------
 */

/* Before the first write of an epoch the overlays say, durably, whose they are and since when. */
static int stamp_disks(struct vm_run *r, struct plx_err *err)
{
    struct proc *p = r->p;
    struct disk_stamp s = {
        .epoch = r->epoch, .incarnation = p->start->incarnation, .last_record = vm_seq(p->vm) - 1};
    int rc;

    if (r->epoch == r->stamped) {
        return 0;
    }
    memcpy(s.vm, p->id.vm, sizeof s.vm);
    rc = hostio_drain(p->io, err);
    if (rc == 0) {
        rc = hostio_stamp(p->io, &s, err);
    }
    r->stamped = r->epoch;
    return rc;
}

/* The stretch of RAM that this digest reads, so that all of it is read within scrub_ns. */
static uint64_t scrub_pages(const struct vm_run *r)
{
    uint64_t pages = vm_scrub_pages(r->p->vm);

    return r->scrub_ns == 0 ? pages : (uint64_t)((__uint128_t)pages * SCRUB_NS / r->scrub_ns) + 1;
}

static void after_slice(struct vm_run *r, const struct record *rec)
{
    struct proc *p = r->p;
    bool due = rec->seq % r->digest_every == 0;
    const struct digest_page *pages = NULL;
    struct vm_digest d;
    size_t npages = 0;
    uint64_t digest_ns = 0;

    if (due) {
        digest_ns = clock_thread_cpu_ns();
        vm_digest(p->vm, scrub_pages(r), &d, &pages, &npages);
        digest_ns = clock_thread_cpu_ns() - digest_ns;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->digest_ns += digest_ns;
    p->virtual_ns = vm_now(p->vm);
    p->retired = vm_retired(p->vm);
    if (rec->seq % REPORT_EVERY == 0) {
        hostio_stats(p->io, &p->host);
        vm_counters(p->vm, &p->counters);
        p->vm_cpu_ns = clock_thread_cpu_ns();
    }
    if (p->stopped_at == 0 && vm_stopped(p->vm, &p->stop_event, &p->stop_code)) {
        p->stopped_at = rec->seq;
        proc_wake(p->wake_io);
    }
    if (due) {
        rep_digest(p->rep, &d, pages, npages, clock_mono_ns());
    }
    typists_ran(&p->typists, rec);
    rep_ran(p->rep, rec->seq, &r->out, clock_mono_ns());
    (void)pthread_mutex_unlock(&p->lock);
}

static int run_slice(struct vm_run *r, const struct record *rec, struct plx_err *err)
{
    int rc;

    output_list_clear(&r->out);
    chaos_delay(CHAOS_SEALED);
    rc = vm_slice(r->p->vm, rec, &r->out, err);
    chaos_delay(CHAOS_RAN);
    if (rc == 0) {
        rc = stamp_disks(r, err);
    }
    if (rc == 0) {
        rc = hostio_submit(r->p->io, &r->out, err);
    }
    if (rc == 0) {
        after_slice(r, rec);
    }
    return rc;
}

/* Run the next record that was received. 1: did; 0: there is none. */
static int step_backup(struct vm_run *r, struct plx_err *err)
{
    struct proc *p = r->p;
    struct input *inputs = NULL;
    struct record rec;
    const uint8_t *data;
    size_t len;
    uint64_t seq;
    bool have;
    int rc;

    (void)pthread_mutex_lock(&p->lock);
    have = rep_next_record(p->rep, &seq, &data, &len);
    (void)pthread_mutex_unlock(&p->lock);
    if (!have) {
        return 0;
    }
    rc = record_decode(data, len, &rec, &inputs, err);
    for (uint32_t i = 0; rc == 0 && i < rec.ninputs; i++) {
        if (inputs[i].kind == INPUT_DISK_DONE) {
            forget_completion(&r->in, &inputs[i]);
        }
    }
    uint64_t began = clock_mono_ns();
    if (rc == 0) {
        rc = run_slice(r, &rec, err);
    }
    r->spinning = r->spinning && clock_mono_ns() - began < SPIN_SLICE_NS;
    plx_free(inputs);
    return rc != 0 ? rc : 1;
}

/* Seal and run the next record. 1: did; 0: nothing to do before r->wake_wall. */
static int step_primary(struct vm_run *r, struct plx_err *err)
{
    struct proc *p = r->p;
    struct pacer_view now = {.host_ns = clock_mono_ns(),
                             .virt_ns = vm_now(p->vm),
                             .progress = vm_clocked(p->vm),
                             .idle = vm_idle(p->vm),
                             .next_timer = vm_next_timer(p->vm),
                             .input = r->in.n != 0};
    struct pacer_step plan;
    struct record rec;
    bool sealed = false;
    int rc;

    pacer_next(&r->pacer, &now, &plan);
    if (plan.wait_ns != 0) {
        r->wake_wall = plan.wait_ns == PACER_FOREVER ? UINT64_MAX : now.host_ns + plan.wait_ns;
        return 0;
    }
    if (plan.jump) {
        struct input jump = {.kind = INPUT_JUMP};
        rc = input_batch_add(&r->in, &jump);
        if (rc != 0) {
            return plx_fail(err, rc, "out of memory");
        }
    }
    rec = (struct record){.seq = vm_seq(p->vm) + 1,
                          .start_ns = plan.start_ns,
                          .span_ns = r->slice_ns != 0 ? r->slice_ns : plan.span_ns,
                          .rate = plan.rate,
                          .ninputs = (uint32_t)r->in.n,
                          .inputs = r->in.items};
    wbuf_clear(&r->rec);
    record_encode(&rec, &r->rec);
    (void)pthread_mutex_lock(&p->lock);
    if (rep_may_seal(p->rep) && !r->rec.failed) {
        rep_seal(p->rep, rec.seq, rec.start_ns, r->rec.data, r->rec.len);
        peer_leave_to_io(p);
        sealed = true;
    }
    (void)pthread_mutex_unlock(&p->lock);
    if (!sealed) {
        r->wake_wall = UINT64_MAX; /* the protocol wakes us */
        return 0;
    }
    rc = run_slice(r, &rec, err);
    input_batch_clear(&r->in);
    return rc != 0 ? rc : 1;
}

/* --- the loop ----------------------------------------------------------------------------------
 */

/* A backup that has run everything looks for the next record for SPIN_NS before it sleeps, if the
 * last one came as soon: to wake a sleeper costs the primary more than all else of sending, while
 * its client waits. What comes while a slice runs is acknowledged after it meanwhile, so slices
 * must be short. True: there is something. */
static bool spin(struct pollfd *fds, unsigned n, uint64_t since)
{
    do {
        if (poll(fds, n, 0) > 0) {
            return true;
        }
        (void)sched_yield();
    } while (clock_mono_ns() - since < SPIN_NS);
    return false;
}

static void wait_for_work(struct vm_run *r, uint64_t until)
{
    struct pollfd fds[WAIT_FDS_MAX];
    uint64_t now = clock_mono_ns(), timeout = until > now ? until - now : 0;
    struct timespec ts;
    unsigned n;

    timeout = timeout < WAIT_MAX_NS ? timeout : WAIT_MAX_NS;
    fds[0] = (struct pollfd){.fd = r->p->wake_vm, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = r->link_fd, .events = POLLIN};
    n = 2;
    if (!hostio_batch_full(&r->in)) { /* else what is readable stays so until the VM may go on */
        n += hostio_pollfds(r->p->io, fds + n, WAIT_FDS_MAX - n, &timeout);
    }
    if (r->spinning && !r->was_primary) {
        r->spinning = spin(fds, n, now);
        return; /* the loop hands the link back, or finds what there is */
    }
    ts = (struct timespec){.tv_sec = (time_t)(timeout / 1000000000),
                           .tv_nsec = (long)(timeout % 1000000000)};
    (void)ppoll(fds, n, &ts, NULL);
    r->spinning = clock_mono_ns() - now < SPIN_NS;
}

/* What was typed has become safe: its session may type on. */
static void tell_typed(struct proc *p)
{
    struct rep_stats s;

    if (p->typists.tell) {
        rep_stats(p->rep, &s);
        if (typists_must_tell(&p->typists, s.released)) {
            proc_wake(p->wake_io);
        }
    }
}

static int gather(struct vm_run *r, bool primary, struct plx_err *err)
{
    size_t before = r->in.n;
    int rc;

    chaos_delay(CHAOS_GATHER);
    rc = hostio_poll(r->p->io, 0, &r->in, err);
    if (rc != 0) {
        return rc;
    }
    if (!primary) {
        keep_disk_completions(&r->in, before);
        return 0;
    }
    rc = take_control_inputs(r);
    return rc == 0 ? 0 : plx_fail(err, rc, "out of memory");
}

/* Becoming primary: the pacer starts from the VM's clock as it is now. */
static int become_primary(struct vm_run *r, struct plx_err *err)
{
    r->was_primary = true;
    pacer_init(&r->pacer, clock_mono_ns(), vm_now(r->p->vm));
    if (vm_seq(r->p->vm) == 0 && first_inputs(r) != 0) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    return 0;
}

static int loop(struct vm_run *r, struct plx_err *err)
{
    struct proc *p = r->p;

    while (!atomic_load(&p->ending)) {
        bool primary, may;
        int rc;

        proc_drain(p->wake_vm);
        (void)pthread_mutex_lock(&p->lock);
        /* One that has more to run than the last record would acknowledge too late. */
        r->spinning = r->spinning && !(p->vm_reads_link && rep_behind(p->rep));
        peer_recv_by_vm(p, r->spinning);
        r->link_fd = p->vm_reads_link ? link_fd(p->link) : -1;
        primary = rep_role(p->rep) == REP_PRIMARY;
        may = rep_may_seal(p->rep);
        r->epoch = rep_epoch(p->rep);
        if (primary) {
            tell_typed(p);
        }
        (void)pthread_mutex_unlock(&p->lock);
        rc = gather(r, primary, err);
        if (rc == 0 && primary && may && !r->was_primary) {
            rc = become_primary(r, err);
        }
        r->wake_wall = UINT64_MAX;
        if (rc == 0 && !vm_stopped(p->vm, NULL, NULL)) {
            if (!primary) {
                rc = step_backup(r, err);
            } else if (may) {
                rc = step_primary(r, err);
            }
        }
        if (rc < 0) {
            return rc;
        }
        if (rc == 0) {
            wait_for_work(r, r->wake_wall);
        }
    }
    return 0;
}

/* A replica whose host fails leaves; the guest never sees the error. */
static void leave(struct proc *p, const char *why)
{
    (void)pthread_mutex_lock(&p->lock);
    control_event(p, "host-error", why);
    p->exit_code = 1;
    atomic_store(&p->ending, true);
    proc_wake(p->wake_io);
    (void)pthread_mutex_unlock(&p->lock);
}

void *vm_thread(void *arg)
{
    struct proc *p = arg;
    const Ctl__Tunables *t = p->start->tunables;
    struct vm_run r = {.p = p, .digest_every = DIGEST_EVERY_SLICES};
    struct plx_err err = {0};

    if (t != NULL) {
        r.digest_every = t->digest_slices != 0 ? t->digest_slices : r.digest_every;
        r.slice_ns = t->slice_ns;
        r.scrub_ns = t->scrub_ns;
    }
    input_batch_init(&r.in);
    output_list_init(&r.out);
    wbuf_init(&r.rec);
    if (loop(&r, &err) != 0) {
        log_error("%s", err.msg);
        leave(p, err.msg);
    }
    input_batch_free(&r.in);
    output_list_free(&r.out);
    wbuf_free(&r.rec);
    return NULL;
}
